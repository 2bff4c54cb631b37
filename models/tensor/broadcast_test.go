package tensor

import "testing"

// TestBroadcast compares sums of rows and joined channels with their definitions, over
// several parts.
func TestBroadcast(t *testing.T) {
	t.Parallel()
	pool := NewPool(Config{Threads: 3})
	t.Cleanup(pool.Close)
	e := NewExec(pool)
	const images, pixels = 3, 701
	for _, c := range []int{1, 7, 64, 130} {
		number := func(i int) float32 { return float32(i%251) - 100 }
		a, b, each := make([]float32, images*pixels*c), make([]float32, images*pixels*2*c), make([]float32, images*c)
		for i := range b {
			b[i] = number(3 * i)
		}
		for i := range a {
			a[i] = number(i)
		}
		for i := range each {
			each[i] = number(7 * i)
		}
		joined := make([]float32, len(a)+len(b))
		e.Concat(joined, a, b, images*pixels)
		for i, v := range joined {
			row, col := i/(3*c), i%(3*c)
			want := number(3 * (row*2*c + col - c))
			if col < c {
				want = number(row*c + col)
			}
			if v != want {
				t.Fatalf("joined[%d, %d] = %v, want %v", row, col, v, want)
			}
		}
		e.AddEach(a, each, c)
		for i, v := range a {
			if want := number(i) + each[i/(pixels*c)*c+i%c]; v != want {
				t.Fatalf("sum[%d] = %v, want %v", i, v, want)
			}
		}
	}
}

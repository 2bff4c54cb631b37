package tensor

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestModulate compares the operations of transformers for images with their formulas,
// at every level.
func TestModulate(t *testing.T) {
	t.Parallel()
	for level := Generic; level <= BestLevel(); level++ {
		pool := NewPool(Config{Threads: 3, Level: level})
		t.Cleanup(pool.Close)
		e := NewExec(pool)
		for _, c := range []int{2, 16, 70, 192} {
			const rows = 701 // several parts
			random := rand.New(rand.NewPCG(1, uint64(c)))
			draw := func(n int) []float32 {
				x := make([]float32, n)
				for i := range x {
					x[i] = random.Float32()*2 - 1
				}
				return x
			}
			x, y, w := draw(rows*c), draw(rows*c), draw(c)

			got := append([]float32(nil), y...)
			e.AddGated(got, x, w)
			closeTo(t, "gated", got, func(i int) float64 { return float64(y[i]) + float64(x[i])*float64(w[i%c]) })

			copy(got, x)
			e.PReLU(got, w)
			closeTo(t, "prelu", got, func(i int) float64 {
				v := float64(x[i])
				return max(v, 0) + float64(w[i%c])*min(v, 0)
			})

			angles := draw(rows * c / 2)
			cos, sin := make([]float32, len(angles)), make([]float32, len(angles))
			for i, a := range angles {
				s, co := math.Sincos(float64(a))
				cos[i], sin[i] = float32(co), float32(s)
			}
			copy(got, x)
			e.RoPEPairs(got, cos, sin, 1, c)
			closeTo(t, "rope", got, func(i int) float64 {
				u, v := float64(x[i&^1]), float64(x[i|1])
				s, co := math.Sincos(float64(angles[i/2]))
				if i%2 == 0 {
					return u*co - v*s
				}
				return u*s + v*co
			})
		}
	}
}

func closeTo(t *testing.T, what string, got []float32, want func(i int) float64) {
	t.Helper()
	for i, v := range got {
		if w := want(i); !(math.Abs(float64(v)-w) <= 1e-6) {
			t.Fatalf("%s[%d] = %v, want %v", what, i, v, w)
		}
	}
}

package tensor

import (
	"fmt"
	"math"
	"testing"
)

var floatTypes = []DType{F32, F16, BF16}

// levelsOf returns the levels that this machine has.
func levelsOf() []Level { return []Level{Generic, AVX2, AVX512, AMX}[:BestLevel()] }

// execAt returns an Exec that computes with so many threads at a level.
func execAt(t testing.TB, c Config) *Exec {
	p := NewPool(c)
	t.Cleanup(p.Close)
	return NewExec(p)
}

// rounded returns x as it enters products with BF16 weights.
func rounded(x []float32) []float32 {
	r := make([]float32, len(x))
	for i, v := range x {
		widen(r[i:], BF16, []uint16{floatToBFloat(v)})
	}
	return r
}

// checkProduct compares y with the sums in double precision, as exactly as sums of
// float32 can be: within 2⁻²⁴ of the sum of the terms' sizes for each of about √K
// roundings, and never less than a few of them.
func checkProduct(t *testing.T, what string, y, x, w, bias []float32, cols int) {
	t.Helper()
	rows := len(w) / cols
	for i, got := range y {
		token, row := i/rows, i%rows
		var sum, size float64
		if bias != nil {
			sum = float64(bias[row])
			size = math.Abs(sum)
		}
		for k := range cols {
			term := float64(x[token*cols+k]) * float64(w[row*cols+k])
			sum += term
			size += math.Abs(term)
		}
		if tolerance := 0x1p-24 * size * (4 + math.Sqrt(float64(cols))); !(math.Abs(float64(got)-sum) <= tolerance) {
			t.Fatalf("%s: token %d, row %d is %v, want %v within %.2g", what, token, row, got, sum, tolerance)
		}
	}
}

// TestPackedProducts compares the kernels of every level with sums in double precision
// over odd sizes, and bit for bit between ways of calling.
func TestPackedProducts(t *testing.T) {
	t.Parallel()
	for _, l := range levelsOf() {
		for _, exact := range []bool{false, true} {
			one := execAt(t, Config{Threads: 1, Level: l, Exact: exact})
			two := execAt(t, Config{Threads: 2, Level: l, Exact: exact})
			for n := 1; n <= 70; n++ {
				rows, cols, tokens := n, 1+n*37%131, 1+n*11%40
				switch {
				case n%10 == 0:
					cols += depthBlock
				case n%3 == 0:
					cols = roundUp(cols, tileColumns)
				}
				for _, d := range floatTypes {
					name := fmt.Sprintf("%v %v exact=%v [%d, %d]·[%d, %d]ᵀ", l, d, exact, tokens, cols, rows, cols)
					plain, values := randomMatrix(uint64(n), d, rows, cols)
					w := plain.Pack(nil)
					x, bias := normal(2, tokens*cols), normal(3, rows)
					if n%3 == 0 {
						bias = nil
					}
					y := make([]float32, tokens*rows)
					one.MatMul(y, x, w, bias)
					used := x
					if _, exact := one.kernel(w).form().(floatStrips); !exact {
						used = rounded(x)
					}
					checkProduct(t, name, y, used, values, bias, cols)

					again := make([]float32, len(y))
					two.MatMul(again, x, w, bias)
					same(t, name+" on two threads", again, y)
					for lo, step := 0, 1; lo < tokens; lo, step = lo+step, step+1 {
						hi := min(lo+step, tokens)
						two.MatMul(again[lo*rows:hi*rows], x[lo*cols:hi*cols], w, bias)
					}
					same(t, name+" in pieces", again, y)
				}
			}
		}
	}
}

// TestPackedKernels compares every tile of the assembly with its Go twin.
func TestPackedKernels(t *testing.T) {
	t.Parallel()
}

func TestPack(t *testing.T) {
	t.Parallel()
	arena := new(Arena)
	defer arena.Close()
	for _, d := range floatTypes {
		m, values := randomMatrix(9, d, 37, 13)
		p := m.Pack(arena)
		if !p.Packed() || m.Packed() || p.Bytes() != m.PackedBytes() || p.Bytes() != int64(48*16*d.Size()) {
			t.Errorf("%v: packed %v in %d bytes, announced %d", d, p.Packed(), p.Bytes(), m.PackedBytes())
		}
		row := make([]float32, 13)
		for r := range 37 {
			p.Row(row, r)
			same(t, fmt.Sprintf("%v: row %d", d, r), row, values[r*13:][:13])
		}
		part := p.Slice(16, 37)
		part.Row(row, 20)
		same(t, "row of a slice", row, values[36*13:][:13])
		for name, f := range map[string]func(){
			"slice inside a group": func() { p.Slice(8, 16) },
			"slice to inside":      func() { p.Slice(0, 8) },
			"transpose":            func() { p.Transposed() },
			"gather":               func() { p.Gather([]int{1}) },
		} {
			if !panics(f) {
				t.Errorf("%s of a packed matrix does not panic", name)
			}
		}
	}
	if n := arena.Bytes(); n != 48*16*8 {
		t.Errorf("arena of %d bytes", n)
	}
	if err := arena.Close(); err != nil || arena.Bytes() != 0 {
		t.Errorf("closed arena: %d bytes, %v", arena.Bytes(), err)
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

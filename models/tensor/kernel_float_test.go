package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"unsafe"
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
					two.MatMul(again, x, plain, bias)
					same(t, name+" not packed", again, y)
				}
			}
		}
	}
}

// kernelsOf returns the float kernels of every level that this machine has, with and
// without pairs of BF16.
func kernelsOf() []*floatKernel {
	var kernels []*floatKernel
	for _, l := range levelsOf() {
		f := detect().limit(l)
		for _, d := range floatTypes {
			kernels = append(kernels, newFloatKernel(d, features{level: f.level}))
		}
		if f.bf16 {
			kernels = append(kernels, newFloatKernel(BF16, f))
		}
	}
	return kernels
}

// TestPackedKernels compares every shape of tile with the Go twin, each beginning with
// the same sums. They may differ by the rounding of the products alone.
func TestPackedKernels(t *testing.T) {
	t.Parallel()
	const between = 5 // floats in Y from one token's sums to the next
	for _, k := range kernelsOf() {
		for tokens := 1; tokens <= k.form().height(); tokens++ {
			for groups := 1; groups <= 9; groups++ {
				cols := 8 * (1 + (tokens+groups)%11)
				name := fmt.Sprintf("%v %v pairs=%v: %d tokens, %d groups, %d columns", k.level, k.dtype, k.pairs, tokens, groups, cols)
				plain, _ := randomMatrix(uint64(groups), k.dtype, groups*groupRows, cols)
				w := plain.Pack(nil)
				x := alignedBytes(tokens * k.form().bytes(cols))
				k.form().prepare(x, normal(2, tokens*cols), cols, tokens)
				stride := groups*groupRows + between
				got, want := normal(3, tokens*stride), normal(3, tokens*stride)
				tile := floatTile{
					y: &got[0], yStride: 4 * stride, start: &got[0], startStride: 4 * stride, startGroup: 4 * groupRows,
					x: unsafe.Pointer(&x[0]), w: unsafe.Pointer(&w.packed[0]), wStride: w.groupBytes(),
					steps: cols / k.stepColumns(), groups: groups, tokens: tokens,
				}
				k.run(&tile)
				tile.y, tile.start = &want[0], &want[0]
				tile.generic(k.dtype, k.pairs)
				for i := range want {
					inside := i%stride < groups*groupRows
					if d := math.Abs(float64(got[i] - want[i])); !(d <= 1e-5) || d > 0 && !inside {
						t.Fatalf("%s: float %d is %v, want %v", name, i, got[i], want[i])
					}
				}
			}
		}
	}
}

// TestPackedStrangeValues checks that NaN, infinities and denormals take the same way
// through every kernel. VDPBF16PS takes denormals for 0.
func TestPackedStrangeValues(t *testing.T) {
	t.Parallel()
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	const rows, cols, tokens = 19, 35, 9
	for _, l := range levelsOf() {
		for _, d := range floatTypes {
			e := execAt(t, Config{Threads: 1, Level: l})
			for at := range cols {
				w := make([]float32, rows*cols)
				w[at], w[cols+at], w[17*cols+at], w[18*cols+at] = nan, inf, -inf, 0x1p-14
				x, y := make([]float32, tokens*cols), make([]float32, tokens*rows)
				for i := range tokens {
					x[i*cols+at] = 0x1p-120
				}
				e.MatMul(y, x, strange(d, rows, cols, w).Pack(nil), nil)
				for i := range tokens {
					r := y[i*rows:][:rows]
					tiny := r[18] == 0x1p-134 || e.kernels.packed[d].form() == form(pairStrips{}) && r[18] == 0
					if r[0] == r[0] || r[1] != inf || r[17] != -inf || !tiny || r[4] != 0 {
						t.Fatalf("%v %v at %d, token %d: %v", l, d, at, i, r)
					}
				}
			}
		}
	}
}

// strange encodes values that may be NaN or infinite.
func strange(d DType, rows, cols int, values []float32) Matrix {
	if d == F32 {
		return FromFloat32s(rows, cols, values)
	}
	var data []byte
	for _, v := range values {
		bits := floatToBFloat(v)
		if d == F16 {
			bits = floatToHalf(v)
		}
		data = binary.LittleEndian.AppendUint16(data, bits)
	}
	return NewMatrix(d, rows, cols, data)
}

// FuzzMatMul compares packed products of any size, on every level, with plain sums, and
// bit for bit when the tokens are cut into two calls.
func FuzzMatMul(f *testing.F) {
	f.Add(uint8(0), uint16(1), uint16(1), uint8(1), uint8(0), true)
	f.Add(uint8(1), uint16(33), uint16(70), uint8(9), uint8(8), false)
	f.Add(uint8(2), uint16(50), uint16(640), uint8(40), uint8(3), false)
	f.Fuzz(func(t *testing.T, kind uint8, rows, cols uint16, tokens, cut uint8, exact bool) {
		d := floatTypes[int(kind)%len(floatTypes)]
		r, c, n := 1+int(rows%100), 1+int(cols%1200), 1+int(tokens%50)
		plain, values := randomMatrix(uint64(rows), d, r, c)
		w, x, bias := plain.Pack(nil), normal(uint64(cols), n*c), normal(uint64(tokens), r)
		for _, l := range levelsOf() {
			e := execAt(t, Config{Threads: 2, Level: l, Exact: exact})
			y, again := make([]float32, n*r), make([]float32, n*r)
			e.MatMul(y, x, w, bias)
			used := x
			if _, exact := e.kernel(w).form().(floatStrips); !exact {
				used = rounded(x)
			}
			name := fmt.Sprintf("%v %v exact=%v [%d, %d]·[%d, %d]ᵀ", l, d, exact, n, c, r, c)
			checkProduct(t, name, y, used, values, bias, c)
			at := int(cut) % (n + 1)
			e.MatMul(again[:at*r], x[:at*c], w, bias)
			e.MatMul(again[at*r:], x[at*c:], w, bias)
			same(t, fmt.Sprintf("%s cut at %d", name, at), again, y)
		}
	})
}

func TestMatMulPanics(t *testing.T) {
	t.Parallel()
	e := NewExec(nil)
	w := FromFloat32s(20, 3, make([]float32, 60)).Pack(nil)
	for name, f := range map[string]func(){
		"activations": func() { e.MatMul(make([]float32, 20), make([]float32, 4), w, nil) },
		"result":      func() { e.MatMul(make([]float32, 19), make([]float32, 3), w, nil) },
		"bias":        func() { e.MatMul(make([]float32, 20), make([]float32, 3), w, make([]float32, 16)) },
		"none":        func() { e.MatMuls(nil) },
		"other columns": func() {
			e.MatMuls(make([]float32, 3), Product{Y: make([]float32, 20), W: w}, Product{Y: make([]float32, 1), W: FromFloat32s(1, 2, make([]float32, 2))})
		},
	} {
		if !panics(f) {
			t.Errorf("wrong %s: no panic", name)
		}
	}
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

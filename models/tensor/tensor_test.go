package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// normal returns n normally distributed values.
func normal(seed uint64, n int) []float32 {
	random := rand.New(rand.NewPCG(seed, 7))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(random.NormFloat64())
	}
	return x
}

// encode returns values as little-endian bytes of a type, cut to what it holds, and
// the values that remain.
func encode(d DType, values []float32) ([]byte, []float32) {
	var data []byte
	for _, v := range values {
		switch d {
		case F32:
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		case BF16:
			data = binary.LittleEndian.AppendUint16(data, uint16(math.Float32bits(v)>>16))
		case F16:
			data = binary.LittleEndian.AppendUint16(data, cutToHalf(v))
		}
	}
	return data, Float32s(d, data)
}

// cutToHalf drops the bits that a normal half does not hold.
func cutToHalf(v float32) uint16 {
	b := math.Float32bits(v)
	exponent := int(b>>23&0xff) - 127 + 15
	if exponent <= 0 {
		return uint16(b >> 16 & 0x8000)
	}
	return uint16(b>>16&0x8000) | uint16(min(exponent, 30))<<10 | uint16(b>>13&0x3ff)
}

func randomMatrix(seed uint64, d DType, rows, cols int) (Matrix, []float32) {
	data, values := encode(d, normal(seed, rows*cols))
	return NewMatrix(d, rows, cols, data), values
}

// pool returns a pool that is closed with the test.
func pool(t testing.TB, threads int) *Pool {
	p := NewPool(Config{Threads: threads})
	t.Cleanup(p.Close)
	return p
}

// same stops at the first element that differs in its bits.
func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) {
			t.Fatalf("%s: element %d is %v, want %v, bit for bit", what, i, got[i], w)
		}
	}
}

// near stops at the first element that is further off than tolerance, relative to
// values of about 1.
func near(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tolerance*max(1, math.Abs(w))) {
			t.Fatalf("%s: element %d is %v, want %v within %g", what, i, got[i], w, tolerance)
		}
	}
}

func TestHalfToFloat(t *testing.T) {
	t.Parallel()
	for h := range 1 << 16 {
		sign, exponent, fraction := float64(1), h>>10&31, float64(h&1023)
		if h>>15 == 1 {
			sign = -1
		}
		want := sign * math.Ldexp(1+fraction/1024, exponent-15)
		switch {
		case exponent == 0:
			want = sign * math.Ldexp(fraction/1024, -14)
		case exponent == 31 && fraction == 0:
			want = math.Inf(int(sign))
		case exponent == 31:
			want = math.NaN()
		}
		got := float64(halfToFloat(uint16(h)))
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) != (sign < 0) {
			t.Fatalf("half %#04x is %v, want %v", h, got, want)
		}
	}
}

func TestViewOfMisalignedData(t *testing.T) {
	t.Parallel()
	values := normal(1, 9)
	data, _ := encode(F32, values)
	for shift := range 4 {
		moved := append(make([]byte, shift, shift+len(data)), data...)[shift:]
		same(t, fmt.Sprintf("shifted by %d", shift), view[float32](moved), values)
	}
}

func TestDTypes(t *testing.T) {
	t.Parallel()
	for d := F32; d <= Bool; d++ {
		if got, ok := ParseDType(d.String()); !ok || got != d || d.Size() == 0 {
			t.Errorf("type %v of %d bytes parses to %v", d, d.Size(), got)
		}
	}
	for _, name := range []string{"", "F8_E4M3", "f32"} {
		if d, ok := ParseDType(name); ok {
			t.Errorf("%q parses to %v", name, d)
		}
	}
	if DType(0).Size() != 0 || DType(99).Size() != 0 {
		t.Error("unknown types have a size")
	}
}

// TestMatMul compares with a plain sum in double precision, and bit for bit between
// ways of calling: by one or two threads, token by token or all at once.
func TestMatMul(t *testing.T) {
	t.Parallel()
	one, two := execAt(t, Config{Threads: 1, Exact: true}), execAt(t, Config{Threads: 2, Exact: true})
	for _, d := range []DType{F32, F16, BF16} {
		for _, z := range []struct{ tokens, rows, cols int }{
			{1, 1, 1}, {1, 7, 5}, {3, 8, 16}, {2, 9, 17}, {5, 40, 33}, {1, 300, 257}, {17, 65, 300}, {4, 129, 1031}, {9, 33, 64},
		} {
			name := fmt.Sprintf("%v [%d, %d]·[%d, %d]ᵀ", d, z.tokens, z.cols, z.rows, z.cols)
			w, values := randomMatrix(3, d, z.rows, z.cols)
			x, bias := normal(4, z.tokens*z.cols), normal(5, z.rows)
			y := make([]float32, z.tokens*z.rows)
			one.MatMul(y, x, w, bias)
			near(t, name, y, naiveMatMul(x, values, bias, z.cols), 2e-6*math.Sqrt(float64(z.cols)))

			again := make([]float32, len(y))
			two.MatMul(again, x, w, bias)
			same(t, name+" on two threads", again, y)
			for i := range z.tokens {
				one.MatMul(again[i*z.rows:][:z.rows], x[i*z.cols:][:z.cols], w, bias)
			}
			same(t, name+" token by token", again, y)
		}
	}
}

func naiveMatMul(x, w, bias []float32, cols int) []float64 {
	var y []float64
	for t := 0; t < len(x); t += cols {
		for r := 0; r < len(w); r += cols {
			sum := float64(bias[r/cols])
			for k := range cols {
				sum += float64(x[t+k]) * float64(w[r+k])
			}
			y = append(y, sum)
		}
	}
	return y
}

func TestMatMulPropagatesNaNAndInf(t *testing.T) {
	t.Parallel()
	inf := float32(math.Inf(1))
	e := NewExec(nil)
	for _, cols := range []int{1, 15, 16, 17, 70} {
		for at := range cols {
			w := make([]float32, 9*cols)
			x := make([]float32, cols)
			w[at], w[4*cols+at], w[8*cols+at] = float32(math.NaN()), inf, -inf
			x[at] = 1
			y := make([]float32, 9)
			e.MatMul(y, x, FromFloat32s(9, cols, w), nil)
			if y[0] == y[0] || y[4] != inf || y[8] != -inf || y[1] != 0 {
				t.Fatalf("%d columns, at %d: %v", cols, at, y)
			}
		}
	}
}

func TestMatMulsJoined(t *testing.T) {
	t.Parallel()
	e := NewExec(pool(t, 2))
	x := normal(1, 3*50)
	var want, got [3][]float32
	var products []Product
	for i, rows := range []int{70, 8, 33} {
		w, _ := randomMatrix(uint64(i), BF16, rows, 50)
		want[i], got[i] = make([]float32, 3*rows), make([]float32, 3*rows)
		e.MatMul(want[i], x, w, nil)
		products = append(products, Product{Y: got[i], W: w})
	}
	e.MatMuls(x, products...)
	for i := range want {
		same(t, fmt.Sprintf("product %d", i), got[i], want[i])
	}
}

func TestMatrix(t *testing.T) {
	t.Parallel()
	for _, d := range []DType{F32, F16, BF16} {
		m, values := randomMatrix(9, d, 5, 3)
		turned := m.Transposed().Slice(1, 3)
		row := make([]float32, 5)
		for c := range 2 {
			turned.Row(row, c)
			for r, v := range row {
				if v != values[r*3+c+1] {
					t.Fatalf("%v: element %d, %d is %v, want %v", d, r, c, v, values[r*3+c+1])
				}
			}
		}
		picked := m.Gather([]int{4, 0, 4})
		for i, r := range []int{4, 0, 4} {
			picked.Row(row[:3], i)
			same(t, fmt.Sprintf("%v: row %d", d, r), row[:3], values[3*r:][:3])
		}
		if m.Bytes() != int64(15*d.Size()) {
			t.Errorf("%v: %d bytes", d, m.Bytes())
		}
	}
}

func TestExp(t *testing.T) {
	t.Parallel()
	for x := float32(-87.3); x < 88.7; x += 0.00137 {
		want := math.Exp(float64(x))
		if got := float64(exp(x)); math.Abs(got-want) > 2.5e-7*want {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	inf := float32(math.Inf(1))
	for _, tt := range []struct{ x, want float32 }{{-inf, 0}, {inf, inf}, {0, 1}, {-1000, 0}, {1000, inf}, {-88, 0}} {
		if got := exp(tt.x); got != tt.want {
			t.Errorf("exp(%v) = %v, want %v", tt.x, got, tt.want)
		}
	}
	if x := exp(float32(math.NaN())); x == x {
		t.Errorf("exp(NaN) = %v", x)
	}
}

func TestSoftCap(t *testing.T) {
	t.Parallel()
	e := NewExec(pool(t, 2))
	const limit = 30
	inf := float32(math.Inf(1))
	x := append(normal(5, 20000), inf, -inf, 1e-8, 18.75, -18.75, 300, 0)
	for i := range 10000 {
		x[i] *= 30
	}
	for i, v := range x {
		want := limit * math.Tanh(float64(v)/limit)
		one := []float32{v}
		e.SoftCap(one, limit)
		if got := float64(one[0]); !(math.Abs(got-want) <= 3e-7*math.Abs(want)) {
			t.Fatalf("cap(%v) = %v, want %v", v, got, want)
		}
		x[i] = one[0]
	}
	nan := []float32{float32(math.NaN())}
	e.SoftCap(nan, limit)
	if nan[0] == nan[0] {
		t.Errorf("cap(NaN) = %v", nan[0])
	}
}

func TestActivations(t *testing.T) {
	t.Parallel()
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	e := NewExec(pool(t, 2))
	for name, f := range map[string]func(float64) float64{
		"silu":       func(x float64) float64 { return x * sigmoid(x) },
		"gelu":       func(x float64) float64 { return x * (1 + math.Erf(x/math.Sqrt2)) / 2 },
		"gelu_new":   func(x float64) float64 { return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) },
		"quick_gelu": func(x float64) float64 { return x * sigmoid(1.702*x) },
		"relu":       func(x float64) float64 { return max(x, 0) },
	} {
		act, ok := ParseActivation(name)
		if !ok {
			t.Fatalf("%q is unknown", name)
		}
		x := append(normal(2, 20000), -200, -90, 90, 200, 0)
		up := normal(3, len(x))
		var want, wantGate []float64
		for i, v := range x {
			want = append(want, f(float64(v)))
			wantGate = append(wantGate, f(float64(v))*float64(up[i]))
		}
		gate := append([]float32(nil), x...)
		e.Gate(act, gate, up)
		e.Activate(act, x)
		near(t, name, x, want, 1e-6)
		near(t, name+" gate", gate, wantGate, 3e-6)
	}
	if _, ok := ParseActivation("maxout"); ok {
		t.Error("maxout is known")
	}
}

func TestNorms(t *testing.T) {
	t.Parallel()
	const rows, cols, eps = 300, 71, 1e-5
	e := NewExec(pool(t, 2))
	x, weight, bias := normal(1, rows*cols), normal(2, cols), normal(3, cols)
	var rms, layer []float64
	for r := range rows {
		var mean, square, variance float64
		row := x[r*cols:][:cols]
		for _, v := range row {
			mean += float64(v) / cols
			square += float64(v) * float64(v) / cols
		}
		for _, v := range row {
			variance += (float64(v) - mean) * (float64(v) - mean) / cols
		}
		for i, v := range row {
			rms = append(rms, float64(v)/math.Sqrt(square+eps)*float64(weight[i]))
			layer = append(layer, (float64(v)-mean)/math.Sqrt(variance+eps)*float64(weight[i])+float64(bias[i]))
		}
	}
	y := make([]float32, len(x))
	e.RMSNorm(y, x, weight, eps)
	near(t, "rms norm", y, rms, 1e-6)
	e.LayerNorm(y, x, weight, bias, eps)
	near(t, "layer norm", y, layer, 1e-6)
	e.LayerNorm(x, x, weight, bias, eps)
	same(t, "layer norm in place", x, y)
}

func TestHeadLayerNorm(t *testing.T) {
	t.Parallel()
	const tokens, heads, dim, eps = 300, 3, 20, 1e-5
	e := NewExec(pool(t, 2))
	x, weight := normal(1, tokens*heads*dim), normal(2, heads*dim)
	want := make([]float32, len(x))
	for i := 0; i < len(x); i += dim {
		e.LayerNorm(want[i:i+dim], x[i:i+dim], weight[i%(heads*dim):][:dim], nil, eps)
	}
	e.HeadLayerNorm(x, x, weight, heads, eps)
	same(t, "norm of each head", x, want)
}

func TestGatherAndScatter(t *testing.T) {
	t.Parallel()
	const rows, cols = 400, 30
	e := NewExec(pool(t, 2))
	x, y := normal(1, rows*cols), normal(2, rows*cols)
	var index []int
	for r := 1; r < rows; r += 2 {
		index = append(index, rows-r)
	}
	weight := normal(3, len(index))
	want := make([]float64, len(y))
	for i, v := range y {
		want[i] = float64(v)
	}
	for i, r := range index {
		for c := range cols {
			want[r*cols+c] += float64(weight[i]) * float64(x[r*cols+c])
		}
	}
	some := make([]float32, len(index)*cols)
	e.Gather(some, x, cols, index)
	e.ScatterAdd(y, some, cols, index, weight)
	near(t, "scattered", y, want, 1e-6)
	e.Gather(some[:0], x, cols, nil)
}

func TestSoftmax(t *testing.T) {
	t.Parallel()
	e := NewExec(nil)
	inf := float32(math.Inf(1))
	x := []float32{1, 2, 3, 1000, 1000, -1000, 0, -inf, 0}
	e.Softmax(x, 3)
	s := 1 + math.E + math.E*math.E
	near(t, "softmax", x, []float64{1 / s, math.E / s, math.E * math.E / s, .5, .5, 0, .5, 0, .5}, 1e-6)
}

func TestRoPE(t *testing.T) {
	t.Parallel()
	const tokens, heads, dim, half = 3, 2, 6, 2
	e := NewExec(nil)
	x := normal(1, tokens*heads*dim)
	cos, sin := make([]float32, tokens*half), make([]float32, tokens*half)
	for i := range cos {
		s, c := math.Sincos(float64(i) / 3)
		cos[i], sin[i] = float32(c), float32(s)
	}
	var want []float64
	for i, v := range x {
		token, d := i/(heads*dim), i%dim
		switch {
		case d < half:
			s, c := math.Sincos(float64(token*half+d) / 3)
			want = append(want, float64(v)*c-float64(x[i+half])*s)
		case d < 2*half:
			s, c := math.Sincos(float64(token*half+d-half) / 3)
			want = append(want, float64(v)*c+float64(x[i-half])*s)
		default:
			want = append(want, float64(v))
		}
	}
	e.RoPE(x, cos, sin, heads, dim)
	near(t, "rope", x, want, 1e-6)
}

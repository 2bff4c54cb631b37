package tensor

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// randomQuantised returns a matrix of random blocks, and its values.
func randomQuantised(seed uint64, d DType, rows, cols int) (Matrix, []float32) {
	n, _ := d.Block()
	data := randomBlocks(rand.New(rand.NewPCG(seed, 1)), d, rows*cols/n)
	values := make([]float32, rows*cols)
	Dequantize(values, d, data)
	return NewMatrix(d, rows, cols, data), values
}

// activations returns rows whose blocks are of very different sizes.
func activations(seed uint64, n int) []float32 {
	random := rand.New(rand.NewPCG(seed, 3))
	x := make([]float32, n)
	var scale float64
	for i := range x {
		if i%quantStep == 0 {
			scale = math.Exp(4 * random.NormFloat64())
		}
		x[i] = float32(scale * random.NormFloat64())
	}
	return x
}

// TestQuantisedProducts compares all levels over odd sizes, bit for bit, and with the
// exact product of the dequantised weights, within what the definition allows.
func TestQuantisedProducts(t *testing.T) {
	t.Parallel()
	for _, d := range blockDTypes {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			for rows := 1; rows <= 70; rows += 1 + rows%3 {
				n, _ := d.Block()
				tokens, cols := 1+rows*7%40, n*(1+rows%3)
				plain, values := randomQuantised(uint64(rows), d, rows, cols)
				w := plain.Pack(nil)
				x, bias := activations(uint64(rows), tokens*cols), normal(3, rows)
				if rows%4 == 0 {
					bias = nil
				}
				var want []float32
				for _, l := range levelsOf() {
					name := fmt.Sprintf("%v [%d, %d]·[%d, %d]ᵀ", l, tokens, cols, rows, cols)
					e := execAt(t, Config{Threads: 2, Level: l})
					y := make([]float32, tokens*rows)
					e.MatMul(y, x, w, bias)
					if want == nil {
						want = y
						checkQuantised(t, name, y, x, values, bias, cols)
					}
					same(t, name, y, want)
				}
			}
		})
	}
}

// checkQuantised compares y with sums in double precision, within the bound that the
// definition of the product states: half a power of two for each activation, and the
// roundings to float32.
func checkQuantised(t *testing.T, what string, y, x, w, bias []float32, cols int) {
	t.Helper()
	rows := len(w) / cols
	for i, got := range y {
		token, row := i/rows, i%rows
		var sum, bound, size float64
		if bias != nil {
			sum = float64(bias[row])
			size = math.Abs(sum)
		}
		for at := 0; at < cols; at += quantStep {
			in, weights := x[token*cols+at:][:quantStep], w[row*cols+at:][:quantStep]
			largest := math.Abs(float64(extreme(in)))
			half := math.Exp2(math.Ceil(math.Log2(largest/127)) - 1)
			for k, v := range in {
				term := float64(v) * float64(weights[k])
				sum += term
				size += math.Abs(term)
				bound += half * math.Abs(float64(weights[k]))
			}
		}
		// Sums of levels are larger than those of weights by offsets at most.
		bound += 0x1p-24 * size * float64(cols/8)
		if !(math.Abs(float64(got)-sum) <= bound) {
			t.Fatalf("%s: token %d, row %d is %v, want %v within %.3g", what, token, row, got, sum, bound)
		}
	}
}

// TestQuantisedPieces cuts a sequence into calls, and uses other numbers of threads.
func TestQuantisedPieces(t *testing.T) {
	t.Parallel()
	const rows, cols, tokens = 7*groupRows + 3, 768, 2*maxQuantStrip + 21
	for _, d := range blockDTypes {
		plain, _ := randomQuantised(5, d, rows, cols)
		w := plain.Pack(nil)
		x, bias := activations(6, tokens*cols), normal(7, rows)
		want := make([]float32, tokens*rows)
		execAt(t, Config{Threads: 1}).MatMul(want, x, w, bias)
		got := make([]float32, len(want))
		e := execAt(t, Config{Threads: 3})
		for lo, step := 0, 1; lo < tokens; lo, step = lo+step, step+1 {
			hi := min(lo+step, tokens)
			e.MatMul(got[lo*rows:hi*rows], x[lo*cols:hi*cols], w, bias)
		}
		same(t, d.String()+" in pieces", got, want)
		parts := make([]float32, tokens*32)
		e.MatMul(parts, x, w.Slice(32, 64), bias[32:64])
		for i := range tokens {
			same(t, d.String()+" of a slice", parts[i*32:][:32], want[i*rows+32:][:32])
		}
	}
}

// TestQuantisedForms compares the assembly that quantises activations with its Go twin.
func TestQuantisedForms(t *testing.T) {
	t.Parallel()
	x := activations(1, 40*quantStep)
	for i, v := range []float32{
		0, 127, 127.00001, -127, 254, 0x1p-149, 0x1p-126, -0x1p-110, 0x1p-94, 0x1.fcp-95, 0x1p100, 0x1.fcp102,
		0x1.fc0002p102, math.MaxFloat32, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()),
	} {
		block := x[i*quantStep:][:quantStep]
		clear(block)
		block[(i*7)%quantStep] = v
		block[(i*5)%quantStep] = v / 2
	}
	for _, l := range levelsOf() {
		for _, f := range []quantForm{newQuantForm(Q8_0, l), newQuantForm(Q4_0, l), newQuantForm(Q6_K, l)} {
			want, got := make([]byte, f.bytes(len(x))), make([]byte, f.bytes(len(x)))
			f.quantizeRowGeneric(want, x, recordBytes)
			f.quantizeRow(got, x, recordBytes)
			for i := range 40 {
				if a, b := got[i*recordBytes:][:recordBytes], want[i*recordBytes:][:recordBytes]; !bytes.Equal(a, b) {
					t.Fatalf("%v %+v: record %d is\n% x, want\n% x", l, f, i, a, b)
				}
			}
		}
	}
}

func TestQuantisedNotFinite(t *testing.T) {
	t.Parallel()
	const cols, tokens = 512, 5
	for _, d := range blockDTypes {
		plain, _ := randomQuantised(5, d, 20, cols)
		w := plain.Pack(nil)
		for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1)), math.MaxFloat32} {
			x := activations(2, tokens*cols)
			x[2*cols+300] = v
			for _, l := range levelsOf() {
				y := make([]float32, tokens*20)
				execAt(t, Config{Threads: 1, Level: l}).MatMul(y, x, w, nil)
				for i, got := range y {
					if nan := got != got; nan != (i/20 == 2) {
						t.Fatalf("%v %v: token %d has %v where token 2 was given %v", d, l, i/20, got, v)
					}
				}
			}
		}
	}
}

func TestPackQuantised(t *testing.T) {
	t.Parallel()
	for _, d := range blockDTypes {
		n, _ := d.Block()
		const rows = 37
		cols := 3 * n
		m, values := randomQuantised(9, d, rows, cols)
		p := m.Pack(nil)
		row := make([]float32, cols)
		for r := range rows {
			p.Row(row, r)
			same(t, fmt.Sprintf("%v: packed row %d", d, r), row, values[r*cols:][:cols])
			m.Row(row, r)
			same(t, fmt.Sprintf("%v: row %d", d, r), row, values[r*cols:][:cols])
		}
		p.Slice(16, 37).Row(row, 20)
		same(t, "row of a packed slice", row, values[36*cols:][:cols])
		m.Slice(5, 9).Row(row, 1)
		same(t, "row of a slice", row, values[6*cols:][:cols])
		m.Gather([]int{30, 4}).Row(row, 1)
		same(t, "row gathered", row, values[4*cols:][:cols])
		if whole, _ := randomQuantised(1, d, 48, 4096); float64(whole.Pack(nil).Bytes()) > 1.03*float64(whole.Bytes()) {
			t.Errorf("%v: %d bytes packed from %d", d, whole.Pack(nil).Bytes(), whole.Bytes())
		}
		for name, f := range map[string]func(){
			"a part of a block": func() { NewMatrix(d, 1, n+1, make([]byte, d.Bytes(n))) },
			"transpose":         func() { m.Transposed() },
		} {
			if !panics(f) {
				t.Errorf("%v: %s does not panic", d, name)
			}
		}
	}
}

func TestQuantisedAllocates(t *testing.T) {
	for _, d := range blockDTypes {
		plain, _ := randomQuantised(1, d, 300, 1024)
		w := plain.Pack(nil)
		e := execAt(t, Config{Threads: 2})
		x, y := normal(1, 3*1024), make([]float32, 3*300)
		if n := testing.AllocsPerRun(20, func() { e.MatMul(y, x, w, nil) }); n != 0 {
			t.Errorf("%v: %v allocations", d, n)
		}
	}
}

// exactFMA computes in 300 bits, which hold every sum of the test exactly.
func exactFMA(x, y, z float32) float32 {
	number := func(v float32) *big.Float { return new(big.Float).SetPrec(300).SetFloat64(float64(v)) }
	sum := number(0).Mul(number(x), number(y))
	got, _ := sum.Add(sum, number(z)).Float32()
	return got
}

// FuzzQuantised compares the levels on matrices of arbitrary blocks and activations.
func FuzzQuantised(f *testing.F) {
	for i := range blockDTypes {
		f.Add(uint8(i), uint8(17+i), uint8(1+5*i), uint8(1), []byte{1, 2, 0x3c, 0x80, 0xff, 0x7f, 0x43})
	}
	f.Fuzz(func(t *testing.T, kind, rows, tokens, blocks uint8, data []byte) {
		d := blockDTypes[int(kind)%len(blockDTypes)]
		n, size := d.Block()
		m, count, k := 1+int(rows)%50, 1+int(tokens)%70, 1+int(blocks)%3
		if len(data) == 0 {
			return
		}
		weights := bytes.Repeat(data, 1+m*k*size/len(data))[:m*k*size]
		x := make([]float32, count*k*n)
		for i := range x {
			x[i] = math.Float32frombits(word(weights, 4*i%(len(weights)-3)))
		}
		w := NewMatrix(d, m, k*n, weights).Pack(nil)
		var want []float32
		for _, l := range levelsOf() {
			y := make([]float32, count*m)
			execAt(t, Config{Threads: 1, Level: l}).MatMul(y, x, w, nil)
			if want == nil {
				want = y
			}
			for i, v := range want {
				if y[i] != v && v == v {
					t.Fatalf("%v %v [%d, %d]·[%d, %d]ᵀ: element %d is %v, want %v", d, l, count, k*n, m, k*n, i, y[i], v)
				}
			}
		}
	})
}

func TestFMA(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	for range 200_000 {
		pick := func() float32 {
			return float32(math.Ldexp(float64(random.IntN(1<<24)-1<<23), random.IntN(60)-30))
		}
		x, y, z := pick(), pick(), pick()
		if got, want := fma(x, y, z), exactFMA(x, y, z); got != want {
			t.Fatalf("%v·%v + %v is %v, want %v", x, y, z, got, want)
		}
	}
}

// BenchmarkQuantised measures products on two threads, the quantising of activations
// included: type/tokens×rows×columns. GB/s are of packed weights.
func BenchmarkQuantised(b *testing.B) {
	for _, d := range blockDTypes {
		for _, z := range []struct{ tokens, rows, cols int }{
			{1, 2048, 2048}, {1, 32768, 4096}, {4, 32768, 4096}, {16, 4096, 1024}, {77, 3072, 768}, {1024, 1024, 1024},
		} {
			b.Run(fmt.Sprintf("%v/%dx%dx%d", d, z.tokens, z.rows, z.cols), func(b *testing.B) {
				arena := new(Arena)
				defer arena.Close()
				n, _ := d.Block()
				row := randomBlocks(rand.New(rand.NewPCG(1, 1)), d, z.cols/n)
				w := NewMatrix(d, z.rows, z.cols, bytes.Repeat(row, z.rows)).Pack(arena)
				e := execAt(b, Config{Threads: 2, Level: benchLevel(b)})
				x, y := normal(2, z.tokens*z.cols), make([]float32, z.tokens*z.rows)
				seconds := best(b, func() { e.MatMul(y, x, w, nil) })
				b.ReportMetric(2*float64(z.tokens*z.rows*z.cols)/seconds/1e9, "Gop/s")
				b.ReportMetric(float64(w.Bytes())/seconds/1e9, "GB/s")
			})
		}
	}
}

func BenchmarkPackQuantised(b *testing.B) {
	for _, d := range blockDTypes {
		b.Run(d.String(), func(b *testing.B) {
			plain, _ := randomQuantised(1, d, 512, 2048)
			b.SetBytes(plain.Bytes())
			arena := new(Arena)
			defer arena.Close()
			dst := plain.Pack(arena).packed
			for b.Loop() {
				plain.packGroups(dst, span{0, plain.groups()})
			}
		})
	}
}

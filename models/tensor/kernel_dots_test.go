package tensor

import (
	"fmt"
	"math"
	"testing"
)

// TestBytes compares products of I8 with those of the numbers that the bytes stand for,
// and every level bit for bit with the generic one.
func TestBytes(t *testing.T) {
	t.Parallel()
	all := newExecs(t)
	for _, z := range []struct{ tokens, rows, cols int }{
		{1, 1, 1}, {1, 16, 64}, {2, 33, 65}, {3, 48, 130}, {12, 32, 320}, {13, 70, 640}, {31, 20, 641},
		{33, 64, 1300}, {100, 35, 200}, {400, 96, 320}, {197, 17, 77},
	} {
		name := fmt.Sprintf("%d tokens [%d, %d]", z.tokens, z.rows, z.cols)
		w, values := randomMatrix(1, F32, z.rows, z.cols)
		packed := w.PackAs(nil, I8)
		x, bias := normal(2, z.tokens*z.cols), normal(3, z.rows)
		if z.tokens > 1 {
			clear(x[:z.cols])
		}
		want, bound := make([]float64, z.tokens*z.rows), make([]float64, z.tokens*z.rows)
		for i := range z.tokens {
			for r := range z.rows {
				sum, size := float64(bias[r]), 0.0
				for k := range z.cols {
					a, b := float64(x[i*z.cols+k]), float64(values[r*z.cols+k])
					sum += a * b
					size += math.Abs(a)*4/254 + math.Abs(b)*5/254
				}
				want[i*z.rows+r], bound[i*z.rows+r] = sum, size
			}
		}
		var generic []float32
		eachMachineLevel(func(l Level) {
			for threads, e := range all[l] {
				y := make([]float32, z.tokens*z.rows)
				e.MatMul(y, x, packed, bias)
				if generic == nil {
					generic = y
					for i, v := range y {
						if off := math.Abs(float64(v) - want[i]); !(off <= bound[i]) {
							t.Fatalf("%s: element %d is %v, want %v", name, i, v, want[i])
						}
					}
				}
				same(t, fmt.Sprintf("%s at %v on %d threads", name, l, threads+1), y, generic)
			}
		})
	}
}

// BenchmarkBytes measures products of a U-Net: type/tokens×rows×columns.
func BenchmarkBytes(b *testing.B) {
	for _, z := range []struct{ tokens, rows, cols int }{
		{4096, 320, 320}, {4096, 2560, 320}, {4096, 320, 1280}, {1024, 5120, 640}, {256, 1280, 5120}, {77, 1280, 768}, {1, 1280, 1280}, {1, 8192, 8192},
	} {
		for _, d := range []DType{F32, BF16, I8} {
			b.Run(fmt.Sprintf("%v/%dx%dx%d", d, z.tokens, z.rows, z.cols), func(b *testing.B) {
				e := execAt(b, Config{Threads: 2, Level: benchLevel(b)})
				w := FromFloat32s(z.rows, z.cols, make([]float32, z.rows*z.cols)).PackAs(nil, d)
				x, y := normal(2, z.tokens*z.cols), make([]float32, z.tokens*z.rows)
				seconds := best(b, func() { e.MatMul(y, x, w, nil) })
				b.ReportMetric(2*float64(z.tokens*z.rows*z.cols)/seconds/1e9, "GFLOP/s")
			})
		}
	}
}

// TestPairs compares both kernels of BF16 with sums in double precision.
func TestPairs(t *testing.T) {
	t.Parallel()
	f := detect()
	if !f.bf16 {
		t.Skip("the machine does not multiply BF16")
	}
	kernels := []pairKernel{{}}
	if f.tiles {
		kernels = append(kernels, pairKernel{tiles: true})
	}
	for _, k := range kernels {
		for rows := 1; rows <= dotRows; rows += 1 + rows/3 {
			const in, out = 70, 32
			config := ConvConfig{In: in, Out: out, Kernel: [2]int{1, 1}}
			w, values := randomMatrix(1, BF16, out, in)
			c := NewConv(config, w, nil)
			_, x := encode(BF16, normal(2, rows*in))
			prepared := alignedBytes(roundUp(rows, dotTileRows) * k.pixelBytes(in))
			k.prepare(prepared[:rows*k.pixelBytes(in)], x, in, in)
			s := new(directThread)
			s.sums = s.memory.sums()
			for twice := range 2 {
				k.contribute(c, s, dotTap{x: prepared, xRow: k.pixelBytes(in), w: c.dots, groups: 2, taps: 1, rows: rows, add: twice > 0})
				for i := range rows {
					for o := range out {
						var want float64
						for j := range in {
							want += float64(x[i*in+j]) * float64(values[o*in+j])
						}
						want *= float64(1 + twice)
						near(t, fmt.Sprintf("%+v, %d rows: %d, %d", k, rows, i, o), s.sums.sums[i*dotColumns+o:][:1], []float64{want}, 1e-4)
					}
				}
			}
		}
	}
}

// TestBytesQuality states how far products of I8 are from those in F32, by the ratio of
// signal and noise: of normally distributed numbers, with a few channels that are far
// larger than the others, and with a few tokens that are.
func TestBytesQuality(t *testing.T) {
	t.Parallel()
	const tokens, rows, cols = 64, 64, 640
	for _, tt := range []struct {
		name   string
		change func(x []float32)
		least  float64 // decibels
	}{
		{"normal", func([]float32) {}, 36},
		{"large channels", func(x []float32) {
			for i := 0; i < len(x); i += 160 {
				x[i] *= 20
			}
		}, 25},
		{"large tokens", func(x []float32) {
			for i := range x[:cols*4] {
				x[i] *= 100
			}
		}, 36},
	} {
		w, values := randomMatrix(1, F32, rows, cols)
		x := normal(2, tokens*cols)
		tt.change(x)
		e := NewExec(nil)
		want, got := make([]float32, tokens*rows), make([]float32, tokens*rows)
		e.MatMul(want, x, FromFloat32s(rows, cols, values), nil)
		e.MatMul(got, x, w.PackAs(nil, I8), nil)
		worst := math.Inf(1) // of the tokens
		for i := range tokens {
			var signal, noise float64
			for j := i * rows; j < (i+1)*rows; j++ {
				signal += float64(want[j]) * float64(want[j])
				noise += float64(got[j]-want[j]) * float64(got[j]-want[j])
			}
			worst = min(worst, 10*math.Log10(signal/noise))
		}
		t.Logf("%s: %.1f dB", tt.name, worst)
		if worst < tt.least {
			t.Errorf("%s: %.1f dB, want at least %v", tt.name, worst, tt.least)
		}
	}
}

// TestBytesSpecial checks what numbers that bytes cannot stand for become.
func TestBytesSpecial(t *testing.T) {
	t.Parallel()
	w, _ := randomMatrix(1, F32, 20, 70)
	packed := w.PackAs(nil, I8)
	x := normal(2, 5*70)
	x[3], x[70], x[140+69] = float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))
	for i := range x[210:280] {
		x[210+i] = 1e-40
	}
	for l, e := range newExecs(t) {
		y := make([]float32, 5*20)
		e[0].MatMul(y, x, packed, nil)
		for i, v := range y {
			switch token := i / 20; {
			case token < 3 && v == v, token == 3 && v != 0, token == 4 && v != v:
				t.Fatalf("%v: output %d of token %d is %v", l, i%20, token, v)
			}
		}
	}
}

// TestPackAs reads the elements back.
func TestPackAs(t *testing.T) {
	t.Parallel()
	for _, from := range []DType{F32, F16, BF16} {
		m, values := randomMatrix(1, from, 37, 45)
		for d, off := range map[DType]float64{0: 0, F32: 0, F16: 0.002, BF16: 0.02, I8: 0.02} {
			p := m.PackAs(new(Arena), d)
			row := make([]float32, m.Cols)
			for _, part := range []struct{ first, rows int }{{0, 37}, {16, 21}} {
				s := p.Slice(part.first, part.first+part.rows)
				for r := range s.Rows {
					s.Row(row, r)
					for k, v := range row {
						if want := values[(part.first+r)*m.Cols+k]; math.Abs(float64(v-want)) > off {
							t.Fatalf("%v as %v: element %d, %d is %v, want %v", from, d, part.first+r, k, v, want)
						}
					}
				}
			}
			if p.Bytes() != p.PackedBytes() || p.Bytes() != PackedBytes(p.DType, 37, 45) {
				t.Errorf("%v as %v: %d bytes, said to be %d", from, d, p.Bytes(), p.PackedBytes())
			}
		}
	}
}

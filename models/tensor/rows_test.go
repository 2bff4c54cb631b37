package tensor

import (
	"fmt"
	"math"
	"testing"
)

// TestVectorKernels compares every level with the functions in double precision, over
// odd lengths and misaligned starts, and checks that nothing beyond is written.
func TestVectorKernels(t *testing.T) {
	t.Parallel()
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	activations := map[Activation]func(float64) float64{
		SiLU:      func(x float64) float64 { return x * sigmoid(x) },
		GELU:      func(x float64) float64 { return x * (1 + math.Erf(x/math.Sqrt2)) / 2 },
		GELUTanh:  func(x float64) float64 { return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) },
		QuickGELU: func(x float64) float64 { return x * sigmoid(1.702*x) },
		ReLU:      func(x float64) float64 { return max(x, 0) },
		Identity:  func(x float64) float64 { return x },
	}
	eachMachineLevel(func(l Level) {
		for n := range 70 {
			x, y, w := normal(1, n+2)[1:], normal(2, n+2)[1:], normal(3, n+2)[1:]
			check := func(what string, got []float32, tolerance float64, want func(i int) float64) {
				t.Helper()
				var all []float64
				for i := range n {
					all = append(all, want(i))
				}
				near(t, fmt.Sprintf("%v %s of %d", l, what, n), got[:n], all, tolerance)
				if got[n] != normal(2, n+2)[n+1] {
					t.Fatalf("%v %s of %d wrote beyond its end", l, what, n)
				}
			}
			again := func() []float32 { copy(y, normal(2, n+2)[1:]); return y }
			old := normal(2, n+2)[1:]
			for f, exact := range activations {
				activate(l, f, again()[:n], x[:n], nil)
				check(fmt.Sprint("activation ", f), y, 1e-6, func(i int) float64 { return exact(float64(x[i])) })
				activate(l, f, again()[:n], x[:n], w[:n])
				check(fmt.Sprint("gate ", f), y, 1e-6, func(i int) float64 { return exact(float64(x[i])) * float64(w[i]) })
			}
			softCap(l, again()[:n], 0.7)
			check("cap", y, 1e-6, func(i int) float64 { return 0.7 * math.Tanh(float64(old[i])/0.7) })
			axpy(l, again()[:n], x[:n], 0.3)
			check("axpy", y, 1e-6, func(i int) float64 { return float64(old[i]) + 0.3*float64(x[i]) })
			scale(l, again()[:n], x[:n], 0.3)
			check("scale", y, 1e-6, func(i int) float64 { return 0.3 * float64(x[i]) })
			addHadamard(l, again()[:n], x[:n], w[:n])
			check("product", y, 1e-6, func(i int) float64 { return float64(old[i]) + float64(w[i])*float64(x[i]) })
			(&affine{w: w, mean: 0.5, scale: 2}).apply(l, again()[:n], x[:n])
			check("affine", y, 1e-6, func(i int) float64 { return (float64(x[i]) - 0.5) * 2 * float64(w[i]) })
			(&affine{w: w[:n], b: x[:n], mean: 0.5, scale: 2}).apply(l, again()[:n], x[:n])
			check("affine with bias", y, 2e-6, func(i int) float64 { return (float64(x[i])-0.5)*2*float64(w[i]) + float64(x[i]) })
			sums := columns{sum: again()[:n], squares: append([]float32(nil), w...), c: make([]float32, n)}
			sums.add(l, x[:n])
			check("columns", y, 1e-6, func(i int) float64 { return float64(old[i]) + float64(x[i]) })
			near(t, "squares", sums.squares[n:], []float64{float64(w[n])}, 0)

			var sum, squares, weights float64
			top := math.Inf(-1)
			for _, v := range x[:n] {
				sum += float64(v) - 0.5
				squares += (float64(v) - 0.5) * (float64(v) - 0.5)
				top = max(top, float64(v))
				weights += math.Exp(float64(v) - 0.5)
			}
			s, q := moments(l, x[:n], 0.5)
			near(t, fmt.Sprintf("%v moments of %d", l, n), []float32{float32(s), float32(q)}, []float64{sum, squares}, 1e-5)
			if got := maximum(l, x[:n]); float64(got) != top {
				t.Fatalf("%v: maximum of %d is %v, want %v", l, n, got, top)
			}
			copy(again(), x[:n])
			near(t, fmt.Sprintf("%v sum of %d", l, n), []float32{expSum(l, y[:n], 0.5)}, []float64{weights}, 1e-6)
			check("exp", y, 1e-6, func(i int) float64 { return math.Exp(float64(x[i]) - 0.5) })
		}
	})
}

// TestExpOfLevels checks exp on every level: within two units in the last place over
// its range, and at its ends.
func TestExpOfLevels(t *testing.T) {
	t.Parallel()
	inf := float32(math.Inf(1))
	eachMachineLevel(func(l Level) {
		var x []float32
		for v := float32(-87.3); v < 88.7; v += 0.00137 {
			x = append(x, v)
		}
		y := append([]float32(nil), x...)
		expSum(l, y, 0)
		for i, v := range x {
			want := math.Exp(float64(v))
			if got := float64(y[i]); math.Abs(got-want) > 2.5e-7*want {
				t.Fatalf("%v: exp(%v) = %v, want %v", l, v, got, want)
			}
		}
		ends := []float32{-inf, inf, 0, -1000, 1000, -88, 89, float32(math.NaN())}
		expSum(l, ends, 0)
		for i, want := range []float32{0, inf, 1, 0, inf, 0, inf} {
			if ends[i] != want {
				t.Errorf("%v: end %d is %v, want %v", l, i, ends[i], want)
			}
		}
		if v := ends[7]; v == v {
			t.Errorf("%v: exp(NaN) = %v", l, v)
		}
		if v := maximum(l, []float32{1, float32(math.NaN()), 2}); v == v {
			t.Errorf("%v: maximum beside a NaN is %v", l, v)
		}
	})
}

func TestGroupNorm(t *testing.T) {
	t.Parallel()
	for _, z := range []struct{ batch, pixels, channels, groups int }{{1, 1, 2, 1}, {2, 300, 33, 3}, {1, 129, 64, 32}, {3, 500, 6, 6}} {
		x, weight, bias := normal(1, z.batch*z.pixels*z.channels), normal(2, z.channels), normal(3, z.channels)
		for i := range x {
			x[i] = x[i]/3 + 10 // a mean that dwarfs the deviation
		}
		want := make([]float64, len(x))
		size := z.channels / z.groups
		for b := range z.batch {
			image := x[b*z.pixels*z.channels:]
			for g := range z.groups {
				var mean, variance float64
				n := float64(z.pixels * size)
				each := func(f func(i, c int)) {
					for p := range z.pixels {
						for c := g * size; c < (g+1)*size; c++ {
							f(p*z.channels+c, c)
						}
					}
				}
				each(func(i, _ int) { mean += float64(image[i]) / n })
				each(func(i, _ int) { variance += (float64(image[i]) - mean) * (float64(image[i]) - mean) / n })
				each(func(i, c int) {
					v := (float64(image[i])-mean)/math.Sqrt(variance+1e-5)*float64(weight[c]) + float64(bias[c])
					want[b*z.pixels*z.channels+i] = v / (1 + math.Exp(-v))
				})
			}
		}
		eachMachineLevel(func(l Level) {
			y := make([]float32, len(x))
			g := GroupNorm{Y: y, X: x, Weight: weight, Bias: bias, Batch: z.batch, Groups: z.groups, Eps: 1e-5, Activation: SiLU}
			NewExec(leveled(t, 1, l)).GroupNorm(g)
			near(t, fmt.Sprintf("%v %+v", l, z), y, want, 3e-5)
			g.X = append([]float32(nil), x...)
			g.Y = g.X
			NewExec(leveled(t, 2, l)).GroupNorm(g)
			same(t, fmt.Sprintf("%v %+v on two threads, in place", l, z), g.Y, y)
		})
	}
}

// TestResize compares with values of PyTorch's interpolate, worked out by its rules.
func TestResize(t *testing.T) {
	t.Parallel()
	e := NewExec(pool(t, 2))
	for _, tt := range []struct {
		name     string
		by       Interpolation
		from, to [2]int
		x        []float32
		want     []float64
	}{
		{"nearest up", Nearest, [2]int{2, 2}, [2]int{4, 3}, []float32{1, 2, 3, 4}, []float64{1, 1, 2, 1, 1, 2, 3, 3, 4, 3, 3, 4}},
		{"nearest down", Nearest, [2]int{1, 5}, [2]int{1, 2}, []float32{0, 1, 2, 3, 4}, []float64{0, 2}},
		{"linear up", Bilinear, [2]int{1, 2}, [2]int{1, 4}, []float32{0, 4}, []float64{0, 1, 3, 4}},
		{"linear down", Bilinear, [2]int{1, 4}, [2]int{1, 2}, []float32{0, 1, 2, 3}, []float64{0.5, 2.5}},
		{"bilinear up", Bilinear, [2]int{2, 2}, [2]int{4, 4}, []float32{0, 4, 8, 12}, []float64{0, 1, 3, 4, 2, 3, 5, 6, 6, 7, 9, 10, 8, 9, 11, 12}},
		{"same size", Bilinear, [2]int{2, 2}, [2]int{2, 2}, []float32{1, 2, 3, 4}, []float64{1, 2, 3, 4}},
	} {
		for _, channels := range []int{1, 3} {
			x, want := make([]float32, 2*channels*len(tt.x)), make([]float64, 2*channels*len(tt.want))
			for i := range x { // the second image and the other channels are multiples
				x[i] = tt.x[i/channels%len(tt.x)] * float32(1+i%channels+i/channels/len(tt.x))
			}
			for i := range want {
				want[i] = tt.want[i/channels%len(tt.want)] * float64(1+i%channels+i/channels/len(tt.want))
			}
			y := make([]float32, len(want))
			e.Resize(Resize{Y: y, X: x, Batch: 2, Height: tt.from[0], Width: tt.from[1], OutHeight: tt.to[0], OutWidth: tt.to[1], Channels: channels, By: tt.by})
			near(t, tt.name, y, want, 1e-6)
		}
	}
}

// TestBlocksAllocateNothing runs each operation again after the first time.
func TestBlocksAllocateNothing(t *testing.T) {
	e := NewExec(pool(t, 2))
	x, y, z := normal(1, 1<<14), normal(2, 1<<14), normal(3, 1<<14)
	kv := KVPages{K: normal(4, 1<<14), V: normal(5, 1<<14), PageTokens: 64, Heads: 2, HeadDim: 32}
	spans := []Span{{Rows: 64, Start: 20, Pages: []int32{3, 1}}, {Rows: 1, Start: 9, Pages: []int32{0}}}
	conv := NewConv(ConvConfig{In: 16, Out: 16, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}, FromFloat32s(16, 144, x[:16*144]), nil)
	for name, f := range map[string]func(){
		"store": func() { e.StoreKV(kv, x[:65*64], y[:65*64], spans) },
		"paged": func() {
			e.PagedAttention(PagedAttention{Out: y[:65*128], Q: x[:65*128], KV: kv, Spans: spans, Heads: 4, Scale: 1})
		},
		"full": func() {
			e.Attention(Attention{Out: y[:8192], Q: x[:8192], K: z[:8192], V: z[:8192], Heads: 4, KVHeads: 4, HeadDim: 32, Scale: 1})
		},
		"conv":   func() { e.Conv(Convolution{Y: y, X: x, Conv: conv, Height: 32, Width: 32}) },
		"groups": func() { e.GroupNorm(GroupNorm{Y: y, X: x, Weight: z[:64], Bias: z[:64], Groups: 8, Eps: 1}) },
		"resize": func() {
			e.Resize(Resize{Y: y, X: x[:1<<12], Height: 16, Width: 16, OutHeight: 32, OutWidth: 32, Channels: 16, By: Bilinear})
		},
		"gate": func() { e.Gate(SiLU, y, x) },
		"norm": func() { e.RMSNorm(y, x, z[:128], 1) },
	} {
		if n := testing.AllocsPerRun(10, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRows(b *testing.B) {
	const rows, cols = 512, 2048
	e := NewExec(pool(b, 2))
	x, y, w := normal(1, rows*cols), normal(2, rows*cols), normal(3, cols)
	for name, f := range map[string]func(){
		"gate":      func() { copy(y[:cols], w); e.Gate(SiLU, y, x) },
		"gelu":      func() { e.Activate(GELU, y) },
		"rmsnorm":   func() { e.RMSNorm(y, x, w, 1e-5) },
		"layernorm": func() { e.LayerNorm(y, x, w, w, 1e-5) },
		"groupnorm": func() {
			e.GroupNorm(GroupNorm{Y: y, X: x, Weight: w, Bias: w, Groups: 32, Eps: 1e-5, Activation: SiLU})
		},
		"softmax": func() { e.Softmax(y, cols) },
		"add":     func() { e.Add(y, x) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(4 * rows * cols)
			for b.Loop() {
				f()
			}
		})
	}
}

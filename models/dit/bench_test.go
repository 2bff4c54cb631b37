package dit

import (
	"testing"

	"helicon/models/nn"
	"helicon/models/tensor"
)

// BenchmarkJointBlock measures a block of Stable Diffusion 3 medium and of a narrower
// Flux, for 512×512 pixels and texts of their usual length.
func BenchmarkJointBlock(b *testing.B) {
	pool := tensor.NewPool(tensor.Config{})
	b.Cleanup(pool.Close)
	for _, shape := range []struct {
		name  string
		heads int
		text  int
		turns bool // rotary positions
	}{{"sd3", 24, 333, false}, {"flux", 12, 256, true}} {
		for _, d := range []tensor.DType{tensor.F32, tensor.BF16, tensor.I8} {
			b.Run(shape.name+"/"+d.String(), func(b *testing.B) {
				var arena tensor.Arena
				b.Cleanup(func() { arena.Close() })
				const width = 1536
				linear := func(out, in int) nn.Linear {
					w := tensor.FromFloat32s(out, in, draw(out*in, uint64(out+in)))
					return nn.Linear{Weight: w.PackAs(&arena, d), Bias: make([]float32, out)}
				}
				side := func() stream {
					s := stream{mod: linear(6*width, width), mlp: mlp{linear(4*width, width), linear(width, 4*width), tensor.GELUTanh}}
					s.attend = projections{q: linear(width, width), k: linear(width, width), v: linear(width, width), out: linear(width, width)}
					s.attend.qNorm, s.attend.kNorm = constant(width/shape.heads), constant(width/shape.heads)
					return s
				}
				block := jointBlock{text: side(), image: side()}
				size := backbone{heads: shape.heads, dim: width / shape.heads, inner: 4 * width, patch: 2, in: 16, out: 16}
				s := Shape{Batch: 1, Height: 64, Width: 64, Tokens: shape.text}
				l := size.layout(s)
				l.mod *= 2
				if shape.turns {
					l.angles = l.longest * size.dim / 2
				}
				st, e := newState(nil, s, l), tensor.NewExec(pool)
				copy(st.active, draw(width, 1))
				start := draw(len(st.x), 2)
				for b.Loop() {
					copy(st.x, start)
					block.forward(e, st)
				}
				tokens, c := float64(l.longest), float64(width)
				flop := 2 * tokens * c * (12*c + 2*tokens) // the products and attention
				b.ReportMetric(flop*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}

func constant(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = 1
	}
	return x
}

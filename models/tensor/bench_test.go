package tensor

import (
	"fmt"
	"math"
	"testing"
)

func BenchmarkMatMul(b *testing.B) {
	for _, z := range []struct{ tokens, rows, cols int }{{1, 864, 320}, {1, 4096, 4096}, {128, 864, 320}, {128, 2048, 2048}, {128, 1024, 11008}} {
		for _, d := range []DType{F32, F16, BF16} {
			b.Run(fmt.Sprintf("%dx%dx%d/%v", z.tokens, z.rows, z.cols, d), func(b *testing.B) {
				e := NewExec(pool(b, 2))
				w, _ := randomMatrix(1, d, z.rows, z.cols)
				x, y := normal(2, z.tokens*z.cols), make([]float32, z.tokens*z.rows)
				b.SetBytes(w.Bytes())
				for b.Loop() {
					e.MatMul(y, x, w, nil)
				}
				flops := 2 * float64(z.tokens) * float64(z.rows) * float64(z.cols) * float64(b.N)
				b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}

func BenchmarkAttention(b *testing.B) {
	for _, tokens := range []int{1, 128} {
		b.Run(fmt.Sprintf("%dx8x40 over 512", tokens), func(b *testing.B) {
			const heads, kvHeads, dim, seen = 8, 4, 40, 512
			e := NewExec(pool(b, 2))
			q, k := normal(1, tokens*heads*dim), normal(2, kvHeads*seen*dim)
			a := Attention{
				Out: make([]float32, len(q)), Q: q, K: k, V: k, Start: seen - tokens,
				Heads: heads, KVHeads: kvHeads, HeadDim: dim, Capacity: seen, Scale: float32(1 / math.Sqrt(dim)),
			}
			for b.Loop() {
				e.Attention(a)
			}
		})
	}
}

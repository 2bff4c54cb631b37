package tensor

import (
	"math"
	"testing"
)

// BenchmarkAttention reports what is multiplied and added, twice the products of
// queries, keys seen and components, and for decoding the bytes of the cache.
func BenchmarkAttention(b *testing.B) {
	for _, z := range []struct {
		name                      string
		tokens, start, heads, kvs int
		dim                       int
	}{
		{"decode", 1, 2047, 32, 4, 64},
		{"decode8", 1, 2047, 8, 8, 128},
		{"prompt512", 512, 0, 32, 4, 64},
	} {
		b.Run(z.name, func(b *testing.B) {
			e := NewExec(pool(b, 2))
			p := KVPages{PageTokens: 64, Heads: z.kvs, HeadDim: z.dim}
			seen := z.start + z.tokens
			s := Span{Rows: seen}
			for i := range roundUp(seen, 64) / 64 {
				s.Pages = append(s.Pages, int32(i))
			}
			p.K, p.V = make([]float32, len(s.Pages)*p.PageFloats()), make([]float32, len(s.Pages)*p.PageFloats())
			k := normal(2, seen*z.kvs*z.dim)
			e.StoreKV(p, k, k, []Span{s})
			s.Rows, s.Start = z.tokens, z.start
			q := normal(1, z.tokens*z.heads*z.dim)
			a := PagedAttention{Out: make([]float32, len(q)), Q: q, KV: p, Spans: []Span{s}, Heads: z.heads, Scale: float32(1 / math.Sqrt(float64(z.dim)))}
			pairs := 0
			for i := range z.tokens {
				pairs += z.start + i + 1
			}
			if z.tokens == 1 {
				b.SetBytes(int64(8 * len(k)))
			}
			for b.Loop() {
				e.PagedAttention(a)
			}
			flops(b, 4*float64(pairs)*float64(z.heads*z.dim))
		})
	}
	for _, z := range []struct {
		name                    string
		queries, keys, heads, d int
	}{
		{"image4096", 4096, 4096, 8, 40},
		{"image4096x64", 4096, 4096, 8, 64},
		{"cross77", 4096, 77, 8, 40},
	} {
		b.Run(z.name, func(b *testing.B) {
			e := NewExec(pool(b, 2))
			q, k := normal(1, z.queries*z.heads*z.d), normal(2, z.keys*z.heads*z.d)
			a := Attention{Out: make([]float32, len(q)), Q: q, K: k, V: k, Heads: z.heads, KVHeads: z.heads, HeadDim: z.d, Scale: 0.2}
			for b.Loop() {
				e.Attention(a)
			}
			flops(b, 4*float64(z.queries)*float64(z.keys)*float64(z.heads*z.d))
		})
	}
}

// flops reports the rate of a benchmark that does so much in a round.
func flops(b *testing.B, round float64) {
	b.ReportMetric(round*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

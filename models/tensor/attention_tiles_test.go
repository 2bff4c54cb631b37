package tensor

import (
	"fmt"
	"math"
	"testing"
)

// TestAttentionBF16 compares with the softmax written out, of operands rounded as they
// are: what is left is the rounding of weights, which is within 2⁻⁸ of each. Where there
// are no tiles, and in an exact pool, the result is that of float32.
func TestAttentionBF16(t *testing.T) {
	t.Parallel()
	for name, z := range map[string]struct {
		queries, keys int
		Attention
	}{
		"one":          {1, 1, Attention{Heads: 1, KVHeads: 1, HeadDim: 1}},
		"image":        {100, 100, Attention{Heads: 2, KVHeads: 2, HeadDim: 40}},
		"even":         {32, 512, Attention{Heads: 1, KVHeads: 1, HeadDim: 64}},
		"long":         {33, 600, Attention{Heads: 2, KVHeads: 2, HeadDim: 80}},
		"cross, batch": {50, 77, Attention{Batch: 3, Heads: 4, KVHeads: 2, HeadDim: 16}},
		"wide":         {17, 257, Attention{Heads: 1, KVHeads: 1, HeadDim: 160}},
		"odd":          {19, 31, Attention{Heads: 3, KVHeads: 1, HeadDim: 37}},
		"widest":       {5, 40, Attention{Heads: 1, KVHeads: 1, HeadDim: 256}},
		"too wide":     {5, 40, Attention{Heads: 1, KVHeads: 1, HeadDim: 257}},
	} {
		a, batch := z.Attention, max(z.Batch, 1)
		a.Scale = float32(2 / math.Sqrt(float64(z.HeadDim)))
		a.Q = normal(1, batch*z.queries*a.Heads*a.HeadDim)
		a.K, a.V = normal(2, batch*z.keys*a.KVHeads*a.HeadDim), normal(3, batch*z.keys*a.KVHeads*a.HeadDim)
		coarse := naiveAttention(asRounded(a))
		for _, c := range []Config{{Threads: 1, Level: AVX2}, {Threads: 1, Exact: true}, {Threads: 1}} {
			a.Out, a.BF16 = make([]float32, len(a.Q)), false
			e := execAt(t, c)
			e.Attention(a)
			plain := a.Out
			a.Out, a.BF16 = make([]float32, len(a.Q)), true
			e.Attention(a)
			if !e.features.tiles || a.HeadDim > 256 {
				same(t, fmt.Sprintf("%s of %+v", name, c), a.Out, plain)
				continue
			}
			near(t, name, a.Out, coarse, 8e-3)
			b := a
			b.Out = append([]float32(nil), a.Q...)
			b.Q = b.Out
			execAt(t, Config{Threads: 2}).Attention(b)
			same(t, name+" on two threads, in place", b.Out, a.Out)
		}
	}
}

// asRounded returns the call with operands rounded as attention in BF16 rounds them.
func asRounded(a Attention) Attention {
	k := make([]float32, len(a.K))
	for i, v := range a.K {
		k[i] = v * (a.Scale * math.Log2E)
	}
	a.Q, a.K, a.V, a.Scale = rounded(a.Q), rounded(k), rounded(a.V), math.Ln2
	return a
}

// TestAttentionBF16Extremes checks scores far apart, later keys that take over from
// earlier ones, and that a NaN spoils the queries that see it and no other head.
func TestAttentionBF16Extremes(t *testing.T) {
	t.Parallel()
	const keys, dim = 700, 32
	for _, size := range []float32{0, 1e-6, 30, 1e3, 1e6} {
		a := Attention{Q: normal(1, 3*2*dim), K: normal(2, keys*2*dim), V: normal(3, keys*2*dim), Heads: 2, KVHeads: 2, HeadDim: dim, Scale: 1, BF16: true}
		for i := range a.K {
			a.K[i] *= size * float32(1+i/(2*dim)) / keys
		}
		e := execAt(t, Config{Threads: 1})
		a.Out = make([]float32, len(a.Q))
		if !e.features.tiles {
			t.Skip("the machine has no AMX for BF16")
		}
		e.Attention(a)
		// What is rounded in sums of float32 counts more the larger the scores are.
		if size <= 30 {
			near(t, fmt.Sprintf("scores times %v", size), a.Out, naiveAttention(asRounded(a)), 1e-2)
		}
		a.V[650*2*dim+5] = float32(math.NaN())
		e.Attention(a)
		for i, v := range a.Out {
			if nan := v != v; nan != (i%(2*dim) == 5) {
				t.Fatalf("scores times %v: element %d is %v where a value of head 0 has component 5 not a number", size, i, v)
			}
		}
	}
}

func TestAttentionBF16Allocates(t *testing.T) {
	e := execAt(t, Config{Threads: 2})
	a := Attention{Q: normal(1, 90*80), K: normal(2, 300*80), V: normal(3, 300*80), Out: make([]float32, 90*80), Heads: 2, KVHeads: 2, HeadDim: 40, Scale: 1, BF16: true}
	if n := testing.AllocsPerRun(20, func() { e.Attention(a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

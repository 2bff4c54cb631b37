package bench

import (
	"context"
	"fmt"
	"math"

	"helicon/models/tensor"
)

// Attention is one call of attention in one layer of a network.
type Attention struct {
	Name                    string
	Queries, Keys           int // of a head; causal attention ends with the last key
	Heads, KVHeads, HeadDim int
	Layers                  int // caches that calls take in turn, as a network with so many layers does
}

// Attentions returns the calls that are measured: a step of text generation after so
// many tokens and a prompt, with the heads of a Llama of 1.1 billion parameters.
func Attentions() []Attention {
	const heads, kvHeads, dim, layers = 32, 4, 64, 22
	var list []Attention
	for _, n := range []int{512, 2048, 8192} {
		list = append(list, Attention{fmt.Sprintf("decode at %d", n), 1, n, heads, kvHeads, dim, layers})
	}
	return append(list, Attention{"prompt 512", 512, 512, heads, kvHeads, dim, layers})
}

// Attention measures a call. One with a single query is compared with the memory's rate
// and others with the rate of multiplication.
func (b *Bench) Attention(ctx context.Context, a Attention) (Result, error) {
	cache := a.KVHeads * a.Keys * a.HeadDim
	keys, values := make([][]float32, a.Layers), make([][]float32, a.Layers)
	for i := range a.Layers {
		keys[i], values[i] = randomFloats(cache), randomFloats(cache)
	}
	q := randomFloats(a.Queries * a.Heads * a.HeadDim)
	call := tensor.Attention{
		Out: make([]float32, len(q)), Q: q, Start: a.Keys - a.Queries,
		Heads: a.Heads, KVHeads: a.KVHeads, HeadDim: a.HeadDim, Capacity: a.Keys,
		Scale: float32(1 / math.Sqrt(float64(a.HeadDim))),
	}
	seen := float64(a.Keys) - float64(a.Queries-1)/2 // by a query, on average
	w := work{
		name: a.Name, dtype: tensor.F32, bytes: 2 * 4 * float64(cache), peak: F32,
		operations: 4 * float64(a.Queries) * float64(a.Heads) * float64(a.HeadDim) * seen,
	}
	if a.Queries == 1 {
		w.peak = Read
	}
	exec, turn := tensor.NewExec(b.pool), 0
	return b.measure(ctx, w, func(context.Context) error {
		call.K, call.V = keys[turn%a.Layers], values[turn%a.Layers]
		exec.Attention(call)
		turn++
		return nil
	})
}

package bench

import (
	"context"
	"fmt"
	"math"

	"helicon/models/lm"
	"helicon/models/tensor"
)

// Attention is one call of attention in one layer of a network.
type Attention struct {
	Name                    string
	Queries, Keys           int  // of a head; causal attention ends with the last key
	Image                   bool // all queries see all keys
	BF16                    bool // of an image: computed in BF16 where that is fast
	Heads, KVHeads, HeadDim int
	Layers                  int // caches that calls take in turn, as a network with so many layers does
}

// Attentions returns the calls that are measured: a step of text generation after so
// many tokens and a prompt, with the heads of a Llama of 1.1 billion parameters, and
// images of 64 by 64 latent pixels with the heads of Stable Diffusion 1 and 2.
func Attentions() []Attention {
	const heads, kvHeads, dim, layers = 32, 4, 64, 22
	var list []Attention
	for _, n := range []int{512, 2048, 8192} {
		list = append(list, Attention{
			Name: fmt.Sprintf("decode at %d", n), Queries: 1, Keys: n, Heads: heads, KVHeads: kvHeads, HeadDim: dim, Layers: layers,
		})
	}
	list = append(list, Attention{
		Name: "prompt 512", Queries: 512, Keys: 512, Heads: heads, KVHeads: kvHeads, HeadDim: dim, Layers: layers,
	})
	for _, bf16 := range []bool{false, true} {
		for _, dim := range []int{40, 64} {
			list = append(list, Attention{
				Name: fmt.Sprintf("image 4096, heads of %d", dim), Queries: 4096, Keys: 4096, Image: true, BF16: bf16, Heads: 8, KVHeads: 8, HeadDim: dim, Layers: 1,
			})
		}
	}
	return list
}

// Attention measures a call. One with a single query is compared with the memory's rate
// and others with the rate of multiplication. The error is the cause of ctx's end.
func (b *Bench) Attention(ctx context.Context, a Attention) (Result, error) {
	w := work{
		name: a.Name, dtype: tensor.F32, bytes: 2 * 4 * float64(a.KVHeads*a.Keys*a.HeadDim), peak: F32,
		operations: 4 * float64(a.Queries) * float64(a.Heads) * float64(a.HeadDim) * a.seen(),
	}
	switch {
	case a.Queries == 1:
		w.peak = Read
	case a.BF16:
		w.dtype, w.peak = tensor.BF16, b.multiplying(tensor.BF16)
	}
	call := a.cached
	if a.Image {
		call = a.image
	}
	run := call(tensor.NewExec(b.pool))
	return b.measure(ctx, w, func(context.Context) error { run(); return nil })
}

// seen is how many keys a query sees, on average.
func (a *Attention) seen() float64 {
	if a.Image {
		return float64(a.Keys)
	}
	return float64(a.Keys) - float64(a.Queries-1)/2
}

func (a *Attention) scale() float32 { return float32(1 / math.Sqrt(float64(a.HeadDim))) }

// image returns what attends to keys and values that lie in memory whole.
func (a *Attention) image(exec *tensor.Exec) func() {
	q, k := randomFloats(a.Queries*a.Heads*a.HeadDim), randomFloats(a.Keys*a.KVHeads*a.HeadDim)
	call := tensor.Attention{
		Out: make([]float32, len(q)), Q: q, K: k, V: k,
		Heads: a.Heads, KVHeads: a.KVHeads, HeadDim: a.HeadDim, Scale: a.scale(), BF16: a.BF16,
	}
	return func() { exec.Attention(call) }
}

// cached returns what attends to the caches of the layers in turn.
func (a *Attention) cached(exec *tensor.Exec) func() {
	kv := tensor.KVPages{PageTokens: lm.PageTokens, Heads: a.KVHeads, HeadDim: a.HeadDim}
	pages := make([]int32, (a.Keys+lm.PageTokens-1)/lm.PageTokens)
	for i := range pages {
		pages[i] = int32(i)
	}
	caches := make([][]float32, a.Layers) // keys and values
	for i := range caches {
		caches[i] = randomFloats(2 * len(pages) * kv.PageFloats())
	}
	q := randomFloats(a.Queries * a.Heads * a.HeadDim)
	call := tensor.PagedAttention{
		Out: make([]float32, len(q)), Q: q, KV: kv, Heads: a.Heads, Scale: a.scale(),
		Spans: []tensor.Span{{Rows: a.Queries, Start: a.Keys - a.Queries, Pages: pages}},
	}
	turn := 0
	return func() {
		cache := caches[turn%a.Layers]
		call.KV.K, call.KV.V = cache[:len(cache)/2], cache[len(cache)/2:]
		exec.PagedAttention(call)
		turn++
	}
}

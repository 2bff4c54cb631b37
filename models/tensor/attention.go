package tensor

import (
	"fmt"
	"math"
)

// Attention is causal attention of T queries at positions Start, Start+1, … over
// the keys and values of a cache.
type Attention struct {
	Out []float32 // [T, Heads, HeadDim]; may be Q
	Q   []float32 // [T, Heads, HeadDim]

	// K and V are [KVHeads, Capacity, HeadDim], filled up to position Start+T-1.
	// Heads is a multiple of KVHeads (grouped queries, Ainslie et al. 2023).
	K, V []float32

	Start                             int
	Heads, KVHeads, HeadDim, Capacity int

	Window int     // positions a query sees, itself included; 0 is all
	Scale  float32 // factor of q·k, commonly 1/√HeadDim
	Cap    float32 // scores are capped to ±Cap by SoftCap; 0 is not at all

	// KeyBias is [Heads, Capacity], what a head adds to its scores of each key, or
	// nil. ALiBi (Press et al. 2021) is a bias that falls with the key's distance.
	KeyBias []float32
}

// Attention computes Out = softmax(cap(Scale·Q·Kᵀ) + KeyBias)·V, a few keys at a time
// with a running maximum (Milakov and Gimelshein 2018), so that no row of scores is
// ever kept whole.
func (e *Exec) Attention(a Attention) {
	tokens := rowsOf(len(a.Q), a.Heads*a.HeadDim, "queries")
	cache := a.KVHeads * a.Capacity * a.HeadDim
	if a.KeyBias != nil && len(a.KeyBias) != a.Heads*a.Capacity {
		panic(fmt.Sprintf("tensor: attention of %d heads over %d keys with %d biases", a.Heads, a.Capacity, len(a.KeyBias)))
	}
	if len(a.Out) != len(a.Q) || len(a.K) != cache || len(a.V) != cache || a.KVHeads <= 0 ||
		a.Heads%a.KVHeads != 0 || a.Start < 0 || a.Start+tokens > a.Capacity {
		panic(fmt.Sprintf("tensor: attention of %d queries [%d, %d] at %d over %d keys and %d values [%d, %d, %d]",
			tokens, a.Heads, a.HeadDim, a.Start, len(a.K), len(a.V), a.KVHeads, a.Capacity, a.HeadDim))
	}
	t := &e.attention
	t.Attention, t.level, t.tokens = a, e.features.level, tokens
	blocks := (tokens + blockQueries - 1) / blockQueries
	seen := a.Start + tokens
	if a.Window > 0 {
		seen = min(seen, a.Window)
	}
	if parts := blocks * a.Heads; tokens*a.Heads*a.HeadDim*seen < inlineWork {
		for i := range parts {
			t.part(i)
		}
	} else {
		e.run(t, parts)
	}
}

type attentionTask struct {
	Attention
	level  Level
	tokens int
}

const (
	blockQueries = 16 // queries of one head that make a part
	blockKeys    = 64 // keys scored at a time
)

func (t *attentionTask) part(i int) {
	head, block := i%t.Heads, i/t.Heads
	kv := head / (t.Heads / t.KVHeads)
	keys := t.K[kv*t.Capacity*t.HeadDim:][:t.Capacity*t.HeadDim]
	values := t.V[kv*t.Capacity*t.HeadDim:][:t.Capacity*t.HeadDim]
	var bias []float32
	if t.KeyBias != nil {
		bias = t.KeyBias[head*t.Capacity:][:t.Capacity]
	}
	last := min((block+1)*blockQueries, t.tokens)
	for n := block * blockQueries; n < last; n++ {
		at := (n*t.Heads + head) * t.HeadDim
		t.query(t.Out[at:][:t.HeadDim], t.Q[at:][:t.HeadDim], keyed{keys, values, bias}, t.Start+n)
	}
}

// keyed is what one head knows of each position.
type keyed struct {
	keys, values []float32 // [Capacity, HeadDim]
	bias         []float32 // [Capacity], or nil
}

// query attends with q, at the given position, over the keys of one head.
func (t *attentionTask) query(out, q []float32, head keyed, position int) {
	d := t.HeadDim
	first := 0
	if t.Window > 0 {
		first = max(0, position+1-t.Window)
	}
	var scratch [blockKeys]float32
	var sums [maxHeadDim]float32
	acc := sums[:]
	if d > maxHeadDim {
		acc = make([]float32, d)
	}
	acc = acc[:d]
	top, total := float32(math.Inf(-1)), float32(0)
	for s := first; s <= position; s += blockKeys {
		n := min(blockKeys, position+1-s)
		scores := scratch[:n]
		multiply(t.level, scores, q, Matrix{DType: F32, Rows: n, Cols: d, f32: head.keys[s*d:][:n*d]}, shape{1, n, d})
		for i := range scores {
			scores[i] *= t.Scale
		}
		if t.Cap > 0 {
			softCap(t.level, scores, t.Cap)
		}
		if head.bias != nil {
			axpy(t.level, scores, head.bias[s:][:n], 1)
		}
		if m := maximum(t.level, scores); m > top {
			shrink := exp(top - m)
			total *= shrink
			for i := range acc {
				acc[i] *= shrink
			}
			top = m
		}
		total += expSum(t.level, scores, top)
		addWeighted(t.level, acc, scores, head.values[s*d:])
	}
	for i, v := range acc {
		out[i] = v / total
	}
}

// maxHeadDim is the largest head dimension whose sums fit on the stack.
const maxHeadDim = 256

package tensor

import "fmt"

// Attention is attention between two sequences that lie in memory whole: those of
// an image with itself, of an image with a text, of a decoder with what it has heard.
type Attention struct {
	Out []float32 // [B, Tq, Heads, HeadDim]; may be Q
	Q   []float32 // [B, Tq, Heads, HeadDim]
	K   []float32 // [B, Tk, KVHeads, HeadDim]
	V   []float32 // [B, Tk, KVHeads, HeadDim]

	Batch                   int // B; 0 is 1
	Heads, KVHeads, HeadDim int // Heads is a multiple of KVHeads

	Scale float32 // factor of q·k, commonly 1/√HeadDim
	Cap   float32 // scores are capped to ±Cap by SoftCap; 0 is not at all

	// Causal hides from query i the keys after Start+i, and all but Window of those up
	// to there if Window is not 0. Tk is at least Start+Tq then.
	Causal        bool
	Start, Window int

	// Bias is added to the scores: [Tq, Tk], or [Heads, Tq, Tk], or nil. -Inf hides a
	// key from a query, and a query that sees none gets zeros.
	Bias []float32

	// BF16 rounds queries, keys, values and weights to BF16, several times as fast, where
	// the pool is not Exact, the machine has AMX, and the call has none of Causal, Cap and
	// Bias. Elsewhere it changes nothing.
	BF16 bool
}

// Attention computes Out = softmax(cap(Scale·Q·Kᵀ) + Bias)·V. It copies K and V
// into memory of the Exec, in the order that the kernels read.
func (e *Exec) Attention(a Attention) {
	batch := max(a.Batch, 1)
	queries := rowsOf(len(a.Q), batch*a.Heads*a.HeadDim, "queries")
	keys := rowsOf(len(a.K), batch*a.KVHeads*a.HeadDim, "keys")
	bias := biases{data: a.Bias, row: keys}
	if len(a.Bias) == a.Heads*queries*keys {
		bias.head = queries * keys
	} else if a.Bias != nil && len(a.Bias) != queries*keys {
		panic(fmt.Sprintf("tensor: attention of %d queries, %d heads and %d keys with %d biases", queries, a.Heads, keys, len(a.Bias)))
	}
	if len(a.Out) != len(a.Q) || len(a.V) != len(a.K) || a.Heads%a.KVHeads != 0 ||
		a.Start < 0 || a.Causal && a.Start+queries > keys || !a.Causal && (a.Start != 0 || a.Window != 0) {
		panic(fmt.Sprintf("tensor: attention of %d queries into %d floats over %d keys and %d values, %d heads over %d, causal %v from %d in %d",
			len(a.Q), len(a.Out), len(a.K), len(a.V), a.Heads, a.KVHeads, a.Causal, a.Start, a.Window))
	}
	if queries == 0 {
		return
	}
	if keys == 0 {
		clear(a.Out)
		return
	}
	if e.attendTiles(a, queries, keys) {
		return
	}
	c := &e.contiguous
	kv := c.pages(batch, keys, a)
	e.StoreKV(kv, a.K, a.V, c.spans)
	for i := range c.spans {
		c.spans[i].Rows, c.spans[i].Start = queries, a.Start
	}
	t := &e.attend
	t.attention = attention{
		level: e.features.level, out: a.Out, q: a.Q, kv: kv, spans: c.spans,
		heads: a.Heads, window: a.Window, scale: a.Scale, limit: a.Cap, bias: bias,
	}
	if !a.Causal {
		t.keys = keys
	}
	t.run(e)
}

// contiguous is the memory in which Attention puts keys and values: a page for
// each member of the batch.
type contiguous struct {
	k, v  []float32
	spans []Span
	page  []int32
}

// pages returns room for so many keys in each page, and makes spans that fill it.
func (c *contiguous) pages(batch, keys int, a Attention) KVPages {
	kv := KVPages{PageTokens: roundUp(keys, tileKeys), Heads: a.KVHeads, HeadDim: a.HeadDim}
	c.k, c.v = grown(c.k, batch*kv.PageFloats()), grown(c.v, batch*kv.PageFloats())
	for len(c.page) < batch {
		c.page = append(c.page, int32(len(c.page)))
	}
	c.spans = c.spans[:0]
	for i := range batch {
		c.spans = append(c.spans, Span{Rows: keys, Pages: c.page[i : i+1]})
	}
	kv.K, kv.V = c.k, c.v
	return kv
}

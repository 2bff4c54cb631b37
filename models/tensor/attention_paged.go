package tensor

import "fmt"

// KVPages is what one layer remembers of its tokens: keys and values in pages of a
// fixed number of positions, which sequences share out among themselves. A page is a
// run of PageFloats floats of K and one of V, in an order that belongs to the kernels:
// it is written by StoreKV and may be copied whole; what it holds before does not matter.
type KVPages struct {
	K, V       []float32 // pages of PageFloats
	PageTokens int       // positions of a page: 16, 32, 64 or a multiple of 128
	Heads      int       // heads of keys and values
	HeadDim    int
}

// PageFloats returns the length of a page of K, and of one of V.
func (p KVPages) PageFloats() int { return p.Heads * p.headFloats() }

// headFloats is the part of a page that belongs to a head. Its keys are 16 side by
// side, [PageTokens/16, HeadDim, 16], and its values in panels of 16 components,
// [paddedDim/16, PageTokens, 16], so that both are panels of a product.
func (p KVPages) headFloats() int { return p.PageTokens * p.paddedDim() }

func (p KVPages) paddedDim() int { return roundUp(p.HeadDim, panelWidth) }

func roundUp(n, step int) int { return (n + step - 1) / step * step }

func (p KVPages) check() {
	good := p.PageTokens == 16 || p.PageTokens == 32 || p.PageTokens == 64 || p.PageTokens > 0 && p.PageTokens%tileKeys == 0
	if !good || p.Heads <= 0 || p.HeadDim <= 0 || len(p.K) != len(p.V) || len(p.K)%p.PageFloats() != 0 {
		panic(fmt.Sprintf("tensor: %d keys and %d values in pages [%d, %d, %d]", len(p.K), len(p.V), p.PageTokens, p.Heads, p.HeadDim))
	}
}

// Span is the part of a batch that belongs to one sequence: Rows rows in a row, at
// positions Start, Start+1, … Position p lies in page Pages[p/PageTokens]; a page
// that no query of the span sees is not touched, nor need its number be valid.
type Span struct {
	Rows, Start int
	Pages       []int32
}

// rowsOfSpans returns the rows of all spans and panics unless the pages that they
// name are there. A query sees so many positions, itself included; 0 is all.
func (p KVPages) rowsOfSpans(spans []Span, window int) int {
	rows, pages := 0, len(p.K)/p.PageFloats()
	for i, s := range spans {
		if s.Rows < 0 || s.Start < 0 || s.Start+s.Rows > len(s.Pages)*p.PageTokens {
			panic(fmt.Sprintf("tensor: span %d of %d rows at %d in %d pages of %d", i, s.Rows, s.Start, len(s.Pages), p.PageTokens))
		}
		if s.Rows == 0 {
			continue
		}
		first := 0
		if window > 0 {
			first = max(0, s.Start+1-window)
		}
		for _, page := range s.Pages[first/p.PageTokens : roundUp(s.Start+s.Rows, p.PageTokens)/p.PageTokens] {
			if page < 0 || int(page) >= pages {
				panic(fmt.Sprintf("tensor: span %d in page %d of %d", i, page, pages))
			}
		}
		rows += s.Rows
	}
	return rows
}

// StoreKV writes the keys and values k, v [T, p.Heads, p.HeadDim] of the spans, T the
// sum of their Rows, to their places in the pages. Spans may not share a position.
func (e *Exec) StoreKV(p KVPages, k, v []float32, spans []Span) {
	p.check()
	rows := p.rowsOfSpans(spans, 1)
	if n := rows * p.Heads * p.HeadDim; len(k) != n || len(v) != n {
		panic(fmt.Sprintf("tensor: %d keys and %d values of %d tokens [%d, %d]", len(k), len(v), rows, p.Heads, p.HeadDim))
	}
	t := &e.store
	*t = storeTask{pages: p, k: k, v: v, spans: spans, rows: rows, perPart: storeRows}
	if rows >= storeMany {
		t.perPart = panelWidth
	}
	if parts := ceilDiv(rows, t.perPart); len(k) < storeInline {
		for i := range parts {
			t.part(i)
		}
	} else {
		e.run(t, parts)
	}
}

// storeTask is a call of StoreKV. A part is a run of rows.
type storeTask struct {
	pages   KVPages
	k, v    []float32
	spans   []Span
	rows    int
	perPart int
}

const (
	storeRows = 2  // of a part, if there are few
	storeMany = 64 // rows of which a part has panelWidth, lest threads write the same lines

	// storeInline is the number of floats below which waking another thread costs more
	// than it saves: less than elsewhere, as each may wait for a line of memory.
	storeInline = 1 << 11
)

func (t *storeTask) part(i int) {
	lo, hi := i*t.perPart, min((i+1)*t.perPart, t.rows)
	first := 0
	for _, s := range t.spans {
		for r := max(lo, first); r < min(hi, first+s.Rows); r++ {
			t.row(r, s.Start+r-first, s.Pages)
		}
		first += s.Rows
	}
}

// row stores one token.
func (t *storeTask) row(r, position int, pages []int32) {
	p := &t.pages
	d, slot := p.HeadDim, position%p.PageTokens
	for g := range p.Heads {
		at := int(pages[position/p.PageTokens])*p.PageFloats() + g*p.headFloats()
		k, v := t.k[(r*p.Heads+g)*d:][:d], t.v[(r*p.Heads+g)*d:][:d]
		keys := p.K[at+slot/panelWidth*d*panelWidth+slot%panelWidth:]
		for i, x := range k {
			keys[i*panelWidth] = x
		}
		values := p.V[at+slot*panelWidth:]
		for i := 0; i < d; i += panelWidth {
			copy(values[i*p.PageTokens:], v[i:min(i+panelWidth, d)])
		}
	}
}

// PagedAttention is causal attention of several sequences at once, each over its own
// pages.
type PagedAttention struct {
	Out []float32 // [T, Heads, HeadDim], T the sum of the spans' Rows; may be Q
	Q   []float32 // [T, Heads, HeadDim]

	KV    KVPages // Heads is a multiple of KV.Heads: grouped queries (Ainslie et al. 2023)
	Spans []Span

	Heads  int
	Window int     // positions a query sees, itself included; 0 is all
	Scale  float32 // factor of q·k, commonly 1/√HeadDim
	Cap    float32 // scores are capped to ±Cap by SoftCap; 0 is not at all

	// KeyBias is [Heads, positions], what a head adds to its scores of each key, or
	// nil. ALiBi (Press et al. 2021) is a bias that falls with the key's distance.
	KeyBias []float32
}

// PagedAttention computes Out = softmax(cap(Scale·Q·Kᵀ) + KeyBias)·V. The keys and
// values of the queries' own positions must have been stored. A query's result depends
// on its sequence up to its position alone: neither on the other spans, nor on how the
// sequence was cut into calls, nor on the order of its pages.
func (e *Exec) PagedAttention(a PagedAttention) {
	a.KV.check()
	rows := a.KV.rowsOfSpans(a.Spans, a.Window)
	if n := rows * a.Heads * a.KV.HeadDim; a.Heads <= 0 || a.Heads%a.KV.Heads != 0 || len(a.Q) != n || len(a.Out) != n {
		panic(fmt.Sprintf("tensor: attention of %d queries [%d, %d, %d] into %d floats over keys of %d heads",
			len(a.Q), rows, a.Heads, a.KV.HeadDim, len(a.Out), a.KV.Heads))
	}
	t := &e.attend
	t.attention = attention{
		level: e.features.level, out: a.Out, q: a.Q, kv: a.KV, spans: a.Spans,
		heads: a.Heads, window: a.Window, scale: a.Scale, limit: a.Cap,
	}
	if a.KeyBias != nil {
		t.bias = biases{data: a.KeyBias, head: len(a.KeyBias) / a.Heads}
		for i, s := range a.Spans {
			if s.Start+s.Rows > t.bias.head || len(a.KeyBias)%a.Heads != 0 {
				panic(fmt.Sprintf("tensor: %d biases of %d heads for span %d up to position %d", len(a.KeyBias), a.Heads, i, s.Start+s.Rows))
			}
		}
	}
	t.run(e)
}

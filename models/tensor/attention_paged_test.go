package tensor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// paged is the keys and values of one sequence, and the pages that hold them.
type paged struct {
	keys, values []float32 // [positions, heads, dim]
	pages        []int32
}

// fill stores sequences in pages that are dealt out at random, each in calls of
// random lengths, over memory that others have used.
func fill(t *testing.T, e *Exec, seed uint64, p *KVPages, lengths []int) []paged {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	total := 1
	for _, n := range lengths {
		total += roundUp(n, p.PageTokens) / p.PageTokens
	}
	deal := random.Perm(total)
	p.K, p.V = normal(seed, total*p.PageFloats()), normal(seed+1, total*p.PageFloats())
	all := make([]paged, len(lengths))
	for i, n := range lengths {
		s := &all[i]
		s.keys, s.values = normal(seed+uint64(i)*2+2, n*p.Heads*p.HeadDim), normal(seed+uint64(i)*2+3, n*p.Heads*p.HeadDim)
		for range roundUp(n, p.PageTokens) / p.PageTokens {
			s.pages = append(s.pages, int32(deal[0]))
			deal = deal[1:]
		}
	}
	done := make([]int, len(lengths))
	for left := true; left; {
		left = false
		var spans []Span
		var k, v []float32
		for i, n := range lengths {
			rows := min(random.IntN(n+3), n-done[i])
			spans = append(spans, Span{Rows: rows, Start: done[i], Pages: all[i].pages})
			row := p.Heads * p.HeadDim
			k = append(k, all[i].keys[done[i]*row:][:rows*row]...)
			v = append(v, all[i].values[done[i]*row:][:rows*row]...)
			done[i] += rows
			left = left || done[i] < n
		}
		e.StoreKV(*p, k, v, spans)
	}
	return all
}

// scoring is what one query does with its keys, for the reference.
type scoring struct {
	heads, kvHeads, dim, window int
	scale, limit                float32
	keyBias                     []float32 // [heads, positions], or nil
}

// query is the softmax written out in double precision, for query q [heads, dim] at a
// position.
func (z scoring) query(q []float32, s paged, position int) []float64 {
	out := make([]float64, len(q))
	for h := range z.heads {
		g := h / (z.heads / z.kvHeads)
		first := 0
		if z.window > 0 {
			first = max(0, position-z.window+1)
		}
		var total float64
		for key := first; key <= position; key++ {
			var score float64
			at := (key*z.kvHeads + g) * z.dim
			for d := range z.dim {
				score += float64(q[h*z.dim+d]) * float64(s.keys[at+d])
			}
			score *= float64(z.scale)
			if z.limit > 0 {
				score = float64(z.limit) * math.Tanh(score/float64(z.limit))
			}
			if z.keyBias != nil {
				score += float64(z.keyBias[h*(len(z.keyBias)/z.heads)+key])
			}
			w := math.Exp(score)
			total += w
			for d := range z.dim {
				out[h*z.dim+d] += w * float64(s.values[at+d])
			}
		}
		for d := range z.dim {
			out[h*z.dim+d] /= total
		}
	}
	return out
}

// TestPagedAttention compares with the softmax written out in double precision, and
// bit for bit between threads, between batches and between ways of cutting sequences.
func TestPagedAttention(t *testing.T) {
	t.Parallel()
	one, two := NewExec(nil), NewExec(pool(t, 2))
	for i, z := range []struct {
		lengths []int
		tail    int // queries of each sequence, at its end
		page    int
		scoring
		biased bool
	}{
		{lengths: []int{1}, tail: 1, page: 16, scoring: scoring{heads: 1, kvHeads: 1, dim: 4}},
		{lengths: []int{200, 3, 64}, tail: 1, page: 32, scoring: scoring{heads: 8, kvHeads: 2, dim: 40}},
		{lengths: []int{130, 65}, tail: 65, page: 64, scoring: scoring{heads: 4, kvHeads: 2, dim: 16}},
		{lengths: []int{300}, tail: 133, page: 128, scoring: scoring{heads: 6, kvHeads: 6, dim: 24}},
		{lengths: []int{130, 257, 20}, tail: 20, page: 16, scoring: scoring{heads: 4, kvHeads: 1, dim: 16, window: 8}},
		{lengths: []int{130, 5}, tail: 4, page: 64, scoring: scoring{heads: 71, kvHeads: 1, dim: 16, window: 65}},
		{lengths: []int{70}, tail: 5, page: 32, scoring: scoring{heads: 2, kvHeads: 1, dim: 300}},
		{lengths: []int{9, 200}, tail: 9, page: 16, scoring: scoring{heads: 3, kvHeads: 3, dim: 7, window: 1}},
		{lengths: []int{130}, tail: 40, page: 64, scoring: scoring{heads: 4, kvHeads: 2, dim: 16, limit: 0.7}},
		{lengths: []int{130, 77}, tail: 40, page: 64, scoring: scoring{heads: 4, kvHeads: 2, dim: 16}, biased: true},
		{lengths: []int{133}, tail: 3, page: 16, scoring: scoring{heads: 3, kvHeads: 1, dim: 16, window: 66, limit: 1}, biased: true},
	} {
		name := fmt.Sprintf("%+v", z)
		z.scale = float32(1 / math.Sqrt(float64(z.dim)))
		if z.biased {
			z.keyBias = normal(4, z.heads*310)
		}
		p := KVPages{PageTokens: z.page, Heads: z.kvHeads, HeadDim: z.dim}
		all := fill(t, one, uint64(i)*100, &p, z.lengths)
		a := PagedAttention{KV: p, Heads: z.heads, Window: z.window, Scale: z.scale, Cap: z.limit, KeyBias: z.keyBias}
		for i, n := range z.lengths {
			a.Spans = append(a.Spans, Span{Rows: min(n, z.tail), Start: n - min(n, z.tail), Pages: all[i].pages})
		}
		row, tokens := z.heads*z.dim, p.rowsOfSpans(a.Spans, 0)
		q := normal(5, tokens*row)
		a.Q, a.Out = q, make([]float32, len(q))
		one.PagedAttention(a)
		token := 0
		for i, s := range a.Spans {
			for n := range s.Rows {
				at := (token + n) * row
				near(t, fmt.Sprintf("%s sequence %d query %d", name, i, n), a.Out[at:][:row], z.query(q[at:][:row], all[i], s.Start+n), 3e-6)
			}
			token += s.Rows
		}

		b := a
		b.Out = append([]float32(nil), q...)
		b.Q = b.Out
		two.PagedAttention(b)
		same(t, name+" on two threads, in place", b.Out, a.Out)
		token = 0
		for _, s := range a.Spans {
			for n := range s.Rows {
				at := (token + n) * row
				b.Spans = []Span{{Rows: 1, Start: s.Start + n, Pages: s.Pages}}
				b.Q, b.Out = q[at:][:row], b.Out[:row]
				two.PagedAttention(b)
				same(t, fmt.Sprintf("%s query %d alone", name, token+n), b.Out, a.Out[at:][:row])
			}
			token += s.Rows
		}
	}
}

package tensor

import (
	"fmt"
	"math"
	"testing"
)

// naiveAttention is the softmax written out in double precision.
func naiveAttention(a Attention) []float64 {
	batch := max(a.Batch, 1)
	queries, keys := len(a.Q)/(batch*a.Heads*a.HeadDim), len(a.K)/(batch*a.KVHeads*a.HeadDim)
	out := make([]float64, len(a.Q))
	for i := 0; i < len(out); i += a.HeadDim {
		token, head := i/a.HeadDim/a.Heads, i/a.HeadDim%a.Heads
		b, n := token/queries, token%queries
		var total float64
		for key := range keys {
			if a.Causal && (key > a.Start+n || a.Window > 0 && key <= a.Start+n-a.Window) {
				continue
			}
			at := ((b*keys+key)*a.KVHeads + head/(a.Heads/a.KVHeads)) * a.HeadDim
			var score float64
			for d := range a.HeadDim {
				score += float64(a.Q[i+d]) * float64(a.K[at+d])
			}
			score *= float64(a.Scale)
			if a.Cap > 0 {
				score = float64(a.Cap) * math.Tanh(score/float64(a.Cap))
			}
			switch len(a.Bias) {
			case 0:
			case queries * keys:
				score += float64(a.Bias[n*keys+key])
			default:
				score += float64(a.Bias[(head*queries+n)*keys+key])
			}
			w := math.Exp(score)
			total += w
			for d := range a.HeadDim {
				out[i+d] += w * float64(a.V[at+d])
			}
		}
		for d := range a.HeadDim {
			if total > 0 {
				out[i+d] /= total
			}
		}
	}
	return out
}

// TestAttention compares with the softmax written out on every level, and bit for
// bit between threads and between ways of cutting the queries.
func TestAttention(t *testing.T) {
	t.Parallel()
	for name, z := range map[string]struct {
		queries, keys int
		perHead, bias bool
		Attention
	}{
		"one":           {queries: 1, keys: 1, Attention: Attention{Heads: 1, KVHeads: 1, HeadDim: 1}},
		"image":         {queries: 200, keys: 200, Attention: Attention{Heads: 2, KVHeads: 2, HeadDim: 40}},
		"cross, batch":  {queries: 60, keys: 77, Attention: Attention{Batch: 3, Heads: 4, KVHeads: 2, HeadDim: 16}},
		"wide heads":    {queries: 33, keys: 129, Attention: Attention{Heads: 1, KVHeads: 1, HeadDim: 161}},
		"capped":        {queries: 33, keys: 129, Attention: Attention{Heads: 2, KVHeads: 1, HeadDim: 8, Cap: 0.5}},
		"causal":        {queries: 90, keys: 100, Attention: Attention{Heads: 3, KVHeads: 3, HeadDim: 8, Causal: true, Start: 10}},
		"window":        {queries: 200, keys: 230, Attention: Attention{Heads: 3, KVHeads: 1, HeadDim: 20, Causal: true, Start: 20, Window: 33}},
		"bias":          {queries: 70, keys: 140, bias: true, Attention: Attention{Heads: 2, KVHeads: 2, HeadDim: 8, Batch: 2}},
		"bias of heads": {queries: 31, keys: 140, bias: true, perHead: true, Attention: Attention{Heads: 4, KVHeads: 2, HeadDim: 8}},
	} {
		a, batch := z.Attention, max(z.Batch, 1)
		a.Scale = float32(1 / math.Sqrt(float64(z.HeadDim)))
		a.Q = normal(1, batch*z.queries*a.Heads*a.HeadDim)
		a.K, a.V = normal(2, batch*z.keys*a.KVHeads*a.HeadDim), normal(3, batch*z.keys*a.KVHeads*a.HeadDim)
		if z.bias {
			n := z.queries * z.keys
			if z.perHead {
				n *= a.Heads
			}
			a.Bias = normal(4, n)
			for i := range a.Bias {
				if i%5 == 0 || i < z.keys || i/z.keys == 3 && i%z.keys < 130 { // query 0 sees nothing
					a.Bias[i] = float32(math.Inf(-1))
				}
			}
		}
		want := naiveAttention(a)
		eachMachineLevel(func(l Level) {
			name := fmt.Sprintf("%v %s", l, name)
			one, two := NewExec(leveled(t, 1, l)), NewExec(leveled(t, 2, l))
			a.Out = make([]float32, len(a.Q))
			one.Attention(a)
			near(t, name, a.Out, want, 3e-6)
			b := a
			b.Out = append([]float32(nil), a.Q...)
			b.Q = b.Out
			two.Attention(b)
			same(t, name+" on two threads, in place", b.Out, a.Out)
			if batch > 1 || z.bias {
				return
			}
			row := a.Heads * a.HeadDim
			for n := range z.queries {
				b.Q, b.Out = a.Q[n*row:][:row], b.Out[:row]
				if a.Causal {
					b.Start = a.Start + n
				}
				one.Attention(b)
				same(t, fmt.Sprintf("%s query %d alone", name, n), b.Out, a.Out[n*row:][:row])
			}
		})
	}
	NewExec(nil).Attention(Attention{Heads: 1, KVHeads: 1, HeadDim: 4})
	none := []float32{1, 2, 3, 4}
	NewExec(nil).Attention(Attention{Out: none, Q: none, Heads: 1, KVHeads: 1, HeadDim: 4})
	same(t, "no keys", none, make([]float32, 4))
}

// TestAttentionPropagatesNaN checks that a NaN in a key or a value that is seen reaches
// the result, and one that is not does not.
func TestAttentionPropagatesNaN(t *testing.T) {
	t.Parallel()
	nan := float32(math.NaN())
	eachMachineLevel(func(l Level) {
		e := NewExec(leveled(t, 1, l))
		for _, position := range []int{0, 5, 64, 130, 139} {
			for what := range 2 {
				const keys, dim = 140, 16
				a := Attention{
					Out: make([]float32, keys*dim), Q: normal(1, keys*dim), K: normal(2, keys*dim), V: normal(3, keys*dim),
					Heads: 1, KVHeads: 1, HeadDim: dim, Causal: true, Scale: 0.25,
				}
				[][]float32{a.K, a.V}[what][position*dim+3] = nan
				for n := range keys { // one by one: a tile shares what it reads
					b := a
					b.Start, b.Q, b.Out = n, a.Q[n*dim:][:dim], a.Out[n*dim:][:dim]
					e.Attention(b)
					if got := b.Out[3] != b.Out[3]; got != (n >= position) {
						t.Fatalf("%v: query %d of keys with a NaN at %d: %v", l, n, position, b.Out)
					}
				}
			}
		}
	})
}

func TestAttentionShapesPanic(t *testing.T) {
	t.Parallel()
	e := NewExec(nil)
	x := make([]float32, 64*16)
	kv := KVPages{K: x, V: x, PageTokens: 16, Heads: 1, HeadDim: 16}
	span := []Span{{Rows: 1, Start: 15, Pages: []int32{0}}}
	full := Attention{Out: x, Q: x, K: x, V: x, Heads: 1, KVHeads: 1, HeadDim: 16}
	change := func(f func(*Attention)) func() {
		return func() { a := full; f(&a); e.Attention(a) }
	}
	for name, f := range map[string]func(){
		"page length": func() { e.StoreKV(KVPages{K: x, V: x, PageTokens: 24, Heads: 1, HeadDim: 16}, nil, nil, nil) },
		"part of a page": func() {
			e.StoreKV(KVPages{K: x[:300], V: x[:300], PageTokens: 16, Heads: 1, HeadDim: 16}, nil, nil, nil)
		},
		"keys":            func() { e.StoreKV(kv, x[:15], x[:16], span) },
		"no such page":    func() { e.StoreKV(kv, x[:16], x[:16], []Span{{Rows: 1, Pages: []int32{4}}}) },
		"beyond its page": func() { e.StoreKV(kv, x[:16], x[:16], []Span{{Rows: 1, Start: 16, Pages: []int32{0}}}) },
		"queries":         func() { e.PagedAttention(PagedAttention{Out: x[:32], Q: x[:32], KV: kv, Spans: span, Heads: 1}) },
		"heads":           func() { e.PagedAttention(PagedAttention{Out: x[:16], Q: x[:16], KV: kv, Spans: span}) },
		"key bias": func() {
			e.PagedAttention(PagedAttention{Out: x[:16], Q: x[:16], KV: kv, Spans: span, Heads: 1, KeyBias: x[:15]})
		},
		"values":        change(func(a *Attention) { a.V = x[:16] }),
		"result":        change(func(a *Attention) { a.Out = x[:16] }),
		"bias":          change(func(a *Attention) { a.Bias = x[:9] }),
		"start":         change(func(a *Attention) { a.Start = 1 }),
		"causal beyond": change(func(a *Attention) { a.Start, a.Causal = 1, true }),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// FuzzPagedAttention draws shapes, lengths and cuts.
func FuzzPagedAttention(f *testing.F) {
	f.Add(uint64(3), uint8(40), uint8(2), uint8(2))
	f.Fuzz(func(t *testing.T, seed uint64, dim, heads, group uint8) {
		z := scoring{kvHeads: 1 + int(heads%3), dim: 1 + int(dim%70), window: int(seed % 90), scale: 0.3}
		z.heads = z.kvHeads * (1 + int(group%9))
		e := NewExec(nil)
		p := KVPages{PageTokens: []int{16, 32, 64, 128}[seed%4], Heads: z.kvHeads, HeadDim: z.dim}
		n := 1 + int(seed>>8%300)
		s := fill(t, e, seed, &p, []int{n})[0]
		q := normal(seed, n*z.heads*z.dim)
		a := PagedAttention{Out: make([]float32, len(q)), Q: q, KV: p, Spans: []Span{{Rows: n, Pages: s.pages}}, Heads: z.heads, Window: z.window, Scale: z.scale}
		e.PagedAttention(a)
		row := z.heads * z.dim
		for _, i := range []int{0, n / 2, n - 1} {
			near(t, fmt.Sprintf("%+v query %d of %d", z, i, n), a.Out[i*row:][:row], z.query(q[i*row:][:row], s, i), 1e-5)
		}
	})
}

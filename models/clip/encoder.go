package clip

import (
	"math"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// encoder is a stack of transformer blocks with the norms before their halves.
type encoder struct {
	blocks       []block
	heads        int
	hidden       int // C
	intermediate int
	causal       bool
	activation   tensor.Activation
}

// block is attention and MLP, each on a normalised copy and added to the state.
type block struct {
	norm1, norm2     nn.LayerNorm
	q, k, v, out     nn.Linear // [C, C]
	expand, contract nn.Linear // [I, C] and [C, I]
}

// loadEncoder reads "layers.i" for every layer i.
func loadEncoder(s *weights.Store, t tower, causal bool) (encoder, error) {
	m := encoder{
		heads: t.heads, hidden: t.hidden, intermediate: t.intermediate,
		causal: causal, activation: activation(t.activation),
	}
	for i := range t.layers {
		b, err := loadBlock(s.Sub("layers."+strconv.Itoa(i)), t)
		if err != nil {
			return m, err
		}
		m.blocks = append(m.blocks, b)
	}
	return m, nil
}

func loadBlock(s *weights.Store, t tower) (b block, err error) {
	for _, l := range []struct {
		to      *nn.Linear
		name    string
		out, in int
	}{
		{&b.q, "self_attn.q_proj", t.hidden, t.hidden},
		{&b.k, "self_attn.k_proj", t.hidden, t.hidden},
		{&b.v, "self_attn.v_proj", t.hidden, t.hidden},
		{&b.out, "self_attn.out_proj", t.hidden, t.hidden},
		{&b.expand, "mlp.fc1", t.intermediate, t.hidden},
		{&b.contract, "mlp.fc2", t.hidden, t.intermediate},
	} {
		if *l.to, err = nn.LoadLinear(s.Sub(l.name), l.out, l.in, true); err != nil {
			return b, err
		}
	}
	if b.norm1, err = nn.LoadLayerNorm(s.Sub("layer_norm1"), t.hidden, float32(t.eps)); err != nil {
		return b, err
	}
	b.norm2, err = nn.LoadLayerNorm(s.Sub("layer_norm2"), t.hidden, float32(t.eps))
	return b, err
}

// bytes returns the memory of the weights.
func (m *encoder) bytes() int64 {
	var n int64
	for i := range m.blocks {
		b := &m.blocks[i]
		for _, l := range []*nn.Linear{&b.q, &b.k, &b.v, &b.out, &b.expand, &b.contract} {
			n += l.Bytes()
		}
		n += 4 * 4 * int64(m.hidden)
	}
	return n
}

// scratch is the memory of a pass through an encoder, for so many tokens in all.
type scratch struct {
	h, q, k, v []float32 // [tokens, C]
	inner      []float32 // [tokens, I]
}

func (m *encoder) newScratch(tokens int) scratch {
	n := tokens * m.hidden
	return scratch{
		h: make([]float32, n), q: make([]float32, n), k: make([]float32, n), v: make([]float32, n),
		inner: make([]float32, tokens*m.intermediate),
	}
}

func (s *scratch) bytes() int64 { return 4 * int64(4*len(s.h)+len(s.inner)) }

// forward computes the block's result y [B, T, C] from x [B, T, C]. y may be x.
func (m *encoder) forward(e *tensor.Exec, s *scratch, b *block, batch int, y, x []float32) {
	tokens, c := len(x)/m.hidden, m.hidden
	h, q, k, v := s.h[:len(x)], s.q[:len(x)], s.k[:len(x)], s.v[:len(x)]
	b.norm1.Forward(e, h, x)
	e.MatMuls(h, b.q.Product(q), b.k.Product(k), b.v.Product(v))
	dim := c / m.heads
	e.Attention(tensor.Attention{
		Out: q, Q: q, K: k, V: v, Batch: batch, Heads: m.heads, KVHeads: m.heads, HeadDim: dim,
		Scale: float32(1 / math.Sqrt(float64(dim))), Causal: m.causal,
	})
	b.out.Forward(e, h, q)
	copy(y, x)
	e.Add(y, h)

	inner := s.inner[:tokens*m.intermediate]
	b.norm2.Forward(e, h, y)
	b.expand.Forward(e, inner, h) // [B, T, I]
	e.Activate(m.activation, inner)
	b.contract.Forward(e, h, inner)
	e.Add(y, h)
}

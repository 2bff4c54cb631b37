package unet

import (
	"math"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// attender changes the pixels x [B, P, C] of a stage in place.
type attender interface {
	forward(e *tensor.Exec, s *State, x []float32)
}

// transformer attends to pixels and context (Rombach et al. 2022, diffusers'
// Transformer2DModel): x += out(blocks(in(norm(x)))).
type transformer struct {
	norm    nn.GroupNorm
	in, out nn.Linear
	blocks  []transformerBlock
}

// transformerBlock is attention of the pixels to each other, attention to the context, and
// a gated MLP, each on a layer norm of what came before and added to it.
type transformerBlock struct {
	norm1, norm2, norm3 nn.LayerNorm
	attn1, attn2        attention
	mlp                 geglu
}

func (l *loader) transformer(s *weights.Store, shape attentionShape) *transformer {
	const eps = 1e-6
	c := shape.channels
	// The projections are matrices or, if use_linear_projection is off, convolutions of one
	// pixel, which is the same here.
	t := &transformer{norm: l.groupNorm(s.Sub("norm"), shape.groups, c, eps)}
	t.in, t.out = l.linear(s.Sub("proj_in"), c, c, true), l.linear(s.Sub("proj_out"), c, c, true)
	for i := range shape.layers {
		t.blocks = append(t.blocks, l.transformerBlock(s.Sub("transformer_blocks").Sub(strconv.Itoa(i)), shape))
	}
	return t
}

func (l *loader) transformerBlock(s *weights.Store, shape attentionShape) transformerBlock {
	first := shape
	if !shape.onlyCross {
		first.context = 0
	}
	return transformerBlock{
		norm1: l.layerNorm(s.Sub("norm1"), shape.channels), attn1: l.attention(s.Sub("attn1"), first, false),
		norm2: l.layerNorm(s.Sub("norm2"), shape.channels), attn2: l.attention(s.Sub("attn2"), shape, false),
		norm3: l.layerNorm(s.Sub("norm3"), shape.channels), mlp: l.geglu(s.Sub("ff.net"), shape.channels),
	}
}

// forward computes x += out(blocks(in(norm(x)))).
func (t *transformer) forward(e *tensor.Exec, s *State, x []float32) {
	a, h := s.a[:len(x)], s.b[:len(x)]
	t.norm.Forward(e, a, x, s.Batch, 0)
	t.in.Forward(e, h, a)
	for i := range t.blocks {
		b := &t.blocks[i]
		b.norm1.Forward(e, a, h)
		b.attn1.forward(e, s, h, a)
		b.norm2.Forward(e, a, h)
		b.attn2.forward(e, s, h, a)
		b.norm3.Forward(e, a, h)
		b.mlp.forward(e, s, h, a)
	}
	t.out.Forward(e, a, h)
	e.Add(x, a)
}

// attention is multi-head attention (Vaswani et al. 2017) of the pixels to each other, or
// to the context, of which the keys and values do not change while a picture is made.
type attention struct {
	q, k, v, out nn.Linear
	heads        int
	slot         int  // of the keys and values in the state, -1: of the pixels
	bf16         bool // rounds what it multiplies, as its layers do
}

// attention reads the layers, whose queries, keys and values have biases or not.
func (l *loader) attention(s *weights.Store, shape attentionShape, bias bool) attention {
	compute := s.Packing().Compute
	a := attention{heads: shape.heads, slot: -1, bf16: compute == tensor.BF16 || compute == tensor.I8}
	c, from := shape.channels, shape.channels
	if shape.context > 0 {
		from, a.slot = shape.context, len(l.cross)
	}
	a.q, a.k, a.v = l.linear(s.Sub("to_q"), c, c, bias), l.linear(s.Sub("to_k"), c, from, bias), l.linear(s.Sub("to_v"), c, from, bias)
	a.out = l.linear(s.Sub("to_out.0"), c, c, true)
	if a.slot >= 0 {
		l.cross = append(l.cross, a)
	}
	return a
}

// forward adds to h what the pixels of a, its norm, attend to; a is lost.
func (m *attention) forward(e *tensor.Exec, s *State, h, a []float32) {
	q, k, v := s.q[:len(a)], s.k[:len(a)], s.v[:len(a)]
	if m.slot < 0 {
		e.MatMuls(a, m.q.Product(q), m.k.Product(k), m.v.Product(v))
	} else {
		m.q.Forward(e, q, a)
		k, v = s.cross[m.slot].k, s.cross[m.slot].v
	}
	d := m.q.Weight.Rows / m.heads
	e.Attention(tensor.Attention{
		Out: q, Q: q, K: k, V: v, Batch: s.Batch, Heads: m.heads, KVHeads: m.heads, HeadDim: d,
		Scale: float32(1 / math.Sqrt(float64(d))), BF16: m.bf16,
	})
	m.out.Forward(e, a, q)
	e.Add(h, a)
}

// geglu is an MLP whose middle is gated by GELU (Shazeer 2020).
type geglu struct {
	up, gate, down nn.Linear
}

// geluFactor is how many times as wide as the pixels the middle of an MLP is.
const geluFactor = 4

// geglu reads the layers: the first two are halves of one in the checkpoint.
func (l *loader) geglu(s *weights.Store, channels int) geglu {
	n := geluFactor * channels
	half := func(lo int) nn.Linear {
		return read(l, func() (nn.Linear, error) {
			rows := [2]int{lo, lo + n}
			part, err := s.Sub("0.proj").View(map[string]weights.View{
				"weight": {Name: "weight", Rows: rows}, "bias": {Name: "bias", Rows: rows},
			})
			if err != nil {
				return nn.Linear{}, err
			}
			return nn.LoadLinear(part, n, channels, true)
		})
	}
	return geglu{up: half(0), gate: half(n), down: l.linear(s.Sub("2"), channels, n, true)}
}

// forward adds the MLP of a, its norm, to h. The middle, which is wide, is there for as
// many rows at a time as the memory of the keys and values holds.
func (m *geglu) forward(e *tensor.Exec, s *State, h, a []float32) {
	c, inner := m.up.Weight.Cols, m.up.Weight.Rows
	rows := len(a) / c
	step := min(len(s.k)/inner, maxRows)
	for lo := 0; lo < rows; lo += step {
		n := min(step, rows-lo)
		x, gate, up := a[lo*c:][:n*c], s.k[:n*inner], s.v[:n*inner]
		e.MatMuls(x, m.gate.Product(gate), m.up.Product(up))
		e.Gate(tensor.GELU, gate, up)
		m.down.Forward(e, s.q[lo*c:][:n*c], gate)
	}
	e.Add(h, s.q[:len(a)])
}

// maxRows is how many rows of an MLP's middle are there at a time: enough to multiply at
// full speed, few enough to stay in cache.
const maxRows = 512

// spatialAttention is attention of the pixels to each other (Ho et al. 2020).
type spatialAttention struct {
	norm nn.GroupNorm
	attention
}

func (l *loader) spatialAttention(s *weights.Store, shape attentionShape) *spatialAttention {
	norm := l.groupNorm(s.Sub("group_norm"), shape.groups, shape.channels, l.c.NormEps)
	return &spatialAttention{norm, l.attention(s, shape, true)}
}

// forward computes x += attention(norm(x)).
func (m *spatialAttention) forward(e *tensor.Exec, s *State, x []float32) {
	a := s.a[:len(x)]
	m.norm.Forward(e, a, x, s.Batch, 0)
	m.attention.forward(e, s, x, a)
}

package dit

import (
	"fmt"
	"strings"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// epsilon is that of the norms without weights.
const epsilon = 1e-6

// loader reads layers, adds up their memory, and remembers the first error.
type loader struct {
	bytes int64
	err   error
}

func (l *loader) linear(s *weights.Store, out, in int, bias bool) nn.Linear {
	if l.err != nil {
		return nn.Linear{}
	}
	var layer nn.Linear
	if layer, l.err = nn.LoadLinear(s, out, in, bias); l.err == nil {
		l.bytes += layer.Bytes()
	}
	return layer
}

// vector reads a tensor of a shape, as F32.
func (l *loader) vector(s *weights.Store, name string, shape ...int) []float32 {
	if l.err != nil {
		return nil
	}
	var t weights.Tensor
	if t, l.err = s.Tensor(name, shape...); l.err != nil {
		return nil
	}
	l.bytes += 4 * int64(t.Len())
	return t.Float32s()
}

// table reads vectors of which few are used, in their own type: [rows, cols], after axes
// of length 1 if there are any.
func (l *loader) table(s *weights.Store, name string, shape ...int) tensor.Matrix {
	if l.err != nil {
		return tensor.Matrix{}
	}
	var t weights.Tensor
	if t, l.err = s.Tensor(name, shape...); l.err != nil {
		return tensor.Matrix{}
	}
	t.Shape = shape[len(shape)-2:]
	m := t.Matrix()
	l.bytes += m.Bytes()
	return m
}

// fine returns the store for layers that decide on every token or channel: they are kept
// as they are stored where others are cut to 8 bits.
func fine(s *weights.Store) *weights.Store {
	p := s.Packing()
	if p.On && p.Compute == tensor.I8 {
		return s.Packed(p.Arena, 0)
	}
	return s
}

// KeepsType reports whether the layer of a tensor is kept as it is stored where others are
// computed in tensor.I8: embeddings, modulations, and what is next to the latents.
func KeepsType(name string) bool {
	for _, prefix := range []string{"pos_embed.", "x_embedder.", "proj_out"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	for _, suffix := range []string{".linear.weight", ".linear_1.weight", ".linear_2.weight", "_table", "_table.weight"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// embedder makes vectors of the network's width from sines or pooled texts: two linear
// layers and an activation between them.
type embedder struct {
	first, second nn.Linear
	activation    tensor.Activation
}

// embedder reads "linear_1" [out, in] and "linear_2" [out, out].
func (l *loader) embedder(s *weights.Store, out, in int) embedder {
	s = fine(s)
	return embedder{
		first: l.linear(s.Sub("linear_1"), out, in, true), second: l.linear(s.Sub("linear_2"), out, out, true),
		activation: tensor.SiLU,
	}
}

// forward computes y [n, out] from x [n, in]. hidden is room for n·out floats.
func (m *embedder) forward(e *tensor.Exec, y, x, hidden []float32) {
	hidden = hidden[:len(y)]
	m.first.Forward(e, hidden, x)
	e.Activate(m.activation, hidden)
	m.second.Forward(e, y, hidden)
}

// mlp is the feed-forward network of a block: down·f(up·x).
type mlp struct {
	up, down   nn.Linear // [inner, C], [C, inner]
	activation tensor.Activation
}

// mlp reads "net.0.proj" and "net.2".
func (l *loader) mlp(s *weights.Store, width, inner int, f tensor.Activation) mlp {
	return mlp{up: l.linear(s.Sub("net.0.proj"), inner, width, true), down: l.linear(s.Sub("net.2"), width, inner, true), activation: f}
}

// forward replaces h [_, C] by what the network makes of it, some tokens at a time.
func (m *mlp) forward(e *tensor.Exec, st *State, h []float32) {
	chunk := mlpTokens * st.layout.width
	for ; len(h) > 0; h = h[min(chunk, len(h)):] {
		x := h[:min(chunk, len(h))]
		hidden := st.mlp[:len(x)/m.up.Weight.Cols*m.up.Weight.Rows]
		m.up.Forward(e, hidden, x)
		e.Activate(m.activation, hidden)
		m.down.Forward(e, x, hidden)
	}
}

// projections make queries, keys and values of a stream, and what is added to it.
type projections struct {
	q, k, v, out nn.Linear
	qNorm, kNorm []float32 // [D], RMS norms of each head; nil is none
	bf16         bool      // attention rounds what it multiplies, as its layers do
}

// names of the layers of projections.
type projectionNames struct{ q, k, v, out, qNorm, kNorm string }

func ownNames() projectionNames {
	return projectionNames{"to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k"}
}

func addedNames() projectionNames {
	return projectionNames{"add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k"}
}

// projectionConfig says which projections there are.
type projectionConfig struct {
	width, source int // of queries, of what keys and values are made of
	dim           int // D of the norms, or 0 without norms
	bias, noOut   bool
}

func (l *loader) projections(s *weights.Store, n projectionNames, c projectionConfig) projections {
	compute := s.Packing().Compute
	p := projections{
		bf16: compute == tensor.BF16 || compute == tensor.I8,

		q: l.linear(s.Sub(n.q), c.width, c.width, c.bias),
		k: l.linear(s.Sub(n.k), c.width, c.source, c.bias),
		v: l.linear(s.Sub(n.v), c.width, c.source, c.bias),
	}
	if !c.noOut {
		p.out = l.linear(s.Sub(n.out), c.width, c.width, true)
	}
	if c.dim > 0 {
		p.qNorm, p.kNorm = l.vector(s.Sub(n.qNorm), "weight", c.dim), l.vector(s.Sub(n.kNorm), "weight", c.dim)
	}
	return p
}

// project fills q, k and v from h.
func (p *projections) project(e *tensor.Exec, a part) {
	e.MatMuls(a.h, p.q.Product(a.q), p.k.Product(a.k), p.v.Product(a.v))
	if p.qNorm != nil {
		e.RMSNorm(a.q, a.q, p.qNorm, epsilon)
		e.RMSNorm(a.k, a.k, p.kNorm, epsilon)
	}
}

// find replaces the queries q by the values v that they find at the keys k.
func (p *projections) find(e *tensor.Exec, st *State, q, k, v []float32) {
	e.Attention(tensor.Attention{
		Out: q, Q: q, K: k, V: v, Heads: st.layout.heads, KVHeads: st.layout.heads, HeadDim: st.layout.dim,
		Scale: rootInverse(st.layout.dim), BF16: p.bf16,
	})
}

// shifted is a shift and a scale [C] of normalised tokens, and the gate [C] of what is
// made of them.
type shifted struct{ shift, scale, gate []float32 }

// modulation returns number i of mod, [_, 3, C].
func (st *State) modulation(mod []float32, i int) shifted {
	c := st.layout.width
	m := mod[3*i*c:][:3*c]
	return shifted{m[:c], m[c : 2*c], m[2*c:]}
}

// modulate computes y = norm(x)·(1+scale) + shift.
func (st *State) modulate(e *tensor.Exec, y, x []float32, m shifted, eps float32) {
	for i, s := range m.scale {
		st.scale[i] = 1 + s
	}
	e.LayerNorm(y, x, st.scale, m.shift, eps)
}

// final is the last layer: a modulated norm, and the patches.
type final struct {
	mod nn.Linear // [2C, C]
	out nn.Linear // [patch·patch·channels, C]

	shiftFirst bool // the halves of mod are shift and scale, rather than scale and shift
}

// modulation makes the shift and the scale, in st.mod.
func (f *final) modulation(e *tensor.Exec, st *State) {
	f.mod.Forward(e, st.mod[:2*st.layout.width], st.active)
}

// patches returns the patches of the latents [T, patch·patch·channels], of the modulation
// in st.mod.
func (f *final) patches(e *tensor.Exec, st *State, a part) []float32 {
	c := st.layout.width
	m := shifted{scale: st.mod[:c], shift: st.mod[c : 2*c]}
	if f.shiftFirst {
		m.shift, m.scale = m.scale, m.shift
	}
	st.modulate(e, a.h, a.x, m, epsilon)
	st.show("norm_out", a.h)
	patches := st.patches[:len(a.h)/c*f.out.Weight.Rows]
	f.out.Forward(e, patches, a.h)
	return patches
}

// wantFloats returns an error unless x has n floats.
func wantFloats(what string, x []float32, n int) error {
	if len(x) != n {
		return fmt.Errorf("dit: %d floats of %s, want %d", len(x), what, n)
	}
	return nil
}

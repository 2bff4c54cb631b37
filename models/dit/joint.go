package dit

import (
	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// jointBlock is a block of an MMDiT: text and image have weights of their own, and attend
// to all tokens of both.
type jointBlock struct{ text, image stream }

// stream is one side of a block.
type stream struct {
	mod    nn.Linear // [6C, C]: shift, scale and gate, for attention and for mlp; of the last text [2C, C]
	attend projections
	mlp    mlp

	last   bool         // nothing reads what would become of the stream
	second *projections // attention of the stream to itself alone, modulated by 3C more; or nil
}

// jointConfig says which layers a block has.
type jointConfig struct {
	size     backbone
	norms    bool // of queries and keys
	textEnds bool // the block is the last one that the text is in
	second   bool // the image has attention of its own
}

func (l *loader) jointBlock(s *weights.Store, c jointConfig) jointBlock {
	width := c.size.width()
	p := projectionConfig{width: width, source: width, bias: true}
	if c.norms {
		p.dim = c.size.dim
	}
	var b jointBlock
	mods := 6
	if c.second {
		mods = 9
		second := l.projections(s.Sub("attn2"), ownNames(), p)
		b.image.second = &second
	}
	b.image.mod = l.linear(fine(s.Sub("norm1.linear")), mods*width, width, true)
	b.image.attend = l.projections(s.Sub("attn"), ownNames(), p)
	b.image.mlp = l.mlp(s.Sub("ff"), width, c.size.inner, tensor.GELUTanh)
	b.text.last, p.noOut = c.textEnds, c.textEnds
	b.text.attend = l.projections(s.Sub("attn"), addedNames(), p)
	if c.textEnds {
		b.text.mod = l.linear(fine(s.Sub("norm1_context.linear")), 2*width, width, true)
		return b
	}
	b.text.mod = l.linear(fine(s.Sub("norm1_context.linear")), 6*width, width, true)
	b.text.mlp = l.mlp(s.Sub("ff_context"), width, c.size.inner, tensor.GELUTanh)
	return b
}

func (b *jointBlock) forward(e *tensor.Exec, st *State) {
	text, image, all := st.textPart(), st.imagePart(), st.whole()
	forText := st.mod[:len(b.text.mod.Bias)]
	forImage := st.mod[len(forText):][:len(b.image.mod.Bias)]
	b.text.enter(e, st, text, forText)
	b.image.enter(e, st, image, forImage)
	st.rotate(e, all)
	b.image.attend.find(e, st, all.q, all.k, all.v)
	b.text.leave(e, st, text, forText)
	b.image.leave(e, st, image, forImage)
}

// enter makes queries, keys and values of a stream, and its modulation.
func (s *stream) enter(e *tensor.Exec, st *State, a part, mod []float32) {
	c := st.layout.width
	s.mod.Forward(e, mod, st.active)
	if s.last {
		st.modulate(e, a.h, a.x, shifted{scale: mod[:c], shift: mod[c:]}, epsilon)
	} else {
		st.modulate(e, a.h, a.x, st.modulation(mod, 0), epsilon)
	}
	if s.second != nil {
		st.modulate(e, st.second, a.x, st.modulation(mod, 2), epsilon)
	}
	s.attend.project(e, a)
}

// leave adds to a stream what attention found, in q, and then the feed-forward network's.
func (s *stream) leave(e *tensor.Exec, st *State, a part, mod []float32) {
	if s.last {
		return
	}
	s.attend.out.Forward(e, a.h, a.q)
	e.AddGated(a.x, a.h, st.modulation(mod, 0).gate)
	if s.second != nil {
		alone := a
		alone.h = st.second
		s.second.project(e, alone)
		s.second.find(e, st, a.q, a.k, a.v)
		s.second.out.Forward(e, a.h, a.q)
		e.AddGated(a.x, a.h, st.modulation(mod, 2).gate)
	}
	m := st.modulation(mod, 1)
	st.modulate(e, a.h, a.x, m, epsilon)
	s.mlp.forward(e, st, a.h)
	e.AddGated(a.x, a.h, m.gate)
}

// rotate turns queries and keys by their positions, in networks that have rotary ones.
func (st *State) rotate(e *tensor.Exec, a part) {
	if len(st.cos) > 0 {
		e.RoPEPairs(a.q, st.cos, st.sin, st.layout.heads, st.layout.dim)
		e.RoPEPairs(a.k, st.cos, st.sin, st.layout.heads, st.layout.dim)
	}
}

package lm

import (
	"context"
	"fmt"

	"helicon/models/nn"
	"helicon/models/tensor"
)

// network is the weights of a decoder.
type network struct {
	embed     nn.Embedding // [V, E]
	widen     nn.Linear    // [C, E]; if E is not C
	positions nn.Embedding // [Context, C]; if they are learned
	embedNorm nn.Norm      // or nil
	layers    []layer
	norm      nn.Norm   // or nil
	narrow    nn.Linear // [E, C]; if E is not C
	head      nn.Linear // [V, E]
}

// layer is one block: attention and MLP, each among norms and beside a residual.
type layer struct {
	attentionNorms, mlpNorms norms
	parallel                 bool

	q            nn.Linear // [H·D, C]
	k, v         nn.Linear // [G·D, C]
	qNorm, kNorm nn.Norm   // of each head, or nil
	o            nn.Linear // [C, H·D]
	scale        float32
	window       int
	rope         int // which of the rotations

	mlp feedForward
}

// norms are those around one half of a block. Each may be nil.
type norms struct {
	before nn.Norm // of what enters
	after  nn.Norm // of what is added to the residual (Gemma 2)
	sum    nn.Norm // of the sum (Vaswani et al. 2017)
}

// Observer is told what a network computes on the way. Either function may be nil;
// what they are given is overwritten when they return.
type Observer struct {
	// Hidden is called for each layer and run of positions with states [T, C]:
	// layer 0 is what enters the first block, layer i what leaves the i-th block, and
	// the last, Config.Layers, what the output matrix reads, as in transformers'
	// hidden_states, which is [T, E].
	Hidden func(layer, position int, states []float32)
	// Logits is called for each position in turn with its logits [V].
	Logits func(position int, logits []float32)
}

// Forward appends tokens to the sequence and returns the logits [V] of what follows
// the last one. They belong to the state and are valid until its next use.
//
// A sequence has the same logits, bit for bit, however it is cut into calls and on
// however many threads; dynamic rope scaling beyond the context is the exception, as
// it depends on the length at each call by its definition. With longrope the call that
// passes the original context reads the whole sequence again.
//
// Forward stops between layers when ctx ends, with the context's cause. The error wraps
// ErrFull if the state has no room for the tokens and ErrToken if one is not in the
// vocabulary. After an error the sequence is what it was before.
func (m *Model) Forward(ctx context.Context, s *State, tokens []int) ([]float32, error) {
	if err := m.Observe(ctx, s, tokens, Observer{}); err != nil {
		return nil, err
	}
	return s.logits, nil
}

// Observe is Forward with an observer, for the hidden states and for the logits of
// every position.
func (m *Model) Observe(ctx context.Context, s *State, tokens []int, o Observer) error {
	if err := m.check(s, tokens); err != nil {
		return err
	}
	tokens, at := s.begin(tokens)
	for at.start < at.length {
		n := min(chunkTokens, len(tokens))
		x, err := m.blocks(ctx, s, tokens[:n], at, o)
		if err != nil {
			return err
		}
		m.logits(s, x, at, o)
		tokens = tokens[n:]
		at.start += n
	}
	s.end(at.length)
	return nil
}

func (m *Model) check(s *State, tokens []int) error {
	if s.model != m {
		return fmt.Errorf("lm: state of another model")
	}
	if len(tokens) == 0 {
		return fmt.Errorf("lm: no tokens: %w", ErrToken)
	}
	if room := s.cache.Capacity() - s.length; len(tokens) > room {
		return fmt.Errorf("lm: %d tokens after %d in a state for %d: %w", len(tokens), s.length, s.cache.Capacity(), ErrFull)
	}
	for i, id := range tokens {
		if id < 0 || id >= m.config.Vocab {
			return fmt.Errorf("lm: token %d is %d in a vocabulary of %d: %w", i, id, m.config.Vocab, ErrToken)
		}
	}
	return nil
}

// chunk is a run of tokens that pass the network together.
type chunk struct {
	start  int // position of the first
	fresh  int // first position of the call; those before are read again
	length int // of the sequence when the whole call is done
}

// again returns how many of the chunk's tokens are not the call's own.
func (c chunk) again() int { return max(0, c.fresh-c.start) }

// blocks runs tokens through all blocks and returns the states [T, C] after the last.
func (m *Model) blocks(ctx context.Context, s *State, tokens []int, at chunk, o Observer) ([]float32, error) {
	for i, r := range m.config.rotations {
		cos, sin := s.angles[i].of(len(tokens))
		r.Angles(cos, sin, at.start, at.length)
	}
	x := m.embed(s, tokens, at.start)
	for i := range m.net.layers {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if again := at.again(); o.Hidden != nil && again < len(tokens) {
			o.Hidden(i, at.start+again, x[again*m.config.Hidden:])
		}
		m.block(s, i, at.start, x)
	}
	return x, nil
}

// embed returns what enters the first block [T, C].
func (m *Model) embed(s *State, tokens []int, start int) []float32 {
	c, e, t := &m.config, s.exec, len(tokens)
	x, h := s.x[:t*c.Hidden], s.h[:t*c.Hidden]
	if m.net.widen.Weight.Rows == 0 {
		m.net.embed.Forward(x, tokens) // [T, C]
	} else {
		narrow := s.h[:t*c.embedWidth]
		m.net.embed.Forward(narrow, tokens) // [T, E]
		m.net.widen.Forward(e, x, narrow)
	}
	if m.net.positions.Weight.Rows > 0 {
		for i := range tokens {
			s.ids[i] = start + i
		}
		m.net.positions.Forward(h, s.ids[:t])
		e.Add(x, h)
	}
	normalise(e, m.net.embedNorm, x)
	return x
}

// normalise applies a norm, if there is one, to x in place.
func normalise(e *tensor.Exec, n nn.Norm, x []float32) {
	if n != nil {
		n.Forward(e, x, x)
	}
}

// block runs x [T, C] through block i. In a parallel one attention and MLP both read
// what enters it, else the MLP reads what attention leaves.
func (m *Model) block(s *State, i, start int, x []float32) {
	l, e := &m.net.layers[i], s.exec
	h := s.h[:len(x)]
	l.attentionNorms.enter(e, h, x)
	m.attend(s, i, start, h)
	g := h
	if l.parallel {
		g = s.side[:len(x)]
		l.mlpNorms.enter(e, g, x)
		l.attentionNorms.leave(e, x, h)
	} else {
		l.attentionNorms.leave(e, x, h)
		l.mlpNorms.enter(e, g, x)
	}
	l.mlp.forward(s, g)
	l.mlpNorms.leave(e, x, g)
}

// enter writes to h what a half of a block reads of x.
func (n *norms) enter(e *tensor.Exec, h, x []float32) {
	if n.before == nil {
		copy(h, x)
		return
	}
	n.before.Forward(e, h, x)
}

// leave adds to x what a half of a block has made of it.
func (n *norms) leave(e *tensor.Exec, x, h []float32) {
	normalise(e, n.after, h)
	e.Add(x, h)
	normalise(e, n.sum, x)
}

// attend replaces h [T, C] by attention of block i over the sequence so far.
func (m *Model) attend(s *State, i, start int, h []float32) {
	c, e, l, t := &m.config, s.exec, &m.net.layers[i], len(h)/m.config.Hidden
	q := s.q[:t*c.Heads*c.HeadDim]
	k, v := s.k[:t*c.KVHeads*c.HeadDim], s.v[:t*c.KVHeads*c.HeadDim]

	e.MatMuls(h, l.q.Product(q), l.k.Product(k), l.v.Product(v)) // [T, H, D], [T, G, D] twice
	normalise(e, l.qNorm, q)
	normalise(e, l.kNorm, k)
	if len(s.angles) > 0 {
		cos, sin := s.angles[l.rope].of(t)
		e.RoPE(q, cos, sin, c.Heads, c.HeadDim)
		e.RoPE(k, cos, sin, c.KVHeads, c.HeadDim)
	}
	s.cache.Put(i, start, k, v)
	keys, values := s.cache.Layer(i)
	e.Attention(tensor.Attention{
		Out: q, Q: q, K: keys, V: values,
		Start: start, Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Capacity: s.cache.Capacity(),
		Window: l.window, Scale: l.scale, Cap: float32(c.scoreCap), KeyBias: s.keyBias,
	})
	l.o.Forward(e, h, q) // [T, C]
}

// logits computes the logits of the last position if the chunk ends the call, and
// of every position for an observer.
func (m *Model) logits(s *State, x []float32, at chunk, o Observer) {
	c := m.config.Hidden
	t := len(x) / c
	first := t - 1
	if o.Hidden != nil || o.Logits != nil {
		first = at.again()
	} else if at.start+t < at.length {
		return
	}
	if first >= t {
		return
	}
	x = x[first*c:]
	normalise(s.exec, m.net.norm, x)
	if m.net.narrow.Weight.Rows > 0 {
		c = m.config.embedWidth
		narrow := s.h[:(t-first)*c]
		m.net.narrow.Forward(s.exec, narrow, x) // [T, E]
		x = narrow
	}
	if o.Hidden != nil {
		o.Hidden(m.config.Layers, at.start+first, x)
	}
	if o.Logits == nil {
		first, x = t-1, x[len(x)-c:]
	}
	for i := 0; i < len(x); i += c {
		m.net.head.Forward(s.exec, s.logits, x[i:i+c]) // [V]
		if m.config.logitCap > 0 {
			s.exec.SoftCap(s.logits, float32(m.config.logitCap))
		}
		if o.Logits != nil {
			o.Logits(at.start+first+i/c, s.logits)
		}
	}
}

package lm

import (
	"context"
	"fmt"
	"math"

	"helicon/models/nn"
	"helicon/models/tensor"
)

// network is the weights of a decoder.
type network struct {
	embed     nn.Embedding // [V, C]
	positions nn.Embedding // [Context, C]; without rope
	layers    []layer
	norm      nn.Norm
	head      nn.Linear // [V, C]
}

// layer is one block: attention and MLP, each behind a norm and beside a residual.
type layer struct {
	attentionNorm nn.Norm
	q             nn.Linear // [H·D, C]
	k, v          nn.Linear // [G·D, C]
	o             nn.Linear // [C, H·D]
	scale         float32
	window        int

	mlpNorm    nn.Norm
	gated      bool
	gate, up   nn.Linear // [I, C]; gate only if gated
	down       nn.Linear // [C, I]
	activation tensor.Activation
}

// windowOf returns the sliding window of layer i, 0 for none.
func (c Config) windowOf(i int) int {
	if i < c.windowFrom {
		return 0
	}
	return c.window
}

// attentionScale returns the factor of the scores in layer i.
func (c Config) attentionScale(i int) float32 {
	scale := 1 / math.Sqrt(float64(c.HeadDim))
	if c.scale.plain {
		scale = 1
	}
	if c.scale.byLayer {
		scale /= float64(i + 1)
	}
	return float32(scale)
}

// Observer is told what a network computes on the way. Either function may be nil;
// what they are given is overwritten when they return.
type Observer struct {
	// Hidden is called for each layer and run of positions with states [T, C]:
	// layer 0 is what enters the first block, layer i what leaves the i-th block, and
	// the last, Config.Layers, what leaves the final norm, as in transformers'
	// hidden_states.
	Hidden func(layer, position int, states []float32)
	// Logits is called for each position in turn with its logits [V].
	Logits func(position int, logits []float32)
}

// Forward appends tokens to the sequence and returns the logits [V] of what follows
// the last one. They belong to the state and are valid until its next use.
//
// A sequence has the same logits, bit for bit, however it is cut into calls and on
// however many threads; dynamic rope scaling beyond the context is the exception, as
// it depends on the length at each call by its definition.
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
	at := chunk{start: s.length, length: s.length + len(tokens)}
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
	s.length = at.length
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
	length int // of the sequence when the whole call is done
}

// blocks runs tokens through all blocks and returns the states [T, C] after the last.
func (m *Model) blocks(ctx context.Context, s *State, tokens []int, at chunk, o Observer) ([]float32, error) {
	c, t := &m.config, len(tokens)
	x := s.x[:t*c.Hidden]
	m.net.embed.Forward(x, tokens) // [T, C]
	if half := m.config.rope.Half(); half > 0 {
		m.config.rope.Angles(s.cos[:t*half], s.sin[:t*half], at.start, at.length)
	} else {
		for i := range tokens {
			s.ids[i] = at.start + i
		}
		h := s.h[:t*c.Hidden]
		m.net.positions.Forward(h, s.ids[:t])
		s.exec.Add(x, h)
	}
	for i := range m.net.layers {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if o.Hidden != nil {
			o.Hidden(i, at.start, x)
		}
		l := &m.net.layers[i]
		m.attend(s, l, i, at.start, x)
		m.mlp(s, l, x)
	}
	return x, nil
}

// attend adds attention over the sequence so far to x [T, C].
func (m *Model) attend(s *State, l *layer, i, start int, x []float32) {
	c, e, t := &m.config, s.exec, len(x)/m.config.Hidden
	h := s.h[:len(x)]
	q := s.q[:t*c.Heads*c.HeadDim]
	k, v := s.k[:t*c.KVHeads*c.HeadDim], s.v[:t*c.KVHeads*c.HeadDim]

	l.attentionNorm.Forward(e, h, x)
	e.MatMuls(h, l.q.Product(q), l.k.Product(k), l.v.Product(v)) // [T, H, D], [T, G, D] twice
	if half := m.config.rope.Half(); half > 0 {
		cos, sin := s.cos[:t*half], s.sin[:t*half]
		e.RoPE(q, cos, sin, c.Heads, c.HeadDim)
		e.RoPE(k, cos, sin, c.KVHeads, c.HeadDim)
	}
	s.cache.Put(i, start, k, v)
	keys, values := s.cache.Layer(i)
	e.Attention(tensor.Attention{
		Out: q, Q: q, K: keys, V: values,
		Start: start, Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Capacity: s.cache.Capacity(),
		Window: l.window, Scale: l.scale,
	})
	l.o.Forward(e, h, q) // [T, C]
	e.Add(x, h)
}

// mlp adds the position-wise network to x [T, C].
func (m *Model) mlp(s *State, l *layer, x []float32) {
	e, t := s.exec, len(x)/m.config.Hidden
	h := s.h[:len(x)]
	up := s.up[:t*m.config.Intermediate]

	l.mlpNorm.Forward(e, h, x)
	if l.gated {
		gate := s.gate[:len(up)]
		e.MatMuls(h, l.gate.Product(gate), l.up.Product(up)) // [T, I] twice
		e.Gate(l.activation, gate, up)
		up = gate
	} else {
		l.up.Forward(e, up, h) // [T, I]
		e.Activate(l.activation, up)
	}
	l.down.Forward(e, h, up) // [T, C]
	e.Add(x, h)
}

// logits computes the logits of the last position if the chunk ends the call, and
// of every position for an observer.
func (m *Model) logits(s *State, x []float32, at chunk, o Observer) {
	c := m.config.Hidden
	t := len(x) / c
	first := t - 1
	if o.Hidden != nil || o.Logits != nil {
		first = 0
	} else if at.start+t < at.length {
		return
	}
	x = x[first*c:]
	m.net.norm.Forward(s.exec, x, x)
	if o.Hidden != nil {
		o.Hidden(m.config.Layers, at.start+first, x)
	}
	if o.Logits == nil {
		first, x = t-1, x[len(x)-c:]
	}
	for i := 0; i < len(x); i += c {
		m.net.head.Forward(s.exec, s.logits, x[i:i+c]) // [V]
		if o.Logits != nil {
			o.Logits(at.start+first+i/c, s.logits)
		}
	}
}

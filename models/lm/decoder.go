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
// the last one. They are valid until the next use of the state or of a fork of it.
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
	seq := s.seq
	fresh := len(seq.text) // position of the first of the tokens; those before may be read again
	seq.text = append(seq.text, tokens...)
	seq.begin(&m.config, len(seq.text))
	for seq.ready < len(seq.text) {
		if err := s.chunk(ctx, fresh, o); err != nil {
			seq.truncate(fresh)
			return err
		}
	}
	return nil
}

func (m *Model) check(s *State, tokens []int) error {
	if s.model != m {
		return fmt.Errorf("lm: state of another model")
	}
	if len(tokens) == 0 {
		return fmt.Errorf("lm: no tokens: %w", ErrToken)
	}
	if room := s.Cap() - s.Len(); len(tokens) > room {
		return fmt.Errorf("lm: %d tokens after %d in a state for %d: %w", len(tokens), s.Len(), s.Cap(), ErrFull)
	}
	return m.checkTokens(tokens)
}

func (m *Model) checkTokens(tokens []int) error {
	for i, id := range tokens {
		if id < 0 || id >= m.config.Vocab {
			return fmt.Errorf("lm: token %d is %d in a vocabulary of %d: %w", i, id, m.config.Vocab, ErrToken)
		}
	}
	return nil
}

// chunk computes as many of the tokens that are not computed as pass the network
// together.
func (s *State) chunk(ctx context.Context, fresh int, o Observer) error {
	seq, start := s.seq, s.seq.ready
	length := len(seq.text)
	r := run{seq: seq, tokens: min(s.pass.tokens, length-start), length: length}
	last := start+r.tokens == length
	again := min(max(0, fresh-start), r.tokens) // tokens that are not the call's own
	if o.Hidden != nil || o.Logits != nil {
		r.wanted = r.tokens - again
	} else if last {
		r.wanted = 1
	}
	s.run[0] = r
	states, err := s.pass.step(ctx, s.run[:], s.observeHidden(o, start, again))
	if err != nil || r.wanted == 0 {
		return err
	}
	position := start + r.tokens - r.wanted
	if o.Hidden != nil {
		o.Hidden(s.model.config.Layers, position, states)
	}
	e := s.model.config.EmbedWidth
	if o.Logits == nil {
		states = states[len(states)-e:]
	}
	for i := 0; i < len(states); i += e {
		if s.logits = s.pass.score(states[i:][:e]); o.Logits != nil {
			o.Logits(position+i/e, s.logits)
		}
	}
	return nil
}

// observeHidden returns what passes the call's own states of a step on, or nil.
func (s *State) observeHidden(o Observer, start, again int) func(layer int, states []float32) {
	if o.Hidden == nil {
		return nil
	}
	return func(layer int, states []float32) {
		if own := states[again*s.model.config.Hidden:]; len(own) > 0 {
			o.Hidden(layer, start+again, own)
		}
	}
}

// normalise applies a norm, if there is one, to x in place.
func normalise(e *tensor.Exec, n nn.Norm, x []float32) {
	if n != nil {
		n.Forward(e, x, x)
	}
}

// block runs x [T, C] through block i. In a parallel one attention and MLP both read
// what enters it, else the MLP reads what attention leaves.
func (p *pass) block(i int, x []float32) {
	l, e := &p.model.net.layers[i], p.exec
	h := p.h[:len(x)]
	l.attentionNorms.enter(e, h, x)
	p.attend(i, h)
	g := h
	if l.parallel {
		g = p.side[:len(x)]
		l.mlpNorms.enter(e, g, x)
		l.attentionNorms.leave(e, x, h)
	} else {
		l.attentionNorms.leave(e, x, h)
		l.mlpNorms.enter(e, g, x)
	}
	l.mlp.forward(p, g)
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

// attend replaces h [T, C] by attention of block i over the sequences so far.
func (p *pass) attend(i int, h []float32) {
	c, e, l, t := &p.model.config, p.exec, &p.model.net.layers[i], len(h)/p.model.config.Hidden
	q := p.q[:t*c.Heads*c.HeadDim]
	k, v := p.k[:t*c.KVHeads*c.HeadDim], p.v[:t*c.KVHeads*c.HeadDim]

	e.MatMuls(h, l.q.Product(q), l.k.Product(k), l.v.Product(v)) // [T, H, D], [T, G, D] twice
	normalise(e, l.qNorm, q)
	normalise(e, l.kNorm, k)
	if len(p.angles) > 0 {
		cos, sin := p.angles[l.rope].of(t)
		e.RoPE(q, cos, sin, c.Heads, c.HeadDim)
		e.RoPE(k, cos, sin, c.KVHeads, c.HeadDim)
	}
	e.StoreKV(p.kv[i], k, v, p.spans)
	e.PagedAttention(tensor.PagedAttention{
		Out: q, Q: q, KV: p.kv[i], Spans: p.spans,
		Heads: c.Heads, Window: l.window, Scale: l.scale, Cap: float32(c.ScoreCap), KeyBias: p.keyBias,
	})
	l.o.Forward(e, h, q) // [T, C]
}

package lm

import (
	"context"

	"helicon/models/lm/family"
	"helicon/models/tensor"
)

// pass is what tokens need on their way through the network, all allocated when it is
// made. It belongs to one goroutine at a time.
type pass struct {
	model   *Model
	exec    *tensor.Exec
	tokens  int // that pass together at most
	outputs int // rows of logits at most

	x, h, side []float32 // [tokens, C], x and h as wide as E at least; side only if parallel
	q          []float32 // [tokens, H, D]
	k, v       []float32 // [tokens, G, D]
	gate, up   []float32 // [tokens, I]
	routing    routing
	angles     []angles  // of each of Config.rotations
	keyBias    []float32 // [H, positions], or nil
	logits     []float32 // [outputs, V]
	ids        []int     // [tokens], of tokens and then of positions
	wanted     []int     // [tokens], rows whose logits are asked for
	spans      []tensor.Span
	kv         []tensor.KVPages // of each layer; the cache's
}

// angles are the rotations of the positions of a step.
type angles struct {
	half     int
	cos, sin []float32 // [tokens, half]
}

// of returns the part for t tokens.
func (a *angles) of(t int) (cos, sin []float32) { return a.cos[:t*a.half], a.sin[:t*a.half] }

// passSize is how much goes through the network together.
type passSize struct {
	tokens    int
	sequences int
	outputs   int // rows of logits
	positions int // that a sequence has at most
}

func (m *Model) newPass(z passSize) *pass {
	c, t := &m.config, z.tokens
	floats := func(n int) []float32 { return make([]float32, n) }
	wide := max(c.Hidden, c.EmbedWidth)
	p := &pass{
		model: m, exec: tensor.NewExec(m.pool), tokens: t, outputs: z.outputs,
		x: floats(t * wide), h: floats(t * wide),
		q: floats(t * c.Heads * c.HeadDim),
		k: floats(t * c.KVHeads * c.HeadDim), v: floats(t * c.KVHeads * c.HeadDim),
		up:      floats(t * c.Inner()),
		routing: newRouting(c, t),
		logits:  floats(z.outputs * c.Vocab),
		ids:     make([]int, t),
		wanted:  make([]int, t),
		spans:   make([]tensor.Span, 0, z.sequences),
	}
	if c.Layout.Gated() {
		p.gate = floats(t * c.Inner())
	}
	if c.Parallel {
		p.side = floats(t * c.Hidden)
	}
	for _, r := range c.Rotations {
		p.angles = append(p.angles, angles{half: r.Half(), cos: floats(t * r.Half()), sin: floats(t * r.Half())})
	}
	if c.KeyBias != nil {
		p.keyBias = floats(c.Heads * z.positions)
		for h := range c.Heads {
			c.KeyBias(p.keyBias[h*z.positions:][:z.positions], h)
		}
	}
	return p
}

// passBytes returns what a pass takes.
func passBytes(c *family.Config, z passSize) int64 {
	const floatSize, intSize = 4, 8
	floats := 2 * int64(max(c.Hidden, c.EmbedWidth)) // of a token
	floats += int64(c.Heads+2*c.KVHeads) * int64(c.HeadDim)
	floats += int64(c.Inner())
	if c.Layout.Gated() {
		floats += int64(c.Inner())
	}
	if c.Parallel {
		floats += int64(c.Hidden)
	}
	for _, r := range c.Rotations {
		floats += 2 * int64(r.Half())
	}
	ints := int64(2)
	if n := c.Experts.Count; n > 0 {
		floats += int64(n) + 2*int64(c.Hidden) + 1
		ints++
	}
	bias := int64(0)
	if c.KeyBias != nil {
		bias = int64(c.Heads) * int64(z.positions)
	}
	return int64(z.tokens)*(floatSize*floats+intSize*ints) + floatSize*(int64(z.outputs)*int64(c.Vocab)+bias)
}

// run is a stretch of one sequence in a step: the next tokens that are not computed.
// The sequence was told of the length by its begin.
type run struct {
	seq    *sequence
	tokens int
	length int // of the sequence when the call that the tokens belong to is done
	wanted int // how many of the last ones are asked for
}

// step computes the next tokens of sequences and returns the states [R, E] of those
// that were asked for, as the output matrix reads them. They are valid until the next
// step. hidden, if not nil, sees the states [T, C] that enter the first block and that
// leave each. After an error nothing was computed.
//
// What a sequence gets does not depend, in any bit, on what else is in the step.
func (p *pass) step(ctx context.Context, runs []run, hidden func(layer int, states []float32)) ([]float32, error) {
	m := p.model
	t, outputs := p.gather(runs)
	x := p.embed(t)
	for i := range m.net.layers {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if hidden != nil {
			hidden(i, x)
		}
		p.block(i, x)
	}
	for _, r := range runs {
		r.seq.computed(r.tokens)
	}
	return p.outputStates(x, outputs), nil
}

// gather collects the tokens of runs, their places in the cache, and the rows that are
// asked for.
func (p *pass) gather(runs []run) (tokens, outputs int) {
	c := &p.model.config
	p.spans = p.spans[:0]
	for i, r := range runs {
		if i == 0 {
			p.kv = r.seq.cache.layers // shared by all
		}
	}
	for _, r := range runs {
		s := r.seq
		s.need(r.tokens)
		p.spans = append(p.spans, s.span(r.tokens))
		for i, a := range p.angles {
			lo, hi := tokens*a.half, (tokens+r.tokens)*a.half
			c.Rotations[i].Angles(a.cos[lo:hi], a.sin[lo:hi], s.ready, r.length)
		}
		copy(p.ids[tokens:], s.text[s.ready:][:r.tokens])
		tokens += r.tokens
		for i := tokens - r.wanted; i < tokens; i++ {
			p.wanted[outputs] = i
			outputs++
		}
	}
	return tokens, outputs
}

// embed returns what enters the first block [T, C].
func (p *pass) embed(t int) []float32 {
	n, c, e := &p.model.net, &p.model.config, p.exec
	x, h, ids := p.x[:t*c.Hidden], p.h[:t*c.Hidden], p.ids[:t]
	if n.widen.Weight.Rows == 0 {
		n.embed.Forward(x, ids) // [T, C]
	} else {
		narrow := p.h[:t*c.EmbedWidth]
		n.embed.Forward(narrow, ids) // [T, E]
		n.widen.Forward(e, x, narrow)
	}
	if n.positions.Weight.Rows > 0 {
		ids = ids[:0]
		for _, s := range p.spans {
			for i := range s.Rows {
				ids = append(ids, s.Start+i)
			}
		}
		n.positions.Forward(h, ids)
		e.Add(x, h)
	}
	normalise(e, n.embedNorm, x)
	return x
}

// outputStates picks the rows that are asked for and readies them for the output matrix.
func (p *pass) outputStates(x []float32, outputs int) []float32 {
	n, c := &p.model.net, &p.model.config
	h := p.h[:outputs*c.Hidden]
	if outputs == 0 {
		return h
	}
	p.exec.Gather(h, x, c.Hidden, p.wanted[:outputs])
	normalise(p.exec, n.norm, h)
	if n.narrow.Weight.Rows == 0 {
		return h
	}
	x = p.x[:outputs*c.EmbedWidth]
	n.narrow.Forward(p.exec, x, h) // [R, E]
	return x
}

// score returns the logits [R, V] of at most p.outputs of the states [R, E] that step
// returned. They are valid until the next call.
func (p *pass) score(states []float32) []float32 {
	c := &p.model.config
	logits := p.logits[:len(states)/c.EmbedWidth*c.Vocab]
	p.model.net.head.Forward(p.exec, logits, states)
	if c.LogitCap > 0 {
		p.exec.SoftCap(logits, float32(c.LogitCap))
	}
	return logits
}

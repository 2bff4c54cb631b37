package lm

import (
	"helicon/models/lm/family"
	"helicon/models/nn"
	"helicon/models/tensor"
)

// feedForward is the position-wise half of a block: it replaces states h [T, C] by
// what it makes of them.
type feedForward interface {
	// linears returns all matrices.
	linears() []*nn.Linear
	forward(p *pass, h []float32)
}

// mlp is down(f(up·h)), or down(f(gate·h)·(up·h)) if gated (Shazeer 2020).
type mlp struct {
	gated      bool
	gate, up   nn.Linear // [I, C]; gate only if gated
	down       nn.Linear // [C, I]
	inner      int       // I
	activation tensor.Activation
}

func (f *mlp) forward(p *pass, h []float32) {
	e, t := p.exec, len(h)/f.down.Weight.Rows
	up := p.up[:t*f.inner]
	if f.gated {
		gate := p.gate[:len(up)]
		e.MatMuls(h, f.gate.Product(gate), f.up.Product(up)) // [T, I] twice
		e.Gate(f.activation, gate, up)
		up = gate
	} else {
		f.up.Forward(e, up, h) // [T, I]
		e.Activate(f.activation, up)
	}
	f.down.Forward(e, h, up) // [T, C]
}

// mixture is a mixture of experts: a router sends each token to a few of them, and
// the results are added by its probabilities (Shazeer et al. 2017; Jiang et al. 2024).
type mixture struct {
	router    nn.Linear // [X, C]
	experts   []mlp     // X
	used      int       // experts a token
	normalise bool      // the weights of a token add up to 1
}

func (f *mlp) linears() []*nn.Linear { return []*nn.Linear{&f.gate, &f.up, &f.down} }

func (m *mixture) linears() []*nn.Linear {
	all := []*nn.Linear{&m.router}
	for i := range m.experts {
		all = append(all, m.experts[i].linears()...)
	}
	return all
}

// routing is what a pass keeps for mixtures.
type routing struct {
	weights []float32 // [chunk, X]
	in, out []float32 // [chunk, C]
	tokens  []int     // [chunk], those of one expert
	share   []float32 // [chunk], their weights
}

func newRouting(c *family.Config, chunk int) routing {
	if c.Experts.Count == 0 {
		return routing{}
	}
	return routing{
		weights: make([]float32, chunk*c.Experts.Count),
		in:      make([]float32, chunk*c.Hidden),
		out:     make([]float32, chunk*c.Hidden),
		tokens:  make([]int, chunk),
		share:   make([]float32, chunk),
	}
}

// forward runs the experts one after the other, each on its tokens together. A token's
// sum is taken in the order of the experts, whoever its neighbours are.
func (m *mixture) forward(p *pass, h []float32) {
	e, r, n, c := p.exec, &p.routing, len(m.experts), m.router.Weight.Cols
	t := len(h) / c
	weights, out := r.weights[:t*n], r.out[:len(h)]
	m.router.Forward(e, weights, h) // [T, X]
	e.Softmax(weights, n)
	for i := range t {
		keepBest(weights[i*n:][:n], m.used, m.normalise)
	}
	clear(out)
	for x := range m.experts {
		tokens, share := r.tokens[:0], r.share[:0]
		for i := range t {
			if w := weights[i*n+x]; w > 0 {
				tokens, share = append(tokens, i), append(share, w)
			}
		}
		if len(tokens) == 0 {
			continue
		}
		in := r.in[:len(tokens)*c]
		e.Gather(in, h, c, tokens)
		m.experts[x].forward(p, in)
		e.ScatterAdd(out, in, c, tokens, share)
	}
	copy(h, out)
}

// keepBest sets all but the n largest of the probabilities p to 0, of equal ones
// keeping the first, and divides those by their sum if normalise is set.
func keepBest(p []float32, n int, normalise bool) {
	var sum float32
	for range n {
		best := -1
		for i, v := range p {
			if v > 0 && (best < 0 || v > p[best]) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		sum += p[best]
		p[best] = -p[best] // chosen
	}
	if !normalise {
		sum = 1
	}
	for i, v := range p {
		p[i] = max(-v, 0) / sum
	}
}

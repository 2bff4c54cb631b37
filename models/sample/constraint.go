package sample

import "math"

// Constraint says which tokens may come next, as a grammar does. It belongs to one
// text, and its sampler tells it what was chosen.
type Constraint interface {
	// Allowed returns the set of tokens that may come next, among them those that end
	// the text if it may end: token id is bit id%64 of word id/64, and tokens beyond the
	// last word are not allowed. Nil allows every token. The set is not changed.
	Allowed() []uint64
	// Accept takes the token that was chosen. The error says that it was not allowed.
	Accept(id int) error
	// Ended reports whether the text is complete, so that no token may follow.
	Ended() bool
}

// Constrain makes the sampler choose among the tokens that c allows. It must be called
// before Resume and Next. The tokens that c forbids are as if their logits were -Inf,
// before anything else is done to the logits.
func (s *Sampler) Constrain(c Constraint) { s.constraint = c }

// Ended reports whether the constraint says that the text is complete: there is nothing
// left for Next to choose.
func (s *Sampler) Ended() bool { return s.constraint != nil && s.constraint.Ended() }

// forbid sets the logits of all tokens that are not allowed to -Inf.
func forbid(logits []float32, allowed []uint64) {
	inf := float32(math.Inf(-1))
	for len(logits) > 0 {
		var word uint64
		if len(allowed) > 0 {
			word, allowed = allowed[0], allowed[1:]
		}
		n := min(64, len(logits))
		switch word {
		case ^uint64(0):
		case 0:
			for i := range n {
				logits[i] = inf
			}
		default:
			for i := range n {
				if word>>i&1 == 0 {
					logits[i] = inf
				}
			}
		}
		logits = logits[n:]
	}
}

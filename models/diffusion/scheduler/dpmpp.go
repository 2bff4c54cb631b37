package scheduler

import (
	"fmt"
	"math"
)

// solver is what the variants of DPM-Solver++ (Lu et al. 2022) have in common: an
// exponential integrator over λ = log(α/σ) of the predicted pictures.
type solver struct {
	levels []Call // of the calls, and after the last
	sde    bool
	heun   bool // the correction of solver_type heun in place of midpoint
	order  int
}

func newSolver(p *plan, most int) (solver, error) {
	s := solver{levels: p.solverLevels(), heun: p.SolverType == "heun", order: p.SolverOrder}
	switch p.Algorithm {
	case "dpmsolver++", "deis":
	case "sde-dpmsolver++":
		s.sde = true
	default:
		return s, fmt.Errorf("scheduler: algorithm_type %q: %w", p.Algorithm, ErrConfig)
	}
	switch {
	case s.order < 1 || s.order > most || s.sde && s.order > 2:
		return s, fmt.Errorf("scheduler: solver_order %d with algorithm_type %s: %w", s.order, p.Algorithm, ErrConfig)
	case p.SolverType != "midpoint" && p.SolverType != "heun" && p.SolverType != "logrho" && p.SolverType != "bh1" && p.SolverType != "bh2":
		return s, fmt.Errorf("scheduler: solver_type %q: %w", p.SolverType, ErrConfig)
	}
	return s, nil
}

// solverLevels returns the levels of the calls and the one after the last.
func (p *plan) solverLevels() []Call {
	levels := make([]Call, 0, len(p.sigmas))
	for _, sigma := range p.sigmas {
		levels = append(levels, p.preserving(sigma))
	}
	return levels
}

func (s *solver) draws() bool { return s.sde }

// lambda is half the logarithm of the signal-to-noise ratio of level i.
func (s *solver) lambda(i int) float64 { return lambda(s.levels[i]) }

func lambda(c Call) float64 { return math.Log(c.alpha) - math.Log(c.sigma) }

// advance moves x, at level from, to level to: weights[k] of the pictures or their
// differences, in units of h, beside what the exponential does to x. It adds the noise
// of call i.
func (s *solver) advance(r *Run, i, from int, x []float32, terms ...term) {
	a, b := s.levels[from], s.levels[i+1]
	h := lambda(b) - lambda(a)
	keep, grow := b.sigma/a.sigma, b.alpha*(1-math.Exp(-h))
	if s.sde {
		keep, grow = keep*math.Exp(-h), b.alpha*(1-math.Exp(-2*h))
	}
	scaled := float32(keep)
	for k := range x {
		x[k] *= scaled
	}
	for _, t := range terms {
		w := t.weight
		switch t.kind {
		case first:
			w *= grow
		case second: // ∫ of the linear term
			switch {
			case !s.heun:
				w *= grow / 2
			case s.sde:
				w *= b.alpha * ((1-math.Exp(-2*h))/(-2*h) + 1)
			default:
				w *= b.alpha * ((math.Exp(-h)-1)/h + 1)
			}
		case exact:
			w *= b.alpha * ((math.Exp(-h)-1)/h + 1)
		case third: // ∫ of the quadratic term
			w *= -b.alpha * ((math.Exp(-h)-1+h)/(h*h) - 0.5)
		}
		axpy(x, w, t.v)
	}
	if s.sde {
		r.addNoise(x, b.sigma*math.Sqrt(1-math.Exp(-2*h)))
	}
}

// term is a vector in an update, and what its weight is a factor of.
type term struct {
	kind   int
	weight float64
	v      []float32
}

const (
	first  = iota // the picture
	second        // its first derivative, by midpoint or heun
	exact         // its first derivative, integrated exactly
	third         // its second derivative
)

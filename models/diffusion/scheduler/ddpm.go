package scheduler

import (
	"fmt"
	"math"
)

// ddpm is ancestral sampling of DDPM (Ho et al. 2020, formula 7).
type ddpm struct {
	next  []float64 // ᾱ after each call
	large bool      // the variance is β instead of the posterior's
}

func newDDPM(p *plan) (sampler, error) {
	s := &ddpm{}
	switch p.Variance {
	case "fixed_small", "fixed_small_log":
	case "fixed_large":
		s.large = true
	default:
		return nil, fmt.Errorf("scheduler: variance_type %q: %w", p.Variance, ErrConfig)
	}
	for _, t := range p.times {
		s.next = append(s.next, p.after(t))
	}
	return s, nil
}

func (s *ddpm) draws() bool { return true }

func (s *ddpm) step(r *Run, i int, x, out []float32) {
	a, next := r.calls[i].alpha*r.calls[i].alpha, s.next[i]
	alpha := a / next // of this step alone
	picture := r.denoise(i, x, out)
	p := math.Sqrt(next) * (1 - alpha) / (1 - a)
	q := math.Sqrt(alpha) * (1 - next) / (1 - a)
	combine(x, float32(p), picture, float32(q), x)
	if r.calls[i].Timestep == 0 {
		return
	}
	variance := (1 - next) / (1 - a) * (1 - alpha)
	if s.large {
		variance = 1 - alpha
	}
	r.addNoise(x, math.Sqrt(max(variance, 1e-20)))
}

package scheduler

import "math"

// tcd is strategic stochastic sampling of trajectory consistency models (Zheng et al.
// 2024): a step below the next level, and noise up to it.
type tcd struct {
	target, next []float64 // ᾱ that the model steps to, and after the noise
}

func newTCD(p *plan) (sampler, error) {
	s := &tcd{}
	for i := range p.times {
		to := 0.0
		if i+1 < len(p.times) {
			to = p.times[i+1]
		}
		s.target = append(s.target, p.bar[int((1-p.eta)*to)])
		s.next = append(s.next, p.following(i))
	}
	return s, nil
}

func (s *tcd) draws() bool { return len(s.next) > 1 && s.target[0] != s.next[0] }

func (s *tcd) step(r *Run, i int, x, out []float32) {
	np, nq := r.noiseOf(r.calls[i])
	p, q := r.pictureOf(r.calls[i])
	alpha, sigma := math.Sqrt(s.target[i]), math.Sqrt(1-s.target[i])
	combine(x, float32(alpha*p+sigma*np), x, float32(alpha*q+sigma*nq), out)
	if i+1 == len(s.next) || s.target[i] == s.next[i] {
		return
	}
	ratio := s.next[i] / s.target[i]
	keep := float32(math.Sqrt(ratio))
	for k := range x {
		x[k] *= keep
	}
	r.addNoise(x, math.Sqrt(1-ratio))
}

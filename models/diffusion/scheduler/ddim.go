package scheduler

import "math"

// ddim is DDIM (Song et al. 2021): to the next level along the predicted noise, of which
// a share, eta, is fresh.
type ddim struct {
	next []float64 // ᾱ after each call
	eta  float64
}

// planDDIM fills in the calls at whole timesteps of training.
func planDDIM(p *plan, _ Options) error {
	p.times = p.spaced(p.steps)[p.first:]
	for i, t := range p.times {
		p.times[i] = math.RoundToEven(t)
		p.calls = append(p.calls, p.at(int(p.times[i])))
	}
	return nil
}

// after returns ᾱ one step of the schedule below a timestep.
func (p *plan) after(t float64) float64 {
	switch prev := int(t) - p.TrainSteps/p.steps; {
	case prev >= 0:
		return p.bar[prev]
	case p.SetAlphaToOne || p.Class == "DDPMScheduler":
		return 1
	}
	return p.bar[0]
}

func newDDIM(p *plan) (sampler, error) {
	s := &ddim{eta: p.eta}
	for _, t := range p.times {
		s.next = append(s.next, p.after(t))
	}
	return s, nil
}

func (s *ddim) draws() bool { return s.eta > 0 }

func (s *ddim) step(r *Run, i int, x, out []float32) {
	c := r.calls[i]
	a, next := c.alpha*c.alpha, s.next[i]
	std := s.eta * math.Sqrt((1-next)/(1-a)*(1-a/next))
	np, nq := r.noiseOf(c)
	direction := math.Sqrt(1 - next - std*std)
	// The noise is that of the network; the picture may have been clipped since.
	along, from := float32(direction*nq), float32(direction*np)
	p, q := r.pictureOf(c)
	pp, pq := float32(p), float32(q)
	for k, v := range out {
		out[k], x[k] = pq*v+pp*x[k], along*v+from*x[k]
	}
	r.bound(out)
	axpy(x, math.Sqrt(next), out)
	r.addNoise(x, std)
}

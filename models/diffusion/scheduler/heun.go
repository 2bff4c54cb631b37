package scheduler

// heun is Heun's method of second order (Karras et al. 2022, algorithm 2 without churn):
// Euler's step, and then the mean of the derivatives at its two ends.
type heun struct {
	sigmas  []float64
	start   []float32 // x before the step
	picture []float32 // seen from there
}

// planHeun fills in two calls a step, at either end, and one for the last.
func planHeun(p *plan, _ Options) error {
	if err := p.planLevels(); err != nil {
		return err
	}
	p.pairCalls()
	return nil
}

func (p *plan) pairCalls() {
	for k, t := range p.times {
		if k > 0 {
			p.calls = append(p.calls, p.level(t, p.sigmas[k]))
		}
		p.calls = append(p.calls, p.level(t, p.sigmas[k]))
	}
}

func newHeun(p *plan) (sampler, error) { return &heun{sigmas: p.sigmas}, nil }

func (s *heun) step(r *Run, i int, x, out []float32) {
	sigma, next := s.sigmas[i/2], s.sigmas[i/2+1]
	picture := r.denoise(i, x, out)
	if i%2 == 0 {
		s.start = append(s.start[:0], x...)
		s.picture = append(s.picture[:0], picture...)
		toward(x, picture, sigma, next)
		return
	}
	// Half of either derivative: (start-picture)/σ and (x-picture')/σ'.
	half := (next - sigma) / 2
	a, b := float32(half/sigma), float32(half/next)
	for k := range x {
		x[k] = s.start[k] + a*(s.start[k]-s.picture[k]) + b*(x[k]-picture[k])
	}
}

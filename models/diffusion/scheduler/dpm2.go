package scheduler

import "math"

// dpm2 is DPM-Solver-2 in the form of Karras et al. 2022 (algorithm 2 of k-diffusion):
// the derivative half way, in logarithms of σ, leads the step. The ancestral variant adds
// fresh noise after it.
type dpm2 struct {
	ancestral bool
	sigmas    []float64
	half      []float64 // the level half way of each step; 0 in the last
	start     []float32
}

// planDPM2 fills in two calls a step, at its begin and half way, and one for the last.
func planDPM2(p *plan, _ Options) error {
	if err := p.planLevels(); err != nil {
		return err
	}
	train := p.trainSigmas()
	for k, half := range p.halfway() {
		p.calls = append(p.calls, p.level(p.times[k], p.sigmas[k]))
		if half > 0 {
			p.calls = append(p.calls, p.level(timeOf(train, half), half))
		}
	}
	return nil
}

// halfway returns the levels half way of each step, 0 for the last, which is Euler's.
func (p *plan) halfway() []float64 {
	half := make([]float64, len(p.times))
	for k := range half[:len(half)-1] {
		end := p.sigmas[k+1]
		if p.isAncestral() {
			end, _ = ancestral(p.sigmas[k], end)
		}
		half[k] = math.Sqrt(p.sigmas[k] * end)
	}
	return half
}

func (p *plan) isAncestral() bool { return p.Class == "KDPM2AncestralDiscreteScheduler" }

func newDPM2(p *plan) (sampler, error) {
	return &dpm2{ancestral: p.isAncestral(), sigmas: p.sigmas, half: p.halfway()}, nil
}

func (s *dpm2) draws() bool { return s.ancestral }

func (s *dpm2) step(r *Run, i int, x, out []float32) {
	k := i / 2
	sigma, half := s.sigmas[k], s.half[k]
	picture := r.denoise(i, x, out)
	if i%2 == 0 {
		s.start = append(s.start[:0], x...)
		toward(x, picture, sigma, half)
		return
	}
	end, up := s.sigmas[k+1], 0.0
	if s.ancestral {
		end, up = ancestral(sigma, end)
	}
	step := float32((end - sigma) / half)
	for n := range x {
		x[n] = s.start[n] + step*(x[n]-picture[n])
	}
	r.addNoise(x, up)
}

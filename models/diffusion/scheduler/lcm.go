package scheduler

import (
	"fmt"
	"math"
)

// lcm is multistep sampling of latent consistency models (Luo et al. 2023): the picture
// is predicted at once, and noise of the next level added.
type lcm struct {
	next    []float64 // ᾱ after each call
	scaling float64
}

// planLCM fills in timesteps of the schedule that the model was distilled on.
func planLCM(p *plan, _ Options) error {
	origin := p.OriginalSteps
	if origin < 1 || origin > p.TrainSteps {
		return fmt.Errorf("scheduler: original_inference_steps %d, want 1 to %d: %w", origin, p.TrainSteps, ErrConfig)
	}
	if p.steps > origin {
		return fmt.Errorf("scheduler: %d steps, want 1 to original_inference_steps = %d: %w", p.steps, origin, ErrOptions)
	}
	for i := p.first; i < p.steps; i++ {
		at := int(float64(i) * (float64(origin) / float64(p.steps)))
		t := (origin-at)*(p.TrainSteps/origin) - 1
		p.times = append(p.times, float64(t))
		p.calls = append(p.calls, p.at(t))
	}
	return nil
}

// following returns ᾱ at the timestep of the next call.
func (p *plan) following(i int) float64 {
	if i+1 < len(p.times) {
		return p.bar[int(p.times[i+1])]
	}
	return p.bar[0]
}

func newLCM(p *plan) (sampler, error) {
	s := &lcm{scaling: p.TimestepScaling}
	for i := range p.times {
		s.next = append(s.next, p.following(i))
	}
	return s, nil
}

func (s *lcm) draws() bool { return len(s.next) > 1 }

func (s *lcm) step(r *Run, i int, x, out []float32) {
	picture := r.denoise(i, x, out)
	const data = 0.5 // the deviation that the boundary condition takes pictures to have
	t := float64(r.calls[i].Timestep) * s.scaling
	skip, use := data*data/(t*t+data*data), t/math.Sqrt(t*t+data*data)
	if i+1 == len(s.next) {
		combine(x, float32(use), picture, float32(skip), x)
		return
	}
	alpha := math.Sqrt(s.next[i])
	combine(x, float32(alpha*use), picture, float32(alpha*skip), x)
	r.addNoise(x, math.Sqrt(1-s.next[i]))
}

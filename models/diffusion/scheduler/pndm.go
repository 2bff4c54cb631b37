package scheduler

import (
	"fmt"
	"math"
	"slices"
)

// pndm is the linear multistep part of PNDM (Liu et al. 2022), known as PLMS: the second
// timestep is visited twice to begin with.
type pndm struct {
	from, to []float64 // ᾱ before and after each call's step
	outs     history
	start    []float32 // x of the first call
}

func planPNDM(p *plan, _ Options) error {
	if !p.SkipPRK {
		return fmt.Errorf("scheduler: PNDMScheduler with skip_prk_steps false: %w", ErrConfig)
	}
	if err := planDDIM(p, Options{}); err != nil {
		return err
	}
	if len(p.calls) > 1 {
		p.calls = slices.Insert(p.calls, 1, p.calls[1])
		p.times = slices.Insert(p.times, 1, p.times[1])
	}
	return nil
}

func newPNDM(p *plan) (sampler, error) {
	s := &pndm{outs: newHistory(4)}
	for i, t := range p.times {
		from, to := p.bar[int(t)], p.after(t)
		if i == 1 { // the first step once more
			from, to = p.bar[min(int(t)+p.TrainSteps/p.steps, p.TrainSteps-1)], p.bar[int(t)]
		}
		if from == 0 { // formula 9 divides by it
			return nil, fmt.Errorf("scheduler: PNDM for a model whose noise ends with no signal left: %w", ErrOptions)
		}
		s.from, s.to = append(s.from, from), append(s.to, to)
	}
	return s, nil
}

func (s *pndm) step(r *Run, i int, x, out []float32) {
	if i != 1 {
		s.outs.push(out)
	}
	switch i {
	case 0:
		s.start = slices.Clone(x)
	case 1:
		combine(out, 0.5, out, 0.5, s.outs.at(0))
		copy(x, s.start)
	default:
		s.extrapolate(out)
	}
	from, to := s.from[i], s.to[i]
	p, q := r.noiseOf(Call{alpha: math.Sqrt(from), sigma: math.Sqrt(1 - from)})
	combine(out, float32(q), out, float32(p), x) // the noise
	// Formula 9.
	step := (to - from) / (from*math.Sqrt(1-to) + math.Sqrt(from*(1-from)*to))
	combine(x, float32(math.Sqrt(to/from)), x, float32(-step), out)
}

// extrapolate writes what the last outputs lead to: Adams-Bashforth of their number.
func (s *pndm) extrapolate(out []float32) {
	weights := [][]float64{{1}, {3. / 2, -1. / 2}, {23. / 12, -16. / 12, 5. / 12}, {55. / 24, -59. / 24, 37. / 24, -9. / 24}}
	clear(out)
	for k, w := range weights[s.outs.count-1] {
		axpy(out, w, s.outs.at(k))
	}
}

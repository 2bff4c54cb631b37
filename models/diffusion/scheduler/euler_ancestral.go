package scheduler

import "math"

// eulerAncestral is Euler's method with as much fresh noise in each step as DDPM has.
type eulerAncestral struct{ sigmas []float64 }

func newEulerAncestral(p *plan) (sampler, error) { return &eulerAncestral{p.sigmas}, nil }

func (s *eulerAncestral) draws() bool { return true }

func (s *eulerAncestral) step(r *Run, i int, x, out []float32) {
	picture := r.denoise(i, x, out)
	down, up := ancestral(s.sigmas[i], s.sigmas[i+1])
	toward(x, picture, s.sigmas[i], down)
	r.addNoise(x, up)
}

// ancestral divides a step down to a level into a longer one and the noise that is added
// after it.
func ancestral(sigma, next float64) (down, up float64) {
	up = math.Sqrt(next * next * (sigma*sigma - next*next) / (sigma * sigma))
	return math.Sqrt(max(next*next-up*up, 0)), up
}

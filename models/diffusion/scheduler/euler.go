package scheduler

// euler is Euler's method on the ordinary differential equation of Karras et al. 2022
// (algorithm 2 without churn), and on that of flow matching, where the derivative is what
// the network returns.
type euler struct{ sigmas []float64 }

func newEuler(p *plan) (sampler, error) { return &euler{p.sigmas}, nil }

func (s *euler) step(r *Run, i int, x, out []float32) {
	picture := r.denoise(i, x, out)
	toward(x, picture, s.sigmas[i], s.sigmas[i+1])
}

// toward moves x from level σ to another along the straight line through the picture.
func toward(x, picture []float32, sigma, next float64) {
	keep := next / sigma
	combine(x, float32(keep), x, float32(1-keep), picture)
}

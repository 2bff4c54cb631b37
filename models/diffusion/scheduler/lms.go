package scheduler

import "math"

// lms is the linear multistep method of k-diffusion: the polynomial through the last four
// derivatives is integrated over the step.
type lms struct {
	sigmas []float64
	past   history // derivatives
}

func newLMS(p *plan) (sampler, error) { return &lms{sigmas: p.sigmas, past: newHistory(4)}, nil }

func (s *lms) step(r *Run, i int, x, out []float32) {
	picture := r.denoise(i, x, out)
	per := float32(1 / s.sigmas[i])
	combine(picture, per, x, -per, picture)
	s.past.push(picture)
	for k := range s.past.count {
		axpy(x, s.weight(i, k), s.past.at(k))
	}
}

// weight integrates the Lagrange polynomial of the k-th newest derivative over step i:
// Gauss's rule of two points is exact for degree 3.
func (s *lms) weight(i, k int) float64 {
	from, to := s.sigmas[i], s.sigmas[i+1]
	mid, half := (from+to)/2, (to-from)/2
	sum := 0.0
	for _, at := range []float64{mid - half/math.Sqrt(3), mid + half/math.Sqrt(3)} {
		product := 1.0
		for j := range s.past.count {
			if j != k {
				product *= (at - s.sigmas[i-j]) / (s.sigmas[i-k] - s.sigmas[i-j])
			}
		}
		sum += product
	}
	return sum * half
}

package scheduler

import (
	"fmt"
	"math"
	"slices"
)

// unipc is UniPC (Zhao et al. 2023) of pictures: the predictor takes the step, and the
// corrector takes it once more when the picture at its end is known.
type unipc struct {
	levels     []Call
	order      int
	bh1        bool // B(h) = h in place of e^h - 1
	lowerFinal bool
	off        []int // steps that are not corrected

	past history
	last []float32 // x before the last step
	was  int       // order of the last step
}

func newUniPC(p *plan) (sampler, error) {
	s := &unipc{levels: p.solverLevels(), order: p.SolverOrder, bh1: p.SolverType == "bh1", lowerFinal: p.LowerOrderFinal, off: p.DisableCorrector}
	switch {
	case p.SolverOrder < 1 || p.SolverOrder > 3:
		return nil, fmt.Errorf("scheduler: solver_order %d: %w", p.SolverOrder, ErrConfig)
	case !p.PredictX0:
		return nil, fmt.Errorf("scheduler: predict_x0 false: %w", ErrConfig)
	case !slices.Contains([]string{"bh1", "bh2", "midpoint", "heun", "logrho"}, p.SolverType):
		return nil, fmt.Errorf("scheduler: solver_type %q: %w", p.SolverType, ErrConfig)
	}
	s.past = newHistory(s.order)
	return s, nil
}

func (s *unipc) step(r *Run, i int, x, out []float32) {
	picture := r.denoise(i, x, out)
	if i > 0 && !slices.Contains(s.off, i-1) {
		copy(x, s.last)
		s.update(i-1, s.was, x, picture)
	}
	s.past.push(picture)
	order := s.order
	switch {
	case s.levels[i+1].sigma == 0: // λ has no end there
		order = 1
	case s.lowerFinal:
		order = min(order, len(r.calls)-i)
	}
	s.was = min(order, s.past.count)
	s.last = append(s.last[:0], x...)
	s.update(i, s.was, x, nil)
}

// update takes step i from x, with the newest picture that of its begin. end is the
// picture at its end, if it is known: then the step is that of the corrector.
func (s *unipc) update(i, order int, x, end []float32) {
	a, b := s.levels[i], s.levels[i+1]
	h := lambda(b) - lambda(a)
	phi := math.Expm1(-h)
	bh := phi
	if s.bh1 {
		bh = -h
	}
	// The differences D_k = (m_k-m₀)/r_k of the pictures before, and r = 1 of the end.
	ratios := make([]float64, 0, 3)
	for k := 1; k < order; k++ {
		ratios = append(ratios, (lambda(s.levels[i-k])-lambda(a))/h)
	}
	ratios = append(ratios, 1)
	weights := s.weights(ratios, h, bh, end != nil)
	m0 := s.past.at(0)
	combine(x, float32(b.sigma/a.sigma), x, float32(-b.alpha*phi), m0)
	for k, w := range weights {
		m := end
		if k < order-1 {
			m = s.past.at(k + 1)
		}
		scale := -b.alpha * bh * w / ratios[k]
		axpy(x, scale, m)
		axpy(x, -scale, m0)
	}
}

// weights solves for the factors of the differences: those of the pictures before, and,
// for the corrector, that of the end.
func (s *unipc) weights(ratios []float64, h, bh float64, corrector bool) []float64 {
	n := len(ratios)
	if !corrector {
		n--
	}
	switch n {
	case 0:
		return nil
	case 1: // as simplified in the paper
		return []float64{0.5}
	}
	matrix := make([][]float64, n) // rows r^i, and the right side
	phi, factorial := math.Expm1(-h)/-h-1, 1.0
	for i := range matrix {
		matrix[i] = make([]float64, n+1)
		for k := range n {
			matrix[i][k] = math.Pow(ratios[k], float64(i))
		}
		matrix[i][n] = phi * factorial / bh
		factorial *= float64(i + 2)
		phi = phi/-h - 1/factorial
	}
	return solve(matrix)
}

// solve solves a small system of full rank whose rows end in the right side.
func solve(m [][]float64) []float64 {
	n := len(m)
	for c := range n {
		pivot := c
		for r := c + 1; r < n; r++ {
			if math.Abs(m[r][c]) > math.Abs(m[pivot][c]) {
				pivot = r
			}
		}
		m[c], m[pivot] = m[pivot], m[c]
		for r := range n {
			if r == c {
				continue
			}
			f := m[r][c] / m[c][c]
			for k := c; k <= n; k++ {
				m[r][k] -= f * m[c][k]
			}
		}
	}
	x := make([]float64, n)
	for i := range x {
		x[i] = m[i][n] / m[i][i]
	}
	return x
}

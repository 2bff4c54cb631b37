package scheduler

// multistep is DPM-Solver++ that remembers the pictures of the steps before.
type multistep struct {
	solver
	past       history
	lowerFinal bool // few steps end with lower orders
	eulerFinal bool // the last step is of first order
}

func newMultistep(p *plan) (sampler, error) {
	s, err := newSolver(p, 3)
	if err != nil {
		return nil, err
	}
	few := p.LowerOrderFinal && p.steps < 15
	return &multistep{
		solver: s, past: newHistory(3),
		lowerFinal: few, eulerFinal: p.EulerAtFinal || few || p.FinalSigmas == "zero",
	}, nil
}

func (s *multistep) step(r *Run, i int, x, out []float32) {
	s.past.push(r.denoise(i, x, out))
	order := min(s.order, s.past.count)
	switch left := len(r.calls) - i; {
	case left == 1 && s.eulerFinal:
		order = 1
	case left == 2 && s.lowerFinal:
		order = min(order, 2)
	}
	m0 := s.past.at(0)
	if order == 1 {
		s.advance(r, i, i, x, term{first, 1, m0})
		return
	}
	m1 := s.past.at(1)
	h := s.lambda(i+1) - s.lambda(i)
	r0 := (s.lambda(i) - s.lambda(i-1)) / h
	if order == 2 { // D₁ = (m₀-m₁)/r₀
		s.advance(r, i, i, x, term{first, 1, m0}, term{second, 1 / r0, m0}, term{second, -1 / r0, m1})
		return
	}
	m2 := s.past.at(2)
	r1 := (s.lambda(i-1) - s.lambda(i-2)) / h
	// D₁₀ = (m₀-m₁)/r₀, D₁₁ = (m₁-m₂)/r₁; D₁ = D₁₀ + r₀/(r₀+r₁)·(D₁₀-D₁₁), D₂ = (D₁₀-D₁₁)/(r₀+r₁).
	u, v := r0/(r0+r1), 1/(r0+r1)
	s.advance(r, i, i, x, term{first, 1, m0},
		term{exact, (1 + u) / r0, m0}, term{exact, -(1+u)/r0 - u/r1, m1}, term{exact, u / r1, m2},
		term{third, v / r0, m0}, term{third, -v/r0 - v/r1, m1}, term{third, v / r1, m2})
}

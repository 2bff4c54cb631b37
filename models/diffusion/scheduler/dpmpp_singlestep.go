package scheduler

// singlestep is DPM-Solver++ whose steps of higher order begin anew: the steps between
// are estimates from which the same start is left once more.
type singlestep struct {
	solver
	past   history
	orders []int
	start  []float32
}

func newSinglestep(p *plan) (sampler, error) {
	s, err := newSolver(p, 3)
	if err != nil {
		return nil, err
	}
	lower := p.LowerOrderFinal || p.FinalSigmas == "zero"
	return &singlestep{solver: s, past: newHistory(3), orders: singleOrders(p.SolverOrder, p.steps, lower)[p.first:]}, nil
}

// singleOrders returns the order of each step: rising to the solver's, again and again,
// and 1 at the end if asked for.
func singleOrders(order, steps int, lower bool) []int {
	orders := make([]int, steps)
	for i := range orders {
		orders[i] = i%order + 1
	}
	if lower {
		orders[steps-1] = 1
	}
	return orders
}

func (s *singlestep) step(r *Run, i int, x, out []float32) {
	s.past.push(r.denoise(i, x, out))
	order := min(s.orders[i], s.past.count)
	if order == 1 {
		s.start = append(s.start[:0], x...)
	}
	copy(x, s.start)
	from := i + 1 - order
	switch m0 := s.past.at(0); order {
	case 1:
		s.advance(r, i, from, x, term{first, 1, m0})
	case 2:
		m1 := s.past.at(1)
		r0 := (s.lambda(i) - s.lambda(i-1)) / (s.lambda(i+1) - s.lambda(i-1))
		s.advance(r, i, from, x, term{first, 1, m1}, term{second, 1 / r0, m0}, term{second, -1 / r0, m1})
	default:
		s.third(r, i, x)
	}
}

// third is the step of third order from two steps before.
func (s *singlestep) third(r *Run, i int, x []float32) {
	m0, m1, m2 := s.past.at(0), s.past.at(1), s.past.at(2)
	start := s.lambda(i - 2)
	h := s.lambda(i+1) - start
	r0, r1 := (s.lambda(i)-start)/h, (s.lambda(i-1)-start)/h
	if !s.heun { // D₁ = (m₀-m₂)/r₀
		s.advance(r, i, i-2, x, term{first, 1, m2}, term{exact, 1 / r0, m0}, term{exact, -1 / r0, m2})
		return
	}
	// D₁₀ = (m₁-m₂)/r₁, D₁₁ = (m₀-m₂)/r₀; D₁ = (r₀·D₁₀-r₁·D₁₁)/(r₀-r₁), D₂ = 2·(D₁₁-D₁₀)/(r₀-r₁).
	d := 1 / (r0 - r1)
	s.advance(r, i, i-2, x, term{first, 1, m2},
		term{exact, d * r0 / r1, m1}, term{exact, -d * r1 / r0, m0}, term{exact, d * (r1/r0 - r0/r1), m2},
		term{third, 2 * d / r0, m0}, term{third, -2 * d / r1, m1}, term{third, 2 * d * (1/r1 - 1/r0), m2})
}

package scheduler

import (
	"fmt"
	"math"
	"sort"
)

// trainSigmas returns σ = √((1-ᾱ)/ᾱ) of each timestep of training, rising. Where nothing
// of the picture is left, σ is that of the smallest number of half precision.
func (p *plan) trainSigmas() []float64 {
	s := make([]float64, len(p.bar))
	for i, a := range p.bar {
		if a == 0 {
			a = 1.0 / (1 << 24)
		}
		s[i] = float64(float32(math.Sqrt(float64(1-float32(a)) / a)))
	}
	return s
}

// sigmaAt interpolates the levels of training at a timestep.
func sigmaAt(train []float64, t float64) float64 {
	low := min(int(t), len(train)-2)
	return train[low] + (t-float64(low))*(train[low+1]-train[low])
}

// timeOf is the timestep of a level: the inverse of sigmaAt over logarithms.
func timeOf(train []float64, sigma float64) float64 {
	high := sort.Search(len(train), func(i int) bool { return train[i] > sigma })
	low := min(max(high-1, 0), len(train)-2)
	a, b := math.Log(train[low]), math.Log(train[low+1])
	w := (a - math.Log(max(sigma, 1e-10))) / (a - b)
	return float64(low) + min(max(w, 0), 1)
}

// reshape spreads n levels between the highest and the lowest as the configuration asks
// for; ok is false if it asks for nothing.
func (c Config) reshape(high, low float64, n int) (levels []float64, ok bool) {
	if c.SigmaMin != nil {
		low = *c.SigmaMin
	}
	if c.SigmaMax != nil {
		high = *c.SigmaMax
	}
	levels = make([]float64, n)
	for i := range levels {
		x := linspace(0, 1, n, i)
		switch {
		case c.Karras: // Karras et al. 2022, equation 5
			const rho = 7
			a, b := math.Pow(high, 1.0/rho), math.Pow(low, 1.0/rho)
			levels[i] = math.Pow(a+x*(b-a), rho)
		case c.Exponential:
			levels[i] = math.Exp(math.Log(high) + x*(math.Log(low)-math.Log(high)))
		case c.Beta: // Lee et al. 2024, with α = β = 0.6
			levels[i] = low + betaQuantile(1-x, 0.6, 0.6)*(high-low)
		default:
			return nil, false
		}
	}
	return levels, true
}

// planSigmas fills in the levels of the samplers of k-diffusion.
func planSigmas(p *plan, _ Options) error {
	if err := p.planLevels(); err != nil {
		return err
	}
	for i, t := range p.times {
		p.calls = append(p.calls, p.level(t, p.sigmas[i]))
	}
	return nil
}

// planLevels fills in times, sigmas and init of the samplers of k-diffusion.
func (p *plan) planLevels() error {
	train := p.trainSigmas()
	p.times = p.spaced(p.steps)
	for _, t := range p.times {
		p.sigmas = append(p.sigmas, sigmaAt(train, float64(float32(t))))
	}
	if p.Interpolation == "log_linear" {
		high, low := math.Log(train[len(train)-1]), math.Log(train[0])
		for i := range p.sigmas {
			p.sigmas[i] = math.Exp(linspace(high, low, p.steps, i))
		}
	}
	if levels, ok := p.reshape(p.sigmas[0], p.sigmas[p.steps-1], p.steps); ok {
		p.sigmas = levels
		for i, s := range levels {
			p.times[i] = timeOf(train, s)
			if p.Class == "KDPM2DiscreteScheduler" {
				p.times[i] = math.RoundToEven(p.times[i])
			}
		}
	}
	if p.TimestepType == "continuous" && p.Prediction == Velocity {
		for i, s := range p.sigmas {
			p.times[i] = 0.25 * math.Log(s)
		}
	}
	last := 0.0
	if p.FinalSigmas == "sigma_min" {
		last = train[0]
	}
	p.sigmas = append(p.sigmas, last)
	for i, s := range p.sigmas {
		p.sigmas[i] = float64(float32(s))
	}
	p.init = p.sigmas[0]
	if p.Spacing == "leading" {
		p.init = math.Sqrt(p.init*p.init + 1)
	}
	p.sigmas, p.times = p.sigmas[p.first:], p.times[p.first:]
	return nil
}

// planFlow fills in the levels of flow matching (Lipman et al. 2023, Esser et al. 2024).
func planFlow(p *plan, o Options) error {
	train := float64(p.TrainSteps)
	shift := func(s float64) float64 { return p.Shift * s / (1 + (p.Shift-1)*s) }
	lowest := 1 / train
	if p.DynamicShift {
		if err := checkMu(o.Mu); err != nil {
			return err
		}
		power := math.Exp(o.Mu)
		if p.ShiftType == "linear" {
			power = o.Mu
		}
		shift = func(s float64) float64 { return power / (power + 1/s - 1) }
	} else {
		lowest = shift(lowest)
	}
	levels := make([]float64, p.steps)
	for i := range levels {
		levels[i] = linspace(1, lowest, p.steps, i)
		if o.Sigmas != nil {
			levels[i] = o.Sigmas[i]
			if !(levels[i] > 0 && levels[i] <= 1) || i > 0 && levels[i] >= levels[i-1] {
				return fmt.Errorf("scheduler: Sigmas[%d] = %v, want falling from 1, above 0: %w", i, levels[i], ErrOptions)
			}
		}
	}
	if spread, ok := p.reshape(levels[0], levels[p.steps-1], p.steps); ok {
		levels = spread
	}
	for i := range levels {
		levels[i] = shift(levels[i])
	}
	if p.ShiftTerminal != nil && *p.ShiftTerminal > 0 {
		scale := (1 - levels[p.steps-1]) / (1 - *p.ShiftTerminal)
		for i := range levels {
			levels[i] = 1 - (1-levels[i])/scale
		}
	}
	for _, s := range levels[p.first:] {
		s = float64(float32(s))
		p.sigmas, p.times = append(p.sigmas, s), append(p.times, s*train)
	}
	p.sigmas = append(p.sigmas, 0)
	if p.Class == "FlowMatchHeunDiscreteScheduler" {
		p.pairCalls()
		return nil
	}
	for i, t := range p.times {
		p.calls = append(p.calls, p.level(t, p.sigmas[i]))
	}
	return nil
}

// checkMu returns an error about a shift that no picture asks for.
func checkMu(mu float64) error {
	if !(math.Abs(mu) <= 20) {
		return fmt.Errorf("scheduler: mu %v: %w", mu, ErrOptions)
	}
	return nil
}

// planSolver fills in the levels of DPM-Solver++ and UniPC.
func planSolver(p *plan, o Options) error {
	if p.FlowSigmas {
		return p.planFlowSolver(o)
	}
	train := p.trainSigmas()
	p.times = p.solverTimes()
	for _, t := range p.times {
		p.sigmas = append(p.sigmas, sigmaAt(train, t))
	}
	if levels, ok := p.reshape(train[len(train)-1], train[0], p.steps); ok {
		p.sigmas = levels
		for i, s := range levels {
			if p.times[i] = timeOf(train, s); p.Karras {
				p.times[i] = math.RoundToEven(p.times[i])
			}
			p.times[i] = math.Trunc(p.times[i])
		}
	}
	last := 0.0
	if p.FinalSigmas == "sigma_min" {
		last = train[0]
	}
	p.sigmas = append(p.sigmas, last)
	for i, s := range p.sigmas {
		p.sigmas[i] = float64(float32(s))
	}
	p.sigmas, p.times = p.sigmas[p.first:], p.times[p.first:]
	for i, t := range p.times {
		c := p.preserving(p.sigmas[i])
		c.Timestep = float32(t)
		p.calls = append(p.calls, c)
	}
	return nil
}

// preserving returns the level σ in the form of latents that keep their variance.
func (p *plan) preserving(sigma float64) Call {
	if p.flow {
		return Call{Scale: 1, alpha: 1 - sigma, sigma: sigma}
	}
	alpha := 1 / math.Sqrt(sigma*sigma+1)
	return Call{Scale: 1, alpha: alpha, sigma: sigma * alpha}
}

// solverTimes are the timesteps of the solvers: one more than the steps, without the last.
func (p *plan) solverTimes() []float64 {
	last, n := p.TrainSteps, p.steps
	if p.LambdaMinClipped != nil {
		for last > 2 && 0.5*math.Log(p.bar[last-1]/(1-p.bar[last-1])) < *p.LambdaMinClipped {
			last--
		}
	}
	t := make([]float64, n)
	for i := range t {
		switch p.Spacing {
		case "linspace":
			t[i] = math.RoundToEven(linspace(0, float64(last-1), n+1, n-i))
		case "leading":
			t[i] = float64((n-i)*(last/(n+1)) + p.StepsOffset)
		default: // trailing
			t[i] = math.RoundToEven(float64(last)-float64(i)*(float64(p.TrainSteps)/float64(n))) - 1
		}
		t[i] = min(max(t[i], 0), float64(p.TrainSteps-1))
	}
	return t
}

// planFlowSolver fills in the levels of the solvers over flow matching.
func (p *plan) planFlowSolver(o Options) error {
	train, shift := float64(p.TrainSteps), p.FlowShift
	if p.DynamicShift {
		if err := checkMu(o.Mu); err != nil {
			return err
		}
		shift = math.Exp(o.Mu)
	}
	for i := p.first; i < p.steps; i++ {
		s := 1 - linspace(1, 1/train, p.steps+1, p.steps-i)
		s = shift * s / (1 + (shift-1)*s)
		s = float64(float32(s))
		p.sigmas, p.times = append(p.sigmas, s), append(p.times, math.Trunc(s*train))
		c := p.preserving(s)
		c.Timestep = float32(p.times[len(p.times)-1])
		p.calls = append(p.calls, c)
	}
	p.sigmas = append(p.sigmas, 0)
	return nil
}

package scheduler

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
)

// plan is a configuration on its way to a run: the noise levels of training and those of
// the calls.
type plan struct {
	Config
	class class
	steps int // of the whole schedule
	first int // the step that the run begins with
	eta   float64

	bar    []float64 // ᾱ at each timestep of training
	sigmas []float64 // levels σ of the run from its first step on, and the last, after the end
	times  []float64 // their timesteps, without the last
	calls  []Call
	init   float64
	flow   bool
}

func newPlan(c Config, o Options) (*plan, error) {
	k, err := classOf(c.Class)
	if err != nil {
		return nil, err
	}
	p := &plan{Config: c, class: k, steps: o.Steps, init: 1, flow: k.flow || c.FlowSigmas}
	if o.Sigmas != nil {
		if !p.flow {
			return nil, fmt.Errorf("scheduler: Sigmas for %s, want a class of flow matching: %w", c.Class, ErrOptions)
		}
		p.steps = len(o.Sigmas)
	}
	strength := o.Strength
	if strength == 0 {
		strength = 1
	}
	limit := min(maxSteps, c.TrainSteps)
	switch {
	case p.steps < 1 || p.steps > limit:
		return nil, fmt.Errorf("scheduler: %d steps, want 1 to %d: %w", p.steps, limit, ErrOptions)
	case !(strength > 0 && strength <= 1):
		return nil, fmt.Errorf("scheduler: strength %v, want above 0 to 1: %w", o.Strength, ErrOptions)
	case !(o.Eta >= 0 && o.Eta <= 1):
		return nil, fmt.Errorf("scheduler: eta %v, want 0 to 1: %w", o.Eta, ErrOptions)
	}
	run := int(float64(p.steps) * strength)
	if run < 1 {
		return nil, fmt.Errorf("scheduler: strength %v of %d steps leaves none: %w", strength, p.steps, ErrOptions)
	}
	p.first, p.eta = p.steps-run, o.Eta
	if !p.flow {
		if p.bar, err = c.alphasCumprod(); err != nil {
			return nil, err
		}
	}
	return p, k.plan(p, o)
}

// at returns the level of a variance-preserving sampler at a timestep of training.
func (p *plan) at(t int) Call {
	a := p.bar[t]
	return Call{Timestep: float32(t), Scale: 1, alpha: math.Sqrt(a), sigma: math.Sqrt(1 - a)}
}

// level returns the level σ at a timestep, for samplers whose latents are picture +
// σ·noise (variance exploding) or, with flow matching, between picture and noise.
func (p *plan) level(t, sigma float64) Call {
	if p.flow {
		return Call{Timestep: float32(t), Scale: 1, alpha: 1 - sigma, sigma: sigma}
	}
	return Call{Timestep: float32(t), Scale: float32(1 / math.Sqrt(sigma*sigma+1)), alpha: 1, sigma: sigma}
}

// spaced returns n timesteps from high to low, as table 2 of Lin et al. 2023 has them.
func (p *plan) spaced(n int) []float64 {
	t, train := make([]float64, n), float64(p.TrainSteps)
	for i := range t {
		switch p.Spacing {
		case "linspace":
			t[n-1-i] = linspace(0, train-1, n, i)
		case "leading":
			t[n-1-i] = float64(i*(p.TrainSteps/n) + p.StepsOffset)
		default: // trailing
			t[i] = math.RoundToEven(train-float64(i)*(train/float64(n))) - 1
		}
	}
	for i, v := range t {
		t[i] = min(max(v, 0), train-1)
	}
	return t
}

// linspace returns element i of n equal steps from a to b.
func linspace(a, b float64, n, i int) float64 {
	if n == 1 {
		return a
	}
	if i == n-1 {
		return b
	}
	return a + (b-a)/float64(n-1)*float64(i)
}

// merge returns the JSON object that has the keys of all, the last one's value counting.
func merge(objects ...any) []byte {
	all := map[string]json.RawMessage{}
	for _, o := range objects {
		var text []byte
		switch o := o.(type) {
		case string:
			text = []byte(o)
		case []byte:
			text = o
		}
		one := map[string]json.RawMessage{}
		if json.Unmarshal(text, &one) == nil {
			maps.Copy(all, one)
		}
	}
	text, _ := json.Marshal(all) // of valid parts
	return text
}

package scheduler

import (
	"fmt"
	"math"
)

// betas returns the variances of the noise that training adds at each of its timesteps,
// rounded to float32 as the reference has them.
func (c Config) betas() ([]float32, error) {
	n := c.TrainSteps
	b := make([]float32, n)
	switch {
	case c.TrainedBetas != nil:
		if len(c.TrainedBetas) != n {
			return nil, fmt.Errorf("scheduler: trained_betas: %d, want num_train_timesteps = %d: %w", len(c.TrainedBetas), n, ErrConfig)
		}
		for i, v := range c.TrainedBetas {
			b[i] = float32(v)
		}
	case c.BetaSchedule == "linear":
		linspace32(b, c.BetaStart, c.BetaEnd)
	case c.BetaSchedule == "scaled_linear": // of latent diffusion
		linspace32(b, math.Sqrt(c.BetaStart), math.Sqrt(c.BetaEnd))
		for i, v := range b {
			b[i] = v * v
		}
	case c.BetaSchedule == "squaredcos_cap_v2": // Nichol and Dhariwal 2021
		bar := func(t float64) float64 {
			v := math.Cos((t + 0.008) / 1.008 * math.Pi / 2)
			return v * v
		}
		for i := range b {
			b[i] = float32(min(1-bar(float64(i+1)/float64(n))/bar(float64(i)/float64(n)), 0.999))
		}
	default:
		return nil, fmt.Errorf("scheduler: beta_schedule %q: %w", c.BetaSchedule, ErrConfig)
	}
	for i, v := range b {
		if !(v > 0 && v < 1) {
			return nil, fmt.Errorf("scheduler: beta %v at timestep %d, want above 0 and below 1: %w", v, i, ErrConfig)
		}
	}
	return b, nil
}

// linspace32 fills y with equal steps from a to b, each half from its end.
func linspace32(y []float32, a, b float64) {
	n := len(y)
	if n == 1 {
		y[0] = float32(a)
		return
	}
	from, to := float32(a), float32(b)
	step := (to - from) / float32(n-1)
	for i := range y {
		if i < n/2 {
			y[i] = from + step*float32(i)
		} else {
			y[i] = to - step*float32(n-1-i)
		}
	}
}

// alphasCumprod returns ᾱ, the share of the picture's variance that is left at each
// timestep of training.
func (c Config) alphasCumprod() ([]float64, error) {
	b, err := c.betas()
	if err != nil {
		return nil, err
	}
	alphas := make([]float32, len(b))
	for i, v := range b {
		alphas[i] = 1 - v
	}
	if c.ZeroSNR {
		zeroTerminalSNR(alphas)
	}
	return cumprod(alphas), nil
}

func cumprod(alphas []float32) []float64 {
	bar, product := make([]float64, len(alphas)), 1.0
	for i, a := range alphas {
		product *= float64(a)
		bar[i] = float64(float32(product))
	}
	return bar
}

// zeroTerminalSNR changes alphas such that nothing of the picture is left at the last
// timestep (Lin et al. 2023, algorithm 1).
func zeroTerminalSNR(alphas []float32) {
	bar := cumprod(alphas)
	first, last := math.Sqrt(bar[0]), math.Sqrt(bar[len(bar)-1])
	for i, v := range bar {
		root := (math.Sqrt(v) - last) * first / (first - last)
		bar[i] = root * root
	}
	alphas[0] = float32(bar[0])
	for i := 1; i < len(bar); i++ {
		alphas[i] = float32(bar[i] / bar[i-1])
	}
}

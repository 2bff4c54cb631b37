package scheduler

import (
	"math"
	"slices"
)

// Prediction is what a network returns.
type Prediction string

// The prediction types, for latents x = α·picture + σ·noise.
const (
	Epsilon  Prediction = "epsilon"         // the noise (Ho et al. 2020)
	Velocity Prediction = "v_prediction"    // α·noise - σ·picture (Salimans and Ho 2022)
	Sample   Prediction = "sample"          // the picture
	Flow     Prediction = "flow_prediction" // noise - picture (Lipman et al. 2023)
)

// pictureOf returns p and q such that the picture is p·x + q·out at a level. The latents
// x of variance-exploding samplers are scaled for the network by 1/√(α²+σ²), which its
// velocity relates to.
func (r *Run) pictureOf(c Call) (p, q float64) {
	switch norm := math.Hypot(c.alpha, c.sigma); {
	case r.config.Prediction == Sample:
		return 0, 1
	case r.flow:
		return 1, -c.sigma
	case r.config.Prediction == Velocity:
		return c.alpha / (norm * norm), -c.sigma / norm
	default:
		return 1 / c.alpha, -c.sigma / c.alpha
	}
}

// noiseOf returns p and q such that the noise is p·x + q·out at a level with α²+σ² = 1.
func (r *Run) noiseOf(c Call) (p, q float64) {
	switch r.config.Prediction {
	case Sample:
		return 1 / c.sigma, -c.alpha / c.sigma
	case Velocity:
		return c.sigma, c.alpha
	default:
		return 0, 1
	}
}

// denoise turns the network's output for call i into the picture that it stands for, in
// place, and returns it.
func (r *Run) denoise(i int, x, out []float32) []float32 {
	p, q := r.pictureOf(r.calls[i])
	combine(out, float32(q), out, float32(p), x)
	r.bound(out)
	return out
}

// bound keeps a predicted picture in range, if the model was trained so: by clipping, or
// by dynamic thresholding (Saharia et al. 2022).
func (r *Run) bound(picture []float32) {
	limit := float32(r.config.ClipRange)
	switch {
	case r.config.Thresholding:
		limit = r.threshold(picture)
	case !r.config.ClipSample:
		return
	}
	scale := float32(1)
	if r.config.Thresholding {
		scale = 1 / limit
	}
	for i, v := range picture {
		picture[i] = min(max(v, -limit), limit) * scale
	}
}

// threshold returns the quantile of the magnitudes that is to become 1, between 1 and
// sample_max_value.
func (r *Run) threshold(picture []float32) float32 {
	size := make([]float32, len(picture))
	for i, v := range picture {
		size[i] = max(v, -v)
	}
	slices.Sort(size)
	at := r.config.ThresholdRatio * float64(len(size)-1)
	low := int(at)
	high := min(low+1, len(size)-1)
	s := size[low] + float32(at-float64(low))*(size[high]-size[low])
	return min(max(s, 1), float32(max(r.config.SampleMax, 1)))
}

// combine computes y = a·u + b·v. y may be u or v.
func combine(y []float32, a float32, u []float32, b float32, v []float32) {
	for i := range y {
		y[i] = a*u[i] + b*v[i]
	}
}

// axpy computes y += a·u.
func axpy(y []float32, a float64, u []float32) {
	s := float32(a)
	for i := range y {
		y[i] += s * u[i]
	}
}

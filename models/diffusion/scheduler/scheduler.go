// Package scheduler has the noise schedules and samplers of diffusion models.
//
// A schedule is a list of noise levels, a prediction type is a way to read the picture
// out of what a network returns, and a sampler walks the picture down the levels: N
// schedules, M prediction types and K samplers that know nothing of each other (Karras
// et al. 2022). Names, defaults and numbers are those of the scheduler classes of Hugging
// Face diffusers, whose scheduler_config.json is the configuration.
//
// A Run is one walk and belongs to one picture. The latents are flat and of any shape;
// the model is the caller's, and so is the noise.
package scheduler

import (
	"errors"
	"fmt"
	"math"
)

// ErrConfig is wrapped by errors about a configuration that cannot be computed with, and
// ErrOptions by those about a request for a run.
var (
	ErrConfig  = errors.New("unsupported scheduler")
	ErrOptions = errors.New("invalid scheduler options")
)

// maxSteps bounds the steps of a run; tables have one entry a step.
const maxSteps = 1000

// Options is what a caller chooses for one run.
type Options struct {
	Steps int // 1 to 1000
	// Strength, above 0 to 1, is the share of the steps that is run: the last ones, as for
	// a picture that is changed. 0 is 1.
	Strength float64
	Eta      float64 // of DDIM (0 to 1, share of fresh noise) and of TCD (γ)
	// Noise writes standard normal noise into dst; draws are counted from 0. Nil serves
	// the samplers that need none.
	Noise func(draw int, dst []float32)

	// Sigmas replaces the schedule of flow matching before it is shifted: falling from 1,
	// without the last 0. Nil is the scheduler's own. Solvers of higher order, which cannot
	// begin at 1, have their own of as many steps.
	Sigmas []float64
	// Mu is the logarithm of the shift of flow matching with use_dynamic_shifting; see
	// Config.Mu.
	Mu float64
}

// Call is one evaluation of the network.
type Call struct {
	Timestep float32 // what the network is told
	Scale    float32 // factor of the latents that the network is given

	alpha, sigma float64 // the latents are alpha·picture + sigma·noise
}

// Run is one walk from noise to picture. It is for one goroutine.
type Run struct {
	calls   []Call
	init    float64
	flow    bool
	config  Config
	noise   func(int, []float32)
	sampler sampler
	next    int
	drawn   int
	scratch []float32
}

// sampler advances x by call i of a run, given the output of the network. It may
// overwrite out.
type sampler interface {
	step(r *Run, i int, x, out []float32)
}

// New returns a run. Errors wrap ErrConfig or ErrOptions.
func New(c Config, o Options) (*Run, error) {
	p, err := newPlan(c, o)
	if err != nil {
		return nil, err
	}
	s, err := p.class.build(p)
	if err != nil {
		return nil, err
	}
	r := &Run{calls: p.calls, init: p.init, flow: p.flow, config: p.Config, noise: o.Noise, sampler: s}
	for _, call := range r.calls {
		if call.alpha == 0 && r.config.Prediction == Epsilon {
			return nil, fmt.Errorf("scheduler: prediction_type %s with rescale_betas_zero_snr: %w", Epsilon, ErrConfig)
		}
		if math.IsNaN(call.sigma) || math.IsInf(call.sigma, 0) {
			return nil, fmt.Errorf("scheduler: noise level %v: %w", call.sigma, ErrConfig)
		}
	}
	if d, ok := s.(interface{ draws() bool }); ok && d.draws() && o.Noise == nil {
		return nil, fmt.Errorf("scheduler: %s needs a source of noise: %w", r.config.Class, ErrOptions)
	}
	return r, nil
}

// Calls returns the evaluations of the network in their order. Samplers of second order
// have two a step. The slice must not be written.
func (r *Run) Calls() []Call { return r.calls }

// InitSigma is the factor of the standard normal noise that a full run begins with.
func (r *Run) InitSigma() float32 { return float32(r.init) }

// AddNoise writes to x what the latents of a picture are before a call: the picture
// with the noise of that level. For the call after the last, it is the picture. x may be
// picture or noise.
func (r *Run) AddNoise(x, picture, noise []float32, call int) {
	alpha, sigma := float32(1), float32(0)
	if call < len(r.calls) {
		alpha, sigma = float32(r.calls[call].alpha), float32(r.calls[call].sigma)
	}
	for i, v := range picture {
		x[i] = alpha*v + sigma*noise[i]
	}
}

// Predict writes to picture what the network's output for the next call, out, says that
// the latents x will become. It changes nothing else.
func (r *Run) Predict(picture, x, out []float32) {
	copy(picture, out)
	r.denoise(r.next, x, picture)
}

// Step advances x by the next call, given what the network returned for it. out is
// overwritten. It panics after the last call.
func (r *Run) Step(x, out []float32) {
	if r.next >= len(r.calls) || len(x) != len(out) {
		panic(fmt.Sprintf("scheduler: step %d of %d with %d latents and %d outputs", r.next+1, len(r.calls), len(x), len(out)))
	}
	r.sampler.step(r, r.next, x, out)
	r.next++
}

// addNoise adds sigma times fresh noise to x, and asks for none if sigma is 0.
func (r *Run) addNoise(x []float32, sigma float64) {
	if sigma == 0 {
		return
	}
	if len(r.scratch) != len(x) {
		r.scratch = make([]float32, len(x))
	}
	r.noise(r.drawn, r.scratch)
	r.drawn++
	axpy(x, sigma, r.scratch)
}

// history is the last few vectors of one length, in memory of its own.
type history struct {
	rows  [][]float32
	count int
}

func newHistory(depth int) history { return history{rows: make([][]float32, depth)} }

// push copies v in as the newest and drops the oldest.
func (h *history) push(v []float32) {
	last := h.rows[len(h.rows)-1]
	copy(h.rows[1:], h.rows)
	if last == nil {
		last = make([]float32, len(v))
	}
	copy(last, v)
	h.rows[0] = last
	h.count = min(h.count+1, len(h.rows))
}

// at returns the k-th newest, 0 the newest.
func (h *history) at(k int) []float32 { return h.rows[k] }

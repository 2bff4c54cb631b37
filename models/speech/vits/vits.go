// Package vits is VITS (Kim, Kong and Son 2021), a conditional variational autoencoder that
// turns ids of characters or phonemes into sound in one go: a transformer encodes the text, a
// flow of splines or a few convolutions tell how long each id lasts, a flow of WaveNets turns
// noise around what was encoded into latents, and HiFi-GAN turns those into samples. It has
// the tensor names of Hugging Face's VitsModel. Axes: N ids, T frames, C channels; sequences
// are [N, C] or [T, C].
package vits

import (
	"context"
	"errors"
	"fmt"
	"math"

	"helicon/models/nn"
	"helicon/models/speech/hifigan"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// ErrInput is wrapped by errors about a request.
var ErrInput = errors.New("not speakable")

// Model is a loaded voice. Any number of goroutines may use it.
type Model struct {
	config   Config
	text     textEncoder
	duration durations
	flows    []coupling // in the order in which they undo
	decoder  *hifigan.Model
	speakers nn.Embedding
}

// Load reads a model. The errors are those of weights.Store, and wrap ErrUnsupported.
func Load(s *weights.Store, c Config) (*Model, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s, err := nn.Unnormed(s)
	if err != nil {
		return nil, err
	}
	m := &Model{config: c}
	if m.text, err = loadText(s.Sub("text_encoder"), c); err != nil {
		return nil, err
	}
	load := loadPlain
	if c.Stochastic {
		load = loadStochastic
	}
	if m.duration, err = load(s.Sub("duration_predictor"), c); err != nil {
		return nil, err
	}
	for i := c.Flows - 1; i >= 0; i-- {
		f, err := loadCoupling(s.Sub(fmt.Sprintf("flow.flows.%d", i)), c)
		if err != nil {
			return nil, err
		}
		m.flows = append(m.flows, f)
	}
	if c.speaker() > 0 {
		if m.speakers, err = nn.LoadEmbedding(s.Sub("embed_speaker"), c.Speakers, c.speaker()); err != nil {
			return nil, err
		}
	}
	m.decoder, err = hifigan.Load(s.Sub("decoder"), c.decoder())
	return m, err
}

// Config returns the model's shape.
func (m *Model) Config() Config { return m.config }

// Request is what is to be said, and how.
type Request struct {
	IDs     []int // with blanks between, as the voice was trained
	Speaker int

	NoiseScale    float32 // spread of the latents; 0 is always the same sound
	NoiseDuration float32 // spread of the durations
	SpeakingRate  float32 // above 1 is faster

	// Noise fills in draws from the normal distribution: first, number 0, [2, N] for the
	// durations, and then, number 1, [Flow, T] for the latents, channel by channel.
	Noise func(number int, dst []float32)
}

// Speech is what Speak has made.
type Speech struct {
	Samples   []float32 // -1 to 1
	Durations []int     // samples of each id

	hidden, logDurations, latents []float32 // for tests
}

// Limits of a request.
const (
	maxIDs    = 1 << 13
	maxFrames = 1 << 16
)

// Speak makes sound. The error wraps ErrInput if the request cannot be served, and is the
// cause of ctx's end if that comes first.
func (m *Model) Speak(ctx context.Context, e *tensor.Exec, r Request) (*Speech, error) {
	if err := m.check(r); err != nil {
		return nil, err
	}
	defer e.Until(ctx)()
	var speaker []float32
	if size := m.config.speaker(); size > 0 {
		speaker = make([]float32, size)
		m.speakers.Forward(speaker, []int{r.Speaker})
	}
	hidden, stats := m.text.forward(e, r.IDs)
	s := &Speech{hidden: hidden}
	s.logDurations = m.duration.log(e, hidden, speaker, r)
	frames, err := expand(s.logDurations, r.SpeakingRate)
	if err != nil {
		return nil, err
	}
	s.latents = m.sample(stats, frames, r)
	for i := range m.flows {
		flip(s.latents, m.config.Flow)
		m.flows[i].undo(e, s.latents, speaker)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	s.Samples = m.decoder.Forward(e, s.latents, speaker)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, v := range s.Samples {
		if v != v {
			return nil, errors.New("vits: the network made no numbers: its weights are damaged")
		}
	}
	s.Durations = frames
	for i := range frames {
		s.Durations[i] *= m.decoder.Config().Hop()
	}
	return s, nil
}

func (m *Model) check(r Request) error {
	switch c := m.config; {
	case len(r.IDs) == 0 || len(r.IDs) > maxIDs:
		return fmt.Errorf("vits: %d ids, want 1 to %d: %w", len(r.IDs), maxIDs, ErrInput)
	case r.Speaker < 0 || r.Speaker >= max(c.Speakers, 1):
		return fmt.Errorf("vits: speaker %d of %d: %w", r.Speaker, max(c.Speakers, 1), ErrInput)
	case !(r.SpeakingRate >= 0.1 && r.SpeakingRate <= 10):
		return fmt.Errorf("vits: a speaking rate of %v, want 0.1 to 10: %w", r.SpeakingRate, ErrInput)
	case !(r.NoiseScale >= 0 && r.NoiseScale <= 10) || !(r.NoiseDuration >= 0 && r.NoiseDuration <= 10):
		return fmt.Errorf("vits: noise of %v and %v, want 0 to 10: %w", r.NoiseScale, r.NoiseDuration, ErrInput)
	case r.Noise == nil && (r.NoiseScale > 0 || r.NoiseDuration > 0):
		return fmt.Errorf("vits: no noise: %w", ErrInput)
	}
	for i, id := range r.IDs {
		if id < 0 || id >= m.config.Vocab {
			return fmt.Errorf("vits: id %d is %d, want 0 to %d: %w", i, id, m.config.Vocab-1, ErrInput)
		}
	}
	return nil
}

// expand returns the frames that each id lasts.
func expand(logs []float32, rate float32) ([]int, error) {
	frames, total := make([]int, len(logs)), 0
	for i, v := range logs {
		d := math.Ceil(math.Exp(float64(v)) / float64(rate))
		if !(d <= maxFrames) {
			return nil, fmt.Errorf("vits: id %d would last %v frames, want %d at most: %w", i, d, maxFrames, ErrInput)
		}
		frames[i] = int(d)
		total += frames[i]
	}
	if total == 0 {
		frames[len(frames)-1], total = 1, 1
	}
	if total > maxFrames {
		return nil, fmt.Errorf("vits: %d frames, want %d at most: %w", total, maxFrames, ErrInput)
	}
	return frames, nil
}

// sample draws latents [T, Flow] around the means of the ids [N, 2·Flow], the logarithms of
// whose deviations follow the means.
func (m *Model) sample(stats []float32, frames []int, r Request) []float32 {
	size := m.config.Flow
	total := 0
	for _, n := range frames {
		total += n
	}
	z := make([]float32, 0, total*size)
	var noise []float32
	if r.NoiseScale > 0 {
		noise = make([]float32, total*size)
		r.Noise(1, noise)
	}
	t := 0
	for i, n := range frames {
		mean, log := stats[2*size*i:][:size], stats[2*size*i+size:][:size]
		for range n {
			for c, v := range mean {
				if noise != nil {
					v += noise[c*total+t] * float32(math.Exp(float64(log[c]))) * r.NoiseScale
				}
				z = append(z, v)
			}
			t++
		}
	}
	return z
}

// flip turns the channels of every frame around.
func flip(x []float32, channels int) {
	for ; len(x) > 0; x = x[channels:] {
		for i, j := 0, channels-1; i < j; i, j = i+1, j-1 {
			x[i], x[j] = x[j], x[i]
		}
	}
}

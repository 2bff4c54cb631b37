// Package encodec is EnCodec (Défossez et al. 2022), a codec of sound made of convolutions, an
// LSTM, and codes that refine one another; MusicGen writes its codes. It has the tensor names
// of Hugging Face's EncodecModel. Axes: T frames, C channels; sequences are [T, C].
package encodec

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// ErrInput is wrapped by errors about a call.
var ErrInput = errors.New("not to be coded")

// Model is a loaded codec. Any number of goroutines may use it.
type Model struct {
	config           Config
	encoder, decoder []step
	books            [][]float32 // [Codes, Hidden] of each quantizer
}

// step is a layer that replaces a sequence.
type step interface {
	forward(e *tensor.Exec, x []float32, channels int) ([]float32, int)
}

// Load reads a codec. The errors are those of weights.Store, and wrap ErrUnsupported.
func Load(s *weights.Store, c Config) (*Model, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s, err := nn.Unnormed(s)
	if err != nil {
		return nil, err
	}
	m := &Model{config: c}
	if m.encoder, err = loadEncoder(s.Sub("encoder"), c); err != nil {
		return nil, err
	}
	if m.decoder, err = loadDecoder(s.Sub("decoder"), c); err != nil {
		return nil, err
	}
	for i := range c.Books() {
		t, err := s.Tensor(fmt.Sprintf("quantizer.layers.%d.codebook.embed", i), c.Codes, c.Hidden)
		if err != nil {
			return nil, err
		}
		m.books = append(m.books, slices.Clone(t.Float32s()))
	}
	return m, nil
}

// Config returns the codec's shape.
func (m *Model) Config() Config { return m.config }

// layers numbers the modules of a Sequential as they are added.
type layers struct {
	s    *weights.Store
	c    Config
	next int
	list []step
	err  error
}

func (l *layers) name(more string) *weights.Store {
	s := l.s.Sub(fmt.Sprintf("layers.%d%s", l.next, more))
	l.next++
	return s
}

func (l *layers) conv(h shape) {
	if l.err != nil {
		return
	}
	var v *conv
	v, l.err = loadConv(l.name(""), l.c, h)
	l.list = append(l.list, v)
}

func (l *layers) elu() {
	l.next++
	l.list = append(l.list, elu{})
}

func (l *layers) lstm(width int) {
	if l.err != nil || l.c.LSTMLayers == 0 {
		return
	}
	var v *lstm
	v, l.err = loadLSTM(l.name(".lstm"), width, l.c.LSTMLayers)
	l.list = append(l.list, v)
}

func (l *layers) residuals(width int) {
	for j := range l.c.Residuals {
		if l.err != nil {
			return
		}
		var b *residual
		b, l.err = loadResidual(l.name(""), l.c, width, power(l.c.Growth, j))
		l.list = append(l.list, b)
	}
}

func power(base, n int) int {
	p := 1
	for range n {
		p *= base
	}
	return p
}

func loadEncoder(s *weights.Store, c Config) ([]step, error) {
	l := &layers{s: s, c: c}
	width := c.Filters
	l.conv(shape{c.AudioChannels, width, c.Kernel, 1, 1})
	for _, ratio := range slices.Backward(c.Ratios) {
		l.residuals(width)
		l.elu()
		l.conv(shape{width, 2 * width, 2 * ratio, ratio, 1})
		width *= 2
	}
	l.lstm(width)
	l.elu()
	l.conv(shape{width, c.Hidden, c.LastKernel, 1, 1})
	return l.list, l.err
}

func loadDecoder(s *weights.Store, c Config) ([]step, error) {
	l := &layers{s: s, c: c}
	width := c.Filters << len(c.Ratios)
	l.conv(shape{c.Hidden, width, c.Kernel, 1, 1})
	l.lstm(width)
	for _, ratio := range c.Ratios {
		l.elu()
		if l.err != nil {
			return nil, l.err
		}
		var up *transposed
		up, l.err = loadTransposed(l.name(""), c, width, width/2, ratio)
		l.list = append(l.list, up)
		width /= 2
		l.residuals(width)
	}
	l.elu()
	l.conv(shape{width, c.AudioChannels, c.LastKernel, 1, 1})
	return l.list, l.err
}

func run(e *tensor.Exec, list []step, x []float32, channels int) []float32 {
	for _, s := range list {
		x, channels = s.forward(e, x, channels)
	}
	return x
}

// Encode returns codes [frames][quantizers] of samples [T, AudioChannels], and the factor that
// brings decoded sound to their loudness. bandwidth is in kbit/s; 0 is the highest.
func (m *Model) Encode(e *tensor.Exec, samples []float32, bandwidth float64) ([][]int, float32, error) {
	c := m.config
	count := c.Quantizers(bandwidth)
	if len(samples) == 0 || len(samples)%c.AudioChannels != 0 || !(bandwidth >= 0) {
		return nil, 0, fmt.Errorf("encodec: %d samples of %d channels at %v kbit/s: %w", len(samples), c.AudioChannels, bandwidth, ErrInput)
	}
	x, scale := slices.Clone(samples), float32(1)
	if c.Normalize {
		scale = volume(samples, c.AudioChannels)
		for i := range x {
			x[i] /= scale
		}
	}
	states := run(e, m.encoder, x, c.AudioChannels)
	codes := make([][]int, len(states)/c.Hidden)
	for i := range codes {
		rest := states[i*c.Hidden:][:c.Hidden]
		for q := range count {
			code := nearest(m.books[q], rest)
			codes[i] = append(codes[i], code)
			for j, v := range m.books[q][code*c.Hidden:][:c.Hidden] {
				rest[j] -= v
			}
		}
	}
	return codes, scale, nil
}

// volume returns the root of the mean square of the channels' mean.
func volume(samples []float32, channels int) float32 {
	sum := 0.0
	for i := 0; i < len(samples); i += channels {
		mean := 0.0
		for _, v := range samples[i : i+channels] {
			mean += float64(v) / float64(channels)
		}
		sum += mean * mean
	}
	return float32(math.Sqrt(sum/float64(len(samples)/channels))) + 1e-8
}

// nearest returns the row of a table that is nearest to x.
func nearest(table, x []float32) int {
	best, least := 0, math.Inf(1)
	for i := 0; i*len(x) < len(table); i++ {
		sum := 0.0
		for j, v := range table[i*len(x):][:len(x)] {
			d := float64(v - x[j])
			sum += d * d
		}
		if sum < least {
			best, least = i, sum
		}
	}
	return best
}

// Decode returns samples [frames·Hop, AudioChannels] of codes.
func (m *Model) Decode(e *tensor.Exec, codes [][]int, scale float32) ([]float32, error) {
	states, err := m.quantized(codes)
	if err != nil {
		return nil, err
	}
	x := run(e, m.decoder, states, m.config.Hidden)
	for i := range x {
		x[i] *= scale
	}
	return x, nil
}

// quantized returns the sums [frames, Hidden] of what codes stand for.
func (m *Model) quantized(codes [][]int) ([]float32, error) {
	c := m.config
	if len(codes) == 0 {
		return nil, fmt.Errorf("encodec: no codes: %w", ErrInput)
	}
	states := make([]float32, len(codes)*c.Hidden)
	for i, frame := range codes {
		if len(frame) == 0 || len(frame) > len(m.books) {
			return nil, fmt.Errorf("encodec: frame %d has %d codes, want 1 to %d: %w", i, len(frame), len(m.books), ErrInput)
		}
		for q, code := range frame {
			if code < 0 || code >= c.Codes {
				return nil, fmt.Errorf("encodec: code %d of frame %d is %d, want 0 to %d: %w", q, i, code, c.Codes-1, ErrInput)
			}
			for j, v := range m.books[q][code*c.Hidden:][:c.Hidden] {
				states[i*c.Hidden+j] += v
			}
		}
	}
	return states, nil
}

package dac

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Config is a config.json of DacModel.
type Config struct {
	Rate     int   `json:"sampling_rate"`
	Encoder  int   `json:"encoder_hidden_size"`
	Decoder  int   `json:"decoder_hidden_size"`
	Down     []int `json:"downsampling_ratios"`
	Up       []int `json:"upsampling_ratios"`
	Hidden   int   `json:"hidden_size"` // 0: what the encoder ends with
	Books    int   `json:"n_codebooks"`
	Codes    int   `json:"codebook_size"`
	CodeSize int   `json:"codebook_dim"`
}

// ParseConfig reads a config.json.
func ParseConfig(data []byte) (Config, error) {
	c := Config{
		Rate: 16000, Encoder: 64, Decoder: 1536, Down: []int{2, 4, 8, 8}, Up: []int{8, 8, 4, 2}, Books: 9, Codes: 1024, CodeSize: 8,
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("dac: config: %w: %w", err, ErrUnsupported)
	}
	if err := checkStrides(c.Down, c.Up); err != nil {
		return c, err
	}
	if c.Hidden == 0 {
		c.Hidden = c.Encoder << len(c.Down)
	}
	for name, v := range map[string]int{
		"encoder_hidden_size": c.Encoder, "decoder_hidden_size": c.Decoder, "hidden_size": c.Hidden, "n_codebooks": c.Books,
		"codebook_size": c.Codes, "codebook_dim": c.CodeSize, "sampling_rate": c.Rate,
	} {
		if v < 1 || v > 1<<19 {
			return c, fmt.Errorf("dac: config: %s is %d: %w", name, v, ErrUnsupported)
		}
	}
	if c.Decoder%(1<<len(c.Up)) != 0 {
		return c, fmt.Errorf("dac: config: decoder_hidden_size %d for %d ratios: %w", c.Decoder, len(c.Up), ErrUnsupported)
	}
	return c, nil
}

// checkStrides refuses strides that make no codec.
func checkStrides(lists ...[]int) error {
	for _, list := range lists {
		if len(list) == 0 || len(list) > 8 || slices.ContainsFunc(list, func(v int) bool { return v < 1 || v > 64 }) {
			return fmt.Errorf("dac: config: ratios %v: %w", list, ErrUnsupported)
		}
	}
	return nil
}

// Model is a loaded codec. Any number of goroutines may use it.
type Model struct {
	config           Config
	encoder, decoder half
	books            []codebook
}

// codebook is vectors of few numbers, and the way to them and back.
type codebook struct {
	in, out nn.Linear
	vectors []float32 // [Codes, CodeSize]
	units   []float32 // the same, of length 1
}

// Load reads a codec. The errors are those of weights.Store.
func Load(s *weights.Store, c Config) (*Model, error) {
	s, err := nn.Unnormed(s)
	if err != nil {
		return nil, err
	}
	m := &Model{config: c}
	down, up := []int{c.Encoder}, []int{c.Decoder}
	for range c.Down {
		down = append(down, 2*down[len(down)-1])
	}
	for range c.Up {
		up = append(up, up[len(up)-1]/2)
	}
	if m.encoder, err = loadHalf(s.Sub("encoder"), shape{in: 1, out: c.Hidden, widths: down, strides: c.Down, last: 3, bias: true}); err != nil {
		return nil, err
	}
	if m.decoder, err = loadHalf(s.Sub("decoder"), shape{in: c.Hidden, out: 1, widths: up, strides: c.Up, last: 7, bias: true, up: true}); err != nil {
		return nil, err
	}
	for i := range c.Books {
		b, err := loadBook(s.Sub(fmt.Sprintf("quantizer.quantizers.%d", i)), c)
		if err != nil {
			return nil, err
		}
		m.books = append(m.books, b)
	}
	return m, nil
}

func loadBook(s *weights.Store, c Config) (b codebook, err error) {
	if b.in, err = nn.LoadLinear(s.Sub("in_proj"), c.CodeSize, c.Hidden, true); err != nil {
		return b, err
	}
	if b.out, err = nn.LoadLinear(s.Sub("out_proj"), c.Hidden, c.CodeSize, true); err != nil {
		return b, err
	}
	t, err := s.Tensor("codebook.weight", c.Codes, c.CodeSize)
	if err != nil {
		return b, err
	}
	b.vectors = slices.Clone(t.Float32s())
	b.units = slices.Clone(b.vectors)
	for i := 0; i < len(b.units); i += c.CodeSize {
		toUnit(b.units[i : i+c.CodeSize])
	}
	return b, nil
}

// toUnit gives a vector the length 1.
func toUnit(x []float32) {
	squares := 0.0
	for _, v := range x {
		squares += float64(v) * float64(v)
	}
	factor := float32(1 / max(math.Sqrt(squares), 1e-12))
	for i := range x {
		x[i] *= factor
	}
}

// Config returns the codec's shape.
func (m *Model) Config() Config { return m.config }

// Encode returns codes [frames][Books] of samples of one channel.
func (m *Model) Encode(e *tensor.Exec, samples []float32) ([][]int, error) {
	if len(samples) == 0 {
		return nil, fmt.Errorf("dac: no samples: %w", ErrInput)
	}
	c := m.config
	rest := m.encoder.forward(e, samples)
	frames := len(rest) / c.Hidden
	if frames == 0 {
		return nil, fmt.Errorf("dac: %d samples are no frame: %w", len(samples), ErrInput)
	}
	codes := make([][]int, frames)
	small, back := make([]float32, frames*c.CodeSize), make([]float32, len(rest))
	for q := range m.books {
		b := &m.books[q]
		b.in.Forward(e, small, rest)
		for i := range frames {
			own := small[i*c.CodeSize:][:c.CodeSize]
			toUnit(own)
			code := b.likest(own)
			codes[i] = append(codes[i], code)
			copy(own, b.vectors[code*c.CodeSize:])
		}
		b.out.Forward(e, back, small)
		for i, v := range back {
			rest[i] -= v
		}
	}
	return codes, nil
}

// likest returns the vector whose direction is nearest to that of x.
func (b *codebook) likest(x []float32) int {
	best, most := 0, math.Inf(-1)
	for i := 0; i*len(x) < len(b.units); i++ {
		sum := 0.0
		for j, v := range b.units[i*len(x):][:len(x)] {
			sum += float64(v) * float64(x[j])
		}
		if sum > most {
			best, most = i, sum
		}
	}
	return best
}

// Decode returns the samples of codes.
func (m *Model) Decode(e *tensor.Exec, codes [][]int) ([]float32, error) {
	states, err := m.quantized(e, codes)
	if err != nil {
		return nil, err
	}
	x := m.decoder.forward(e, states)
	for i, v := range x {
		x[i] = float32(math.Tanh(float64(v)))
	}
	return x, nil
}

// quantized returns the sums [frames, Hidden] of what codes stand for.
func (m *Model) quantized(e *tensor.Exec, codes [][]int) ([]float32, error) {
	c := m.config
	if len(codes) == 0 {
		return nil, fmt.Errorf("dac: no codes: %w", ErrInput)
	}
	sum, back, small := make([]float32, len(codes)*c.Hidden), make([]float32, len(codes)*c.Hidden), make([]float32, len(codes)*c.CodeSize)
	for q := range m.books {
		for i, frame := range codes {
			if len(frame) != len(m.books) || frame[q] < 0 || frame[q] >= c.Codes {
				return nil, fmt.Errorf("dac: codes %v of frame %d, want %d from 0 to %d: %w", frame, i, len(m.books), c.Codes-1, ErrInput)
			}
			copy(small[i*c.CodeSize:], m.books[q].vectors[frame[q]*c.CodeSize:][:c.CodeSize])
		}
		m.books[q].out.Forward(e, back, small)
		e.Add(sum, back)
	}
	return sum, nil
}

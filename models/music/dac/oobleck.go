package dac

import (
	"encoding/json"
	"fmt"
	"math"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// OobleckConfig is a config.json of AutoencoderOobleck.
type OobleckConfig struct {
	Rate      int   `json:"sampling_rate"`
	Audio     int   `json:"audio_channels"`
	Encoder   int   `json:"encoder_hidden_size"` // twice the channels of the latents that it makes
	Decoder   int   `json:"decoder_channels"`
	Latents   int   `json:"decoder_input_channels"`
	Ratios    []int `json:"downsampling_ratios"`
	Multiples []int `json:"channel_multiples"`
}

// ParseOobleckConfig reads a config.json.
func ParseOobleckConfig(data []byte) (OobleckConfig, error) {
	c := OobleckConfig{
		Rate: 44100, Audio: 2, Encoder: 128, Decoder: 128, Latents: 64, Ratios: []int{2, 4, 4, 8, 8}, Multiples: []int{1, 2, 4, 8, 16},
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("dac: config: %w: %w", err, ErrUnsupported)
	}
	if err := checkStrides(c.Ratios); err != nil {
		return c, err
	}
	if len(c.Multiples) != len(c.Ratios) {
		return c, fmt.Errorf("dac: config: channel_multiples %v for downsampling_ratios %v: %w", c.Multiples, c.Ratios, ErrUnsupported)
	}
	sizes := map[string]int{"audio_channels": c.Audio, "encoder_hidden_size": c.Encoder, "decoder_channels": c.Decoder, "decoder_input_channels": c.Latents, "sampling_rate": c.Rate}
	for i, v := range c.Multiples {
		sizes[fmt.Sprintf("channel_multiples[%d]", i)] = v
	}
	for name, v := range sizes {
		if v < 1 || v > 1<<19 {
			return c, fmt.Errorf("dac: config: %s is %d: %w", name, v, ErrUnsupported)
		}
	}
	if c.Encoder%2 != 0 {
		return c, fmt.Errorf("dac: config: encoder_hidden_size %d, want means and deviations: %w", c.Encoder, ErrUnsupported)
	}
	return c, nil
}

// Oobleck is a loaded autoencoder. Any number of goroutines may use it.
type Oobleck struct {
	config           OobleckConfig
	encoder, decoder half
}

// LoadOobleck reads an autoencoder. The errors are those of weights.Store.
func LoadOobleck(s *weights.Store, c OobleckConfig) (*Oobleck, error) {
	s, err := nn.Unnormed(s)
	if err != nil {
		return nil, err
	}
	m := &Oobleck{config: c}
	down := shape{in: c.Audio, out: c.Encoder, widths: []int{c.Encoder}, strides: c.Ratios, last: 3, bias: true}
	up := shape{in: c.Latents, out: c.Audio, last: 7, up: true}
	for _, multiple := range c.Multiples {
		down.widths = append(down.widths, c.Encoder*multiple)
	}
	for i := len(c.Ratios) - 1; i >= 0; i-- {
		up.widths = append(up.widths, c.Decoder*c.Multiples[i])
		up.strides = append(up.strides, c.Ratios[i])
	}
	up.widths = append(up.widths, c.Decoder)
	if m.encoder, err = loadHalf(s.Sub("encoder"), down); err != nil {
		return nil, err
	}
	m.decoder, err = loadHalf(s.Sub("decoder"), up)
	return m, err
}

// Config returns the autoencoder's shape.
func (m *Oobleck) Config() OobleckConfig { return m.config }

// Encode returns the mean and the deviation [frames, Encoder/2] of the latents of samples
// [T, Audio].
func (m *Oobleck) Encode(e *tensor.Exec, samples []float32) (mean, deviation []float32, err error) {
	c := m.config
	if len(samples) == 0 || len(samples)%c.Audio != 0 {
		return nil, nil, fmt.Errorf("dac: %d samples of %d channels: %w", len(samples), c.Audio, ErrInput)
	}
	x := m.encoder.forward(e, samples)
	for size := c.Encoder; len(x) > 0; x = x[size:] {
		mean = append(mean, x[:size/2]...)
		for _, v := range x[size/2 : size] {
			softplus := max(float64(v), 0) + math.Log1p(math.Exp(-math.Abs(float64(v))))
			deviation = append(deviation, float32(softplus)+1e-4)
		}
	}
	return mean, deviation, nil
}

// Decode returns samples [T, Audio] of latents [frames, Latents].
func (m *Oobleck) Decode(e *tensor.Exec, z []float32) ([]float32, error) {
	if len(z) == 0 || len(z)%m.config.Latents != 0 {
		return nil, fmt.Errorf("dac: latents of %d numbers, want rows of %d: %w", len(z), m.config.Latents, ErrInput)
	}
	return m.decoder.forward(e, z), nil
}

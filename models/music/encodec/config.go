package encodec

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrUnsupported is wrapped by errors about configurations that mean nothing or another
// network.
var ErrUnsupported = errors.New("unsupported codec")

// Config is a config.json of EncodecModel.
type Config struct {
	Rate          int       `json:"sampling_rate"`
	AudioChannels int       `json:"audio_channels"`
	Normalize     bool      `json:"normalize"`
	Hidden        int       `json:"hidden_size"`
	Filters       int       `json:"num_filters"`
	Residuals     int       `json:"num_residual_layers"`
	Ratios        []int     `json:"upsampling_ratios"`
	Norm          string    `json:"norm_type"`
	Kernel        int       `json:"kernel_size"`
	LastKernel    int       `json:"last_kernel_size"`
	BlockKernel   int       `json:"residual_kernel_size"`
	Growth        int       `json:"dilation_growth_rate"`
	Causal        bool      `json:"use_causal_conv"`
	PadMode       string    `json:"pad_mode"`
	Compress      int       `json:"compress"`
	LSTMLayers    int       `json:"num_lstm_layers"`
	TrimRight     float64   `json:"trim_right_ratio"`
	Codes         int       `json:"codebook_size"`
	CodeDim       int       `json:"codebook_dim"`
	Shortcut      bool      `json:"use_conv_shortcut"`
	Bandwidths    []float64 `json:"target_bandwidths"` // kbit/s
	Chunk         *float64  `json:"chunk_length_s"`
}

// ParseConfig reads a config.json.
func ParseConfig(data []byte) (Config, error) {
	c := Config{
		Rate: 24000, AudioChannels: 1, Hidden: 128, Filters: 32, Residuals: 1, Ratios: []int{8, 5, 4, 2}, Norm: "weight_norm",
		Kernel: 7, LastKernel: 7, BlockKernel: 3, Growth: 2, Causal: true, PadMode: "reflect", Compress: 2, LSTMLayers: 2,
		TrimRight: 1, Codes: 1024, Shortcut: true, Bandwidths: []float64{1.5, 3, 6, 12, 24},
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("encodec: config: %w: %w", err, ErrUnsupported)
	}
	if c.CodeDim == 0 {
		c.CodeDim = c.Hidden
	}
	return c, c.validate()
}

func (c Config) validate() error {
	for _, v := range []struct {
		name      string
		value     int
		low, high int
	}{
		{"sampling_rate", c.Rate, 100, 384000}, {"audio_channels", c.AudioChannels, 1, 2}, {"hidden_size", c.Hidden, 1, 1 << 12},
		{"num_filters", c.Filters, 1, 1 << 10}, {"num_residual_layers", c.Residuals, 0, 8}, {"kernel_size", c.Kernel, 1, 64},
		{"last_kernel_size", c.LastKernel, 1, 64}, {"residual_kernel_size", c.BlockKernel, 1, 64}, {"dilation_growth_rate", c.Growth, 1, 4},
		{"compress", c.Compress, 1, 16}, {"num_lstm_layers", c.LSTMLayers, 0, 8}, {"codebook_size", c.Codes, 2, 1 << 16},
		{"upsampling_ratios", len(c.Ratios), 1, 8},
	} {
		if v.value < v.low || v.value > v.high {
			return fmt.Errorf("encodec: config: %s is %d, want %d to %d: %w", v.name, v.value, v.low, v.high, ErrUnsupported)
		}
	}
	switch {
	case slices.ContainsFunc(c.Ratios, func(r int) bool { return r < 1 || r > 64 }) || c.Hop() > 1<<14:
		return fmt.Errorf("encodec: config: upsampling_ratios %v: %w", c.Ratios, ErrUnsupported)
	case c.Norm != "weight_norm" && c.Norm != "time_group_norm":
		return fmt.Errorf("encodec: config: norm_type %q: %w", c.Norm, ErrUnsupported)
	case c.PadMode != "reflect":
		return fmt.Errorf("encodec: config: pad_mode %q: %w", c.PadMode, ErrUnsupported)
	case c.CodeDim != c.Hidden:
		return fmt.Errorf("encodec: config: codebook_dim %d, hidden_size %d: %w", c.CodeDim, c.Hidden, ErrUnsupported)
	case !(c.TrimRight >= 0 && c.TrimRight <= 1):
		return fmt.Errorf("encodec: config: trim_right_ratio %v: %w", c.TrimRight, ErrUnsupported)
	case c.Chunk != nil:
		return fmt.Errorf("encodec: config: chunk_length_s %v: %w", *c.Chunk, ErrUnsupported)
	case len(c.Bandwidths) == 0 || c.Books() < 1 || c.Books() > 1<<10:
		return fmt.Errorf("encodec: config: target_bandwidths %v: %w", c.Bandwidths, ErrUnsupported)
	}
	return nil
}

// Hop returns the number of samples that a frame of codes stands for.
func (c Config) Hop() int {
	n := 1
	for _, r := range c.Ratios {
		n *= r
	}
	return n
}

// Books returns the number of quantizers, of which the reference reckons 10 bits each.
func (c Config) Books() int {
	return int(1000 * c.Bandwidths[len(c.Bandwidths)-1] / (c.frameRate() * 10))
}

// Quantizers returns how many codes a frame has at a bandwidth in kbit/s; 0 is all.
func (c Config) Quantizers(bandwidth float64) int {
	if bandwidth == 0 {
		return c.Books()
	}
	return min(max(1, int(bandwidth*1000/(c.frameRate()*math.Log2(float64(c.Codes))))), c.Books())
}

func (c Config) frameRate() float64 { return math.Ceil(float64(c.Rate) / float64(c.Hop())) }

package vits

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"helicon/models/speech/hifigan"
)

// ErrUnsupported is wrapped by errors about configurations that mean nothing or another
// network.
var ErrUnsupported = errors.New("unsupported speech model")

// Config is a config.json of VitsModel.
type Config struct {
	Vocab   int     `json:"vocab_size"`
	Hidden  int     `json:"hidden_size"`
	Layers  int     `json:"num_hidden_layers"`
	Heads   int     `json:"num_attention_heads"`
	Window  int     `json:"window_size"` // how far positions tell each other apart; 0 is not at all
	FFN     int     `json:"ffn_dim"`
	Kernel  int     `json:"ffn_kernel_size"`
	Act     string  `json:"hidden_act"`
	NormEps float32 `json:"layer_norm_eps"`

	Flow         int `json:"flow_size"` // channels of the latents
	Flows        int `json:"prior_encoder_num_flows"`
	WaveLayers   int `json:"prior_encoder_num_wavenet_layers"`
	WaveKernel   int `json:"wavenet_kernel_size"`
	WaveDilation int `json:"wavenet_dilation_rate"`

	Stochastic       bool    `json:"use_stochastic_duration_prediction"`
	DurationKernel   int     `json:"duration_predictor_kernel_size"`
	DurationChannels int     `json:"duration_predictor_filter_channels"`
	DurationFlows    int     `json:"duration_predictor_num_flows"`
	DurationBins     int     `json:"duration_predictor_flow_bins"`
	TailBound        float64 `json:"duration_predictor_tail_bound"`
	SeparableLayers  int     `json:"depth_separable_num_layers"`
	SeparableSplit   int     `json:"depth_separable_channels"`

	Channels      int     `json:"upsample_initial_channel"`
	Strides       []int   `json:"upsample_rates"`
	Kernels       []int   `json:"upsample_kernel_sizes"`
	BlockKernels  []int   `json:"resblock_kernel_sizes"`
	BlockDilation [][]int `json:"resblock_dilation_sizes"`
	Slope         float32 `json:"leaky_relu_slope"`

	Speakers    int `json:"num_speakers"`
	SpeakerSize int `json:"speaker_embedding_size"`
	Rate        int `json:"sampling_rate"`

	// What a request may choose anew.
	NoiseScale    float32 `json:"noise_scale"`
	NoiseDuration float32 `json:"noise_scale_duration"`
	SpeakingRate  float32 `json:"speaking_rate"`
}

// ParseConfig reads a config.json.
func ParseConfig(data []byte) (Config, error) {
	c := Config{
		Vocab: 38, Hidden: 192, Layers: 6, Heads: 2, Window: 4, FFN: 768, Kernel: 3, Act: "relu", NormEps: 1e-5,
		Flow: 192, Flows: 4, WaveLayers: 4, WaveKernel: 5, WaveDilation: 1,
		Stochastic: true, DurationKernel: 3, DurationChannels: 256, DurationFlows: 4, DurationBins: 10, TailBound: 5,
		SeparableLayers: 3, SeparableSplit: 2,
		Channels: 512, Strides: []int{8, 8, 2, 2}, Kernels: []int{16, 16, 4, 4}, BlockKernels: []int{3, 7, 11},
		BlockDilation: [][]int{{1, 3, 5}, {1, 3, 5}, {1, 3, 5}}, Slope: 0.1,
		Speakers: 1, Rate: 16000, NoiseScale: 0.667, NoiseDuration: 0.8, SpeakingRate: 1,
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("vits: config: %w: %w", err, ErrUnsupported)
	}
	return c, c.validate()
}

// Limits on configurations.
const (
	maxWidth  = 1 << 13
	maxLayers = 64
	maxKernel = 64
	maxVocab  = 1 << 17
)

func (c Config) validate() error {
	for _, v := range []struct {
		name      string
		value     int
		low, high int
	}{
		{"vocab_size", c.Vocab, 1, maxVocab}, {"hidden_size", c.Hidden, 2, maxWidth}, {"num_hidden_layers", c.Layers, 1, maxLayers},
		{"num_attention_heads", c.Heads, 1, c.Hidden}, {"window_size", c.Window, 0, maxWidth}, {"ffn_dim", c.FFN, 1, maxWidth},
		{"ffn_kernel_size", c.Kernel, 1, maxKernel}, {"flow_size", c.Flow, 2, maxWidth}, {"prior_encoder_num_flows", c.Flows, 0, maxLayers},
		{"prior_encoder_num_wavenet_layers", c.WaveLayers, 1, maxLayers}, {"wavenet_kernel_size", c.WaveKernel, 1, maxKernel},
		{"wavenet_dilation_rate", c.WaveDilation, 1, 4}, {"duration_predictor_kernel_size", c.DurationKernel, 1, maxKernel},
		{"duration_predictor_filter_channels", c.DurationChannels, 1, maxWidth}, {"duration_predictor_num_flows", c.DurationFlows, 1, maxLayers},
		{"duration_predictor_flow_bins", c.DurationBins, 1, 256}, {"depth_separable_num_layers", c.SeparableLayers, 1, 8},
		{"num_speakers", c.Speakers, 0, maxVocab}, {"speaker_embedding_size", c.SpeakerSize, 0, maxWidth}, {"sampling_rate", c.Rate, 1000, 384000},
	} {
		if v.value < v.low || v.value > v.high {
			return fmt.Errorf("vits: config: %s is %d, want %d to %d: %w", v.name, v.value, v.low, v.high, ErrUnsupported)
		}
	}
	switch {
	case c.Hidden%c.Heads != 0 || c.Flow%2 != 0:
		return fmt.Errorf("vits: config: hidden_size %d with %d heads, flow_size %d: %w", c.Hidden, c.Heads, c.Flow, ErrUnsupported)
	case c.Act != "relu":
		return fmt.Errorf("vits: config: hidden_act %q: %w", c.Act, ErrUnsupported)
	case c.SeparableSplit != 2:
		return fmt.Errorf("vits: config: depth_separable_channels %d: %w", c.SeparableSplit, ErrUnsupported)
	case !(c.TailBound > 0 && c.TailBound < 1e3) || !(c.NormEps > 0 && c.NormEps < 1):
		return fmt.Errorf("vits: config: duration_predictor_tail_bound %v, layer_norm_eps %v: %w", c.TailBound, c.NormEps, ErrUnsupported)
	case c.Speakers > 1 && c.SpeakerSize == 0:
		return fmt.Errorf("vits: config: %d speakers of no size: %w", c.Speakers, ErrUnsupported)
	case slices.Contains(c.Strides, 0):
		return fmt.Errorf("vits: config: upsample_rates %v: %w", c.Strides, ErrUnsupported)
	}
	if err := c.decoder().Validate(); err != nil {
		return fmt.Errorf("vits: config: %w: %w", err, ErrUnsupported)
	}
	return nil
}

// decoder is the shape of what turns latents into sound.
func (c Config) decoder() hifigan.Config {
	return hifigan.Config{
		In: c.Flow, Rate: c.Rate, Channels: c.Channels, Strides: c.Strides, Kernels: c.Kernels,
		BlockKernels: c.BlockKernels, BlockDilation: c.BlockDilation, Slope: c.Slope,
		Speaker: c.speaker(), PlainEnd: true,
	}
}

// speaker returns the size of the vector that stands for who speaks, 0 if all is one voice.
func (c Config) speaker() int {
	if c.Speakers > 1 {
		return c.SpeakerSize
	}
	return 0
}

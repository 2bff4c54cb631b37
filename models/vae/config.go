package vae

import (
	"encoding/json"
	"fmt"
	"math"
)

// Config describes an AutoencoderKL, in the words of its config.json.
type Config struct {
	Class             string    `json:"_class_name"`
	InChannels        int       `json:"in_channels"`
	OutChannels       int       `json:"out_channels"`
	Channels          []int     `json:"block_out_channels"` // a level, from the picture to the latents
	Layers            int       `json:"layers_per_block"`
	LatentChannels    int       `json:"latent_channels"`
	Groups            int       `json:"norm_num_groups"`
	Activation        string    `json:"act_fn"`
	DownBlocks        []string  `json:"down_block_types"`
	UpBlocks          []string  `json:"up_block_types"`
	UseQuantConv      bool      `json:"use_quant_conv"`
	UsePostQuantConv  bool      `json:"use_post_quant_conv"`
	MidBlockAttention bool      `json:"mid_block_add_attention"`
	ScalingFactor     float64   `json:"scaling_factor"`
	ShiftFactor       float64   `json:"shift_factor"`
	LatentsMean       []float32 `json:"latents_mean"`
	LatentsStd        []float32 `json:"latents_std"`
}

// StableDiffusion returns the configuration of the autoencoder of Stable Diffusion 1 and
// 2, which those of SDXL, SD3 and Flux differ from in latents and factors alone.
func StableDiffusion() Config {
	return Config{
		InChannels: 3, OutChannels: 3, Channels: []int{128, 256, 512, 512}, Layers: 2, LatentChannels: 4,
		Groups: 32, Activation: "silu", UseQuantConv: true, UsePostQuantConv: true, MidBlockAttention: true,
		ScalingFactor: 0.18215,
	}
}

// ParseConfig reads the config.json of an AutoencoderKL. Errors wrap ErrConfig or
// ErrUnsupported.
func ParseConfig(data []byte) (Config, error) {
	c := StableDiffusion() // but for the channels the defaults of diffusers
	c.Channels, c.Layers = []int{64}, 1
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("vae: config: %v: %w", err, ErrConfig)
	}
	return c, c.validate()
}

// Limits of a configuration. They are far above any real model and keep every product of
// sizes far inside an int64.
const (
	maxLevels   = 8
	maxChannels = 1 << 14
	maxLayers   = 64
)

// validate lists every rule that a configuration must meet.
func (c *Config) validate() error {
	if c.Class != "" && c.Class != "AutoencoderKL" {
		return fmt.Errorf("vae: config: class %q: %w", c.Class, ErrUnsupported)
	}
	if len(c.Channels) < 1 || len(c.Channels) > maxLevels {
		return fmt.Errorf("vae: config: %d block_out_channels, want 1 to %d: %w", len(c.Channels), maxLevels, ErrConfig)
	}
	if c.Groups < 1 || c.Layers < 1 || c.Layers > maxLayers {
		return fmt.Errorf("vae: config: %d norm_num_groups, %d layers_per_block: %w", c.Groups, c.Layers, ErrConfig)
	}
	for _, n := range append([]int{c.LatentChannels}, c.Channels...) {
		if n < 1 || n > maxChannels {
			return fmt.Errorf("vae: config: %d channels, want 1 to %d: %w", n, maxChannels, ErrConfig)
		}
	}
	for _, n := range c.Channels {
		if n%c.Groups != 0 {
			return fmt.Errorf("vae: config: %d channels in %d groups: %w", n, c.Groups, ErrConfig)
		}
	}
	if c.InChannels != 3 || c.OutChannels != 3 {
		return fmt.Errorf("vae: config: pictures of %d and %d channels, want 3: %w", c.InChannels, c.OutChannels, ErrUnsupported)
	}
	if c.Activation != "silu" && c.Activation != "swish" {
		return fmt.Errorf("vae: config: act_fn %q: %w", c.Activation, ErrUnsupported)
	}
	if err := blocks("down_block_types", c.DownBlocks, "DownEncoderBlock2D"); err != nil {
		return err
	}
	if err := blocks("up_block_types", c.UpBlocks, "UpDecoderBlock2D"); err != nil {
		return err
	}
	return c.validateLatents()
}

func blocks(field string, types []string, want string) error {
	for _, t := range types {
		if t != want {
			return fmt.Errorf("vae: config: %s %q, want %q: %w", field, t, want, ErrUnsupported)
		}
	}
	return nil
}

func (c *Config) validateLatents() error {
	if !(c.ScalingFactor > 0 && c.ScalingFactor < 1e6) || !(math.Abs(c.ShiftFactor) < 1e6) {
		return fmt.Errorf("vae: config: scaling_factor %v, shift_factor %v: %w", c.ScalingFactor, c.ShiftFactor, ErrConfig)
	}
	if c.LatentsStd == nil && c.LatentsMean == nil {
		return nil
	}
	if len(c.LatentsMean) != c.LatentChannels || len(c.LatentsStd) != c.LatentChannels {
		return fmt.Errorf("vae: config: %d latents_mean and %d latents_std of %d channels: %w", len(c.LatentsMean), len(c.LatentsStd), c.LatentChannels, ErrConfig)
	}
	for _, s := range c.LatentsStd {
		if !(s > 0) {
			return fmt.Errorf("vae: config: latents_std %v: %w", s, ErrConfig)
		}
	}
	return nil
}

// Latents describes the latents.
func (c *Config) Latents() Latents {
	return Latents{
		Channels: c.LatentChannels, Down: 1 << (len(c.Channels) - 1), Scale: float32(c.ScalingFactor), Shift: float32(c.ShiftFactor),
		Mean: c.LatentsMean, Std: c.LatentsStd,
	}
}

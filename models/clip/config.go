package clip

import (
	"encoding/json"
	"fmt"
	"slices"

	"helicon/models/tensor"
)

// TextConfig describes a text encoder, in the words of its config.json.
type TextConfig struct {
	Vocab        int     `json:"vocab_size"`
	Hidden       int     `json:"hidden_size"`
	Intermediate int     `json:"intermediate_size"`
	Layers       int     `json:"num_hidden_layers"`
	Heads        int     `json:"num_attention_heads"`
	Positions    int     `json:"max_position_embeddings"` // most tokens of a text
	Projection   int     `json:"projection_dim"`
	Activation   string  `json:"hidden_act"`
	Eps          float64 `json:"layer_norm_eps"`
	EOS          int     `json:"eos_token_id"` // 2 stands for the largest id in the text

	// Projected says that the file has a projection of the pooled state, as SDXL's second
	// encoder and SD3's have.
	Projected bool `json:"-"`
}

// VisionConfig describes a vision tower, in the words of its config.json.
type VisionConfig struct {
	Hidden       int     `json:"hidden_size"`
	Intermediate int     `json:"intermediate_size"`
	Layers       int     `json:"num_hidden_layers"`
	Heads        int     `json:"num_attention_heads"`
	Channels     int     `json:"num_channels"`
	Image        int     `json:"image_size"` // pixels, of height and width
	Patch        int     `json:"patch_size"` // pixels
	Projection   int     `json:"projection_dim"`
	Activation   string  `json:"hidden_act"`
	Eps          float64 `json:"layer_norm_eps"`

	Projected bool `json:"-"` // the file has a projection of the pooled state
}

// Config describes both, as CLIPModel has them.
type Config struct {
	Text   TextConfig
	Vision VisionConfig
}

// architectures is what the configuration of a model of one tower says beside it.
type architectures struct {
	Names            []string `json:"architectures"`
	UseAttentionMask bool     `json:"use_attention_mask"`
}

// textDefaults and visionDefaults are those of transformers, for what a file leaves out.
func textDefaults() TextConfig {
	return TextConfig{
		Vocab: 49408, Hidden: 512, Intermediate: 2048, Layers: 12, Heads: 8, Positions: 77,
		Projection: 512, Activation: "quick_gelu", Eps: 1e-5, EOS: 49407,
	}
}

func visionDefaults() VisionConfig {
	return VisionConfig{
		Hidden: 768, Intermediate: 3072, Layers: 12, Heads: 12, Channels: 3, Image: 224, Patch: 32,
		Projection: 512, Activation: "quick_gelu", Eps: 1e-5,
	}
}

// ParseTextConfig reads the config.json of a text encoder. Errors wrap ErrConfig or
// ErrUnsupported.
func ParseTextConfig(data []byte) (TextConfig, error) {
	c, a := textDefaults(), architectures{}
	for _, into := range []any{&c, &a} {
		if err := decode(data, into); err != nil {
			return c, err
		}
	}
	if a.UseAttentionMask {
		return c, fmt.Errorf("clip: use_attention_mask: %w", ErrUnsupported)
	}
	c.Projected = slices.Contains(a.Names, "CLIPTextModelWithProjection")
	return c, c.validate()
}

// ParseVisionConfig reads the config.json of a vision tower. Errors wrap ErrConfig or
// ErrUnsupported.
func ParseVisionConfig(data []byte) (VisionConfig, error) {
	c, a := visionDefaults(), architectures{}
	for _, into := range []any{&c, &a} {
		if err := decode(data, into); err != nil {
			return c, err
		}
	}
	c.Projected = slices.Contains(a.Names, "CLIPVisionModelWithProjection")
	return c, c.validate()
}

// ParseConfig reads the config.json of a CLIPModel, or of another model with a vision
// tower and its projection, such as a safety checker. Errors wrap ErrConfig or
// ErrUnsupported.
func ParseConfig(data []byte) (Config, error) {
	c := Config{Text: textDefaults(), Vision: visionDefaults()}
	file := struct {
		Text       *TextConfig   `json:"text_config"`
		Vision     *VisionConfig `json:"vision_config"`
		Projection *int          `json:"projection_dim"`
	}{Text: &c.Text, Vision: &c.Vision}
	if err := decode(data, &file); err != nil {
		return c, err
	}
	c.Text.Projection, c.Vision.Projection = 512, 512
	if file.Projection != nil {
		c.Text.Projection, c.Vision.Projection = *file.Projection, *file.Projection
	}
	if err := c.Text.validate(); err != nil {
		return c, err
	}
	return c, c.Vision.validate()
}

func decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("clip: config: %v: %w", err, ErrConfig)
	}
	return nil
}

// Limits of a configuration. They are far above any real model and keep every product
// of sizes far inside an int64.
const (
	maxVocab     = 1 << 24
	maxWidth     = 1 << 16
	maxLayers    = 1 << 10
	maxPositions = 1 << 16
	maxImage     = 1 << 12
)

// field is a number of a configuration and the most that it may be.
type field struct {
	name         string
	value, limit int
}

// validate lists every rule that a text encoder's configuration must meet.
func (c *TextConfig) validate() error {
	return check([]field{
		{"vocab_size", c.Vocab, maxVocab},
		{"max_position_embeddings", c.Positions, maxPositions},
	}, tower{c.Hidden, c.Intermediate, c.Layers, c.Heads, c.Projection, c.Activation, c.Eps})
}

// validate lists every rule that a vision tower's configuration must meet.
func (c *VisionConfig) validate() error {
	err := check([]field{
		{"num_channels", c.Channels, maxWidth},
		{"image_size", c.Image, maxImage},
		{"patch_size", c.Patch, c.Image},
	}, tower{c.Hidden, c.Intermediate, c.Layers, c.Heads, c.Projection, c.Activation, c.Eps})
	return err
}

// tower is what both towers have in common.
type tower struct {
	hidden, intermediate, layers, heads, projection int
	activation                                      string
	eps                                             float64
}

func check(fields []field, t tower) error {
	for _, f := range append(fields,
		field{"hidden_size", t.hidden, maxWidth}, field{"intermediate_size", t.intermediate, maxWidth},
		field{"num_hidden_layers", t.layers, maxLayers}, field{"num_attention_heads", t.heads, maxWidth},
		field{"projection_dim", t.projection, maxWidth},
	) {
		if f.value < 1 || f.value > f.limit {
			return fmt.Errorf("clip: config: %s is %d, want 1 to %d: %w", f.name, f.value, f.limit, ErrConfig)
		}
	}
	if t.hidden%t.heads != 0 {
		return fmt.Errorf("clip: config: hidden_size %d does not divide among %d heads: %w", t.hidden, t.heads, ErrConfig)
	}
	if !(t.eps >= 0 && t.eps < 1) {
		return fmt.Errorf("clip: config: layer_norm_eps %v, want 0 to 1: %w", t.eps, ErrConfig)
	}
	if _, ok := tensor.ParseActivation(t.activation); !ok {
		return fmt.Errorf("clip: config: hidden_act %q: %w", t.activation, ErrUnsupported)
	}
	return nil
}

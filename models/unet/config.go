package unet

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"helicon/models/tensor"
)

// ErrUnsupported is wrapped by errors about a configuration that no network of this
// package computes.
var ErrUnsupported = errors.New("unsupported network")

// The classes of networks, by the names that configurations have for them.
const (
	Conditional   = "UNet2DConditionModel"
	Unconditional = "UNet2DModel"
	Control       = "ControlNetModel"
)

// Config is the config.json of a network of one of the classes.
type Config struct {
	Class          string   `json:"_class_name"`
	SampleSize     ints     `json:"sample_size"` // side of the image in latent pixels, or height and width
	InChannels     int      `json:"in_channels"`
	OutChannels    int      `json:"out_channels"`
	BlockOut       []int    `json:"block_out_channels"`
	LayersPerBlock ints     `json:"layers_per_block"`
	DownBlocks     []string `json:"down_block_types"`
	MidBlock       *string  `json:"mid_block_type"` // nil: none
	UpBlocks       []string `json:"up_block_types"`
	Act            string   `json:"act_fn"`
	Groups         int      `json:"norm_num_groups"`
	MidGroups      *int     `json:"attn_norm_num_groups"` // of the middle block's attention; nil: Groups
	NormEps        float32  `json:"norm_eps"`
	DownPadding    int      `json:"downsample_padding"`
	TimeScaleShift string   `json:"resnet_time_scale_shift"` // "default" or "scale_shift"

	// HeadDim is the dimension of a head in an Unconditional network, and the number of
	// heads in the others: an old confusion that checkpoints carry on. NumHeads, where it
	// is given, counts heads.
	HeadDim           ints  `json:"attention_head_dim"`
	NumHeads          ints  `json:"num_attention_heads"`
	AddAttention      bool  `json:"add_attention"` // in the middle of an Unconditional network
	CrossAttention    ints  `json:"cross_attention_dim"`
	TransformerLayers ints  `json:"transformer_layers_per_block"`
	OnlyCross         bools `json:"only_cross_attention"`
	LinearProjection  bool  `json:"use_linear_projection"`

	// What is embedded: the time, and things beside it.
	FlipSinToCos    bool    `json:"flip_sin_to_cos"`
	FreqShift       float64 `json:"freq_shift"`
	TimeDim         int     `json:"time_embedding_dim"`            // 0: four times the first of BlockOut
	TimeCondDim     int     `json:"time_cond_proj_dim"`            // of LCM's guidance embedding; 0: none
	AddedType       string  `json:"addition_embed_type"`           // "", "text" or "text_time"
	AddedHeads      int     `json:"addition_embed_type_num_heads"` // of text
	AddedTimeDim    int     `json:"addition_time_embed_dim"`       // of each of the TimeIDs
	ProjectionInput int     `json:"projection_class_embeddings_input_dim"`
	ClassType       string  `json:"class_embed_type"` // "", "timestep" or "projection"
	NumClasses      int     `json:"num_class_embeds"` // 0: none, unless ClassType says so

	// The hint of a ControlNet.
	HintChannels int    `json:"conditioning_channels"`
	HintOut      []int  `json:"conditioning_embedding_out_channels"`
	HintOrder    string `json:"controlnet_conditioning_channel_order"` // "rgb" or "bgr"
	GlobalPool   bool   `json:"global_pool_conditions"`                // residuals are means over the image
}

// ParseConfig reads a config.json, with the defaults of its class. The error wraps
// ErrUnsupported if the network is one that is not computed here.
func ParseConfig(data []byte) (Config, error) {
	var class struct {
		Name string `json:"_class_name"`
	}
	if err := json.Unmarshal(data, &class); err != nil {
		return Config{}, fmt.Errorf("unet: config: %w", err)
	}
	c, ok := defaults(class.Name)
	if !ok {
		return Config{}, fmt.Errorf("unet: config: class %q: %w", class.Name, ErrUnsupported)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, fmt.Errorf("unet: config: %w", err)
	}
	if err := checkRefused(data); err != nil {
		return Config{}, fmt.Errorf("unet: config: %w", err)
	}
	if err := c.validate(); err != nil {
		return Config{}, fmt.Errorf("unet: config: %w", err)
	}
	return c, nil
}

// defaults returns what a configuration that says nothing else means.
func defaults(class string) (Config, bool) {
	mid := "UNetMidBlock2DCrossAttn"
	c := Config{
		Class: class, InChannels: 4, OutChannels: 4, BlockOut: []int{320, 640, 1280, 1280}, LayersPerBlock: ints{2},
		DownBlocks: []string{crossDown, crossDown, crossDown, plainDown}, MidBlock: &mid,
		UpBlocks: []string{plainUp, crossUp, crossUp, crossUp},
		Act:      "silu", Groups: 32, NormEps: 1e-5, DownPadding: 1, TimeScaleShift: "default",
		HeadDim: ints{8}, CrossAttention: ints{1280}, AddedHeads: 64, TransformerLayers: ints{1}, OnlyCross: bools{false}, FlipSinToCos: true,
	}
	switch class {
	case Conditional:
	case Control:
		c.HintChannels, c.HintOut, c.HintOrder = 3, []int{16, 32, 96, 256}, "rgb"
	case Unconditional:
		mid = "UNetMidBlock2D"
		c.InChannels, c.OutChannels, c.BlockOut = 3, 3, []int{224, 448, 672, 896}
		c.DownBlocks = []string{plainDown, attnDown, attnDown, attnDown}
		c.UpBlocks = []string{attnUp, attnUp, attnUp, plainUp}
		c.AddAttention = true
	default:
		return Config{}, false
	}
	return c, true
}

// checkRefused refuses settings that change what a network computes and are not
// supported, each of which nearly all networks leave at its default.
func checkRefused(data []byte) error {
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	for name, usual := range map[string]any{
		"time_embedding_type": "positional", "time_embedding_act_fn": nil, "timestep_post_act": nil,
		"mid_block_scale_factor": 1.0, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": false,
		"dual_cross_attention": false, "cross_attention_norm": nil, "attention_type": "default",
		"encoder_hid_dim": nil, "encoder_hid_dim_type": nil, "class_embeddings_concat": false,
		"conv_in_kernel": 3.0, "conv_out_kernel": 3.0, "downsample_type": "conv", "upsample_type": "conv",
		"center_input_sample": false, "reverse_transformer_layers_per_block": nil,
	} {
		if v, ok := fields[name]; ok && v != nil && v != usual {
			return fmt.Errorf("%s is %v: %w", name, v, ErrUnsupported)
		}
	}
	return nil
}

// Bounds of what a configuration may ask for, far above any network that was trained.
const (
	maxChannels = 1 << 15
	maxLevels   = 12
	maxLayers   = 64
)

// validate checks everything that the network is built from.
func (c *Config) validate() error {
	n := len(c.BlockOut)
	if n == 0 || n > maxLevels {
		return fmt.Errorf("%d block_out_channels: %w", n, ErrUnsupported)
	}
	if len(c.DownBlocks) != n || c.Class != Control && len(c.UpBlocks) != n {
		return fmt.Errorf("%d block_out_channels, but %d down_block_types and %d up_block_types: %w", n, len(c.DownBlocks), len(c.UpBlocks), ErrUnsupported)
	}
	if c.Groups <= 0 || c.MidGroups != nil && *c.MidGroups <= 0 || !(c.NormEps > 0) {
		return fmt.Errorf("norm_num_groups %d, norm_eps %v: %w", c.Groups, c.NormEps, ErrUnsupported)
	}
	for _, list := range []struct {
		name   string
		values ints
		length int // of a list; 0 also allows none
		limit  int
	}{
		{"in_channels", ints{c.InChannels}, 1, maxChannels},
		{"out_channels", ints{c.OutChannels}, 1, maxChannels},
		{"block_out_channels", c.BlockOut, n, maxChannels},
		{"layers_per_block", c.LayersPerBlock, n, maxLayers},
		{"transformer_layers_per_block", c.TransformerLayers, n, maxLayers},
		{"cross_attention_dim", c.CrossAttention, n, maxChannels},
	} {
		if err := within(list.name, list.values, list.length, list.limit); err != nil {
			return err
		}
	}
	for _, channels := range c.BlockOut {
		if channels%c.Groups != 0 || c.MidGroups != nil && channels%*c.MidGroups != 0 || channels%2 != 0 {
			return fmt.Errorf("block_out_channels %v do not divide into %d groups: %w", c.BlockOut, c.Groups, ErrUnsupported)
		}
	}
	if len(c.OnlyCross) != 1 && len(c.OnlyCross) != n {
		return fmt.Errorf("%d values of only_cross_attention for %d blocks: %w", len(c.OnlyCross), n, ErrUnsupported)
	}
	if _, ok := tensor.ParseActivation(c.Act); !ok {
		return fmt.Errorf("act_fn %q: %w", c.Act, ErrUnsupported)
	}
	if c.DownPadding != 0 && c.DownPadding != 1 {
		return fmt.Errorf("downsample_padding %d: %w", c.DownPadding, ErrUnsupported)
	}
	if c.TimeScaleShift != "default" && c.TimeScaleShift != "scale_shift" {
		return fmt.Errorf("resnet_time_scale_shift %q: %w", c.TimeScaleShift, ErrUnsupported)
	}
	return errors.Join(c.validateHeads(), c.validateEmbeddings(), c.validateHint())
}

// within checks numbers, of which there are one or as many as a length.
func within(name string, values ints, length, limit int) error {
	if len(values) != 1 && len(values) != length {
		return fmt.Errorf("%d values of %s for %d blocks: %w", len(values), name, length, ErrUnsupported)
	}
	for _, v := range values {
		if v <= 0 || v > limit {
			return fmt.Errorf("%s is %d, want 1 to %d: %w", name, v, limit, ErrUnsupported)
		}
	}
	return nil
}

func (c *Config) validateHeads() error {
	if c.NumHeads != nil {
		if err := within("num_attention_heads", c.NumHeads, len(c.BlockOut), maxChannels); err != nil {
			return err
		}
	}
	if c.HeadDim != nil {
		if err := within("attention_head_dim", c.HeadDim, len(c.BlockOut), maxChannels); err != nil {
			return err
		}
	}
	for i, channels := range c.BlockOut {
		if heads := c.heads(i); heads == 0 || channels%heads != 0 {
			return fmt.Errorf("%d channels of block %d do not divide into heads (attention_head_dim %v): %w", channels, i, c.HeadDim, ErrUnsupported)
		}
	}
	return nil
}

func (c *Config) validateEmbeddings() error {
	limits := map[string]int{
		"time_embedding_dim": c.TimeDim, "time_cond_proj_dim": c.TimeCondDim, "addition_time_embed_dim": c.AddedTimeDim,
		"projection_class_embeddings_input_dim": c.ProjectionInput, "num_class_embeds": c.NumClasses,
	}
	for name, v := range limits {
		if v < 0 || v > maxChannels {
			return fmt.Errorf("%s is %d, want 0 to %d: %w", name, v, maxChannels, ErrUnsupported)
		}
	}
	if half := float64(c.BlockOut[0] / 2); c.FreqShift < 0 || c.FreqShift >= half {
		return fmt.Errorf("freq_shift is %v, want 0 to below %v: %w", c.FreqShift, half, ErrUnsupported)
	}
	switch c.AddedType {
	case "":
	case "text":
		if !c.Conditioned() || c.AddedHeads <= 0 || c.ContextDim()%c.AddedHeads != 0 {
			return fmt.Errorf("addition_embed_type text of %d heads: %w", c.AddedHeads, ErrUnsupported)
		}
	case "text_time":
		if c.AddedTimeDim == 0 || c.pooled() <= 0 {
			return fmt.Errorf("addition_embed_type text_time of %d, %d inputs: %w", c.AddedTimeDim, c.ProjectionInput, ErrUnsupported)
		}
	default:
		return fmt.Errorf("addition_embed_type %q: %w", c.AddedType, ErrUnsupported)
	}
	switch {
	case c.ClassType == "", c.ClassType == "timestep":
	case c.ClassType == "projection" && c.ProjectionInput > 0:
	default:
		return fmt.Errorf("class_embed_type %q: %w", c.ClassType, ErrUnsupported)
	}
	return nil
}

func (c *Config) validateHint() error {
	if c.Class != Control {
		return nil
	}
	if len(c.HintOut) == 0 || len(c.HintOut) > maxLevels || !slices.Contains([]string{"rgb", "bgr"}, c.HintOrder) {
		return fmt.Errorf("%d conditioning_embedding_out_channels, order %q: %w", len(c.HintOut), c.HintOrder, ErrUnsupported)
	}
	return errors.Join(within("conditioning_channels", ints{c.HintChannels}, 1, maxChannels),
		within("conditioning_embedding_out_channels", c.HintOut, len(c.HintOut), maxChannels))
}

// heads returns the number of attention heads of block i, 0 if there is none that fits.
func (c *Config) heads(i int) int {
	if c.NumHeads != nil {
		return at(c.NumHeads, i)
	}
	if c.HeadDim == nil {
		return 1
	}
	if c.Class == Unconditional {
		return c.BlockOut[i] / at(c.HeadDim, i)
	}
	return at(c.HeadDim, i)
}

// timeDim returns the size of the time's embedding.
func (c *Config) timeDim() int {
	if c.TimeDim != 0 {
		return c.TimeDim
	}
	return 4 * c.BlockOut[0]
}

// timeIDs is how many numbers text_time embeds: original size, crop, target size.
const timeIDs = 6

// pooled returns the size of the pooled text embedding that text_time takes.
func (c *Config) pooled() int { return c.ProjectionInput - timeIDs*c.AddedTimeDim }

// PoolsText reports whether the network adds a vector of the context to the time.
func (c *Config) PoolsText() bool { return c.AddedType == "text" }

// AddedText reports whether the network takes a pooled text embedding and sizes, as SDXL.
func (c *Config) AddedText() bool { return c.AddedType == "text_time" }

// PooledDim returns the size of the pooled text embedding, 0 if the network takes none.
func (c *Config) PooledDim() int {
	if !c.AddedText() {
		return 0
	}
	return c.pooled()
}

// Conditioned reports whether the network attends to a context, as of text.
func (c *Config) Conditioned() bool { return c.Class != Unconditional }

// ContextDim returns the channels of the context.
func (c *Config) ContextDim() int { return c.CrossAttention[0] }

// ints is a number or a list of them.
type ints []int

// UnmarshalJSON reads a number, a list of numbers, or null, which is none.
func (v *ints) UnmarshalJSON(data []byte) error { return oneOrMany((*[]int)(v), data) }

// bools is a truth value or a list of them.
type bools []bool

// UnmarshalJSON reads true, false, a list of them, or null, which is none.
func (v *bools) UnmarshalJSON(data []byte) error { return oneOrMany((*[]bool)(v), data) }

func oneOrMany[T any](v *[]T, data []byte) error {
	*v = nil
	if string(data) == "null" {
		return nil
	}
	var one T
	if json.Unmarshal(data, &one) == nil {
		*v = []T{one}
		return nil
	}
	return json.Unmarshal(data, v)
}

// at returns the value of level i, the same for all levels if there is only one.
func at[T any](v []T, i int) T {
	if len(v) == 1 {
		return v[0]
	}
	return v[i]
}

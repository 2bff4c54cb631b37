package family

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"helicon/models/nn"
	"helicon/models/tensor"
)

// Config describes a decoder, in the terms that all families share.
type Config struct {
	Architecture string // as the bundle names it
	Vocab        int    // tokens, of which each has an id below it
	Context      int    // positions the model was made for
	Hidden       int    // channels between the blocks
	Layers       int    // blocks
	Heads        int    // of queries
	KVHeads      int    // of keys and values; divides Heads
	HeadDim      int    // channels of a head
	Intermediate int    // channels inside the MLP
	Tied         bool   // the output matrix is the embedding
	BOS          []int  // ids that begin a text
	EOS          []int  // any of these ends a text

	Eps        float64           // of the norms
	Activation tensor.Activation // of the MLP

	// What follows says where a decoder is not a plain Llama: the zero value of each
	// field is what Llama does.

	Norm     Norm    // of all norms but those of heads where HeadNorms is set
	Parallel bool    // attention and MLP both read what enters the block
	Experts  Experts // mixtures in the place of MLPs

	AttentionBias bool // of query, key and value
	OutputBias    bool // of the attention's output
	MLPBias       bool // of the MLP's matrices
	HeadBias      bool // of the output matrix

	EmbedWidth int     // of the token embedding; a family may leave it 0 for Hidden
	EmbedScale float64 // factor of the embedding; 0 is 1
	LogitCap   float64 // logits are capped to ±LogitCap; 0 is not at all

	scale        float64 // factor of the scores of attention; 0 is 1/√HeadDim
	scaleByLayer bool    // and divided by the layer's number, from 1
	ScoreCap     float64 // scores are capped to ±ScoreCap; 0 is not at all
	HeadNorms    bool    // each head has its own norms of query and key

	window int                  // sliding window, 0 is none
	local  func(layer int) bool // whether a layer has it; nil is all

	// Positions are rotary, or learned if the layout has a table of them, or biases
	// of attention.

	Ropes          []nn.RopeConfig // a second one is for the local layers
	Rotations      []nn.Rope       // made from Ropes
	PositionOffset int             // rows of the table before the first position
	KeyBias        KeyBias         // nil is none

	Layout Layout // of the file that the configuration is of
}

// Norm is the form of the norms of a decoder.
type Norm uint8

// The forms of norms.
const (
	RMSNorm        Norm = iota
	RMSNormLessOne      // its weight is stored less one
	LayerNorm
	PlainLayerNorm // without weight and bias
)

// KeyBias writes what a head adds to its scores of the keys at positions 0, 1, ….
type KeyBias func(bias []float32, head int)

// Experts describes the mixtures in the place of MLPs, if Count is not 0.
type Experts struct {
	Count        int                  // of a layer; 0 is none
	Used         int                  // for each token
	Intermediate int                  // channels inside each
	Normalise    bool                 // the weights of those used add up to 1
	sparse       func(layer int) bool // whether a layer has them; nil is all
}

// MaxContext is the most positions that a model, and a sequence of tokens, may have.
const MaxContext = 1 << 26

// Further limits of a configuration. They are far above any real model and keep every
// product of two of them, in bytes, far inside an int64.
const (
	maxConfigFile = 1 << 20 // bytes
	maxVocab      = 1 << 24
	maxWidth      = 1 << 20
	maxLayers     = 1 << 12
	maxExperts    = 1 << 12
	maxParts      = 1 << 17 // experts, or heads with norms of their own, in all layers
	minCap        = 1e-3    // of scores and logits
	maxCap        = 1e6
)

// validate lists every rule that a decoder's configuration must meet.
func (c *Config) validate() error {
	for _, f := range []struct {
		name  string
		value int
		limit int
	}{
		{"vocabulary size", c.Vocab, maxVocab},
		{"context length", c.Context, MaxContext},
		{"hidden size", c.Hidden, maxWidth},
		{"number of layers", c.Layers, maxLayers},
		{"number of heads", c.Heads, maxWidth},
		{"number of key-value heads", c.KVHeads, maxWidth},
		{"head dimension", c.HeadDim, maxWidth},
		{"intermediate size", c.Intermediate, maxWidth},
	} {
		if f.value < 1 || f.value > f.limit {
			return fmt.Errorf("%s is missing or out of range: %d, want 1 to %d: %w", f.name, f.value, f.limit, ErrConfig)
		}
	}
	if c.Heads*c.HeadDim > maxWidth {
		return fmt.Errorf("%d heads of dimension %d: %w", c.Heads, c.HeadDim, ErrConfig)
	}
	if c.Heads%c.KVHeads != 0 {
		return fmt.Errorf("%d heads do not divide among %d key-value heads: %w", c.Heads, c.KVHeads, ErrConfig)
	}
	if x := c.Experts; x.Count != 0 && (x.Count < 0 || x.Count > maxExperts || x.Used < 1 || x.Used > x.Count || x.Intermediate < 1 || x.Intermediate > maxWidth) {
		return fmt.Errorf("%d used of %d experts of size %d, want some of at most %d experts: %w", x.Used, x.Count, x.Intermediate, maxExperts, ErrConfig)
	}
	if c.Layers*c.Experts.Count > maxParts || c.HeadNorms && c.Layers*c.Heads > maxParts {
		return fmt.Errorf("%d layers of %d experts or %d heads, each with tensors of its own: want at most %d: %w", c.Layers, c.Experts.Count, c.Heads, maxParts, ErrConfig)
	}
	if c.EmbedWidth < 1 || c.EmbedWidth > maxWidth {
		return fmt.Errorf("width of the embedding %d, want 1 to %d: %w", c.EmbedWidth, maxWidth, ErrConfig)
	}
	for _, limit := range []float64{c.ScoreCap, c.LogitCap} {
		if limit != 0 && !(limit >= minCap && limit <= maxCap) {
			return fmt.Errorf("soft cap %v, want %v to %v: %w", limit, minCap, maxCap, ErrConfig)
		}
	}
	if !(c.Eps >= 0 && c.Eps < 1) {
		return fmt.Errorf("epsilon of the norms %v, want 0 to 1: %w", c.Eps, ErrConfig)
	}
	if c.window < 0 {
		return fmt.Errorf("sliding window %d: %w", c.window, ErrConfig)
	}
	return nil
}

// Sparse reports whether layer i, from 0, has experts.
func (c *Config) Sparse(i int) bool {
	return c.Experts.Count > 0 && (c.Experts.sparse == nil || c.Experts.sparse(i))
}

// WindowOf returns the sliding window of layer i, 0 for none.
func (c *Config) WindowOf(i int) int {
	if c.local != nil && !c.local(i) {
		return 0
	}
	return c.window
}

// CommonWindow returns the largest window of the layers, or 0 if one sees everything.
func (c *Config) CommonWindow() int {
	most := 0
	for i := range c.Layers {
		w := c.WindowOf(i)
		if w == 0 {
			return 0
		}
		most = max(most, w)
	}
	return most
}

// RopeOf returns which of Rotations layer i uses.
func (c *Config) RopeOf(i int) int {
	if len(c.Ropes) > 1 && c.local != nil && c.local(i) {
		return 1
	}
	return 0
}

// AttentionScale returns the factor of the scores of attention in layer i.
func (c *Config) AttentionScale(i int) float32 {
	scale := c.scale
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(c.HeadDim))
	}
	if c.scaleByLayer {
		scale /= float64(i + 1)
	}
	return float32(scale)
}

// Inner returns the channels inside the widest MLP.
func (c *Config) Inner() int { return max(c.Intermediate, c.Experts.Intermediate) }

// common is what every configuration carries.
type common struct {
	Architectures []string `json:"architectures"`
	ModelType     string   `json:"model_type"`
	BOS           tokenIDs `json:"bos_token_id"`
	EOS           tokenIDs `json:"eos_token_id"`
}

// tokenIDs is null, one id, or a list of ids.
type tokenIDs []int

// UnmarshalJSON implements json.Unmarshaler.
func (t *tokenIDs) UnmarshalJSON(data []byte) error {
	var one *int
	if json.Unmarshal(data, &one) == nil {
		*t = nil
		if one != nil {
			*t = tokenIDs{*one}
		}
		return nil
	}
	return json.Unmarshal(data, (*[]int)(t))
}

// ReadConfig reads config.json, and generation_config.json for the ids that end a
// text, which it knows better where it exists. The error wraps ErrUnsupported for an
// unknown architecture and ErrConfig for an unusable file.
func ReadConfig(fsys fs.FS) (Config, error) {
	raw, err := readSmall(fsys, "config.json")
	if err != nil {
		return Config{}, fmt.Errorf("lm: %w", err)
	}
	var shared common
	if err := json.Unmarshal(raw, &shared); err != nil {
		return Config{}, fmt.Errorf("lm: config.json: %v: %w", err, ErrConfig)
	}
	name, arch, err := choose(shared.Architectures, shared.ModelType)
	if err != nil {
		return Config{}, err
	}
	c, err := arch.config(raw)
	if err != nil {
		return Config{}, fmt.Errorf("lm: config.json: %w", err)
	}
	c.Architecture, c.BOS, c.EOS = name, shared.BOS, shared.EOS
	if err := c.complete(); err != nil {
		return Config{}, fmt.Errorf("lm: config.json: %w", err)
	}
	return c, c.readGeneration(fsys)
}

// complete checks what a family has made of its file and makes the rotations.
func (c *Config) complete() error {
	if c.EmbedWidth == 0 {
		c.EmbedWidth = c.Hidden
	}
	if err := c.validate(); err != nil {
		return err
	}
	for _, r := range c.Ropes {
		rope, err := nn.NewRope(r)
		if err != nil {
			return fmt.Errorf("%w: %w", err, ErrConfig)
		}
		c.Rotations = append(c.Rotations, rope)
	}
	return nil
}

func (c *Config) readGeneration(fsys fs.FS) error {
	raw, err := readSmall(fsys, "generation_config.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lm: %w", err)
	}
	var generation common
	if err := json.Unmarshal(raw, &generation); err != nil {
		return fmt.Errorf("lm: generation_config.json: %v: %w", err, ErrConfig)
	}
	if generation.EOS != nil {
		c.EOS = generation.EOS
	}
	if generation.BOS != nil {
		c.BOS = generation.BOS
	}
	return nil
}

// readSmall reads a file that must not be large.
func readSmall(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxConfigFile {
		return nil, fmt.Errorf("%s: %d bytes, limit %d: %w", name, info.Size(), maxConfigFile, ErrConfig)
	}
	return fs.ReadFile(fsys, name)
}

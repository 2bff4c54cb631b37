package lm

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
	Vocab        int
	Context      int // positions the model was made for
	Hidden       int
	Layers       int
	Heads        int // of queries
	KVHeads      int // of keys and values; divides Heads
	HeadDim      int
	Intermediate int  // inside the MLP
	Tied         bool // the output matrix is the embedding
	BOS          []int
	EOS          []int // any of these ends a text

	eps        float64 // of the norms
	activation tensor.Activation

	// What follows says where a decoder is not a plain Llama: the zero value of each
	// field is what Llama does.

	norm     normKind
	parallel bool // attention and MLP both read what enters the block
	experts  experts

	attentionBias bool // of query, key and value
	outputBias    bool // of the attention's output
	mlpBias       bool
	headBias      bool // of the output matrix

	embedWidth int     // of the token embedding, if not Hidden
	embedScale float64 // factor of the embedding; 0 is 1
	logitCap   float64 // logits are capped to ±logitCap; 0 is not at all

	scale        float64 // factor of the scores of attention; 0 is 1/√HeadDim
	scaleByLayer bool    // and divided by the layer's number, from 1
	scoreCap     float64 // scores are capped to ±scoreCap; 0 is not at all
	headNorms    bool    // each head has its own norms of query and key

	window int                  // sliding window, 0 is none
	local  func(layer int) bool // whether a layer has it; nil is all

	// Positions are rotary, or learned if the layout has a table of them, or biases
	// of attention.
	ropes          []nn.RopeConfig // a second one is for the local layers
	rotations      []nn.Rope       // made from ropes
	positionOffset int             // rows of the table before the first position
	keyBias        keyBias         // nil is none

	layout layout
}

// normKind is the form of all norms of a decoder.
type normKind uint8

const (
	rmsNorm        normKind = iota
	rmsNormLessOne          // its weight is stored less one
	layerNorm
	plainLayerNorm // without weight and bias
)

// keyBias writes what a head adds to its scores of the keys at positions 0, 1, ….
type keyBias func(bias []float32, head int)

// experts describes the mixtures in the place of MLPs, if count is not 0.
type experts struct {
	count        int
	used         int // for each token
	intermediate int
	normalise    bool                 // the weights of those used add up to 1
	sparse       func(layer int) bool // whether a layer has them; nil is all
}

// Limits of a configuration. They are far above any real model and keep every
// product of two of them, in bytes, far inside an int64.
const (
	maxConfigFile = 1 << 20 // bytes
	maxVocab      = 1 << 24
	maxContext    = 1 << 26
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
		{"context length", c.Context, maxContext},
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
	if x := c.experts; x.count != 0 && (x.count < 0 || x.count > maxExperts || x.used < 1 || x.used > x.count || x.intermediate < 1 || x.intermediate > maxWidth) {
		return fmt.Errorf("%d used of %d experts of size %d, want some of at most %d experts: %w", x.used, x.count, x.intermediate, maxExperts, ErrConfig)
	}
	if c.Layers*c.experts.count > maxParts || c.headNorms && c.Layers*c.Heads > maxParts {
		return fmt.Errorf("%d layers of %d experts or %d heads, each with tensors of its own: want at most %d: %w", c.Layers, c.experts.count, c.Heads, maxParts, ErrConfig)
	}
	if c.embedWidth < 1 || c.embedWidth > maxWidth {
		return fmt.Errorf("width of the embedding %d, want 1 to %d: %w", c.embedWidth, maxWidth, ErrConfig)
	}
	for _, limit := range []float64{c.scoreCap, c.logitCap} {
		if limit != 0 && !(limit >= minCap && limit <= maxCap) {
			return fmt.Errorf("soft cap %v, want %v to %v: %w", limit, minCap, maxCap, ErrConfig)
		}
	}
	if !(c.eps >= 0 && c.eps < 1) {
		return fmt.Errorf("epsilon of the norms %v, want 0 to 1: %w", c.eps, ErrConfig)
	}
	if c.window < 0 {
		return fmt.Errorf("sliding window %d: %w", c.window, ErrConfig)
	}
	return nil
}

// sparse reports whether layer i has experts.
func (c *Config) sparse(i int) bool {
	return c.experts.count > 0 && (c.experts.sparse == nil || c.experts.sparse(i))
}

// windowOf returns the sliding window of layer i, 0 for none.
func (c *Config) windowOf(i int) int {
	if c.local != nil && !c.local(i) {
		return 0
	}
	return c.window
}

// ropeOf returns which of the rotations layer i uses.
func (c *Config) ropeOf(i int) int {
	if len(c.ropes) > 1 && c.local != nil && c.local(i) {
		return 1
	}
	return 0
}

// attentionScale returns the factor of the scores in layer i.
func (c *Config) attentionScale(i int) float32 {
	scale := c.scale
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(c.HeadDim))
	}
	if c.scaleByLayer {
		scale /= float64(i + 1)
	}
	return float32(scale)
}

// inner returns the channels inside the widest MLP.
func (c *Config) inner() int { return max(c.Intermediate, c.experts.intermediate) }

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

// readConfig reads config.json, and generation_config.json for the ids that end a
// text, which it knows better where it exists.
func readConfig(fsys fs.FS) (Config, error) {
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
	if c.embedWidth == 0 {
		c.embedWidth = c.Hidden
	}
	if err := c.validate(); err != nil {
		return err
	}
	for _, r := range c.ropes {
		rope, err := nn.NewRope(r)
		if err != nil {
			return fmt.Errorf("%w: %w", err, ErrConfig)
		}
		c.rotations = append(c.rotations, rope)
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

package lm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

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

	eps           float64
	activation    tensor.Activation
	gated         bool // the MLP multiplies two projections
	attentionBias bool // of query, key and value
	outputBias    bool // of the attention's output
	mlpBias       bool
	scale         attentionScale
	ropeConfig    *nn.RopeConfig // nil: positions are learned
	rope          nn.Rope        // made from ropeConfig
	window        int            // sliding window, 0 is none
	windowFrom    int            // first layer that has it
}

// attentionScale says by what the scores of attention are multiplied.
type attentionScale struct {
	plain   bool // 1 instead of 1/√HeadDim
	byLayer bool // and divided by the layer's number, from 1
}

// Limits of a configuration. They are far above any real model and keep every
// product of two of them, in bytes, far inside an int64.
const (
	maxConfigFile = 1 << 20 // bytes
	maxVocab      = 1 << 24
	maxContext    = 1 << 26
	maxWidth      = 1 << 20
	maxLayers     = 1 << 12
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
	if !(c.eps >= 0 && c.eps < 1) {
		return fmt.Errorf("epsilon of the norms %v, want 0 to 1: %w", c.eps, ErrConfig)
	}
	if c.window < 0 {
		return fmt.Errorf("sliding window %d: %w", c.window, ErrConfig)
	}
	return nil
}

// headDim returns the dimension of a head where a configuration does not give it.
func headDim(hidden, heads int) (int, error) {
	if heads < 1 || hidden < 1 || hidden%heads != 0 {
		return 0, fmt.Errorf("hidden size %d does not divide among %d heads: %w", hidden, heads, ErrConfig)
	}
	return hidden / heads, nil
}

func parseActivation(name string) (tensor.Activation, error) {
	f, ok := tensor.ParseActivation(name)
	if !ok {
		return 0, fmt.Errorf("activation %q is not supported: %w", name, ErrConfig)
	}
	return f, nil
}

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
func readConfig(fsys fs.FS) (architecture, Config, error) {
	raw, err := readSmall(fsys, "config.json")
	if err != nil {
		return architecture{}, Config{}, fmt.Errorf("lm: %w", err)
	}
	var shared common
	if err := json.Unmarshal(raw, &shared); err != nil {
		return architecture{}, Config{}, fmt.Errorf("lm: config.json: %v: %w", err, ErrConfig)
	}
	name, arch, err := choose(shared.Architectures, shared.ModelType)
	if err != nil {
		return arch, Config{}, err
	}
	c, err := arch.config(raw)
	if err != nil {
		return arch, c, fmt.Errorf("lm: config.json: %w", err)
	}
	c.Architecture, c.BOS, c.EOS = name, shared.BOS, shared.EOS
	if err := c.validate(); err != nil {
		return arch, c, fmt.Errorf("lm: config.json: %w", err)
	}
	if c.ropeConfig != nil {
		if c.rope, err = nn.NewRope(*c.ropeConfig); err != nil {
			return arch, c, fmt.Errorf("lm: config.json: %w: %w", err, ErrConfig)
		}
	}
	return arch, c, c.readGeneration(fsys)
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

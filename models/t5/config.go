package t5

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"helicon/models/tensor"
)

// Errors that callers tell apart.
var (
	// ErrConfig is wrapped by every error about a configuration that has no meaning.
	ErrConfig = errors.New("malformed configuration")
	// ErrUnsupported is wrapped by every error about a configuration that asks for
	// something that the package does not compute.
	ErrUnsupported = errors.New("not supported")
	// ErrInput is wrapped by every error about tokens that a network cannot read.
	ErrInput = errors.New("unsuitable input")
)

// Config describes an encoder, in the words of its config.json.
type Config struct {
	Vocab       int     `json:"vocab_size"`
	Width       int     `json:"d_model"` // C
	HeadDim     int     `json:"d_kv"`
	Inner       int     `json:"d_ff"`
	Layers      int     `json:"num_layers"`
	Heads       int     `json:"num_heads"`
	Buckets     int     `json:"relative_attention_num_buckets"`
	MaxDistance int     `json:"relative_attention_max_distance"` // of tokens, beyond which all share a bucket
	Eps         float64 `json:"layer_norm_epsilon"`
	FeedForward string  `json:"feed_forward_proj"` // an activation, "gated-" before it or not
}

// ParseConfig reads the config.json of a T5 model. Errors wrap ErrConfig or
// ErrUnsupported.
func ParseConfig(data []byte) (Config, error) {
	c := Config{
		Vocab: 32128, Width: 512, HeadDim: 64, Inner: 2048, Layers: 6, Heads: 8,
		Buckets: 32, MaxDistance: 128, Eps: 1e-6, FeedForward: "relu",
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("t5: config: %v: %w", err, ErrConfig)
	}
	return c, c.validate()
}

// feedForward returns the activation between the matrices of the feed-forward half, and
// whether it is gated. "gated-gelu" is T5 1.1's, which means the approximation by tanh.
func (c *Config) feedForward() (f tensor.Activation, gated, ok bool) {
	name, gated := strings.CutPrefix(c.FeedForward, "gated-")
	if gated && name == "gelu" {
		name = "gelu_new"
	}
	f, ok = tensor.ParseActivation(name)
	return f, gated, ok
}

// Limits of a configuration. They are far above any real model and keep every product
// of sizes far inside an int64.
const (
	maxVocab    = 1 << 24
	maxWidth    = 1 << 18
	maxLayers   = 1 << 10
	maxBuckets  = 1 << 16
	maxDistance = 1 << 24
	maxTokens   = 1 << 14 // of a text: its biases of attention are quadratic
)

// validate lists every rule that a configuration must meet.
func (c *Config) validate() error {
	for _, f := range []struct {
		name         string
		value, limit int
	}{
		{"vocab_size", c.Vocab, maxVocab}, {"d_model", c.Width, maxWidth}, {"d_kv", c.HeadDim, maxWidth},
		{"d_ff", c.Inner, maxWidth}, {"num_layers", c.Layers, maxLayers}, {"num_heads", c.Heads, maxWidth},
		{"relative_attention_num_buckets", c.Buckets, maxBuckets},
		{"relative_attention_max_distance", c.MaxDistance, maxDistance},
	} {
		if f.value < 1 || f.value > f.limit {
			return fmt.Errorf("t5: config: %s is %d, want 1 to %d: %w", f.name, f.value, f.limit, ErrConfig)
		}
	}
	if c.Heads*c.HeadDim > maxWidth {
		return fmt.Errorf("t5: config: %d heads of %d: %w", c.Heads, c.HeadDim, ErrConfig)
	}
	if c.Buckets%4 != 0 || c.MaxDistance <= c.Buckets/4 {
		return fmt.Errorf("t5: config: %d buckets up to a distance of %d, want a multiple of 4 and a distance above a quarter of it: %w", c.Buckets, c.MaxDistance, ErrConfig)
	}
	if !(c.Eps >= 0 && c.Eps < 1) {
		return fmt.Errorf("t5: config: layer_norm_epsilon %v, want 0 to 1: %w", c.Eps, ErrConfig)
	}
	if _, _, ok := c.feedForward(); !ok {
		return fmt.Errorf("t5: config: feed_forward_proj %q: %w", c.FeedForward, ErrUnsupported)
	}
	return nil
}

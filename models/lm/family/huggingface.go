package family

import (
	"encoding/json"
	"fmt"

	"helicon/models/nn"
	"helicon/models/tensor"
)

// baseJSON is what the config.json of most families has in common. A family sets its
// defaults, decodes its own file over them, and takes the configuration from config.
type baseJSON struct {
	Vocab        int     `json:"vocab_size"`
	Context      int     `json:"max_position_embeddings"`
	Hidden       int     `json:"hidden_size"`
	Layers       int     `json:"num_hidden_layers"`
	Heads        int     `json:"num_attention_heads"`
	KVHeads      int     `json:"num_key_value_heads"` // default Heads
	HeadDim      int     `json:"head_dim"`            // default Hidden/Heads
	Intermediate int     `json:"intermediate_size"`
	Activation   string  `json:"hidden_act"`
	RMSEps       float64 `json:"rms_norm_eps"`
	LayerEps     float64 `json:"layer_norm_eps"`
	Tied         bool    `json:"tie_word_embeddings"`

	Window     *int     `json:"sliding_window"` // null is none
	LayerTypes []string `json:"layer_types"`    // newer: which layers have the window

	Theta      float64         `json:"rope_theta"`
	Rotated    float64         `json:"partial_rotary_factor"` // share of a head that turns
	Scaling    *nn.RopeScaling `json:"rope_scaling"`
	Parameters *nn.RopeScaling `json:"rope_parameters"` // newer form of the three
}

// decode reads raw over the defaults in j.
func decode(raw []byte, j any) error {
	if err := json.Unmarshal(raw, j); err != nil {
		return fmt.Errorf("%v: %w", err, ErrConfig)
	}
	return nil
}

// config returns a decoder like Llama of these sizes, without rotary positions.
func (j *baseJSON) config() (c Config, err error) {
	c = Config{
		Vocab: j.Vocab, Context: j.Context, Hidden: j.Hidden, Layers: j.Layers,
		Heads: j.Heads, KVHeads: j.KVHeads, HeadDim: j.HeadDim, Intermediate: j.Intermediate,
		Tied: j.Tied, Eps: j.RMSEps, Layout: llamaLayout(),
	}
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	if c.HeadDim == 0 {
		if c.HeadDim, err = headDim(c.Hidden, c.Heads); err != nil {
			return c, err
		}
	}
	c.Activation, err = parseActivation(j.Activation)
	return c, err
}

// rotary is config with rotary positions.
func (j *baseJSON) rotary() (Config, error) {
	c, err := j.config()
	if err != nil {
		return c, err
	}
	rope, err := j.rope(c.HeadDim)
	c.Ropes = []nn.RopeConfig{rope}
	return c, err
}

// rope returns how heads of the given dimension turn.
func (j *baseJSON) rope(headDim int) (nn.RopeConfig, error) {
	r := nn.RopeConfig{Dim: headDim, Theta: j.Theta, Context: j.Context, Scaling: j.Scaling}
	rotated := j.Rotated
	if p := j.Parameters; p != nil {
		r.Scaling = p
		if p.Theta != 0 {
			r.Theta = p.Theta
		}
		if p.Rotated != 0 {
			rotated = p.Rotated
		}
	}
	if !(rotated > 0 && rotated <= 1) {
		return r, fmt.Errorf("partial_rotary_factor %v, want 0 to 1: %w", rotated, ErrConfig)
	}
	r.Dim = int(float64(headDim) * rotated)
	return r, nil
}

// setWindow gives c the sliding window in the layers that local says, nil being all,
// or that the configuration lists.
func (j *baseJSON) setWindow(c *Config, local func(layer int) bool) error {
	if j.Window == nil {
		return nil
	}
	c.window, c.local = *j.Window, local
	if j.LayerTypes == nil {
		return nil
	}
	if len(j.LayerTypes) != j.Layers {
		return fmt.Errorf("layer_types lists %d of %d layers: %w", len(j.LayerTypes), j.Layers, ErrConfig)
	}
	for _, kind := range j.LayerTypes {
		if kind != "sliding_attention" && kind != "full_attention" {
			return fmt.Errorf("layer_types: %q is not supported (full_attention, sliding_attention): %w", kind, ErrConfig)
		}
	}
	c.local = func(layer int) bool { return j.LayerTypes[layer] == "sliding_attention" }
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

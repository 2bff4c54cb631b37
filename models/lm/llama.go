package lm

import (
	"encoding/json"
	"fmt"
	"strconv"

	"helicon/models/nn"
	"helicon/models/weights"
)

// llamaJSON is the config.json of Llama and of the families that share its form.
type llamaJSON struct {
	Vocab        int             `json:"vocab_size"`
	Context      int             `json:"max_position_embeddings"`
	Hidden       int             `json:"hidden_size"`
	Layers       int             `json:"num_hidden_layers"`
	Heads        int             `json:"num_attention_heads"`
	KVHeads      int             `json:"num_key_value_heads"` // default Heads
	HeadDim      int             `json:"head_dim"`            // default Hidden/Heads
	Intermediate int             `json:"intermediate_size"`
	Activation   string          `json:"hidden_act"`
	Eps          float64         `json:"rms_norm_eps"`
	Theta        float64         `json:"rope_theta"`
	Scaling      *nn.RopeScaling `json:"rope_scaling"`
	Rope         *nn.RopeScaling `json:"rope_parameters"` // newer form of both
	Tied         bool            `json:"tie_word_embeddings"`

	AttentionBias bool `json:"attention_bias"` // Llama
	MLPBias       bool `json:"mlp_bias"`       // Llama

	Window     *int `json:"sliding_window"`     // Mistral, Qwen2; null is none
	UseWindow  bool `json:"use_sliding_window"` // Qwen2
	WindowFrom int  `json:"max_window_layers"`  // Qwen2: layers below see everything
}

// parseLlama decodes raw over the defaults of the reference.
func parseLlama(raw []byte, defaults llamaJSON) (llamaJSON, Config, error) {
	j := defaults
	j.Activation, j.Eps, j.Theta = "silu", 1e-6, 10000
	if err := json.Unmarshal(raw, &j); err != nil {
		return j, Config{}, fmt.Errorf("%v: %w", err, ErrConfig)
	}
	c := Config{
		Vocab: j.Vocab, Context: j.Context, Hidden: j.Hidden, Layers: j.Layers,
		Heads: j.Heads, KVHeads: j.KVHeads, HeadDim: j.HeadDim, Intermediate: j.Intermediate,
		Tied: j.Tied, eps: j.Eps, gated: true,
	}
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	var err error
	if c.HeadDim == 0 {
		if c.HeadDim, err = headDim(c.Hidden, c.Heads); err != nil {
			return j, c, err
		}
	}
	if c.activation, err = parseActivation(j.Activation); err != nil {
		return j, c, err
	}
	c.ropeConfig = &nn.RopeConfig{Dim: c.HeadDim, Theta: j.Theta, Context: c.Context, Scaling: j.Scaling}
	if j.Rope != nil {
		c.ropeConfig.Scaling = j.Rope
		if j.Rope.Theta != 0 {
			c.ropeConfig.Theta = j.Rope.Theta
		}
	}
	return j, c, nil
}

// llamaConfig is Llama 1 to 3 (Touvron et al. 2023; Grattafiori et al. 2024).
func llamaConfig(raw []byte) (Config, error) {
	j, c, err := parseLlama(raw, llamaJSON{})
	c.attentionBias, c.outputBias, c.mlpBias = j.AttentionBias, j.AttentionBias, j.MLPBias
	return c, err
}

// mistralConfig is Mistral 7B (Jiang et al. 2023): Llama with a sliding window.
func mistralConfig(raw []byte) (Config, error) {
	j, c, err := parseLlama(raw, llamaJSON{Window: defaultWindow()})
	c.setWindow(j.Window, 0)
	return c, err
}

// qwen2Config is Qwen2 and 2.5 (Yang et al. 2024): Llama with biases on query, key
// and value, and a sliding window in the upper layers if one is wanted.
func qwen2Config(raw []byte) (Config, error) {
	j, c, err := parseLlama(raw, llamaJSON{Window: defaultWindow(), WindowFrom: 28})
	c.attentionBias = true
	if j.UseWindow {
		c.setWindow(j.Window, j.WindowFrom)
	}
	return c, err
}

// defaultWindow is what the reference takes where a configuration has no word about
// the window; null is a word.
func defaultWindow() *int { return new(4096) }

func (c *Config) setWindow(size *int, from int) {
	if size != nil {
		c.window, c.windowFrom = *size, from
	}
}

func loadLlama(s *weights.Store, c Config) (n network, err error) {
	model := s.Sub("model")
	if n.embed, err = nn.LoadEmbedding(model.Sub("embed_tokens"), c.Vocab, c.Hidden); err != nil {
		return n, err
	}
	for i := range c.Layers {
		l, err := loadLlamaLayer(model.Sub("layers").Sub(strconv.Itoa(i)), c)
		if err != nil {
			return n, err
		}
		l.window = c.windowOf(i)
		n.layers = append(n.layers, l)
	}
	if n.norm, err = nn.LoadRMSNorm(model.Sub("norm"), c.Hidden, float32(c.eps)); err != nil {
		return n, err
	}
	if c.Tied {
		n.head = nn.Linear{Weight: n.embed.Weight}
		return n, nil
	}
	n.head, err = nn.LoadLinear(s.Sub("lm_head"), c.Vocab, c.Hidden, false)
	return n, err
}

func loadLlamaLayer(s *weights.Store, c Config) (l layer, err error) {
	attention, mlp := s.Sub("self_attn"), s.Sub("mlp")
	l.activation, l.gated, l.scale = c.activation, c.gated, c.attentionScale(0)
	if l.attentionNorm, err = nn.LoadRMSNorm(s.Sub("input_layernorm"), c.Hidden, float32(c.eps)); err != nil {
		return l, err
	}
	if l.mlpNorm, err = nn.LoadRMSNorm(s.Sub("post_attention_layernorm"), c.Hidden, float32(c.eps)); err != nil {
		return l, err
	}
	for _, part := range []struct {
		to      *nn.Linear
		store   *weights.Store
		out, in int
		bias    bool
	}{
		{&l.q, attention.Sub("q_proj"), c.Heads * c.HeadDim, c.Hidden, c.attentionBias},
		{&l.k, attention.Sub("k_proj"), c.KVHeads * c.HeadDim, c.Hidden, c.attentionBias},
		{&l.v, attention.Sub("v_proj"), c.KVHeads * c.HeadDim, c.Hidden, c.attentionBias},
		{&l.o, attention.Sub("o_proj"), c.Hidden, c.Heads * c.HeadDim, c.outputBias},
		{&l.gate, mlp.Sub("gate_proj"), c.Intermediate, c.Hidden, c.mlpBias},
		{&l.up, mlp.Sub("up_proj"), c.Intermediate, c.Hidden, c.mlpBias},
		{&l.down, mlp.Sub("down_proj"), c.Hidden, c.Intermediate, c.mlpBias},
	} {
		if *part.to, err = nn.LoadLinear(part.store, part.out, part.in, part.bias); err != nil {
			return l, err
		}
	}
	return l, nil
}

package family

import "fmt"

// gpt2JSON is the config.json of GPT-2.
type gpt2JSON struct {
	Vocab        int     `json:"vocab_size"`
	Context      int     `json:"n_positions"`
	Hidden       int     `json:"n_embd"`
	Layers       int     `json:"n_layer"`
	Heads        int     `json:"n_head"`
	Intermediate int     `json:"n_inner"` // default 4·Hidden
	Activation   string  `json:"activation_function"`
	Eps          float64 `json:"layer_norm_epsilon"`
	Tied         bool    `json:"tie_word_embeddings"`
	Scale        bool    `json:"scale_attn_weights"`
	ScaleByLayer bool    `json:"scale_attn_by_inverse_layer_idx"`
	Cross        bool    `json:"add_cross_attention"`
}

// gpt2Layout is where GPT-2 keeps its tensors. The attn.bias buffers of the first
// checkpoints are the causal mask and need no reading.
func gpt2Layout() Layout {
	return Layout{
		Root: "transformer", Embed: "wte", Positions: "wpe", Norm: "ln_f", Head: "lm_head", Blocks: "h",
		Attention: NormLayout{Before: "ln_1"},
		MLP:       NormLayout{Before: "ln_2"},
		QKV:       "attn.c_attn", O: "attn.c_proj", Up: "mlp.c_fc", Down: "mlp.c_proj",
	}
}

// config returns a decoder like GPT-2 of these sizes.
func (j *gpt2JSON) config() (c Config, err error) {
	if j.Cross {
		return c, fmt.Errorf("add_cross_attention: the decoder of an encoder is no language model: %w", ErrConfig)
	}
	c = Config{
		Vocab: j.Vocab, Context: j.Context, Hidden: j.Hidden, Layers: j.Layers,
		Heads: j.Heads, KVHeads: j.Heads, Intermediate: j.Intermediate, Tied: j.Tied,
		Norm: LayerNorm, Eps: j.Eps, AttentionBias: true, OutputBias: true, MLPBias: true,
		scaleByLayer: j.ScaleByLayer, Layout: gpt2Layout(),
	}
	if !j.Scale {
		c.scale = 1
	}
	if c.Intermediate == 0 {
		c.Intermediate = 4 * c.Hidden
	}
	if c.Activation, err = parseActivation(j.Activation); err != nil {
		return c, err
	}
	c.HeadDim, err = headDim(c.Hidden, c.Heads)
	return c, err
}

// gpt2Config is GPT-2 (Radford et al. 2019).
func gpt2Config(raw []byte) (Config, error) {
	j := gpt2JSON{Activation: "gelu_new", Eps: 1e-5, Tied: true, Scale: true}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	c, err := j.config()
	c.Layout.Conv1D = true
	return c, err
}

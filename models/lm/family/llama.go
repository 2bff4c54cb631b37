package family

// llamaLayout is where Llama keeps its tensors, and most families after it.
func llamaLayout() Layout {
	return Layout{
		Root: "model", Embed: "embed_tokens", Norm: "norm", Head: "lm_head", Blocks: "layers",
		Attention: NormLayout{Before: "input_layernorm"},
		MLP:       NormLayout{Before: "post_attention_layernorm"},
		Q:         "self_attn.q_proj", K: "self_attn.k_proj", V: "self_attn.v_proj", O: "self_attn.o_proj",
		Gate: "mlp.gate_proj", Up: "mlp.up_proj", Down: "mlp.down_proj",
	}
}

// llamaDefaults are the defaults of Llama's configuration.
func llamaDefaults() baseJSON {
	return baseJSON{Activation: "silu", RMSEps: 1e-6, Theta: 10000, Rotated: 1}
}

// llamaConfig is Llama 1 to 3 (Touvron et al. 2023; Grattafiori et al. 2024).
func llamaConfig(raw []byte) (Config, error) {
	j := struct {
		baseJSON
		AttentionBias bool `json:"attention_bias"`
		MLPBias       bool `json:"mlp_bias"`
	}{baseJSON: llamaDefaults()}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	c, err := j.rotary()
	c.AttentionBias, c.OutputBias, c.MLPBias = j.AttentionBias, j.AttentionBias, j.MLPBias
	return c, err
}

// mistralConfig is Mistral 7B (Jiang et al. 2023): Llama with a sliding window.
func mistralConfig(raw []byte) (Config, error) {
	j := llamaDefaults()
	j.Window = new(4096)
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	c, err := j.rotary()
	if err != nil {
		return c, err
	}
	return c, j.setWindow(&c, nil)
}

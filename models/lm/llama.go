package lm

// llamaLayout is where Llama keeps its tensors, and most families after it.
func llamaLayout() layout {
	return layout{
		root: "model", embed: "embed_tokens", norm: "norm", head: "lm_head", blocks: "layers",
		attention: normLayout{before: "input_layernorm"},
		mlp:       normLayout{before: "post_attention_layernorm"},
		q:         "self_attn.q_proj", k: "self_attn.k_proj", v: "self_attn.v_proj", o: "self_attn.o_proj",
		gate: "mlp.gate_proj", up: "mlp.up_proj", down: "mlp.down_proj",
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
	c.attentionBias, c.outputBias, c.mlpBias = j.AttentionBias, j.AttentionBias, j.MLPBias
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

package lm

// neoxConfig is GPT-NeoX and Pythia (Black et al. 2022): layer norms, a share of each
// head rotated, and mostly attention and MLP side by side.
func neoxConfig(raw []byte) (Config, error) {
	j := struct {
		baseJSON
		Rotated  float64 `json:"rotary_pct"`
		Theta    float64 `json:"rotary_emb_base"`
		Parallel bool    `json:"use_parallel_residual"`
		Bias     bool    `json:"attention_bias"`
	}{
		baseJSON: baseJSON{Activation: "gelu", LayerEps: 1e-5},
		Rotated:  0.25, Theta: 10000, Parallel: true, Bias: true,
	}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	j.baseJSON.Rotated, j.baseJSON.Theta = j.Rotated, j.Theta
	c, err := j.rotary()
	c.norm, c.eps, c.parallel = layerNorm, j.LayerEps, j.Parallel
	c.attentionBias, c.outputBias, c.mlpBias = j.Bias, j.Bias, true
	c.layout = layout{
		root: "gpt_neox", embed: "embed_in", norm: "final_layer_norm", head: "embed_out", blocks: "layers",
		attention: normLayout{before: "input_layernorm"},
		mlp:       normLayout{before: "post_attention_layernorm"},
		qkv:       "attention.query_key_value", grouped: true, o: "attention.dense",
		up: "mlp.dense_h_to_4h", down: "mlp.dense_4h_to_h",
	}
	return c, err
}

package family

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
	c.Norm, c.Eps, c.Parallel = LayerNorm, j.LayerEps, j.Parallel
	c.AttentionBias, c.OutputBias, c.MLPBias = j.Bias, j.Bias, true
	c.Layout = Layout{
		Root: "gpt_neox", Embed: "embed_in", Norm: "final_layer_norm", Head: "embed_out", Blocks: "layers",
		Attention: NormLayout{Before: "input_layernorm"},
		MLP:       NormLayout{Before: "post_attention_layernorm"},
		QKV:       "attention.query_key_value", Grouped: true, O: "attention.dense",
		Up: "mlp.dense_h_to_4h", Down: "mlp.dense_4h_to_h",
	}
	return c, err
}

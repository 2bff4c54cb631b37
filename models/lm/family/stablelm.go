package family

// stablelmConfig is StableLM 3B and 2 (Bellagente et al. 2024): Llama with layer norms
// and a share of each head rotated, in the larger ones with a norm for each head and
// attention and MLP side by side.
func stablelmConfig(raw []byte) (Config, error) {
	j := struct {
		baseJSON
		Bias      bool `json:"use_qkv_bias"`
		HeadNorms bool `json:"qk_layernorm"`
		Parallel  bool `json:"use_parallel_residual"`
	}{baseJSON: baseJSON{Activation: "silu", LayerEps: 1e-5, Theta: 10000, Rotated: 0.25}}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	c, err := j.rotary()
	c.Norm, c.Eps, c.AttentionBias, c.Parallel = LayerNorm, j.LayerEps, j.Bias, j.Parallel
	if j.Parallel {
		c.Layout.MLP = c.Layout.Attention
	}
	if j.HeadNorms {
		c.HeadNorms = true
		c.Layout.QNorm, c.Layout.KNorm = "self_attn.q_layernorm", "self_attn.k_layernorm"
	}
	return c, err
}

// stablelmWords takes from the tensors what GGUF has no keys for.
func stablelmWords(f *ggufFile, j map[string]any) {
	j["qk_layernorm"] = f.has("blk.0.attn_q_norm.weight")
	j["use_parallel_residual"] = !f.has("blk.0.ffn_norm.weight")
}

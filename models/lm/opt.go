package lm

// optConfig is OPT (Zhang et al. 2022) and Galactica: learned positions that begin at
// the table's third row, and in the 350M model norms after the sums and a narrower
// embedding.
func optConfig(raw []byte) (Config, error) {
	j := struct {
		baseJSON
		Intermediate int    `json:"ffn_dim"`
		Activation   string `json:"activation_function"`
		EmbedWidth   int    `json:"word_embed_proj_dim"` // default Hidden
		NormBefore   bool   `json:"do_layer_norm_before"`
		NoFinalNorm  bool   `json:"_remove_final_layer_norm"`
		Affine       bool   `json:"layer_norm_elementwise_affine"`
		Bias         bool   `json:"enable_bias"`
	}{
		baseJSON:   baseJSON{Context: 2048, Tied: true},
		Activation: "relu", NormBefore: true, Affine: true, Bias: true,
	}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	j.baseJSON.Intermediate, j.baseJSON.Activation = j.Intermediate, j.Activation
	c, err := j.config()
	c.norm, c.eps, c.embedWidth, c.positionOffset = layerNorm, 1e-5, j.EmbedWidth, 2
	if !j.Affine {
		c.norm = plainLayerNorm
	}
	c.attentionBias, c.outputBias, c.mlpBias = j.Bias, j.Bias, j.Bias
	n := &c.layout
	*n = layout{
		root: "model.decoder", embed: "embed_tokens", positions: "embed_positions", head: "lm_head", blocks: "layers",
		attention: normLayout{sum: "self_attn_layer_norm"},
		mlp:       normLayout{sum: "final_layer_norm"},
		q:         "self_attn.q_proj", k: "self_attn.k_proj", v: "self_attn.v_proj", o: "self_attn.out_proj",
		up: "fc1", down: "fc2",
	}
	if j.NormBefore {
		n.attention, n.mlp = normLayout{before: "self_attn_layer_norm"}, normLayout{before: "final_layer_norm"}
		if !j.NoFinalNorm {
			n.norm = "final_layer_norm"
		}
	}
	if j.EmbedWidth != 0 && j.EmbedWidth != j.Hidden {
		n.widen, n.narrow = "project_in", "project_out"
	}
	return c, err
}

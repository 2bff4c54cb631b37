package family

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
	c.Norm, c.Eps, c.EmbedWidth, c.PositionOffset = LayerNorm, 1e-5, j.EmbedWidth, 2
	if !j.Affine {
		c.Norm = PlainLayerNorm
	}
	c.AttentionBias, c.OutputBias, c.MLPBias = j.Bias, j.Bias, j.Bias
	n := &c.Layout
	*n = Layout{
		Root: "model.decoder", Embed: "embed_tokens", Positions: "embed_positions", Head: "lm_head", Blocks: "layers",
		Attention: NormLayout{Sum: "self_attn_layer_norm"},
		MLP:       NormLayout{Sum: "final_layer_norm"},
		Q:         "self_attn.q_proj", K: "self_attn.k_proj", V: "self_attn.v_proj", O: "self_attn.out_proj",
		Up: "fc1", Down: "fc2",
	}
	if j.NormBefore {
		n.Attention, n.MLP = NormLayout{Before: "self_attn_layer_norm"}, NormLayout{Before: "final_layer_norm"}
		if !j.NoFinalNorm {
			n.Norm = "final_layer_norm"
		}
	}
	if j.EmbedWidth != 0 && j.EmbedWidth != j.Hidden {
		n.Widen, n.Narrow = "project_in", "project_out"
	}
	return c, err
}

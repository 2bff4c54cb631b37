package family

// mixtralConfig is Mixtral 8x7B (Jiang et al. 2024): Mistral with a mixture of experts
// in the place of each MLP.
func mixtralConfig(raw []byte) (Config, error) {
	j := struct {
		baseJSON
		Experts int `json:"num_local_experts"`
		Used    int `json:"num_experts_per_tok"`
	}{baseJSON: llamaDefaults(), Experts: 8, Used: 2}
	j.RMSEps, j.Theta = 1e-5, 1e6
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	c, err := j.rotary()
	if err != nil {
		return c, err
	}
	c.Experts = Experts{Count: j.Experts, Used: j.Used, Intermediate: j.Intermediate, Normalise: true}
	c.Layout.Router, c.Layout.Experts = "block_sparse_moe.gate", "block_sparse_moe.experts"
	c.Layout.Expert = MLPLayout{Gate: "w1", Up: "w3", Down: "w2"}
	return c, j.setWindow(&c, nil)
}

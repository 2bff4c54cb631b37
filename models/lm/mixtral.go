package lm

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
	c.experts = experts{count: j.Experts, used: j.Used, intermediate: j.Intermediate, normalise: true}
	c.layout.router, c.layout.experts = "block_sparse_moe.gate", "block_sparse_moe.experts"
	c.layout.expert = mlpLayout{gate: "w1", up: "w3", down: "w2"}
	return c, j.setWindow(&c, nil)
}

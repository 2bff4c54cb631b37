package family

// bigcodeConfig is GPT-BigCode, the form of SantaCoder and StarCoder (Ben Allal et al.
// 2023): GPT-2 with one key and value for all heads.
func bigcodeConfig(raw []byte) (Config, error) {
	j := struct {
		gpt2JSON
		MultiQuery bool `json:"multi_query"`
	}{
		gpt2JSON:   gpt2JSON{Activation: "gelu_pytorch_tanh", Eps: 1e-5, Tied: true, Scale: true},
		MultiQuery: true,
	}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	c, err := j.config()
	c.Layout.Grouped = true
	if j.MultiQuery {
		c.KVHeads = 1
	}
	return c, err
}

// bigcodeWords says whether all heads share a key and a value.
func bigcodeWords(f *ggufFile, j map[string]any) {
	j["multi_query"] = f.int("attention.head_count_kv", 1) == 1
}

package family

import (
	"fmt"

	"helicon/models/nn"
)

// phiConfig is Phi 1 to 2 (Gunasekar et al. 2023): biases everywhere, a share of each
// head rotated, and attention and MLP side by side after one norm.
func phiConfig(raw []byte) (Config, error) {
	j := struct {
		baseJSON
		HeadNorms bool `json:"qk_layernorm"`
	}{baseJSON: baseJSON{Activation: "gelu_new", LayerEps: 1e-5, Theta: 10000, Rotated: 0.5}}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	if j.Tied {
		return Config{}, fmt.Errorf("tie_word_embeddings: the output matrix of Phi has a bias of its own: %w", ErrConfig)
	}
	c, err := j.rotary()
	c.Norm, c.Eps, c.Parallel = LayerNorm, j.LayerEps, true
	c.AttentionBias, c.OutputBias, c.MLPBias, c.HeadBias = true, true, true, true
	n := &c.Layout
	n.Norm, n.O = "final_layernorm", "self_attn.dense"
	n.MLP = n.Attention
	n.Gate, n.Up, n.Down = "", "mlp.fc1", "mlp.fc2"
	if j.HeadNorms {
		n.QNorm, n.KNorm = "self_attn.q_layernorm", "self_attn.k_layernorm"
	}
	return c, err
}

// phi3Config is Phi 3 and 4 (Abdin et al. 2024): Llama with joint matrices, a sliding
// window, and longrope for long contexts.
func phi3Config(raw []byte) (Config, error) {
	j := struct {
		baseJSON
		OriginalContext int `json:"original_max_position_embeddings"`
	}{baseJSON: llamaDefaults(), OriginalContext: 4096}
	j.RMSEps = 1e-5
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	for _, s := range []*nn.RopeScaling{j.Scaling, j.Parameters} {
		if s == nil {
			continue
		}
		if s.Type == "su" || s.Type == "yarn" {
			s.Type = "longrope" // as the first releases called it
		}
		if s.OriginalContext == 0 {
			s.OriginalContext = j.OriginalContext
		}
	}
	c, err := j.rotary()
	if err != nil {
		return c, err
	}
	n := &c.Layout
	n.QKV, n.Q, n.K, n.V = "self_attn.qkv_proj", "", "", ""
	n.GateUp, n.Gate, n.Up = "mlp.gate_up_proj", "", ""
	return c, j.setWindow(&c, nil)
}

package family

import (
	"fmt"
	"slices"
)

// qwenJSON is the config.json of Qwen2 and Qwen3.
type qwenJSON struct {
	baseJSON
	AttentionBias bool `json:"attention_bias"`     // Qwen3
	UseWindow     bool `json:"use_sliding_window"` // sliding_window alone says nothing
	WindowFrom    int  `json:"max_window_layers"`  // layers below see everything
}

func qwenDefaults() qwenJSON {
	j := qwenJSON{baseJSON: llamaDefaults(), WindowFrom: 28}
	j.Window = new(4096)
	return j
}

func (j *qwenJSON) config() (Config, error) {
	c, err := j.rotary()
	if err != nil || !j.UseWindow {
		return c, err
	}
	from := j.WindowFrom
	return c, j.setWindow(&c, func(layer int) bool { return layer >= from })
}

// qwen2Config is Qwen2 and 2.5 (Yang et al. 2024): Llama with biases on query, key
// and value, and a sliding window in the upper layers if one is wanted.
func qwen2Config(raw []byte) (Config, error) {
	j := qwenDefaults()
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	c, err := j.config()
	c.AttentionBias = true
	return c, err
}

// qwen3Config is Qwen3 (Yang et al. 2025): Qwen2 with norms on the heads of query and
// key in the place of the biases.
func qwen3Config(raw []byte) (Config, error) {
	j := qwenDefaults()
	j.HeadDim = 128
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	return j.qwen3()
}

func (j *qwenJSON) qwen3() (Config, error) {
	c, err := j.config()
	c.AttentionBias, c.OutputBias = j.AttentionBias, j.AttentionBias
	c.Layout.QNorm, c.Layout.KNorm = "self_attn.q_norm", "self_attn.k_norm"
	return c, err
}

// qwen3MoEConfig is Qwen3 with a mixture of experts in most layers.
func qwen3MoEConfig(raw []byte) (Config, error) {
	j := struct {
		qwenJSON
		Experts      int   `json:"num_experts"`
		Used         int   `json:"num_experts_per_tok"`
		Intermediate int   `json:"moe_intermediate_size"`
		Normalise    bool  `json:"norm_topk_prob"`
		Step         int   `json:"decoder_sparse_step"` // every so many layers have experts
		Dense        []int `json:"mlp_only_layers"`     // and these have none
	}{qwenJSON: qwenDefaults(), Experts: 128, Used: 8, Intermediate: 768, Step: 1}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	c, err := j.qwen3()
	if err != nil {
		return c, err
	}
	if j.Step < 1 {
		return c, fmt.Errorf("decoder_sparse_step %d, want at least 1: %w", j.Step, ErrConfig)
	}
	c.Experts = Experts{
		Count: j.Experts, Used: j.Used, Intermediate: j.Intermediate, Normalise: j.Normalise,
		sparse: func(layer int) bool { return (layer+1)%j.Step == 0 && !slices.Contains(j.Dense, layer) },
	}
	c.Layout.Router, c.Layout.Experts = "mlp.gate", "mlp.experts"
	c.Layout.Expert = MLPLayout{Gate: "gate_proj", Up: "up_proj", Down: "down_proj"}
	return c, nil
}

// qwen3MoEWords says what all GGUF files of the family have in common.
func qwen3MoEWords(_ *ggufFile, j map[string]any) { j["norm_topk_prob"] = true }

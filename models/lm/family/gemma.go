package family

import (
	"encoding/json"
	"fmt"
	"math"

	"helicon/models/nn"
)

// gemmaJSON is the config.json of Gemma 1 to 3.
type gemmaJSON struct {
	baseJSON
	Activation    string   `json:"hidden_activation"` // hidden_act is not to be believed
	AttentionBias bool     `json:"attention_bias"`
	QueryScalar   float64  `json:"query_pre_attn_scalar"`   // Gemma 2, 3
	ScoreCap      *float64 `json:"attn_logit_softcapping"`  // Gemma 2, 3
	LogitCap      *float64 `json:"final_logit_softcapping"` // Gemma 2, 3
}

func gemmaDefaults() gemmaJSON {
	j := gemmaJSON{baseJSON: llamaDefaults(), Activation: "gelu_pytorch_tanh", QueryScalar: 256}
	j.HeadDim, j.Tied = 256, true
	return j
}

// config returns Gemma 1: Llama with other norms and a scaled embedding.
func (j *gemmaJSON) config() (Config, error) {
	j.baseJSON.Activation = j.Activation
	c, err := j.rotary()
	c.Norm, c.EmbedScale = RMSNormLessOne, math.Sqrt(float64(j.Hidden))
	c.AttentionBias, c.OutputBias = j.AttentionBias, j.AttentionBias
	return c, err
}

// config2 returns what Gemma 2 and 3 share: two more norms in a block, the scale of
// attention as the file says it, and caps.
func (j *gemmaJSON) config2() (Config, error) {
	c, err := j.config()
	if err != nil {
		return c, err
	}
	if !(j.QueryScalar > 0) {
		return c, fmt.Errorf("query_pre_attn_scalar %v, want more than 0: %w", j.QueryScalar, ErrConfig)
	}
	c.scale = 1 / math.Sqrt(j.QueryScalar)
	if j.ScoreCap != nil {
		c.ScoreCap = *j.ScoreCap
	}
	if j.LogitCap != nil {
		c.LogitCap = *j.LogitCap
	}
	c.Layout.Attention = NormLayout{Before: "input_layernorm", After: "post_attention_layernorm"}
	c.Layout.MLP = NormLayout{Before: "pre_feedforward_layernorm", After: "post_feedforward_layernorm"}
	return c, nil
}

// gemmaConfig is Gemma (Mesnard et al. 2024).
func gemmaConfig(raw []byte) (Config, error) {
	j := gemmaDefaults()
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	return j.config()
}

// gemma2Config is Gemma 2 (Riviere et al. 2024): every other layer, from the first on,
// sees a window.
func gemma2Config(raw []byte) (Config, error) {
	j := gemmaDefaults()
	j.Window, j.ScoreCap, j.LogitCap = new(4096), new(50.0), new(30.0)
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	c, err := j.config2()
	if err != nil {
		return c, err
	}
	return c, j.setWindow(&c, func(layer int) bool { return layer%2 == 0 })
}

// gemma3Config is Gemma 3 (Kamath et al. 2025) for text: all layers but every sixth are
// local, with a window and a rope of their own, and heads have norms.
func gemma3Config(raw []byte) (Config, error) {
	j := struct {
		gemmaJSON
		Pattern    int     `json:"sliding_window_pattern"` // every so many layers see everything
		LocalTheta float64 `json:"rope_local_base_freq"`
		Parameters struct {
			Full  *nn.RopeScaling `json:"full_attention"`
			Local *nn.RopeScaling `json:"sliding_attention"`
		} `json:"rope_parameters"`
	}{gemmaJSON: gemmaDefaults(), Pattern: 6, LocalTheta: 10000}
	j.Theta, j.Window = 1e6, new(4096)
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	if j.Pattern < 1 {
		return Config{}, fmt.Errorf("sliding_window_pattern %d, want at least 1: %w", j.Pattern, ErrConfig)
	}
	j.baseJSON.Parameters = j.Parameters.Full
	c, err := j.config2()
	if err != nil {
		return c, err
	}
	local := baseJSON{Context: j.Context, Theta: j.LocalTheta, Rotated: 1, Parameters: j.Parameters.Local}
	rope, err := local.rope(c.HeadDim)
	if err != nil {
		return c, err
	}
	c.Ropes = append(c.Ropes, rope)
	c.Layout.QNorm, c.Layout.KNorm = "self_attn.q_norm", "self_attn.k_norm"
	return c, j.setWindow(&c, func(layer int) bool { return (layer+1)%j.Pattern != 0 })
}

// gemma3TextConfig is the text part of a Gemma 3 that sees, whose configuration is within
// that of the whole.
func gemma3TextConfig(raw []byte) (Config, error) {
	var whole struct {
		Text json.RawMessage `json:"text_config"`
		Tied *bool           `json:"tie_word_embeddings"`
	}
	if err := decode(raw, &whole); err != nil {
		return Config{}, err
	}
	if whole.Text == nil {
		return Config{}, fmt.Errorf("text_config is missing: %w", ErrConfig)
	}
	c, err := gemma3Config(whole.Text)
	if whole.Tied != nil {
		c.Tied = *whole.Tied
	}
	c.Layout.Root, c.Layout.Head = "language_model.model", "language_model.lm_head"
	return c, err
}

// gemmaWords gives the scale of attention, which GGUF has no key for: that of the head's
// dimension, but in the 27B models that of the hidden size.
func gemmaWords(f *ggufFile, j map[string]any) {
	heads, hidden := f.int("attention.head_count", 1), f.int("embedding_length", 0)
	scalar, largest := f.int("attention.key_length", 256), 46
	if f.arch == "gemma3" {
		largest = 62
	}
	if f.int("block_count", 0) == largest && heads > 0 {
		scalar = hidden / heads
	}
	j["query_pre_attn_scalar"] = scalar
}

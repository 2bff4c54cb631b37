package family

import (
	"encoding/json"
	"fmt"
	"math"
)

// falconConfig is Falcon (Almazrouei et al. 2023). Its three forms: one key and value
// for all heads, and attention and MLP side by side after one norm (7B); a key and
// value for each group and two norms side by side (40B, 180B); a plain decoder with
// biases and ALiBi (RW).
func falconConfig(raw []byte) (Config, error) {
	j := struct {
		baseJSON
		bloomNames
		KVHeads      int     `json:"num_kv_heads"` // default Heads
		OldKVHeads   int     `json:"n_head_kv"`
		Intermediate int     `json:"ffn_hidden_size"` // default 4·Hidden
		Activation   string  `json:"activation"`
		Eps          float64 `json:"layer_norm_epsilon"`
		Alibi        bool    `json:"alibi"`
		Bias         bool    `json:"bias"`
		MultiQuery   bool    `json:"multi_query"`
		Parallel     bool    `json:"parallel_attn"`
		Grouped      bool    `json:"new_decoder_architecture"`
		Norms        *int    `json:"num_ln_in_parallel_attn"`
	}{
		baseJSON:   baseJSON{Theta: 10000, Rotated: 1, Context: 2048, Tied: true},
		Activation: "gelu", Eps: 1e-5, MultiQuery: true, Parallel: true,
	}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	if j.Grouped && !j.Parallel {
		return Config{}, fmt.Errorf("new_decoder_architecture without parallel_attn: %w", ErrConfig)
	}
	if j.Norms != nil && *j.Norms != 1 && *j.Norms != 2 {
		return Config{}, fmt.Errorf("num_ln_in_parallel_attn %d, want 1 or 2: %w", *j.Norms, ErrConfig)
	}
	j.bloomNames.apply(&j.baseJSON)
	j.baseJSON.Activation, j.baseJSON.KVHeads, j.HeadDim = j.Activation, j.Heads, 0
	switch {
	case j.Grouped:
		j.baseJSON.KVHeads = max(j.KVHeads, j.OldKVHeads)
	case j.MultiQuery:
		j.baseJSON.KVHeads = 1
	}
	if j.baseJSON.Intermediate = j.Intermediate; j.Intermediate == 0 {
		j.baseJSON.Intermediate = 4 * j.Hidden
	}
	positions := j.rotary
	if j.Alibi {
		positions = j.baseJSON.config
	}
	c, err := positions()
	c.Norm, c.Eps, c.Parallel = LayerNorm, j.Eps, j.Parallel
	c.AttentionBias, c.OutputBias, c.MLPBias = j.Bias, j.Bias, j.Bias
	c.Layout = bloomLayout()
	switch {
	case j.Grouped && (j.Norms == nil || *j.Norms == 2):
		c.Layout.Attention, c.Layout.MLP = NormLayout{Before: "ln_attn"}, NormLayout{Before: "ln_mlp"}
	case j.Parallel:
		c.Layout.MLP = c.Layout.Attention
	}
	if j.Alibi {
		c.KeyBias = falconBias(c.Heads, c.HeadDim)
	}
	return c, err
}

// falconBias is ALiBi as Falcon was trained: in bfloat16 and scaled like the scores.
func falconBias(heads, dim int) KeyBias {
	scale := float32(1 / math.Sqrt(float64(dim)))
	return func(bias []float32, head int) {
		slope := bfloat16(alibiSlope(heads, head))
		for position := range bias {
			bias[position] = bfloat16(slope*bfloat16(float32(position))) * scale
		}
	}
}

// bfloat16 rounds x, which is finite, to the nearest bfloat16, of two to the even one.
func bfloat16(x float32) float32 {
	bits := math.Float32bits(x)
	return math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff)
}

// rwConfig is Falcon under the name of its first release, whose larger models say how many
// keys they have and nothing of their form.
func rwConfig(raw []byte) (Config, error) {
	var j map[string]any
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	if _, said := j["new_decoder_architecture"]; !said {
		keys, _ := j["n_head_kv"].(float64)
		j["new_decoder_architecture"] = keys > 1
	}
	again, err := json.Marshal(j)
	if err != nil {
		return Config{}, fmt.Errorf("%v: %w", err, ErrConfig)
	}
	return falconConfig(again)
}

// falconNames gives the two norms of the larger models the names they have in GGUF.
func falconNames(hf, gguf *Layout) {
	if hf.MLP.Before != hf.Attention.Before {
		gguf.Attention.Before, gguf.MLP.Before = "attn_norm_2", "attn_norm"
	}
}

// falconWords says which of the three forms a GGUF file has. The third has none.
func falconWords(f *ggufFile, j map[string]any) {
	norms := 1
	if f.has("blk.0.attn_norm_2.weight") {
		norms = 2
	}
	grouped := norms == 2 || f.int("attention.head_count_kv", 1) > 1
	j["new_decoder_architecture"], j["multi_query"] = grouped, !grouped
	if grouped {
		j["num_ln_in_parallel_attn"] = norms
	}
}

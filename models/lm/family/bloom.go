package family

import (
	"fmt"
	"math"
	"math/bits"
)

// bloomNames are the names that some sizes have in files of BLOOM and of Falcon's
// first release.
type bloomNames struct {
	OldHidden int `json:"n_embed"`
	OldLayers int `json:"n_layer"`
	OldHeads  int `json:"n_head"`
}

// apply puts the sizes that a file gives under the other names in their place.
func (n *bloomNames) apply(j *baseJSON) {
	for _, size := range []struct {
		to    *int
		value int
	}{{&j.Hidden, n.OldHidden}, {&j.Layers, n.OldLayers}, {&j.Heads, n.OldHeads}} {
		if size.value != 0 {
			*size.to = size.value
		}
	}
}

func bloomLayout() Layout {
	return Layout{
		Root: "transformer", Embed: "word_embeddings", Norm: "ln_f", Head: "lm_head", Blocks: "h",
		Attention: NormLayout{Before: "input_layernorm"},
		MLP:       NormLayout{Before: "post_attention_layernorm"},
		QKV:       "self_attention.query_key_value", Grouped: true, O: "self_attention.dense",
		Up: "mlp.dense_h_to_4h", Down: "mlp.dense_4h_to_h",
	}
}

// bloomConfig is BLOOM (Le Scao et al. 2022): ALiBi in the place of positions, and a
// norm after the embedding.
func bloomConfig(raw []byte) (Config, error) {
	j := struct {
		baseJSON
		bloomNames
		Context  int     `json:"seq_length"`
		Eps      float64 `json:"layer_norm_epsilon"`
		PostNorm bool    `json:"apply_residual_connection_post_layernorm"`
	}{baseJSON: baseJSON{Tied: true}, Context: 2048, Eps: 1e-5}
	if err := decode(raw, &j); err != nil {
		return Config{}, err
	}
	if j.PostNorm {
		return Config{}, fmt.Errorf("apply_residual_connection_post_layernorm is not supported: %w", ErrConfig)
	}
	j.bloomNames.apply(&j.baseJSON)
	j.baseJSON.Context, j.Activation, j.Intermediate = j.Context, "gelu_pytorch_tanh", 4*j.Hidden
	c, err := j.config()
	c.Norm, c.Eps = LayerNorm, j.Eps
	c.AttentionBias, c.OutputBias, c.MLPBias = true, true, true
	c.KeyBias = alibi(c.Heads)
	c.Layout = bloomLayout()
	c.Layout.EmbedNorm = "word_embeddings_layernorm"
	return c, err
}

// alibi returns the biases of Press et al. 2021. They grow with the key's position, which
// to a softmax is the same as falling with its distance.
func alibi(heads int) KeyBias {
	return func(bias []float32, head int) {
		slope := alibiSlope(heads, head)
		for position := range bias {
			bias[position] = slope * float32(position)
		}
	}
}

// alibiSlope is how much a head minds the distance of a key: for n
// heads, a power of two, 2^(-8/n), 2^(-16/n), …; for other numbers those of the power
// below, and then every other one of the power above.
func alibiSlope(heads, head int) float32 {
	n := 1 << (bits.Len(uint(heads)) - 1)
	power := head + 1
	if head >= n {
		power, n = 2*(head-n)+1, 2*n
	}
	base := float32(math.Exp2(-8 / float64(n)))
	return float32(math.Pow(float64(base), float64(power)))
}

package lm

import (
	"encoding/json"
	"fmt"
	"strconv"

	"helicon/models/nn"
	"helicon/models/weights"
)

// gpt2JSON is the config.json of GPT-2.
type gpt2JSON struct {
	Vocab        int     `json:"vocab_size"`
	Context      int     `json:"n_positions"`
	Hidden       int     `json:"n_embd"`
	Layers       int     `json:"n_layer"`
	Heads        int     `json:"n_head"`
	Intermediate int     `json:"n_inner"` // default 4·Hidden
	Activation   string  `json:"activation_function"`
	Eps          float64 `json:"layer_norm_epsilon"`
	Tied         bool    `json:"tie_word_embeddings"`
	Scale        bool    `json:"scale_attn_weights"`
	ScaleByLayer bool    `json:"scale_attn_by_inverse_layer_idx"`
	Cross        bool    `json:"add_cross_attention"`
}

// gpt2Config is GPT-2 (Radford et al. 2019).
func gpt2Config(raw []byte) (Config, error) {
	j := gpt2JSON{Activation: "gelu_new", Eps: 1e-5, Tied: true, Scale: true}
	if err := json.Unmarshal(raw, &j); err != nil {
		return Config{}, fmt.Errorf("%v: %w", err, ErrConfig)
	}
	if j.Cross {
		return Config{}, fmt.Errorf("add_cross_attention: the decoder of an encoder is no language model: %w", ErrConfig)
	}
	c := Config{
		Vocab: j.Vocab, Context: j.Context, Hidden: j.Hidden, Layers: j.Layers,
		Heads: j.Heads, KVHeads: j.Heads, Intermediate: j.Intermediate, Tied: j.Tied,
		eps: j.Eps, attentionBias: true, outputBias: true, mlpBias: true,
		scale: attentionScale{plain: !j.Scale, byLayer: j.ScaleByLayer},
	}
	if c.Intermediate == 0 {
		c.Intermediate = 4 * c.Hidden
	}
	var err error
	if c.activation, err = parseActivation(j.Activation); err != nil {
		return c, err
	}
	c.HeadDim, err = headDim(c.Hidden, c.Heads)
	return c, err
}

// loadGPT2 reads GPT-2 under the names that transformers saves, which begin with
// "transformer.", or those of the first published checkpoints, which do not. Their
// attn.bias buffers are the causal mask and need no reading.
func loadGPT2(s *weights.Store, c Config) (n network, err error) {
	root := s
	if prefixed := s.Sub("transformer"); prefixed.Has("wte.weight") {
		root = prefixed
	}
	if n.embed, err = nn.LoadEmbedding(root.Sub("wte"), c.Vocab, c.Hidden); err != nil {
		return n, err
	}
	if n.positions, err = nn.LoadEmbedding(root.Sub("wpe"), c.Context, c.Hidden); err != nil {
		return n, err
	}
	for i := range c.Layers {
		l, err := loadGPT2Layer(root.Sub("h").Sub(strconv.Itoa(i)), c)
		if err != nil {
			return n, err
		}
		l.scale = c.attentionScale(i)
		n.layers = append(n.layers, l)
	}
	if n.norm, err = nn.LoadLayerNorm(root.Sub("ln_f"), c.Hidden, float32(c.eps)); err != nil {
		return n, err
	}
	if c.Tied {
		n.head = nn.Linear{Weight: n.embed.Weight}
		return n, nil
	}
	n.head, err = nn.LoadLinear(s.Sub("lm_head"), c.Vocab, c.Hidden, false)
	return n, err
}

func loadGPT2Layer(s *weights.Store, c Config) (l layer, err error) {
	l.activation = c.activation
	if l.attentionNorm, err = nn.LoadLayerNorm(s.Sub("ln_1"), c.Hidden, float32(c.eps)); err != nil {
		return l, err
	}
	if l.mlpNorm, err = nn.LoadLayerNorm(s.Sub("ln_2"), c.Hidden, float32(c.eps)); err != nil {
		return l, err
	}
	qkv, err := nn.LoadConv1D(s.Sub("attn.c_attn"), 3*c.Hidden, c.Hidden, true)
	if err != nil {
		return l, err
	}
	l.q, l.k, l.v = qkv.Slice(0, c.Hidden), qkv.Slice(c.Hidden, 2*c.Hidden), qkv.Slice(2*c.Hidden, 3*c.Hidden)
	if l.o, err = nn.LoadConv1D(s.Sub("attn.c_proj"), c.Hidden, c.Hidden, true); err != nil {
		return l, err
	}
	if l.up, err = nn.LoadConv1D(s.Sub("mlp.c_fc"), c.Intermediate, c.Hidden, true); err != nil {
		return l, err
	}
	l.down, err = nn.LoadConv1D(s.Sub("mlp.c_proj"), c.Hidden, c.Intermediate, true)
	return l, err
}

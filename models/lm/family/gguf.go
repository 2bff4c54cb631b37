package family

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"helicon/models/nn"
	"helicon/models/weights"
)

// A GGUF file says in its metadata what config.json says, and names its tensors in one
// way for all families. What its keys say is put in the words of config.json, and the
// family's own function makes the configuration from that; then the layout of the family
// is replaced by that of GGUF. The keys are those of llama.cpp (gguf-py, llama-arch.cpp),
// whose reading of them holds wherever they leave something open.

// ggufForm is how a family differs in GGUF from others.
type ggufForm struct {
	name  string                              // general.architecture; "" if there is none
	turn  bool                                // rows of query and key are in the order of interleaved rotation
	names func(hf, gguf *Layout)              // corrects the names of tensors
	words func(f *ggufFile, j map[string]any) // adds to config.json
}

// ggufFile is a GGUF file as a configuration is read from it.
type ggufFile struct {
	meta   weights.Metadata
	arch   string
	shape  func(tensor string) []int // nil if there is none of that name
	vector func(tensor string) ([]float64, error)
}

func (f *ggufFile) has(tensor string) bool { return f.shape(tensor) != nil }

// parameter is a value that GGUF and config.json both have, each under its own names.
type parameter struct {
	key   string   // after the name of the architecture
	names []string // in config.json, whichever the family
	value func(c *Config) any
}

// parameters are the values that need no thought in either direction. A value of nil is
// not written.
var parameters = []parameter{
	{"context_length", []string{"max_position_embeddings", "n_positions", "seq_length"}, func(c *Config) any { return uint32(c.Context) }},
	{"embedding_length", []string{"hidden_size", "n_embd"}, func(c *Config) any { return uint32(c.Hidden) }},
	{"block_count", []string{"num_hidden_layers", "n_layer"}, func(c *Config) any { return uint32(c.Layers) }},
	{"feed_forward_length", []string{"intermediate_size", "n_inner", "ffn_hidden_size"}, func(c *Config) any { return uint32(c.Intermediate) }},
	{"attention.head_count", []string{"num_attention_heads", "n_head"}, func(c *Config) any { return uint32(c.Heads) }},
	{"attention.head_count_kv", []string{"num_key_value_heads", "num_kv_heads"}, func(c *Config) any { return uint32(c.KVHeads) }},
	{"attention.key_length", []string{"head_dim"}, func(c *Config) any { return uint32(c.HeadDim) }},
	{"attention.value_length", nil, func(c *Config) any { return uint32(c.HeadDim) }},
	{"attention.layer_norm_epsilon", []string{"layer_norm_eps", "layer_norm_epsilon"}, func(c *Config) any {
		return unless(c.Norm != LayerNorm, float32(c.Eps))
	}},
	{"attention.layer_norm_rms_epsilon", []string{"rms_norm_eps"}, func(c *Config) any {
		return unless(c.Norm == LayerNorm, float32(c.Eps))
	}},
	{"use_parallel_residual", []string{"use_parallel_residual"}, func(c *Config) any { return c.Parallel }},
	{"attn_logit_softcapping", []string{"attn_logit_softcapping"}, func(c *Config) any { return unless(c.ScoreCap == 0, float32(c.ScoreCap)) }},
	{"final_logit_softcapping", []string{"final_logit_softcapping"}, func(c *Config) any { return unless(c.LogitCap == 0, float32(c.LogitCap)) }},
	{"expert_count", []string{"num_experts", "num_local_experts"}, func(c *Config) any {
		return unless(c.Experts.Count == 0, uint32(c.Experts.Count))
	}},
	{"expert_used_count", []string{"num_experts_per_tok"}, func(c *Config) any {
		return unless(c.Experts.Count == 0, uint32(c.Experts.Used))
	}},
	{"expert_feed_forward_length", []string{"moe_intermediate_size"}, func(c *Config) any {
		return unless(c.Experts.Count == 0, uint32(c.Experts.Intermediate))
	}},
	{"attention.sliding_window", []string{"sliding_window"}, func(c *Config) any { return unless(c.window == 0, uint32(c.window)) }},
	{"rope.freq_base", []string{"rope_theta", "rotary_emb_base"}, func(c *Config) any {
		if len(c.Ropes) == 0 {
			return nil
		}
		return float32(c.Ropes[0].Theta)
	}},
	{"rope.freq_base_swa", []string{"rope_local_base_freq"}, func(c *Config) any {
		if len(c.Ropes) < 2 {
			return nil
		}
		return float32(c.Ropes[1].Theta)
	}},
}

func unless(absent bool, value any) any {
	if absent {
		return nil
	}
	return value
}

// readGGUF returns the configuration of a GGUF file.
func readGGUF(s *weights.Store) (Config, error) {
	return (&ggufFile{
		meta: s.Metadata(),
		shape: func(name string) []int {
			info, err := s.Header().Lookup(name)
			if err != nil {
				return nil
			}
			return info.Shape
		},
		vector: func(name string) ([]float64, error) { return readVector(s, name) },
	}).read()
}

// read returns the configuration.
func (f *ggufFile) read() (Config, error) {
	var err error
	if f.arch, err = f.meta.String("general.architecture"); err != nil {
		return Config{}, fmt.Errorf("lm: %w: %w", err, ErrConfig)
	}
	name, arch, err := f.choose()
	if err != nil {
		return Config{}, err
	}
	c, err := f.config(arch)
	if err != nil {
		return Config{}, fmt.Errorf("lm: GGUF of %s: %w", f.arch, err)
	}
	c.Architecture = name
	f.readEnds(&c)
	return c, nil
}

// choose returns the family. One name stands for Llama, Mistral and Mixtral.
func (f *ggufFile) choose() (string, architecture, error) {
	name := ""
	switch {
	case f.arch == "":
	case f.arch == "llama" && f.meta.Has("llama.expert_count") && f.int("expert_count", 0) > 0:
		name = "MixtralForCausalLM"
	case f.arch == "llama" && f.int("attention.sliding_window", 0) > 0:
		name = "MistralForCausalLM"
	case f.arch == "llama":
		name = "LlamaForCausalLM"
	default:
		for n, a := range architectures {
			if a.gguf.name == f.arch && (name == "" || n < name) {
				name = n
			}
		}
	}
	if a, ok := architectures[name]; ok {
		return name, a, nil
	}
	var known []string
	for _, a := range architectures {
		if a.gguf.name != "" && !slices.Contains(known, a.gguf.name) {
			known = append(known, a.gguf.name)
		}
	}
	slices.Sort(known)
	return "", architecture{}, fmt.Errorf("lm: general.architecture %q is not one of %q: %w", f.arch, known, ErrUnsupported)
}

// config has the family read what the file says in the words of config.json.
func (f *ggufFile) config(a architecture) (Config, error) {
	j, err := f.words()
	if err != nil {
		return Config{}, err
	}
	if a.gguf.words != nil {
		a.gguf.words(f, j)
	}
	raw, err := json.Marshal(j)
	if err != nil {
		return Config{}, fmt.Errorf("%v: %w", err, ErrConfig)
	}
	c, err := a.config(raw)
	if err != nil {
		return c, err
	}
	c.Layout = c.ggufLayout(a.gguf, f.has("blk.0.attn_qkv.weight"))
	c.Tied = !f.has("output.weight")
	c.AttentionBias = f.has("blk.0.attn_q.bias") || f.has("blk.0.attn_qkv.bias")
	c.OutputBias, c.MLPBias = f.has("blk.0.attn_output.bias"), f.has("blk.0.ffn_up.bias")
	c.HeadBias = f.has("output.bias")
	if c.Norm == RMSNormLessOne {
		c.Norm = RMSNorm
	}
	if scale := f.float("attention.scale", 0); scale > 0 {
		c.scale = scale
	}
	for i := range c.Ropes {
		if s := c.Ropes[i].Scaling; s != nil && s.Type == "yarn" && s.OriginalContext > 0 {
			c.Ropes[i].Context = s.OriginalContext
		}
	}
	return c, c.complete()
}

// words returns what config.json would say.
func (f *ggufFile) words() (map[string]any, error) {
	j := map[string]any{"tie_word_embeddings": !f.has("output.weight")}
	for _, p := range parameters {
		value, err := f.meta.Value(f.arch + "." + p.key)
		if errors.Is(err, weights.ErrNoKey) {
			continue
		}
		if n, ok := value.(float32); ok && (math.IsNaN(float64(n)) || math.IsInf(float64(n), 0)) {
			return nil, fmt.Errorf("key %q is %v: %w", f.arch+"."+p.key, n, ErrConfig)
		}
		if list, err := f.meta.Ints(f.arch + "." + p.key); err == nil {
			if value, err = uniform(p.key, list); err != nil {
				return nil, err
			}
		}
		for _, name := range p.names {
			j[name] = value
		}
	}
	embed := f.shape("token_embd.weight")
	if len(embed) != 2 {
		return nil, fmt.Errorf("tensor \"token_embd.weight\" is missing or no matrix: %w", ErrConfig)
	}
	j["vocab_size"] = embed[0]
	heads, hidden := f.int("attention.head_count", 0), f.int("embedding_length", 0)
	dim := f.int("attention.key_length", 0)
	if dim == 0 && heads > 0 && hidden%heads == 0 {
		dim = hidden / heads
		j["head_dim"] = dim
	}
	if f.int("attention.value_length", dim) != dim {
		return nil, fmt.Errorf("attention.key_length %d and value_length %d differ: %w", dim, f.int("attention.value_length", dim), ErrConfig)
	}
	if rotated := f.int("rope.dimension_count", dim); dim > 0 {
		share := 1.0
		if rotated != dim {
			share = (float64(rotated) + 0.5) / float64(dim) // the family rounds it down
		}
		j["partial_rotary_factor"], j["rotary_pct"] = share, share
	}
	f.windowWords(j)
	return j, f.scalingWords(j)
}

// uniform returns the element of a list of equal ones: some files have a value for each
// layer.
func uniform(key string, list []int) (int, error) {
	if len(list) == 0 || slices.Min(list) != slices.Max(list) {
		return 0, fmt.Errorf("key %q differs among layers, which is not supported: %w", key, ErrConfig)
	}
	return list[0], nil
}

// windowWords says which layers have a sliding window.
func (f *ggufFile) windowWords(j map[string]any) {
	window := f.int("attention.sliding_window", 0)
	j["use_sliding_window"], j["max_window_layers"] = window > 0, 0
	if window == 0 && f.arch != "gemma2" { // which has one by definition
		j["sliding_window"] = nil
	}
	key := f.arch + ".attention.sliding_window_pattern"
	layers := f.int("block_count", 0)
	local, err := f.meta.Bools(key)
	if every, intErr := f.meta.Int(key); intErr == nil && layers > 0 && layers <= maxLayers {
		err = nil
		for i := range layers {
			local = append(local, every == 0 || i%max(every, 1) < every-1)
		}
	} else if list, intsErr := f.meta.Ints(key); intsErr == nil {
		err = nil
		for _, n := range list {
			local = append(local, n != 0)
		}
	}
	if err != nil {
		return
	}
	local = local[:min(len(local), maxLayers+1)] // the family refuses so many
	kinds := make([]string, len(local))
	for i, is := range local {
		kinds[i] = "full_attention"
		if is {
			kinds[i] = "sliding_attention"
		}
	}
	j["layer_types"] = kinds
}

// scalingWords says how rotary positions are scaled.
func (f *ggufFile) scalingWords(j map[string]any) error {
	kind, _ := f.meta.String(f.arch + ".rope.scaling.type")
	factor := f.float("rope.scaling.factor", f.float("rope.scale_linear", 0))
	scaling := nn.RopeScaling{Type: kind, Factor: factor, OriginalContext: f.int("rope.scaling.original_context_length", 0)}
	var err error
	switch {
	case f.has("rope_factors_long.weight"):
		scaling.Type, scaling.AttentionFactor = "longrope", f.float("rope.scaling.attn_factor", 0)
		if scaling.ShortFactor, err = f.vector("rope_factors_short.weight"); err == nil {
			scaling.LongFactor, err = f.vector("rope_factors_long.weight")
		}
	case f.has("rope_freqs.weight"):
		scaling.Type = "factors"
		scaling.ShortFactor, err = f.vector("rope_freqs.weight")
	case f.float(dynamicKey, 0) > 1:
		scaling.Type, scaling.Factor = "dynamic", f.float(dynamicKey, 0)
	case kind == "yarn":
		scaling.BetaFast = f.float("rope.scaling.yarn_beta_fast", 0)
		scaling.BetaSlow = f.float("rope.scaling.yarn_beta_slow", 0)
		if a := f.float("rope.scaling.attn_factor", 0); a > 0 && factor > 0 {
			scaling.AttentionFactor = a * (0.1*math.Log(factor) + 1)
		}
	case (kind == "linear" || kind == "") && factor > 1:
		scaling.Type = "linear"
	default:
		return nil
	}
	j["rope_scaling"] = scaling
	return err
}

// dynamicKey is our own: GGUF has no word for dynamic NTK scaling, which does nothing
// within the context, so that other engines may read such files as plain ones.
const dynamicKey = "rope.scaling.dynamic_factor"

// readVector reads the factors of rotary positions.
func readVector(s *weights.Store, name string) ([]float64, error) {
	t, err := s.Lookup(name)
	if err != nil {
		return nil, err
	}
	if len(t.Shape) != 1 || !t.DType.Float() {
		return nil, fmt.Errorf("tensor %q: %v of shape %v, want a vector of factors: %w", name, t.DType, t.Shape, ErrConfig)
	}
	var list []float64
	for _, v := range t.Float32s() {
		list = append(list, float64(v))
	}
	return list, nil
}

// readEnds takes the tokens that begin and end a text from the tokenizer's part.
func (f *ggufFile) readEnds(c *Config) {
	id := func(name string) (int, bool) {
		n, err := f.meta.Int("tokenizer.ggml." + name + "_token_id")
		return n, err == nil && n >= 0 && n < c.Vocab
	}
	if bos, ok := id("bos"); ok {
		c.BOS = []int{bos}
	}
	for _, name := range []string{"eos", "eot", "eom"} {
		if end, ok := id(name); ok && !slices.Contains(c.EOS, end) {
			c.EOS = append(c.EOS, end)
		}
	}
}

// int returns a key of the architecture, or what it is if absent or no whole number.
func (f *ggufFile) int(key string, absent int) int {
	if n, err := f.meta.Int(f.arch + "." + key); err == nil {
		return n
	}
	if list, err := f.meta.Ints(f.arch + "." + key); err == nil && len(list) > 0 {
		return list[0]
	}
	return absent
}

func (f *ggufFile) float(key string, absent float64) float64 {
	if n, err := f.meta.Float(f.arch + "." + key); err == nil {
		return n
	}
	return absent
}

// ggufLayout returns where GGUF keeps the tensors that c.Layout names. In some files query,
// key and value are joint where Hugging Face has them apart.
func (c *Config) ggufLayout(form ggufForm, joint bool) Layout {
	hf := &c.Layout
	named := func(name, gguf string) string {
		if name == "" {
			return ""
		}
		return gguf
	}
	g := Layout{
		Embed: "token_embd", Positions: named(hf.Positions, "position_embd"),
		EmbedNorm: named(hf.EmbedNorm, "token_embd_norm"), Norm: named(hf.Norm, "output_norm"), Head: "output",
		Blocks:    "blk",
		Attention: NormLayout{Before: named(hf.Attention.Before, "attn_norm"), After: named(hf.Attention.After, "post_attention_norm")},
		MLP:       NormLayout{Before: named(hf.MLP.Before, "ffn_norm"), After: named(hf.MLP.After, "post_ffw_norm")},
		O:         "attn_output",
		QNorm:     named(hf.QNorm, "attn_q_norm"), KNorm: named(hf.KNorm, "attn_k_norm"),
		Gate: named(hf.Gate, "ffn_gate"), Up: named(hf.Up, "ffn_up"), Down: "ffn_down",
		GateUp: named(hf.GateUp, "ffn_up"),
		Router: named(hf.Router, "ffn_gate_inp"),
		Turned: form.turn, Stacked: true,
	}
	if hf.Router != "" {
		g.Expert = MLPLayout{Gate: "ffn_gate_exps", Up: "ffn_up_exps", Down: "ffn_down_exps"}
	}
	if hf.MLP.Before == hf.Attention.Before {
		g.MLP.Before = g.Attention.Before
	}
	if joint {
		g.QKV = "attn_qkv"
	} else {
		g.Q, g.K, g.V = "attn_q", "attn_k", "attn_v"
	}
	if form.names != nil {
		form.names(hf, &g)
	}
	return g
}

package lm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// families are small decoders of every family and form: what their configurations say
// beside the sizes that most of them share.
func families() map[string]map[string]any {
	type config = map[string]any
	all := map[string]config{
		"gpt2":         {"architectures": "GPT2LMHeadModel"},
		"gpt2, untied": {"architectures": "GPT2LMHeadModel", "tie_word_embeddings": false, "n_inner": 40, "scale_attn_by_inverse_layer_idx": true},
		"bigcode":      {"architectures": "GPTBigCodeForCausalLM"},
		"bigcode, many keys": {"architectures": "GPTBigCodeForCausalLM", "multi_query": false,
			"scale_attn_weights": false},
		"qwen2, two windows": {"architectures": "Qwen2ForCausalLM", "use_sliding_window": true,
			"sliding_window": 5, "layer_types": []string{"sliding_attention", "full_attention", "sliding_attention"}},
		"qwen3":     {"architectures": "Qwen3ForCausalLM", "head_dim": 12},
		"mixtral":   {"architectures": "MixtralForCausalLM", "num_local_experts": 5, "num_experts_per_tok": 2},
		"qwen3 moe": {"architectures": "Qwen3MoeForCausalLM", "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "mlp_only_layers": []int{1}},
		"gemma":     {"architectures": "GemmaForCausalLM", "head_dim": 10},
		"gemma2": {"architectures": "Gemma2ForCausalLM", "head_dim": 16, "query_pre_attn_scalar": 3,
			"sliding_window": 7, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2},
		"gemma3": {"architectures": "Gemma3ForCausalLM", "head_dim": 16, "query_pre_attn_scalar": 9,
			"sliding_window": 7, "sliding_window_pattern": 2, "rope_scaling": config{"rope_type": "linear", "factor": 8}},
		"neox":             {"architectures": "GPTNeoXForCausalLM"},
		"neox, serial":     {"architectures": "GPTNeoXForCausalLM", "use_parallel_residual": false, "rotary_pct": 1},
		"phi":              {"architectures": "PhiForCausalLM"},
		"phi, head norms":  {"architectures": "PhiForCausalLM", "qk_layernorm": true},
		"phi3":             {"architectures": "Phi3ForCausalLM", "sliding_window": 9, "partial_rotary_factor": 0.75},
		"stablelm":         {"architectures": "StableLmForCausalLM", "use_qkv_bias": true},
		"stablelm2":        {"architectures": "StableLmForCausalLM", "qk_layernorm": true, "use_parallel_residual": true},
		"falcon":           {"architectures": "FalconForCausalLM"},
		"falcon, groups":   {"architectures": "FalconForCausalLM", "new_decoder_architecture": true, "num_kv_heads": 2},
		"falcon, one norm": {"architectures": "FalconForCausalLM", "new_decoder_architecture": true, "num_kv_heads": 3, "num_ln_in_parallel_attn": 1},
		"falcon, alibi": {"architectures": "FalconForCausalLM", "alibi": true, "multi_query": false,
			"parallel_attn": false, "bias": true},
		"opt":             {"architectures": "OPTForCausalLM"},
		"opt, narrow":     {"architectures": "OPTForCausalLM", "word_embed_proj_dim": 20, "do_layer_norm_before": false},
		"opt, plain norm": {"architectures": "OPTForCausalLM", "word_embed_proj_dim": 60, "layer_norm_elementwise_affine": false, "enable_bias": false},
		"bloom":           {"architectures": "BloomForCausalLM"},
	}
	for _, c := range all {
		c["architectures"] = []any{c["architectures"]}
		sizes := config{"vocab_size": smallLlama.vocab, "max_position_embeddings": 256, "hidden_size": 48,
			"num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 40}
		switch name := c["architectures"].([]any)[0].(string); {
		case strings.HasPrefix(name, "GPT2"), strings.HasPrefix(name, "GPTBig"):
			sizes = config{"vocab_size": smallLlama.vocab, "n_positions": 256, "n_embd": 48, "n_layer": 3, "n_head": 6}
		case strings.HasPrefix(name, "OPT"):
			sizes["ffn_dim"] = 40
		case strings.HasPrefix(name, "GPTNeoX"):
			delete(sizes, "num_key_value_heads")
		}
		for key, value := range sizes {
			if _, ok := c[key]; !ok {
				c[key] = value
			}
		}
	}
	return all
}

// eachFamily runs a test on every one of the families, in F32.
func eachFamily(t *testing.T, f func(t *testing.T, b bundle)) {
	t.Parallel()
	for name, config := range families() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, randomBundle(t, config))
		})
	}
}

// randomBundle draws the weights that a decoder of that configuration reads.
func randomBundle(t testing.TB, config map[string]any) bundle {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(fstest.MapFS{"config.json": {Data: raw}})
	if err != nil {
		t.Fatal(err)
	}
	d := drawer{random: rand.New(rand.NewPCG(3, 4)), tensors: map[string]named{}, config: &c}
	d.decoder()
	return bundle{config: config, tensors: d.tensors}
}

// drawer draws tensors under the names of a layout.
type drawer struct {
	random  *rand.Rand
	tensors map[string]named
	config  *Config
}

func (d *drawer) tensor(name string, shape ...int) {
	n := 1
	for _, s := range shape {
		n *= s
	}
	x := named{shape: shape, data: make([]float32, n)}
	for i := range x.data {
		x.data[i] = float32(d.random.NormFloat64() / math.Sqrt(float64(shape[len(shape)-1])))
		if len(shape) == 1 {
			x.data[i] = float32(d.random.NormFloat64()) / 4
			if strings.HasSuffix(name, ".weight") && d.config.norm != rmsNormLessOne {
				x.data[i]++
			}
		}
	}
	d.tensors[name] = x
}

// linear draws a matrix of a block.
func (d *drawer) linear(prefix, path string, out, in int, bias bool) {
	if path == "" {
		return
	}
	shape := []int{out, in}
	if d.config.layout.conv1D {
		shape = []int{in, out}
	}
	d.tensor(prefix+path+".weight", shape...)
	if bias {
		d.tensor(prefix+path+".bias", out)
	}
}

func (d *drawer) norm(prefix, path string, channels int) {
	if path == "" || d.config.norm == plainLayerNorm {
		return
	}
	d.tensor(prefix+path+".weight", channels)
	if d.config.norm == layerNorm {
		d.tensor(prefix+path+".bias", channels)
	}
}

func (d *drawer) headNorm(prefix, path string, heads int) {
	if !d.config.headNorms || path == "" {
		d.norm(prefix, path, d.config.HeadDim)
		return
	}
	for i := range heads {
		d.tensor(fmt.Sprintf("%s%s.norms.%d.weight", prefix, path, i), d.config.HeadDim)
	}
}

func (d *drawer) decoder() {
	c, n := d.config, &d.config.layout
	root := n.root + "."
	d.tensor(root+n.embed+".weight", c.Vocab, c.embedWidth)
	if n.positions != "" {
		d.tensor(root+n.positions+".weight", c.positionOffset+c.Context, c.Hidden)
	}
	d.norm(root, n.embedNorm, c.Hidden)
	if n.widen != "" {
		d.tensor(root+n.widen+".weight", c.Hidden, c.embedWidth)
		d.tensor(root+n.narrow+".weight", c.embedWidth, c.Hidden)
	}
	d.norm(root, n.norm, c.Hidden)
	if !c.Tied {
		d.tensor(n.head+".weight", c.Vocab, c.embedWidth)
		if c.headBias {
			d.tensor(n.head+".bias", c.Vocab)
		}
	}
	for i := range c.Layers {
		d.block(root+n.blocks+"."+strconv.Itoa(i)+".", i)
	}
}

func (d *drawer) block(prefix string, i int) {
	c, n := d.config, &d.config.layout
	for _, path := range []string{
		n.attention.before, n.attention.after, n.attention.sum, n.mlp.before, n.mlp.after, n.mlp.sum,
	} {
		d.norm(prefix, path, c.Hidden)
	}
	queries, keys := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	d.linear(prefix, n.qkv, queries+2*keys, c.Hidden, c.attentionBias)
	if n.qkv == "" {
		d.linear(prefix, n.q, queries, c.Hidden, c.attentionBias)
		d.linear(prefix, n.k, keys, c.Hidden, c.attentionBias)
		d.linear(prefix, n.v, keys, c.Hidden, c.attentionBias)
	}
	d.headNorm(prefix, n.qNorm, c.Heads)
	d.headNorm(prefix, n.kNorm, c.KVHeads)
	d.linear(prefix, n.o, c.Hidden, queries, c.outputBias)
	if !c.sparse(i) {
		d.linear(prefix, n.gateUp, 2*c.Intermediate, c.Hidden, c.mlpBias)
		d.linear(prefix, n.gate, c.Intermediate, c.Hidden, c.mlpBias)
		d.linear(prefix, n.up, c.Intermediate, c.Hidden, c.mlpBias)
		d.linear(prefix, n.down, c.Hidden, c.Intermediate, c.mlpBias)
		return
	}
	x := c.experts
	d.linear(prefix, n.router, x.count, c.Hidden, false)
	for i := range x.count {
		expert := prefix + n.experts + "." + strconv.Itoa(i) + "."
		d.linear(expert, n.expert.gate, x.intermediate, c.Hidden, false)
		d.linear(expert, n.expert.up, x.intermediate, c.Hidden, false)
		d.linear(expert, n.expert.down, c.Hidden, x.intermediate, false)
	}
}

// TestFamiliesAgainstNaive compares every form of decoder with the one that is written
// out plainly in double precision.
func TestFamiliesAgainstNaive(t *testing.T) {
	eachFamily(t, func(t *testing.T, b bundle) {
		m := load(t, b.fsys(t, tensor.F32), 2)
		ids := someTokens(30, smallLlama.vocab)
		got := forward(t, m, newState(t, m, len(ids)), ids)
		want := naiveLogits(m, ids)
		if e := relativeError(got, want); !(e <= 1e-5) {
			t.Errorf("logits are off by %.3g of the largest, tolerance 1e-5", e)
		}
	})
}

// TestFamiliesEquivalence is TestEquivalence for the other families.
func TestFamiliesEquivalence(t *testing.T) {
	eachFamily(t, func(t *testing.T, b bundle) {
		testEquivalence(t, b.fsys(t, tensor.F32), chunkTokens+12)
	})
}

func TestFamiliesDecodeAllocatesNothing(t *testing.T) {
	for name, config := range families() {
		m := load(t, randomBundle(t, config).fsys(t, tensor.F32), 2)
		s := newState(t, m, 100)
		ctx, token := t.Context(), []int{3}
		if n := testing.AllocsPerRun(20, func() {
			if _, err := m.Forward(ctx, s, token); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: a token allocates %v times", name, n)
		}
	}
}

// TestFamiliesMissTensors takes each tensor out of each family's file, and gives each
// another shape: the error names it and the file.
func TestFamiliesMissTensors(t *testing.T) {
	eachFamily(t, func(t *testing.T, b bundle) {
		for name, x := range b.tensors {
			if strings.Contains(name, ".0.") || strings.Contains(name, ".1.") {
				continue // the last block and expert will do
			}
			delete(b.tensors, name)
			_, err := Load(b.fsys(t, tensor.F32), Options{})
			if !errors.Is(err, weights.ErrMissing) || !strings.Contains(err.Error(), strconv.Quote(name)) || !strings.Contains(err.Error(), "model.safetensors") {
				t.Errorf("without %s: error %v", name, err)
			}
			last := x.shape[len(x.shape)-1]
			b.tensors[name] = named{shape: append(slices.Clone(x.shape[:len(x.shape)-1]), last-1), data: x.data[:len(x.data)/last*(last-1)]}
			_, err = Load(b.fsys(t, tensor.F32), Options{})
			if !errors.Is(err, weights.ErrShape) || !strings.Contains(err.Error(), strconv.Quote(name)) || !strings.Contains(err.Error(), "model.safetensors") {
				t.Errorf("with another shape of %s: error %v", name, err)
			}
			b.tensors[name] = x
		}
	})
}

// TestFamiliesWithoutPrefix loads files of the network without its head, whose names
// lack all or a part of the root.
func TestFamiliesWithoutPrefix(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]string{"bloom": "transformer.", "gpt2": "transformer.", "opt": "model.", "opt, narrow": "model.decoder."} {
		b := randomBundle(t, families()[name])
		ids := someTokens(5, smallLlama.vocab)
		logits := func() []float32 {
			m := load(t, b.fsys(t, tensor.F32), 1)
			return forward(t, m, newState(t, m, 5), ids)
		}
		want := logits()
		bare := map[string]named{}
		for key, x := range b.tensors {
			bare[strings.TrimPrefix(key, cut)] = x
		}
		b.tensors = bare
		same(t, name+" without "+cut, logits(), want)
	}
}

// TestFalconGroups compares Falcon's groups, whose matrix has a key and a value for
// several queries, with a GPT-NeoX of the same weights, which has them for each query.
func TestFalconGroups(t *testing.T) {
	t.Parallel()
	const heads, groups, dim, hidden = 6, 2, 8, 48
	falcon := randomBundle(t, families()["falcon, groups"])
	neox := bundle{config: maps.Clone(families()["neox"]), tensors: map[string]named{}}
	neox.config["rotary_pct"], neox.config["intermediate_size"] = 1, 4*hidden
	zeros := func(name string, n int) { neox.tensors[name] = named{shape: []int{n}, data: make([]float32, n)} }
	for name, x := range falcon.tensors {
		for _, pair := range [][2]string{
			{"transformer.h.", "gpt_neox.layers."}, {"self_attention.", "attention."}, {"transformer.ln_f", "gpt_neox.final_layer_norm"},
			{"ln_attn", "input_layernorm"}, {"ln_mlp", "post_attention_layernorm"},
			{"transformer.word_embeddings", "embed_out"},
		} {
			name = strings.Replace(name, pair[0], pair[1], 1)
		}
		if strings.HasSuffix(name, "query_key_value.weight") {
			var rows []float32
			for h := range heads {
				group := x.data[h/(heads/groups)*(heads/groups+2)*dim*hidden:]
				rows = append(rows, group[h%(heads/groups)*dim*hidden:][:dim*hidden]...)
				rows = append(rows, group[heads/groups*dim*hidden:][:2*dim*hidden]...)
			}
			x = named{shape: []int{3 * hidden, hidden}, data: rows}
		}
		neox.tensors[name] = x
		if strings.Contains(name, "attention.") || strings.Contains(name, "mlp.") {
			zeros(strings.TrimSuffix(name, "weight")+"bias", x.shape[0])
		}
	}
	neox.tensors["gpt_neox.embed_in.weight"] = neox.tensors["embed_out.weight"]
	ids := someTokens(20, smallLlama.vocab)
	var logits [2][]float32
	for i, b := range []bundle{falcon, neox} {
		m := load(t, b.fsys(t, tensor.F32), 1)
		logits[i] = forward(t, m, newState(t, m, 20), ids)
	}
	same(t, "Falcon against GPT-NeoX", logits[0], logits[1])
}

// longrope is a Phi-3 with other angles beyond 150 positions.
func longrope() map[string]any {
	config := families()["phi3"]
	config["original_max_position_embeddings"], config["sliding_window"] = 150, nil
	config["rope_scaling"] = map[string]any{"type": "su", "short_factor": []float64{1, 1.1, 1.2}, "long_factor": []float64{1, 4, 9}}
	return config
}

// TestLongrope checks that a sequence which passes the original context, forth and
// back, has the logits of one that was read in one go.
func TestLongrope(t *testing.T) {
	t.Parallel()
	m := load(t, randomBundle(t, longrope()).fsys(t, tensor.F32), 1)
	ids := someTokens(170, smallLlama.vocab)
	whole := func(n int) []float32 { return forward(t, m, newState(t, m, 170), ids[:n]) }
	if e := relativeError(whole(150), naiveLogits(m, ids[:150])); !(e <= 1e-5) {
		t.Errorf("short: logits are off by %.3g", e)
	}
	if e := relativeError(whole(151), naiveLogits(m, ids[:151])); !(e <= 1e-5) {
		t.Errorf("long: logits are off by %.3g", e)
	}

	s := newState(t, m, 170)
	forward(t, m, s, ids[:140])
	var positions []int
	seen := Observer{
		Logits: func(position int, _ []float32) { positions = append(positions, position) },
		Hidden: func(layer, position int, x []float32) {
			if position < 140 || position+len(x)/48 > 160 {
				t.Errorf("layer %d shows positions %d to %d", layer, position, position+len(x)/48-1)
			}
		},
	}
	if err := m.Observe(t.Context(), s, ids[140:160], seen); err != nil {
		t.Fatal(err)
	}
	if len(positions) != 20 || positions[0] != 140 || positions[19] != 159 {
		t.Errorf("logits of positions %v, want 140 to 159", positions)
	}
	same(t, "after the switch", s.logits, whole(160))
	same(t, "one more", forward(t, m, s, ids[160:161]), whole(161))
	s.Truncate(10)
	same(t, "back", forward(t, m, s, ids[10:120]), whole(120))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Forward(ctx, s, ids[120:155]); err == nil || s.Len() != 120 {
		t.Fatalf("error %v at length %d", err, s.Len())
	}
	same(t, "after a cancellation", forward(t, m, s, ids[120:130]), whole(130))
}

// TestAlibi checks the slopes of Press et al. for powers of two and other numbers, and
// Falcon's, which are rounded.
func TestAlibi(t *testing.T) {
	t.Parallel()
	for heads, want := range map[int][]float64{
		4: {1. / 4, 1. / 16, 1. / 64, 1. / 256},
		6: {1. / 4, 1. / 16, 1. / 64, 1. / 256, 1. / 2, 1. / 8},
	} {
		for head, slope := range want {
			bias := make([]float32, 4)
			alibi(heads)(bias, head)
			if got := float64(bias[3]); math.Abs(got-3*slope) > 1e-7 {
				t.Errorf("head %d of %d: bias %v at position 3, want %v", head, heads, got, 3*slope)
			}
		}
	}
	// Head 0 of 32 has the slope 2^(-1/4) = 0.8409, 0.83984375 as a bfloat16. Position
	// 1001 is 1000 there, and their product 839.84 is 840.
	bias := make([]float32, 1002)
	falconBias(32, 64)(bias, 0)
	if bias[1001] != 840./8 {
		t.Errorf("bias %v, want %v", bias[1001], 840./8)
	}
}

func TestKeepBest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		n         int
		normalise bool
		p, want   []float32
	}{
		{2, false, []float32{0.125, 0.5, 0.25, 0.125}, []float32{0, 0.5, 0.25, 0}},
		{2, true, []float32{0.125, 0.375, 0.125, 0.375}, []float32{0, 0.5, 0, 0.5}},
		{1, true, []float32{0.25, 0.25, 0.25, 0.25}, []float32{1, 0, 0, 0}},
		{3, true, []float32{1, 0, 0, 0}, []float32{1, 0, 0, 0}},
	} {
		p := slices.Clone(tt.p)
		keepBest(p, tt.n, tt.normalise)
		if !slices.Equal(p, tt.want) {
			t.Errorf("best %d of %v are %v, want %v", tt.n, tt.p, p, tt.want)
		}
	}
}

func TestFamilyConfigs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		family, key string
		value       any
		text        string
	}{
		{"gpt2", "add_cross_attention", true, "add_cross_attention"},
		{"gpt2", "n_head", 5, "48 does not divide among 5"},
		{"bigcode", "activation_function", "maxout", "maxout"},
		{"qwen2, two windows", "layer_types", []string{"full_attention"}, "1 of 3 layers"},
		{"qwen2, two windows", "layer_types", []string{"a", "b", "c"}, `"a" is not supported`},
		{"qwen2, two windows", "sliding_window", -5, "sliding window -5"},
		{"qwen3", "partial_rotary_factor", 1.5, "partial_rotary_factor 1.5"},
		{"mixtral", "num_local_experts", -1, "-1 experts"},
		{"mixtral", "num_experts_per_tok", 6, "6 used of 5 experts"},
		{"mixtral", "num_local_experts", 1 << 20, "1048576 experts"},
		{"qwen3 moe", "decoder_sparse_step", 0, "decoder_sparse_step 0"},
		{"qwen3 moe", "moe_intermediate_size", 0, "experts of size 0"},
		{"gemma", "hidden_activation", "maxout", "maxout"},
		{"gemma2", "query_pre_attn_scalar", 0, "query_pre_attn_scalar 0"},
		{"gemma2", "final_logit_softcapping", -30, "-30"},
		{"gemma2", "attn_logit_softcapping", -50, "-50"},
		{"gemma3", "sliding_window_pattern", 0, "sliding_window_pattern 0"},
		{"gemma3", "rope_local_base_freq", 0, "rope_theta 0"},
		{"gemma3", "rope_parameters", map[string]any{"sliding_attention": map[string]any{"rope_type": "mrope"}}, "mrope"},
		{"neox", "rotary_pct", 0, "partial_rotary_factor 0"},
		{"neox", "rotary_pct", 0.4, "3 rotated components"},
		{"neox", "rotary_emb_base", -1, "rope_theta -1"},
		{"phi", "tie_word_embeddings", true, "tie_word_embeddings"},
		{"phi", "layer_norm_eps", 2, "epsilon"},
		{"phi3", "rope_scaling", map[string]any{"type": "su"}, "longrope with 0 in short_factor"},
		{"stablelm", "num_key_value_heads", 4, "6 heads"},
		{"falcon", "new_decoder_architecture", []int{1}, "config.json"},
		{"falcon, groups", "parallel_attn", false, "new_decoder_architecture without parallel_attn"},
		{"falcon, groups", "num_ln_in_parallel_attn", 3, "num_ln_in_parallel_attn 3"},
		{"falcon, groups", "num_kv_heads", 4, "6 heads"},
		{"opt", "ffn_dim", nil, "intermediate size"},
		{"opt", "word_embed_proj_dim", -1, "width of the embedding -1"},
		{"bloom", "apply_residual_connection_post_layernorm", true, "apply_residual_connection_post_layernorm"},
		{"bloom", "n_head", 7, "among 7 heads"},
	} {
		config := families()[tt.family]
		config[tt.key] = tt.value
		raw, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		_, err = readConfig(fstest.MapFS{"config.json": {Data: raw}})
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s with %s %v: error %v, want ErrConfig with %q", tt.family, tt.key, tt.value, err, tt.text)
		}
	}
}

// TestTooManyParts checks that a configuration of which the tensors alone would not fit
// in memory is refused before they are listed.
func TestTooManyParts(t *testing.T) {
	t.Parallel()
	many := map[string]map[string]any{
		"mixtral":  {"num_local_experts": 4096, "num_hidden_layers": 4096},
		"stablelm": {"qk_layernorm": true, "num_attention_heads": 4096, "num_key_value_heads": 4096, "hidden_size": 4096 * 48, "num_hidden_layers": 4096},
	}
	for family, values := range many {
		c := families()[family]
		maps.Copy(c, values)
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = readConfig(fstest.MapFS{"config.json": {Data: raw}}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "tensors of its own") {
			t.Errorf("%s: error %v, want ErrConfig", family, err)
		}
	}
}

// TestStateSizeDoesNotOverflow checks that a state of more bytes than an int64 counts is
// refused.
func TestStateSizeDoesNotOverflow(t *testing.T) {
	t.Parallel()
	c := Config{Layers: maxLayers, Heads: maxWidth / 2, KVHeads: maxWidth / 2, HeadDim: 2, Vocab: 1, Hidden: 1, Context: maxContext, embedWidth: 1}
	for _, tokens := range []int{maxContext, maxContext / 4, maxContext / 64} {
		if err := c.checkLength(tokens); !errors.Is(err, ErrFull) {
			t.Errorf("%d tokens: error %v, want ErrFull", tokens, err)
		}
	}
}

// TestPartRows checks the rows of tensors of any shape.
func TestPartRows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		shape         []int
		rows, columns int
	}{{nil, 1, 1}, {[]int{5}, 1, 5}, {[]int{3, 4}, 3, 4}, {[]int{2, 3, 4}, 6, 4}} {
		if rows, columns := (&Part{Shape: tt.shape}).Rows(); rows != tt.rows || columns != tt.columns {
			t.Errorf("shape %v: %d rows of %d, want %d of %d", tt.shape, rows, columns, tt.rows, tt.columns)
		}
	}
}

// TestGemma3Ropes checks which layers turn how fast, in both forms of the file.
func TestGemma3Ropes(t *testing.T) {
	t.Parallel()
	older := families()["gemma3"]
	newer := families()["gemma3"]
	delete(newer, "rope_scaling")
	delete(newer, "sliding_window_pattern")
	newer["layer_types"] = []string{"sliding_attention", "full_attention", "sliding_attention"}
	newer["rope_parameters"] = map[string]any{
		"full_attention":    map[string]any{"rope_type": "linear", "factor": 8, "rope_theta": 1e6},
		"sliding_attention": map[string]any{"rope_type": "default", "rope_theta": 1e4},
	}
	for _, config := range []map[string]any{older, newer} {
		m := load(t, randomBundle(t, config).fsys(t, tensor.F32), 1)
		c := m.config
		if len(c.ropes) != 2 || c.ropes[0].Theta != 1e6 || c.ropes[0].Scaling.Factor != 8 || c.ropes[1].Theta != 1e4 {
			t.Fatalf("ropes %+v", c.ropes)
		}
		for i, want := range []struct{ window, rope int }{{7, 1}, {0, 0}, {7, 1}} {
			if l := m.net.layers[i]; l.window != want.window || l.rope != want.rope {
				t.Errorf("layer %d: window %d and rope %d, want %+v", i, l.window, l.rope, want)
			}
		}
	}
}

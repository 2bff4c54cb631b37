package family

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// families are small decoders of every family and form, as their config.json says them.
func families(t testing.TB) map[string]map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "families.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// read returns what a config.json of these fields says.
func read(t testing.TB, config map[string]any) (Config, error) {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return ReadConfig(fstest.MapFS{"config.json": {Data: raw}})
}

func TestConfigs(t *testing.T) {
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
		config := families(t)[tt.family]
		config[tt.key] = tt.value
		_, err := read(t, config)
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
		c := families(t)[family]
		maps.Copy(c, values)
		if _, err := read(t, c); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "tensors of its own") {
			t.Errorf("%s: error %v, want ErrConfig", family, err)
		}
	}
}

func TestWindows(t *testing.T) {
	t.Parallel()
	base := `{"vocab_size":9,"max_position_embeddings":9,"hidden_size":8,"num_hidden_layers":3,"num_attention_heads":2,"intermediate_size":4`
	for _, tt := range []struct {
		name   string
		config func([]byte) (Config, error)
		json   string
		want   []int
	}{
		{"mistral default", mistralConfig, `}`, []int{4096, 4096, 4096}},
		{"mistral null", mistralConfig, `,"sliding_window":null}`, []int{0, 0, 0}},
		{"mistral", mistralConfig, `,"sliding_window":8}`, []int{8, 8, 8}},
		{"qwen2 off", qwen2Config, `,"sliding_window":8,"use_sliding_window":false,"max_window_layers":1}`, []int{0, 0, 0}},
		{"qwen2 on", qwen2Config, `,"sliding_window":8,"use_sliding_window":true,"max_window_layers":1}`, []int{0, 8, 8}},
		{"llama has none", llamaConfig, `,"sliding_window":8}`, []int{0, 0, 0}},
	} {
		c, err := tt.config([]byte(base + tt.json))
		if err != nil {
			t.Fatal(err)
		}
		got := []int{c.WindowOf(0), c.WindowOf(1), c.WindowOf(2)}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: windows %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestGemma3Ropes checks which layers turn how fast, in both forms of the file.
func TestGemma3Ropes(t *testing.T) {
	t.Parallel()
	older := families(t)["gemma3"]
	newer := families(t)["gemma3"]
	delete(newer, "rope_scaling")
	delete(newer, "sliding_window_pattern")
	newer["layer_types"] = []string{"sliding_attention", "full_attention", "sliding_attention"}
	newer["rope_parameters"] = map[string]any{
		"full_attention":    map[string]any{"rope_type": "linear", "factor": 8, "rope_theta": 1e6},
		"sliding_attention": map[string]any{"rope_type": "default", "rope_theta": 1e4},
	}
	for _, config := range []map[string]any{older, newer} {
		c, err := read(t, config)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Ropes) != 2 || c.Ropes[0].Theta != 1e6 || c.Ropes[0].Scaling.Factor != 8 || c.Ropes[1].Theta != 1e4 {
			t.Fatalf("ropes %+v", c.Ropes)
		}
		for i, want := range []struct{ window, rope int }{{7, 1}, {0, 0}, {7, 1}} {
			if window, rope := c.WindowOf(i), c.RopeOf(i); window != want.window || rope != want.rope {
				t.Errorf("layer %d: window %d and rope %d, want %+v", i, window, rope, want)
			}
		}
	}
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

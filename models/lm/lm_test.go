package lm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"helicon/models/lm/family"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// same stops at the first logit that differs in its bits.
func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) {
			t.Fatalf("%s: logit %d is %v, want %v, bit for bit", what, i, got[i], w)
		}
	}
}

// variants are the small models that equivalences are tested on.
func variants(t *testing.T) map[string]fs.FS {
	llama := randomLlama(smallLlama)
	mistral := randomLlama(smallLlama)
	mistral.config["architectures"] = []string{"MistralForCausalLM"}
	mistral.config["sliding_window"] = 5
	return map[string]fs.FS{
		"llama BF16":  llama.fsys(t, tensor.BF16),
		"llama F32":   llama.fsys(t, tensor.F32),
		"mistral F16": mistral.fsys(t, tensor.F16),
	}
}

// TestEquivalence checks, bit for bit, that a sequence has the same logits however
// it is cut into calls, with one thread or two, in a fresh or a used state.
func TestEquivalence(t *testing.T) {
	t.Parallel()
	for name, fsys := range variants(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testEquivalence(t, fsys, chunkTokens+40)
		})
	}
}

// testEquivalence runs a model on n tokens, at least 60.
func testEquivalence(t *testing.T, fsys fs.FS, n int) {
	ids := someTokens(n, smallLlama.vocab)
	one, two := load(t, fsys, 1), load(t, fsys, 2)
	s := newState(t, one, len(ids))
	var all []float32
	err := one.Observe(t.Context(), s, ids, Observer{Logits: func(position int, logits []float32) {
		if position != len(all)/smallLlama.vocab {
			t.Errorf("logits of position %d after %d", position, len(all)/smallLlama.vocab)
		}
		all = append(all, logits...)
	}})
	if err != nil {
		t.Fatal(err)
	}
	at := func(n int) []float32 { return all[(n-1)*smallLlama.vocab:][:smallLlama.vocab] }

	parallel := newState(t, two, len(ids))
	same(t, "two threads", forward(t, two, parallel, ids), at(len(ids)))
	cached := newState(t, one, len(ids))
	for i := range ids {
		same(t, fmt.Sprintf("token %d alone", i), forward(t, one, cached, ids[i:i+1]), at(i+1))
	}
	cached.Truncate(7)
	same(t, "after Truncate", forward(t, one, cached, ids[7:50]), at(50))
	same(t, "in pieces", forward(t, one, cached, ids[50:]), at(len(ids)))
}

// TestTypesAgree checks that weights which BF16 holds exactly give the same logits
// from either type.
func TestTypesAgree(t *testing.T) {
	t.Parallel()
	b := randomLlama(smallLlama)
	ids := someTokens(20, smallLlama.vocab)
	run := func(d tensor.DType) []float32 {
		m := loadOn(t, b.fsys(t, d), tensor.Config{Threads: 1, Exact: true})
		return forward(t, m, newState(t, m, 20), ids)
	}
	same(t, "BF16 against F32", run(tensor.BF16), run(tensor.F32))
}

// TestConcurrentGenerations runs two texts at once on one model and one pool.
func TestConcurrentGenerations(t *testing.T) {
	t.Parallel()
	m := load(t, randomLlama(smallLlama).fsys(t, tensor.BF16), 2)
	generate := func(first int) []int {
		s, err := m.NewState(60)
		if err != nil {
			t.Error(err)
			return nil
		}
		ids := []int{first}
		for len(ids) < 50 {
			logits, err := m.Forward(t.Context(), s, ids[len(ids)-1:])
			if err != nil {
				t.Error(err)
				return nil
			}
			ids = append(ids, argmax(logits))
		}
		return ids
	}
	want := [][]int{generate(1), generate(2), generate(3)}
	var group sync.WaitGroup
	for i := range want {
		group.Go(func() {
			if got := generate(i + 1); !slices.Equal(got, want[i]) {
				t.Errorf("text %d beside others is %v, alone %v", i, got, want[i])
			}
		})
	}
	group.Wait()
}

func TestDecodeAllocatesNothing(t *testing.T) {
	m := load(t, randomLlama(smallLlama).fsys(t, tensor.BF16), 2)
	s := newState(t, m, 200)
	ctx, token := t.Context(), []int{3}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := m.Forward(ctx, s, token); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a token allocates %v times", n)
	}
}

func TestForwardErrors(t *testing.T) {
	t.Parallel()
	m := load(t, randomLlama(smallLlama).fsys(t, tensor.BF16), 1)
	other := load(t, randomLlama(smallLlama).fsys(t, tensor.BF16), 1)
	s := newState(t, m, 10)
	want := slices.Clone(forward(t, m, s, []int{1, 2, 3}))
	for _, tt := range []struct {
		name  string
		state *State
		ids   []int
		want  error
	}{
		{"no tokens", s, nil, ErrToken},
		{"negative token", s, []int{1, -1}, ErrToken},
		{"token beyond the vocabulary", s, []int{smallLlama.vocab}, ErrToken},
		{"too many tokens", s, make([]int, 8), ErrFull},
		{"state of another model", newState(t, other, 10), []int{1}, nil},
	} {
		if _, err := m.Forward(t.Context(), tt.state, tt.ids); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
	}
	if s.Len() != 3 {
		t.Fatalf("length %d after errors, want 3", s.Len())
	}
	s.Truncate(2)
	same(t, "after errors", forward(t, m, s, []int{3}), want)
	for _, n := range []int{0, -1, family.MaxContext + 1} {
		if _, err := m.NewState(n); !errors.Is(err, ErrFull) {
			t.Errorf("state for %d tokens: %v, want ErrFull", n, err)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("Truncate beyond the length does not panic")
			}
		}()
		s.Truncate(4)
	}()
}

func TestForwardStopsWithItsContext(t *testing.T) {
	t.Parallel()
	m := load(t, randomLlama(smallLlama).fsys(t, tensor.BF16), 1)
	s := newState(t, m, 2*chunkTokens)
	ids := someTokens(2*chunkTokens, smallLlama.vocab)
	reason := errors.New("not wanted any more")
	ctx, cancel := context.WithCancelCause(t.Context())
	layers := 0
	err := m.Observe(ctx, s, ids, Observer{Hidden: func(layer, position int, _ []float32) {
		if layers++; layer == 1 && position == 0 {
			cancel(reason)
		}
	}})
	if !errors.Is(err, reason) || layers != smallLlama.layers+1 || s.Len() != 0 {
		t.Errorf("error %v after %d states and %d tokens, want %v after those of one chunk and 0", err, layers, s.Len(), reason)
	}
	if len(forward(t, m, s, ids)) != smallLlama.vocab || s.Len() != len(ids) {
		t.Error("the state is of no use after a cancellation")
	}
}

func TestEstimate(t *testing.T) {
	t.Parallel()
	all := variants(t)
	for name, config := range families(t) {
		all[name] = randomBundle(t, config).fsys(t, tensor.F32)
	}
	all["longrope"] = randomBundle(t, longrope(t)).fsys(t, tensor.F32)
	for name, fsys := range all {
		m := load(t, fsys, 1)
		for _, tokens := range []int{1, 50, 250} {
			f, err := Estimate(fsys, tokens)
			if err != nil {
				t.Fatal(err)
			}
			s := newState(t, m, tokens)
			p := s.pass
			var floats int
			for _, x := range [][]float32{
				p.x, p.h, p.side, p.q, p.k, p.v, p.gate, p.up, p.keyBias, p.logits,
				p.routing.weights, p.routing.in, p.routing.out, p.routing.share,
			} {
				floats += len(x)
			}
			for _, a := range p.angles {
				floats += len(a.cos) + len(a.sin)
			}
			want := s.seq.cache.bytes() + 4*int64(floats+cap(s.seq.table)) +
				8*int64(len(p.ids)+len(p.wanted)+cap(s.seq.text)+len(p.routing.tokens))
			if f.State != want || s.Bytes() != want {
				t.Errorf("%s: a state for %d tokens is estimated at %d, said to be %d, is %d bytes", name, tokens, f.State, s.Bytes(), want)
			}
			if f.Weights != m.Bytes() {
				t.Errorf("%s: weights estimated at %d, are %d bytes", name, f.Weights, m.Bytes())
			}
		}
	}
	huge := randomLlama(smallLlama)
	huge.config["num_hidden_layers"], huge.config["head_dim"] = 1<<12, 1<<16
	if _, err := Estimate(huge.fsys(t, tensor.F32), family.MaxContext); !errors.Is(err, ErrFull) {
		t.Errorf("an absurd state: %v, want ErrFull", err)
	}
}

func TestConfigs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		key   string
		value any // nil removes the key
		want  error
		text  string
	}{
		{"unknown architecture", "architectures", []string{"NoSuchLM"}, family.ErrUnsupported, "LlamaForCausalLM, MistralForCausalLM"},
		{"other head", "architectures", []string{"LlamaForSequenceClassification"}, family.ErrUnsupported, "LlamaForSequenceClassification"},
		{"by model type", "architectures", nil, nil, ""},
		{"no layers", "num_hidden_layers", nil, family.ErrConfig, "number of layers is missing"},
		{"negative layers", "num_hidden_layers", -1, family.ErrConfig, "-1"},
		{"absurd vocabulary", "vocab_size", 1 << 40, family.ErrConfig, "vocabulary"},
		{"fractional size", "hidden_size", 48.5, family.ErrConfig, "48.5"},
		{"heads do not divide", "num_key_value_heads", 4, family.ErrConfig, "6 heads"},
		{"odd head", "head_dim", 9, family.ErrConfig, "9 rotated components"},
		{"unknown activation", "hidden_act", "maxout", family.ErrConfig, "maxout"},
		{"negative eps", "rms_norm_eps", -1e-6, family.ErrConfig, "epsilon"},
		{"theta", "rope_theta", 0.5, family.ErrConfig, "rope_theta"},
		{"unknown rope", "rope_scaling", map[string]any{"type": "longrope", "factor": 2}, family.ErrConfig, "longrope"},
		{"rope factor", "rope_scaling", map[string]any{"rope_type": "linear", "factor": 0}, family.ErrConfig, "factor"},
		{"newer rope", "rope_parameters", map[string]any{"rope_type": "default", "rope_theta": 5000}, nil, ""},
		{"context", "max_position_embeddings", 0, family.ErrConfig, "context"},
		{"another vocabulary", "vocab_size", 96, weights.ErrShape, "embed_tokens.weight"},
		{"another layer", "num_hidden_layers", 3, weights.ErrMissing, "model.layers.2."},
		{"untied without a head", "tie_word_embeddings", false, weights.ErrMissing, "lm_head.weight"},
		{"biases that are not there", "attention_bias", true, weights.ErrMissing, "q_proj.bias"},
		{"end of text", "eos_token_id", "</s>", family.ErrConfig, "config.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := randomLlama(smallLlama)
			if tt.value == nil {
				delete(b.config, tt.key)
			} else {
				b.config[tt.key] = tt.value
			}
			m, err := Load(b.fsys(t, tensor.BF16), Options{})
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want %v with %q", err, tt.want, tt.text)
			}
			if err == nil {
				s := newState(t, m, 4)
				forward(t, m, s, []int{1, 2})
			}
		})
	}
}

func TestConfigIsRead(t *testing.T) {
	t.Parallel()
	fsys := randomLlama(smallLlama).fsys(t, tensor.BF16)
	c := load(t, fsys, 1).Config()
	if c.Architecture != "LlamaForCausalLM" || c.Vocab != smallLlama.vocab || c.Context != smallLlama.context || c.Layers != smallLlama.layers ||
		!slices.Equal(c.EOS, []int{1, 2}) || !slices.Equal(c.BOS, []int{0}) {
		t.Errorf("config %+v", c)
	}
	fsys["generation_config.json"] = &fstest.MapFile{Data: []byte(`{"eos_token_id": 9}`)}
	if c = load(t, fsys, 1).Config(); !slices.Equal(c.EOS, []int{9}) || !slices.Equal(c.BOS, []int{0}) {
		t.Errorf("ends of text %v, beginnings %v; want [9], [0]", c.EOS, c.BOS)
	}
}

// FuzzConfig checks that whatever config.json says, it is refused or can be reckoned with.
func FuzzConfig(f *testing.F) {
	fsys := randomLlama(smallLlama).fsys(f, tensor.BF16)
	f.Add(fsys["config.json"].Data)
	f.Add([]byte(`{"architectures":["GPT2LMHeadModel"],"vocab_size":9,"n_positions":9,"n_embd":8,"n_layer":1,"n_head":2}`))
	f.Add([]byte(`{"model_type":"qwen2","vocab_size":9,"max_position_embeddings":9,"hidden_size":8,"num_hidden_layers":1,` +
		`"num_attention_heads":2,"intermediate_size":3,"rope_scaling":{"type":"yarn","factor":4},"use_sliding_window":true}`))
	for _, config := range append(slices.Collect(maps.Values(families(f))), longrope(f)) {
		raw, err := json.Marshal(config)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		folder := fstest.MapFS{"config.json": {Data: config}, "model.safetensors": fsys["model.safetensors"]}
		footprint, err := Estimate(folder, 8)
		if err == nil && footprint.State <= 0 {
			t.Errorf("a state of %d bytes", footprint.State)
		}
		if err != nil && !errors.Is(err, family.ErrConfig) && !errors.Is(err, family.ErrUnsupported) && !errors.Is(err, ErrFull) &&
			!errors.Is(err, weights.ErrMissing) && !errors.Is(err, weights.ErrShape) {
			t.Errorf("error %v is none of ours", err)
		}
		m, loadErr := Load(folder, Options{})
		if loadErr == nil {
			forward(t, m, newState(t, m, 8), []int{0})
		} else if err == nil {
			t.Errorf("what was estimated cannot be loaded: %v", loadErr)
		}
	})
}

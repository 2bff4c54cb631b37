package clip

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// smallText and smallVision are networks of two layers.
func smallText() TextConfig {
	return TextConfig{
		Vocab: 20, Hidden: 16, Intermediate: 24, Layers: 2, Heads: 2, Positions: 6, Projection: 8,
		Activation: "quick_gelu", Eps: 1e-5, EOS: 19, Projected: true,
	}
}

func smallVision() VisionConfig {
	return VisionConfig{
		Hidden: 16, Intermediate: 24, Layers: 2, Heads: 2, Channels: 3, Image: 9, Patch: 4, Projection: 8,
		Activation: "gelu", Eps: 1e-5, Projected: true,
	}
}

// shapes lists the tensors of both.
func shapes(c Config) map[string][]int {
	t, v := c.Text, c.Vision
	s := map[string][]int{
		"logit_scale": {},
		"text_model.embeddings.token_embedding.weight":    {t.Vocab, t.Hidden},
		"text_model.embeddings.position_embedding.weight": {t.Positions, t.Hidden},
		"text_projection.weight":                          {t.Projection, t.Hidden},

		"vision_model.embeddings.class_embedding":           {v.Hidden},
		"vision_model.embeddings.patch_embedding.weight":    {v.Hidden, v.Channels, v.Patch, v.Patch},
		"vision_model.embeddings.position_embedding.weight": {v.Tokens(), v.Hidden},
		"visual_projection.weight":                          {v.Projection, v.Hidden},
	}
	norm := func(name string, n int) { s[name+".weight"], s[name+".bias"] = []int{n}, []int{n} }
	norm("text_model.final_layer_norm", t.Hidden)
	norm("vision_model.pre_layrnorm", v.Hidden)
	norm("vision_model.post_layernorm", v.Hidden)
	for prefix, z := range map[string][2]int{"text_model": {t.Hidden, t.Intermediate}, "vision_model": {v.Hidden, v.Intermediate}} {
		for i := range 2 {
			layer := fmt.Sprintf("%s.encoder.layers.%d", prefix, i)
			norm(layer+".layer_norm1", z[0])
			norm(layer+".layer_norm2", z[0])
			for _, l := range []string{"q_proj", "k_proj", "v_proj", "out_proj"} {
				s[layer+".self_attn."+l+".weight"], s[layer+".self_attn."+l+".bias"] = []int{z[0], z[0]}, []int{z[0]}
			}
			s[layer+".mlp.fc1.weight"], s[layer+".mlp.fc1.bias"] = []int{z[1], z[0]}, []int{z[1]}
			s[layer+".mlp.fc2.weight"], s[layer+".mlp.fc2.bias"] = []int{z[0], z[1]}, []int{z[0]}
		}
	}
	return s
}

// randomStore has tensors of the given shapes in F32.
func randomStore(t testing.TB, all map[string][]int) *weights.Store {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	header, body := map[string]any{}, []byte(nil)
	for name, shape := range all {
		n, begin := 1, len(body)
		for _, d := range shape {
			n *= d
		}
		for range n {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(float32(random.NormFloat64())/4))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(body)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	data := slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body)
	s, err := weights.OpenFile(fstest.MapFS{"w.safetensors": {Data: data}}, "w.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func small(t testing.TB) *Model {
	t.Helper()
	c := Config{Text: smallText(), Vision: smallVision()}
	m, err := Load(randomStore(t, shapes(c)).Packed(nil, tensor.F32), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMissing(t *testing.T) {
	t.Parallel()
	c := Config{Text: smallText(), Vision: smallVision()}
	for name := range shapes(c) {
		all := shapes(c)
		delete(all, name)
		if _, err := Load(randomStore(t, all), c); !errors.Is(err, weights.ErrMissing) || !strings.Contains(err.Error(), strings.TrimPrefix(name, "text_model.")) {
			t.Fatalf("without %s: %v", name, err)
		}
	}
}

// TestEnd checks which token ends a text.
func TestEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		eos  int
		ids  []int
		want int
	}{
		{19, []int{1, 19, 19, 19}, 1},
		{19, []int{1, 2, 3, 4}, 0},
		{2, []int{1, 7, 19, 19}, 2},
		{2, []int{21, 7, 20, 9}, 3},
		{2, []int{20, 20, 20}, 0},
	} {
		m := &Text{config: TextConfig{Vocab: 20, EOS: tt.eos}}
		if got := m.end(tt.ids); got != tt.want {
			t.Errorf("eos %d: %v ends at %d, want %d", tt.eos, tt.ids, got, tt.want)
		}
	}
}

// TestVectors checks that a learned word with the vector of a token is like the token, and
// that texts do not depend on their neighbours.
func TestVectors(t *testing.T) {
	t.Parallel()
	m := small(t).Text
	e, st := tensor.NewExec(nil), m.NewState(2)
	run := func(in TextInput) []float32 {
		t.Helper()
		if err := m.Forward(e, st, in); err != nil {
			t.Fatal(err)
		}
		return slices.Concat(st.Last(), st.Embeds())
	}
	vector := make([]float32, m.config.Hidden)
	m.tokens.Forward(vector, []int{5})
	want := run(TextInput{IDs: []int{1, 5, 19}})
	if got := run(TextInput{IDs: []int{1, 20, 19}, Vectors: vector}); !slices.Equal(got, want) {
		t.Error("a learned word is not what it was taught")
	}
	two := run(TextInput{IDs: []int{1, 5, 19, 3, 4, 19}, Batch: 2})
	if n := 3 * m.config.Hidden; !slices.Equal(two[:n], want[:n]) {
		t.Error("a text depends on its neighbour")
	}
}

func TestInputErrors(t *testing.T) {
	t.Parallel()
	m := small(t)
	e, st, seen := tensor.NewExec(nil), m.Text.NewState(1), m.Vision.NewState(1)
	for _, in := range []TextInput{
		{}, {IDs: []int{20}}, {IDs: []int{-1}}, {IDs: make([]int, 7)}, {IDs: make([]int, 2), Batch: 2},
		{IDs: make([]int, 3), Batch: 2}, {IDs: []int{1}, Vectors: make([]float32, 3)},
	} {
		if err := m.Text.Forward(e, st, in); !errors.Is(err, ErrInput) {
			t.Errorf("%v: %v", in, err)
		}
	}
	for _, n := range []int{0, 1, 2 * 9 * 9 * 3} {
		if err := m.Vision.Forward(e, seen, make([]float32, n)); !errors.Is(err, ErrInput) {
			t.Errorf("%d floats: %v", n, err)
		}
	}
}

func TestAllocations(t *testing.T) {
	m := small(t)
	e, st, seen := tensor.NewExec(nil), m.Text.NewState(2), m.Vision.NewState(1)
	ids, pixels := []int{1, 5, 19, 3, 4, 19}, make([]float32, 9*9*3)
	n := testing.AllocsPerRun(5, func() {
		if m.Text.Forward(e, st, TextInput{IDs: ids, Batch: 2}) != nil || m.Vision.Forward(e, seen, pixels) != nil {
			t.Fatal("no result")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
	if st.Bytes() <= 0 || seen.Bytes() <= 0 || m.Bytes() <= 0 {
		t.Error("no memory")
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		json string
		want error
	}{
		{`[]`, ErrConfig}, {`{"vocab_size":0}`, ErrConfig}, {`{"hidden_size":-1}`, ErrConfig},
		{`{"hidden_size":65}`, ErrConfig}, {`{"num_hidden_layers":99999}`, ErrConfig}, {`{"max_position_embeddings":0}`, ErrConfig},
		{`{"layer_norm_eps":2}`, ErrConfig}, {`{"hidden_act":"sine"}`, ErrUnsupported}, {`{"use_attention_mask":true}`, ErrUnsupported},
	} {
		if _, err := ParseTextConfig([]byte(tt.json)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.json, err, tt.want)
		}
	}
	for _, tt := range []struct {
		json string
		want error
	}{
		{`[]`, ErrConfig}, {`{"vision_config":{"image_size":0}}`, ErrConfig}, {`{"vision_config":{"patch_size":225}}`, ErrConfig},
		{`{"projection_dim":-1}`, ErrConfig}, {`{"text_config":{"hidden_act":""}}`, ErrUnsupported},
	} {
		if _, err := ParseConfig([]byte(tt.json)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.json, err, tt.want)
		}
	}
	c, err := ParseVisionConfig([]byte(`{"architectures":["CLIPVisionModelWithProjection"]}`))
	if err != nil || !c.Projected || c.Tokens() != 50 {
		t.Errorf("defaults: %+v, %v", c, err)
	}
}

// FuzzConfig checks that no configuration makes loading panic.
func FuzzConfig(f *testing.F) {
	for _, c := range []any{smallText(), smallVision(), map[string]any{"text_config": smallText(), "vision_config": smallVision(), "projection_dim": 8}} {
		raw, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	s := randomStore(f, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseTextConfig(data); err == nil {
			if _, err := LoadText(s, c); err == nil {
				t.Error("loaded from nothing")
			}
		}
		if c, err := ParseVisionConfig(data); err == nil {
			if _, err := LoadVision(s, c); err == nil {
				t.Error("loaded from nothing")
			}
		}
		if c, err := ParseConfig(data); err == nil {
			if _, err := Load(s, c); err == nil {
				t.Error("loaded from nothing")
			}
		}
	})
}

package nn

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// store has, in F16, the weight [[1 2 3] [4 5 6]] and the bias [7 8] under "layer".
func store(t *testing.T) *weights.Store {
	t.Helper()
	header := `{"layer.weight":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},` +
		`"layer.bias":{"dtype":"F16","shape":[2],"data_offsets":[12,16]}}`
	data := append([]byte{byte(len(header)), 0, 0, 0, 0, 0, 0, 0}, header...)
	for _, half := range []uint16{0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800} {
		data = append(data, byte(half), byte(half>>8))
	}
	s, err := weights.OpenFile(fstest.MapFS{"w.safetensors": {Data: data}}, "w.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	return s.Sub("layer")
}

func TestLinear(t *testing.T) {
	t.Parallel()
	e := tensor.NewExec(nil)
	l, err := LoadLinear(store(t), 2, 3, true)
	if err != nil {
		t.Fatal(err)
	}
	y := make([]float32, 4)
	l.Forward(e, y, []float32{1, 0, -1, 0, 10, 0})
	if want := []float32{5, 6, 27, 58}; !slices.Equal(y, want) {
		t.Errorf("linear: %v, want %v", y, want)
	}
	l.Slice(1, 2).Forward(e, y[:1], []float32{1, 0, 0})
	if y[0] != 12 {
		t.Errorf("slice: %v, want 12", y[0])
	}
	if l.Bytes() != 12+8 {
		t.Errorf("%d bytes, want 20", l.Bytes())
	}
	l.Gather([]int{1, 1, 0}).Forward(e, y[:3], []float32{1, 0, 0})
	if want := []float32{12, 12, 8}; !slices.Equal(y[:3], want) {
		t.Errorf("gathered: %v, want %v", y[:3], want)
	}
	turned, err := LoadConv1D(store(t), 3, 2, false)
	if err != nil {
		t.Fatal(err)
	}
	turned.Forward(e, y[:3], []float32{1, 100})
	if want := []float32{401, 502, 603}; !slices.Equal(y[:3], want) {
		t.Errorf("conv1d: %v, want %v", y[:3], want)
	}
	if _, err := LoadLinear(store(t), 3, 2, false); err == nil || !strings.Contains(err.Error(), `"layer.weight": shape [2 3], want [3 2]`) {
		t.Errorf("wrong shape: %v", err)
	}
	if _, err := LoadConv1D(store(t), 3, 2, true); err == nil || !strings.Contains(err.Error(), `"layer.bias"`) {
		t.Errorf("wrong bias: %v", err)
	}
}

func TestEmbedding(t *testing.T) {
	t.Parallel()
	m, err := LoadEmbedding(store(t), 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	y := make([]float32, 6)
	m.Forward(y, []int{1, 0})
	if want := []float32{4, 5, 6, 1, 2, 3}; !slices.Equal(y, want) {
		t.Errorf("rows %v, want %v", y, want)
	}
	m.Scale = 2
	m.Forward(y, []int{1})
	if want := []float32{8, 10, 12, 1, 2, 3}; !slices.Equal(y, want) {
		t.Errorf("scaled rows %v, want %v", y, want)
	}
}

func TestNorms(t *testing.T) {
	t.Parallel()
	file := map[string][]float32{"a.weight": {0, 1}, "a.bias": {5, 6}, "h.norms.0.weight": {1, 1}, "h.norms.1.weight": {2, 4}}
	s := f32Store(t, file)
	e := tensor.NewExec(nil)
	half := float32(math.Sqrt(0.5)) // of 1 and 0, the root mean square
	less, err := LoadRMSNormLessOne(s.Sub("a"), 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	layer, err := LoadLayerNorm(s.Sub("a"), 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	heads, err := LoadHeadLayerNorm(s.Sub("h"), 2, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		norm    Norm
		x, want []float32
	}{
		{"less one", less, []float32{0, 1}, []float32{0, 2 / half}},
		{"layer", layer, []float32{3, 1}, []float32{5, 5}},
		{"heads", heads, []float32{3, 1, 3, 1}, []float32{1, -1, 2, -4}},
	} {
		tt.norm.Forward(e, tt.x, tt.x)
		for i, want := range tt.want {
			if math.Abs(float64(tt.x[i]-want)) > 1e-6 {
				t.Errorf("%s: %v, want %v", tt.name, tt.x, tt.want)
				break
			}
		}
	}
	if _, err := LoadHeadLayerNorm(s.Sub("h"), 3, 2, 0); err == nil || !strings.Contains(err.Error(), `"h.norms.2.weight"`) {
		t.Errorf("missing head: %v", err)
	}
	if _, err := LoadRMSNormLessOne(s.Sub("h"), 2, 0); err == nil || !strings.Contains(err.Error(), `"h.weight"`) {
		t.Errorf("missing norm: %v", err)
	}
}

// f32Store has the given vectors.
func f32Store(t *testing.T, vectors map[string][]float32) *weights.Store {
	t.Helper()
	header, body := map[string]any{}, []byte(nil)
	for name, v := range vectors {
		begin := len(body)
		for _, f := range v {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(f))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": []int{len(v)}, "data_offsets": []int{begin, len(body)}}
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
	return s
}

// TestRopeFrequencies checks what the formulas of the scalings say at their ends;
// the values between are compared with the reference by the goldens of package lm.
func TestRopeFrequencies(t *testing.T) {
	t.Parallel()
	const dim, theta = 64, 10000.0
	plain := func(i int) float64 { return math.Pow(theta, -float64(2*i)/dim) }
	last := dim/2 - 1
	for _, tt := range []struct {
		name, scaling string
		first, last   float64
	}{
		{"none", `null`, plain(0), plain(last)},
		{"default", `{"type":"default"}`, plain(0), plain(last)},
		{"linear", `{"type":"linear","factor":4}`, plain(0) / 4, plain(last) / 4},
		{"llama3", `{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":1024}`, plain(0), plain(last) / 8},
		{"yarn", `{"rope_type":"yarn","factor":8}`, plain(0), plain(last) / 8},
	} {
		var s *RopeScaling
		if err := json.Unmarshal([]byte(tt.scaling), &s); err != nil {
			t.Fatal(err)
		}
		r, err := NewRope(RopeConfig{Dim: dim, Theta: theta, Context: 2048, Scaling: s})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if r.Half() != dim/2 {
			t.Fatalf("%s: %d pairs", tt.name, r.Half())
		}
		for i, want := range map[int]float64{0: tt.first, last: tt.last} {
			if got := float64(r.frequency[i]); math.Abs(got-want) > 1e-6*want {
				t.Errorf("%s: frequency %d is %v, want %v", tt.name, i, got, want)
			}
		}
	}
}

func TestRopeAngles(t *testing.T) {
	t.Parallel()
	r, err := NewRope(RopeConfig{Dim: 4, Theta: 100, Context: 8, Scaling: &RopeScaling{Type: "dynamic", Factor: 2}})
	if err != nil {
		t.Fatal(err)
	}
	check := func(length int, second float64) {
		t.Helper()
		cos, sin := make([]float32, 4), make([]float32, 4)
		r.Angles(cos, sin, 6, length)
		for i, angle := range []float64{6, 6 * second, 7, 7 * second} {
			if math.Abs(float64(cos[i])-math.Cos(angle)) > 1e-6 || math.Abs(float64(sin[i])-math.Sin(angle)) > 1e-6 {
				t.Errorf("length %d: angle %d has cosine %v and sine %v, want those of %v", length, i, cos[i], sin[i], angle)
			}
		}
	}
	check(8, 0.1)
	base := 100 * (2*16.0/8 - 1) * (2*16.0/8 - 1) // twice the context: (2·16/8 - 1)^(4/2)
	check(16, 1/math.Sqrt(base))
}

// TestLongrope checks the factors of Ding et al. 2024 on both sides of the original
// context, and the scale of the attention.
func TestLongrope(t *testing.T) {
	t.Parallel()
	s := &RopeScaling{Type: "longrope", OriginalContext: 8, ShortFactor: []float64{1, 2}, LongFactor: []float64{3, 4}}
	r, err := NewRope(RopeConfig{Dim: 4, Theta: 100, Context: 64, Scaling: s})
	if err != nil {
		t.Fatal(err)
	}
	size := math.Sqrt(1 + math.Log(8)/math.Log(8))
	for length, factors := range map[int][]float64{8: s.ShortFactor, 9: s.LongFactor} {
		cos, sin := make([]float32, 2), make([]float32, 2)
		r.Angles(cos, sin, 5, length)
		for i, f := range factors {
			angle := 5 / f / math.Pow(10, float64(i))
			if math.Abs(float64(cos[i])-size*math.Cos(angle)) > 1e-6 || math.Abs(float64(sin[i])-size*math.Sin(angle)) > 1e-6 {
				t.Errorf("length %d: angle %d has cosine %v and sine %v, want those of %v times %v", length, i, cos[i], sin[i], angle, size)
			}
		}
		if r.Long(length) != (length > 8) {
			t.Errorf("length %d: long %v", length, r.Long(length))
		}
	}
	if !r.Switches() || (Rope{}).Switches() {
		t.Error("only longrope switches")
	}
	for _, tt := range []struct {
		name string
		s    RopeScaling
		want float64
	}{
		{"given", RopeScaling{AttentionFactor: 3, Factor: 4}, 3},
		{"by the factor", RopeScaling{Factor: 8}, math.Sqrt(1 + math.Log(8)/math.Log(64))},
		{"no stretch", RopeScaling{OriginalContext: 128}, 1},
	} {
		tt.s.Type, tt.s.ShortFactor, tt.s.LongFactor = "longrope", s.ShortFactor, s.LongFactor
		r, err := NewRope(RopeConfig{Dim: 4, Theta: 100, Context: 64, Scaling: &tt.s})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(float64(r.factor)-tt.want) > 1e-6 {
			t.Errorf("%s: scale of the attention %v, want %v", tt.name, r.factor, tt.want)
		}
	}
}

func TestRopeErrors(t *testing.T) {
	t.Parallel()
	good := RopeConfig{Dim: 4, Theta: 10000, Context: 8}
	for _, tt := range []struct {
		name   string
		change func(*RopeConfig)
		want   string
	}{
		{"odd dimension", func(c *RopeConfig) { c.Dim = 3 }, "even"},
		{"no dimension", func(c *RopeConfig) { c.Dim = 0 }, "even"},
		{"theta", func(c *RopeConfig) { c.Theta = math.NaN() }, "rope_theta"},
		{"infinite theta", func(c *RopeConfig) { c.Theta = math.Inf(1) }, "rope_theta"},
		{"context", func(c *RopeConfig) { c.Context = 0 }, "max_position"},
		{"type", func(c *RopeConfig) { c.Scaling = &RopeScaling{Type: "mrope"} }, `"mrope"`},
		{"factor", func(c *RopeConfig) { c.Scaling = &RopeScaling{Type: "linear", Factor: 0.5} }, "factor"},
		{"tiny dynamic", func(c *RopeConfig) { c.Dim = 2; c.Scaling = &RopeScaling{Type: "dynamic", Factor: 2} }, "dynamic"},
		{"llama3", func(c *RopeConfig) { c.Scaling = &RopeScaling{Type: "llama3", Factor: 2} }, "low_freq_factor"},
		{"yarn", func(c *RopeConfig) { c.Scaling = &RopeScaling{Type: "yarn", Factor: 2, BetaFast: -1} }, "beta_fast"},
		{"longrope", func(c *RopeConfig) {
			c.Scaling = &RopeScaling{Type: "longrope", ShortFactor: []float64{1}, LongFactor: []float64{1, 2}}
		}, "1 in short_factor and 2 in long_factor, want 2"},
		{"longrope factor", func(c *RopeConfig) {
			c.Scaling = &RopeScaling{Type: "longrope", ShortFactor: []float64{1, 0}, LongFactor: []float64{1, 2}}
		}, "factor 0"},
		{"longrope context", func(c *RopeConfig) {
			c.Scaling = &RopeScaling{Type: "longrope", OriginalContext: 1, ShortFactor: []float64{1, 1}, LongFactor: []float64{1, 2}}
		}, "original_max_position_embeddings 1"},
	} {
		c := good
		tt.change(&c)
		if _, err := NewRope(c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

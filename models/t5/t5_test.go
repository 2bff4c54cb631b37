package t5

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

func smallConfig() Config {
	return Config{
		Vocab: 20, Width: 16, HeadDim: 4, Inner: 24, Layers: 2, Heads: 3, Buckets: 8, MaxDistance: 20,
		Eps: 1e-6, FeedForward: "gated-gelu",
	}
}

// shapes lists the tensors of a gated encoder.
func shapes(c Config) map[string][]int {
	inner := c.Heads * c.HeadDim
	s := map[string][]int{
		"shared.weight":                   {c.Vocab, c.Width},
		"encoder.final_layer_norm.weight": {c.Width},
		"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": {c.Buckets, c.Heads},
	}
	for i := range c.Layers {
		block := fmt.Sprintf("encoder.block.%d.layer.", i)
		s[block+"0.layer_norm.weight"], s[block+"1.layer_norm.weight"] = []int{c.Width}, []int{c.Width}
		for _, l := range []string{"q", "k", "v"} {
			s[block+"0.SelfAttention."+l+".weight"] = []int{inner, c.Width}
		}
		s[block+"0.SelfAttention.o.weight"] = []int{c.Width, inner}
		s[block+"1.DenseReluDense.wi_0.weight"] = []int{c.Inner, c.Width}
		s[block+"1.DenseReluDense.wi_1.weight"] = []int{c.Inner, c.Width}
		s[block+"1.DenseReluDense.wo.weight"] = []int{c.Width, c.Inner}
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

func small(t testing.TB) *Encoder {
	t.Helper()
	c := smallConfig()
	m, err := Load(randomStore(t, shapes(c)).Packed(nil, tensor.F32), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMissing(t *testing.T) {
	t.Parallel()
	c := smallConfig()
	for name := range shapes(c) {
		all := shapes(c)
		delete(all, name)
		if _, err := Load(randomStore(t, all), c); !errors.Is(err, weights.ErrMissing) || !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// TestEmbedTokens checks that the embedding is found by its other name.
func TestEmbedTokens(t *testing.T) {
	t.Parallel()
	all := shapes(smallConfig())
	all["encoder.embed_tokens.weight"] = all["shared.weight"]
	delete(all, "shared.weight")
	if _, err := Load(randomStore(t, all), smallConfig()); err != nil {
		t.Error(err)
	}
}

// TestMask checks that masked tokens change nothing for the others, and that texts do not
// depend on their neighbours.
func TestMask(t *testing.T) {
	t.Parallel()
	m := small(t)
	e, st := tensor.NewExec(nil), m.NewState(2, 4)
	run := func(in Input) []float32 {
		t.Helper()
		x, err := m.Forward(e, st, in)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(x)
	}
	short := run(Input{IDs: []int{3, 4}})
	mask := []bool{true, true, false, false}
	n := 2 * m.config.Width
	for _, padding := range []int{0, 7} {
		long := run(Input{IDs: []int{3, 4, padding, padding}, Mask: mask})
		for i, v := range long[:n] {
			if math.Abs(float64(v-short[i])) > 1e-5 {
				t.Fatalf("with padding %d, state %d is %v, want %v", padding, i, v, short[i])
			}
		}
	}
	if two := run(Input{IDs: []int{3, 4, 5, 6}, Batch: 2}); !slices.Equal(two[:n], short) {
		t.Error("a text depends on its neighbour")
	}
}

// TestBucket checks the buckets of distances with the published settings.
func TestBucket(t *testing.T) {
	t.Parallel()
	c := Config{Buckets: 32, MaxDistance: 128}
	for distance, want := range map[int]int{0: 0, -1: 1, 1: 17, -7: 7, -8: 8, -11: 8, -12: 9, -90: 14, -91: 15, -128: 15, -5000: 15, 8: 24, 127: 31, 5000: 31} {
		if got := c.bucket(distance); got != want {
			t.Errorf("distance %d: bucket %d, want %d", distance, got, want)
		}
	}
}

func TestInputErrors(t *testing.T) {
	t.Parallel()
	m := small(t)
	e, st := tensor.NewExec(nil), m.NewState(1, 4)
	for _, in := range []Input{
		{}, {IDs: []int{20}}, {IDs: []int{-1}}, {IDs: make([]int, 5)}, {IDs: make([]int, 3), Batch: 2},
		{IDs: make([]int, 3), Mask: make([]bool, 2)},
	} {
		if _, err := m.Forward(e, st, in); !errors.Is(err, ErrInput) {
			t.Errorf("%v: %v", in, err)
		}
	}
}

func TestAllocations(t *testing.T) {
	m := small(t)
	e, st := tensor.NewExec(nil), m.NewState(1, 4)
	in := Input{IDs: []int{1, 2, 3}, Mask: []bool{true, true, false}}
	if n := testing.AllocsPerRun(5, func() {
		if _, err := m.Forward(e, st, in); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if st.Bytes() <= 0 || m.Bytes() <= 0 {
		t.Error("no memory")
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		json string
		want error
	}{
		{`[]`, ErrConfig}, {`{"vocab_size":0}`, ErrConfig}, {`{"d_model":-1}`, ErrConfig}, {`{"num_layers":99999}`, ErrConfig},
		{`{"num_heads":200000,"d_kv":200000}`, ErrConfig}, {`{"relative_attention_num_buckets":6}`, ErrConfig},
		{`{"relative_attention_max_distance":8}`, ErrConfig}, {`{"layer_norm_epsilon":1}`, ErrConfig},
		{`{"feed_forward_proj":"gated-sine"}`, ErrUnsupported},
	} {
		if _, err := ParseConfig([]byte(tt.json)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.json, err, tt.want)
		}
	}
}

// FuzzConfig checks that no configuration makes loading or bucketing panic.
func FuzzConfig(f *testing.F) {
	raw, err := json.Marshal(smallConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	s := randomStore(f, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		if _, err := Load(s, c); err == nil {
			t.Error("loaded from nothing")
		}
		for distance := -maxTokens; distance <= maxTokens; distance += 37 {
			if b := c.bucket(distance); b < 0 || b >= c.Buckets {
				t.Errorf("%+v: distance %d in bucket %d", c, distance, b)
			}
		}
	})
}

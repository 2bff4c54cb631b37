package lm

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
)

// named is a tensor to be written to a file.
type named struct {
	shape []int
	data  []float32
}

// bundle is a model folder to be made in memory.
type bundle struct {
	config  map[string]any
	tensors map[string]named
}

// fsys renders the bundle with weights of the given type.
func (b bundle) fsys(t testing.TB, d tensor.DType) fstest.MapFS {
	t.Helper()
	config, err := json.Marshal(b.config)
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{
		"config.json":       {Data: config},
		"model.safetensors": {Data: safetensors(t, b.tensors, d)},
	}
}

// safetensors renders a file. Bits that the type does not hold are dropped.
func safetensors(t testing.TB, tensors map[string]named, d tensor.DType) []byte {
	t.Helper()
	header, body := map[string]any{}, []byte{}
	names := make([]string, 0, len(tensors))
	for name := range tensors {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		begin := len(body)
		for _, v := range tensors[name].data {
			bits := math.Float32bits(v)
			switch d {
			case tensor.F32:
				body = binary.LittleEndian.AppendUint32(body, bits)
			case tensor.BF16:
				body = binary.LittleEndian.AppendUint16(body, uint16(bits>>16))
			case tensor.F16: // values too small for a normal half become 0
				half := uint16(bits >> 16 & 0x8000)
				if exponent := int(bits>>23&0xff) - 127 + 15; exponent > 0 {
					half |= uint16(exponent)<<10 | uint16(bits>>13&0x3ff)
				}
				body = binary.LittleEndian.AppendUint16(body, half)
			default:
				t.Fatalf("%v is not written", d)
			}
		}
		header[name] = map[string]any{"dtype": d.String(), "shape": tensors[name].shape, "data_offsets": []int{begin, len(body)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body)
}

// llamaSize is the shape of a random Llama.
type llamaSize struct {
	vocab, hidden, layers, heads, kvHeads, headDim, intermediate, context int
}

// The small one makes tests quick; the other is as large as the embedded default.
var (
	smallLlama = llamaSize{vocab: 97, hidden: 48, layers: 2, heads: 6, kvHeads: 2, headDim: 10, intermediate: 76, context: 64}
	benchLlama = llamaSize{vocab: 8192, hidden: 320, layers: 8, heads: 5, kvHeads: 5, headDim: 64, intermediate: 736, context: 512}
)

// randomLlama draws a Llama of which every value is exact in BF16.
func randomLlama(z llamaSize) bundle {
	b := bundle{tensors: map[string]named{}, config: map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama",
		"vocab_size": z.vocab, "hidden_size": z.hidden, "num_hidden_layers": z.layers,
		"num_attention_heads": z.heads, "num_key_value_heads": z.kvHeads, "head_dim": z.headDim,
		"intermediate_size": z.intermediate, "max_position_embeddings": z.context,
		"tie_word_embeddings": true, "eos_token_id": []int{1, 2}, "bos_token_id": 0,
	}}
	random := rand.New(rand.NewPCG(1, 2))
	draw := func(name string, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		data := make([]float32, n)
		for i := range data {
			v := float32(random.NormFloat64() / math.Sqrt(float64(shape[len(shape)-1])))
			if len(shape) == 1 {
				v = 1 + float32(random.NormFloat64())/8
			}
			data[i] = math.Float32frombits(math.Float32bits(v) &^ 0xffff)
		}
		b.tensors[name] = named{shape: shape, data: data}
	}
	draw("model.embed_tokens.weight", z.vocab, z.hidden)
	draw("model.norm.weight", z.hidden)
	for i := range z.layers {
		p := fmt.Sprintf("model.layers.%d.", i)
		draw(p+"input_layernorm.weight", z.hidden)
		draw(p+"post_attention_layernorm.weight", z.hidden)
		draw(p+"self_attn.q_proj.weight", z.heads*z.headDim, z.hidden)
		draw(p+"self_attn.k_proj.weight", z.kvHeads*z.headDim, z.hidden)
		draw(p+"self_attn.v_proj.weight", z.kvHeads*z.headDim, z.hidden)
		draw(p+"self_attn.o_proj.weight", z.hidden, z.heads*z.headDim)
		draw(p+"mlp.gate_proj.weight", z.intermediate, z.hidden)
		draw(p+"mlp.up_proj.weight", z.intermediate, z.hidden)
		draw(p+"mlp.down_proj.weight", z.hidden, z.intermediate)
	}
	return b
}

// load opens a bundle on a pool of so many threads; both are closed with the test.
func load(t testing.TB, fsys fs.FS, threads int) *Model {
	t.Helper()
	return loadOn(t, fsys, tensor.Config{Threads: threads})
}

// loadOn opens a bundle on a pool; both are closed with the test.
func loadOn(t testing.TB, fsys fs.FS, c tensor.Config) *Model {
	t.Helper()
	pool := tensor.NewPool(c)
	t.Cleanup(pool.Close)
	m, err := Load(fsys, Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func newState(t testing.TB, m *Model, tokens int) *State {
	t.Helper()
	s, err := m.NewState(tokens)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// someTokens returns n token ids that repeat no short pattern.
func someTokens(n, vocab int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = (i*i*7 + i*13 + 5) % vocab
	}
	return ids
}

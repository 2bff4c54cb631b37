package text

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The special tokens of the test model, behind the 256 bytes.
const (
	tokenEnd = 256 + iota
	tokenSystem
	tokenUser
	tokenAssistant
	testVocab
)

const (
	testContext  = 160
	chatTemplate = `{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`
)

// testBundle is a bundle to be written: a random Llama over bytes.
type testBundle struct {
	seed       uint64
	template   string
	generation map[string]any
	config     map[string]any // over the usual config.json; nil takes a member out
	without    string         // a tensor that is left out
	weight     float32        // in the place of every random one, if not 0
}

// write puts the bundle into a folder.
func (b testBundle) write(t testing.TB, dir string) {
	t.Helper()
	config := map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama",
		"vocab_size": testVocab, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
		"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "max_position_embeddings": testContext,
		"rms_norm_eps": 1e-5, "rope_theta": 10000, "hidden_act": "silu", "eos_token_id": tokenEnd,
	}
	for name, value := range b.config {
		if config[name] = value; value == nil {
			delete(config, name)
		}
	}
	files := map[string]any{
		"config.json":           config,
		"tokenizer.json":        tokenizerJSON(),
		"tokenizer_config.json": map[string]any{"eos_token": "<|end|>", "chat_template": b.template},
	}
	if b.template == "" {
		files["tokenizer_config.json"] = map[string]any{"eos_token": "<|end|>"}
	}
	if b.generation != nil {
		files["generation_config.json"] = b.generation
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, value := range files {
		body, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), b.weights(t), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tokenizerJSON describes a byte-level BPE without merges: a token a byte.
func tokenizerJSON() map[string]any {
	vocab := map[string]int{}
	next := 256
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r = rune(next) // GPT-2's alphabet moves what cannot be seen behind the bytes
			next++
		}
		vocab[string(r)] = b
	}
	var added []map[string]any
	for i, name := range []string{"<|end|>", "<|system|>", "<|user|>", "<|assistant|>"} {
		added = append(added, map[string]any{
			"id": 256 + i, "content": name, "special": true,
			"single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
		})
		vocab[name] = 256 + i
	}
	return map[string]any{
		"version": "1.0", "added_tokens": added, "normalizer": nil,
		"pre_tokenizer":  map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		"post_processor": nil,
		"decoder":        map[string]any{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model":          map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{}},
	}
}

// weights renders random weights as a safetensors file.
func (b testBundle) weights(t testing.TB) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(b.seed, 1))
	header, body := map[string]any{}, []byte{}
	draw := func(name string, shape ...int) {
		if name == b.without {
			return
		}
		n := 1
		for _, d := range shape {
			n *= d
		}
		begin := len(body)
		for range n {
			v := float32(random.NormFloat64() / math.Sqrt(float64(shape[len(shape)-1])) * 3)
			if b.weight != 0 {
				v = b.weight
			}
			if len(shape) == 1 {
				v = 1
			}
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(v))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(body)}}
	}
	draw("model.embed_tokens.weight", testVocab, 32)
	draw("lm_head.weight", testVocab, 32)
	draw("model.norm.weight", 32)
	for i := range 2 {
		p := fmt.Sprintf("model.layers.%d.", i)
		draw(p+"input_layernorm.weight", 32)
		draw(p+"post_attention_layernorm.weight", 32)
		draw(p+"self_attn.q_proj.weight", 32, 32)
		draw(p+"self_attn.k_proj.weight", 16, 32)
		draw(p+"self_attn.v_proj.weight", 16, 32)
		draw(p+"self_attn.o_proj.weight", 32, 32)
		draw(p+"mlp.gate_proj.weight", 48, 32)
		draw(p+"mlp.up_proj.weight", 48, 32)
		draw(p+"mlp.down_proj.weight", 32, 48)
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body)
}

package lm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"helicon/models/tensor"
)

// TestStories runs a Llama that was really trained, on simple English stories. Its
// checkpoint is in llama2.c's first format and is converted to a folder as Hugging
// Face has it.
func TestStories(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(sharedDir(t, "data"), "weights", "stories260k", "models", "tinystories_260k")
	checkpoint, err := os.ReadFile(filepath.Join(dir, "checkpoint_legacy.bin"))
	if err != nil {
		t.Skip(err)
	}
	vocabulary, err := os.ReadFile(filepath.Join(dir, "tokenizer.bin"))
	if err != nil {
		t.Skip(err)
	}
	folder := t.TempDir()
	convertLlama2c(t, folder, checkpoint)
	m := load(t, os.DirFS(folder), 2)
	pieces := llama2cPieces(t, vocabulary, m.Config().Vocab)

	const begin, tokens = 1, 120
	s := newState(t, m, tokens)
	var story strings.Builder
	for id := begin; s.Len() < tokens; {
		id = argmax(forward(t, m, s, []int{id}))
		if id == begin {
			break
		}
		story.WriteString(pieces[id])
	}
	text := strings.TrimPrefix(story.String(), " ")
	t.Log(text)
	// What llama2.c itself writes at temperature 0.
	const want = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " +
		"One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n"
	if !strings.HasPrefix(text, want) {
		t.Errorf("the story does not begin with %q", want)
	}
}

// llama2cPieces reads the pieces of a tokenizer.bin.
func llama2cPieces(t *testing.T, data []byte, n int) []string {
	t.Helper()
	data = data[4:] // longest piece
	pieces := make([]string, n)
	for i := range pieces {
		size := binary.LittleEndian.Uint32(data[4:]) // after the score
		pieces[i] = string(data[8:][:size])
		data = data[8+size:]
		var b byte
		if _, err := fmt.Sscanf(pieces[i], "<0x%02X>", &b); err == nil {
			pieces[i] = string([]byte{b})
		}
	}
	return pieces
}

// convertLlama2c writes config.json and model.safetensors from a checkpoint: seven
// sizes and then float32 weights, of one kind for all layers at a time.
func convertLlama2c(t *testing.T, dir string, data []byte) {
	t.Helper()
	var z struct{ Dim, Hidden, Layers, Heads, KVHeads, Vocab, Context int32 }
	if err := binary.Read(bytes.NewReader(data), binary.LittleEndian, &z); err != nil {
		t.Fatal(err)
	}
	data = data[28:]
	take := func(shape ...int) named {
		n := 1
		for _, d := range shape {
			n *= d
		}
		x := named{shape: shape, data: make([]float32, n)}
		for i := range x.data {
			x.data[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
		data = data[4*n:]
		return x
	}
	c, i, headDim := int(z.Dim), int(z.Hidden), int(z.Dim/z.Heads)
	kv := int(z.KVHeads) * headDim
	tensors := map[string]named{"model.embed_tokens.weight": take(int(z.Vocab), c)}
	for _, kind := range []struct {
		name  string
		shape []int
	}{
		{"input_layernorm", []int{c}},
		{"self_attn.q_proj", []int{c, c}}, {"self_attn.k_proj", []int{kv, c}},
		{"self_attn.v_proj", []int{kv, c}}, {"self_attn.o_proj", []int{c, c}},
		{"post_attention_layernorm", []int{c}},
		{"mlp.gate_proj", []int{i, c}}, {"mlp.down_proj", []int{c, i}}, {"mlp.up_proj", []int{i, c}},
	} {
		for l := range int(z.Layers) {
			w := take(kind.shape...)
			if strings.HasSuffix(kind.name, "q_proj") || strings.HasSuffix(kind.name, "k_proj") {
				w.data = splitPairs(w.data, headDim, c)
			}
			tensors["model.layers."+strconv.Itoa(l)+"."+kind.name+".weight"] = w
		}
	}
	tensors["model.norm.weight"] = take(c)
	config, err := json.Marshal(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "vocab_size": z.Vocab, "hidden_size": z.Dim,
		"num_hidden_layers": z.Layers, "num_attention_heads": z.Heads, "num_key_value_heads": z.KVHeads,
		"intermediate_size": z.Hidden, "max_position_embeddings": z.Context,
		"rms_norm_eps": 1e-5, "tie_word_embeddings": true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"config.json": config, "model.safetensors": safetensors(t, tensors, tensor.F32)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// splitPairs reorders the rows of each head: llama2.c rotates rows 2i and 2i+1
// together, Hugging Face rows i and i+headDim/2.
func splitPairs(w []float32, headDim, cols int) []float32 {
	out := slices.Clone(w)
	for row := range len(w) / cols {
		head, d := row/headDim*headDim, row%headDim
		to := head + d/2 + d%2*headDim/2
		copy(out[to*cols:][:cols], w[row*cols:])
	}
	return out
}

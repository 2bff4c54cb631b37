package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// Shape is the size of a language model. With random weights of a type it makes a model
// that computes as fast as a trained one does.
type Shape struct {
	Name         string
	Architecture string // llama or gpt2
	Vocab        int
	Context      int
	Hidden       int
	Layers       int
	Heads        int
	KVHeads      int
	Intermediate int
	Tied         bool // the output matrix is the embedding
}

// Shapes returns the sizes of models that are often compared.
func Shapes() []Shape {
	return []Shape{
		{"gpt2-124m", "gpt2", 50257, 1024, 768, 12, 12, 12, 3072, true},
		{"tinyllama-1.1b", "llama", 32000, 2048, 2048, 22, 32, 4, 5632, false},
		{"llama-3.2-1b", "llama", 128256, 8192, 2048, 16, 32, 8, 8192, true},
		{"llama-3.1-8b", "llama", 128256, 8192, 4096, 32, 32, 8, 14336, false},
	}
}

// Write makes a model of the shape: the file model.gguf in a folder that exists. All
// matrices have the type. The errors are those of weights.EncodeGGUF and of the file.
func (s Shape) Write(ctx context.Context, dir string, d tensor.DType) (err error) {
	f, err := os.Create(filepath.Join(dir, "model.gguf"))
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sources := s.sources(pattern(d), d)
	return weights.EncodeGGUF(ctx, f, s.pairs(), sources)
}

// pairs is the metadata of the model.
func (s Shape) pairs() []weights.Pair {
	key := func(name string) string { return s.Architecture + "." + name }
	pairs := []weights.Pair{
		{Key: "general.architecture", Value: s.Architecture},
		{Key: "general.name", Value: s.Name},
		{Key: key("vocab_size"), Value: uint32(s.Vocab)},
		{Key: key("context_length"), Value: uint32(s.Context)},
		{Key: key("embedding_length"), Value: uint32(s.Hidden)},
		{Key: key("block_count"), Value: uint32(s.Layers)},
		{Key: key("feed_forward_length"), Value: uint32(s.Intermediate)},
		{Key: key("attention.head_count"), Value: uint32(s.Heads)},
		{Key: key("attention.head_count_kv"), Value: uint32(s.KVHeads)},
	}
	if s.Architecture == "gpt2" {
		return append(pairs, weights.Pair{Key: key("attention.layer_norm_epsilon"), Value: float32(1e-5)})
	}
	return append(pairs,
		weights.Pair{Key: key("attention.layer_norm_rms_epsilon"), Value: float32(1e-5)},
		weights.Pair{Key: key("rope.dimension_count"), Value: uint32(s.Hidden / s.Heads)},
		weights.Pair{Key: key("rope.freq_base"), Value: float32(10000)},
	)
}

// sources is the tensors of the model.
func (s Shape) sources(random []byte, d tensor.DType) []weights.Source {
	var list []weights.Source
	matrix := func(name string, rows, cols int) {
		size := d.Bytes(cols) * int64(rows)
		list = append(list, weights.Source{Name: name + ".weight", DType: d, Shape: []int{rows, cols}, Write: repeat(random, size)})
	}
	vector := func(name string, n int) {
		one := make([]byte, 4*n)
		tensor.Encode(one, tensor.F32, slices.Repeat([]float32{1}, n))
		list = append(list, weights.Source{Name: name, DType: tensor.F32, Shape: []int{n}, Write: repeat(one, int64(len(one)))})
	}
	keys := s.Hidden / s.Heads * s.KVHeads
	matrix("token_embd", s.Vocab, s.Hidden)
	if s.Architecture == "gpt2" {
		matrix("position_embd", s.Context, s.Hidden)
	}
	for i := range s.Layers {
		in := func(name string) string { return fmt.Sprintf("blk.%d.%s", i, name) }
		vector(in("attn_norm.weight"), s.Hidden)
		vector(in("ffn_norm.weight"), s.Hidden)
		if s.Architecture == "gpt2" {
			vector(in("attn_norm.bias"), s.Hidden)
			vector(in("ffn_norm.bias"), s.Hidden)
			matrix(in("attn_qkv"), s.Hidden+2*keys, s.Hidden)
			vector(in("attn_qkv.bias"), s.Hidden+2*keys)
			vector(in("attn_output.bias"), s.Hidden)
			vector(in("ffn_up.bias"), s.Intermediate)
			vector(in("ffn_down.bias"), s.Hidden)
		} else {
			matrix(in("attn_q"), s.Hidden, s.Hidden)
			matrix(in("attn_k"), keys, s.Hidden)
			matrix(in("attn_v"), keys, s.Hidden)
			matrix(in("ffn_gate"), s.Intermediate, s.Hidden)
		}
		matrix(in("attn_output"), s.Hidden, s.Hidden)
		matrix(in("ffn_up"), s.Intermediate, s.Hidden)
		matrix(in("ffn_down"), s.Hidden, s.Intermediate)
	}
	vector("output_norm.weight", s.Hidden)
	if s.Architecture == "gpt2" {
		vector("output_norm.bias", s.Hidden)
	}
	if !s.Tied {
		matrix("output", s.Vocab, s.Hidden)
	}
	return list
}

// repeat writes a pattern again and again, size bytes in all.
func repeat(pattern []byte, size int64) func(io.Writer) error {
	return func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 1<<20)
		for left := size; left > 0; {
			n, err := out.Write(pattern[:min(left, int64(len(pattern)))])
			if err != nil {
				return err
			}
			left -= int64(n)
		}
		return out.Flush()
	}
}

package hub

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// ggufFile renders a GGUF file with one small matrix, as part of a split model if parts
// is more than 1.
func ggufFile(t testing.TB, part, parts uint16) []byte {
	t.Helper()
	pairs := []weights.Pair{
		{Key: "general.architecture", Value: "llama"},
		{Key: "general.license", Value: "mit"},
		{Key: "llama.context_length", Value: uint32(77)},
	}
	if parts > 1 {
		pairs = append(pairs, weights.Pair{Key: "split.no", Value: part}, weights.Pair{Key: "split.count", Value: parts},
			weights.Pair{Key: "split.tensors.count", Value: int32(parts)})
	}
	var file bytes.Buffer
	err := weights.EncodeGGUF(t.Context(), &file, pairs, []weights.Source{{
		Name: "t" + string(rune('0'+part)), DType: tensor.Q8_0, Shape: []int{3, 32},
		Write: func(w io.Writer) error { _, err := w.Write(make([]byte, 3*34)); return err },
	}})
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// TestGGUFBundles finds GGUF models in all the places where they may lie.
func TestGGUFBundles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole := ggufFile(t, 0, 1)
	put(t, dir, "bare.gguf", whole)
	put(t, dir, "folder/model.gguf", whole)
	put(t, dir, "owner/several/small-q4.gguf", whole)
	put(t, dir, "several/small-q4.gguf", whole)
	put(t, dir, "several/small-q8.gguf", whole)
	put(t, dir, "owner/many/small-q4.gguf", whole)
	put(t, dir, "owner/many/small-q8.gguf", whole)
	put(t, dir, "described/small-q4.gguf", whole)
	put(t, dir, "described/small-q8.gguf", whole)
	put(t, dir, "described/config.json", []byte(config))
	put(t, dir, "several/mmproj-small.gguf", whole)
	put(t, dir, "parts/big-00001-of-00002.gguf", ggufFile(t, 0, 2))
	put(t, dir, "parts/big-00002-of-00002.gguf", ggufFile(t, 1, 2))
	put(t, dir, "cut.gguf", whole[:40])
	h, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for id, parameters := range map[string]int64{
		"bare": 96, "folder": 96, "owner/several": 96, "several/small-q4": 96, "several/small-q8": 96, "parts": 192,
		"owner/many/small-q4": 96, "owner/many/small-q8": 96, "described/small-q4": 96, "described/small-q8": 96,
	} {
		b, err := h.Bundle(id)
		if err != nil {
			t.Error(err)
			continue
		}
		if b.Problem != nil || b.Parameters != parameters || b.Type != "Q8_0" || b.Context != 77 || b.Licence != "mit" || strings.Join(b.Architectures, " ") != "llama" {
			t.Errorf("%s: %+v", id, b)
		}
		if digest, err := b.Digest(t.Context()); err != nil || digest == "" {
			t.Errorf("%s: digest %q, %v", id, digest, err)
		}
	}
	if b, err := h.Bundle("cut"); err != nil || b.Problem == nil || !strings.Contains(b.Problem.Error(), "cut.gguf") {
		t.Errorf("a file that is cut off: %+v, %v", b, err)
	}
	for _, b := range h.Bundles() {
		if strings.Contains(b.ID, "mmproj") || strings.HasSuffix(b.ID, "of-00002") {
			t.Errorf("%s is listed as a model", b.ID)
		}
	}
}

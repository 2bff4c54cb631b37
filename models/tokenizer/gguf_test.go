package tokenizer_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tokenizer"
	"helicon/models/weights"
)

// throughGGUF writes the tokenizer of a folder as a GGUF file and reads it back.
func throughGGUF(t testing.TB, dir string) (*tokenizer.Tokenizer, *tokenizer.Tokenizer, error) {
	t.Helper()
	fsys := os.DirFS(dir)
	want, err := tokenizer.Load(fsys)
	if err != nil {
		return nil, nil, err
	}
	pairs, err := tokenizer.ToGGUF(fsys, want.Vocab()+3)
	if err != nil {
		return nil, nil, err
	}
	var file bytes.Buffer
	if err := weights.EncodeGGUF(t.Context(), &file, pairs, nil); err != nil {
		t.Fatal(err)
	}
	got, err := tokenizer.Load(fstest.MapFS{"m.gguf": {Data: file.Bytes()}})
	if err != nil {
		t.Fatal(err)
	}
	return got, want, nil
}

// TestGoldenGGUFTokenizer compares tokenizers that have been through a GGUF file with
// the reference, and with themselves before.
func TestGoldenGGUFTokenizer(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob(filepath.Join(goldenDir(t, "tokenizer"), "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("no case.json found: %v", err)
	}
	for _, path := range cases {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			got, want, err := throughGGUF(t, dir)
			if errors.Is(err, tokenizer.ErrNoGGUF) || errors.Is(err, tokenizer.ErrNoTokenizer) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			var rows []goldenRow
			readJSON(t, filepath.Join(dir, "cases.json"), &rows)
			for i, row := range rows {
				for _, o := range []tokenizer.EncodeOptions{{}, {ParseSpecial: true}, {AddSpecial: true, ParseSpecial: true}} {
					ids, err := want.Encode(row.Text, o)
					if err != nil {
						t.Fatal(err)
					}
					checkEncode(t, got, i, row.Text, o, ids)
					if a, b := got.Decode(ids, true), want.Decode(ids, true); a != b {
						t.Errorf("row %d: decode = %q, want %q", i, a, b)
					}
				}
				if t.Failed() {
					return
				}
			}
			if a, b := got.EOS(), want.EOS(); !slices.Equal(a, b) && len(b) > 0 {
				t.Errorf("tokens that end a text %v, want %v", a, b)
			}
			t.Logf("%s: %d rows, exact", filepath.Base(dir), len(rows))
		})
	}
}

// FuzzFromGGUF checks that whatever the metadata say, they are refused or make a tokenizer.
func FuzzFromGGUF(f *testing.F) {
	f.Add("gpt2", "llama-bpe", "a\nb\nab\n<|im_end|>", []byte{1, 1, 1, 3}, "a b", 3)
	f.Add("llama", "", "<unk>\n<s>\n</s>\n<0x41>\n▁\n▁a", []byte{2, 3, 3, 6, 1, 4}, "", 1)
	f.Add("t5", "default", "<pad>\n</s>\n<unk>\n▁a\na", []byte{3, 3, 2, 1, 5}, "", -1)
	f.Fuzz(func(t *testing.T, kind, pre, tokens string, types []byte, merges string, eos int) {
		list := strings.Split(tokens, "\n")
		numbers, scores := make([]int32, len(types)), make([]float32, len(types))
		for i, b := range types {
			numbers[i], scores[i] = int32(b), -float32(i)
		}
		meta, err := weights.NewMetadata("fuzz", []weights.Pair{
			{Key: "tokenizer.ggml.model", Value: kind}, {Key: "tokenizer.ggml.pre", Value: pre},
			{Key: "tokenizer.ggml.tokens", Value: list}, {Key: "tokenizer.ggml.token_type", Value: numbers},
			{Key: "tokenizer.ggml.scores", Value: scores}, {Key: "tokenizer.ggml.merges", Value: strings.Split(merges, "\n")},
			{Key: "tokenizer.ggml.eos_token_id", Value: int32(eos)}, {Key: "tokenizer.ggml.precompiled_charsmap", Value: types},
		})
		if err != nil {
			t.Fatal(err)
		}
		tok, err := tokenizer.FromGGUF(meta)
		if err != nil {
			return
		}
		ids, err := tok.Encode("a ab b. <|im_end|>", tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true})
		if err == nil {
			tok.Decode(ids, false)
		}
	})
}

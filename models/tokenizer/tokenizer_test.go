package tokenizer_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"helicon/models/tokenizer"
)

// bytesModel is a tokenizer.json whose tokens are the ASCII letters, a few
// words and added tokens of every kind.
const bytesModel = `{
 "added_tokens": [
  {"id": 20, "content": "<|end|>", "special": true},
  {"id": 21, "content": "<mask>", "special": true, "lstrip": true, "rstrip": true},
  {"id": 22, "content": "own", "single_word": true},
  {"id": 23, "content": "LOUD", "normalized": true},
  {"id": 24, "content": "<tool>"}
 ],
 "normalizer": {"type": "Lowercase"},
 "pre_tokenizer": {"type": "Whitespace"},
 "model": {"type": "BPE", "unk_token": "?", "merges": ["a b", ["ab", "c"]],
  "vocab": {"?": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "abc": 5, "o": 6, "w": 7, "n": 8, "x": 9, "l": 10, "u": 11, "d": 12, "<": 13, "|": 14, ">": 15, "e": 16}},
 "decoder": null
}`

func loadFiles(t testing.TB, files map[string]string) (*tokenizer.Tokenizer, error) {
	t.Helper()
	m := fstest.MapFS{}
	for name, content := range files {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return tokenizer.Load(m)
}

func mustLoad(t testing.TB, files map[string]string) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := loadFiles(t, files)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestAddedTokens(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, map[string]string{"tokenizer.json": bytesModel})
	parse, plain := tokenizer.EncodeOptions{ParseSpecial: true}, tokenizer.EncodeOptions{}
	for _, c := range []struct {
		text string
		opts tokenizer.EncodeOptions
		want []int
	}{
		{"abc<|end|>a", parse, []int{5, 20, 1}},
		{"a<|end|>", plain, []int{1, 13, 14, 16, 8, 12, 14, 15}},
		{"a <mask> b", parse, []int{1, 21, 2}},
		{"a own b", plain, []int{1, 22, 2}},
		{"aown", plain, []int{1, 6, 7, 8}},
		{"a loud b", plain, []int{1, 23, 2}},
		{"a<tool>b", plain, []int{1, 24, 2}}, // not special: always found
		{"z", plain, []int{0}},
		{"\xff", plain, []int{0}}, // not UTF-8
		{"", parse, nil},
	} {
		got, err := tok.Encode(c.text, c.opts)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q %+v: %v, %v, want %v", c.text, c.opts, got, err, c.want)
		}
	}
	if got := tok.Decode([]int{1, 20, 2, 99, -1}, true); got != "a b" {
		t.Errorf("decoded %q", got)
	}
	if got := tok.Decode([]int{1, 20}, false); got != "a <|end|>" {
		t.Errorf("decoded %q", got)
	}
}

func TestLoadRoles(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, map[string]string{
		"tokenizer.json":          bytesModel,
		"tokenizer_config.json":   `{"bos_token": {"content": "<mask>"}, "add_bos_token": true, "chat_template": [{"name": "default", "template": "x"}, {"name": "rag", "template": "y"}]}`,
		"special_tokens_map.json": `{"eos_token": "<|end|>", "bos_token": "a"}`,
		"generation_config.json":  `{"eos_token_id": [20, 5], "pad_token_id": 0}`,
	})
	bos, okBOS := tok.BOS()
	pad, okPAD := tok.PAD()
	if !okBOS || bos != 21 || !okPAD || pad != 0 || !slices.Equal(tok.EOS(), []int{20, 5}) {
		t.Errorf("bos %d %v, pad %d %v, eos %v", bos, okBOS, pad, okPAD, tok.EOS())
	}
	if _, ok := tok.UNK(); ok {
		t.Error("an unknown token that no file names")
	}
	ids, err := tok.Encode("a", tokenizer.EncodeOptions{AddSpecial: true})
	if err != nil || !slices.Equal(ids, []int{21, 1}) {
		t.Errorf("ids %v, %v", ids, err)
	}
	if tok.Vocab() != 25 {
		t.Errorf("vocabulary of %d", tok.Vocab())
	}
	template, err := tok.ChatTemplate()
	if err != nil {
		t.Fatal(err)
	}
	if p, err := template.Render(nil, tokenizer.ChatOptions{}); err != nil || p.String() != "x" {
		t.Errorf("rendered %q, %v", p, err)
	}
}

func TestLoadVocabText(t *testing.T) {
	t.Parallel()
	tok := loadGolden(t, "json_wordpiece")
	old := mustLoad(t, map[string]string{"vocab.txt": string(readFile(t, filepath.Join(goldenDir(t, "tokenizer"), "json_wordpiece", "vocab.txt")))})
	var rows []goldenRow
	readJSON(t, filepath.Join(goldenDir(t, "tokenizer"), "json_wordpiece", "cases.json"), &rows)
	for i, row := range rows {
		checkEncode(t, old, i, row.Text, tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true}, row.IDs)
	}
	if old.Vocab() != tok.Vocab() {
		t.Errorf("vocabulary of %d, want %d", old.Vocab(), tok.Vocab())
	}
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	model := func(s string) map[string]string { return map[string]string{"tokenizer.json": s} }
	bpe := func(extra string) map[string]string {
		return model(`{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}` + extra + `}`)
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"not JSON", model("{"), "tokenizer.json"},
		{"no model", model("{}"), "tokenizer.json: model"},
		{"model type", model(`{"model": {"type": "Markov", "vocab": {}}}`), `model: type "Markov"`},
		{"merge", model(`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a z"]}}`), "merges[0]"},
		{"merge of one", model(`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}`), "merges"},
		{"merge of three", model(`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b", "c"]]}}`), "merges"},
		{"id", model(`{"model": {"type": "WordPiece", "vocab": {"a": -1}}}`), "vocab: token"},
		{"huge id", model(`{"model": {"type": "WordPiece", "vocab": {"a": 2000000000}}}`), "vocab: token"},
		{"unk_token", model(`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "u"}}`), "unk_token"},
		{"unk_id", model(`{"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 7}}`), "unk_id"},
		{"score", model(`{"model": {"type": "Unigram", "vocab": [["a", "x"]]}}`), "vocab"},
		{"normalizer", bpe(`, "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Zalgo"}]}`), `normalizer: normalizers[1]: type "Zalgo"`},
		{"charsmap", bpe(`, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}`), "precompiled_charsmap"},
		{"pattern", bpe(`, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a(?=b)"}, "behavior": "Isolated"}`), "pre_tokenizer: pattern"},
		{"behavior", bpe(`, "pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Explode"}`), "behavior"},
		{"pre-tokenizer", bpe(`, "pre_tokenizer": {"type": "UnicodeScripts"}`), "pre_tokenizer: type"},
		{"post-processor", bpe(`, "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[X]"}}, {"Sequence": {"id": "A"}}]}`), "post_processor: single[0]"},
		{"post-processor id", bpe(`, "post_processor": {"type": "BertProcessing", "sep": ["s", 9], "cls": ["c", 0]}`), "post_processor: id 9"},
		{"decoder", bpe(`, "decoder": {"type": "CTC"}`), "decoder: type"},
		{"added token", bpe(`, "added_tokens": [{"id": -5, "content": "x"}]`), "added_tokens[0]"},
		{"nesting", bpe(`, "normalizer": ` + strings.Repeat(`{"type": "Sequence", "normalizers": [`, 40) + strings.Repeat(`]}`, 40)), "nested too deeply"},
		{"no merges.txt", map[string]string{"vocab.json": `{"a": 0}`}, "merges.txt"},
		{"merges.txt", map[string]string{"vocab.json": `{"a": 0}`, "merges.txt": "#version\na b c\n"}, "line 2"},
		{"tokenizer.model", map[string]string{"tokenizer.model": "\xff\xff"}, "tokenizer.model"},
		{"empty tokenizer.model", map[string]string{"tokenizer.model": ""}, "no pieces"},
		{"config", map[string]string{"tokenizer.json": bytesModel, "tokenizer_config.json": "["}, "tokenizer_config.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := loadFiles(t, c.files)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := loadFiles(t, nil); !errors.Is(err, tokenizer.ErrNoTokenizer) {
		t.Errorf("error %v, want ErrNoTokenizer", err)
	}
	if _, err := loadFiles(t, map[string]string{"vocab.json": "{}"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
}

// A megabyte without a space is one word: it must not take quadratic time. The
// bound is generous; quadratic merging would take hours.
func TestLongWords(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"gpt2", "json_bytelevel_llama3", "json_spm_bpe", "json_unigram", "json_wordpiece", "spm_bpe_llama", "spm_unigram_t5_nfkc", "clip"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok := loadGolden(t, name)
			for unit, size := range map[string]int{"ab": 1 << 20, "日": 1 << 17, "!": 1 << 17} {
				text := strings.Repeat(unit, size/len(unit))
				start := time.Now()
				ids, err := tok.Encode(text, tokenizer.EncodeOptions{ParseSpecial: true})
				if err != nil {
					t.Fatal(err)
				}
				tok.Decode(ids, true)
				if took := time.Since(start); took > time.Minute {
					t.Errorf("%d bytes of %q took %v", size, unit, took)
				}
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	tok := loadGolden(t, "json_bytelevel_llama3")
	var rows []goldenRow
	readJSON(t, filepath.Join(goldenDir(t, "tokenizer"), "json_bytelevel_llama3", "cases.json"), &rows)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, row := range rows {
				checkEncode(t, tok, i, row.Text, tokenizer.EncodeOptions{ParseSpecial: true}, row.Plain)
				tok.Decode(row.IDs, true)
			}
		})
	}
	wg.Wait()
}

func TestTokenBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ golden, text string }{
		{"gpt2", "naïve 日本 😀 text\n"},
		{"json_spm_bpe", "x naïve 日本 😀 text\n"},
		{"spm_bpe_llama", "x naïve 日本 😀 text\n"},
		{"whisper", "naïve 日本 😀"},
	} {
		tok := loadGolden(t, c.golden)
		ids, err := tok.Encode(c.text, tokenizer.EncodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var b []byte
		for _, id := range ids {
			b = append(b, tok.TokenBytes(id)...)
		}
		if got := strings.TrimPrefix(string(b), " "); got != c.text {
			t.Errorf("%s: bytes %q, want %q", c.golden, got, c.text)
		}
	}
	tok := mustLoad(t, map[string]string{"tokenizer.json": bytesModel})
	if tok.TokenBytes(-1) != nil || tok.TokenBytes(1000) != nil {
		t.Error("an id outside the vocabulary has bytes")
	}
}

func TestReadLlama2C(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "..", "shared", "data", "weights", "stories260k", "models", "tinystories_260k", "tokenizer.bin")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("the data are absent: %s", path)
	}
	tok, err := tokenizer.ReadLlama2C(data)
	if err != nil {
		t.Fatal(err)
	}
	bos, _ := tok.BOS()
	if tok.Vocab() != 512 || bos != 1 || !slices.Equal(tok.EOS(), []int{2}) {
		t.Errorf("vocabulary of %d, bos %d, eos %v", tok.Vocab(), bos, tok.EOS())
	}
	const text = "Once upon a time, there was a little girl."
	ids, err := tok.Encode(text, tokenizer.EncodeOptions{AddSpecial: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 426}; !slices.Equal(ids, want) {
		t.Errorf("ids %v, want %v", ids, want)
	}
	if got := tok.Decode(ids, true); got != text {
		t.Errorf("decoded %q, want %q", got, text)
	}
	for n := range data {
		if n%7 == 0 { // every cut must be an error or a smaller vocabulary
			if cut, err := tokenizer.ReadLlama2C(data[:n]); err == nil && cut.Vocab() >= 512 {
				t.Fatalf("%d of %d bytes were read whole", n, len(data))
			}
		}
	}
}

// stream decodes ids one by one, and checks that characters stay whole.
func stream(t *testing.T, tok *tokenizer.Tokenizer, ids []int, skip bool) string {
	t.Helper()
	d := tok.NewDecoder(skip)
	var b strings.Builder
	for _, id := range ids {
		s := d.Push(id)
		if s != strings.ToValidUTF8(s, "") {
			t.Fatalf("Push(%d) returned a part of a character: %q", id, s)
		}
		b.WriteString(s)
	}
	b.WriteString(d.Flush())
	return b.String()
}

var streamCases = []string{"json_bytelevel_llama3", "json_spm_bpe", "json_unigram", "json_wordpiece", "spm_bpe_llama", "spm_unigram_t5"}

// FuzzStreamDecoder: pieces of text must add up to Decode of all ids, and a
// text of whole characters must come as soon as its bytes are there.
func FuzzStreamDecoder(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0xF0, 0x9F, 0x98, 0x80, 0xE6, 0x97, 50, 60})
	f.Add([]byte("\x00\x01Hello 日本語"))
	var toks []*tokenizer.Tokenizer
	for _, name := range streamCases {
		toks = append(toks, loadGolden(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, tok := range toks {
			ids := make([]int, len(data))
			for i, b := range data {
				ids[i] = int(b) + (i%3)*256
			}
			for _, skip := range []bool{false, true} {
				if got, want := stream(t, tok, ids, skip), tok.Decode(ids, skip); got != want {
					t.Fatalf("streamed %q, decoded %q", got, want)
				}
			}
		}
	})
}

func TestStreamDecoderHoldsCharacters(t *testing.T) {
	t.Parallel()
	tok := loadGolden(t, "gpt2")
	ids, err := tok.Encode("😀", tokenizer.EncodeOptions{})
	if err != nil || len(ids) < 2 {
		t.Fatalf("ids %v, %v", ids, err)
	}
	d := tok.NewDecoder(true)
	for _, id := range ids[:len(ids)-1] {
		if s := d.Push(id); s != "" {
			t.Errorf("a part of a character: %q", s)
		}
	}
	if s := d.Push(ids[len(ids)-1]); s != "😀" {
		t.Errorf("got %q", s)
	}
}

// fuzzText holds what matters to most components.
const fuzzText = " Hello, wörld!\n<s>[MASK] 日本 123 \t▁x<|end|>"

// exercise uses a tokenizer that was loaded from foreign bytes.
func exercise(t *testing.T, tok *tokenizer.Tokenizer) {
	ids, err := tok.Encode(fuzzText, tokenizer.EncodeOptions{AddSpecial: true, ParseSpecial: true})
	if err != nil {
		return
	}
	for _, id := range ids {
		if id < 0 || id >= tok.Vocab() {
			t.Fatalf("id %d of %d", id, tok.Vocab())
		}
		tok.TokenBytes(id)
	}
	if got, want := stream(t, tok, ids, true), tok.Decode(ids, true); got != want {
		t.Fatalf("streamed %q, decoded %q", got, want)
	}
}

func FuzzTokenizerJSON(f *testing.F) {
	f.Add([]byte(bytesModel))
	for _, s := range []string{
		`{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.5], ["▁", -2]], "byte_fallback": true}, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}, "decoder": {"type": "Metaspace", "replacement": "▁"}}`,
		`{"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "h": 1, "##e": 2}, "unk_token": "[UNK]"}, "normalizer": {"type": "BertNormalizer", "lowercase": true}, "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": {"type": "BertProcessing", "sep": ["x", 1], "cls": ["y", 2]}, "decoder": {"type": "WordPiece"}}`,
		`{"model": {"type": "BPE", "vocab": {"Ġ": 0, "h": 1}, "merges": [["Ġ", "h"]]}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|\\s+"}, "behavior": "Isolated"}, {"type": "ByteLevel"}]}, "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "a"}, "content": "b"}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1}]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := loadFiles(t, map[string]string{"tokenizer.json": string(data)})
		if err == nil {
			exercise(t, tok)
		}
	})
}

func FuzzSentencePiece(f *testing.F) {
	for _, name := range []string{"spm_bpe_llama/tokenizer.model", "spm_unigram_t5_nfkc/spiece.model"} {
		data := readFile(f, filepath.Join(goldenDir(f, "tokenizer"), name))
		f.Add(data[:min(len(data), 4000)])
		f.Add(data[max(0, len(data)-4000):])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := loadFiles(t, map[string]string{"tokenizer.model": string(data)})
		if err == nil {
			exercise(t, tok)
		}
	})
}

func FuzzVocabMerges(f *testing.F) {
	f.Add([]byte(`{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}`), []byte("#version: 0.2\na b\n"))
	f.Add([]byte(`{"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}`), []byte(""))
	f.Fuzz(func(t *testing.T, vocab, merges []byte) {
		tok, err := loadFiles(t, map[string]string{"vocab.json": string(vocab), "merges.txt": string(merges)})
		if err == nil {
			exercise(t, tok)
		}
	})
}

func TestReadTiktokenErrors(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"YQ==", "YQ== x", "!!! 1", "YQ== 99999999999"} {
		if _, err := tokenizer.ReadTiktoken([]byte(data), nil); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: error %v", data, err)
		}
	}
	if _, err := tokenizer.ReadTiktoken([]byte("YQ== 0"), map[string]int{"<x>": -1}); err == nil {
		t.Error("a negative special id was accepted")
	}
}

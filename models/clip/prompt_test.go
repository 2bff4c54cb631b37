package clip

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tokenizer"
)

func TestParsePrompt(t *testing.T) {
	t.Parallel()
	plain := func(s string) []Fragment { return []Fragment{{Text: s, Weight: 1}} }
	for _, tt := range []struct {
		prompt string
		want   []Fragment
	}{
		{"", plain("")},
		{"normal text", plain("normal text")},
		{"an (important) word", []Fragment{{Text: "an ", Weight: 1}, {Text: "important", Weight: 1.1}, {Text: " word", Weight: 1}}},
		{"(unbalanced", []Fragment{{Text: "unbalanced", Weight: 1.1}}},
		{"un)balanced]", plain("un)balanced]")},
		{`\(literal\]`, plain("(literal]")},
		{`a \\ b \c`, plain(`a \ b \c`)},
		{"(unnecessary)(parens)", []Fragment{{Text: "unnecessaryparens", Weight: 1.1}}},
		{"(word:1.3)", []Fragment{{Text: "word", Weight: 1.3}}},
		{"(word : -0.5 )", []Fragment{{Text: "word ", Weight: -0.5}}},
		{"((word))", []Fragment{{Text: "word", Weight: 1.21}}},
		{"[word]", []Fragment{{Text: "word", Weight: float32(1 / 1.1)}}},
		{"((a:2) b:3)", []Fragment{{Text: "a", Weight: 6}, {Text: " b", Weight: 3}}},
		{"([a) b]", []Fragment{{Text: "a", Weight: 1}, {Text: " b", Weight: float32(1 / 1.1)}}},
		{"(a:b)", []Fragment{{Text: "a:b", Weight: 1.1}}},
		{"(a:1e3)", []Fragment{{Text: "a:1e3", Weight: 1.1}}},
		{"(a:)", []Fragment{{Text: "a:", Weight: 1.1}}},
		{"(a:1.2.3)", []Fragment{{Text: "a:1.2.3", Weight: 1.1}}},
		{"time 12:30)", plain("time 12:30)")},
		{"a:1.5)", plain("a:1.5)")},
		{"[a:0.5]", []Fragment{{Text: "a:0.5", Weight: float32(1 / 1.1)}}},
		{"a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", []Fragment{
			{Text: "a ", Weight: 1}, {Text: "house", Weight: float32(1.3 * 1.1 * 1.1)}, {Text: " ", Weight: 1.1},
			{Text: "on", Weight: 1}, {Text: " a ", Weight: 1.1}, {Text: "hill", Weight: float32(0.5 * 1.1)},
			{Text: ", sun, ", Weight: 1.1}, {Text: "sky", Weight: float32(1.1 * 1.1 * 1.1 * 1.1)}, {Text: ".", Weight: 1.1},
		}},
		{"one BREAK two", []Fragment{{Text: "one", Weight: 1}, {Weight: 1, Break: true}, {Text: "two", Weight: 1}}},
		{"(one\nBREAK\ntwo:2)", []Fragment{{Text: "one", Weight: 2}, {Weight: 1, Break: true}, {Text: "two", Weight: 2}}},
		{"BREAKFAST at noBREAK éBREAK", plain("BREAKFAST at noBREAK éBREAK")},
	} {
		got, err := ParsePrompt(tt.prompt)
		if err != nil {
			t.Errorf("%q: %v", tt.prompt, err)
			continue
		}
		equal := slices.EqualFunc(got, tt.want, func(a, b Fragment) bool {
			d := a.Weight - b.Weight
			return a.Text == b.Text && a.Break == b.Break && d < 1e-5 && d > -1e-5
		})
		if !equal {
			t.Errorf("%q: %+v, want %+v", tt.prompt, got, tt.want)
		}
	}
	for _, prompt := range []string{strings.Repeat("(", 60) + "a", "(a:100.5)", "(a:999999999)", strings.Repeat("a", maxPrompt+1)} {
		if _, err := ParsePrompt(prompt); !errors.Is(err, ErrPrompt) {
			t.Errorf("%.20q…: %v, want %v", prompt, err, ErrPrompt)
		}
	}
}

func FuzzParsePrompt(f *testing.F) {
	for _, s := range []string{"a (b:1.3) [c] \\( BREAK d", "((((", "]]]]:1)", "(:)", "(a:.)", "\\", "BREAK", "(\xff:2)BREAK"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, prompt string) {
		fragments, err := ParsePrompt(prompt)
		if err != nil {
			return
		}
		if len(fragments) == 0 {
			t.Fatal("no fragment")
		}
		n := 0
		for _, p := range fragments {
			n += len(p.Text)
			if !(p.Weight <= maxWeight && p.Weight >= -maxWeight) {
				t.Fatalf("weight %v", p.Weight)
			}
			if p.Break && p.Text != "" {
				t.Fatalf("text %q in a break", p.Text)
			}
		}
		if n > len(prompt) {
			t.Fatalf("%d bytes of a prompt of %d", n, len(prompt))
		}
	})
}

// letters is a tokenizer of CLIP's kind that knows letters, the comma and "!".
func letters(t testing.TB, pad string) *tokenizer.Tokenizer {
	t.Helper()
	vocab := map[string]int{"!": 0}
	for _, c := range "abcdefghijklmnopqrstuvwxyz,.<>" {
		vocab[string(c)] = len(vocab)
		vocab[string(c)+"</w>"] = len(vocab)
	}
	vocab["!</w>"] = len(vocab)
	vocab["<|startoftext|>"] = len(vocab)
	vocab["<|endoftext|>"] = len(vocab)
	raw, err := json.Marshal(vocab)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(fstest.MapFS{
		"vocab.json": {Data: raw}, "merges.txt": {Data: []byte("#version: 0.2\n")},
		"special_tokens_map.json": {Data: []byte(`{"bos_token":"<|startoftext|>","eos_token":"<|endoftext|>","pad_token":"` + pad + `"}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func prompter(t testing.TB, pad string, positions int, words ...Word) *Prompter {
	t.Helper()
	p, err := NewPrompter(letters(t, pad), TextConfig{Vocab: 100, Positions: positions}, words...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// spell writes a chunk's tokens as letters: ^ and $ are start and end, _ is padding of
// another kind, # a learned vector.
func spell(p *Prompter, c Chunk) string {
	var b strings.Builder
	for i, id := range c.IDs {
		token, _ := p.tokens.Token(id)
		switch {
		case id >= 100:
			token = fmt.Sprintf("#%d", id-100)
		case id == p.start:
			token = "^"
		case id == p.end:
			token = "$"
		case id == p.pad:
			token = "_"
		}
		b.WriteString(strings.TrimSuffix(token, "</w>"))
		if c.Weights != nil && c.Weights[i] != 1 {
			fmt.Fprintf(&b, "%g", c.Weights[i])
		}
	}
	return b.String()
}

func TestChunks(t *testing.T) {
	t.Parallel()
	words := []Word{{"<cat>", 2}, {"style", 3}}
	for _, tt := range []struct {
		name, pad, prompt string
		want              []string
	}{
		{"empty", "<|endoftext|>", "", []string{"^$$$$$$$"}},
		{"short", "<|endoftext|>", "a b", []string{"^ab$$$$$"}},
		{"other padding", "!", "a b", []string{"^ab$____"}},
		{"weights", "!", "a (b:2) [c]", []string{"^ab2c0.90909094$___"}},
		{"full", "!", "a b c d e f", []string{"^abcdef$"}},
		{"two chunks", "!", "a b c d e f g", []string{"^abcdef$", "^g$_____"}},
		{"back to the comma", "!", "a b, c d e f", []string{"^ab,$___", "^cdef$__"}},
		{"break", "!", "a BREAK b", []string{"^a$_____", "^b$_____"}},
		{"empty chunks", "!", "BREAK BREAK", []string{"^$______", "^$______"}},
		{"learned", "!", "a <cat> b", []string{"^a#0#1b$__"}},
		{"learned, weighted", "!", "(<Cat>:2)", []string{"^#02#12$____"}},
		{"learned word", "!", "style styles a style.", []string{"^#2#3#4sty$", "^lesa$__", "^#2#3#4.$__"}},
		{"learned does not fit", "!", "a b c d style", []string{"^abcd$__", "^#2#3#4$___"}},
	} {
		p := prompter(t, tt.pad, 8, words...)
		chunks, err := p.Chunks(tt.prompt)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got []string
		for _, c := range chunks {
			if len(c.IDs) != 8 || c.Weights != nil && len(c.Weights) != 8 {
				t.Errorf("%s: %d tokens, %d weights", tt.name, len(c.IDs), len(c.Weights))
			}
			got = append(got, spell(p, c))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	p := prompter(t, "!", 8, words...)
	c, err := p.Plain("(a:2) b style c d")
	if err != nil {
		t.Fatal(err)
	}
	if got := spell(p, c); c.Weights != nil || len(c.IDs) != 8 || c.IDs[7] != p.end {
		t.Errorf("plain: %q", got)
	}
}

func TestPrompterErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config TextConfig
		words  []Word
	}{
		{"few positions", TextConfig{Vocab: 100, Positions: 2}, nil},
		{"small vocabulary", TextConfig{Vocab: 10, Positions: 8}, nil},
		{"no name", TextConfig{Vocab: 100, Positions: 8}, []Word{{"", 1}}},
		{"no vectors", TextConfig{Vocab: 100, Positions: 8}, []Word{{"a", 0}}},
		{"many vectors", TextConfig{Vocab: 100, Positions: 8}, []Word{{"a", 7}}},
	} {
		if _, err := NewPrompter(letters(t, "!"), tt.config, tt.words...); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func FuzzChunks(f *testing.F) {
	p := prompter(f, "!", 8, Word{"<cat>", 2}, Word{"ab", 6})
	for _, s := range []string{"a, b, (c:1.2) <cat> ab BREAK", "<CAT>ab<cat>", ",,,,,,,,,,,,", "\xff<cat\xff>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, prompt string) {
		chunks, err := p.Chunks(prompt)
		if err != nil {
			return
		}
		if plain, err := p.Plain(prompt); err == nil {
			chunks = append(chunks, plain)
		}
		for _, c := range chunks {
			if len(c.IDs) != 8 || c.Weights != nil && len(c.Weights) != 8 || c.IDs[0] != p.start || !slices.Contains(c.IDs, p.end) {
				t.Fatalf("chunk %v", c)
			}
			for _, id := range c.IDs {
				if id < 0 || id >= 108 {
					t.Fatalf("chunk %v", c)
				}
			}
		}
	})
}

func TestWeigh(t *testing.T) {
	t.Parallel()
	x := []float32{1, 2, 3, 4}
	Chunk{Weights: []float32{1, 2}}.Weigh(x)
	// Of 1 2 | 6 8 the sum is 17, and was 10.
	for i, want := range []float32{1, 2, 6, 8} {
		if d := x[i] - want*10/17; d > 1e-6 || d < -1e-6 {
			t.Errorf("weighed: %v", x)
		}
	}
	x = []float32{1, -1, 3, -3}
	Chunk{Weights: []float32{1, 0}}.Weigh(x)
	if !slices.Equal(x, []float32{1, -1, 0, 0}) {
		t.Errorf("weighed without a mean: %v", x)
	}
	Chunk{}.Weigh(x)
}

// TestGoldenPrompt compares the tokens of the prompts of every pipeline under
// goldens/image with the reference.
func TestGoldenPrompt(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob(filepath.Join(goldens(t), "image", "*", "tokenizer"))
	if err != nil || len(cases) == 0 {
		t.Skipf("no pipelines in goldens/image: %v", err)
	}
	for _, folder := range cases {
		dir := filepath.Dir(folder)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			var c struct {
				Config struct{ Prompt string }
			}
			if err := json.Unmarshal(readFile(t, dir, "case.json"), &c); err != nil {
				t.Fatal(err)
			}
			golden := openGolden(t, dir)
			if !golden.store.Has("prompt_ids") || c.Config.Prompt == "" {
				t.Skip("no tokens of a prompt")
			}
			tok, err := tokenizer.Load(os.DirFS(folder))
			if err != nil {
				t.Fatal(err)
			}
			config, err := ParseTextConfig(readFile(t, filepath.Join(dir, "text_encoder"), "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			p, err := NewPrompter(tok, config)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := p.Plain(c.Config.Prompt)
			if err != nil {
				t.Fatal(err)
			}
			chunks, err := p.Chunks(c.Config.Prompt)
			if err != nil {
				t.Fatal(err)
			}
			want := golden.lookup("prompt_ids").Ints()
			if len(chunks) != 1 || !slices.Equal(chunks[0].IDs, want) || !slices.Equal(plain.IDs, want) {
				t.Errorf("%v and %v, want %v", plain.IDs, chunks, want)
			}
			t.Logf("%-22s %d tokens equal", filepath.Base(dir), len(want))
		})
	}
}

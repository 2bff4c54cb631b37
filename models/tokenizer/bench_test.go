package tokenizer_test

import (
	"path/filepath"
	"strings"
	"testing"

	"helicon/models/tokenizer"
)

// prose is about 1 MB of text that resembles English, with numbers and lines.
func prose() string {
	const paragraph = "It was the best of times, it was the worst of times; 1775 was the year, and " +
		"they weren't sure whether \"Mr. Lorry\" (of Tellson's Bank) had said so.\n\n" +
		"The quick brown fox jumps over 13 lazy dogs while naïve cafés serve 42 croissants — daily!\n"
	return strings.Repeat(paragraph, 1<<20/len(paragraph))
}

var benchCases = []string{"gpt2", "json_bytelevel_llama3", "json_spm_bpe", "json_unigram", "json_wordpiece", "spm_bpe_llama", "spm_unigram_t5_nfkc"}

func BenchmarkEncode(b *testing.B) {
	text := prose()
	for _, name := range benchCases {
		b.Run(name, func(b *testing.B) {
			tok := loadGolden(b, name)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := tok.Encode(text, tokenizer.EncodeOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	text := prose()
	for _, name := range benchCases {
		b.Run(name, func(b *testing.B) {
			tok := loadGolden(b, name)
			ids, err := tok.Encode(text, tokenizer.EncodeOptions{})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Decode(ids, true)
			}
		})
	}
}

// loadGolden loads the tokenizer of a reference case by name.
func loadGolden(t testing.TB, name string) *tokenizer.Tokenizer {
	t.Helper()
	return loadCase(t, filepath.Join(goldenDir(t, "tokenizer"), name))
}

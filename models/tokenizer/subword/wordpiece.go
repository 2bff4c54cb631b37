package subword

import (
	"fmt"
	"unicode/utf8"
)

// WordPiece splits a word into the longest tokens from left to right; those
// inside the word are spelled with a prefix. A word that cannot be covered
// becomes one unknown token.
type WordPiece struct {
	vocab   *Vocabulary
	prefix  string
	longest int // bytes of the longest token

	// Options, which may be set before the first use.
	Unk      int32 // the unknown token; -1 if the vocabulary has none
	MaxRunes int   // longer words are unknown
}

// NewWordPiece indexes a vocabulary in which tokens inside a word are spelled
// with prefix, and unk is the unknown token.
func NewWordPiece(vocab *Vocabulary, prefix, unk string) *WordPiece {
	m := &WordPiece{vocab: vocab, prefix: prefix, Unk: -1, MaxRunes: 100}
	if id, ok := vocab.IDs[unk]; ok {
		m.Unk = id
	}
	for token := range vocab.IDs {
		m.longest = max(m.longest, len(token))
	}
	return m
}

// Tokenize appends the ids of word to dst.
func (m *WordPiece) Tokenize(dst []int32, word string) ([]int32, error) {
	n := len(dst)
	if utf8.RuneCountInString(word) > m.MaxRunes {
		return m.unknown(dst, word)
	}
	for start := 0; start < len(word); {
		end, id := min(len(word), start+m.longest), int32(-1)
		for end < len(word) && !utf8.RuneStart(word[end]) {
			end--
		}
		for ; end > start; end = previousRune(word, end) {
			part := word[start:end]
			if start > 0 {
				part = m.prefix + part
			}
			if found, ok := m.vocab.IDs[part]; ok {
				id = found
				break
			}
		}
		if id < 0 {
			return m.unknown(dst[:n], word)
		}
		dst = append(dst, id)
		start = end
	}
	return dst, nil
}

func (m *WordPiece) unknown(dst []int32, word string) ([]int32, error) {
	if m.Unk < 0 {
		return dst, fmt.Errorf("word %.40q is not in the vocabulary, which has no unknown token", word)
	}
	return append(dst, m.Unk), nil
}

// previousRune returns the start of the character that ends at end.
func previousRune(s string, end int) int {
	_, size := utf8.DecodeLastRuneInString(s[:end])
	return end - size
}

package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"helicon/models/tokenizer/subword"
	"helicon/models/tokenizer/words"
)

// addedToken is a token found in the text before the model sees it.
type addedToken struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	Special    bool   `json:"special"`
	SingleWord bool   `json:"single_word"` // not inside a word
	LStrip     bool   `json:"lstrip"`      // takes the spaces to its left
	RStrip     bool   `json:"rstrip"`      // takes the spaces to its right
	Normalized bool   `json:"normalized"`  // found after normalisation
}

// addedTokens finds added tokens, some in the text as it was given, some
// after normalisation.
type addedTokens struct {
	raw, normalized tokenFinder
	all             map[int]bool
	special         map[int]bool
}

func newAddedTokens(list []addedToken, norm words.Normalizer) *addedTokens {
	a := &addedTokens{all: map[int]bool{}, special: map[int]bool{}}
	var raw, normalized []addedToken
	for _, token := range list {
		if token.Content == "" {
			continue
		}
		a.all[token.ID] = true
		if token.Special {
			a.special[token.ID] = true
		}
		if !token.Normalized {
			raw = append(raw, token)
			continue
		}
		if norm != nil {
			token.Content = norm.Normalize(token.Content)
		}
		normalized = append(normalized, token)
	}
	a.raw, a.normalized = newTokenFinder(raw), newTokenFinder(normalized)
	return a
}

func (a *addedTokens) has(id int) bool { return a.all[id] }

// tokenFinder cuts a text at tokens, the longest first where several match.
type tokenFinder struct {
	tokens []addedToken
	trie   *subword.Trie // ids are indices of tokens
}

func newTokenFinder(tokens []addedToken) tokenFinder {
	contents, indices := make([]string, len(tokens)), make([]int32, len(tokens))
	for i, token := range tokens {
		contents[i], indices[i] = token.Content, int32(i)
	}
	return tokenFinder{tokens: tokens, trie: subword.NewTrie(contents, indices)}
}

// section is a part of a text: a token, or text between tokens (id -1).
type section struct {
	text  string
	id    int
	first bool // it begins the text
}

// split returns the sections of s. Special tokens are found only if asked.
func (f tokenFinder) split(s string, special bool) []section {
	var out []section
	done := 0
	if len(f.tokens) > 0 {
		for at := 0; at < len(s); {
			index, size := f.trie.Longest(s[at:])
			if size == 0 {
				at++
				continue
			}
			token, start, end := f.tokens[index], at, at+size
			at = end
			if token.Special && !special || token.SingleWord && insideWord(s, start, end) || start < done {
				continue
			}
			if token.LStrip {
				start = max(done, len(strings.TrimRightFunc(s[:start], unicode.IsSpace)))
			}
			if token.RStrip {
				end = len(s) - len(strings.TrimLeftFunc(s[end:], unicode.IsSpace))
			}
			if done < start {
				out = append(out, section{s[done:start], -1, done == 0})
			}
			out = append(out, section{id: token.ID})
			done = end
		}
	}
	if done < len(s) {
		out = append(out, section{s[done:], -1, done == 0})
	}
	return out
}

// insideWord reports whether s[start:end] touches a letter or digit.
func insideWord(s string, start, end int) bool {
	before, _ := utf8.DecodeLastRuneInString(s[:start])
	after, _ := utf8.DecodeRuneInString(s[end:])
	return start > 0 && words.IsWord(before) || end < len(s) && words.IsWord(after)
}

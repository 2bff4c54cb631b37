// Package words turns text into words: the normalizers and pre-tokenizers of
// Hugging Face's tokenizer.json, as https://github.com/huggingface/tokenizers
// defines them, and the two parts that decoding and SentencePiece share with
// them, GPT-2's byte alphabet and the precompiled charsmap.
package words

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Normalizer rewrites a text before it is cut into words.
type Normalizer interface {
	Normalize(s string) string
}

// normalizers applies several in turn.
type normalizers []Normalizer

// Normalize applies them in order.
func (ns normalizers) Normalize(s string) string {
	for _, n := range ns {
		s = n.Normalize(s)
	}
	return s
}

// normalizerFunc is a normalizer without state.
type normalizerFunc func(s string) string

// Normalize calls f.
func (f normalizerFunc) Normalize(s string) string { return f(s) }

// unicodeForm normalises to one of Unicode's forms.
func unicodeForm(f norm.Form) Normalizer { return normalizerFunc(f.String) }

// lowercase maps every character by itself, as Rust's char::to_lowercase: in
// Unicode only U+0130 becomes two characters.
func lowercase(s string) string {
	if !strings.ContainsRune(s, 'İ') {
		return strings.Map(unicode.ToLower, s)
	}
	var b strings.Builder
	for _, r := range s {
		if r == 'İ' {
			b.WriteString("i\u0307")
		} else {
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// stripMarks removes the characters of the class in a decomposed text.
func stripMarks(class *unicode.RangeTable) Normalizer {
	return normalizerFunc(func(s string) string {
		return strings.Map(func(r rune) rune {
			if unicode.Is(class, r) {
				return -1
			}
			return r
		}, s)
	})
}

// stripSpace removes whitespace at the ends.
type stripSpace struct{ left, right bool }

// Normalize trims s.
func (n stripSpace) Normalize(s string) string {
	if n.left {
		s = strings.TrimLeftFunc(s, unicode.IsSpace)
	}
	if n.right {
		s = strings.TrimRightFunc(s, unicode.IsSpace)
	}
	return s
}

// prepend puts a string before a text that is not empty.
type prepend string

// Normalize returns an empty s as it is.
func (p prepend) Normalize(s string) string {
	if s == "" {
		return s
	}
	return string(p) + s
}

// replaceString replaces every occurrence of a string.
type replaceString struct{ old, new string }

// Normalize replaces from left to right.
func (n replaceString) Normalize(s string) string { return strings.ReplaceAll(s, n.old, n.new) }

// replaceRegexp replaces every match of an expression.
type replaceRegexp struct {
	pattern *regexpPattern
	new     string
}

// Normalize replaces from left to right.
func (n replaceRegexp) Normalize(s string) string { return n.pattern.replaceAll(s, n.new) }

// bertNormalizer composes the steps of BERT's BasicTokenizer.
func bertNormalizer(clean, chinese, strip, lower bool) Normalizer {
	var ns normalizers
	if clean {
		ns = append(ns, normalizerFunc(bertClean))
	}
	if chinese {
		ns = append(ns, normalizerFunc(spaceIdeographs))
	}
	if strip {
		ns = append(ns, unicodeForm(norm.NFD), stripMarks(unicode.Mn))
	}
	if lower {
		ns = append(ns, normalizerFunc(lowercase))
	}
	return ns
}

// bertClean drops control characters and makes all whitespace a space.
func bertClean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case r == 0xFFFD || unicode.IsOneOf(otherClasses, r): // \v and \f, too
			return -1
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, s)
}

// otherClasses are the controls, formats and private characters of Unicode.
var otherClasses = []*unicode.RangeTable{unicode.Cc, unicode.Cf, unicode.Co}

// spaceIdeographs surrounds CJK ideographs with spaces: each is a word.
func spaceIdeographs(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range s {
		if isIdeograph(r) {
			b.WriteByte(' ')
			b.WriteRune(r)
			b.WriteByte(' ')
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isIdeograph covers the blocks that BERT lists.
func isIdeograph(r rune) bool {
	switch {
	case r < 0x3400:
		return false
	case r <= 0x4DBF, r >= 0x4E00 && r <= 0x9FFF, r >= 0xF900 && r <= 0xFAFF,
		r >= 0x20000 && r <= 0x2A6DF, r >= 0x2A700 && r <= 0x2B73F, r >= 0x2B740 && r <= 0x2B81F,
		r >= 0x2B820 && r <= 0x2CEAF, r >= 0x2F800 && r <= 0x2FA1F:
		return true
	}
	return false
}

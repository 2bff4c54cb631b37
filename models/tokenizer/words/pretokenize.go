package words

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Piece is a part of a text on its way to the model.
type Piece struct {
	Text  string
	First bool // it begins the whole text
}

// PreTokenizer cuts pieces into smaller ones, at last into words. It may
// reuse in.
type PreTokenizer interface {
	Split(in []Piece) []Piece
}

// preTokenizers applies several in turn.
type preTokenizers []PreTokenizer

// Split applies them in order.
func (ps preTokenizers) Split(in []Piece) []Piece {
	for _, p := range ps {
		in = p.Split(in)
	}
	return in
}

// behavior says what becomes of the matches of a splitter's pattern.
type behavior string

const (
	removed            behavior = "Removed"
	isolated           behavior = "Isolated"
	contiguous         behavior = "Contiguous"
	mergedWithPrevious behavior = "MergedWithPrevious"
	mergedWithNext     behavior = "MergedWithNext"
)

// splitter cuts at the matches of a pattern.
type splitter struct {
	pattern  pattern
	behavior behavior
	invert   bool // what the pattern does not match counts as the match
}

// Split drops pieces without text.
func (s splitter) Split(in []Piece) []Piece {
	out := make([]Piece, 0, 2*len(in))
	for _, p := range in {
		if p.Text == "" {
			continue
		}
		cut := cutter{text: p.Text, behavior: s.behavior, first: p.First, out: out, base: len(out)}
		s.pattern.spans(p.Text, func(start, end int, match bool) {
			if start < end {
				cut.span(start, end, match != s.invert)
			}
		})
		out = cut.out
	}
	return out
}

// cutter turns the spans of one text into pieces.
type cutter struct {
	text     string
	behavior behavior
	first    bool

	out   []Piece
	base  int  // of the pieces of this text in out
	open  int  // where the last piece starts
	match bool // the span before was a match
}

func (c *cutter) span(start, end int, match bool) {
	join := false
	switch c.behavior {
	case removed:
		if match {
			return
		}
	case contiguous:
		join = match == c.match
	case mergedWithPrevious:
		join = match && !c.match
	case mergedWithNext:
		join = c.match && !match
	}
	c.match = match
	if last := len(c.out) - 1; join && last >= c.base {
		c.out[last].Text = c.text[c.open:end]
		return
	}
	c.open = start
	c.out = append(c.out, Piece{c.text[start:end], c.first && start == 0})
}

// metaspace writes spaces as a visible character and begins words with it.
type metaspace struct {
	replacement string
	prepend     string // "always", "first" or "never"
	words       bool   // cut before every replacement
}

// Split rewrites the pieces, and cuts them if words is set.
func (m metaspace) Split(in []Piece) []Piece {
	for i, p := range in {
		s := strings.ReplaceAll(p.Text, " ", m.replacement)
		wanted := m.prepend == "always" || m.prepend == "first" && p.First
		if wanted && !strings.HasPrefix(s, m.replacement) {
			s = m.replacement + s
		}
		in[i].Text = s
	}
	if !m.words {
		return in
	}
	return splitter{pattern: literal(m.replacement), behavior: mergedWithNext}.Split(in)
}

// fixedLength cuts pieces of a number of characters.
type fixedLength int

// Split leaves a shorter piece at the end.
func (n fixedLength) Split(in []Piece) []Piece {
	var out []Piece
	for _, p := range in {
		start, count := 0, 0
		for i := range p.Text {
			if count == int(n) {
				out = append(out, Piece{p.Text[start:i], p.First && start == 0})
				start, count = i, 0
			}
			count++
		}
		out = append(out, Piece{p.Text[start:], p.First && start == 0})
	}
	return out
}

// pattern finds the spans of a text, in order and without gaps, that match
// and those that do not.
type pattern interface {
	spans(s string, yield func(start, end int, match bool))
}

// literal matches a string.
type literal string

func (l literal) spans(s string, yield func(start, end int, match bool)) {
	start := 0
	for {
		i := strings.Index(s[start:], string(l))
		if i < 0 {
			break
		}
		yield(start, start+i, false)
		yield(start+i, start+i+len(l), true)
		start += i + len(l)
	}
	yield(start, len(s), false)
}

// runes matches single characters of a class.
type runes func(r rune) bool

func (in runes) spans(s string, yield func(start, end int, match bool)) {
	start := 0
	for i, r := range s {
		if in(r) {
			_, size := utf8.DecodeRuneInString(s[i:]) // not the length of r: s may hold broken bytes
			end := i + size
			yield(start, i, false)
			yield(i, end, true)
			start = end
		}
	}
	yield(start, len(s), false)
}

// scanner matches the whole text as a sequence of words: it returns the
// length of the word that s begins with, at least 1 for a non-empty s.
type scanner func(s string) int

func (next scanner) spans(s string, yield func(start, end int, match bool)) {
	for start := 0; start < len(s); {
		end := start + next(s[start:])
		yield(start, end, true)
		start = end
	}
}

func isNumber(r rune) bool { return unicode.Is(unicode.N, r) }

// isBertPunctuation is BERT's class: all ASCII that is neither letter, digit
// nor space, and Unicode punctuation.
func isBertPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && r < 0x7F && !asciiAlnum(r)
	}
	return unicode.Is(unicode.P, r)
}

func asciiAlnum(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// IsWord is the class \w of a Unicode regular expression.
func IsWord(r rune) bool {
	return r == '_' || unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Pc)
}

// bertWords removes whitespace and isolates punctuation.
func bertWords() PreTokenizer {
	return preTokenizers{
		splitter{pattern: runes(unicode.IsSpace), behavior: removed},
		splitter{pattern: runes(isBertPunctuation), behavior: isolated},
	}
}

// wordsAndSymbols is the pattern \w+|[^\w\s]+: runs of one class.
func wordsAndSymbols(s string, yield func(start, end int, match bool)) {
	const (
		space = iota
		word
		symbol
	)
	class := func(r rune) int {
		switch {
		case IsWord(r):
			return word
		case unicode.IsSpace(r):
			return space
		}
		return symbol
	}
	start, current := 0, space
	for i, r := range s {
		if c := class(r); c != current {
			yield(start, i, current != space)
			start, current = i, c
		}
	}
	yield(start, len(s), current != space)
}

// patternFunc is a pattern without state.
type patternFunc func(s string, yield func(start, end int, match bool))

func (f patternFunc) spans(s string, yield func(start, end int, match bool)) { f(s, yield) }

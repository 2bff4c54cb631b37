package grammar

import (
	"slices"
	"unicode/utf8"

	"helicon/models/sample/grammar/characters"
)

// class is a set of characters: ranges in order, apart from each other.
type class []span

// span is a range of characters, both ends included.
type span = characters.Range

// Surrogates are no characters.
const (
	firstSurrogate = characters.FirstSurrogate
	lastSurrogate  = characters.LastSurrogate
)

// newClass returns the union of spans.
func newClass(spans ...span) class {
	spans = slices.DeleteFunc(slices.Clone(spans), func(s span) bool { return s[0] > s[1] })
	slices.SortFunc(spans, func(a, b span) int { return int(a[0]) - int(b[0]) })
	var c class
	for _, s := range spans {
		if n := len(c); n > 0 && s[0] <= c[n-1][1]+1 {
			c[n-1][1] = max(c[n-1][1], s[1])
			continue
		}
		c = append(c, s)
	}
	return c
}

// not returns all characters that are not in c.
func (c class) not() class {
	var out class
	next := rune(0)
	for _, s := range c {
		if s[0] > next {
			out = append(out, span{next, s[0] - 1})
		}
		next = s[1] + 1
	}
	if next <= utf8.MaxRune {
		out = append(out, span{next, utf8.MaxRune})
	}
	return out
}

// and returns the characters of both.
func (c class) and(d class) class {
	return newClass(append(slices.Clone(c.not()), d.not()...)...).not()
}

func (c class) has(r rune) bool {
	return slices.ContainsFunc(c, func(s span) bool { return s[0] <= r && r <= s[1] })
}

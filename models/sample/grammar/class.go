package grammar

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// class is a set of characters: ranges in order, apart from each other.
type class []span

// span is a range of characters, both ends included.
type span struct{ low, high rune }

// Surrogates are no characters.
const (
	firstSurrogate = 0xD800
	lastSurrogate  = 0xDFFF
)

// newClass returns the union of spans.
func newClass(spans ...span) class {
	spans = slices.DeleteFunc(slices.Clone(spans), func(s span) bool { return s.low > s.high })
	slices.SortFunc(spans, func(a, b span) int { return int(a.low) - int(b.low) })
	var c class
	for _, s := range spans {
		if n := len(c); n > 0 && s.low <= c[n-1].high+1 {
			c[n-1].high = max(c[n-1].high, s.high)
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
		if s.low > next {
			out = append(out, span{next, s.low - 1})
		}
		next = s.high + 1
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
	return slices.ContainsFunc(c, func(s span) bool { return s.low <= r && r <= s.high })
}

// byteSpan is a range of bytes, both ends included.
type byteSpan struct{ low, high byte }

// encodings calls emit with sequences of byte ranges that together are the UTF-8
// encodings of the characters from low to high (as in Cox 2010, "Regular Expression
// Matching in the Wild").
func encodings(low, high rune, emit func([]byteSpan)) {
	if low > high {
		return
	}
	if low <= lastSurrogate && high >= firstSurrogate {
		encodings(low, firstSurrogate-1, emit)
		encodings(lastSurrogate+1, high, emit)
		return
	}
	for _, last := range [...]rune{0x7F, 0x7FF, 0xFFFF} {
		if low <= last && last < high {
			encodings(low, last, emit)
			encodings(last+1, high, emit)
			return
		}
	}
	for shift := 6; shift < 6*utf8.RuneLen(high); shift += 6 {
		mask := rune(1)<<shift - 1
		switch {
		case low&^mask == high&^mask:
		case low&mask != 0:
			encodings(low, low|mask, emit)
			encodings(low|mask+1, high, emit)
			return
		case high&mask != mask:
			encodings(low, high&^mask-1, emit)
			encodings(high&^mask, high, emit)
			return
		}
	}
	a, b := utf8.AppendRune(nil, low), utf8.AppendRune(nil, high)
	spans := make([]byteSpan, len(a))
	for i := range a {
		spans[i] = byteSpan{a[i], b[i]}
	}
	emit(spans)
}

// What follows a byte at a terminal, if not another terminal.
const (
	matched = -1 // the character is complete
	dead    = -2 // it is none of the class
)

// terminals are the states of deterministic automata, one for each class, that read
// the bytes of one character.
type terminals struct {
	next  [][256]int32
	known map[string]int32
}

// add returns the terminal where the characters of c begin.
func (t *terminals) add(c class) int32 {
	var rest [][]byteSpan
	for _, s := range c {
		encodings(s.low, s.high, func(e []byteSpan) { rest = append(rest, e) })
	}
	return t.state(rest)
}

// addByte returns the terminal of a single byte.
func (t *terminals) addByte(b byte) int32 { return t.state([][]byteSpan{{{b, b}}}) }

// state returns the terminal that reads one of the sequences.
func (t *terminals) state(rest [][]byteSpan) int32 {
	var key strings.Builder
	for _, sequence := range rest {
		for _, s := range sequence {
			key.Write([]byte{s.low, s.high})
		}
		key.WriteByte(0xFF) // no byte of UTF-8
		key.WriteByte(0)    // no range ends below its beginning
	}
	if id, ok := t.known[key.String()]; ok {
		return id
	}
	id := int32(len(t.next))
	t.known[key.String()] = id
	t.next = append(t.next, [256]int32{})
	for b := range 256 {
		var follow [][]byteSpan
		next := int32(dead)
		for _, sequence := range rest {
			if s := sequence[0]; byte(b) < s.low || byte(b) > s.high {
				continue
			}
			if len(sequence) == 1 {
				next = matched
				break
			}
			follow = append(follow, sequence[1:])
		}
		if follow != nil {
			next = t.state(follow)
		}
		t.next[id][b] = next
	}
	return id
}

// compress returns the classes of bytes that no terminal tells apart, and the
// terminals by class instead of byte.
func (t *terminals) compress() (next []int32, classes int, classOf [256]uint8) {
	classes = 1
	for _, row := range t.next {
		type split struct {
			class uint8
			next  int32
		}
		parts := map[split]uint8{}
		var refined [256]uint8
		for b := range 256 {
			s := split{classOf[b], row[b]}
			if _, ok := parts[s]; !ok {
				parts[s] = uint8(len(parts))
			}
			refined[b] = parts[s]
		}
		classOf, classes = refined, len(parts)
	}
	next = make([]int32, len(t.next)*classes)
	for i, row := range t.next {
		for b, class := range classOf {
			next[i*classes+int(class)] = row[b]
		}
	}
	return next, classes, classOf
}

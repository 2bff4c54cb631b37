// Package characters reads single characters of UTF-8 byte by byte: sets of characters
// become deterministic automata over bytes, which share the states that they have in
// common.
package characters

import (
	"strings"
	"unicode/utf8"
)

// Range is a first and a last character, both included.
type Range = [2]rune

// Surrogates are no characters.
const (
	FirstSurrogate = 0xD800
	LastSurrogate  = 0xDFFF
)

// byteSpan is a range of bytes, both ends included.
type byteSpan struct{ low, high byte }

// encodings calls emit with sequences of byte ranges that together are the UTF-8
// encodings of the characters from low to high (as in Cox 2010, "Regular Expression
// Matching in the Wild").
func encodings(low, high rune, emit func([]byteSpan)) {
	if low > high {
		return
	}
	if low <= LastSurrogate && high >= FirstSurrogate {
		encodings(low, FirstSurrogate-1, emit)
		encodings(LastSurrogate+1, high, emit)
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

// What follows a byte at a state, if not another state.
const (
	Matched = -1 // the character is complete
	Dead    = -2 // it is none of the set
)

// Automata are the states of deterministic automata, one for each set that was added, that
// read the bytes of one character. The zero value has none.
type Automata struct {
	next  [][256]int32
	known map[string]int32
}

// Len returns the number of states.
func (t *Automata) Len() int { return len(t.next) }

// Add returns the state where the characters of a set begin, ranges apart from each other.
func (t *Automata) Add(set []Range) int32 {
	var rest [][]byteSpan
	for _, s := range set {
		encodings(s[0], s[1], func(e []byteSpan) { rest = append(rest, e) })
	}
	return t.state(rest)
}

// AddByte returns the state of a single byte.
func (t *Automata) AddByte(b byte) int32 { return t.state([][]byteSpan{{{b, b}}}) }

// state returns the state that reads one of the sequences.
func (t *Automata) state(rest [][]byteSpan) int32 {
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
	if t.known == nil {
		t.known = map[string]int32{}
	}
	id := int32(len(t.next))
	t.known[key.String()] = id
	t.next = append(t.next, [256]int32{})
	for b := range 256 {
		var follow [][]byteSpan
		next := int32(Dead)
		for _, sequence := range rest {
			if s := sequence[0]; byte(b) < s.low || byte(b) > s.high {
				continue
			}
			if len(sequence) == 1 {
				next = Matched
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

// Compress returns the classes of bytes, how many there are, which no state tells apart,
// and [state][class] what follows: another state, Matched or Dead.
func (t *Automata) Compress() (next []int32, classes int, classOf [256]uint8) {
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

package words

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Charsmap is SentencePiece's precompiled normaliser: a double-array trie
// (Aoe 1989, as darts-clone lays it out) from character sequences to offsets
// of their replacements, which are strings that end in a zero byte.
type Charsmap struct {
	units        []uint32
	replacements []byte
}

// NewCharsmap reads the blob: the size of the trie in bytes, the trie, and
// the replacements.
func NewCharsmap(blob []byte) (*Charsmap, error) {
	if len(blob) < 4 {
		return nil, errors.New("precompiled_charsmap is too short")
	}
	size := int64(binary.LittleEndian.Uint32(blob))
	if size%4 != 0 || size == 0 || size > int64(len(blob)-4) {
		return nil, fmt.Errorf("precompiled_charsmap: a trie of %d bytes in %d", size, len(blob)-4)
	}
	m := &Charsmap{units: make([]uint32, size/4), replacements: blob[4+size:]}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(blob[4+4*i:])
	}
	return m, nil
}

// Fields of a unit of the trie.
func unitHasLeaf(u uint32) bool  { return u>>8&1 == 1 }
func unitValue(u uint32) uint32  { return u & (1<<31 - 1) }
func unitLabel(u uint32) uint32  { return u & (1<<31 | 0xFF) }
func unitOffset(u uint32) uint32 { return u >> 10 << (u & (1 << 9) >> 6) }

// longest returns the replacement of the longest sequence that s begins
// with, and the length of that sequence; the length is 0 if there is none.
func (m *Charsmap) longest(s string) (replacement string, size int) {
	at := unitOffset(m.units[0])
	for i := range len(s) {
		if s[i] == 0 {
			break
		}
		at ^= uint32(s[i])
		if int(at) >= len(m.units) || unitLabel(m.units[at]) != uint32(s[i]) {
			break
		}
		u := m.units[at]
		at ^= unitOffset(u)
		if int(at) >= len(m.units) {
			break
		}
		if unitHasLeaf(u) {
			if r, ok := m.replacement(unitValue(m.units[at])); ok {
				replacement, size = r, i+1
			}
		}
	}
	return replacement, size
}

func (m *Charsmap) replacement(offset uint32) (string, bool) {
	if int64(offset) >= int64(len(m.replacements)) {
		return "", false
	}
	rest := m.replacements[offset:]
	end := bytes.IndexByte(rest, 0)
	if end < 0 {
		return "", false
	}
	return string(rest[:end]), true
}

// First normalises the first character, or sequence of characters, of s.
func (m *Charsmap) First(s string) (normalized string, size int) {
	if m != nil {
		if r, n := m.longest(s); n > 0 {
			return r, n
		}
	}
	_, n := utf8.DecodeRuneInString(s)
	return s[:n], n
}

// Normalize rewrites s from left to right, the longest sequence first, as
// SentencePiece does.
func (m *Charsmap) Normalize(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for s != "" {
		r, n := m.First(s)
		b.WriteString(r)
		s = s[n:]
	}
	return b.String()
}

package words

import "strings"

// ByteAlphabet is GPT-2's bijection between the 256 bytes and printable
// characters: printable Latin-1 stands for itself, the others are moved to
// U+0100 and up, so that a vocabulary is text without spaces or controls.
type ByteAlphabet struct {
	char [256]string
	bite [maxByteRune + 1]int16 // -1 where a rune stands for no byte
}

// maxByteRune is the largest rune of the byte alphabet: 68 bytes are moved.
const maxByteRune = 0x100 + 68 - 1

// NewByteAlphabet returns the alphabet; it is always the same.
func NewByteAlphabet() *ByteAlphabet {
	a := &ByteAlphabet{}
	for i := range a.bite {
		a.bite[i] = -1
	}
	moved := rune(0x100)
	for b := range 256 {
		r := rune(b)
		printable := b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE
		if !printable {
			r = moved
			moved++
		}
		a.char[b] = string(r)
		a.bite[r] = int16(b)
	}
	return a
}

// Encode returns s with every byte replaced by its character.
func (a *ByteAlphabet) Encode(s string) string {
	var b strings.Builder
	b.Grow(len(s) + len(s)/2)
	for i := range len(s) {
		b.WriteString(a.char[s[i]])
	}
	return b.String()
}

// Decode appends the bytes that token stands for. A token with a character
// outside the alphabet stands for itself.
func (a *ByteAlphabet) Decode(dst []byte, token string) []byte {
	n := len(dst)
	for _, r := range token {
		if r > maxByteRune || a.bite[r] < 0 {
			return append(dst[:n], token...)
		}
		dst = append(dst, byte(a.bite[r]))
	}
	return dst
}

// byteLevelNormalizer applies the byte alphabet to the whole text.
type byteLevelNormalizer struct{ alphabet *ByteAlphabet }

// Normalize returns s in the alphabet.
func (n byteLevelNormalizer) Normalize(s string) string { return n.alphabet.Encode(s) }

// byteLevelMap is the part of the ByteLevel pre-tokenizer after its split: it
// prepends a space if asked to and applies the byte alphabet to every piece.
type byteLevelMap struct{ alphabet *ByteAlphabet }

// Split keeps the pieces as they are cut.
func (m byteLevelMap) Split(in []Piece) []Piece {
	size := 0
	for _, p := range in {
		size += len(p.Text)
	}
	// One string holds all pieces: one allocation a text, not one a word.
	var b strings.Builder
	b.Grow(size + size/2)
	ends := make([]int, len(in))
	for i, p := range in {
		for j := range len(p.Text) {
			b.WriteString(m.alphabet.char[p.Text[j]])
		}
		ends[i] = b.Len()
	}
	all, start := b.String(), 0
	for i, end := range ends {
		in[i].Text = all[start:end]
		start = end
	}
	return in
}

// prefixSpace prepends a space to pieces that do not begin with one.
type prefixSpace struct{}

// Split keeps the pieces as they are cut.
func (prefixSpace) Split(in []Piece) []Piece {
	for i, p := range in {
		if !strings.HasPrefix(p.Text, " ") {
			in[i].Text = " " + p.Text
		}
	}
	return in
}

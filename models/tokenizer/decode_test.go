package tokenizer

import (
	"slices"
	"strings"
	"testing"
)

func TestUTF8Joiner(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		in      string
		perByte bool
		want    string
	}{
		{"valid", "aé日😀", false, "aé日😀"},
		{"cut off", "a\xf0\x9f\x98", false, "a\uFFFD"},
		{"cut off, per byte", "a\xf0\x9f\x98", true, "a\uFFFD\uFFFD\uFFFD"},
		{"broken by ASCII", "\xf0\x9fa", false, "\uFFFDa"},
		{"broken by a lead byte", "\xe6\xe6\x97\xa5", false, "\uFFFD日"},
		{"stray continuation", "\x80\x80", false, "\uFFFD\uFFFD"},
		{"overlong", "\xc0\xaf", false, "\uFFFD\uFFFD"},
	} {
		j := utf8Joiner{perByte: c.perByte}
		var b strings.Builder
		for i := range len(c.in) {
			b.WriteString(j.push([]byte{c.in[i]}))
		}
		b.WriteString(j.flush())
		whole := utf8Joiner{perByte: c.perByte}
		if got := whole.push([]byte(c.in)) + whole.flush(); b.String() != c.want || got != c.want {
			t.Errorf("%s: by byte %q, whole %q, want %q", c.name, b.String(), got, c.want)
		}
	}
}

func TestStripStepFused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		parts       []string
		start, stop int
		want        string
	}{
		{[]string{" ", " a ", " b"}, 1, 0, " a  b"},
		{[]string{" ", " a"}, 2, 0, "a"},
		{[]string{"a ", " ", " "}, 0, 2, "a "},
		{[]string{"a ", "b "}, 0, 1, "a b"},
		{[]string{" "}, 1, 1, ""},
	} {
		s := &stripStep{content: " ", start: c.start, stop: c.stop, fused: true}
		var b strings.Builder
		next := func(c chunk) { b.WriteString(c.text) }
		for _, part := range c.parts {
			s.push(chunk{text: part}, next)
		}
		s.flush(next)
		if b.String() != c.want {
			t.Errorf("%q, start %d, stop %d: %q, want %q", c.parts, c.start, c.stop, b.String(), c.want)
		}
	}
}

func TestUnigramPrefersUserDefined(t *testing.T) {
	t.Parallel()
	m := &spmModel{modelType: spmUnigram, unkSurface: " \u2047 ", pieces: []spmPiece{
		{"<unk>", 0, pieceUnknown}, {"ab", -1, pieceNormal}, {"a", -2, pieceNormal}, {"b", -2, pieceNormal},
		{"<x>", 0, pieceUserDefined}, {"zz", -1, pieceUnused},
	}}
	tok, err := m.tokenizer(&bundleConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := tok.Encode("ab<x>bzz", EncodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{1, 4, 3, 0}; !slices.Equal(ids, want) {
		t.Errorf("ids %v, want %v", ids, want)
	}
}

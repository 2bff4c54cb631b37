package characters

import (
	"math/rand/v2"
	"testing"
	"unicode/utf8"
)

// matches runs the automaton at a state over text.
func matches(next []int32, classes int, classOf [256]uint8, at int32, text []byte) bool {
	for i, b := range text {
		switch at = next[int(at)*classes+int(classOf[b])]; at {
		case Matched:
			return i == len(text)-1
		case Dead:
			return false
		}
	}
	return false
}

// TestAutomata reads the first and last characters of ranges, their neighbours and some
// between, with sets of one, several and all characters.
func TestAutomata(t *testing.T) {
	t.Parallel()
	sets := [][]Range{
		{{'a', 'a'}}, {{'0', '9'}, {'A', 'Z'}}, {{0, utf8.MaxRune}}, {{0x7F, 0x80}}, {{0x7FF, 0x800}},
		{{0xD7FF, 0xE000}}, {{0xFFFF, 0x10000}}, {{0x10FFFF, 0x10FFFF}}, {{0xE9, 0x4E2D}, {0x1F600, 0x1F64F}}, nil,
	}
	var a Automata
	begin := make([]int32, len(sets))
	for i, set := range sets {
		begin[i] = a.Add(set)
	}
	if again := a.Add(sets[1]); again != begin[1] {
		t.Errorf("the same set begins at %d and at %d", begin[1], again)
	}
	letter := a.AddByte('x')
	next, classes, classOf := a.Compress()
	if len(next) != a.Len()*classes {
		t.Fatalf("%d transitions of %d states and %d classes", len(next), a.Len(), classes)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var tried []rune
	for _, set := range sets {
		for _, r := range set {
			tried = append(tried, r[0]-1, r[0], r[1], r[1]+1)
		}
	}
	for range 2000 {
		tried = append(tried, random.Int32N(utf8.MaxRune+1))
	}
	for _, r := range tried {
		if !utf8.ValidRune(r) {
			continue
		}
		text := utf8.AppendRune(nil, r)
		for i, set := range sets {
			want := false
			for _, s := range set {
				want = want || s[0] <= r && r <= s[1]
			}
			if got := matches(next, classes, classOf, begin[i], text); got != want {
				t.Fatalf("set %d %v and %U: %v, want %v", i, set, r, got, want)
			}
		}
		if matches(next, classes, classOf, letter, text) != (r == 'x') {
			t.Fatalf("the byte x and %U", r)
		}
	}
}

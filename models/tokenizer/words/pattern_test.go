package words

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// words returns the pieces into which a pattern cuts s.
func words(p pattern, s string) []string {
	var out []string
	for _, piece := range (splitter{pattern: p, behavior: isolated}).Split([]Piece{{Text: s}}) {
		out = append(out, piece.Text)
	}
	return out
}

// FuzzScanners: the written-out scanners must equal their expressions.
func FuzzScanners(f *testing.F) {
	for _, s := range []string{
		"Hello, world! It's 12345 o'clock.", "  two\t\tspaces \r\n\r\n next", "'S 'ſ 'LL don'T", "\u00a0x\u2003\u3000 y",
		"日本語テキスト١٢٣½²", " \n \t x", "a  \n", "...!!!\r\n\r\n--", "e\u0301 👩\u200d👧", "x'rex", " 's", "'", "İı",
	} {
		f.Add(s)
	}
	type pair struct {
		name string
		scan pattern
		expr *regexpPattern
	}
	var pairs []pair
	for _, expr := range []string{gpt2Pattern, llama3Pattern, qwen2Pattern} {
		scan, ok := scannerOf(expr)
		if !ok {
			f.Fatalf("no scanner for %s", expr)
		}
		re, err := newRegexp(expr)
		if err != nil {
			f.Fatal(err)
		}
		pairs = append(pairs, pair{expr[:20], scan, re})
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		for _, p := range pairs {
			got, want := words(p.scan, s), words(p.expr, s)
			if strings.Join(got, "\x00|") != strings.Join(want, "\x00|") {
				t.Fatalf("%s: %q: scanner %q, expression %q", p.name, s, got, want)
			}
		}
	})
}

func TestPatternDialect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expr, text string
		want       string // pieces joined by |
	}{
		{`\s+`, "a \u3000b", "a| \u3000|b"},
		{`[\w]+`, "né_1 !", "né_1| !"},
		{`\d`, "a1٢", "a|1|٢"},
		{`[^\s]+`, "ab c", "ab| |c"},
		{`[a[0-9]_]+`, "a1_b", "a1_|b"},
		{`[0-9][0-9][0-9]`, "1234567", "123|456|7"},
		{`\u4e00+`, "x一一", "x|一一"},
		{`\p{Han}+|\s+(?!\S)|\s+`, "漢字  x", "漢字| | |x"},
		{`(?i:ab)|\s+(?!\S)|\s`, "xAB  y", "x|AB| | |y"},
		{`[]x]`, "a]x", "a|]|x"},
		{`$`, "a", "a"},
	} {
		p, err := newPattern(c.expr)
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		if got := strings.Join(words(p, c.text), "|"); got != c.want {
			t.Errorf("%s on %q: %q, want %q", c.expr, c.text, got, c.want)
		}
	}
	for _, expr := range []string{
		`a(?=b)`, `a(?!b)`, `(?<=a)b`, `(?>a)`, `a++`, `[a&&b]`, `[\S]`, `[a[^b]]`, `[a`, `(`, `a\`, `\p{Nonsense}`, `^\s+(?!\S)|\s+`, `(\s+(?!\S)|\s+)`,
	} {
		if _, err := newPattern(expr); err == nil || !strings.Contains(err.Error(), "pattern") {
			t.Errorf("%s: error %v, want one that names the pattern", expr, err)
		}
	}
}

func TestSplitBehaviors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		behavior behavior
		invert   bool
		want     string
	}{
		{removed, false, "the|final|countdown"},
		{isolated, false, "the|-|final|-|-|countdown"},
		{contiguous, false, "the|-|final|--|countdown"},
		{mergedWithPrevious, false, "the-|final-|-|countdown"},
		{mergedWithNext, false, "the|-final|-|-countdown"},
		{removed, true, "-|-|-"},
	} {
		s := splitter{pattern: runes(func(r rune) bool { return r == '-' }), behavior: c.behavior, invert: c.invert}
		var got []string
		for _, p := range s.Split([]Piece{{Text: "the-final--countdown"}}) {
			got = append(got, p.Text)
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%s, invert %v: %q, want %q", c.behavior, c.invert, got, c.want)
		}
	}
}

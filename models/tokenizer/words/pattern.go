package words

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// newPattern compiles an expression in the dialect of tokenizer.json
// (Oniguruma's). Matching takes linear time whatever the expression and the
// text, because it is done by Go's automata; what these cannot express is an
// error, with one exception: \s+(?!\S), which the published patterns share, is
// rewritten as a group whose match is shortened afterwards.
func newPattern(expr string) (pattern, error) {
	if scan, ok := scannerOf(expr); ok {
		return scan, nil
	}
	return newRegexp(expr)
}

// regexpPattern is an expression translated for package regexp.
type regexpPattern struct {
	re     *regexp.Regexp
	spaces []int // groups that match \s+(?!\S)|\s+
}

func newRegexp(expr string) (*regexpPattern, error) {
	t := translator{in: expr}
	if err := t.run(); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", expr, err)
	}
	if t.looksBack && len(t.spaces) > 0 {
		return nil, fmt.Errorf("pattern %q: ^ and \\b are not supported beside \\s+(?!\\S)", expr)
	}
	re, err := regexp.Compile(t.out.String())
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", expr, err)
	}
	return &regexpPattern{re: re, spaces: t.spaces}, nil
}

func (p *regexpPattern) spans(s string, yield func(start, end int, match bool)) {
	done := 0
	if len(p.spaces) == 0 {
		for _, loc := range p.re.FindAllStringIndex(s, -1) {
			yield(done, loc[0], false)
			yield(loc[0], loc[1], true)
			done = loc[1]
		}
		yield(done, len(s), false)
		return
	}
	for at := 0; at < len(s); {
		// A shortened match moves the start of the next search, so that only
		// the rest is searched: newRegexp has seen to it that nothing looks back.
		loc := p.re.FindStringSubmatchIndex(s[at:])
		if loc == nil {
			break
		}
		start, end := at+loc[0], at+loc[1]
		for _, g := range p.spaces {
			if loc[2*g] >= 0 && end-start > 0 {
				end = start + spaces(s[start:])
			}
		}
		if end == start { // an empty match separates nothing
			at = start + max(1, firstSize(s[start:]))
			continue
		}
		yield(done, start, false)
		yield(start, end, true)
		done, at = end, end
	}
	yield(done, len(s), false)
}

// firstSize returns the length of the first character of s, 0 if s is empty.
func firstSize(s string) int {
	_, size := classAt(s)
	return size
}

// replaceAll replaces the matches in s.
func (p *regexpPattern) replaceAll(s, content string) string {
	var b strings.Builder
	p.spans(s, func(start, end int, match bool) {
		if match {
			b.WriteString(content)
		} else {
			b.WriteString(s[start:end])
		}
	})
	return b.String()
}

// Classes of Unicode that package regexp limits to ASCII or does not know.
const (
	spaceClass = `\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}`
	wordClass  = `\p{L}\p{M}\p{Nd}\p{Pc}`
)

// translator rewrites an Oniguruma expression for package regexp.
type translator struct {
	in     string
	pos    int
	out    strings.Builder
	groups int
	spaces []int // groups that stand for \s+(?!\S)|\s+

	looksBack bool // a match depends on the character before it
}

// trailingSpaces lists the spellings of "spaces, but not the last one before a
// word": both mean the same, as the last alternative only ever meets one space.
var trailingSpaces = [...]string{`\s+(?!\S)|\s+`, `\s+(?!\S)|\s`}

func (t *translator) run() error {
	depth := 0
	for t.pos < len(t.in) {
		rest := t.in[t.pos:]
		if n := trailing(rest); n > 0 && depth == 0 {
			t.groups++
			t.spaces = append(t.spaces, t.groups)
			t.out.WriteString(`([` + spaceClass + `]+)`)
			t.pos += n
			continue
		}
		switch c := rest[0]; c {
		case '\\':
			if err := t.escape(false); err != nil {
				return err
			}
			continue
		case '[':
			class, err := t.class()
			if err != nil {
				return err
			}
			t.out.WriteString(class)
			continue
		case '(':
			depth++
			if err := t.group(rest); err != nil {
				return err
			}
		case ')':
			depth--
		case '^':
			t.looksBack = true
			t.out.WriteString(`(?m:^)`)
			t.pos++
			continue
		case '$':
			t.out.WriteString(`(?m:$)`)
			t.pos++
			continue
		case '+':
			if t.pos > 0 && strings.IndexByte("?*+", t.in[t.pos-1]) >= 0 && !t.escaped(t.pos-1) {
				return errors.New("possessive quantifiers are not supported")
			}
		}
		t.out.WriteByte(t.in[t.pos])
		t.pos++
	}
	return nil
}

func trailing(s string) int {
	for _, form := range trailingSpaces {
		if after, ok := strings.CutPrefix(s, form); ok && (after == "" || after[0] == '|') {
			return len(form)
		}
	}
	return 0
}

// escaped reports whether the byte at pos is preceded by an odd number of
// backslashes.
func (t *translator) escaped(pos int) bool {
	n := 0
	for pos-n-1 >= 0 && t.in[pos-n-1] == '\\' {
		n++
	}
	return n%2 == 1
}

// group checks an opening parenthesis.
func (t *translator) group(rest string) error {
	if !strings.HasPrefix(rest, "(?") {
		t.groups++
		return nil
	}
	for _, look := range []string{"(?=", "(?!", "(?<=", "(?<!", "(?>", "(?#", "(?~"} {
		if strings.HasPrefix(rest, look) {
			return fmt.Errorf("%q at offset %d is supported only as \\s+(?!\\S)", look, t.pos)
		}
	}
	if strings.HasPrefix(rest, "(?<") || strings.HasPrefix(rest, "(?P<") {
		t.groups++
	}
	return nil
}

// escape copies a backslash sequence, inside a class or outside.
func (t *translator) escape(inClass bool) error {
	if t.pos+1 >= len(t.in) {
		return errors.New("it ends in a backslash")
	}
	c := t.in[t.pos+1]
	t.pos += 2
	if class, ok := map[byte]string{'s': spaceClass, 'w': wordClass, 'd': `\p{Nd}`, 'h': `0-9a-fA-F`}[c]; ok {
		if !inClass {
			class = "[" + class + "]"
		}
		t.out.WriteString(class)
		return nil
	}
	if class, ok := map[byte]string{'S': spaceClass, 'W': wordClass, 'D': `\p{Nd}`, 'H': `0-9a-fA-F`}[c]; ok {
		if inClass {
			return fmt.Errorf("\\%c inside a class is not supported", c)
		}
		t.out.WriteString("[^" + class + "]")
		return nil
	}
	if c == 'b' || c == 'B' || c == 'A' {
		t.looksBack = true
	}
	if c == 'u' && t.pos+4 <= len(t.in) {
		t.out.WriteString(`\x{` + t.in[t.pos:t.pos+4] + `}`)
		t.pos += 4
		return nil
	}
	t.out.WriteByte('\\')
	t.out.WriteByte(c)
	return nil
}

// class translates a bracket expression; classes inside it are joined to it.
func (t *translator) class() (string, error) {
	outer := t.out
	t.out = strings.Builder{}
	err := t.classBody()
	class := t.out.String()
	t.out = outer
	return class, err
}

func (t *translator) classBody() error {
	depth := 0
	for first := true; t.pos < len(t.in); first = false {
		rest := t.in[t.pos:]
		switch c := rest[0]; {
		case c == '[' && strings.HasPrefix(rest, "[:"):
			end := strings.Index(rest, ":]")
			if end < 0 {
				return errors.New("a [: is not closed")
			}
			t.out.WriteString(rest[:end+2])
			t.pos += end + 2
		case c == '[':
			if depth > 0 && strings.HasPrefix(rest, "[^") {
				return errors.New("a negated class inside a class is not supported")
			}
			if depth == 0 {
				t.out.WriteByte('[')
			}
			depth++
			t.pos++
			if depth == 1 && strings.HasPrefix(rest, "[^") {
				t.out.WriteByte('^')
				t.pos++
			}
			if strings.HasPrefix(t.in[t.pos:], "]") { // a literal ] comes first
				t.out.WriteString(`\]`)
				t.pos++
			}
		case c == ']':
			depth--
			t.pos++
			if depth == 0 {
				t.out.WriteByte(']')
				return nil
			}
		case c == '\\':
			if err := t.escape(true); err != nil {
				return err
			}
		case strings.HasPrefix(rest, "&&") && !first:
			return errors.New("&& inside a class is not supported")
		default:
			t.out.WriteByte(c)
			t.pos++
		}
	}
	return errors.New("a [ is not closed")
}

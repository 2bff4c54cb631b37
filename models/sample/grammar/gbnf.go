package grammar

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// rootRule is where a sentence begins.
const rootRule = "root"

// Parse compiles a grammar in GBNF:
//
//	root   ::= greeting ("," ws name){1,3} "!"   # one rule a line
//	name   ::= [A-Z] [^ \n]*
//
// A rule is a name, ::= and alternatives between |. What they are made of: "text",
// [characters], [^all others], . for any character, other rules, and groups in
// parentheses, each of which may be followed by ?, *, +, {m}, {m,} or {m,n}. Escapes
// are \n \r \t \\ \" \[ \] \- \^ \xFF \uFFFF and \UFFFFFFFF. A rule goes on in the
// next line inside parentheses, behind ::= and behind |. A comment begins with #.
//
// The error is an *Error, also for left recursion, a rule that never ends, and a
// grammar beyond the limits of the package.
func Parse(source string) (*Grammar, error) {
	p := &parser{source: source, index: map[string]int{}}
	rules, err := p.rules()
	if err == nil {
		var g *Grammar
		if g, err = compile(rules); err == nil {
			return g, nil
		}
	}
	at := 0
	var f *fault
	if errors.As(err, &f) {
		at = f.at
	}
	before := source[:at]
	line := strings.LastIndexByte(before, '\n') + 1
	return nil, &Error{1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[line:]), err.Error()}
}

// parser reads GBNF.
type parser struct {
	source string
	pos    int
	depth  int // of groups
	list   []rule
	index  map[string]int // of rules, by name
}

func (p *parser) fail(at int, format string, args ...any) error {
	return &fault{at, fmt.Sprintf(format, args...)}
}

// rules reads the whole source and returns the rules, the root first.
func (p *parser) rules() ([]rule, error) {
	switch {
	case len(p.source) > maxSource:
		return nil, p.fail(0, "the grammar has %d bytes; at most %d", len(p.source), maxSource)
	case !utf8.ValidString(p.source):
		return nil, p.fail(0, "the grammar is not valid UTF-8")
	}
	p.reference(rootRule, 0)
	for p.space(true); p.pos < len(p.source); p.space(true) {
		if err := p.rule(); err != nil {
			return nil, err
		}
	}
	if p.list[0].body == nil {
		return nil, p.fail(0, "there is no rule named %s, where a text begins", rootRule)
	}
	for _, r := range p.list {
		if r.body == nil {
			return nil, p.fail(r.at, "there is no rule named %s", r.name)
		}
	}
	return p.list, nil
}

// reference returns the index of a rule that is named at an offset.
func (p *parser) reference(name string, at int) int {
	i, ok := p.index[name]
	if !ok {
		i = len(p.list)
		p.index[name] = i
		p.list = append(p.list, rule{name: name, at: at})
	}
	return i
}

func (p *parser) rule() error {
	at := p.pos
	name := p.name()
	if name == "" {
		return p.fail(at, "want the name of a rule")
	}
	p.space(false)
	if !p.take("::=") {
		return p.fail(p.pos, "want ::= behind the name %s", name)
	}
	p.space(true)
	i := p.reference(name, at)
	if p.list[i].body != nil {
		return p.fail(at, "the rule %s is defined twice", name)
	}
	if len(p.list) > maxRules {
		return p.fail(at, "more than %d rules", maxRules)
	}
	body, err := p.alternatives()
	if err != nil {
		return err
	}
	if p.pos < len(p.source) && p.peek() != '\n' && p.peek() != '\r' {
		return p.fail(p.pos, "want a new line behind the rule %s, not %q", name, p.char())
	}
	p.list[i].body, p.list[i].at = body, at
	return nil
}

// alternatives reads sequences between |, up to what is neither.
func (p *parser) alternatives() (*node, error) {
	all := &node{op: opChoice, at: p.pos}
	for {
		s, err := p.sequence()
		if err != nil {
			return nil, err
		}
		all.parts = append(all.parts, s)
		if !p.take("|") {
			break
		}
		p.space(true)
	}
	if len(all.parts) == 1 {
		return all.parts[0], nil
	}
	return all, nil
}

func (p *parser) sequence() (*node, error) {
	s := &node{op: opSequence, at: p.pos}
	for p.pos < len(p.source) {
		n, err := p.item()
		if err != nil {
			return nil, err
		}
		if n == nil {
			break
		}
		p.space(p.depth > 0)
		if n, err = p.repetitions(n); err != nil {
			return nil, err
		}
		s.parts = append(s.parts, n)
	}
	return s, nil
}

// item reads one item of a sequence; nil says that there is none.
func (p *parser) item() (*node, error) {
	at := p.pos
	switch c := p.peek(); {
	case c == '"':
		return p.text()
	case c == '[':
		return p.class()
	case c == '.':
		p.pos++
		return &node{op: opClass, at: at, class: class(nil).not()}, nil
	case c == '(':
		if p.depth == maxNesting {
			return nil, p.fail(at, "groups nest deeper than %d", maxNesting)
		}
		p.pos++
		p.depth++
		p.space(true)
		n, err := p.alternatives()
		if err != nil {
			return nil, err
		}
		if !p.take(")") {
			return nil, p.fail(p.pos, "want ) to end the group of %s", p.place(at))
		}
		p.depth--
		return n, nil
	case isName(c):
		name := p.name()
		return &node{op: opRule, at: at, rule: p.reference(name, at)}, nil
	case c == '?' || c == '*' || c == '+' || c == '{':
		return nil, p.fail(at, "there is nothing before %c to repeat", c)
	case c == '<' || c == '!':
		return nil, p.fail(at, "tokens by name or number are not supported; write their text in quotes")
	}
	return nil, nil
}

// place names an offset within an error.
func (p *parser) place(at int) string {
	return fmt.Sprintf("line %d", 1+strings.Count(p.source[:at], "\n"))
}

// repetitions reads what may follow an item.
func (p *parser) repetitions(n *node) (*node, error) {
	for p.pos < len(p.source) {
		at, low, high := p.pos, 0, -1
		switch p.peek() {
		case '*':
		case '+':
			low = 1
		case '?':
			high = 1
		case '{':
			var err error
			if low, high, err = p.bounds(); err != nil {
				return nil, err
			}
		default:
			return n, nil
		}
		p.pos++
		p.space(p.depth > 0)
		n = &node{op: opRepeat, at: at, parts: []*node{n}, min: low, max: high}
	}
	return n, nil
}

// bounds reads {m}, {m,} or {m,n} up to the brace that ends it.
func (p *parser) bounds() (low, high int, err error) {
	at := p.pos
	p.pos++
	p.space(false)
	low, ok := p.number()
	if !ok {
		return 0, 0, p.fail(p.pos, "want a number from 0 to %d", maxRepeat)
	}
	p.space(false)
	high = low
	if p.take(",") {
		p.space(false)
		if high = -1; p.peek() != '}' {
			if high, ok = p.number(); !ok {
				return 0, 0, p.fail(p.pos, "want a number from 0 to %d", maxRepeat)
			}
		}
		p.space(false)
	}
	if p.peek() != '}' {
		return 0, 0, p.fail(p.pos, "want } to end the repetition")
	}
	if high >= 0 && high < low {
		return 0, 0, p.fail(at, "at least %d and at most %d cannot both hold", low, high)
	}
	return low, high, nil
}

func (p *parser) number() (int, bool) {
	n, begin := 0, p.pos
	for p.pos < len(p.source) && p.peek() >= '0' && p.peek() <= '9' {
		if n = 10*n + int(p.peek()-'0'); n > maxRepeat {
			return 0, false
		}
		p.pos++
	}
	return n, p.pos > begin
}

func (p *parser) text() (*node, error) {
	n := &node{op: opText, at: p.pos}
	var b strings.Builder
	for p.pos++; p.peek() != '"'; {
		r, err := p.character(n.at, "text")
		if err != nil {
			return nil, err
		}
		b.WriteRune(r)
	}
	p.pos++
	n.text = b.String()
	return n, nil
}

func (p *parser) class() (*node, error) {
	n := &node{op: opClass, at: p.pos}
	p.pos++
	negated := p.take("^")
	var spans []span
	for p.peek() != ']' {
		at := p.pos
		low, err := p.character(n.at, "set of characters")
		if err != nil {
			return nil, err
		}
		high := low
		if rest := p.source[p.pos:]; strings.HasPrefix(rest, "-") && !strings.HasPrefix(rest, "-]") {
			p.pos++
			if high, err = p.character(n.at, "set of characters"); err != nil {
				return nil, err
			}
		}
		if high < low {
			return nil, p.fail(at, "the range from %q to %q is empty", low, high)
		}
		spans = append(spans, span{low, high})
	}
	p.pos++
	if n.class = newClass(spans...); negated {
		n.class = n.class.not()
	}
	if n.class = n.class.and(newClass(span{0, firstSurrogate - 1}, span{lastSurrogate + 1, utf8.MaxRune})); len(n.class) == 0 {
		return nil, p.fail(n.at, "no character is in the set")
	}
	return n, nil
}

// character reads one character or escape of what began at an offset.
func (p *parser) character(began int, what string) (rune, error) {
	if p.pos >= len(p.source) || p.peek() == '\n' {
		return 0, p.fail(began, "the %s does not end in its line", what)
	}
	r := p.char()
	at := p.pos
	p.pos += utf8.RuneLen(r)
	if r != '\\' {
		return r, nil
	}
	c := p.peek()
	p.pos++
	switch c {
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case '\\', '"', '[', ']', '-', '^', '/', '\'':
		return rune(c), nil
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
	if digits == 0 {
		return 0, p.fail(at, `an unknown escape; \n, \r, \t, \\, \", \[, \], \-, \^, \x, \u and \U are known`)
	}
	code := rune(0)
	for range digits {
		d := strings.IndexByte("0123456789abcdefABCDEF", p.peek())
		if d > 15 {
			d -= 6
		}
		if d < 0 || code > utf8.MaxRune {
			return 0, p.fail(at, `want %d hexadecimal digits of a character behind \%c`, digits, c)
		}
		code = code<<4 | rune(d)
		p.pos++
	}
	if !utf8.ValidRune(code) {
		return 0, p.fail(at, "U+%04X is no character", code)
	}
	return code, nil
}

// space skips spaces and comments, and the ends of lines if newline is set.
func (p *parser) space(newline bool) {
	for p.pos < len(p.source) {
		switch c := p.peek(); {
		case c == '#':
			end := strings.IndexAny(p.source[p.pos:], "\r\n")
			if end < 0 {
				end = len(p.source) - p.pos
			}
			p.pos += end
		case c == ' ' || c == '\t' || newline && (c == '\n' || c == '\r'):
			p.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.pos < len(p.source) {
		return p.source[p.pos]
	}
	return 0
}

// char returns the next character.
func (p *parser) char() rune {
	r, _ := utf8.DecodeRuneInString(p.source[p.pos:])
	return r
}

func (p *parser) take(s string) bool {
	if strings.HasPrefix(p.source[p.pos:], s) {
		p.pos += len(s)
		return true
	}
	return false
}

func (p *parser) name() string {
	begin := p.pos
	for isName(p.peek()) {
		p.pos++
	}
	return p.source[begin:p.pos]
}

func isName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

package jinja

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind is the kind of a token.
type kind int

const (
	tokenEOF   kind = iota
	tokenData       // text outside of tags
	tokenOpen       // {{ or {%
	tokenClose      // }} or %}
	tokenName
	tokenString // val is unquoted
	tokenNumber
	tokenOp
)

type token struct {
	kind kind
	val  string
	line int
}

// lexer cuts a template into tokens. Whitespace is treated as by Jinja with
// trim_blocks and lstrip_blocks, which is how chat templates are rendered:
// the newline after a {% %} or {# #} tag goes, and so do the blanks that
// precede one on its line.
type lexer struct {
	src    string
	pos    int
	line   int
	tokens []token
}

func lex(src string) ([]token, error) {
	src = strings.ReplaceAll(src, "\r\n", "\n")
	l := &lexer{src: strings.TrimSuffix(src, "\n"), line: 1}
	for l.pos < len(l.src) {
		if err := l.next(); err != nil {
			return nil, fmt.Errorf("line %d: %w", l.line, err)
		}
	}
	l.emit(tokenEOF, "")
	return l.tokens, nil
}

func (l *lexer) emit(k kind, val string) {
	l.tokens = append(l.tokens, token{k, val, l.line})
}

// advance moves over n bytes.
func (l *lexer) advance(n int) {
	l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
	l.pos += n
}

// next lexes text up to a tag, and the tag.
func (l *lexer) next() error {
	rest := l.src[l.pos:]
	at := nextTag(rest)
	if at < 0 {
		l.emit(tokenData, rest)
		l.advance(len(rest))
		return nil
	}
	text, tag := rest[:at], rest[at:at+2]
	mark := byte(0) // + or - after the opening
	if at+2 < len(rest) {
		mark = rest[at+2]
	}
	switch {
	case mark == '-':
		text = strings.TrimRightFunc(text, unicode.IsSpace)
	case tag != "{{" && mark != '+':
		text = l.stripBlanks(text)
	}
	if text != "" {
		l.emit(tokenData, text)
	}
	l.advance(at + 2)
	if mark == '-' || mark == '+' && tag != "{{" {
		l.advance(1)
	}
	if tag == "{#" {
		return l.comment()
	}
	l.emit(tokenOpen, tag)
	return l.tag(map[string]string{"{{": "}}", "{%": "%}"}[tag])
}

// nextTag returns the offset of the first {{, {% or {#, or -1.
func nextTag(s string) int {
	for from := 0; ; {
		i := strings.IndexByte(s[from:], '{')
		if i < 0 || from+i+1 >= len(s) {
			return -1
		}
		i += from
		switch s[i+1] {
		case '{', '%', '#':
			return i
		}
		from = i + 1
	}
}

// stripBlanks removes the blanks at the end of text if only they precede the
// tag on its line.
func (l *lexer) stripBlanks(text string) string {
	trimmed := strings.TrimRight(text, " \t\v\f")
	if strings.HasSuffix(trimmed, "\n") || trimmed == "" && (l.pos == 0 || l.src[l.pos-1] == '\n') {
		return trimmed
	}
	return text
}

func (l *lexer) comment() error {
	end := strings.Index(l.src[l.pos:], "#}")
	if end < 0 {
		return fmt.Errorf("comment is not closed")
	}
	strip := end > 0 && l.src[l.pos+end-1] == '-'
	l.advance(end + 2)
	l.afterTag(strip, true)
	return nil
}

// afterTag skips the whitespace that a closed tag takes with it.
func (l *lexer) afterTag(all, newline bool) {
	rest := l.src[l.pos:]
	switch {
	case all:
		l.advance(len(rest) - len(strings.TrimLeftFunc(rest, unicode.IsSpace)))
	case newline && strings.HasPrefix(rest, "\n"):
		l.advance(1)
	}
}

// operators in an order in which longer ones come first.
var operators = [...]string{
	"==", "!=", "<=", ">=", "//", "**",
	"+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ".", ":", "|",
}

// tag lexes the inside of a tag up to its closing mark.
func (l *lexer) tag(closing string) error {
	depth := 0 // of brackets: }} may close two dictionaries
	for l.pos < len(l.src) {
		rest := l.src[l.pos:]
		c := rest[0]
		if depth == 0 {
			for _, mark := range []string{"-", "+", ""} {
				if strings.HasPrefix(rest, mark+closing) {
					l.emit(tokenClose, closing)
					l.advance(len(mark) + len(closing))
					l.afterTag(mark == "-", closing == "%}" && mark == "")
					return nil
				}
			}
		}
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			l.advance(1)
		case c == '"' || c == '\'':
			if err := l.str(); err != nil {
				return err
			}
		case c >= '0' && c <= '9':
			l.number()
		case c == '_' || isLetter(rest):
			n := strings.IndexFunc(rest, func(r rune) bool {
				return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
			})
			if n < 0 {
				n = len(rest)
			}
			l.emit(tokenName, rest[:n])
			l.advance(n)
		default:
			op := operatorAt(rest)
			if op == "" {
				return fmt.Errorf("unexpected %q", c)
			}
			switch op {
			case "(", "[", "{":
				depth++
			case ")", "]", "}":
				depth--
			}
			l.emit(tokenOp, op)
			l.advance(len(op))
		}
	}
	return fmt.Errorf("tag is not closed by %s", closing)
}

func isLetter(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return unicode.IsLetter(r)
}

func operatorAt(s string) string {
	for _, op := range operators {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return ""
}

// number lexes an integer, or a float with a fraction or an exponent.
func (l *lexer) number() {
	rest := l.src[l.pos:]
	n := digits(rest)
	if n+1 < len(rest) && rest[n] == '.' {
		if d := digits(rest[n+1:]); d > 0 {
			n += 1 + d
		}
	}
	if n+1 < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
		sign := 1
		if rest[n+1] == '-' || rest[n+1] == '+' {
			sign = 2
		}
		if d := digits(rest[n+sign:]); d > 0 {
			n += sign + d
		}
	}
	l.emit(tokenNumber, rest[:n])
	l.advance(n)
}

// parseNumber returns the int or float64 that a tokenNumber spells.
func parseNumber(s string) (any, error) {
	if strings.ContainsAny(s, ".eE") {
		return strconv.ParseFloat(s, 64)
	}
	return strconv.Atoi(s)
}

func digits(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }

// str lexes a string with the escapes of Python.
func (l *lexer) str() error {
	rest := l.src[l.pos:]
	quote := rest[0]
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; c {
		case quote:
			l.emit(tokenString, b.String())
			l.advance(i + 1)
			return nil
		case '\\':
			n, err := unescape(&b, rest[i+1:])
			if err != nil {
				return err
			}
			i += n
		default:
			b.WriteByte(c)
		}
	}
	return fmt.Errorf("string is not closed")
}

// unescape writes what the escape s, after its backslash, stands for, and
// returns its length. An unknown escape stands for itself.
func unescape(b *strings.Builder, s string) (int, error) {
	if s == "" {
		return 0, fmt.Errorf("string ends in a backslash")
	}
	if c := strings.IndexByte(`nrtabfv0\'"`, s[0]); c >= 0 {
		b.WriteByte("\n\r\t\a\b\f\v\x00\\'\""[c])
		return 1, nil
	}
	if size := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[0]]; size > 0 {
		if len(s) <= size {
			return 0, fmt.Errorf("escape \\%s is too short", s)
		}
		r, err := strconv.ParseUint(s[1:1+size], 16, 32)
		if err != nil {
			return 0, fmt.Errorf("escape \\%s is not a number", s[:1+size])
		}
		b.WriteRune(rune(r))
		return 1 + size, nil
	}
	if s[0] == '\n' {
		return 1, nil
	}
	b.WriteByte('\\')
	b.WriteByte(s[0])
	return 1, nil
}

package grammar

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// hex is a hexadecimal digit.
func hex() *node { return oneOf(span{'0', '9'}, span{'a', 'f'}, span{'A', 'F'}) }

// char returns the expression of one character of a JSON string. A character beyond
// U+FFFF is one, also where two escapes write it.
func (b *Builder) char() (*node, error) {
	return b.shared("char", "", func() (*node, error) {
		unit := choice(
			sequence(oneOf(span{'0', '9'}, span{'a', 'c'}, span{'A', 'C'}, span{'e', 'f'}, span{'E', 'F'}), hex(), hex(), hex()),
			sequence(oneOf(span{'d', 'd'}, span{'D', 'D'}), oneOf(span{'0', '7'}), hex(), hex()),
		)
		pair := sequence(
			oneOf(span{'d', 'd'}, span{'D', 'D'}), oneOf(span{'8', '9'}, span{'a', 'b'}, span{'A', 'B'}), hex(), hex(), text(`\u`),
			oneOf(span{'d', 'd'}, span{'D', 'D'}), oneOf(span{'c', 'f'}, span{'C', 'F'}), hex(), hex(),
		)
		escape := choice(oneOf(span{'"', '"'}, span{'\\', '\\'}, span{'/', '/'}, span{'b', 'b'}, span{'f', 'f'}, span{'n', 'n'}, span{'r', 'r'}, span{'t', 't'}),
			sequence(text("u"), choice(unit, pair)))
		return choice(&node{op: opClass, class: plain}, sequence(text(`\`), escape)), nil
	})
}

// text returns the expression of any JSON string.
func (b *Builder) text() (*node, error) {
	return b.shared("string", "", func() (*node, error) {
		c, err := b.char()
		return sequence(text(`"`), repeat(c, 0, -1), text(`"`)), err
	})
}

// string returns the expression of strings.
func (b *Builder) string(f *facts) (*node, error) {
	bounded := f.minLength > 0 || f.maxLength != unlimited
	if f.maxLength != unlimited && f.minLength > f.maxLength {
		return nil, b.fail(f.pointer, "minLength %d and maxLength %d cannot both hold", f.minLength, f.maxLength)
	}
	if len(f.patterns) > 0 {
		p := f.patterns[0]
		n, err := b.pattern(p)
		switch {
		case errors.As(err, new(*SchemaError)):
			return nil, err
		case err != nil && b.strict:
			return nil, b.fail(p.pointer, "%v", err)
		case b.strict && len(f.patterns) > 1:
			return nil, b.fail(f.patterns[1].pointer, "two patterns or formats for one string are not supported; make them one")
		case b.strict && bounded:
			return nil, b.fail(p.pointer, "a pattern or format beside minLength or maxLength is not supported; say the length in the pattern, as [a-z]{2,5}")
		case err == nil:
			return sequence(text(`"`), n, text(`"`)), nil
		}
	}
	if !bounded {
		return b.text()
	}
	c, err := b.char()
	return sequence(text(`"`), repeat(c, f.minLength, f.maxLength), text(`"`)), err
}

const (
	datePattern = `(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))` +
		`|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)`
	timePattern  = `(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])`
	labelPattern = `[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?`
	octetPattern = `(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
)

// formats are patterns of the formats of strings. They are narrower than the formats.
var formats = map[string]string{
	"date":      "^" + datePattern + "$",
	"time":      "^" + timePattern + "$",
	"date-time": "^" + datePattern + "T" + timePattern + "$",
	"duration":  `^P(?:[0-9]{1,4}W|[0-9]{1,4}D(?:T[0-9]{1,4}H)?|T[0-9]{1,4}(?:H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|M(?:[0-9]{1,4}S)?|S))$`,
	"uuid":      `^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`,
	"email":     `^[a-zA-Z0-9]{1,12}(?:[._+-][a-zA-Z0-9]{1,12}){0,3}@` + labelPattern + `(?:\.` + labelPattern + `){1,3}$`,
	"hostname":  `^` + labelPattern + `(?:\.` + labelPattern + `){0,3}$`,
	"ipv4":      `^` + octetPattern + `(?:\.` + octetPattern + `){3}$`,
	"ipv6":      `^[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){7}$`,
}

func formatNames() string { return strings.Join(slices.Sorted(maps.Keys(formats)), ", ") }

// pattern returns the expression of the inside of JSON strings whose text a regular
// expression matches somewhere.
func (b *Builder) pattern(source located) (*node, error) {
	re, err := syntax.Parse(source.text, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("the pattern cannot be used: %w", err)
	}
	if err := b.spend(source.pointer, workOfPattern(re)); err != nil {
		return nil, err
	}
	return anchored(re, true, true)
}

// workOfPattern is about how many nodes the expression of a pattern has: a set of
// characters has one for each that JSON escapes.
func workOfPattern(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	if re.Op == syntax.OpCharClass || re.Op == syntax.OpAnyChar || re.Op == syntax.OpAnyCharNotNL {
		n += ' '
	}
	for _, sub := range re.Sub {
		n += workOfPattern(sub)
	}
	return n
}

// anchored returns the expression of texts that re matches from end to end, with
// anything before it if begins and it does not say ^, and behind it if ends and it does
// not say $.
func anchored(re *syntax.Regexp, begins, ends bool) (*node, error) {
	switch re.Op {
	case syntax.OpCapture:
		return anchored(re.Sub[0], begins, ends)
	case syntax.OpAlternate:
		var options []*node
		for _, sub := range re.Sub {
			n, err := anchored(sub, begins, ends)
			if err != nil {
				return nil, err
			}
			options = append(options, n)
		}
		return choice(options...), nil
	}
	subs := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		subs = slices.Clone(re.Sub)
	}
	if len(subs) > 0 && subs[0].Op == syntax.OpBeginText {
		subs, begins = subs[1:], false
	}
	if len(subs) > 0 && subs[len(subs)-1].Op == syntax.OpEndText {
		subs, ends = subs[:len(subs)-1], false
	}
	if len(subs) == 1 && (subs[0].Op == syntax.OpCapture || subs[0].Op == syntax.OpAlternate) {
		return anchored(subs[0], begins, ends)
	}
	n := sequence()
	anything := repeat(character(class(nil).not()), 0, -1)
	if begins {
		n.parts = append(n.parts, anything)
	}
	for _, sub := range subs {
		part, err := expression(sub)
		if err != nil {
			return nil, err
		}
		n.parts = append(n.parts, part)
	}
	if ends {
		n.parts = append(n.parts, anything)
	}
	return n, nil
}

// expression returns the expression of what a regular expression matches.
func expression(re *syntax.Regexp) (*node, error) {
	var subs []*node
	for _, sub := range re.Sub {
		n, err := expression(sub)
		if err != nil {
			return nil, err
		}
		subs = append(subs, n)
	}
	switch re.Op {
	case syntax.OpLiteral:
		n := sequence()
		for _, r := range re.Rune {
			n.parts = append(n.parts, character(newClass(span{r, r})))
		}
		return n, nil
	case syntax.OpCharClass:
		var spans []span
		for i := 0; i+1 < len(re.Rune); i += 2 {
			spans = append(spans, span{re.Rune[i], re.Rune[i+1]})
		}
		return character(newClass(spans...)), nil
	case syntax.OpAnyCharNotNL, syntax.OpAnyChar: // . of ECMA 262 is no end of a line
		return character(newClass(span{'\n', '\n'}, span{'\r', '\r'}, span{0x2028, 0x2029}).not()), nil
	case syntax.OpEmptyMatch:
		return sequence(), nil
	case syntax.OpCapture:
		return subs[0], nil
	case syntax.OpConcat:
		return sequence(subs...), nil
	case syntax.OpAlternate:
		return choice(subs...), nil
	case syntax.OpStar:
		return repeat(subs[0], 0, -1), nil
	case syntax.OpPlus:
		return repeat(subs[0], 1, -1), nil
	case syntax.OpQuest:
		return optional(subs[0]), nil
	case syntax.OpRepeat:
		return repeat(subs[0], re.Min, re.Max), nil
	}
	return nil, fmt.Errorf("the pattern cannot be used: %s is not supported here; ^ and $ may stand at its ends", re)
}

// character returns the expression of one character of the class as JSON strings spell it.
func character(c class) *node {
	var options []*node
	if free := c.and(plain); len(free) > 0 {
		options = append(options, &node{op: opClass, class: free})
	}
	for r := rune(0); r < ' '; r++ {
		if !c.has(r) {
			continue
		}
		if i := strings.IndexRune("\b\f\n\r\t", r); i >= 0 {
			options = append(options, text(`\`+"bfnrt"[i:i+1]))
		} else {
			options = append(options, text(fmt.Sprintf(`\u%04x`, r)))
		}
	}
	for _, r := range `"\` {
		if c.has(r) {
			options = append(options, text(`\`+string(r)))
		}
	}
	if options == nil {
		return &node{op: opClass} // nothing
	}
	return choice(options...)
}

// Limits on numbers without limits of their own.
const (
	maxDigits   = 18 // before the point
	maxDecimals = 15
)

// number returns the expression of numbers, whole or any.
func (b *Builder) number(f *facts, whole bool) (*node, error) {
	low, high := f.low, f.high
	if !low.set && !high.set {
		n := sequence(optional(text("-")), choice(text("0"), sequence(oneOf(span{'1', '9'}), digits(0, maxDigits-1))))
		if !whole {
			exponent := sequence(oneOf(span{'e', 'e'}, span{'E', 'E'}), optional(oneOf(span{'+', '+'}, span{'-', '-'})), digits(1, 2))
			n.parts = append(n.parts, optional(sequence(text("."), digits(1, maxDecimals))), optional(exponent))
		}
		return n, nil
	}
	decimals := 0
	for _, limit := range []*bound{&low, &high} {
		s := strconv.FormatFloat(limit.value, 'f', -1, 64)
		if _, behind, ok := strings.Cut(s, "."); ok && limit.set {
			decimals = max(decimals, len(behind))
		}
	}
	if whole {
		decimals = 0
		if low.value != math.Ceil(low.value) {
			low.value, low.exclusive = math.Ceil(low.value), false
		}
		if high.value != math.Floor(high.value) {
			high.value, high.exclusive = math.Floor(high.value), false
		}
	}
	if decimals > 6 || decimals > 0 && max(math.Abs(low.value), math.Abs(high.value)) > 1e11 {
		return nil, b.fail(low.or(high), "of limits with a fraction, at most 6 digits behind the point and 11 before it are supported")
	}
	var signs []*node
	if n := magnitudes(low, high, decimals, whole); n != nil {
		signs = append(signs, n)
	}
	// Below zero, what is written behind the sign lies between the limits turned round.
	zero := bound{set: true, exclusive: true}
	mirrored := bound{high.set, high.exclusive, -high.value, high.pointer}
	if !high.set || mirrored.value < 0 {
		mirrored = zero
	} else if mirrored.value == 0 {
		mirrored.exclusive = true
	}
	if n := magnitudes(mirrored, bound{low.set, low.exclusive, -low.value, low.pointer}, decimals, whole); n != nil {
		signs = append(signs, sequence(text("-"), n))
	}
	if signs == nil {
		return nil, b.fail(low.or(high), "no number is within the limits")
	}
	return choice(signs...), nil
}

// or returns where the limit is stated, or the other if this one is not.
func (l bound) or(other bound) string {
	if l.set {
		return l.pointer
	}
	return other.pointer
}

// magnitudes returns the expression of the numbers from 0 on between two limits, which
// have at most so many decimals; nil if there are none.
func magnitudes(low, high bound, decimals int, whole bool) *node {
	if high.set && (high.value < 0 || high.value == 0 && high.exclusive) {
		return nil
	}
	if !low.set || low.value < 0 {
		low = bound{set: true}
	}
	scale := math.Pow10(decimals)
	first := int64(math.Round(low.value * scale)) // exact: see maxBound and the limit on decimals
	last := int64(math.Pow10(maxDigits)) - 1
	if high.set {
		last = int64(math.Round(high.value * scale))
	}
	var options []*node
	if whole {
		if low.exclusive {
			first++
		}
		if high.set && high.exclusive {
			last--
		}
		if first > last {
			return nil
		}
		return scaled(first, last, 0)
	}
	point := func(fewest int, last *node) *node {
		if decimals > 0 {
			return sequence(digits(0, fewest), last)
		}
		return sequence(text("."), digits(0, fewest), last)
	}
	more := optional(point(maxDecimals-1, oneOf(span{'0', '9'})))
	from := first
	if low.exclusive {
		from++
	}
	to := last
	if high.set {
		to--
	}
	if low.exclusive && first <= to { // a little more than the limit
		fraction := sequence(repeat(text("0"), 0, maxDecimals-1), oneOf(span{'1', '9'}), digits(0, 2))
		if decimals == 0 {
			fraction = sequence(text("."), fraction)
		}
		options = append(options, sequence(scaled(first, first, decimals), fraction))
	}
	if from <= to {
		options = append(options, sequence(scaled(from, to, decimals), more))
	}
	if high.set && !high.exclusive && last >= from {
		options = append(options, scaled(last, last, decimals))
	}
	if options == nil {
		return nil
	}
	return choice(options...)
}

func digits(m, n int) *node { return repeat(oneOf(span{'0', '9'}), m, n) }

// scaled returns the expression of the numbers from first to last, each divided by ten
// to the power of decimals and written with so many digits behind the point.
func scaled(first, last int64, decimals int) *node {
	var options []*node
	for length := decimals + 1; length <= 19; length++ {
		low, high := first, last
		if length > decimals+1 { // no zero at the beginning
			low = max(low, int64(math.Pow10(length-1)))
		}
		if length < 19 {
			high = min(high, int64(math.Pow10(length))-1)
		}
		if low <= high {
			options = append(options, between(fmt.Sprintf("%0*d", length, low), fmt.Sprintf("%0*d", length, high), decimals))
		}
	}
	return choice(options...)
}

// between returns the expression of the digits from low to high, which are as long as
// each other, with a point before the last decimals.
func between(low, high string, decimals int) *node {
	if low == "" {
		return sequence()
	}
	n := sequence()
	if len(low) == decimals {
		n.parts = append(n.parts, text("."))
	}
	zeros, nines := strings.Repeat("0", len(low)-1), strings.Repeat("9", len(low)-1)
	from, to := rune(low[0]), rune(high[0])
	var options []*node
	add := func(from, to rune, low, high string) {
		options = append(options, sequence(oneOf(span{from, to}), between(low, high, decimals)))
	}
	if from == to {
		add(from, to, low[1:], high[1:])
	} else {
		if low[1:] != zeros {
			add(from, from, low[1:], nines)
			from++
		}
		if high[1:] != nines {
			to--
		}
		if from <= to {
			add(from, to, zeros, nines)
		}
		if high[1:] != nines {
			add(to+1, to+1, zeros, high[1:])
		}
	}
	n.parts = append(n.parts, choice(options...))
	return n
}

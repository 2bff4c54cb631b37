package jinja

import (
	"fmt"
	"slices"
)

// parser builds the tree of a template by recursive descent. The first error
// stays in err and moves the parser to the end of the tokens, so that
// everything returns; what was built is then dropped.
type parser struct {
	tokens []token
	pos    int
	err    error
	depth  int // of the recursion, bounded so that no template exhausts the stack
	loops  int // enclosing for tags
}

// maxNesting bounds nested tags and parentheses, and rows of filters.
const maxNesting = 200

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("line %d: %s", p.peek().line, fmt.Sprintf(format, args...))
	}
	p.pos = len(p.tokens) - 1
}

func (p *parser) peek() token { return p.tokens[p.pos] }

// after returns the token after the next one.
func (p *parser) after() token { return p.tokens[min(p.pos+1, len(p.tokens)-1)] }

func (p *parser) next() token {
	t := p.peek()
	if t.kind != tokenEOF {
		p.pos++
	}
	return t
}

// enter counts a level of nesting; leave ends it.
func (p *parser) enter() {
	if p.depth++; p.depth > maxNesting {
		p.fail("nested more than %d deep", maxNesting)
	}
}

func (p *parser) leave() { p.depth-- }

func (p *parser) is(k kind, val string) bool {
	t := p.peek()
	return t.kind == k && t.val == val
}

func (p *parser) accept(k kind, val string) bool {
	if p.is(k, val) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(k kind, val string) {
	if !p.accept(k, val) {
		p.fail("expected %q, found %q", val, p.peek().val)
	}
}

func (p *parser) closeTag() { p.expect(tokenClose, "%}") }

func (p *parser) name() string {
	t := p.next()
	if t.kind != tokenName {
		p.fail("expected a name, found %q", t.val)
	}
	return t.val
}

// items parses a list with commas between, up to the closing operator.
func (p *parser) items(closing string, item func()) {
	for p.err == nil && !p.accept(tokenOp, closing) {
		item()
		if !p.accept(tokenOp, ",") && !p.is(tokenOp, closing) {
			p.fail("expected , or %s, found %q", closing, p.peek().val)
		}
	}
}

// body parses up to one of the tags in ends, whose name it consumes and
// returns, or up to the end of the template if there are none.
func (p *parser) body(ends ...string) (nodes []node, end string) {
	p.enter()
	defer p.leave()
	for {
		switch t := p.next(); {
		case t.kind == tokenEOF:
			if len(ends) > 0 {
				p.fail("expected {%% %s %%}", ends[len(ends)-1])
			}
			return nodes, ""
		case t.kind == tokenData:
			nodes = append(nodes, text(t.val))
		case t.val == "{{":
			nodes = append(nodes, output{p.tuple(), t.line})
			p.expect(tokenClose, "}}")
		default:
			name := p.name()
			if slices.Contains(ends, name) {
				return nodes, name
			}
			nodes = append(nodes, p.statement(name, t.line))
		}
	}
}

// statement parses a tag after its name, up to the end of what it governs.
func (p *parser) statement(name string, line int) (n node) {
	switch name {
	case "if":
		n = p.ifStatement()
	case "for":
		n = p.forStatement(line)
	case "set":
		n = p.set(line)
	case "macro":
		n = p.macro()
	case "break", "continue":
		if p.loops == 0 {
			p.fail("%s outside of a loop", name)
		}
		n = jump(name)
	case "generation": // marks the text of the assistant, for training
		p.closeTag()
		nodes, _ := p.body("endgeneration")
		n = block(nodes)
	default:
		p.fail("tag %q is not supported", name)
	}
	p.closeTag()
	return n
}

func (p *parser) ifStatement() node {
	n := &conditional{}
	for {
		n.tests = append(n.tests, p.expr())
		p.closeTag()
		body, end := p.body("elif", "else", "endif")
		n.bodies = append(n.bodies, body)
		switch end {
		case "elif":
			continue
		case "else":
			p.closeTag()
			n.otherwise, _ = p.body("endif")
		}
		return n
	}
}

func (p *parser) forStatement(line int) node {
	n := &loop{line: line, targets: p.targets()}
	p.expect(tokenName, "in")
	n.over = p.or() // not a conditional: "if" begins the filter
	if p.accept(tokenName, "if") {
		n.filter = p.expr()
	}
	p.closeTag()
	p.loops++
	body, end := p.body("else", "endfor")
	p.loops--
	n.body = body
	if end == "else" {
		p.closeTag()
		n.otherwise, _ = p.body("endfor")
	}
	return n
}

// targets parses the names that a for or set assigns to.
func (p *parser) targets() (names []string) {
	paren := p.accept(tokenOp, "(")
	names = append(names, p.name())
	for p.accept(tokenOp, ",") {
		names = append(names, p.name())
	}
	if paren {
		p.expect(tokenOp, ")")
	}
	return names
}

func (p *parser) set(line int) node {
	n := &assign{line: line, targets: p.targets()}
	if len(n.targets) == 1 && p.accept(tokenOp, ".") {
		n.attr = p.name()
	}
	if p.accept(tokenOp, "=") {
		n.value = p.tuple()
		return n
	}
	p.closeTag() // the value is the text up to endset
	n.body, _ = p.body("endset")
	return n
}

func (p *parser) macro() node {
	m := &macro{name: p.name()}
	p.expect(tokenOp, "(")
	p.items(")", func() {
		param := parameter{name: p.name()}
		if p.accept(tokenOp, "=") {
			param.value = p.expr()
		}
		m.params = append(m.params, param)
	})
	p.closeTag()
	loops := p.loops
	p.loops = 0
	m.body, _ = p.body("endmacro")
	p.loops = loops
	return m
}

// tuple parses an expression, or several with commas between as a list.
func (p *parser) tuple() expr {
	e := p.expr()
	if !p.is(tokenOp, ",") {
		return e
	}
	list := listOf{e}
	for p.accept(tokenOp, ",") && p.peek().kind != tokenClose && !p.is(tokenOp, ")") {
		list = append(list, p.expr())
	}
	return list
}

// expr parses a conditional expression.
func (p *parser) expr() expr {
	p.enter()
	defer p.leave()
	e := p.or()
	for p.accept(tokenName, "if") {
		c := &choice{then: e, test: p.or()}
		if p.accept(tokenName, "else") {
			c.otherwise = p.expr()
		}
		e = c
	}
	return e
}

func (p *parser) or() expr {
	return p.chain(tokenName, []string{"or"}, func() expr {
		return p.chain(tokenName, []string{"and"}, p.not)
	})
}

// chain parses operands with left-associative operators between.
func (p *parser) chain(k kind, ops []string, operand func() expr) expr {
	left := operand()
	for {
		t := p.peek()
		if t.kind != k || !slices.Contains(ops, t.val) {
			return left
		}
		p.next()
		left = &binary{op: t.val, left: left, right: operand(), line: t.line}
	}
}

func (p *parser) not() expr {
	if !p.accept(tokenName, "not") {
		return p.compare()
	}
	p.enter()
	defer p.leave()
	return &unary{"not", p.not()}
}

// compare parses comparisons, which are chained as in Python: a < b < c is
// a < b and b < c.
func (p *parser) compare() expr {
	left := p.sum()
	var whole expr
	for {
		t := p.peek()
		op := t.val
		switch {
		case t.kind == tokenName && op == "not" && p.after().val == "in":
			op = "not in"
			p.next()
		case t.kind == tokenName && op == "in":
		case t.kind == tokenOp && slices.Contains([]string{"==", "!=", "<", ">", "<=", ">="}, op):
		case whole == nil:
			return left
		default:
			return whole
		}
		p.next()
		right := p.sum()
		var e expr = &binary{op: op, left: left, right: right, line: t.line}
		if whole != nil {
			e = &binary{op: "and", left: whole, right: e, line: t.line}
		}
		whole, left = e, right
	}
}

func (p *parser) sum() expr {
	return p.chain(tokenOp, []string{"+", "-"}, func() expr {
		return p.chain(tokenOp, []string{"~"}, func() expr {
			return p.chain(tokenOp, []string{"*", "/", "//", "%"}, func() expr {
				return p.filtersAndTests(p.signed())
			})
		})
	})
}

func (p *parser) signed() expr {
	t := p.peek()
	if t.kind != tokenOp || t.val != "-" && t.val != "+" {
		return p.postfix(p.primary())
	}
	p.next()
	p.enter()
	defer p.leave()
	return &unary{t.val, p.signed()}
}

func (p *parser) primary() expr {
	switch t := p.next(); t.kind {
	case tokenName:
		switch t.val {
		case "true", "True":
			return constant{true}
		case "false", "False":
			return constant{false}
		case "none", "None":
			return constant{nil}
		}
		return variable{t.val}
	case tokenString:
		s := t.val
		for p.peek().kind == tokenString {
			s += p.next().val
		}
		return constant{s}
	case tokenNumber:
		v, err := parseNumber(t.val)
		if err != nil {
			p.fail("number %s is too large", t.val)
		}
		return constant{v}
	case tokenOp:
		switch t.val {
		case "(":
			if p.accept(tokenOp, ")") {
				return listOf{}
			}
			e := p.tuple()
			p.expect(tokenOp, ")")
			return e
		case "[":
			list := listOf{}
			p.items("]", func() { list = append(list, p.expr()) })
			return list
		case "{":
			d := &dictOf{}
			p.items("}", func() {
				d.keys = append(d.keys, p.expr())
				p.expect(tokenOp, ":")
				d.values = append(d.values, p.expr())
			})
			return d
		}
		p.fail("unexpected %q", t.val)
	default:
		p.fail("unexpected end of the tag")
	}
	return nil
}

// postfix parses attributes, items, slices and calls.
func (p *parser) postfix(e expr) expr {
	for range maxNesting { // each wraps the one before
		line := p.peek().line
		switch {
		case p.accept(tokenOp, "."):
			t := p.next()
			if t.kind != tokenName && t.kind != tokenNumber {
				p.fail("expected an attribute, found %q", t.val)
			}
			e = &item{of: e, key: constant{t.val}, line: line}
		case p.accept(tokenOp, "["):
			e = p.subscript(e, line)
		case p.accept(tokenOp, "("):
			c := &call{fn: e, line: line}
			c.args, c.names = p.arguments()
			e = c
		default:
			return e
		}
	}
	p.fail("more than %d accesses in a row", maxNesting)
	return e
}

func (p *parser) subscript(of expr, line int) expr {
	var bounds [3]expr
	colons := 0
	for p.err == nil && !p.accept(tokenOp, "]") {
		switch {
		case p.accept(tokenOp, ":") && colons < 2:
			colons++
		case bounds[colons] != nil:
			p.fail("expected ]")
		default:
			bounds[colons] = p.expr()
		}
	}
	if colons > 0 {
		return &sliceOf{of: of, bounds: bounds, line: line}
	}
	if bounds[0] == nil {
		p.fail("an index is missing")
	}
	return &item{of: of, key: bounds[0], line: line}
}

// arguments parses the arguments of a call after its parenthesis. names[i] is
// "" for a positional one.
func (p *parser) arguments() (args []expr, names []string) {
	p.items(")", func() {
		name := ""
		if after := p.after(); p.peek().kind == tokenName && after.kind == tokenOp && after.val == "=" {
			name = p.next().val
			p.next()
		}
		args, names = append(args, p.expr()), append(names, name)
	})
	return args, names
}

// filtersAndTests parses |filter and "is test" after a value.
func (p *parser) filtersAndTests(e expr) expr {
	for range maxNesting {
		line := p.peek().line
		switch {
		case p.accept(tokenOp, "|"):
			f := &filtered{name: p.name(), value: e, line: line}
			if f.apply = filters[f.name]; f.apply == nil {
				p.fail("filter %q is not supported", f.name)
			}
			if p.accept(tokenOp, "(") {
				f.args, f.names = p.arguments()
			}
			e = f
		case p.accept(tokenName, "is"):
			negate := p.accept(tokenName, "not")
			t := &tested{value: e, line: line}
			name := p.name()
			if t.holds = tests[name]; t.holds == nil {
				p.fail("test %q is not supported", name)
			}
			t.arg = p.testArgument()
			if e = t; negate {
				e = &unary{"not", e}
			}
		default:
			return e
		}
	}
	p.fail("more than %d filters in a row", maxNesting)
	return e
}

// testArgument parses the argument of a test, which needs no parentheses; nil
// if there is none.
func (p *parser) testArgument() expr {
	if p.accept(tokenOp, "(") {
		if args, _ := p.arguments(); len(args) > 0 {
			return args[0]
		}
		return nil
	}
	switch t := p.peek(); {
	case t.kind == tokenString, t.kind == tokenNumber,
		t.kind == tokenName && !slices.Contains([]string{"and", "or", "not", "if", "else", "is", "in"}, t.val),
		t.kind == tokenOp && (t.val == "[" || t.val == "{"):
		return p.postfix(p.primary())
	}
	return nil
}

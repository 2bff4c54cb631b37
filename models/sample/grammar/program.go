package grammar

import (
	"errors"
	"fmt"

	"helicon/models/sample/grammar/characters"
)

// node is an expression.
type node struct {
	op       op
	at       int // where the source has it: an offset, or an index of pointers
	text     string
	class    class
	parts    []*node
	min, max int // of a repetition; max is -1 for any number
	rule     int
}

// op is the kind of an expression.
type op uint8

const (
	opText     op = iota // text
	opClass              // one character of class
	opSequence           // parts in order; none is the empty text
	opChoice             // one of parts
	opRepeat             // parts[0], min to max times
	opRule               // a sentence of rule
)

// rule is a named expression.
type rule struct {
	name string
	at   int
	body *node // nil while it is not defined
}

func text(s string) *node           { return &node{op: opText, text: s} }
func sequence(parts ...*node) *node { return &node{op: opSequence, parts: parts} }
func choice(parts ...*node) *node   { return &node{op: opChoice, parts: parts} }
func oneOf(spans ...span) *node     { return &node{op: opClass, class: newClass(spans...)} }
func call(rule int) *node           { return &node{op: opRule, rule: rule} }
func optional(part *node) *node     { return repeat(part, 0, 1) }
func repeat(part *node, m, n int) *node {
	return &node{op: opRepeat, parts: []*node{part}, min: m, max: n}
}

// instruction is one step of the program. Instruction 0 is the return from a rule.
type instruction struct {
	kind kind
	a, b int32
}

// kind is what an instruction does.
type kind uint8

const (
	doReturn kind = iota
	doRead        // a character at terminal a, then go to b
	doSplit       // go to a and to b
	doCall        // read rule a, then go to b
)

// compiler turns rules into a program.
type compiler struct {
	program   []instruction
	terminals characters.Automata
}

// errTooLarge says that a grammar exceeds what is compiled.
var errTooLarge = errors.New("the grammar is too large; make its repetitions shorter or it simpler")

// compile compiles rules, all defined, of which the first is the root. An error is a
// *fault, or errTooLarge.
func compile(rules []rule) (*Grammar, error) {
	if err := analyse(rules); err != nil {
		return nil, err
	}
	c := &compiler{program: make([]instruction, 1)}
	g := &Grammar{rules: make([]int32, len(rules))}
	for i, r := range rules {
		var err error
		if g.rules[i], err = c.emit(r.body, 0); err != nil {
			return nil, err
		}
	}
	g.program = c.program
	if g.terminals, g.classes, g.classOf = c.terminals.Compress(); len(g.terminals) > maxTable {
		return nil, errTooLarge
	}
	return g, nil
}

func (c *compiler) add(i instruction) (int32, error) {
	if len(c.program) >= maxInstructions || c.terminals.Len() > maxTerminals {
		return 0, errTooLarge
	}
	c.program = append(c.program, i)
	return int32(len(c.program) - 1), nil
}

// emit compiles an expression that is followed by the instruction at next, and returns
// where it begins.
func (c *compiler) emit(n *node, next int32) (int32, error) {
	var err error
	switch n.op {
	case opText:
		for i := len(n.text) - 1; i >= 0 && err == nil; i-- {
			next, err = c.add(instruction{doRead, c.terminals.AddByte(n.text[i]), next})
		}
	case opClass:
		next, err = c.add(instruction{doRead, c.terminals.Add(n.class), next})
	case opSequence:
		for i := len(n.parts) - 1; i >= 0 && err == nil; i-- {
			next, err = c.emit(n.parts[i], next)
		}
	case opChoice:
		return c.choice(n.parts, next)
	case opRepeat:
		return c.repeat(n, next)
	case opRule:
		next, err = c.add(instruction{doCall, int32(n.rule), next})
	}
	return next, err
}

func (c *compiler) choice(parts []*node, next int32) (int32, error) {
	begin, err := c.emit(parts[len(parts)-1], next)
	for i := len(parts) - 2; i >= 0 && err == nil; i-- {
		var other int32
		if other, err = c.emit(parts[i], next); err == nil {
			begin, err = c.add(instruction{doSplit, other, begin})
		}
	}
	return begin, err
}

// repeat writes an expression as often as it may come.
func (c *compiler) repeat(n *node, next int32) (int32, error) {
	begin := next
	var err error
	if n.max < 0 {
		if begin, err = c.add(instruction{kind: doSplit, b: next}); err != nil {
			return 0, err
		}
		again, err := c.emit(n.parts[0], begin)
		if err != nil {
			return 0, err
		}
		c.program[begin].a = again
	}
	for range n.max - n.min {
		if begin, err = c.emit(n.parts[0], begin); err != nil {
			return 0, err
		}
		if begin, err = c.add(instruction{doSplit, begin, next}); err != nil {
			return 0, err
		}
	}
	for range n.min {
		end := begin
		if begin, err = c.emit(n.parts[0], end); err != nil {
			return 0, err
		}
		if begin == end {
			break // of nothing, any number is the same
		}
	}
	return begin, nil
}

// analyse refuses rules that cannot be run: those that come back to themselves before
// they have read anything, and those that no finite text satisfies.
func analyse(rules []rule) error {
	empty := fixpoint(rules, func(n *node, of []bool) bool { return n.canBeEmpty(of) })
	finite := fixpoint(rules, func(n *node, of []bool) bool { return n.canEnd(of) })
	used := make([]bool, len(rules))
	used[0] = true
	rules[0].use(rules, used)
	for i, r := range rules {
		if used[i] && !finite[i] {
			return &fault{r.at, fmt.Sprintf("%s never ends: it always leads to itself, or to nothing that can be written", r.name)}
		}
	}
	colour := make([]uint8, len(rules)) // 0 unseen, 1 on the way, 2 done
	var visit func(i int) error
	visit = func(i int) error {
		colour[i] = 1
		err := rules[i].body.leftmost(empty, func(n *node) error {
			switch colour[n.rule] {
			case 1:
				return &fault{n.at, fmt.Sprintf("%s comes back to itself before anything is read (left recursion); write the repetition with * or put the recursion last", rules[n.rule].name)}
			case 0:
				return visit(n.rule)
			}
			return nil
		})
		colour[i] = 2
		return err
	}
	for i := range rules {
		if colour[i] == 0 {
			if err := visit(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// use marks the rules that a rule leads to.
func (r *rule) use(rules []rule, used []bool) {
	queue := []*node{r.body}
	for len(queue) > 0 {
		n := queue[len(queue)-1]
		queue = append(queue[:len(queue)-1], n.parts...)
		if n.op == opRule && !used[n.rule] {
			used[n.rule] = true
			queue = append(queue, rules[n.rule].body)
		}
	}
}

// fixpoint finds the rules that have a property, given which rules are known to.
func fixpoint(rules []rule, has func(n *node, of []bool) bool) []bool {
	of := make([]bool, len(rules))
	for changed := true; changed; {
		changed = false
		for i, r := range rules {
			if !of[i] && has(r.body, of) {
				of[i], changed = true, true
			}
		}
	}
	return of
}

// canBeEmpty reports whether the empty text is a sentence of n.
func (n *node) canBeEmpty(rules []bool) bool {
	switch n.op {
	case opText:
		return n.text == ""
	case opSequence:
		return n.every(rules, (*node).canBeEmpty)
	case opChoice:
		return n.any(rules, (*node).canBeEmpty)
	case opRepeat:
		return n.min == 0 || n.parts[0].canBeEmpty(rules)
	case opRule:
		return rules[n.rule]
	}
	return false
}

// canEnd reports whether n has a sentence at all.
func (n *node) canEnd(rules []bool) bool {
	switch n.op {
	case opClass:
		return len(n.class) > 0
	case opSequence:
		return n.every(rules, (*node).canEnd)
	case opChoice:
		return n.any(rules, (*node).canEnd)
	case opRepeat:
		return n.min == 0 || n.parts[0].canEnd(rules)
	case opRule:
		return rules[n.rule]
	}
	return true
}

func (n *node) every(rules []bool, has func(*node, []bool) bool) bool {
	for _, p := range n.parts {
		if !has(p, rules) {
			return false
		}
	}
	return true
}

func (n *node) any(rules []bool, has func(*node, []bool) bool) bool {
	for _, p := range n.parts {
		if has(p, rules) {
			return true
		}
	}
	return false
}

// leftmost calls found with every rule that n may begin with.
func (n *node) leftmost(empty []bool, found func(*node) error) error {
	if n.op == opRule {
		return found(n)
	}
	for _, p := range n.parts {
		if err := p.leftmost(empty, found); err != nil {
			return err
		}
		if n.op == opSequence && !p.canBeEmpty(empty) {
			return nil
		}
	}
	return nil
}

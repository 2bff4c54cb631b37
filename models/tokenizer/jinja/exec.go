package jinja

import (
	"errors"
	"fmt"
)

// node is a part of a template that writes text or sets variables.
type node interface {
	exec(m *machine, s *scope) error
}

// text is written as it is.
type text string

func (n text) exec(m *machine, _ *scope) error { return m.write(string(n)) }

// output is {{ value }}.
type output struct {
	value expr
	line  int
}

func (n output) exec(m *machine, s *scope) error {
	v, err := m.eval(n.value, s)
	if err != nil {
		return located(n.line, err)
	}
	text, err := m.str(v)
	if err != nil {
		return err
	}
	return m.write(text)
}

// block is a sequence of nodes without a scope.
type block []node

func (n block) exec(m *machine, s *scope) error { return m.run(n, s) }

// conditional is if, elif and else.
type conditional struct {
	tests     []expr
	bodies    [][]node
	otherwise []node
}

func (n *conditional) exec(m *machine, s *scope) error {
	for i, test := range n.tests {
		v, err := m.eval(test, s)
		if err != nil {
			return err
		}
		if truth(v) {
			return m.run(n.bodies[i], s)
		}
	}
	return m.run(n.otherwise, s)
}

// jump is break or continue: an error that the innermost loop takes.
type jump string

func (j jump) exec(*machine, *scope) error { return j }

// Error is seen by nobody: every jump is parsed inside of a loop.
func (j jump) Error() string { return string(j) + " outside of a loop" }

func isJump(err error) bool {
	var j jump
	return errors.As(err, &j)
}

// loop is for, with its filter and its else.
type loop struct {
	targets   []string
	over      expr
	filter    expr // nil: none
	body      []node
	otherwise []node
	line      int
}

func (n *loop) exec(m *machine, s *scope) error {
	v, err := m.eval(n.over, s)
	if err != nil {
		return located(n.line, err)
	}
	items, err := iterate(m, v)
	if err != nil {
		return located(n.line, err)
	}
	if n.filter != nil {
		if items, err = n.filtered(m, s, items); err != nil {
			return err
		}
	}
	if len(items) == 0 {
		return m.run(n.otherwise, s)
	}
	for i := range items {
		pass := s.child()
		pass.vars["loop"] = &loopInfo{items, i}
		if err := unpack(pass, n.targets, items[i]); err != nil {
			return located(n.line, err)
		}
		err := m.run(n.body, pass)
		if j, ok := err.(jump); ok { // a jump is never wrapped: see located
			if j == "break" {
				return nil
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *loop) filtered(m *machine, s *scope, items []any) ([]any, error) {
	var kept []any
	for _, v := range items {
		pass := s.child()
		if err := unpack(pass, n.targets, v); err != nil {
			return nil, located(n.line, err)
		}
		ok, err := m.eval(n.filter, pass)
		if err != nil {
			return nil, located(n.line, err)
		}
		if truth(ok) {
			kept = append(kept, v)
		}
	}
	return kept, nil
}

// unpack assigns a value to one target, or its items to several.
func unpack(s *scope, targets []string, v any) error {
	if len(targets) == 1 {
		s.vars[targets[0]] = v
		return nil
	}
	items, ok := v.([]any)
	if !ok || len(items) != len(targets) {
		return fmt.Errorf("cannot unpack %s into %d names", typeName(v), len(targets))
	}
	for i, name := range targets {
		s.vars[name] = items[i]
	}
	return nil
}

// loopInfo is the variable loop.
type loopInfo struct {
	items []any
	index int
}

func (l *loopInfo) attribute(name string) (any, bool) {
	n := len(l.items)
	switch name {
	case "index":
		return l.index + 1, true
	case "index0":
		return l.index, true
	case "revindex":
		return n - l.index, true
	case "revindex0":
		return n - l.index - 1, true
	case "first":
		return l.index == 0, true
	case "last":
		return l.index == n-1, true
	case "length":
		return n, true
	case "previtem":
		if l.index > 0 {
			return l.items[l.index-1], true
		}
		return undefined{"previtem"}, true
	case "nextitem":
		if l.index < n-1 {
			return l.items[l.index+1], true
		}
		return undefined{"nextitem"}, true
	}
	return nil, false
}

// assign is set: of names, of an attribute of a namespace, or of a name to
// the text of a body.
type assign struct {
	targets []string
	attr    string // "" unless the target is targets[0].attr
	value   expr   // nil if there is a body
	body    []node
	line    int
}

func (n *assign) exec(m *machine, s *scope) error {
	var v any
	var err error
	if n.value != nil {
		v, err = m.eval(n.value, s)
	} else {
		v, err = m.capture(func() error { return m.run(n.body, s.child()) })
	}
	if err != nil {
		return located(n.line, err)
	}
	if n.attr == "" {
		return located(n.line, unpack(s, n.targets, v))
	}
	target, _ := s.lookup(n.targets[0])
	ns, ok := target.(*namespace)
	if !ok {
		return located(n.line, fmt.Errorf("%s is not a namespace", n.targets[0]))
	}
	ns.vars[n.attr] = v
	return nil
}

// macro defines a function that returns the text of its body.
type macro struct {
	name   string
	params []parameter
	body   []node
}

type parameter struct {
	name  string
	value expr // default, or nil
}

func (n *macro) exec(_ *machine, s *scope) error {
	s.vars[n.name] = function(n.call)
	return nil
}

func (n *macro) call(m *machine, args []any, named map[string]any) (any, error) {
	s := m.globals.child()
	if len(args) > len(n.params) {
		return nil, fmt.Errorf("macro %s takes %d arguments, not %d", n.name, len(n.params), len(args))
	}
	for i, p := range n.params {
		v, ok := named[p.name]
		switch {
		case i < len(args):
			v = args[i]
		case ok:
		case p.value != nil:
			var err error
			if v, err = m.eval(p.value, s); err != nil {
				return nil, err
			}
		default:
			v = undefined{p.name}
		}
		s.vars[p.name] = v
	}
	return m.made(m.capture(func() error { return m.run(n.body, s) }))
}

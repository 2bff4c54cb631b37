// Package jinja renders the part of the Jinja2 template language in which the
// chat templates of language models are written.
//
// It owns parsing and rendering with the semantics of
// https://jinja.palletsprojects.com/en/stable/templates/ under the settings
// that chat templates assume: trim_blocks, lstrip_blocks, no escaping, no
// mutation of values; tuples are lists. Supported are if, for (with filter, else, break and
// continue), set, macro and generation tags, the operators, the filters, tests
// and string methods that published templates use; anything else is an error
// when the template is parsed. Templates cannot include files.
//
// A template is foreign code. Rendering is therefore bounded in steps, and
// through them in time and memory, whatever the template says, and recursion
// is bounded so that no template can exhaust the stack.
package jinja

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds on a template and its rendering.
const (
	maxSource  = 256 << 10 // bytes
	maxSteps   = 2 << 20   // nodes evaluated; a step also pays for bytesAStep bytes made
	bytesAStep = 32
	maxNested  = 5000 // expressions and values inside each other, through macros, too
)

// ErrLimit is returned by Render when a template takes too many steps.
var ErrLimit = errors.New("jinja: the template takes too long, or makes too much text")

// Raised is the error of a template that calls raise_exception.
type Raised struct{ Message string }

// Error returns the message.
func (e *Raised) Error() string { return e.Message }

// Template is a parsed template. It is immutable and safe for concurrent use.
type Template struct{ nodes []node }

// Parse reads a template. Errors name the line.
func Parse(src string) (*Template, error) {
	if len(src) > maxSource {
		return nil, fmt.Errorf("jinja: a template of %d bytes, at most %d are accepted", len(src), maxSource)
	}
	tokens, err := lex(src)
	if err != nil {
		return nil, fmt.Errorf("jinja: %w", err)
	}
	p := &parser{tokens: tokens}
	nodes, _ := p.body()
	if p.err != nil {
		return nil, fmt.Errorf("jinja: %w", p.err)
	}
	return &Template{nodes}, nil
}

// Func is a function that a template can call with positional arguments.
type Func func(args []any) (any, error)

// Render returns the text of the template for the given variables. Their
// values are nil, bool, int, float64, string, []any, *Dict and Func. The
// error is ErrLimit, a *Raised, or names a line of the template.
func (t *Template) Render(vars map[string]any) (string, error) {
	m := &machine{fuel: maxSteps, filters: filters, out: new(strings.Builder)}
	m.globals = &scope{vars: make(map[string]any, len(vars)), parent: &scope{vars: globals}}
	for name, value := range vars {
		if f, ok := value.(Func); ok {
			value = function(func(_ *machine, args []any, _ map[string]any) (any, error) { return f(args) })
		}
		m.globals.vars[name] = value
	}
	if err := m.run(t.nodes, m.globals); err != nil {
		return "", fmt.Errorf("jinja: %w", err)
	}
	return m.out.String(), nil
}

// machine is the state of one rendering.
type machine struct {
	fuel    int
	nested  int
	globals *scope
	filters map[string]filter
	out     *strings.Builder
}

// spend pays for n steps.
func (m *machine) spend(n int) error {
	if m.fuel -= n; m.fuel < 0 {
		return ErrLimit
	}
	return nil
}

// made pays for the bytes of a new string.
func (m *machine) made(s string, err error) (any, error) {
	if err == nil {
		err = m.spend(1 + len(s)/bytesAStep)
	}
	return s, err
}

func (m *machine) write(s string) error {
	m.out.WriteString(s)
	return m.spend(1 + len(s)/bytesAStep)
}

// capture returns what f writes.
func (m *machine) capture(f func() error) (string, error) {
	outer := m.out
	m.out = new(strings.Builder)
	err := f()
	s := m.out.String()
	m.out = outer
	return s, err
}

func (m *machine) run(nodes []node, s *scope) error {
	for _, n := range nodes {
		if err := m.spend(1); err != nil {
			return err
		}
		if err := n.exec(m, s); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) eval(e expr, s *scope) (any, error) {
	if err := m.spend(1); err != nil {
		return nil, err
	}
	if err := m.descend(); err != nil {
		return nil, err
	}
	defer m.ascend()
	return e.eval(m, s)
}

// descend counts a level of recursion; ascend leaves it.
func (m *machine) descend() error {
	if m.nested++; m.nested > maxNested {
		return ErrLimit
	}
	return nil
}

func (m *machine) ascend() { m.nested-- }

// scope holds the variables of the template, a macro or a pass of a loop.
type scope struct {
	vars   map[string]any
	parent *scope
}

func (s *scope) child() *scope { return &scope{vars: map[string]any{}, parent: s} }

func (s *scope) lookup(name string) (any, bool) {
	for ; s != nil; s = s.parent {
		if v, ok := s.vars[name]; ok {
			return v, true
		}
	}
	return nil, false
}

// located adds the line to an error that has none.
func located(line int, err error) error {
	var l *lineError
	var raised *Raised
	if err == nil || errors.As(err, &l) || errors.As(err, &raised) || errors.Is(err, ErrLimit) || isJump(err) {
		return err
	}
	return &lineError{line, err}
}

type lineError struct {
	line int
	err  error
}

// Error puts the line before the error.
func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }

// Unwrap returns the error without its line.
func (e *lineError) Unwrap() error { return e.err }

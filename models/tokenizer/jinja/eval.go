package jinja

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// expr is an expression.
type expr interface {
	eval(m *machine, s *scope) (any, error)
}

type constant struct{ value any }

func (e constant) eval(*machine, *scope) (any, error) { return e.value, nil }

type variable struct{ name string }

func (e variable) eval(_ *machine, s *scope) (any, error) {
	if v, ok := s.lookup(e.name); ok {
		return v, nil
	}
	return undefined(e), nil
}

type listOf []expr

func (e listOf) eval(m *machine, s *scope) (any, error) {
	items := make([]any, 0, len(e))
	for _, x := range e {
		v, err := m.eval(x, s)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	return items, nil
}

type dictOf struct{ keys, values []expr }

func (e *dictOf) eval(m *machine, s *scope) (any, error) {
	d := NewDict()
	for i := range e.keys {
		k, err := m.eval(e.keys[i], s)
		if err != nil {
			return nil, err
		}
		v, err := m.eval(e.values[i], s)
		if err != nil {
			return nil, err
		}
		key, err := m.str(k)
		if err != nil {
			return nil, err
		}
		d.Set(key, v)
	}
	return d, nil
}

// choice is: then if test else otherwise.
type choice struct{ test, then, otherwise expr }

func (e *choice) eval(m *machine, s *scope) (any, error) {
	test, err := m.eval(e.test, s)
	switch {
	case err != nil:
		return nil, err
	case truth(test):
		return m.eval(e.then, s)
	case e.otherwise == nil:
		return undefined{"the alternative"}, nil
	}
	return m.eval(e.otherwise, s)
}

type unary struct {
	op string
	of expr
}

func (e *unary) eval(m *machine, s *scope) (any, error) {
	v, err := m.eval(e.of, s)
	if err != nil {
		return nil, err
	}
	if e.op == "not" {
		return !truth(v), nil
	}
	n, ok := number(v)
	if !ok {
		return nil, fmt.Errorf("%s of %s", e.op, typeName(v))
	}
	if e.op == "-" {
		return arithmetic("-", 0, n)
	}
	return n, nil
}

type binary struct {
	op          string
	left, right expr
	line        int
}

func (e *binary) eval(m *machine, s *scope) (any, error) {
	left, err := m.eval(e.left, s)
	if err != nil {
		return nil, err
	}
	switch e.op { // these may not need the right side
	case "and":
		if !truth(left) {
			return left, nil
		}
		return m.eval(e.right, s)
	case "or":
		if truth(left) {
			return left, nil
		}
		return m.eval(e.right, s)
	}
	right, err := m.eval(e.right, s)
	if err != nil {
		return nil, err
	}
	v, err := m.operate(e.op, left, right)
	return v, located(e.line, err)
}

func (m *machine) operate(op string, a, b any) (any, error) {
	switch op {
	case "==":
		return equal(m, a, b)
	case "!=":
		same, err := equal(m, a, b)
		return !same, err
	case "<", ">", "<=", ">=":
		c, err := compare(a, b)
		return c < 0 && op[0] == '<' || c > 0 && op[0] == '>' || c == 0 && len(op) == 2, err
	case "in":
		return contains(m, b, a)
	case "not in":
		in, err := contains(m, b, a)
		return !in, err
	case "~":
		x, err := m.str(a)
		if err != nil {
			return nil, err
		}
		y, err := m.str(b)
		return m.made(x+y, err)
	}
	switch x := a.(type) {
	case string:
		switch y := b.(type) {
		case string:
			if op == "+" {
				return m.made(x+y, nil)
			}
		case int:
			if op == "*" {
				return m.repeat(x, y)
			}
		}
	case []any:
		if y, ok := b.([]any); ok && op == "+" {
			return append(append(make([]any, 0, len(x)+len(y)), x...), y...), m.spend(len(x) + len(y))
		}
	}
	x, okX := number(a)
	y, okY := number(b)
	if !okX || !okY {
		for _, v := range []any{a, b} {
			if u, ok := v.(undefined); ok {
				return nil, u.err()
			}
		}
		return nil, fmt.Errorf("%s %s %s is not possible", typeName(a), op, typeName(b))
	}
	return arithmetic(op, x, y)
}

func (m *machine) repeat(s string, n int) (any, error) {
	n = max(n, 0)
	if len(s) > 0 && n > maxSteps*bytesAStep/len(s) {
		return nil, ErrLimit
	}
	return m.made(strings.Repeat(s, n), nil)
}

// number returns an int or a float64; a bool counts as 0 or 1.
func number(v any) (any, bool) {
	switch v := v.(type) {
	case int, float64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return nil, false
}

func float(v any) float64 {
	if n, ok := v.(int); ok {
		return float64(n)
	}
	return v.(float64)
}

// arithmetic works on numbers as Python does: / gives a float, // and % round
// down.
func arithmetic(op string, a, b any) (any, error) {
	x, xInt := a.(int)
	y, yInt := b.(int)
	if xInt && yInt && op != "/" {
		switch op {
		case "+":
			return x + y, nil
		case "-":
			return x - y, nil
		case "*":
			return x * y, nil
		}
		if y == 0 {
			return nil, errors.New("division by zero")
		}
		q, r := x/y, x%y
		if r != 0 && (r < 0) != (y < 0) {
			q, r = q-1, r+y
		}
		if op == "//" {
			return q, nil
		}
		return r, nil
	}
	f, g := float(a), float(b)
	if g == 0 && (op == "/" || op == "//" || op == "%") {
		return nil, errors.New("division by zero")
	}
	switch op {
	case "+":
		return f + g, nil
	case "-":
		return f - g, nil
	case "*":
		return f * g, nil
	case "/":
		return f / g, nil
	case "//":
		return math.Floor(f / g), nil
	}
	return f - g*math.Floor(f/g), nil
}

// item is of.key or of[key].
type item struct {
	of, key expr
	line    int
}

func (e *item) eval(m *machine, s *scope) (any, error) {
	of, err := m.eval(e.of, s)
	if err != nil {
		return nil, err
	}
	key, err := m.eval(e.key, s)
	if err != nil {
		return nil, err
	}
	v, err := access(of, key)
	return v, located(e.line, err)
}

// access returns an item, an attribute or a method of a value; undefined if
// it has none of that name.
func access(of, key any) (any, error) {
	name, isName := key.(string)
	if u, ok := of.(undefined); ok {
		return nil, u.err()
	}
	if isName {
		if v, ok := attribute(of, name); ok {
			return v, nil
		}
		if n, err := strconv.Atoi(name); err == nil {
			key = n
		}
	}
	if i, ok := key.(int); ok {
		switch of := of.(type) {
		case []any:
			if i < 0 {
				i += len(of)
			}
			if i >= 0 && i < len(of) {
				return of[i], nil
			}
		case string:
			r := []rune(of)
			if i < 0 {
				i += len(r)
			}
			if i >= 0 && i < len(r) {
				return string(r[i]), nil
			}
		}
	}
	if i, ok := key.(int); ok {
		name = strconv.Itoa(i)
	}
	return undefined{name}, nil
}

// attribute looks up what a name can mean: a key, a variable or a method.
func attribute(of any, name string) (any, bool) {
	switch of := of.(type) {
	case *Dict:
		if v, ok := of.Get(name); ok {
			return v, true
		}
		return dictMethod(of, name)
	case *namespace:
		v, ok := of.vars[name]
		return v, ok
	case *loopInfo:
		return of.attribute(name)
	case string:
		return stringMethod(of, name)
	}
	return nil, false
}

// sliceOf is of[start:stop:step].
type sliceOf struct {
	of     expr
	bounds [3]expr
	line   int
}

func (e *sliceOf) eval(m *machine, s *scope) (any, error) {
	of, err := m.eval(e.of, s)
	if err != nil {
		return nil, err
	}
	var bounds [3]*int
	for i, b := range e.bounds {
		if b == nil {
			continue
		}
		v, err := m.eval(b, s)
		if err != nil {
			return nil, err
		}
		switch n := v.(type) {
		case int:
			bounds[i] = &n
		case nil:
		default:
			return nil, located(e.line, fmt.Errorf("a slice is bounded by %s", typeName(v)))
		}
	}
	switch of := of.(type) {
	case []any:
		out, err := slice(of, bounds)
		if err == nil {
			err = m.spend(len(out))
		}
		return out, located(e.line, err)
	case string:
		out, err := slice([]rune(of), bounds)
		return m.made(string(out), located(e.line, err))
	}
	return nil, located(e.line, fmt.Errorf("a slice of %s", typeName(of)))
}

// slice follows Python: bounds count from the end if negative, and are
// clipped to the list.
func slice[T any](list []T, bounds [3]*int) ([]T, error) {
	step := 1
	if bounds[2] != nil {
		step = *bounds[2]
	}
	if step == 0 {
		return nil, errors.New("a slice with step 0")
	}
	low, high := 0, len(list) // what bounds are clipped to
	if step < 0 {
		low, high = -1, len(list)-1
	}
	clip := func(b *int, otherwise int) int {
		if b == nil {
			return otherwise
		}
		n := *b
		if n < 0 {
			n += len(list)
		}
		return max(low, min(n, high))
	}
	start, stop := clip(bounds[0], low), clip(bounds[1], high)
	if step < 0 {
		start, stop = clip(bounds[0], high), clip(bounds[1], low)
	}
	step = max(-len(list)-1, min(step, len(list)+1)) // no overflow below
	var out []T
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		out = append(out, list[i])
	}
	return out, nil
}

// function is a value that can be called.
type function func(m *machine, args []any, named map[string]any) (any, error)

type call struct {
	fn    expr
	args  []expr
	names []string // "" for positional arguments
	line  int
}

func (e *call) eval(m *machine, s *scope) (any, error) {
	v, err := m.eval(e.fn, s)
	if err != nil {
		return nil, err
	}
	fn, ok := v.(function)
	if !ok {
		if u, ok := v.(undefined); ok {
			return nil, located(e.line, u.err())
		}
		return nil, located(e.line, fmt.Errorf("%s cannot be called", typeName(v)))
	}
	args, named, err := m.arguments(s, e.args, e.names)
	if err != nil {
		return nil, err
	}
	v, err = fn(m, args, named)
	return v, located(e.line, err)
}

func (m *machine) arguments(s *scope, exprs []expr, names []string) (args []any, named map[string]any, err error) {
	for i, e := range exprs {
		v, err := m.eval(e, s)
		if err != nil {
			return nil, nil, err
		}
		if names[i] == "" {
			args = append(args, v)
			continue
		}
		if named == nil {
			named = map[string]any{}
		}
		named[names[i]] = v
	}
	return args, named, nil
}

// filtered is value|name(args).
type filtered struct {
	name  string
	apply filter
	value expr
	args  []expr
	names []string
	line  int
}

func (e *filtered) eval(m *machine, s *scope) (any, error) {
	v, err := m.eval(e.value, s)
	if err != nil {
		return nil, err
	}
	args, named, err := m.arguments(s, e.args, e.names)
	if err != nil {
		return nil, err
	}
	v, err = e.apply(m, v, arguments{args, named})
	if err != nil {
		return nil, located(e.line, fmt.Errorf("filter %s: %w", e.name, err))
	}
	return v, nil
}

// tested is: value is name arg.
type tested struct {
	holds test
	value expr
	arg   expr // nil: none
	line  int
}

func (e *tested) eval(m *machine, s *scope) (any, error) {
	v, err := m.eval(e.value, s)
	if err != nil {
		return nil, err
	}
	var arg any
	if e.arg != nil {
		if arg, err = m.eval(e.arg, s); err != nil {
			return nil, err
		}
	}
	ok, err := e.holds(m, v, arg)
	return ok, located(e.line, err)
}

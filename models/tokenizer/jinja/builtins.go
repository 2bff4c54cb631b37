package jinja

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// filter maps a value: value|name(args).
type filter func(m *machine, v any, a arguments) (any, error)

// test asks something of a value: value is name(arg).
type test func(m *machine, v, arg any) (bool, error)

// globals are the functions that every template has.
var globals = map[string]any{
	"range":           function(rangeOf),
	"dict":            function(dictCall),
	"namespace":       function(namespaceCall),
	"raise_exception": function(raise),
}

// rangeOf is range(stop) or range(start, stop, step).
func rangeOf(m *machine, args []any, _ map[string]any) (any, error) {
	a := arguments{list: args}
	var bounds [3]int
	for i := range bounds {
		var err error
		if bounds[i], err = a.int(i, "range", i/2); err != nil {
			return nil, err
		}
	}
	start, stop, step := bounds[0], bounds[1], bounds[2]
	if len(args) == 1 {
		start, stop = 0, start
	}
	if len(args) == 0 || step == 0 {
		return nil, errors.New("range needs a stop, and a step that is not 0")
	}
	var out []any
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		if err := m.spend(1); err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

func namespaceCall(_ *machine, args []any, named map[string]any) (any, error) {
	ns := &namespace{vars: map[string]any{}}
	for _, v := range args {
		if d, ok := v.(*Dict); ok {
			maps.Copy(ns.vars, d.values)
		}
	}
	maps.Copy(ns.vars, named)
	return ns, nil
}

func dictCall(_ *machine, _ []any, named map[string]any) (any, error) {
	d := NewDict()
	for _, name := range slices.Sorted(maps.Keys(named)) {
		d.Set(name, named[name])
	}
	return d, nil
}

func raise(m *machine, args []any, _ map[string]any) (any, error) {
	message := "the template refuses the conversation"
	if len(args) > 0 {
		var err error
		if message, err = m.str(args[0]); err != nil {
			return nil, err
		}
	}
	return nil, &Raised{message}
}

var filters = map[string]filter{
	"trim":       onString(stripper(strings.TrimFunc)),
	"upper":      onString(mapper(strings.ToUpper)),
	"lower":      onString(mapper(strings.ToLower)),
	"title":      onString(mapper(title)),
	"capitalize": onString(mapper(capitalize)),
	"replace":    onString(replace),
	"split":      onString(split),
	"indent":     onString(indent),
	"string":     onString(func(_ *machine, s string, _ arguments) (any, error) { return s, nil }),
	"safe":       func(_ *machine, v any, _ arguments) (any, error) { return v, nil },
	"length":     func(_ *machine, v any, _ arguments) (any, error) { return length(v) },
	"count":      func(_ *machine, v any, _ arguments) (any, error) { return length(v) },
	"default":    defaultTo,
	"d":          defaultTo,
	"tojson":     toJSON,
	"join":       joinFilter,
	"list":       func(m *machine, v any, _ arguments) (any, error) { return iterate(m, v) },
	"first":      func(m *machine, v any, _ arguments) (any, error) { return end(m, v, 0) },
	"last":       func(m *machine, v any, _ arguments) (any, error) { return end(m, v, -1) },
	"reverse":    reverse,
	"items":      itemsFilter,
	"int":        toInt,
	"map":        mapFilter,
	"select":     selecting(true, false),
	"reject":     selecting(false, false),
	"selectattr": selecting(true, true),
	"rejectattr": selecting(false, true),
}

// onString makes a filter of a method of strings.
func onString(method func(*machine, string, arguments) (any, error)) filter {
	return func(m *machine, v any, a arguments) (any, error) {
		s, err := m.str(v)
		if err != nil {
			return nil, err
		}
		if err := m.spend(1 + len(s)/bytesAStep); err != nil {
			return nil, err
		}
		return method(m, s, a)
	}
}

// indent indents all lines but the first, and empty ones.
func indent(m *machine, s string, a arguments) (any, error) {
	width, err := a.int(0, "width", 4)
	if err != nil {
		return nil, err
	}
	first, _ := a.at(1, "first")
	blank, _ := a.at(2, "blank")
	lines := strings.Split(s, "\n")
	if width < 0 || width > 1000 {
		return nil, fmt.Errorf("width %d is outside [0, 1000]", width)
	}
	if err := m.spend(len(lines) * (1 + width/bytesAStep)); err != nil {
		return nil, err
	}
	pad := strings.Repeat(" ", width)
	for i, line := range lines {
		if (i > 0 || truth(first)) && (line != "" || truth(blank)) {
			lines[i] = pad + line
		}
	}
	return m.made(strings.Join(lines, "\n"), nil)
}

func defaultTo(_ *machine, v any, a arguments) (any, error) {
	otherwise, ok := a.at(0, "default_value")
	if !ok {
		otherwise = ""
	}
	falsy, _ := a.at(1, "boolean")
	if _, missing := v.(undefined); missing || truth(falsy) && !truth(v) {
		return otherwise, nil
	}
	return v, nil
}

func joinFilter(m *machine, v any, a arguments) (any, error) {
	sep, err := a.str(0, "d", "")
	if err != nil {
		return nil, err
	}
	if name, ok := a.at(1, "attribute"); ok {
		if v, err = mapFilter(m, v, arguments{named: map[string]any{"attribute": name}}); err != nil {
			return nil, err
		}
	}
	return join(m, arguments{list: []any{v}}, sep)
}

func end(m *machine, v any, at int) (any, error) {
	list, err := iterate(m, v)
	if err != nil {
		return nil, err
	}
	return access(list, at)
}

func reverse(m *machine, v any, _ arguments) (any, error) {
	list, err := iterate(m, v)
	if err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	slices.Reverse(list)
	if _, ok := v.(string); ok {
		return join(m, arguments{list: []any{list}}, "")
	}
	return list, nil
}

func itemsFilter(m *machine, v any, _ arguments) (any, error) {
	switch v := v.(type) {
	case *Dict:
		return items(m, v)
	case undefined:
		return []any{}, nil
	}
	return nil, fmt.Errorf("%s has no items", typeName(v))
}

func toInt(_ *machine, v any, a arguments) (any, error) {
	if n, ok := number(v); ok {
		if f, ok := n.(float64); ok {
			return int(math.Trunc(max(-1<<62, min(f, 1<<62)))), nil
		}
		return n, nil
	}
	if s, ok := v.(string); ok {
		if n, err := strconv.Atoi(strings.TrimSpace(s)); err == nil {
			return n, nil
		}
	}
	return a.int(0, "default", 0)
}

// mapFilter applies a filter to every item, or takes an attribute of each.
func mapFilter(m *machine, v any, a arguments) (any, error) {
	list, err := iterate(m, v)
	if err != nil {
		return nil, err
	}
	apply := func(x any) (any, error) { return nil, errors.New("neither a filter nor an attribute is given") }
	if attr, ok := a.named["attribute"]; ok {
		otherwise, hasDefault := a.named["default"]
		apply = func(x any) (any, error) {
			got, err := access(x, attr)
			if _, missing := got.(undefined); missing && hasDefault {
				return otherwise, err
			}
			return got, err
		}
	} else if len(a.list) > 0 {
		name, _ := a.list[0].(string)
		f := m.filters[name]
		if f == nil {
			return nil, fmt.Errorf("filter %q is not supported", name)
		}
		rest := arguments{a.list[1:], a.named}
		apply = func(x any) (any, error) { return f(m, x, rest) }
	}
	out := make([]any, 0, len(list))
	for _, x := range list {
		y, err := apply(x)
		if err != nil {
			return nil, err
		}
		out = append(out, y)
	}
	return out, nil
}

// selecting keeps the items for which a test, by default truth, is want: of
// the items themselves, or of an attribute of theirs.
func selecting(want, byAttribute bool) filter {
	return func(m *machine, v any, a arguments) (any, error) {
		list, err := iterate(m, v)
		if err != nil {
			return nil, err
		}
		args := a.list
		var attr any
		if byAttribute {
			if len(args) == 0 {
				return nil, errors.New("an attribute is missing")
			}
			attr, args = args[0], args[1:]
		}
		holds := func(_ *machine, v, _ any) (bool, error) { return truth(v), nil }
		var arg any
		if len(args) > 0 {
			name, _ := args[0].(string)
			if holds = tests[name]; holds == nil {
				return nil, fmt.Errorf("test %q is not supported", name)
			}
			if len(args) > 1 {
				arg = args[1]
			}
		}
		out := []any{}
		for _, x := range list {
			of := x
			if byAttribute {
				if of, err = access(x, attr); err != nil {
					return nil, err
				}
			}
			ok, err := holds(m, of, arg)
			if err != nil {
				return nil, err
			}
			if ok == want {
				out = append(out, x)
			}
		}
		return out, nil
	}
}

// toJSON writes a value as Python's json.dumps does with ensure_ascii off.
func toJSON(m *machine, v any, a arguments) (any, error) {
	width, err := a.int(0, "indent", -1)
	if err != nil {
		return nil, err
	}
	if width > 16 {
		return nil, fmt.Errorf("indent %d is above 16", width)
	}
	var b strings.Builder
	err = m.writeJSON(&b, v, width, 0)
	return b.String(), err
}

func (m *machine) writeJSON(b *strings.Builder, v any, width, level int) error {
	if err := m.descend(); err != nil {
		return err
	}
	defer m.ascend()
	before, pad := b.Len(), max(width, 0)*level
	// member begins the i-th member of a list or dictionary, or ends it.
	member := func(i, level int) {
		if i > 0 {
			b.WriteString(map[bool]string{true: ",", false: ", "}[width >= 0])
		}
		if width >= 0 {
			b.WriteByte('\n')
			b.WriteString(strings.Repeat(" ", width*level))
		}
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool, int:
		fmt.Fprint(b, v)
	case float64:
		b.WriteString(formatFloat(v))
	case string:
		writeJSONString(b, v)
	case []any:
		b.WriteByte('[')
		for i, x := range v {
			member(i, level+1)
			if err := m.writeJSON(b, x, width, level+1); err != nil {
				return err
			}
		}
		if len(v) > 0 {
			member(0, level)
		}
		b.WriteByte(']')
		return m.spend(1 + pad/bytesAStep)
	case *Dict:
		b.WriteByte('{')
		for i, k := range v.keys {
			member(i, level+1)
			writeJSONString(b, k)
			b.WriteString(": ")
			if err := m.writeJSON(b, v.values[k], width, level+1); err != nil {
				return err
			}
		}
		if len(v.keys) > 0 {
			member(0, level)
		}
		b.WriteByte('}')
		return m.spend(1 + pad/bytesAStep)
	default:
		return fmt.Errorf("%s has no JSON form", typeName(v))
	}
	return m.spend(1 + (b.Len()-before+pad)/bytesAStep)
}

func writeJSONString(b *strings.Builder, s string) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	// Go escapes two separators that Python does not. The first pair keeps an
	// escaped backslash together.
	out := strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029").Replace(strings.TrimSuffix(buf.String(), "\n"))
	b.WriteString(out)
}

var tests = map[string]test{
	"defined":     func(_ *machine, v, _ any) (bool, error) { _, no := v.(undefined); return !no, nil },
	"undefined":   func(_ *machine, v, _ any) (bool, error) { _, yes := v.(undefined); return yes, nil },
	"none":        func(_ *machine, v, _ any) (bool, error) { return v == nil, nil },
	"string":      func(_ *machine, v, _ any) (bool, error) { _, yes := v.(string); return yes, nil },
	"boolean":     func(_ *machine, v, _ any) (bool, error) { _, yes := v.(bool); return yes, nil },
	"integer":     func(_ *machine, v, _ any) (bool, error) { _, yes := v.(int); return yes, nil },
	"float":       func(_ *machine, v, _ any) (bool, error) { _, yes := v.(float64); return yes, nil },
	"number":      func(_ *machine, v, _ any) (bool, error) { _, yes := number(v); return yes, nil },
	"mapping":     func(_ *machine, v, _ any) (bool, error) { _, yes := v.(*Dict); return yes, nil },
	"callable":    func(_ *machine, v, _ any) (bool, error) { _, yes := v.(function); return yes, nil },
	"true":        func(_ *machine, v, _ any) (bool, error) { b, yes := v.(bool); return yes && b, nil },
	"false":       func(_ *machine, v, _ any) (bool, error) { b, yes := v.(bool); return yes && !b, nil },
	"sequence":    isSequence,
	"iterable":    isSequence,
	"in":          func(m *machine, v, arg any) (bool, error) { return contains(m, arg, v) },
	"eq":          equal,
	"equalto":     equal,
	"==":          equal,
	"sameas":      equal,
	"ne":          func(m *machine, v, arg any) (bool, error) { same, err := equal(m, v, arg); return !same, err },
	"lt":          ordered(func(c int) bool { return c < 0 }),
	"lessthan":    ordered(func(c int) bool { return c < 0 }),
	"le":          ordered(func(c int) bool { return c <= 0 }),
	"gt":          ordered(func(c int) bool { return c > 0 }),
	"greaterthan": ordered(func(c int) bool { return c > 0 }),
	"ge":          ordered(func(c int) bool { return c >= 0 }),
	"odd":         func(_ *machine, v, _ any) (bool, error) { return divides(v, 2, 1) },
	"even":        func(_ *machine, v, _ any) (bool, error) { return divides(v, 2, 0) },
	"divisibleby": func(_ *machine, v, arg any) (bool, error) { return divides(v, arg, 0) },
}

func isSequence(_ *machine, v, _ any) (bool, error) {
	switch v.(type) {
	case string, []any, *Dict:
		return true, nil
	}
	return false, nil
}

func ordered(holds func(c int) bool) test {
	return func(_ *machine, v, arg any) (bool, error) {
		c, err := compare(v, arg)
		return err == nil && holds(c), err
	}
}

// divides reports whether v modulo by is rest.
func divides(v, by any, rest int) (bool, error) {
	n, ok := v.(int)
	d, okBy := by.(int)
	if !ok || !okBy || d == 0 {
		return false, fmt.Errorf("%s divided by %s", typeName(v), typeName(by))
	}
	r, err := arithmetic("%", n, d)
	return r == rest, err
}

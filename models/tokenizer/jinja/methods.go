package jinja

import (
	"fmt"
	"strings"
	"unicode"
)

// arguments are those of a filter or a method.
type arguments struct {
	list  []any
	named map[string]any
}

// at returns an argument by position or name.
func (a arguments) at(i int, name string) (any, bool) {
	if i < len(a.list) {
		return a.list[i], true
	}
	v, ok := a.named[name]
	return v, ok
}

func (a arguments) str(i int, name, otherwise string) (string, error) {
	v, ok := a.at(i, name)
	if !ok || v == nil {
		return otherwise, nil
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%s is %s, want a string", name, typeName(v))
	}
	return s, nil
}

func (a arguments) int(i int, name string, otherwise int) (int, error) {
	v, ok := a.at(i, name)
	if !ok || v == nil {
		return otherwise, nil
	}
	n, ok := v.(int)
	if !ok {
		return 0, fmt.Errorf("%s is %s, want an integer", name, typeName(v))
	}
	return n, nil
}

// stringMethod returns a method of s. Only those that make no more text than
// they are given, or pay for it, are here.
func stringMethod(s, name string) (any, bool) {
	method, ok := stringMethods[name]
	if !ok {
		return nil, false
	}
	return function(func(m *machine, args []any, named map[string]any) (any, error) {
		if err := m.spend(1 + len(s)/bytesAStep); err != nil {
			return nil, err
		}
		v, err := method(m, s, arguments{args, named})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return v, nil
	}), true
}

var stringMethods = map[string]func(m *machine, s string, a arguments) (any, error){
	"strip":        stripper(strings.TrimFunc),
	"lstrip":       stripper(strings.TrimLeftFunc),
	"rstrip":       stripper(strings.TrimRightFunc),
	"upper":        mapper(strings.ToUpper),
	"lower":        mapper(strings.ToLower),
	"title":        mapper(title),
	"capitalize":   mapper(capitalize),
	"startswith":   affix(strings.HasPrefix),
	"endswith":     affix(strings.HasSuffix),
	"removeprefix": remover(strings.TrimPrefix),
	"removesuffix": remover(strings.TrimSuffix),
	"split":        split,
	"splitlines":   splitLines,
	"replace":      replace,
	"join":         func(m *machine, s string, a arguments) (any, error) { return join(m, a, s) },
}

func stripper(trim func(string, func(rune) bool) string) func(*machine, string, arguments) (any, error) {
	return func(_ *machine, s string, a arguments) (any, error) {
		chars, err := a.str(0, "chars", "")
		if err != nil {
			return nil, err
		}
		if chars == "" {
			return trim(s, isPythonSpace), nil
		}
		return trim(s, func(r rune) bool { return strings.ContainsRune(chars, r) }), nil
	}
}

func mapper(f func(string) string) func(*machine, string, arguments) (any, error) {
	return func(m *machine, s string, _ arguments) (any, error) { return m.made(f(s), nil) }
}

// affix tests for a string or for any of a list.
func affix(has func(s, affix string) bool) func(*machine, string, arguments) (any, error) {
	return func(m *machine, s string, a arguments) (any, error) {
		v, _ := a.at(0, "prefix")
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		if err := m.spend(len(list)); err != nil {
			return nil, err
		}
		for _, v := range list {
			x, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("the argument is %s, want a string", typeName(v))
			}
			if has(s, x) {
				return true, nil
			}
		}
		return false, nil
	}
}

func remover(trim func(s, affix string) string) func(*machine, string, arguments) (any, error) {
	return func(_ *machine, s string, a arguments) (any, error) {
		x, err := a.str(0, "affix", "")
		return trim(s, x), err
	}
}

func title(s string) string {
	letter := false
	return strings.Map(func(r rune) rune {
		if letter {
			r = unicode.ToLower(r)
		} else {
			r = unicode.ToTitle(r)
		}
		letter = unicode.IsLetter(r)
		return r
	}, s)
}

func capitalize(s string) string {
	first := true
	return strings.Map(func(r rune) rune {
		if first {
			first = false
			return unicode.ToTitle(r)
		}
		return unicode.ToLower(r)
	}, s)
}

// listOfStrings pays for a list of parts of a string.
func listOfStrings(m *machine, parts []string) (any, error) {
	items := make([]any, len(parts))
	for i, p := range parts {
		items[i] = p
	}
	return items, m.spend(len(items))
}

func split(m *machine, s string, a arguments) (any, error) {
	sep, err := a.str(0, "sep", "")
	if err != nil {
		return nil, err
	}
	limit, err := a.int(1, "maxsplit", -1)
	if err != nil {
		return nil, err
	}
	if sep == "" {
		return listOfStrings(m, splitSpace(s, limit))
	}
	n := -1
	if limit >= 0 && limit < len(s) {
		n = limit + 1
	}
	return listOfStrings(m, strings.SplitN(s, sep, n))
}

// splitSpace splits at runs of whitespace, at most limit times if limit is
// not negative.
func splitSpace(s string, limit int) []string {
	var parts []string
	for s = strings.TrimLeftFunc(s, isPythonSpace); s != ""; s = strings.TrimLeftFunc(s, isPythonSpace) {
		if limit >= 0 && len(parts) == limit {
			return append(parts, strings.TrimRightFunc(s, isPythonSpace))
		}
		end := strings.IndexFunc(s, isPythonSpace)
		if end < 0 {
			end = len(s)
		}
		parts = append(parts, s[:end])
		s = s[end:]
	}
	return parts
}

func splitLines(m *machine, s string, _ arguments) (any, error) {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	s = strings.TrimSuffix(s, "\n")
	if s == "" {
		return []any{}, nil
	}
	return listOfStrings(m, strings.Split(s, "\n"))
}

func replace(m *machine, s string, a arguments) (any, error) {
	before, err := a.str(0, "old", "")
	if err != nil {
		return nil, err
	}
	after, err := a.str(1, "new", "")
	if err != nil {
		return nil, err
	}
	limit, err := a.int(2, "count", -1)
	if err != nil {
		return nil, err
	}
	// Pay before the text is made: it may be much longer than s.
	n := strings.Count(s, before)
	if len(after) > 0 && n > maxSteps*bytesAStep/len(after) {
		return nil, ErrLimit
	}
	return m.made(strings.Replace(s, before, after, limit), nil)
}

func join(m *machine, a arguments, sep string) (any, error) {
	v, _ := a.at(0, "iterable")
	items, err := iterate(m, v)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, x := range items {
		if i > 0 {
			b.WriteString(sep)
		}
		part, err := m.str(x)
		if err != nil {
			return nil, err
		}
		if err := m.spend((len(sep) + len(part)) / bytesAStep); err != nil {
			return nil, err
		}
		b.WriteString(part)
	}
	return b.String(), nil
}

// dictMethod returns a method of d that does not change it.
func dictMethod(d *Dict, name string) (any, bool) {
	var f function
	switch name {
	case "get":
		f = func(_ *machine, args []any, named map[string]any) (any, error) {
			a := arguments{args, named}
			key, err := a.str(0, "key", "")
			if v, ok := d.Get(key); ok || err != nil {
				return v, err
			}
			v, _ := a.at(1, "default")
			return v, nil
		}
	case "items":
		f = func(m *machine, _ []any, _ map[string]any) (any, error) { return items(m, d) }
	case "keys":
		f = func(m *machine, _ []any, _ map[string]any) (any, error) { return iterate(m, d) }
	case "values":
		f = func(m *machine, _ []any, _ map[string]any) (any, error) {
			values := make([]any, len(d.keys))
			for i, k := range d.keys {
				values[i] = d.values[k]
			}
			return values, m.spend(len(values))
		}
	default:
		return nil, false
	}
	return f, true
}

// items returns the pairs of d.
func items(m *machine, d *Dict) (any, error) {
	pairs := make([]any, len(d.keys))
	for i, k := range d.keys {
		pairs[i] = []any{k, d.values[k]}
	}
	return pairs, m.spend(2 * len(pairs))
}

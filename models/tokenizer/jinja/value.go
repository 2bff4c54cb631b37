package jinja

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Dict is a dictionary of a template; it keeps the order of its keys.
type Dict struct {
	keys   []string
	values map[string]any
}

// NewDict returns an empty Dict.
func NewDict() *Dict { return &Dict{values: map[string]any{}} }

// Set sets the value of a key; a new key is the last.
func (d *Dict) Set(key string, value any) {
	if _, ok := d.values[key]; !ok {
		d.keys = append(d.keys, key)
	}
	d.values[key] = value
}

// Get returns the value of a key.
func (d *Dict) Get(key string) (any, bool) {
	v, ok := d.values[key]
	return v, ok
}

// FromJSON returns the value that data holds; objects keep their order.
func FromJSON(data []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := decodeJSON(dec, 0)
	if err != nil {
		return nil, fmt.Errorf("jinja: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("jinja: more than one JSON value")
	}
	return v, nil
}

// MapStrings returns a copy of a value of FromJSON with f applied to every
// string and key.
func MapStrings(v any, f func(string) string) any {
	switch v := v.(type) {
	case string:
		return f(v)
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = MapStrings(x, f)
		}
		return out
	case *Dict:
		out := NewDict()
		for _, k := range v.keys {
			out.Set(f(k), MapStrings(v.values[k], f))
		}
		return out
	}
	return v
}

func decodeJSON(dec *json.Decoder, depth int) (any, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("JSON is nested more than %d deep", maxNesting)
	}
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '[' {
			list := []any{}
			for dec.More() {
				v, err := decodeJSON(dec, depth+1)
				if err != nil {
					return nil, err
				}
				list = append(list, v)
			}
			_, err := dec.Token()
			return list, err
		}
		d := NewDict()
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := decodeJSON(dec, depth+1)
			if err != nil {
				return nil, err
			}
			d.Set(key.(string), v) // the decoder lets only strings be keys
		}
		_, err := dec.Token()
		return d, err
	case json.Number:
		if n, err := strconv.Atoi(t.String()); err == nil {
			return n, nil
		}
		return t.Float64()
	}
	return t, nil
}

// undefined is the value of a name that has none.
type undefined struct{ name string }

func (u undefined) err() error { return fmt.Errorf("%s is undefined", u.name) }

// namespace holds variables that inner scopes can set.
type namespace struct{ vars map[string]any }

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "none"
	case undefined:
		return "an undefined value"
	case bool:
		return "a boolean"
	case int, float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	case *Dict:
		return "a dictionary"
	case function:
		return "a function"
	}
	return "an object"
}

func truth(v any) bool {
	switch v := v.(type) {
	case nil, undefined:
		return false
	case bool:
		return v
	case int:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case *Dict:
		return len(v.keys) > 0
	}
	return true
}

// str is Python's str.
func (m *machine) str(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case undefined:
		return "", nil
	}
	var b strings.Builder
	err := m.repr(&b, v)
	return b.String(), err
}

// repr is Python's repr. It pays for every item: lists may hold the same list
// many times.
func (m *machine) repr(b *strings.Builder, v any) error {
	if err := m.descend(); err != nil {
		return err
	}
	defer m.ascend()
	before := b.Len()
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case undefined:
		b.WriteString("Undefined")
	case bool:
		b.WriteString(map[bool]string{true: "True", false: "False"}[v])
	case int:
		b.WriteString(strconv.Itoa(v))
	case float64:
		b.WriteString(formatFloat(v))
	case string:
		reprString(b, v)
	case []any:
		b.WriteByte('[')
		for i, x := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			if err := m.repr(b, x); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	case *Dict:
		b.WriteByte('{')
		for i, k := range v.keys {
			if i > 0 {
				b.WriteString(", ")
			}
			reprString(b, k)
			b.WriteString(": ")
			if err := m.repr(b, v.values[k]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	default:
		b.WriteString("<" + typeName(v) + ">")
	}
	return m.spend(1 + (b.Len()-before)/bytesAStep)
}

func reprString(b *strings.Builder, s string) {
	quote := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b.WriteRune(quote)
	for _, r := range s {
		switch {
		case r == quote || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7F:
			fmt.Fprintf(b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteRune(quote)
}

// formatFloat is Python's repr of a float.
func formatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(f, 'g', -1, 64)), "+")
	case f != 0 && (math.Abs(f) >= 1e16 || math.Abs(f) < 1e-4):
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func equal(m *machine, a, b any) (bool, error) {
	if err := m.spend(1); err != nil {
		return false, err
	}
	if err := m.descend(); err != nil {
		return false, err
	}
	defer m.ascend()
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && float(x) == float(y), nil
	}
	switch a := a.(type) {
	case nil:
		return b == nil, nil
	case undefined:
		_, ok := b.(undefined)
		return ok, nil
	case string:
		s, ok := b.(string)
		return ok && a == s, m.spend(len(a) / bytesAStep)
	case []any:
		list, ok := b.([]any)
		if !ok || len(a) != len(list) {
			return false, nil
		}
		for i := range a {
			if same, err := equal(m, a[i], list[i]); !same || err != nil {
				return false, err
			}
		}
		return true, nil
	case *Dict:
		d, ok := b.(*Dict)
		if !ok || len(a.keys) != len(d.keys) {
			return false, nil
		}
		for _, k := range a.keys {
			v, ok := d.Get(k)
			if !ok {
				return false, nil
			}
			if same, err := equal(m, a.values[k], v); !same || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	return false, nil
}

// compare orders numbers or strings.
func compare(a, b any) (int, error) {
	x, okX := number(a)
	y, okY := number(b)
	if okX && okY {
		switch f, g := float(x), float(y); {
		case f < g:
			return -1, nil
		case f > g:
			return 1, nil
		}
		return 0, nil
	}
	s, okS := a.(string)
	t, okT := b.(string)
	if okS && okT {
		return strings.Compare(s, t), nil
	}
	return 0, fmt.Errorf("%s and %s have no order", typeName(a), typeName(b))
}

func contains(m *machine, in, v any) (bool, error) {
	switch in := in.(type) {
	case string:
		s, ok := v.(string)
		if !ok {
			return false, fmt.Errorf("%s in a string", typeName(v))
		}
		return strings.Contains(in, s), m.spend(len(in) / bytesAStep)
	case []any:
		for _, x := range in {
			if same, err := equal(m, x, v); same || err != nil {
				return same, err
			}
		}
		return false, nil
	case *Dict:
		s, ok := v.(string)
		_, has := in.values[s]
		return ok && has, nil
	case undefined:
		return false, nil
	}
	return false, fmt.Errorf("in %s", typeName(in))
}

// iterate returns the items of a list, the keys of a dictionary or the
// characters of a string.
func iterate(m *machine, v any) ([]any, error) {
	var items []any
	switch v := v.(type) {
	case []any:
		items = v
	case *Dict:
		for _, k := range v.keys {
			items = append(items, k)
		}
	case string:
		for _, r := range v {
			items = append(items, string(r))
		}
	case undefined:
	default:
		return nil, fmt.Errorf("%s is not a sequence", typeName(v))
	}
	return items, m.spend(len(items))
}

// length returns the number of items or characters.
func length(v any) (int, error) {
	switch v := v.(type) {
	case string:
		return utf8.RuneCountInString(v), nil
	case []any:
		return len(v), nil
	case *Dict:
		return len(v.keys), nil
	case undefined:
		return 0, nil
	}
	return 0, fmt.Errorf("%s has no length", typeName(v))
}

// isPythonSpace is the class that Python's str.strip removes.
func isPythonSpace(r rune) bool {
	return unicode.IsSpace(r) || r >= 0x1C && r <= 0x1F
}

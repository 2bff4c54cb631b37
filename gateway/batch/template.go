package batch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"helicon/gateway/batch/table"
	"helicon/gateway/strict"
	"helicon/queue"
)

// Template is the input of a job with the names of columns, in double braces, in the place
// of what differs from row to row. A string that is nothing but a name takes the value as
// it is, so that a column of numbers gives numbers; within other text it is written out.
type Template struct {
	root    any                 // as encoding/json decodes it, but for texts
	columns map[string][]string // that a value of the input, by its JSON Pointer, is made of
	kinds   map[string]string   // JSON type that the task's schema wants, by JSON Pointer
}

// text is a string with holes: the parts at even indices are literal, those at odd ones
// the names of columns.
type text []string

// alone reports whether the text is nothing but one column.
func (t text) alone() bool { return len(t) == 3 && t[0] == "" && t[2] == "" }

// ParseTemplate reads a template for inputs of the schema. The error is a *queue.Problem
// that points at what is wrong.
func ParseTemplate(source, schema json.RawMessage) (*Template, error) {
	if err := strict.Check(source); err != nil {
		return nil, err
	}
	t := &Template{columns: map[string][]string{}, kinds: map[string]string{}}
	root, err := decode(source)
	if err != nil {
		return nil, err
	}
	if _, ok := root.(map[string]any); !ok {
		return nil, strict.Invalid("/template", "want an object: the input of the task")
	}
	if t.root, err = t.compile("", root); err != nil {
		return nil, err
	}
	t.learn("", schema)
	return t, nil
}

// EveryColumn is the template that makes each column the member of the input of its name.
func EveryColumn(columns []string, schema json.RawMessage) *Template {
	t := &Template{columns: map[string][]string{}, kinds: map[string]string{}}
	root := map[string]any{}
	for _, name := range columns {
		if name != "" && name != customID {
			root[name] = text{"", name, ""}
			t.columns["/"+strict.Escape(name)] = []string{name}
		}
	}
	t.root = root
	t.learn("", schema)
	return t
}

// customID is the column that names rows.
const customID = "custom_id"

func decode(source []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(source))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, strict.Invalid("", "%v", err)
	}
	return value, nil
}

// compile finds the names in the strings below a value.
func (t *Template) compile(at string, value any) (any, error) {
	var err error
	switch v := value.(type) {
	case string:
		return t.parse(at, v)
	case map[string]any:
		for name, member := range v {
			if v[name], err = t.compile(at+"/"+strict.Escape(name), member); err != nil {
				return nil, err
			}
		}
	case []any:
		for i, element := range v {
			if v[i], err = t.compile(at+"/"+strconv.Itoa(i), element); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

// parse cuts a string at its names.
func (t *Template) parse(at, s string) (any, error) {
	var parts text
	for {
		before, rest, found := strings.Cut(s, "{{")
		parts = append(parts, before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}}")
		name = strings.TrimSpace(name)
		if !closed || name == "" || strings.ContainsAny(name, "{}") {
			return nil, strict.Invalid("/template"+at, "after {{ comes the name of a column and }}")
		}
		parts = append(parts, name)
		if !slices.Contains(t.columns[at], name) {
			t.columns[at] = append(t.columns[at], name)
		}
		s = after
	}
	if len(parts) == 1 {
		return s, nil
	}
	return parts, nil
}

// learn notes which types a schema wants, as far as it says so directly.
func (t *Template) learn(at string, schema json.RawMessage) {
	var s struct {
		Type       json.RawMessage            `json:"type"`
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if json.Unmarshal(schema, &s) != nil {
		return // a task without a schema takes strings
	}
	var one string
	var several []string
	switch {
	case json.Unmarshal(s.Type, &one) == nil:
		t.kinds[at] = one
	case json.Unmarshal(s.Type, &several) == nil && len(several) > 0 && !slices.Contains(several, "string"):
		t.kinds[at] = several[0]
	}
	for name, property := range s.Properties {
		t.learn(at+"/"+strict.Escape(name), property)
	}
}

// Check returns a problem if the template names a column that is not among the given.
func (t *Template) Check(columns []string) error {
	for _, at := range slices.Sorted(maps.Keys(t.columns)) {
		for _, name := range t.columns[at] {
			if !slices.Contains(columns, name) {
				return strict.Invalid("/template"+at, "there is no column %q; the columns are %s", name, strings.Join(columns, ", "))
			}
		}
	}
	return nil
}

// At returns the columns that the value of the input at a JSON Pointer is made of.
func (t *Template) At(pointer string) string {
	return strings.Join(t.columns[strings.TrimPrefix(pointer, "/input")], ", ")
}

// Render makes the input of a row from its values, by column.
func (t *Template) Render(row *table.Row, values map[string]any) (json.RawMessage, []table.Fault) {
	r := rendering{Template: t, row: row, values: values}
	filled, _ := r.fill("", t.root)
	if r.faults != nil {
		return nil, r.faults
	}
	input, err := marshal(filled)
	if err != nil {
		return nil, []table.Fault{row.Fault("invalid_row", "", "The input cannot be written: %v.", err)}
	}
	return input, nil
}

// marshal writes JSON as it is read by people: < and & stand for themselves.
func marshal(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// rendering is the filling of a template with one row.
type rendering struct {
	*Template
	row    *table.Row
	values map[string]any
	faults []table.Fault
}

// fill returns a value with its holes filled, and whether it stays: a member whose cell is
// empty is left out, unless it is a text.
func (r *rendering) fill(at string, value any) (filled any, stays bool) {
	switch v := value.(type) {
	case text:
		if v.alone() {
			return r.whole(at, v[1])
		}
		return r.write(v), true
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			if f, ok := r.fill(at+"/"+strict.Escape(name), member); ok {
				out[name] = f
			}
		}
		return out, true
	case []any:
		out := make([]any, 0, len(v))
		for i, element := range v {
			if f, ok := r.fill(at+"/"+strconv.Itoa(i), element); ok {
				out = append(out, f)
			}
		}
		return out, true
	}
	return value, true
}

// value returns the value of a column.
func (r *rendering) value(column string) any {
	v, ok := r.values[column]
	if !ok {
		r.faults = append(r.faults, r.row.Fault("missing_column", column, "The row has no %q.", column))
	}
	if s, isText := v.(string); isText && strings.ContainsRune(s, 0) {
		r.faults = append(r.faults, r.row.Fault("invalid_cell", column, "The value has a NUL character."))
	}
	return v
}

// whole returns a column as a value. A cell of a CSV file is read as the type that the
// task wants there; one that cannot be stays a string, which the schema then refuses.
func (r *rendering) whole(at, column string) (any, bool) {
	v := r.value(column)
	cell, isText := v.(string)
	kind := r.kinds[at]
	if !isText || kind == "" || kind == "string" || r.row.Cells == nil {
		return v, true
	}
	cell = strings.TrimSpace(cell)
	if cell == "" {
		return nil, false
	}
	if kind == "boolean" {
		cell = strings.ToLower(cell)
	}
	if strict.Check([]byte(cell)) != nil {
		return v, true
	}
	read, err := decode([]byte(cell))
	if _, isText := read.(string); err != nil || isText {
		return v, true
	}
	return read, true
}

// write joins a text and the values in its holes.
func (r *rendering) write(t text) string {
	var out strings.Builder
	for i, part := range t {
		if i%2 == 0 {
			out.WriteString(part)
			continue
		}
		switch v := r.value(part).(type) {
		case nil:
		case string:
			out.WriteString(v)
		case json.Number:
			out.WriteString(v.String())
		default:
			written, err := marshal(v)
			if err != nil {
				written = fmt.Append(nil, v)
			}
			out.Write(written)
		}
	}
	return out.String()
}

// faultsOf tells the problem of a row's job by the columns that it comes from.
func (t *Template) faultsOf(row *table.Row, problem *queue.Problem) []table.Fault {
	if len(problem.Errors) == 0 {
		return []table.Fault{row.Fault(problem.Code, "", "%s", problem.Detail)}
	}
	faults := make([]table.Fault, len(problem.Errors))
	for i, e := range problem.Errors {
		faults[i] = row.Fault(problem.Code, t.At(e.Pointer), "%s: %s", e.Pointer, e.Detail)
	}
	return faults
}

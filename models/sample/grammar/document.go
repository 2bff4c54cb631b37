package grammar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// object is a JSON object whose members keep their order. Other values of a document
// are nil, bool, string, json.Number and []any.
type object struct {
	names  []string
	values map[string]any
}

// readDocument reads a JSON document whose objects keep their order.
func readDocument(source []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(source))
	d.UseNumber()
	v, err := readValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is text behind the JSON value")
	}
	return v, nil
}

func readValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("it nests deeper than %d levels", maxNesting)
	}
	token, err := d.Token()
	if err != nil {
		return nil, errSyntax
	}
	switch token {
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := readValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, closing(d)
	case json.Delim('{'):
		o := &object{values: map[string]any{}}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, errSyntax
			}
			v, err := readValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			if _, known := o.values[name.(string)]; !known {
				o.names = append(o.names, name.(string))
			}
			o.values[name.(string)] = v
		}
		return o, closing(d)
	}
	return token, nil
}

// errSyntax is the error of a text that is no JSON.
var errSyntax = errors.New("it is not valid JSON")

// closing reads the bracket that ends an array or an object.
func closing(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errSyntax
	}
	return nil
}

// writeValue returns a value of a document as JSON without spaces.
func writeValue(v any) string {
	switch v := v.(type) {
	case *object:
		members := make([]string, len(v.names))
		for i, name := range v.names {
			members[i] = quoted(name) + ":" + writeValue(v.values[name])
		}
		return "{" + strings.Join(members, ",") + "}"
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = writeValue(item)
		}
		return "[" + strings.Join(items, ",") + "]"
	case string:
		return quoted(v)
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return "null"
}

// quoted returns a string as JSON.
func quoted(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // of a string into memory cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}

// step returns the pointer of a member or an item of what pointer leads to.
func step[T string | int](pointer string, to T) string {
	name := strings.NewReplacer("~", "~0", "/", "~1").Replace(fmt.Sprint(to))
	return pointer + "/" + name
}

// lookUp returns what a JSON Pointer (RFC 6901) leads to.
func lookUp(document any, pointer string) (any, bool) {
	if pointer == "" {
		return document, true
	}
	if !strings.HasPrefix(pointer, "/") {
		return nil, false
	}
	for _, name := range strings.Split(pointer[1:], "/") {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		switch v := document.(type) {
		case *object:
			member, ok := v.values[name]
			if !ok {
				return nil, false
			}
			document = member
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(v) {
				return nil, false
			}
			document = v[i]
		default:
			return nil, false
		}
	}
	return document, true
}

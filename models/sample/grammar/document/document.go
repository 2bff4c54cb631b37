// Package document reads JSON documents whose objects keep the order of their members,
// as JSON Schemas are written for people and models to read them in order.
package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Object is a JSON object whose members keep their order. Other values of a document
// are nil, bool, string, json.Number and []any.
type Object struct {
	Names  []string
	Values map[string]any
}

// maxNesting bounds how deep arrays and objects may nest.
const maxNesting = 64

// Read reads a JSON document. The error says what is wrong with it, for a user to see.
func Read(source []byte) (any, error) {
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
		o := &Object{Values: map[string]any{}}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, errSyntax
			}
			v, err := readValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			if _, known := o.Values[name.(string)]; !known {
				o.Names = append(o.Names, name.(string))
			}
			o.Values[name.(string)] = v
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

// Write returns a value of a document as JSON without spaces.
func Write(v any) string {
	switch v := v.(type) {
	case *Object:
		members := make([]string, len(v.Names))
		for i, name := range v.Names {
			members[i] = Quote(name) + ":" + Write(v.Values[name])
		}
		return "{" + strings.Join(members, ",") + "}"
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = Write(item)
		}
		return "[" + strings.Join(items, ",") + "]"
	case string:
		return Quote(v)
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return "null"
}

// Quote returns a string as JSON.
func Quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // of a string into memory cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}

// Step returns the JSON Pointer of a member or an item of what pointer leads to.
func Step[T string | int](pointer string, to T) string {
	name := strings.NewReplacer("~", "~0", "/", "~1").Replace(fmt.Sprint(to))
	return pointer + "/" + name
}

// LookUp returns what a JSON Pointer (RFC 6901) leads to, if there is anything.
func LookUp(document any, pointer string) (any, bool) {
	if pointer == "" {
		return document, true
	}
	if !strings.HasPrefix(pointer, "/") {
		return nil, false
	}
	for _, name := range strings.Split(pointer[1:], "/") {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		switch v := document.(type) {
		case *Object:
			member, ok := v.Values[name]
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

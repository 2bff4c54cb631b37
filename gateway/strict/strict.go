// Package strict reads JSON requests so that nothing in them is dropped in
// silence: unknown, misspelled and repeated members, text behind the value, bytes
// that are not UTF-8, numbers that no float64 holds and excessive nesting are
// errors that say where. It imports nothing of Helicon but queue, for its Problem.
package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"helicon/queue"
)

// maxDepth bounds how deep arrays and objects may nest.
const maxDepth = 64

// ErrSlow is the problem of a body that did not arrive in time.
var ErrSlow = queue.Problemf("request_timeout", "The body did not arrive in time.")

// Read reads the JSON body of a request into the struct that into points to and
// returns the body's bytes. The errors are those of Body and Object.
func Read(r *http.Request, into any) ([]byte, error) {
	body, err := Body(r)
	if err != nil {
		return nil, err
	}
	return body, Object(body, "", into)
}

// Body reads the body of a request, which has to be one JSON value. The errors are
// *queue.Problem, and those of reading (*http.MaxBytesError among them).
func Body(r *http.Request) ([]byte, error) {
	if declared := r.Header.Get("Content-Type"); declared != "" {
		media, _, err := mime.ParseMediaType(declared)
		if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
			return nil, queue.Problemf("unsupported_media_type", "The body must be JSON: send Content-Type: application/json, not %q.", declared)
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, err
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, ErrSlow
		}
		return nil, queue.Problemf("invalid_request", "The body ended before it was complete.")
	}
	return body, Check(body)
}

// Check reports what is wrong with a JSON text as a *queue.Problem, or nil.
func Check(text []byte) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return queue.Problemf("invalid_request", "The body is empty; want a JSON object.")
	}
	if !utf8.Valid(text) {
		return queue.Problemf("invalid_request", "The body is not valid UTF-8.")
	}
	c := checker{json.NewDecoder(bytes.NewReader(text))}
	c.UseNumber()
	if err := c.value(nil, 0); err != nil {
		return c.explain(err)
	}
	if _, err := c.Token(); err != io.EOF {
		return queue.Problemf("invalid_request", "There is text behind the JSON value, at byte %d.", c.InputOffset())
	}
	return nil
}

// checker walks a JSON text token by token.
type checker struct{ *json.Decoder }

// place is a value within the text; its parents lead to the root, which is nil.
type place struct {
	parent *place
	name   string
	index  int // used where name is empty
}

// pointer returns the JSON Pointer (RFC 6901) of the place.
func (p *place) pointer() string {
	if p == nil {
		return ""
	}
	if p.name == "" {
		return p.parent.pointer() + "/" + strconv.Itoa(p.index)
	}
	return p.parent.pointer() + "/" + Escape(p.name)
}

// Escape makes a member's name one step of a JSON Pointer.
func Escape(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

func (c checker) value(at *place, depth int) error {
	token, err := c.Token()
	if err != nil {
		return err
	}
	switch t := token.(type) {
	case json.Number:
		return number(at, t)
	case json.Delim:
		if depth == maxDepth {
			return Invalid(at.pointer(), "nested deeper than %d levels", maxDepth)
		}
		if t == '{' {
			err = c.object(at, depth)
		} else {
			err = c.array(at, depth)
		}
		if err != nil {
			return err
		}
		_, err = c.Token() // the closing bracket
	}
	return err
}

func (c checker) object(at *place, depth int) error {
	seen := map[string]bool{}
	for c.More() {
		token, err := c.Token()
		if err != nil {
			return err
		}
		name := token.(string) // the decoder has checked that it is one
		member := &place{parent: at, name: name}
		if seen[name] {
			return Invalid(member.pointer(), "the member appears twice")
		}
		seen[name] = true
		if err := c.value(member, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c checker) array(at *place, depth int) error {
	for i := 0; c.More(); i++ {
		if err := c.value(&place{parent: at, index: i}, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// number refuses what costs exact arithmetic dearly (1e-999999) or overflows.
func number(at *place, n json.Number) error {
	f, err := n.Float64()
	if err != nil || math.IsInf(f, 0) || len(n) > 400 || tiny(string(n)) {
		return Invalid(at.pointer(), "the number is out of range")
	}
	return nil
}

// tiny reports whether the number's exponent is below those of float64.
func tiny(n string) bool {
	i := strings.IndexAny(n, "eE")
	if i < 0 {
		return false
	}
	e, err := strconv.Atoi(n[i+1:])
	return err != nil || e < -400
}

// explain turns an error of the decoder into a problem.
func (c checker) explain(err error) error {
	var problem *queue.Problem
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &syntax):
		return queue.Problemf("invalid_request", "The body is not JSON: %v, at byte %d.", syntax, syntax.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return queue.Problemf("invalid_request", "The body is not JSON: it ends within a value.")
	}
	return queue.Problemf("invalid_request", "The body is not JSON: %v, at byte %d.", err, c.InputOffset())
}

// Object decodes a JSON object that Check has passed, and that lies at the given
// pointer of the request, into the struct that into points to. Members that the
// struct does not name, letter for letter, are errors; those that are null leave it
// as it is.
func Object(text []byte, pointer string, into any) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return Invalid(pointer, "want an object")
	}
	fields := map[string]reflect.Value{}
	collect(reflect.ValueOf(into).Elem(), fields)
	var unknown []queue.FieldError
	for _, name := range slices.Sorted(maps.Keys(members)) {
		at := pointer + "/" + Escape(name)
		field, ok := fields[name]
		if !ok {
			known := slices.Sorted(maps.Keys(fields))
			unknown = append(unknown, queue.FieldError{Pointer: at, Detail: "unknown member; the known ones are " + strings.Join(known, ", ")})
			continue
		}
		if err := member(members[name], at, field); err != nil {
			return err
		}
	}
	if unknown != nil {
		return &queue.Problem{Code: "invalid_request", Detail: "The request has unknown members.", Errors: unknown}
	}
	return nil
}

// member decodes one member into its field.
func member(text json.RawMessage, at string, field reflect.Value) error {
	t := field.Type()
	if t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct && t != timeType && string(text) != "null" {
		field.Set(reflect.New(t.Elem()))
		return Object(text, at, field.Interface())
	}
	if err := json.Unmarshal(text, field.Addr().Interface()); err != nil {
		return Invalid(at, "want %s", kind(t))
	}
	return nil
}

var timeType = reflect.TypeFor[*time.Time]()

// Invalid is the problem of one value of a request.
func Invalid(pointer, format string, args ...any) *queue.Problem {
	detail := fmt.Sprintf(format, args...)
	where := "The request"
	if pointer != "" {
		where = pointer
	}
	return &queue.Problem{
		Code:   "invalid_request",
		Detail: fmt.Sprintf("%s: %s.", where, detail),
		Errors: []queue.FieldError{{Pointer: pointer, Detail: detail}},
	}
}

// collect finds the fields of a struct that have a member's name, by that name, those of
// embedded structs included.
func collect(v reflect.Value, fields map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			collect(v.Field(i), fields)
			continue
		}
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && f.IsExported() {
			fields[name] = v.Field(i)
		}
	}
}

// kind says in words what a Go type decodes from.
func kind(t reflect.Type) string {
	if t == timeType {
		return "a time such as 2030-01-31T12:00:00Z"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return kind(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Uint, reflect.Uint64:
		return "an integer of at least 0"
	case reflect.Int, reflect.Int64:
		return "an integer"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return "an array of strings"
		}
		return "an array"
	case reflect.Map:
		return "an object of strings"
	}
	return "another type"
}

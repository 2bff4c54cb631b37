package gateway

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"helicon/gateway/strict"
	"helicon/queue"
)

// task is a task with its schema ready for use.
type task struct {
	queue.Task
	schema *jsonschema.Schema
	err    error // why the schema cannot be used
}

// compile prepares the schema of a task. A schema that refers to other documents is
// refused: nothing is fetched.
func compile(t queue.Task) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(t.Schema))
	if err != nil {
		return nil, fmt.Errorf("gateway: schema of %s: %w", t.Name, err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(jsonschema.SchemeURLLoader{})
	name := "task:" + t.Name
	if err := c.AddResource(name, doc); err != nil {
		return nil, fmt.Errorf("gateway: schema of %s: %w", t.Name, err)
	}
	schema, err := c.Compile(name)
	if err != nil {
		return nil, fmt.Errorf("gateway: schema of %s: %w", t.Name, err)
	}
	return schema, nil
}

// maxFieldErrors bounds how many faults of one input are told at once.
const maxFieldErrors = 20

// validate checks an input, which strict.Check has passed, against the task's
// schema. The error is a *queue.Problem that says what is wrong with which value.
func (t *task) validate(input json.RawMessage) error {
	if t.err != nil {
		return t.err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(input))
	if err != nil {
		return strict.Invalid("/input", "%v", err)
	}
	err = t.schema.Validate(value)
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return err
	}
	faults := t.leaves(invalid, nil)
	slices.SortStableFunc(faults, func(a, b queue.FieldError) int { return strings.Compare(a.Pointer, b.Pointer) })
	faults = slices.Compact(faults)
	problem := &queue.Problem{Code: "invalid_input", Errors: faults[:min(len(faults), maxFieldErrors)]}
	problem.Detail = fmt.Sprintf("The input is not valid for %s: %s: %s.", t.Name, faults[0].Pointer, faults[0].Detail)
	if more := len(faults) - 1; more > 0 {
		problem.Detail += fmt.Sprintf(" And %d more.", more)
	}
	return problem
}

// leaves collects the faults at the ends of a tree of them.
func (t *task) leaves(e *jsonschema.ValidationError, faults []queue.FieldError) []queue.FieldError {
	if len(e.Causes) > 0 {
		for _, cause := range e.Causes {
			faults = t.leaves(cause, faults)
		}
		return faults
	}
	pointer := "/input"
	for _, step := range e.InstanceLocation {
		pointer += "/" + strict.Escape(step)
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			faults = append(faults, queue.FieldError{Pointer: pointer + "/" + strict.Escape(name), Detail: "required, but missing"})
		}
		return faults
	case *kind.AdditionalProperties:
		detail := "unknown member; remove it"
		if len(e.InstanceLocation) == 0 {
			detail = "unknown member; the known ones are " + strings.Join(slices.Sorted(maps.Keys(t.schema.Properties)), ", ")
		}
		for _, name := range k.Properties {
			faults = append(faults, queue.FieldError{Pointer: pointer + "/" + strict.Escape(name), Detail: detail})
		}
		return faults
	}
	return append(faults, queue.FieldError{Pointer: pointer, Detail: words(e.ErrorKind)})
}

// words says what a value should have been.
func words(e jsonschema.ErrorKind) string {
	switch k := e.(type) {
	case *kind.Type:
		return fmt.Sprintf("want %s, got %s", article(k.Want), article([]string{k.Got}))
	case *kind.Minimum:
		return fmt.Sprintf("want at least %s, got %s", decimal(k.Want), decimal(k.Got))
	case *kind.Maximum:
		return fmt.Sprintf("want at most %s, got %s", decimal(k.Want), decimal(k.Got))
	case *kind.ExclusiveMinimum:
		return fmt.Sprintf("want more than %s, got %s", decimal(k.Want), decimal(k.Got))
	case *kind.ExclusiveMaximum:
		return fmt.Sprintf("want less than %s, got %s", decimal(k.Want), decimal(k.Got))
	case *kind.MinLength:
		return fmt.Sprintf("want %s, got %d", plural("at least", k.Want, "character"), k.Got)
	case *kind.MaxLength:
		return fmt.Sprintf("want %s, got %d", plural("at most", k.Want, "character"), k.Got)
	case *kind.MinItems:
		return fmt.Sprintf("want %s, got %d", plural("at least", k.Want, "item"), k.Got)
	case *kind.MaxItems:
		return fmt.Sprintf("want %s, got %d", plural("at most", k.Want, "item"), k.Got)
	case *kind.MultipleOf:
		return fmt.Sprintf("want a multiple of %s, got %s", decimal(k.Want), decimal(k.Got))
	case *kind.Enum:
		return "want one of " + choices(k.Want)
	case *kind.Const:
		return "want " + choices([]any{k.Want})
	}
	return e.LocalizedString(message.NewPrinter(language.English))
}

func article(types []string) string {
	named := make([]string, len(types))
	for i, t := range types {
		named[i] = cmp.Or(map[string]string{"null": "null", "integer": "an integer", "array": "an array", "object": "an object"}[t], "a "+t)
	}
	return strings.Join(named, " or ")
}

func decimal(r *big.Rat) string {
	if r.IsInt() && r.Num().BitLen() < 64 {
		return r.Num().String()
	}
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func plural(bound string, n int, thing string) string {
	if n == 1 {
		return fmt.Sprintf("%s 1 %s", bound, thing)
	}
	return fmt.Sprintf("%s %d %ss", bound, n, thing)
}

func choices(values []any) string {
	list := make([]string, len(values))
	for i, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte(fmt.Sprint(v))
		}
		list[i] = string(text)
	}
	return strings.Join(list, ", ")
}

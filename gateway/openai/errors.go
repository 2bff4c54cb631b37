package openai

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"

	"helicon/queue"
)

// ErrorBody is the body of an error answer.
type ErrorBody struct {
	Error *Error `json:"error"`
}

// Error is OpenAI's error object.
type Error struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// codes are those of our problems for which OpenAI's clients know another name.
var codes = map[string]string{
	"prompt_too_long": "context_length_exceeded",
	"key_required":    "invalid_api_key",
	"key_invalid":     "invalid_api_key",
}

// NewError tells a problem as OpenAI does.
func NewError(status int, p *queue.Problem) *Error {
	e := &Error{Message: p.Detail, Type: errorType(status), Code: cmp.Or(codes[p.Code], p.Code)}
	if len(p.Errors) > 0 && p.Errors[0].Pointer != "" {
		name := param(p.Errors[0].Pointer)
		e.Param = &name
		if p.Code == "invalid_input" || p.Code == "invalid_request" {
			e.Message = name + ": " + p.Errors[0].Detail + "."
		}
	}
	return e
}

func errorType(status int) string {
	switch {
	case status >= http.StatusInternalServerError:
		return "server_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case status == http.StatusForbidden:
		return "permission_error"
	case status == http.StatusUnauthorized:
		return "authentication_error"
	}
	return "invalid_request_error"
}

// param names a value as OpenAI does: /input/messages/0/role is messages[0].role. What is
// embedded is itself called input: /input/0 is input[0].
func param(pointer string) string {
	var name strings.Builder
	steps := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	isIndex := func(step string) bool { return strings.Trim(step, "0123456789") == "" }
	if len(steps) > 1 && steps[0] == "input" && !isIndex(steps[1]) {
		steps = steps[1:]
	}
	for i, step := range steps {
		switch {
		case isIndex(step) && i > 0:
			name.WriteString("[" + step + "]")
		case i > 0:
			name.WriteString("." + step)
		default:
			name.WriteString(step)
		}
	}
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(name.String())
}

// rename makes the errors of an input point at the request's own names for its values, or
// for what they are part of.
func rename(err error, names map[string]string) error {
	var problem *queue.Problem
	if len(names) == 0 || !errors.As(err, &problem) {
		return err
	}
	renamed := *problem
	renamed.Errors = slices.Clone(problem.Errors)
	for i, e := range renamed.Errors {
		value, within, _ := strings.Cut(strings.TrimPrefix(e.Pointer, "/input/"), "/")
		if name, ok := names[value]; ok {
			renamed.Errors[i].Pointer = "/" + name
			if within != "" {
				renamed.Errors[i].Detail = "/" + within + ": " + e.Detail
			}
		}
	}
	return &renamed
}

// sentError is an error that the client has been told already, or cannot be told.
type sentError struct{ error }

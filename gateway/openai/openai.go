// Package openai serves the routes of OpenAI's API that write and embed text and make
// pictures. Each is a translation: a request becomes jobs of text.chat, text.complete,
// text.embed, image.generate, image.edit, image.inpaint or image.variation, and their events
// and results become OpenAI's chunks, completions, embeddings and pictures, as the
// specification 2.3.0 gives them. What a route cannot honour it refuses by name.
package openai

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"helicon/queue"
)

// Backend is what the routes need of the gateway.
type Backend interface {
	// Accept validates a job and submits it. body is the request's, slot tells apart
	// the jobs that one request makes.
	Accept(r *http.Request, body []byte, slot int, job *queue.Job) (*queue.Job, error)
	// Hold prepares a request to be answered slowly; end must be called.
	Hold(w http.ResponseWriter, r *http.Request) (ctx context.Context, end func(), err error)
	// Watch yields a job's events from the first to the terminal one.
	Watch(ctx context.Context, id string) iter.Seq2[*queue.Event, error]
	// Cancel ends a job.
	Cancel(ctx context.Context, id string) error
	// Digest returns the digest of a model, or "" if it is not known.
	Digest(ctx context.Context, model string) string
	// Store keeps a file that is part of a request. declared is the media type that the
	// client gives it, or "".
	Store(ctx context.Context, file io.Reader, declared, name string) (queue.Artifact, error)
	// Artifact opens a stored file.
	Artifact(ctx context.Context, digest string) (queue.Artifact, io.ReadSeekCloser, error)
	// Explain returns the status and the problem that an error means to a client.
	Explain(err error) (status int, problem *queue.Problem)
	// Sender returns a function that sends to the client at once.
	Sender(w http.ResponseWriter) func([]byte) error
	// Heartbeat is the pause after which a silent stream is pinged.
	Heartbeat() time.Duration
}

// API is the OpenAI-compatible routes over a Backend.
type API struct{ backend Backend }

// New returns the routes.
func New(b Backend) *API { return &API{b} }

const (
	chatPath       = "/v1/chat/completions"
	completionPath = "/v1/completions"
	embeddingPath  = "/v1/embeddings"
)

// Owns reports whether a path is one of this package's routes.
func Owns(path string) bool {
	return path == chatPath || path == completionPath || path == embeddingPath || path == generationPath || Uploads(path)
}

// Uploads reports whether a path is a route whose requests carry files.
func Uploads(path string) bool { return path == editPath || path == variationPath }

// Routes returns the handlers of the POST routes by path. A handler returns the error
// to answer with, if it has not begun to answer.
func (a *API) Routes() map[string]func(http.ResponseWriter, *http.Request) error {
	return map[string]func(http.ResponseWriter, *http.Request) error{
		chatPath:       a.chat,
		completionPath: a.complete,
		embeddingPath:  a.embed,
		generationPath: a.generatePictures,
		editPath:       a.editPicture,
		variationPath:  a.varyPicture,
	}
}

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
var codes = map[string]string{"prompt_too_long": "context_length_exceeded"}

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

// rename makes the errors of an input point at the request's own names for its values.
func rename(err error, names map[string]string) error {
	var problem *queue.Problem
	if len(names) == 0 || !errors.As(err, &problem) {
		return err
	}
	renamed := *problem
	renamed.Errors = slices.Clone(problem.Errors)
	for i, e := range renamed.Errors {
		if name, ok := names[strings.TrimPrefix(e.Pointer, "/input/")]; ok {
			renamed.Errors[i].Pointer = "/" + name
		}
	}
	return &renamed
}

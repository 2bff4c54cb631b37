// Package openai serves OpenAI's API: its routes that write and embed text, hold conversations
// and make pictures. A route is a translation in two halves (route.go): a request becomes jobs
// of text.chat, text.complete, text.embed, image.generate, image.edit, image.inpaint or
// image.variation, and their events and results become OpenAI's chunks, completions, responses,
// embeddings and pictures, as the specification 2.3.0 gives them. What a route cannot honour it
// refuses by name.
package openai

import (
	"context"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"helicon/queue"
)

// Backend is what the routes need of the gateway. Where a context is that of a request, it says
// who calls: jobs of others are not found.
type Backend interface {
	// Accept validates a job and submits it. body tells the request from others when it
	// is sent again, slot tells apart the jobs that one request makes.
	Accept(r *http.Request, body []byte, slot int, job *queue.Job) (*queue.Job, error)
	// Hold prepares a request to be answered slowly; end must be called.
	Hold(w http.ResponseWriter, r *http.Request) (ctx context.Context, end func(), err error)
	// Watch yields a job's events from the first to the terminal one.
	Watch(ctx context.Context, id string) iter.Seq2[*queue.Event, error]
	// Job returns a job of the caller; queue.ErrNotFound if he has none of that id.
	Job(ctx context.Context, id string) (*queue.Job, error)
	// Cancel ends a job of the caller and returns it; queue.ErrFinished if it had ended.
	Cancel(ctx context.Context, id string) (*queue.Job, error)
	// Delete removes a job of the caller that has ended.
	Delete(ctx context.Context, id string) error
	// Digest returns the digest of a model, or "" if it is not known.
	Digest(ctx context.Context, model string) string
	// Store keeps a file that is part of a request. declared is the media type that the
	// client gives it, or "".
	Store(ctx context.Context, file io.Reader, declared, name string) (queue.Artifact, error)
	// Artifact opens a stored file of a tenant.
	Artifact(ctx context.Context, tenant, digest string) (queue.Artifact, io.ReadSeekCloser, error)
	// KeepFile stores a file of up to limit bytes and returns it without an id.
	KeepFile(ctx context.Context, file io.Reader, limit int64, declared, name string) (*queue.File, error)
	// File returns a file of the caller; queue.ErrNoRecord if he has none of that id.
	File(ctx context.Context, id string) (*queue.File, error)
	// Files returns the records of files and the tenant who calls.
	Files(ctx context.Context) (files *queue.Records, tenant string)
	// SendFile answers with the bytes of a file, or the part that the client asks for.
	SendFile(w http.ResponseWriter, r *http.Request, f *queue.File) error
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

// Paths of routes that make jobs.
const (
	chatPath       = "/v1/chat/completions"
	completionPath = "/v1/completions"
	responsePath   = "/v1/responses"
	embeddingPath  = "/v1/embeddings"
	generationPath = "/v1/images/generations"
	editPath       = "/v1/images/edits"
	variationPath  = "/v1/images/variations"
)

// routes are the routes that make jobs. A new one is an entry here and a file.
func (a *API) routes() []route {
	return []route{
		{path: chatPath, read: readChat},
		{path: completionPath, read: readCompletion},
		{path: responsePath, read: a.readResponse},
		{path: embeddingPath, read: readEmbedding},
		{path: generationPath, read: readGeneration},
		{path: editPath, form: a.readPictures},
		{path: variationPath, form: a.readPictures},
	}
}

// Handler is a route as the gateway serves it.
type Handler struct {
	Method string
	Path   string // with a parameter as :id, which Serve finds by Request.PathValue("id")
	Files  int    // how many files of the upload limit's size a request may carry
	Body   int64  // bytes that a request may have beyond what a JSON body may
	// Serve answers a request, or returns the error to answer with if it has not begun to.
	Serve func(http.ResponseWriter, *http.Request) error
}

// Handlers returns all routes.
func (a *API) Handlers() []Handler {
	var all []Handler
	for _, r := range a.routes() {
		e := Handler{Method: http.MethodPost, Path: r.path, Serve: func(w http.ResponseWriter, request *http.Request) error {
			return a.serve(w, request, &r)
		}}
		if r.form != nil {
			e.Files = maxFiles
		}
		all = append(all, e)
	}
	return slices.Concat(all, a.responseHandlers(), a.fileHandlers(), []Handler{
		{Method: http.MethodPost, Path: "/v1/moderations", Serve: moderate},
	})
}

// Owns reports whether errors of a path are told as OpenAI tells them.
func Owns(path string) bool {
	return slices.ContainsFunc([]string{
		"/v1/chat/", completionPath, responsePath, embeddingPath, "/v1/images/", "/v1/moderations", "/v1/files",
	}, func(begin string) bool { return strings.HasPrefix(path, begin) })
}

// moderate answers POST /v1/moderations: there is nothing that could judge a text, and an
// answer that calls everything harmless would be worse than none.
func moderate(http.ResponseWriter, *http.Request) error {
	return queue.Problemf("not_implemented", "Texts are not moderated here: there is no classifier. Leave out the call, or send it to a server that has one.")
}

package openai

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"helicon/gateway/strict"
	"helicon/queue"
)

// responseHandlers are the routes of responses that were made before.
func (a *API) responseHandlers() []Handler {
	const one = responsePath + "/:id"
	return []Handler{
		{Method: http.MethodGet, Path: one, Serve: a.showResponse},
		{Method: http.MethodDelete, Path: one, Serve: a.deleteResponse},
		{Method: http.MethodPost, Path: one + "/cancel", Serve: a.cancelResponse},
	}
}

// told turns errors about the job of a response into such about the response.
func told(err error, id string) error {
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return queue.Problemf("not_found", "There is no response %q.", id)
	case errors.Is(err, queue.ErrNotFinished):
		return queue.Problemf("job_not_finished", "The response is still being made. Cancel it first or wait for its end.")
	}
	return err
}

// showResponse answers GET /v1/responses/{id}, as a stream if the query asks for one.
func (a *API) showResponse(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	job, _, err := a.response(r.Context(), id)
	if err != nil {
		return told(err, id)
	}
	q, err := readQuery(r, "stream", "starting_after", "include", "include[]", "include_obfuscation")
	if err != nil {
		return err
	}
	streamed, err := wantsStream(r, q)
	if err != nil {
		return err
	}
	if !streamed {
		return a.tellResponse(w, job)
	}
	after := -1
	if text := q.Get("starting_after"); text != "" {
		if after, err = strconv.Atoi(text); err != nil || after < 0 {
			return queue.Problemf("invalid_request", "starting_after=%.64q is no number of an event.", text)
		}
	}
	ctx, end, err := a.backend.Hold(w, r)
	if err != nil {
		return err
	}
	defer end()
	out := &events{client: &client{header: w.Header(), send: a.backend.Sender(w), began: time.Now()}}
	d := &delivery{api: a, jobs: []*queue.Job{job}}
	x := &Exchange{background: true}
	return a.conclude(ctx, r, x, d.jobs, a.play(ctx, d, &responseFlow{job: job, out: out, after: after}, out, x))
}

// wantsStream reports whether a response is to be streamed again. The query says so, or a body:
// OpenAI's SDK for Go sends one with its GET.
func wantsStream(r *http.Request, q url.Values) (bool, error) {
	var body struct {
		Stream bool `json:"stream"`
	}
	if r.ContentLength != 0 {
		if _, err := strict.Read(r, &body); err != nil {
			return false, err
		}
	}
	switch text := q.Get("stream"); text {
	case "":
		return body.Stream, nil
	case "true", "false":
		return text == "true", nil
	default:
		return false, queue.Problemf("invalid_request", "stream=%.64q: want true or false.", text)
	}
}

// tellResponse answers with the response of a job, and when to ask again if it is not done.
func (a *API) tellResponse(w http.ResponseWriter, job *queue.Job) error {
	answer, err := newResponse(job)
	if err != nil {
		return err
	}
	if !job.State.Terminal() {
		w.Header().Set("Openai-Poll-After-Ms", strconv.FormatInt(pollAfter.Milliseconds(), 10))
	}
	w.Header().Set("X-Helicon-Job", job.ID)
	return a.tell(w, answer)
}

// tell answers with a value.
func (a *API) tell(w http.ResponseWriter, value any) error {
	err := writeJSON(&client{header: w.Header(), send: a.backend.Sender(w), began: time.Now()}, value)
	var sent *sentError
	if errors.As(err, &sent) {
		return nil // a client that does not take its answer cannot be told
	}
	return err
}

// deleteResponse answers DELETE /v1/responses/{id}: the job goes with it.
func (a *API) deleteResponse(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	job, _, err := a.response(r.Context(), id)
	if err == nil {
		err = a.backend.Delete(r.Context(), job.ID)
	}
	if err != nil {
		return told(err, id)
	}
	return a.tell(w, map[string]any{"id": id, "object": "response", "deleted": true})
}

// cancelResponse answers POST /v1/responses/{id}/cancel. A response that has ended is
// answered as it is.
func (a *API) cancelResponse(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	job, _, err := a.response(r.Context(), id)
	if err != nil {
		return told(err, id)
	}
	canceled, err := a.backend.Cancel(r.Context(), job.ID)
	if errors.Is(err, queue.ErrFinished) {
		canceled, err = a.backend.Job(r.Context(), job.ID)
	}
	if err != nil {
		return told(err, id)
	}
	return a.tellResponse(w, canceled)
}

// readQuery refuses parameters that a route does not know.
func readQuery(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, queue.Problemf("invalid_request", "The query cannot be read.")
	}
	for name := range q {
		if !slices.Contains(known, name) {
			return nil, queue.Problemf("invalid_request", "The query parameter %.64q is unknown; the known ones are %s.", name, strings.Join(known, ", "))
		}
	}
	return q, nil
}

package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"helicon/gateway/strict"
	"helicon/queue"
)

// route is a POST route that makes jobs, as its two halves: read turns the body of a request
// into an Exchange, which holds the jobs and knows what answer is made of them.
type route struct {
	path string
	// read reads a body that is JSON and has passed strict.Check.
	read func(ctx context.Context, body []byte) (*Exchange, error)
	// form, if set, reads a request whose body is a form, and stores its files.
	form func(r *http.Request) (*Exchange, error)
}

// Exchange is a request that has been read: the jobs that it asks for, not submitted yet, and
// how what they make is told. A route and a row of a batch are the same exchange.
type Exchange struct {
	Jobs []*queue.Job // at least one

	// whole writes the body of the answer when the jobs have ended.
	whole func(ctx context.Context, d *delivery, w io.Writer) error
	// stream returns what writes a streamed answer to out; nil if none is asked for.
	stream func(ctx context.Context, d *delivery, out *events) flow

	names      map[string]string // the request's own names for values of the jobs' inputs
	print      []byte            // JSON that tells the request from others, when it is sent again
	background bool              // the jobs go on without the client
}

// delivery is what an answer is made from.
type delivery struct {
	api    *API
	origin string       // what URLs begin with: the address under which the client knows the gateway
	batch  bool         // the answer is a line of a file
	jobs   []*queue.Job // as accepted, or as ended
}

// flow turns events of jobs into events for a client.
type flow interface {
	// open writes what the stream begins with.
	open() error
	// take writes what an event of the job of the given number adds.
	take(ctx context.Context, job int, e *queue.Event) error
	// close ends the stream of jobs that have all succeeded.
	close() error
	// fail ends a stream that was begun with an error.
	fail(*Error) error
}

// Endpoints lists the routes whose requests a batch can take.
func Endpoints() []string {
	var paths []string
	for _, to := range new(API).routes() {
		if to.read != nil {
			paths = append(paths, to.path)
		}
	}
	slices.Sort(paths)
	return paths
}

// Translate reads the body of a request to the route of a path, as the route itself would.
// origin is what URLs in the answer begin with.
func (a *API) Translate(ctx context.Context, path, origin string, body []byte) (*Exchange, error) {
	for _, to := range a.routes() {
		if to.path != path || to.read == nil {
			continue
		}
		if err := strict.Check(body); err != nil {
			return nil, err
		}
		x, err := to.read(ctx, body)
		if err != nil {
			return nil, err
		}
		if x.stream != nil {
			return nil, strict.Invalid("/stream", "the rows of a batch are not streamed")
		}
		whole := x.whole
		x.whole = func(ctx context.Context, d *delivery, w io.Writer) error {
			d.api, d.origin, d.batch = a, origin, true
			return whole(ctx, d, w)
		}
		return x, nil
	}
	return nil, strict.Invalid("/url", "want one of %s", strings.Join(Endpoints(), ", "))
}

// Body returns the JSON text of the answer to a translated request whose jobs have ended, in
// their order; the problem of the first that has not succeeded.
func (x *Exchange) Body(ctx context.Context, ended []*queue.Job) ([]byte, error) {
	for _, job := range ended {
		if err := outcome(job); err != nil {
			return nil, x.Rename(err)
		}
	}
	var out bytes.Buffer
	if err := x.whole(ctx, &delivery{jobs: ended}, &out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Rename makes the errors of a job's input point at the request's own names for its values.
func (x *Exchange) Rename(err error) error { return rename(err, x.names) }

// serve answers a request to a route.
func (a *API) serve(w http.ResponseWriter, r *http.Request, to *route) error {
	began := time.Now()
	x, err := to.exchange(r)
	if err != nil {
		return err
	}
	ctx, end, err := a.backend.Hold(w, r)
	if err != nil {
		return err
	}
	defer end()
	jobs, err := a.submit(r, x)
	if err != nil {
		a.abandon(r, jobs)
		return x.Rename(err)
	}
	ids := make([]string, len(jobs))
	for i, job := range jobs {
		ids[i] = job.ID
	}
	w.Header().Set("X-Helicon-Job", strings.Join(ids, ","))
	d := &delivery{api: a, origin: origin(r), jobs: jobs}
	out := &client{header: w.Header(), send: a.backend.Sender(w), began: began}
	return x.Rename(a.conclude(ctx, r, x, jobs, a.deliver(ctx, d, x, out)))
}

// exchange reads a request.
func (to *route) exchange(r *http.Request) (*Exchange, error) {
	if to.form != nil && (to.read == nil || strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/")) {
		return to.form(r)
	}
	body, err := strict.Body(r)
	if err != nil {
		return nil, err
	}
	x, err := to.read(r.Context(), body)
	if err != nil {
		return nil, err
	}
	x.print = body
	return x, nil
}

// deliver answers with what the jobs make.
func (a *API) deliver(ctx context.Context, d *delivery, x *Exchange, out *client) error {
	if x.stream != nil {
		stream := &events{client: out}
		return a.play(ctx, d, x.stream(ctx, d, stream), stream, x)
	}
	if !x.background {
		for i, job := range d.jobs {
			ended, err := a.await(ctx, job.ID)
			if err != nil {
				return err
			}
			d.jobs[i] = ended
		}
	}
	return x.whole(ctx, d, out)
}

// client is where an answer goes. An error of it is a *sentError.
type client struct {
	header http.Header
	send   func([]byte) error
	began  time.Time // when the request was read
	open   bool      // something was sent
}

// Write implements io.Writer. The media type is JSON unless another is set.
func (c *client) Write(b []byte) (int, error) {
	if !c.open {
		c.open = true
		if c.header.Get("Content-Type") == "" {
			c.header.Set("Content-Type", "application/json")
		}
		c.header.Set("Openai-Processing-Ms", strconv.FormatInt(time.Since(c.began).Milliseconds(), 10))
	}
	if err := c.send(b); err != nil {
		return 0, &sentError{err}
	}
	return len(b), nil
}

// conclude ends a request whose jobs were answered for, or could not be: it returns the
// error that is left to answer with.
func (a *API) conclude(ctx context.Context, r *http.Request, x *Exchange, jobs []*queue.Job, err error) error {
	if err == nil {
		return nil
	}
	// When the gateway stops the jobs go on: a client that asks again is given them.
	// Otherwise only one with a key can ask for the same jobs again.
	stopping := ctx.Err() != nil && r.Context().Err() == nil
	if !stopping && !x.background && r.Header.Get("Idempotency-Key") == "" {
		a.abandon(r, jobs)
	}
	var sent *sentError
	switch {
	case errors.As(err, &sent):
		return nil
	case stopping:
		return context.Cause(ctx)
	}
	return err
}

// submit makes the exchange's jobs. On an error it returns those that were accepted.
func (a *API) submit(r *http.Request, x *Exchange) ([]*queue.Job, error) {
	var jobs []*queue.Job
	for slot, job := range x.Jobs {
		accepted, err := a.backend.Accept(r, x.print, slot, job)
		if err != nil {
			return jobs, err
		}
		jobs = append(jobs, accepted)
	}
	return jobs, nil
}

// cancelPatience is how long abandoned jobs are tried to be canceled.
const cancelPatience = 5 * time.Second

// abandon cancels jobs that nobody waits for any more, as far as they have not ended.
func (a *API) abandon(r *http.Request, jobs []*queue.Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), cancelPatience)
	defer cancel()
	for _, job := range jobs {
		// A job that cannot be canceled runs to its end, which does no harm.
		_, _ = a.backend.Cancel(ctx, job.ID)
	}
}

// await returns a job when it has succeeded, else its problem.
func (a *API) await(ctx context.Context, id string) (*queue.Job, error) {
	for e, err := range a.backend.Watch(ctx, id) {
		if err != nil {
			return nil, err
		}
		if e.Terminal() {
			return e.Job, outcome(e.Job)
		}
	}
	return nil, fmt.Errorf("openai: job %s: its events ended before it did", id)
}

// outcome returns the problem of a job that has not succeeded.
func outcome(job *queue.Job) error {
	switch {
	case job.State == queue.Succeeded && job.Result == nil:
		return fmt.Errorf("openai: job %s: succeeded without a result", job.ID)
	case job.State == queue.Succeeded:
		return nil
	case job.State == queue.Canceled:
		return queue.Problemf("canceled", "The job %s was canceled.", job.ID)
	case job.Problem == nil:
		return fmt.Errorf("openai: job %s: %s without a problem", job.ID, job.State)
	}
	return job.Problem
}

// origin is the address under which the client has reached the gateway.
func origin(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// writeJSON writes an answer that is one value.
func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("openai: answer: %w", err)
	}
	return nil
}

package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"helicon/gateway/strict"
	"helicon/queue"
)

// chat answers POST /v1/chat/completions.
func (a *API) chat(w http.ResponseWriter, r *http.Request) error {
	return a.answer(w, r, new(chatRequest))
}

// complete answers POST /v1/completions.
func (a *API) complete(w http.ResponseWriter, r *http.Request) error {
	return a.answer(w, r, new(completionRequest))
}

// answer reads a request of either route and serves what it calls for.
func (a *API) answer(w http.ResponseWriter, r *http.Request, request interface{ call() (*call, error) }) error {
	body, err := strict.Read(r, request)
	if err != nil {
		return err
	}
	c, err := request.call()
	if err != nil {
		return err
	}
	c.body = body
	return a.serve(w, r, c)
}

// serve submits the call's jobs and answers with what they write.
func (a *API) serve(w http.ResponseWriter, r *http.Request, c *call) error {
	ctx, end, err := a.backend.Hold(w, r)
	if err != nil {
		return err
	}
	defer end()
	jobs, err := a.submit(r, c)
	if err != nil {
		a.abandon(r, jobs)
		return rename(err, c.names)
	}
	ids := make([]string, len(jobs))
	for i, job := range jobs {
		ids[i] = job.ID
	}
	w.Header().Set("X-Helicon-Job", strings.Join(ids, ","))
	if c.stream {
		err = a.stream(ctx, w, c, jobs)
	} else {
		err = a.whole(ctx, w, c, jobs)
	}
	return a.conclude(ctx, r, jobs, err)
}

// conclude ends a request whose jobs were answered for, or could not be: it returns the
// error that is left to answer with.
func (a *API) conclude(ctx context.Context, r *http.Request, jobs []*queue.Job, err error) error {
	if err == nil {
		return nil
	}
	// When the gateway stops the jobs go on: a client that asks again is given them.
	// Otherwise only one with a key can ask for the same jobs again.
	stopping := ctx.Err() != nil && r.Context().Err() == nil
	if !stopping && r.Header.Get("Idempotency-Key") == "" {
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

// sentError is an error that the client has been told already, or cannot be told.
type sentError struct{ error }

// submit makes the call's jobs. On an error it returns those that were accepted.
func (a *API) submit(r *http.Request, c *call) ([]*queue.Job, error) {
	var jobs []*queue.Job
	for slot, in := range c.inputs {
		text, err := json.Marshal(in)
		if err != nil {
			return jobs, fmt.Errorf("openai: input: %w", err)
		}
		job, err := a.backend.Accept(r, c.body, slot, &queue.Job{Task: c.task, Model: c.model, Input: text, Seed: c.seed})
		if err != nil {
			return jobs, err
		}
		jobs = append(jobs, job)
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
		_ = a.backend.Cancel(ctx, job.ID)
	}
}

// whole answers when all jobs have ended.
func (a *API) whole(ctx context.Context, w http.ResponseWriter, c *call, jobs []*queue.Job) error {
	answer := a.header(ctx, c, jobs)
	answer.Object = c.dialect.whole
	var total usage
	for i, job := range jobs {
		ended, err := a.await(ctx, job.ID)
		if err != nil {
			return err
		}
		answers, err := choices(ended, c.n)
		if err != nil {
			return err
		}
		for _, one := range answers {
			answer.Choices = append(answer.Choices, c.dialect.choice(i*c.n+one.Index, one, c.logprobs))
		}
		total.add(ended.Result.Usage)
	}
	answer.Usage = total
	w.Header().Set("Content-Type", "application/json")
	text, err := encode(answer)
	if err != nil {
		return err
	}
	if err := a.backend.Sender(w)(text); err != nil {
		return &sentError{err}
	}
	return nil
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
	case job.State == queue.Succeeded:
		return nil
	case job.State == queue.Canceled:
		return queue.Problemf("canceled", "The job %s was canceled.", job.ID)
	case job.Problem == nil:
		return fmt.Errorf("openai: job %s: %s without a problem", job.ID, job.State)
	}
	return job.Problem
}

// header is the part that an answer and its chunks have in common.
func (a *API) header(ctx context.Context, c *call, jobs []*queue.Job) completion {
	return completion{
		ID:                c.dialect.prefix + jobs[0].ID,
		Created:           jobs[0].Created.Unix(),
		Model:             c.model,
		SystemFingerprint: systemFingerprint(a.backend.Digest(ctx, c.model)),
		Choices:           []any{},
	}
}

func encode(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("openai: answer: %w", err)
	}
	return out.Bytes(), nil
}

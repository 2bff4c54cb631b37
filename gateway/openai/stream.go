package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"helicon/queue"
)

// stream answers with chunks while the jobs write.
func (a *API) stream(ctx context.Context, w http.ResponseWriter, c *call, jobs []*queue.Job) error {
	s := &stream{
		call: c, header: a.header(ctx, c, jobs), answer: w.Header(), send: a.backend.Sender(w),
		sent: make([]position, len(jobs)*c.n),
	}
	s.header.Object = c.dialect.chunk
	if c.usage {
		s.header.Usage = json.RawMessage("null")
	}
	happenings, stop := a.follow(ctx, jobs)
	defer stop()
	heartbeat := time.NewTicker(a.backend.Heartbeat())
	defer heartbeat.Stop()
	for left := len(jobs); left > 0; {
		var err error
		select {
		case h := <-happenings:
			if err = h.err; err == nil {
				err = s.take(h.job, h.event)
			}
			if err == nil && h.event.Terminal() {
				left--
			}
			heartbeat.Reset(a.backend.Heartbeat())
		case <-heartbeat.C:
			err = s.ping()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return s.fail(a, err)
		}
	}
	return s.close()
}

// happening is an event of one of several jobs, or the error that ended its events.
type happening struct {
	job   int
	event *queue.Event
	err   error
}

// follow watches all jobs at once. stop must be called and waits for the watchers.
func (a *API) follow(ctx context.Context, jobs []*queue.Job) (<-chan happening, func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan happening)
	var watchers sync.WaitGroup
	for i, job := range jobs {
		watchers.Go(func() {
			for e, err := range a.backend.Watch(ctx, job.ID) {
				select {
				case out <- happening{i, e, err}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return out, func() {
		cancel()
		watchers.Wait()
	}
}

// position is how far the text of one answer has been sent.
type position struct{ bytes, characters int }

// stream is the state of one streamed answer.
type stream struct {
	call   *call
	header completion
	answer http.Header
	send   func([]byte) error
	open   bool
	sent   []position // by choice
	usage  usage
}

// take passes on what an event of a job adds.
func (s *stream) take(job int, e *queue.Event) error {
	switch {
	case e.Type == queue.EventToken && e.Delta != nil:
		if e.Delta.Choice < 0 || e.Delta.Choice >= s.call.n {
			return fmt.Errorf("openai: job %s: answer %d of %d", e.JobID, e.Delta.Choice, s.call.n)
		}
		return s.text(job*s.call.n+e.Delta.Choice, e.Delta)
	case e.Terminal():
		if err := outcome(e.Job); err != nil {
			return err
		}
		return s.finish(job, e.Job)
	}
	return nil
}

// text sends what a delta adds to a choice. A job that runs again writes the same
// text again, from its beginning: of that only what was not sent yet goes out.
func (s *stream) text(index int, d *queue.Delta) error {
	at := &s.sent[index]
	if d.Offset > at.bytes {
		return fmt.Errorf("openai: text of answer %d is missing from byte %d to %d", index, at.bytes, d.Offset)
	}
	known := at.bytes - d.Offset
	if known >= len(d.Text) {
		return nil
	}
	text := d.Text[known:]
	var logprobs []queue.TokenLogprob
	if s.call.logprobs {
		logprobs = behind(d.Logprobs, known)
	}
	if err := s.chunk(s.call.dialect.delta(index, text, logprobs, at.characters)); err != nil {
		return err
	}
	at.bytes += len(text)
	at.characters += utf8.RuneCountInString(text)
	return nil
}

// behind drops the tokens that lie within the first known bytes.
func behind(tokens []queue.TokenLogprob, known int) []queue.TokenLogprob {
	for len(tokens) > 0 && known > 0 {
		known -= len(tokens[0].Bytes)
		tokens = tokens[1:]
	}
	return tokens
}

// finish ends the answers of a job, with whatever of their text no event brought.
func (s *stream) finish(job int, ended *queue.Job) error {
	answers, err := choices(ended, s.call.n)
	if err != nil {
		return err
	}
	for _, one := range answers {
		index := job*s.call.n + one.Index
		if err := s.text(index, &queue.Delta{Text: one.Text, Logprobs: one.Logprobs}); err != nil {
			return err
		}
		if call := s.call.dialect.call; call != nil {
			for number, c := range one.ToolCalls {
				if err := s.chunk(call(index, number, c)); err != nil {
					return err
				}
			}
		}
		if err := s.chunk(s.call.dialect.finish(index, one.FinishReason)); err != nil {
			return err
		}
	}
	s.usage.add(ended.Result.Usage)
	return nil
}

// begin commits the answer to be a stream.
func (s *stream) begin() error {
	if s.open {
		return nil
	}
	s.open = true
	s.answer.Set("Content-Type", "text/event-stream")
	s.answer.Set("Cache-Control", "no-store")
	s.answer.Set("X-Accel-Buffering", "no") // for nginx
	if !s.call.dialect.opens {
		return nil
	}
	for index := range s.sent {
		if err := s.chunk(s.call.dialect.open(index)); err != nil {
			return err
		}
	}
	return nil
}

// chunk sends a chunk of one choice.
func (s *stream) chunk(choice any) error {
	if err := s.begin(); err != nil {
		return err
	}
	c := s.header
	c.Choices = []any{choice}
	return s.event(c)
}

func (s *stream) event(value any) error {
	text, err := encode(value)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "data: %s\n", text)
	return s.write(out.Bytes())
}

func (s *stream) write(b []byte) error {
	if err := s.send(b); err != nil {
		return &sentError{err}
	}
	return nil
}

// ping keeps a silent connection open.
func (s *stream) ping() error {
	if err := s.begin(); err != nil {
		return err
	}
	return s.write([]byte(": ping\n\n"))
}

// fail tells an error within the stream if it has begun; else the route answers
// with it. Either way the jobs are not done.
func (s *stream) fail(a *API, err error) error {
	var sent *sentError
	if !s.open || errors.As(err, &sent) {
		return err
	}
	status, problem := a.backend.Explain(err)
	if failed := s.event(ErrorBody{NewError(status, problem)}); failed != nil {
		return failed
	}
	return &sentError{err}
}

// close ends a stream whose jobs have all succeeded.
func (s *stream) close() error {
	if s.call.usage {
		c := s.header
		c.Usage = s.usage
		if err := s.event(c); err != nil {
			return err
		}
	}
	return s.write([]byte("data: [DONE]\n\n"))
}

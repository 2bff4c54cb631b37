package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"helicon/queue"
)

// events is a streamed answer: server-sent events (WHATWG HTML) to a client.
type events struct {
	*client
	opening func() error // writes what the stream begins with
}

// begin commits the answer to be a stream.
func (s *events) begin() error {
	if s.opening == nil {
		return nil
	}
	opening := s.opening
	s.opening = nil
	s.header.Set("Content-Type", "text/event-stream")
	s.header.Set("Cache-Control", "no-store")
	s.header.Set("X-Accel-Buffering", "no") // for nginx
	return opening()
}

// event sends an event, by a name if it has one.
func (s *events) event(name string, value any) error {
	if err := s.begin(); err != nil {
		return err
	}
	var out bytes.Buffer
	if name != "" {
		fmt.Fprintf(&out, "event: %s\n", name)
	}
	out.WriteString("data: ")
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("openai: event: %w", err)
	}
	out.WriteByte('\n')
	return s.write(out.Bytes())
}

func (s *events) write(b []byte) error {
	_, err := s.Write(b)
	return err
}

// ping keeps a silent connection open.
func (s *events) ping() error {
	if err := s.begin(); err != nil {
		return err
	}
	return s.write([]byte(": ping\n\n"))
}

// play streams what the jobs make. An error before the first event is left for the route to
// answer with; a later one is told within the stream. Either way the jobs are not done.
func (a *API) play(ctx context.Context, d *delivery, f flow, out *events, x *Exchange) error {
	out.opening = f.open
	err := a.pass(ctx, d.jobs, f, out)
	var sent *sentError
	if err == nil || out.opening != nil || errors.As(err, &sent) {
		return err
	}
	status, problem := a.backend.Explain(x.Rename(err))
	if failed := f.fail(NewError(status, problem)); failed != nil {
		return failed
	}
	return &sentError{err}
}

// pass takes the events of the jobs until all have succeeded.
func (a *API) pass(ctx context.Context, jobs []*queue.Job, f flow, out *events) error {
	happenings, stop := a.follow(ctx, jobs)
	defer stop()
	heartbeat := time.NewTicker(a.backend.Heartbeat())
	defer heartbeat.Stop()
	for left := len(jobs); left > 0; {
		var err error
		select {
		case h := <-happenings:
			if err = h.err; err == nil && h.event.Terminal() {
				err = outcome(h.event.Job)
				left--
			}
			if err == nil {
				err = f.take(ctx, h.job, h.event)
			}
			heartbeat.Reset(a.backend.Heartbeat())
		case <-heartbeat.C:
			err = out.ping()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
	return f.close()
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

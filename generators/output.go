package generators

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"helicon/queue"
)

// output gathers what a running job emits and appends it to the job's record from a
// goroutine of its own, so that a slow or absent message server delays watchers but
// not the work.
type output struct {
	queue *queue.Queue
	lease *queue.Lease
	log   *slog.Logger
	stop  context.CancelCauseFunc // ends the job when the lease turns out to be lost

	phases phases
	wake   chan struct{} // of capacity one: there is something to send
	closed chan struct{}
	once   sync.Once // closes closed
	done   chan struct{}

	mu      sync.Mutex
	pending []queue.Event
	first   time.Time // of the first Progress
	from    int       // its step
	now     queue.Progress
}

// Limits of the record of one job.
const (
	emitPause   = 30 * time.Millisecond // between two events
	emitDoubled = 512                   // events after which the pause doubles
	emitSlowest = 10                    // doublings at most

	// A token event takes in more until it has so many bytes or probabilities.
	maxDeltaText     = 64 << 10
	maxDeltaLogprobs = 512

	maxArtifact = 4 << 30 // bytes

	// awayPause is the time between attempts while the message server is away.
	awayPause = 500 * time.Millisecond
)

// newOutput starts the goroutine that emits, which ends by close. ctx must outlive
// the job: an append that is cut off leaves open whether it happened.
func newOutput(ctx context.Context, q *queue.Queue, lease *queue.Lease, log *slog.Logger, stop context.CancelCauseFunc) *output {
	o := &output{
		queue: q, lease: lease, log: log, stop: stop, phases: phases{ctx: ctx},
		wake: make(chan struct{}, 1), closed: make(chan struct{}), done: make(chan struct{}),
	}
	o.phases.enter(phasePrepare)
	go o.run(ctx)
	return o
}

// close ends the goroutine. What is pending stays so. It may be called twice.
func (o *output) close() {
	o.once.Do(func() { close(o.closed) })
	o.phases.end()
	<-o.done
}

func (o *output) run(ctx context.Context) {
	defer close(o.done)
	for sent := 0; ; {
		select {
		case <-o.wake:
		case <-o.closed:
			return
		}
		n, err := o.send(ctx)
		sent += n
		wait := pauseAfter(sent)
		switch {
		case errors.Is(err, queue.ErrUnavailable):
			wait = awayPause
			o.signal()
		case err != nil:
			o.stop(err)
			return
		}
		select {
		case <-time.After(wait):
		case <-o.closed:
			return
		}
	}
}

// pauseAfter is the time to the next event of a job that has so many: it doubles, so
// that a job of an hour has four thousand and one of a day seven and a half.
func pauseAfter(events int) time.Duration {
	return emitPause << min(events/emitDoubled, emitSlowest)
}

// flush emits what is pending, waiting for the message server until ctx ends.
func (o *output) flush(ctx context.Context) error {
	for {
		_, err := o.send(ctx)
		if !errors.Is(err, queue.ErrUnavailable) {
			return err
		}
		if !pause(ctx, awayPause) {
			return err
		}
	}
}

// send emits what is pending and returns how many events it appended. What could not
// be sent because the message server is away stays pending; another error than
// ErrUnavailable says that the job is no longer ours.
func (o *output) send(ctx context.Context) (int, error) {
	o.mu.Lock()
	events := o.pending
	o.pending = nil
	o.mu.Unlock()
	for i := range events {
		e := &events[i]
		if e.Time.IsZero() {
			e.Time = time.Now().UTC() // the same in each try, so that it is known again
		}
		err := o.lease.Emit(ctx, *e)
		switch {
		case err == nil:
		case errors.Is(err, queue.ErrCanceled), errors.Is(err, queue.ErrLeaseLost):
			return i, err
		case errors.Is(err, queue.ErrUnavailable), errors.Is(err, queue.ErrFull), ctx.Err() != nil:
			o.mu.Lock()
			o.pending = append(events[i:len(events):len(events)], o.pending...)
			o.mu.Unlock()
			return i, fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
		default:
			// The result does not depend on it: its watchers miss this much until the end.
			o.log.Error("an event could not be stored", "type", e.Type, "err", err)
		}
	}
	return len(events), nil
}

// Progress implements Output.
func (o *output) Progress(step, total int) {
	now := time.Now()
	o.phases.stepped(step, total)
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &queue.Progress{Step: step, Total: total}
	switch {
	case o.first.IsZero():
		o.first, o.from = now, step
	case step > o.from && step < total:
		p.ETA = now.Sub(o.first).Seconds() / float64(step-o.from) * float64(total-step)
	}
	o.now = *p
	if last := o.last(); last != nil && last.Artifact == nil {
		last.Progress = p
		return
	}
	o.add(queue.Event{Type: queue.EventProgress, Progress: p})
}

// Preview implements Output. Its event has the progress that it shows.
func (o *output) Preview(url string) {
	if len(url) > MaxPreview {
		o.log.Warn("a preview is too long and left out", "bytes", len(url))
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if last := o.last(); last != nil && last.Artifact == nil {
		last.Preview = url
		return
	}
	now := o.now
	o.add(queue.Event{Type: queue.EventProgress, Progress: &now, Preview: url})
}

// Delta implements Output.
func (o *output) Delta(d queue.Delta) {
	o.phases.wrote()
	o.mu.Lock()
	defer o.mu.Unlock()
	if of := o.lastOf(d.Choice); of != nil && extends(of, d) {
		of.Text += d.Text
		of.Logprobs = append(of.Logprobs, d.Logprobs...)
		return
	}
	if last := o.last(); last != nil && last.Artifact == nil && last.Delta == nil {
		last.Type, last.Delta = queue.EventToken, &d
		return
	}
	o.add(queue.Event{Type: queue.EventToken, Delta: &d})
}

// lastOf returns the last pending delta of a choice that may still grow, or nil.
func (o *output) lastOf(choice int) *queue.Delta {
	for i := len(o.pending) - 1; i >= 0 && o.pending[i].Time.IsZero(); i-- {
		if d := o.pending[i].Delta; d != nil && d.Choice == choice {
			return d
		}
	}
	return nil
}

// extends reports whether more, of the same choice, continues d and still fits into the
// same event.
func extends(d *queue.Delta, more queue.Delta) bool {
	return more.Offset == d.Offset+len(d.Text) &&
		len(d.Text)+len(more.Text) <= maxDeltaText && len(d.Logprobs)+len(more.Logprobs) <= maxDeltaLogprobs
}

// Artifact implements Output.
func (o *output) Artifact(ctx context.Context, r io.ReadSeeker, about queue.Artifact) (queue.Artifact, error) {
	for {
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return queue.Artifact{}, fmt.Errorf("generators: artifact: %w", err)
		}
		stored, err := o.queue.PutArtifact(ctx, o.lease.Job.Tenant, r, maxArtifact, about)
		if err == nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.add(queue.Event{Type: queue.EventArtifact, Artifact: &stored})
			return stored, nil
		}
		if !errors.Is(err, queue.ErrUnavailable) || !pause(ctx, awayPause) {
			return queue.Artifact{}, err
		}
	}
}

// last returns the last pending event if it may still grow, or nil. One that has a
// time was tried already: it may be stored although the answer was lost.
func (o *output) last() *queue.Event {
	if len(o.pending) == 0 || !o.pending[len(o.pending)-1].Time.IsZero() {
		return nil
	}
	return &o.pending[len(o.pending)-1]
}

func (o *output) add(e queue.Event) {
	o.pending = append(o.pending, e)
	o.signal()
}

func (o *output) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// pause waits, and reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

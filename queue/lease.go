package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Lease is one worker's right to run one job. It lasts while its heartbeats arrive;
// every event it appends is fenced, so a lease that was lost cannot write.
//
// The order of calls is Hold, Start, any number of Emit, and one of Succeed, Fail,
// Retry and Release. All but Emit try again, while the message server cannot be
// reached, until their ctx ends.
type Lease struct {
	Job   *Job   // as the last event left it
	Needs []*Job // the succeeded jobs that Job.Needs names, in that order

	q      *Queue
	msg    jetstream.Msg
	worker string
	held   *sync.Map // the source's ids of held leases

	mu       sync.Mutex // orders appends
	last     uint64     // sequence of the job's last event
	snapshot uint64     // sequence of its last event that carries the job
	tried    *Event     // the last event written, whether that succeeded or not
	started  bool
}

// Hold keeps the lease alive by heartbeats until release is called. The context it
// returns ends with the cause ErrCanceled when the job is canceled, ErrLeaseLost
// when another worker has it, and a *Problem when the job's deadline passes.
func (l *Lease) Hold(ctx context.Context) (held context.Context, release func(), err error) {
	held, cancel := context.WithCancelCause(ctx)
	id := l.Job.ID
	sub, err := l.q.nc.Subscribe(cancelSubject(id), func(*nats.Msg) { cancel(ErrCanceled) })
	if err != nil {
		cancel(err)
		return nil, nil, fmt.Errorf("queue: hold: %w", l.q.explain(err))
	}
	stopDeadline := func() bool { return true }
	if l.Job.Deadline != nil {
		t := time.AfterFunc(time.Until(*l.Job.Deadline), func() { cancel(deadlineProblem) })
		stopDeadline = t.Stop
	}
	done := make(chan struct{})
	l.held.Store(id, nil)
	go func() {
		defer close(done)
		l.heartbeat(held, cancel)
		l.held.Delete(id)
	}()
	return held, func() {
		stopDeadline()
		sub.Unsubscribe()
		cancel(context.Canceled)
		<-done
	}, nil
}

func cancelSubject(id string) string { return "cancel." + id }

// heartbeat extends the lease three times within its length, and looks whether the
// job has been canceled or taken over, should the signal have been missed.
func (l *Lease) heartbeat(ctx context.Context, cancel context.CancelCauseFunc) {
	beat := time.NewTicker(l.q.opts.AckWait / 3)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		}
		if err := l.check(ctx); errors.Is(err, ErrCanceled) || errors.Is(err, ErrLeaseLost) {
			cancel(err)
			return
		}
		// A heartbeat that fails while the server is away is made good by the next.
		l.msg.InProgress()
	}
}

// check compares the job's last event with the last one this lease wrote.
func (l *Lease) check(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.q.lastEvent(ctx, l.Job.ID)
	switch {
	case err != nil, e == nil, e.Seq == l.last, l.wrote(e):
		return err
	case l.last == 0 && e.Type == EventQueued: // the gateway's, which came after the job was leased
		return nil
	}
	return superseded(e)
}

// wrote reports whether e is this lease's although its append seemed to fail: it is
// the event tried last, or behind the snapshot that this lease wrote, where only the
// holder of the lease appends.
func (l *Lease) wrote(e *Event) bool {
	return l.started && e.Job == nil && e.Snapshot == l.snapshot || l.tried != nil && e.same(l.tried)
}

// same reports whether the events are one: e as it is stored and as it was written.
func (e *Event) same(other *Event) bool {
	return e.Type == other.Type && e.Time.Equal(other.Time)
}

// superseded tells why an event that this lease did not write ends it.
func superseded(e *Event) error {
	if e.Type == EventCanceled {
		return ErrCanceled
	}
	return ErrLeaseLost
}

// Start records that the job is running. ErrCanceled or ErrLeaseLost if it may not.
func (l *Lease) Start(ctx context.Context) error {
	now := time.Now().UTC()
	job := *l.Job
	job.State = Running
	job.Started = &now
	job.Attempts++
	job.Worker = l.worker
	job.Progress = nil
	return l.insist(ctx, &Event{Type: EventStarted, Job: &job})
}

// Emit appends a progress, token or artifact event. ErrCanceled or ErrLeaseLost say
// that the job is no longer this worker's. After another error the event may be
// stored or not; emitting it again with the same Time does not store it twice.
func (l *Lease) Emit(ctx context.Context, e Event) error { return l.write(ctx, &e) }

// Succeed commits the result.
func (l *Lease) Succeed(ctx context.Context, result *Result) error {
	job := *l.Job
	job.State = Succeeded
	job.Result = result
	if len(result.Text)+len(result.Meta) > l.q.MaxInput() {
		return l.Fail(ctx, Problemf("result_too_large", "The result is larger than the queue carries (%d bytes).", l.q.MaxInput()))
	}
	return l.finish(ctx, EventSucceeded, &job)
}

// Fail ends the job with a problem.
func (l *Lease) Fail(ctx context.Context, problem *Problem) error {
	job := *l.Job
	job.State = Failed
	job.Problem = problem
	return l.finish(ctx, EventFailed, &job)
}

// Retry ends this attempt for the given reason; the job is queued again after a
// pause that doubles with each attempt, or fails if this was the last.
func (l *Lease) Retry(ctx context.Context, reason string) error {
	l.fault(reason)
	if l.Job.Attempts >= l.q.opts.MaxAttempts {
		return l.Fail(ctx, l.exhausted())
	}
	return l.requeue(ctx, *l.Job, time.Second<<min(max(l.Job.Attempts-1, 0), 6))
}

// Release hands the job back at once, as if this attempt had not been made.
func (l *Lease) Release(ctx context.Context) error {
	job := *l.Job
	if l.started {
		job.Attempts--
	}
	return l.requeue(ctx, job, 0)
}

func (l *Lease) requeue(ctx context.Context, job Job, delay time.Duration) error {
	if l.started {
		job.State = Queued
		job.Started = nil
		job.Progress = nil
		if err := l.insist(ctx, &Event{Type: EventQueued, Job: &job}); err != nil {
			return err
		}
	} else if err := l.check(ctx); err != nil {
		return err // without an event to fence it, the hand-back would end another's lease
	}
	if err := l.msg.NakWithDelay(delay); err != nil {
		return fmt.Errorf("queue: hand back job %s: %w", job.ID, l.q.explain(err))
	}
	return nil
}

// finish appends the terminal event and only then removes the job from the work
// queue: a crash in between leads to a redelivery that finds the job ended.
func (l *Lease) finish(ctx context.Context, t EventType, job *Job) error {
	now := time.Now().UTC()
	job.Finished = &now
	job.Progress = nil
	if err := l.insist(ctx, &Event{Type: t, Job: job}); err != nil {
		return err
	}
	return l.ack(ctx)
}

// insist writes an event, trying again while the message server is away. It is the
// same event in each try, so that it is known again if only the answer was lost.
func (l *Lease) insist(ctx context.Context, e *Event) error {
	for {
		err := l.write(ctx, e)
		if !errors.Is(err, ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(insistPause):
		}
	}
}

// insistPause is the time between attempts to write while the message server is away.
const insistPause = 500 * time.Millisecond

func (l *Lease) ack(ctx context.Context) error {
	if err := l.msg.DoubleAck(ctx); err != nil {
		return fmt.Errorf("queue: ack: %w", l.q.explain(err))
	}
	return nil
}

// write appends an event behind the last one that this lease knows of.
func (l *Lease) write(ctx context.Context, e *Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.JobID, e.Tenant = l.Job.ID, l.Job.Tenant
	if e.Job == nil {
		e.Snapshot = l.snapshot
	}
	l.tried = e
	_, err := l.q.append(ctx, e, l.last)
	if errors.Is(err, errConflict) {
		err = l.resolve(ctx, e)
	}
	if err != nil {
		return err
	}
	l.last = e.Seq
	if e.Job != nil {
		e.Job.Revision = e.Seq
		l.Job, l.snapshot = e.Job, e.Seq
		l.started = l.started || e.Type == EventStarted
	}
	return nil
}

// resolve finds out which event came before e. It may be e itself, stored by an
// append whose answer was lost, or an earlier one of this lease for which that holds,
// or, before the start, the gateway's queued event.
func (l *Lease) resolve(ctx context.Context, e *Event) error {
	newest, err := l.q.lastEvent(ctx, e.JobID)
	switch {
	case err != nil:
		return err
	case newest == nil:
		return l.outlive(ctx, e)
	case newest.same(e):
		e.Seq = newest.Seq
		return nil
	case newest.Type == EventQueued && l.last == 0, l.wrote(newest):
		return l.behind(ctx, e, newest.Seq)
	}
	return superseded(newest)
}

// outlive appends e although no event of the job is left: they are older than the
// retention. A job that was deleted is gone from JOBS too, and from there first.
func (l *Lease) outlive(ctx context.Context, e *Event) error {
	msg, err := l.q.pending(ctx, e.JobID)
	if err != nil {
		return err
	}
	if msg == nil {
		return ErrLeaseLost
	}
	return l.behind(ctx, e, 0)
}

// behind appends e after the event of sequence last, or not at all.
func (l *Lease) behind(ctx context.Context, e *Event, last uint64) error {
	_, err := l.q.append(ctx, e, last)
	if !errors.Is(err, errConflict) {
		return err
	}
	newest, err := l.q.lastEvent(ctx, e.JobID)
	switch {
	case err != nil:
		return err
	case newest == nil:
		return ErrLeaseLost
	}
	return superseded(newest)
}

// fault adds the reason why the current attempt ended to the job's failures.
func (l *Lease) fault(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	job := *l.Job
	job.Failures = append(job.Failures[:len(job.Failures):len(job.Failures)],
		Failure{Attempt: job.Attempts, Worker: job.Worker, Reason: reason, Time: time.Now().UTC()})
	l.Job = &job
}

// exhausted is the problem of a job that has used up its attempts: the dead letter,
// which keeps the request and the reason of every attempt and can be retried.
func (l *Lease) exhausted() *Problem {
	reasons := make([]string, len(l.Job.Failures))
	for i, f := range l.Job.Failures {
		reasons[i] = fmt.Sprintf("attempt %d: %s", f.Attempt, f.Reason)
	}
	return Problemf("attempts_exhausted", "The job was given up after %d attempts (%s).", l.Job.Attempts, strings.Join(reasons, "; "))
}

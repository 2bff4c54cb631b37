package queue

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestWatchFromAnIDOfAnotherJob resumes behind a sequence that the job has not reached.
func TestWatchFromAnIDOfAnotherJob(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	job := submit(t, q, Job{})
	l := next(t, source(t, q, "w"))
	start(t, l)
	seen := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-seen:
				if err := l.Succeed(t.Context(), &Result{}); err != nil {
					t.Error(err)
				}
				return
			default:
				if err := l.Emit(t.Context(), Event{Type: EventToken, Delta: &Delta{Text: "x", Offset: i}}); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var last EventType
	for e, err := range q.Watch(ctx, job.ID, 1<<40) {
		if err != nil {
			t.Fatal(err)
		}
		if last == "" {
			close(seen)
		}
		last = e.Type
	}
	writer.Wait()
	if last != EventSucceeded {
		t.Errorf("the last event watched is %q, want the terminal one", last)
	}
}

// TestWatchAllFromAnIDOfAnotherServer resumes behind a sequence that the stream has
// not reached: the browser was connected to a server whose data are gone.
func TestWatchAllFromAnIDOfAnotherServer(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	submit(t, q, Job{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	var events sync.WaitGroup
	events.Go(func() {
		for ctx.Err() == nil {
			job := Job{Task: "text.complete"}
			_ = q.Submit(ctx, &job) // until the watcher ends
		}
	})
	for _, err := range q.WatchAll(ctx, 1<<40) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	cancel()
	events.Wait()
}

func TestModalitiesTakeTurns(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	s := source(t, q, "w")
	text := submit(t, q, Job{Priority: Low})
	for range 40 {
		submit(t, q, Job{Priority: High})
	}
	for range 10 {
		submit(t, q, Job{Priority: Low, Task: "image.generate"})
	}
	for range 2 * round {
		l := next(t, s)
		if l.Job.ID == text.ID {
			return
		}
		start(t, l)
		if err := l.Succeed(t.Context(), &Result{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("a job of low priority waits while those of another modality run")
}

// TestJobOutlivesItsRecord runs a job for longer than its events are kept.
func TestJobOutlivesItsRecord(t *testing.T) {
	t.Parallel()
	q := open(t, Options{Retention: 2 * time.Second})
	job := submit(t, q, Job{})
	l := next(t, source(t, q, "w"))
	start(t, l)
	for kept := true; kept; { // in silence
		e, err := q.lastEvent(t.Context(), job.ID)
		if err != nil {
			t.Fatal(err)
		}
		kept = e != nil
	}
	want(t, q, job.ID, Queued)
	token := Event{Type: EventToken, Delta: &Delta{Text: "x"}}
	if err := l.Emit(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	want(t, q, job.ID, Running)
	if page, err := q.Jobs(t.Context(), Filter{}); err != nil || len(page.Jobs) != 1 {
		t.Errorf("list %v, %v", page.Jobs, err)
	}
	if err := l.Succeed(t.Context(), &Result{Text: "x"}); err != nil {
		t.Fatal(err)
	}
	want(t, q, job.ID, Succeeded)

	canceled := submit(t, q, Job{})
	l = next(t, source(t, q, "w"))
	start(t, l)
	for { // while it writes
		if err := l.Emit(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if _, err := q.events.GetMsg(t.Context(), l.snapshot); errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
	}
	if _, err := q.Cancel(t.Context(), canceled.ID); err != nil {
		t.Fatal(err)
	}
	if err := l.Emit(t.Context(), token); !errors.Is(err, ErrCanceled) {
		t.Errorf("emit after the cancel: %v, want ErrCanceled", err)
	}
}

func TestUnreadableJobHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	bad := submit(t, q, Job{})
	if _, err := q.js.Publish(t.Context(), "events."+bad.ID, []byte("{")); err != nil {
		t.Fatal(err)
	}
	good := submit(t, q, Job{})
	s := source(t, q, "w")
	for range 10 {
		if l, err := s.Next(t.Context()); err == nil {
			if l.Job.ID != good.ID {
				t.Errorf("leased %s, want %s", l.Job.ID, good.ID)
			}
			return
		}
	}
	t.Error("the unreadable job comes first for ever")
}

// TestTwinsGetOneAnswer sends one request several times at once, with the seeds that
// gateways would draw: all must be told of the job that runs.
func TestTwinsGetOneAnswer(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	for range 20 {
		idempotencyKey := NewID()
		jobs := make([]*Job, 8)
		var twins sync.WaitGroup
		for i := range jobs {
			twins.Go(func() {
				job, _, err := q.SubmitOnce(t.Context(), idempotencyKey, "print", time.Hour, &Job{Task: "text.complete", Seed: uint64(i)})
				if err != nil {
					t.Error(err)
				}
				jobs[i] = job
			})
		}
		twins.Wait()
		for _, job := range jobs {
			if accepted := want(t, q, job.ID, Queued); job.ID != jobs[0].ID || accepted.Seed != job.Seed {
				t.Fatalf("told of seed %d, accepted %d", job.Seed, accepted.Seed)
			}
		}
	}
}

// TestJobThatCouldNotEndIsRefused submits a job that fits into a message, but not
// together with what its events say beside it.
func TestJobThatCouldNotEndIsRefused(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	input, err := json.Marshal(strings.Repeat("<", (maxPayload-1000)/6)) // six bytes each in JSON
	if err != nil {
		t.Fatal(err)
	}
	input = []byte(strings.ReplaceAll(string(input), `\u003c`, "<"))
	if err := q.Submit(t.Context(), &Job{Task: "text.complete", Input: input}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}

// TestLostLeaseThatWasNotStarted must not take the job from whoever has it now.
func TestLostLeaseThatWasNotStarted(t *testing.T) {
	t.Parallel()
	q := open(t, Options{AckWait: time.Second})
	job := submit(t, q, Job{})
	stale := next(t, source(t, q, "stale"))
	l := next(t, source(t, q, "alive"))
	start(t, l)
	if err := stale.Release(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("release of the lost lease: %v, want ErrLeaseLost", err)
	}
	held, release, err := stale.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	<-held.Done()
	if !errors.Is(context.Cause(held), ErrLeaseLost) {
		t.Errorf("cause %v, want ErrLeaseLost", context.Cause(held))
	}
	if err := l.Succeed(t.Context(), &Result{}); err != nil {
		t.Fatal(err)
	}
	want(t, q, job.ID, Succeeded)
}

// TestHeldJobIsNotLeasedAgain has the server deliver a job again to the worker that
// still runs it, as it does after it was away for longer than a lease lasts.
func TestHeldJobIsNotLeasedAgain(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	s := source(t, q, "w")
	submit(t, q, Job{})
	l := next(t, s)
	_, release, err := l.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	start(t, l)
	if err := q.nc.Publish(l.msg.Reply(), []byte("-NAK")); err != nil {
		t.Fatal(err)
	}
	other := submit(t, q, Job{})
	if again := next(t, s); again.Job.ID != other.ID {
		t.Fatalf("leased %s again", again.Job.ID)
	}
	if err := l.Succeed(t.Context(), &Result{}); err != nil {
		t.Fatal(err)
	}
	if job := want(t, q, l.Job.ID, Succeeded); job.Attempts != 1 || len(job.Failures) != 0 {
		t.Errorf("%d attempts, failures %v", job.Attempts, job.Failures)
	}
}

func TestJobsPutAsideLeaveTime(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]time.Duration{
		-time.Hour:  asideLeast, // another machine's clock
		time.Second: asideLeast,
		time.Minute: 7500 * time.Millisecond,
		time.Hour:   asideMost,
	} {
		now := time.Now()
		if got := aside(&Job{Created: now.Add(-age)}, now); got != want {
			t.Errorf("a job of %v is put aside for %v, want %v", age, got, want)
		}
		deadline := now.Add(time.Second)
		if got := aside(&Job{Created: now.Add(-age), Deadline: &deadline}, now); got > time.Second {
			t.Errorf("a job of %v with a second left is put aside for %v", age, got)
		}
	}
}

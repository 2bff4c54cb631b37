package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// nats.go 1.55.0 leaves it behind when an object is stored before it has begun to run.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"),
		// nats-server 2.15.2 leaves them behind when a stream is made while it shuts down.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// open returns a queue on an embedded server of its own.
func open(t *testing.T, opts Options) *Queue {
	t.Helper()
	q, _ := openAt(t, ServerConfig{Dir: t.TempDir()}, opts)
	return q
}

// openAt returns a queue and a function that stops its server for good.
func openAt(t *testing.T, c ServerConfig, opts Options) (*Queue, func()) {
	t.Helper()
	srv, err := StartServer(c)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() { nc.Close(); srv.Close() })
	t.Cleanup(stop)
	q, err := Open(t.Context(), nc, opts)
	if err != nil {
		t.Fatal(err)
	}
	return q, stop
}

func submit(t *testing.T, q *Queue, job Job) *Job {
	t.Helper()
	if job.Task == "" {
		job.Task = "text.complete"
	}
	if err := q.Submit(t.Context(), &job); err != nil {
		t.Fatal(err)
	}
	return &job
}

func source(t *testing.T, q *Queue, worker string) *Source {
	t.Helper()
	s, err := q.NewSource(t.Context(), worker, "text", "image")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func next(t *testing.T, s *Source) *Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := s.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func start(t *testing.T, l *Lease) {
	t.Helper()
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, q *Queue, id string, state State) *Job {
	t.Helper()
	job, err := q.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if job.State != state {
		t.Fatalf("job %s is %s, want %s (problem %v)", id, job.State, state, job.Problem)
	}
	return job
}

func TestJobRunsToItsResult(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	job := submit(t, q, Job{Input: json.RawMessage(`{"prompt":"hi"}`), Seed: 7, Tags: []string{"a"}})
	want(t, q, job.ID, Queued)

	l := next(t, source(t, q, "w1"))
	held, release, err := l.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	start(t, l)
	running := want(t, q, job.ID, Running)
	if running.Attempts != 1 || running.Worker != "w1" || running.Started == nil {
		t.Errorf("running job: attempts %d, worker %q, started %v", running.Attempts, running.Worker, running.Started)
	}
	if err := l.Emit(held, Event{Type: EventToken, Delta: &Delta{Text: "hello"}, Progress: &Progress{Step: 1, Total: 2}}); err != nil {
		t.Fatal(err)
	}
	if got := want(t, q, job.ID, Running); got.Progress == nil || got.Progress.Step != 1 {
		t.Errorf("progress of the running job: %+v", got.Progress)
	}
	if err := l.Succeed(held, &Result{Text: "hello"}); err != nil {
		t.Fatal(err)
	}
	release()
	done := want(t, q, job.ID, Succeeded)
	if done.Result.Text != "hello" || done.Finished == nil || done.Seed != 7 || string(done.Input) != `{"prompt":"hi"}` || done.Progress != nil {
		t.Errorf("ended job: %+v", done)
	}
	if done.Revision <= running.Revision {
		t.Errorf("revision went from %d to %d", running.Revision, done.Revision)
	}
	info, err := q.jobs.Info(t.Context())
	if err != nil || info.State.Msgs != 0 {
		t.Errorf("%d messages left in JOBS (%v)", info.State.Msgs, err)
	}
}

func TestSubmitTwiceMakesOneJob(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	job := submit(t, q, Job{})
	again := Job{ID: job.ID, Task: job.Task}
	if err := q.Submit(t.Context(), &again); err != nil {
		t.Fatal(err)
	}
	info, err := q.jobs.Info(t.Context())
	if err != nil || info.State.Msgs != 1 {
		t.Errorf("%d messages in JOBS, want 1 (%v)", info.State.Msgs, err)
	}
}

func TestSubmitOnce(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	var wg sync.WaitGroup
	ids := make([]string, 16)
	for i := range ids {
		wg.Go(func() {
			job, _, err := q.SubmitOnce(t.Context(), "key", "print", time.Hour, &Job{Task: "text.complete"})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = job.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("one key made jobs %s and %s", ids[0], id)
		}
	}
	if info, _ := q.jobs.Info(t.Context()); info.State.Msgs != 1 {
		t.Errorf("%d messages in JOBS, want 1", info.State.Msgs)
	}
	if _, replayed, err := q.SubmitOnce(t.Context(), "key", "print", time.Hour, &Job{Task: "text.complete"}); err != nil || !replayed {
		t.Errorf("replayed %v, err %v", replayed, err)
	}
	if _, _, err := q.SubmitOnce(t.Context(), "key", "other", time.Hour, &Job{Task: "text.complete"}); !errors.Is(err, ErrKeyReused) {
		t.Errorf("another request under the key: %v, want ErrKeyReused", err)
	}
	if _, replayed, err := q.SubmitOnce(t.Context(), "key", "print", time.Nanosecond, &Job{Task: "text.complete"}); err != nil || replayed {
		t.Errorf("after the window: replayed %v, err %v", replayed, err)
	}
	taken, replayed, err := q.SubmitOnce(t.Context(), "key", "print", 0, &Job{Task: "text.complete"})
	if err != nil || replayed {
		t.Errorf("without a window: replayed %v, %v", replayed, err)
	}
	held, replayed, err := q.SubmitOnce(t.Context(), "key", "print", time.Hour, &Job{Task: "text.complete"})
	if err != nil || !replayed || held.ID != taken.ID {
		t.Errorf("after the key was taken over: %v, replayed %v, %v", held, replayed, err)
	}
	if _, replayed, err := q.SubmitOnce(t.Context(), "key", "print", time.Hour, &Job{Task: "text.complete", Tenant: "other"}); err != nil || replayed {
		t.Errorf("another tenant's key: replayed %v, err %v", replayed, err)
	}
}

func TestKeyClaimedByADeadGateway(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	claimed := Job{Task: "text.complete"}
	if err := q.prepare(&claimed); err != nil {
		t.Fatal(err)
	}
	// The gateway stored the key and died before it published the job.
	held := key{JobID: claimed.ID, Fingerprint: "print", Created: claimed.Created}
	if _, err := q.claim(t.Context(), keyName(claimed.Tenant, "key"), held, time.Hour); err != nil {
		t.Fatal(err)
	}
	job, replayed, err := q.SubmitOnce(t.Context(), "key", "print", time.Hour, &Job{Task: "text.complete"})
	if err != nil || replayed || job.ID != claimed.ID {
		t.Errorf("job %s, replayed %v, err %v; want the claimed id %s", job.ID, replayed, err, claimed.ID)
	}
}

func TestKeyOfADeletedJob(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	once := func() *Job {
		job, _, err := q.SubmitOnce(t.Context(), "key", "print", time.Hour, &Job{Task: "text.complete"})
		if err != nil {
			t.Fatal(err)
		}
		return job
	}
	first := once()
	if _, err := q.Cancel(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if err := q.Delete(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	second := once()
	if l := next(t, source(t, q, "w1")); l.Job.ID != second.ID {
		t.Errorf("leased %s, want %s", l.Job.ID, second.ID)
	}
	if third := once(); third.ID != second.ID {
		t.Errorf("the key stands for %s, want %s", third.ID, second.ID)
	}
	if _, err := q.Job(t.Context(), first.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the deleted job came back: %v", err)
	}
}

func TestLostLeaseIsFenced(t *testing.T) {
	t.Parallel()
	q := open(t, Options{AckWait: time.Second})
	job := submit(t, q, Job{})
	dead := next(t, source(t, q, "dead"))
	start(t, dead) // and no heartbeat
	l := next(t, source(t, q, "alive"))
	if len(l.Job.Failures) != 1 || l.Job.Failures[0].Worker != "dead" {
		t.Errorf("failures on the second lease: %+v", l.Job.Failures)
	}
	start(t, l)
	for name, err := range map[string]error{
		"emit":    dead.Emit(t.Context(), Event{Type: EventToken, Delta: &Delta{Text: "x"}}),
		"succeed": dead.Succeed(t.Context(), &Result{Text: "stale"}),
		"fail":    dead.Fail(t.Context(), Problemf("x", "y")),
		"release": dead.Release(t.Context()),
	} {
		if !errors.Is(err, ErrLeaseLost) {
			t.Errorf("%s on the lost lease: %v, want ErrLeaseLost", name, err)
		}
	}
	if err := l.Succeed(t.Context(), &Result{Text: "fresh"}); err != nil {
		t.Fatal(err)
	}
	if got := want(t, q, job.ID, Succeeded); got.Result.Text != "fresh" || got.Attempts != 2 {
		t.Errorf("result %q after %d attempts", got.Result.Text, got.Attempts)
	}
}

func TestHeldLeaseOutlivesAckWait(t *testing.T) {
	t.Parallel()
	q := open(t, Options{AckWait: time.Second})
	submit(t, q, Job{})
	l := next(t, source(t, q, "w1"))
	held, release, err := l.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	start(t, l)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if other, err := source(t, q, "w2").Next(ctx); err == nil {
		t.Fatalf("job %s was leased twice", other.Job.ID)
	}
	if held.Err() != nil {
		t.Fatalf("the held lease ended: %v", context.Cause(held))
	}
	if err := l.Succeed(t.Context(), &Result{}); err != nil {
		t.Fatal(err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	s := source(t, q, "w")

	queued := submit(t, q, Job{})
	if _, err := q.Cancel(t.Context(), queued.ID); err != nil {
		t.Fatal(err)
	}
	want(t, q, queued.ID, Canceled)

	running := submit(t, q, Job{})
	l := next(t, s)
	if l.Job.ID != running.ID {
		t.Fatalf("leased %s, want %s: the canceled job came back", l.Job.ID, running.ID)
	}
	held, release, err := l.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	start(t, l)
	if _, err := q.Cancel(t.Context(), running.ID); err != nil {
		t.Fatal(err)
	}
	<-held.Done()
	if !errors.Is(context.Cause(held), ErrCanceled) {
		t.Errorf("cause %v, want ErrCanceled", context.Cause(held))
	}
	if err := l.Succeed(t.Context(), &Result{Text: "late"}); !errors.Is(err, ErrCanceled) {
		t.Errorf("result after the cancel: %v, want ErrCanceled", err)
	}
	job, err := q.Cancel(t.Context(), running.ID)
	if !errors.Is(err, ErrFinished) || job.State != Canceled {
		t.Errorf("second cancel: %v, %v", job, err)
	}
	if _, err := q.Cancel(t.Context(), NewID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("cancel of nothing: %v", err)
	}
}

func TestReleaseAndRetry(t *testing.T) {
	t.Parallel()
	q := open(t, Options{MaxAttempts: 2})
	s := source(t, q, "w")
	job := submit(t, q, Job{})

	l := next(t, s)
	start(t, l)
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := want(t, q, job.ID, Queued); got.Attempts != 0 || len(got.Failures) != 0 {
		t.Errorf("after a hand-back: %d attempts, failures %v", got.Attempts, got.Failures)
	}
	for attempt := 1; attempt <= 2; attempt++ {
		l = next(t, s)
		start(t, l)
		if err := l.Retry(t.Context(), fmt.Sprintf("reason %d", attempt)); err != nil {
			t.Fatal(err)
		}
	}
	dead := want(t, q, job.ID, Failed)
	if dead.Problem.Code != "attempts_exhausted" || len(dead.Failures) != 2 || dead.Failures[1].Reason != "reason 2" {
		t.Errorf("dead letter: %+v, failures %+v", dead.Problem, dead.Failures)
	}
	again, err := q.Retry(t.Context(), job.ID)
	if err != nil || again.RetryOf != job.ID || again.ID == job.ID {
		t.Fatalf("retry: %+v, %v", again, err)
	}
	if _, err := q.Retry(t.Context(), again.ID); !errors.Is(err, ErrNotFinished) {
		t.Errorf("retry of a queued job: %v", err)
	}
}

func TestCrashLoopEnds(t *testing.T) {
	t.Parallel()
	q := open(t, Options{MaxAttempts: 2, AckWait: 300 * time.Millisecond})
	s := source(t, q, "w")
	job := submit(t, q, Job{})
	for range 2 {
		start(t, next(t, s)) // the worker dies each time
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		if _, err := q.Wait(ctx, job.ID); err != nil {
			t.Error(err)
		}
	}()
	if l, err := s.Next(ctx); err == nil {
		t.Fatalf("leased a third time: %+v", l.Job)
	}
	if got := want(t, q, job.ID, Failed); got.Problem.Code != "attempts_exhausted" {
		t.Errorf("problem %v", got.Problem)
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	s := source(t, q, "w")
	past, soon := time.Now().Add(-time.Second), time.Now().Add(2*time.Second)
	late := submit(t, q, Job{Deadline: &past, Priority: High})
	slow := submit(t, q, Job{Deadline: &soon})
	l := next(t, s)
	if l.Job.ID != slow.ID {
		t.Fatalf("leased %s, want %s", l.Job.ID, slow.ID)
	}
	if got := want(t, q, late.ID, Failed); got.Problem.Code != "deadline_exceeded" {
		t.Errorf("problem %v", got.Problem)
	}
	held, release, err := l.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	<-held.Done()
	var problem *Problem
	if !errors.As(context.Cause(held), &problem) || problem.Code != "deadline_exceeded" {
		t.Errorf("cause %v", context.Cause(held))
	}
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	s := source(t, q, "w")
	first := submit(t, q, Job{Priority: Low})
	second := submit(t, q, Job{Priority: High, Needs: []string{first.ID}})
	l := next(t, s)
	if l.Job.ID != first.ID {
		t.Fatal("the second job started before the job it needs")
	}
	start(t, l)
	if err := l.Succeed(t.Context(), &Result{Text: "made"}); err != nil {
		t.Fatal(err)
	}
	l = next(t, s)
	if l.Job.ID != second.ID || len(l.Needs) != 1 || l.Needs[0].Result.Text != "made" {
		t.Fatalf("leased %s with needs %v", l.Job.ID, l.Needs)
	}
	start(t, l)
	if err := l.Fail(t.Context(), Problemf("bad", "bad")); err != nil {
		t.Fatal(err)
	}
	orphan := submit(t, q, Job{Needs: []string{second.ID}})
	lost := submit(t, q, Job{Needs: []string{NewID()}})
	plain := submit(t, q, Job{})
	if l = next(t, s); l.Job.ID != plain.ID {
		t.Fatalf("leased %s, want %s", l.Job.ID, plain.ID)
	}
	if got := want(t, q, orphan.ID, Failed); got.Problem.Code != "need_failed" {
		t.Errorf("problem %v", got.Problem)
	}
	if got := want(t, q, lost.ID, Failed); got.Problem.Code != "need_missing" {
		t.Errorf("problem %v", got.Problem)
	}
}

func TestPrioritiesWithoutStarvation(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	s := source(t, q, "w")
	low := submit(t, q, Job{Priority: Low})
	normal := submit(t, q, Job{Priority: Normal})
	for range 20 {
		submit(t, q, Job{Priority: High})
	}
	at := map[string]int{}
	for i := range 10 {
		l := next(t, s)
		at[l.Job.ID] = i
		start(t, l)
		if err := l.Succeed(t.Context(), &Result{}); err != nil {
			t.Fatal(err)
		}
	}
	if i, ok := at[normal.ID]; !ok || i == 0 {
		t.Errorf("normal job at turn %d (%v) while high ones wait", i, ok)
	}
	if i, ok := at[low.ID]; !ok || i == 0 {
		t.Errorf("low job at turn %d (%v) while high ones wait", i, ok)
	}
}

func TestWatchResumesWithoutGap(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	job := submit(t, q, Job{})
	l := next(t, source(t, q, "w"))
	live := make(chan []uint64)
	go func() {
		var seen []uint64
		for e, err := range q.Watch(t.Context(), job.ID, 0) {
			if err != nil {
				t.Error(err)
				break
			}
			seen = append(seen, e.Seq)
		}
		live <- seen
	}()
	start(t, l)
	for i := range 50 {
		if err := l.Emit(t.Context(), Event{Type: EventToken, Delta: &Delta{Text: "x", Offset: i}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Succeed(t.Context(), &Result{Text: "xs"}); err != nil {
		t.Fatal(err)
	}
	all := <-live
	if len(all) != 53 { // queued, started, 50 tokens, succeeded
		t.Fatalf("watched %d events, want 53", len(all))
	}
	for i, after := range all {
		var rest []uint64
		for e, err := range q.Watch(t.Context(), job.ID, after) {
			if err != nil {
				t.Fatal(err)
			}
			rest = append(rest, e.Seq)
		}
		if fmt.Sprint(rest) != fmt.Sprint(all[i+1:]) {
			t.Fatalf("resumed behind %d: %v, want %v", after, rest, all[i+1:])
		}
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	for _, err := range q.Watch(t.Context(), NewID(), 0) {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("watch of nothing: %v", err)
		}
	}
	job := submit(t, q, Job{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for e, err := range q.Watch(ctx, job.ID, 0) {
		if last = err; err == nil && e.Type == EventQueued {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("canceled watch ended with %v", last)
	}
}

func TestWatchAll(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	first, second := submit(t, q, Job{}), submit(t, q, Job{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var seen []string
	for e, err := range q.WatchAll(ctx, 1) { // behind the first job's queued event
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, e.JobID+" "+string(e.Type)); len(seen) == 1 {
			if _, err := q.Cancel(ctx, first.ID); err != nil {
				t.Fatal(err)
			}
		} else {
			break
		}
	}
	if want := []string{second.ID + " queued", first.ID + " canceled"}; fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("watched %v, want %v", seen, want)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	var ids []string
	for i := range 7 {
		task := "text.complete"
		if i%2 == 1 {
			task = "text.chat"
		}
		ids = append(ids, submit(t, q, Job{Task: task, Tags: []string{fmt.Sprint(i % 3)}}).ID)
	}
	if _, err := q.Cancel(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	var got []string
	filter := Filter{Limit: 3}
	for {
		page, err := q.Jobs(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range page.Jobs {
			got = append(got, j.ID)
		}
		if filter.After = page.Next; page.Next == "" {
			break
		}
	}
	for i := range ids {
		if i >= len(got) || got[i] != ids[len(ids)-1-i] {
			t.Fatalf("listed %v, want the reverse of %v", got, ids)
		}
	}
	for name, c := range map[string]struct {
		filter Filter
		n      int
	}{
		"canceled": {Filter{State: Canceled}, 1},
		"queued":   {Filter{State: Queued}, 6},
		"chat":     {Filter{Task: "text.chat"}, 3},
		"tag":      {Filter{Tag: "0"}, 3},
	} {
		page, err := q.Jobs(t.Context(), c.filter)
		if err != nil || len(page.Jobs) != c.n {
			t.Errorf("%s: %d jobs, want %d (%v)", name, len(page.Jobs), c.n, err)
		}
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	job := submit(t, q, Job{})
	if err := q.Delete(t.Context(), job.ID); !errors.Is(err, ErrNotFinished) {
		t.Errorf("delete of a queued job: %v", err)
	}
	if _, err := q.Cancel(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	if err := q.Delete(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Job(t.Context(), job.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted job: %v", err)
	}
}

func TestArtifacts(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	body := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	a, err := q.PutArtifact(t.Context(), "t", bytes.NewReader(body), 1<<20, Artifact{MediaType: "text/plain", Name: "x.txt"})
	if err != nil {
		t.Fatal(err)
	}
	about, r, err := q.Artifact(t.Context(), "t", a.SHA256)
	if err != nil || about != a {
		t.Fatalf("%+v, %v; want %+v", about, err, a)
	}
	defer r.Close()
	for _, at := range []int64{0, 500_000, 3, 639_990, 640_000} {
		if _, err := r.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.LimitReader(r, 20))
		if end := min(at+20, int64(len(body))); err != nil || !bytes.Equal(got, body[at:end]) {
			t.Fatalf("read at %d: %q, %v", at, got, err)
		}
	}
	if _, err := q.PutArtifact(t.Context(), "t", bytes.NewReader(body), 100, Artifact{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	if _, _, err := q.Artifact(t.Context(), "u", a.SHA256); !errors.Is(err, ErrNoArtifact) {
		t.Errorf("another tenant's: %v", err)
	}
	if _, err := q.PutArtifact(t.Context(), "../t", bytes.NewReader(body), 1<<20, Artifact{}); err == nil {
		t.Error("stored for a tenant that cannot be")
	}
	if _, err := q.ArtifactInfo(t.Context(), "t", "../secret"); !errors.Is(err, ErrNoArtifact) {
		t.Errorf("not a digest: %v", err)
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	q := open(t, Options{WorkerTTL: time.Second})
	if err := q.Define(t.Context(), []Task{{Name: "text.complete", Schema: json.RawMessage(`{}`)}}); err != nil {
		t.Fatal(err)
	}
	if err := q.Advertise(t.Context(), Worker{ID: "b"}); err != nil {
		t.Fatal(err)
	}
	if err := q.Advertise(t.Context(), Worker{ID: "a", Slots: 2}); err != nil {
		t.Fatal(err)
	}
	workers, err := q.Workers(t.Context())
	if err != nil || len(workers) != 2 || workers[0].Slots != 2 {
		t.Fatalf("workers %+v, %v", workers, err)
	}
	if err := q.Withdraw(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(workers) > 0 && time.Now().Before(deadline) { // b goes when its TTL ends
		if workers, err = q.Workers(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(workers) > 0 {
		t.Errorf("silent workers still listed: %+v", workers)
	}
	if tasks, err := q.Tasks(t.Context()); err != nil || len(tasks) != 1 {
		t.Errorf("tasks %+v, %v", tasks, err)
	}
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// submitMany submits n jobs of a tenant, several at once.
func submitMany(t *testing.T, q *Queue, tenant string, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range n / 16 {
				if err := q.Submit(t.Context(), &Job{Task: "text.complete", Tenant: tenant}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestTenantsTakeTurns has a tenant submit one job behind 10,000 of another: it is the
// next that begins when the running job has ended, also for a worker that comes later
// and after a restart.
func TestTenantsTakeTurns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q, stop := openAt(t, ServerConfig{Dir: dir}, Options{})
	submitMany(t, q, "busy", 10_000)
	s := source(t, q, "w1")
	running := next(t, s)
	start(t, running)
	late := submit(t, q, Job{Tenant: "late"})
	if err := running.Succeed(t.Context(), &Result{}); err != nil {
		t.Fatal(err)
	}
	l := next(t, s)
	if l.Job.ID != late.ID {
		t.Fatalf("the next job is of the tenant %s", l.Job.Tenant)
	}
	late = submit(t, q, Job{Tenant: "later"})
	stop()

	q, _ = openAt(t, ServerConfig{Dir: dir}, Options{})
	again := source(t, q, "w2")
	first, second := next(t, again), next(t, again)
	if first.Job.ID != late.ID && second.Job.ID != late.ID {
		t.Errorf("after a restart two jobs of the tenant %s come before the other's", first.Job.Tenant)
	}
}

// TestTurnsAreEven lets three tenants have many jobs: each gets a third.
func TestTurnsAreEven(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	for _, tenant := range []string{"a", "b", "c"} {
		submitMany(t, q, tenant, 32)
	}
	s := source(t, q, "w")
	count := map[string]int{}
	for range 30 {
		count[next(t, s).Job.Tenant]++
	}
	if count["a"] != 10 || count["b"] != 10 || count["c"] != 10 {
		t.Errorf("jobs handed out: %v", count)
	}
}

// TestLineLost removes a line that the submitting process relies on: whether a worker is
// there or comes later, the job is found.
func TestLineLost(t *testing.T) {
	t.Parallel()
	for name, early := range map[string]bool{"worker listens": true, "worker comes later": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := open(t, Options{})
			first := submit(t, q, Job{Tenant: "a"})
			s := source(t, q, "w1")
			if l := next(t, s); l.Job.ID != first.ID {
				t.Fatal("another job")
			} else if err := l.Fail(t.Context(), Problemf("x", "X.")); err != nil {
				t.Fatal(err)
			}
			if !early {
				s.Close()
			}
			if err := q.jobs.DeleteConsumer(t.Context(), lineOf(first).name()); err != nil {
				t.Fatal(err)
			}
			second := submit(t, q, Job{Tenant: "a"})
			if _, err := q.jobs.Consumer(t.Context(), lineOf(second).name()); !early && !errors.Is(err, jetstream.ErrConsumerNotFound) {
				t.Fatalf("the line is there: %v", err)
			}
			if !early {
				s = source(t, q, "w2")
			}
			if l := next(t, s); l.Job.ID != second.ID {
				t.Errorf("leased %s, want %s", l.Job.ID, second.ID)
			}
		})
	}
}

// TestLinesComeAndGo has workers remove empty lines all the time while jobs are submitted
// by a process that relies on them: every job ends.
func TestLinesComeAndGo(t *testing.T) {
	t.Parallel()
	q := open(t, Options{lineIdle: time.Nanosecond})
	gateway, err := Open(t.Context(), q.nc, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const tenants, jobs = 4, 40
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	working, stop := context.WithCancel(ctx)
	var workers, submitters sync.WaitGroup
	for w := range 2 {
		s := source(t, q, fmt.Sprintf("w%d", w))
		workers.Go(func() {
			for {
				s.surveyed = time.Time{} // survey before every job
				l, err := s.Next(working)
				if working.Err() != nil {
					return
				}
				if err == nil {
					err = l.Start(ctx)
				}
				if err == nil {
					err = l.Succeed(ctx, &Result{})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	ids := make(chan string, tenants*jobs)
	for tenant := range tenants {
		submitters.Go(func() {
			for range jobs {
				job := &Job{Task: "text.complete", Tenant: fmt.Sprintf("t%d", tenant)}
				if err := gateway.Submit(ctx, job); err != nil {
					t.Error(err)
					return
				}
				ids <- job.ID
			}
		})
	}
	submitters.Wait()
	close(ids)
	for id := range ids {
		if job, err := q.Wait(ctx, id); err != nil || job.State != Succeeded {
			t.Fatalf("job %s: %+v, %v", id, job, err)
		}
	}
	stop()
	workers.Wait()
}

// TestIdleLines has many tenants whose jobs have ended: a worker keeps nothing of them in
// mind, and their lines go.
func TestIdleLines(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	s := source(t, q, "w")
	for tenant := range 50 {
		job := submit(t, q, Job{Tenant: fmt.Sprintf("t%d", tenant)})
		if _, err := q.Cancel(t.Context(), job.ID); err != nil {
			t.Fatal(err)
		}
	}
	for { // until what wakes the worker has come, and it has found nothing
		if _, found, err := s.try(t.Context()); err != nil || found {
			t.Fatal(found, err)
		}
		s.mu.Lock()
		known := len(s.lines)
		s.mu.Unlock()
		if known == 50 {
			break
		}
	}
	if _, _, err := s.try(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.survey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.lines) != 0 {
		t.Errorf("the worker remembers %d lines", len(s.lines))
	}
	q.opts.lineIdle = time.Nanosecond
	if err := s.survey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines, err := q.census(t.Context()); err != nil || len(lines) != 0 {
		t.Errorf("%d lines are left: %v", len(lines), err)
	}
}

func TestDepth(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	var first *Job
	for i := range 6 {
		job := submit(t, q, Job{Tenant: fmt.Sprintf("t%d", i%3), Task: "image.generate"})
		if i == 1 {
			first = job // of those that wait when t0's first is handed out
		}
	}
	submit(t, q, Job{Tenant: "t0", Priority: Low})
	s, err := q.NewSource(t.Context(), "w", "image")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for {
		l := next(t, s)
		if l.Job.Tenant == "t0" {
			break
		}
		first = nil // t0 was not the first to be served: which is the oldest depends
	}
	var image, text Depth
	for image.Waiting+image.Given < 6 || text.Waiting < 1 { // the server counts what was just stored a moment later
		depths, err := q.Depth(t.Context())
		if err != nil || len(depths) != 2 {
			t.Fatalf("%+v, %v", depths, err)
		}
		image, text = depths[0], depths[1]
	}
	if image.Modality != "image" || image.Priority != Normal || image.Waiting+image.Given != 6 || image.Given < 1 {
		t.Errorf("image: %+v", image)
	}
	if text.Modality != "text" || text.Priority != Low || text.Waiting != 1 || text.Given != 0 || text.Oldest.IsZero() {
		t.Errorf("text: %+v", text)
	}
	if first != nil {
		if msg, err := q.pending(t.Context(), first.ID); err != nil || !msg.Time.Equal(image.Oldest) {
			t.Errorf("oldest since %v, want %v (%v)", image.Oldest, msg.Time, err)
		}
	}
	for tenant, want := range map[string]int{"t0": 3, "t1": 2, "nobody": 0} {
		if n, err := q.Unfinished(t.Context(), tenant); err != nil || n != want {
			t.Errorf("%s has %d unfinished jobs (%v), want %d", tenant, n, err, want)
		}
	}
	submit(t, q, Job{Tenant: "nobody"})
	if n, err := q.Unfinished(t.Context(), "nobody"); err != nil || n != 1 {
		t.Errorf("after a submission: %d, %v", n, err)
	}
}

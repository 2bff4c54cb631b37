package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func tail(t *testing.T, q *Queue, after uint64) *Tail {
	t.Helper()
	tail, err := q.Tail(t.Context(), after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tail.Close(context.WithoutCancel(t.Context())) })
	return tail
}

// read returns the next n events.
func read(t *testing.T, from *Tail, n int) []*Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var events []*Event
	for len(events) < n {
		some, err := from.Next(ctx, time.Millisecond)
		if err != nil {
			t.Fatalf("after %d events: %v", len(events), err)
		}
		events = append(events, some...)
	}
	if len(events) > n {
		t.Fatalf("%d events, want %d", len(events), n)
	}
	return events
}

func TestTail(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	var ids []string
	const n = 1500 // more than one request asks for
	for i := range n {
		ids = append(ids, submit(t, q, Job{Input: json.RawMessage(fmt.Sprintf(`{"i":%d}`, i))}).ID)
	}
	all := tail(t, q, 0)
	if all.Pending() != n {
		t.Errorf("%d pending", all.Pending())
	}
	events := read(t, all, n)
	for i, e := range events {
		if e.JobID != ids[i] || e.Seq != uint64(i+1) || e.Job.Revision != e.Seq || e.Type != EventQueued {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
	if all.Pending() != 0 {
		t.Errorf("%d pending", all.Pending())
	}
	// It goes on as events come, and skips what was deleted in between.
	gone, kept := submit(t, q, Job{}), submit(t, q, Job{})
	if err := q.events.Purge(t.Context(), jetstream.WithPurgeSubject("events."+gone.ID)); err != nil {
		t.Fatal(err)
	}
	if e := read(t, tail(t, q, n), 1)[0]; e.JobID != kept.ID || e.Seq != n+2 {
		t.Errorf("event %+v, want that of %s", e, kept.ID)
	}
	log, err := q.EventLog(t.Context())
	if err != nil || log.Last != n+2 || log.ID == "" {
		t.Errorf("log %+v, %v", log, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := tail(t, q, log.Last).Next(ctx, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing to read: %v", err)
	}
}

func TestTailLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	some, err := q.Tail(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	some.Close(t.Context())
	info, err := q.events.Info(t.Context())
	if err != nil || info.State.Consumers != 0 {
		t.Errorf("%d consumers are left, %v", info.State.Consumers, err)
	}
}

func TestTailOfUnreadableAndLargeEvents(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	if _, err := q.js.Publish(t.Context(), "events.nonsense", []byte("{")); err != nil {
		t.Fatal(err)
	}
	large := json.RawMessage(`"` + strings.Repeat("x", 3<<20) + `"`)
	for range 4 {
		submit(t, q, Job{Input: large})
	}
	for i, e := range read(t, tail(t, q, 0), 5) {
		if i == 0 && (e.Type != "" || e.JobID != "nonsense") || i > 0 && len(e.Job.Input) != len(large) {
			t.Errorf("event %d: %s of %s", i, e.Type, e.JobID)
		}
	}
}

// A Tail whose consumer is gone says so, even while nothing happens.
func TestTailThatLostItsConsumer(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	submit(t, q, Job{})
	some := tail(t, q, 0)
	read(t, some, 1)
	if err := q.events.DeleteConsumer(t.Context(), some.consumer); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := some.Next(ctx, time.Millisecond); err == nil || ctx.Err() != nil {
		t.Errorf("%v, want an error at once", err)
	}
}

func TestTailWithoutAServer(t *testing.T) {
	t.Parallel()
	q, stop := openAt(t, ServerConfig{Dir: t.TempDir()}, Options{})
	some := tail(t, q, 0)
	stop()
	if _, err := some.Next(t.Context(), time.Millisecond); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	if _, err := q.Tail(t.Context(), 0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	if _, err := q.EventLog(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func TestWaiting(t *testing.T) {
	t.Parallel()
	q := open(t, Options{})
	first, second := submit(t, q, Job{}), submit(t, q, Job{Task: "image.generate"})
	if _, err := q.Cancel(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	ids, err := q.Waiting(t.Context())
	if err != nil || len(ids) != 1 || ids[0] != second.ID {
		t.Errorf("%v, %v", ids, err)
	}
}

// BenchmarkTail reads events of the size that jobs usually have.
func BenchmarkTail(b *testing.B) {
	srv, err := StartServer(ServerConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer srv.Close()
	nc, err := srv.Connect()
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	q, err := Open(b.Context(), nc, Options{})
	if err != nil {
		b.Fatal(err)
	}
	input := json.RawMessage(`{"prompt":"` + strings.Repeat("word ", 60) + `"}`)
	for range b.N {
		job := &Job{ID: NewID(), Task: "text.complete", Input: input, Tenant: DefaultTenant}
		body, err := json.Marshal(&Event{Type: EventQueued, JobID: job.ID, Job: job})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := q.js.PublishAsync("events."+job.ID, body); err != nil {
			b.Fatal(err)
		}
	}
	<-q.js.PublishAsyncComplete()
	from, err := q.Tail(b.Context(), 0)
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close(b.Context())
	b.ResetTimer()
	for n := 0; n < b.N; {
		events, err := from.Next(b.Context(), time.Millisecond)
		if err != nil {
			b.Fatal(err)
		}
		n += len(events)
	}
}

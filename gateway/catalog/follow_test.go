package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"helicon/gateway/catalog/pgtest"
	"helicon/queue"
)

// broker is a message server with a queue on it.
type broker struct {
	*queue.Queue
	events jetstream.Stream
	stop   func()
}

func startBroker(t *testing.T, dir string) *broker {
	t.Helper()
	srv, err := queue.StartServer(queue.ServerConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{stop: sync.OnceFunc(func() { nc.Close(); srv.Close() })}
	t.Cleanup(b.stop)
	if b.Queue, err = queue.Open(t.Context(), nc, queue.Options{AckWait: time.Second}); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if b.events, err = js.Stream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *broker) submit(t *testing.T, prompt string) *queue.Job {
	t.Helper()
	input, err := json.Marshal(map[string]string{"prompt": prompt})
	if err != nil {
		t.Fatal(err)
	}
	job := &queue.Job{Task: "text.complete", Input: input}
	if err := b.Submit(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	return job
}

// work runs the next n jobs to their ends.
func (b *broker) work(t *testing.T, n int) {
	t.Helper()
	s, err := b.NewSource(t.Context(), "worker", "text")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		l, err := s.Next(ctx)
		cancel()
		if err == nil {
			err = l.Start(t.Context())
		}
		if err == nil {
			err = l.Emit(t.Context(), queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: "done"}})
		}
		if err == nil {
			err = l.Succeed(t.Context(), &queue.Result{Text: "done " + l.Job.ID, Usage: &queue.Usage{OutputTokens: 1}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// follow follows until the test ends or stop is called.
func follow(t *testing.T, c *Catalog, q *queue.Queue) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Follow(ctx, q) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// caughtUp waits until the catalog has all events.
func (b *broker) caughtUp(t *testing.T, c *Catalog) {
	t.Helper()
	log, err := b.EventLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		c.CatchUp(t.Context(), log)
		if at, ok := c.whereabouts(t.Context()); ok && at.stream == log.ID && uint64(at.sequence) >= log.Last {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the catalog does not catch up with %+v: lag %+v", log, c.Lag())
		}
	}
}

// states counts the jobs of a list by their state.
func states(t *testing.T, c *Catalog, f Filter) map[queue.State]int {
	t.Helper()
	s := &story{t: t, c: c}
	n := map[queue.State]int{}
	for _, id := range s.list(queue.DefaultTenant, f) {
		job, err := c.Job(t.Context(), queue.DefaultTenant, id)
		if err != nil {
			t.Fatal(err)
		}
		n[job.State]++
	}
	return n
}

// until waits for something that nobody tells of.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		pause(t.Context(), 5*time.Millisecond)
	}
}

func succeeded(t *testing.T, c *Catalog) int64 {
	t.Helper()
	sums, err := c.Usage(t.Context(), UsageFilter{From: time.Now().AddDate(0, 0, -1), To: time.Now().AddDate(0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return sums[0].Succeeded
}

func TestFollow(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		b := startBroker(t, t.TempDir())
		early := b.submit(t, "early bird")
		stop := follow(t, c, b.Queue)
		late := b.submit(t, "late bird")
		b.caughtUp(t, c)
		if n := states(t, c, Filter{Query: "bird"}); n[queue.Queued] != 2 {
			t.Errorf("states %v", n)
		}
		b.work(t, 1)
		b.caughtUp(t, c)
		if n := states(t, c, Filter{Query: "bird"}); n[queue.Queued] != 1 || n[queue.Succeeded] != 1 {
			t.Errorf("states %v", n)
		}
		stop()
		if _, err := b.Cancel(t.Context(), late.ID); err != nil {
			t.Fatal(err)
		}
		follow(t, c, b.Queue)
		b.caughtUp(t, c)
		job, err := c.Job(t.Context(), queue.DefaultTenant, early.ID)
		if err != nil || job.Result == nil || job.Result.Text != "done "+early.ID {
			t.Errorf("job %+v, %v", job, err)
		}
		now, err := b.Job(t.Context(), early.ID)
		if err != nil || now.Revision != job.Revision {
			t.Errorf("revision %d, in the queue %d, %v", job.Revision, now.Revision, err)
		}
		if n := states(t, c, Filter{}); n[queue.Canceled] != 1 || n[queue.Succeeded] != 1 {
			t.Errorf("states %v", n)
		}
		if lag := c.Lag(); lag.Events != 0 || lag.Age != 0 {
			t.Errorf("lag %+v", lag)
		}
	})
}

// The first event of a job is a courtesy: without it the job is found in the work queue.
func TestSweep(t *testing.T) {
	t.Parallel()
	c := open(t, "sqlite:"+filepath.Join(t.TempDir(), "c.db"), Options{NoSync: true})
	b := startBroker(t, t.TempDir())
	for i := range 150 {
		b.submit(t, fmt.Sprintf("job %d", i))
	}
	if err := b.events.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	follow(t, c, b.Queue)
	until(t, "all jobs are found", func() bool { return states(t, c, Filter{})[queue.Queued] == 150 })
	b.work(t, 3)
	b.caughtUp(t, c)
	if n := states(t, c, Filter{}); n[queue.Queued] != 147 || n[queue.Succeeded] != 3 {
		t.Errorf("states %v", n)
	}
}

// What ended while nobody followed, and has no events any more, is known to have been lost.
func TestEventsThatHaveAgedOut(t *testing.T) {
	t.Parallel()
	c := open(t, "sqlite:"+filepath.Join(t.TempDir(), "c.db"), Options{NoSync: true})
	b := startBroker(t, t.TempDir())
	stop := follow(t, c, b.Queue)
	gone := b.submit(t, "gone")
	b.caughtUp(t, c)
	stop()
	b.work(t, 1)
	kept := b.submit(t, "kept")
	if err := b.events.Purge(t.Context(), jetstream.WithPurgeSubject("events."+gone.ID)); err != nil {
		t.Fatal(err)
	}
	follow(t, c, b.Queue)
	until(t, "the lost job has ended", func() bool { return states(t, c, Filter{})[queue.Failed] == 1 })
	job, err := c.Job(t.Context(), queue.DefaultTenant, gone.ID)
	if err != nil || job.Problem == nil || job.Problem.Code != "job_lost" {
		t.Errorf("job %+v, %v", job, err)
	}
	if job, err = c.Job(t.Context(), queue.DefaultTenant, kept.ID); err != nil || job.State != queue.Queued {
		t.Errorf("job %+v, %v", job, err)
	}
}

// A message server that comes back empty has another stream: its sequences begin anew,
// and what was known stays.
func TestStreamThatWasLost(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		dir := t.TempDir()
		b := startBroker(t, filepath.Join(dir, "first"))
		stop := follow(t, c, b.Queue)
		for range 3 {
			b.submit(t, "first")
		}
		b.work(t, 2)
		b.caughtUp(t, c)
		stop()
		b.stop()

		b = startBroker(t, filepath.Join(dir, "first")) // the same once more: nothing to do
		stop = follow(t, c, b.Queue)
		b.caughtUp(t, c)
		at, err := c.position(t.Context())
		if err != nil || at.epoch != 1 {
			t.Errorf("position %+v, %v", at, err)
		}
		stop()
		b.stop()

		b = startBroker(t, filepath.Join(dir, "second"))
		b.submit(t, "second")
		follow(t, c, b.Queue)
		until(t, "the new job is there and the lost one has ended", func() bool {
			n := states(t, c, Filter{})
			return n[queue.Succeeded] == 2 && n[queue.Failed] == 1 && n[queue.Queued] == 1
		})
		b.work(t, 1)
		b.caughtUp(t, c)
		if n := states(t, c, Filter{Query: "second"}); n[queue.Succeeded] != 1 {
			t.Errorf("states %v", n)
		}
		if n := succeeded(t, c); n != 3 {
			t.Errorf("%d jobs are counted", n)
		}
		if at, err = c.position(t.Context()); err != nil || at.epoch != 2 {
			t.Errorf("position %+v, %v", at, err)
		}
	})
}

func TestRebuildWhileItIsFollowed(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		b := startBroker(t, t.TempDir())
		follow(t, c, b.Queue)
		for range 20 {
			b.submit(t, "some words")
		}
		b.work(t, 10)
		b.caughtUp(t, c)
		if n, err := c.Rebuild(t.Context()); err != nil || n != 20 {
			t.Fatal(n, err)
		}
		b.submit(t, "some words")
		until(t, "the projection has begun anew and has the last job", func() bool {
			at, err := c.position(t.Context())
			return err == nil && at.epoch == 2 && len((&story{t: t, c: c}).list(queue.DefaultTenant, Filter{Query: "words"})) == 21
		})
		b.caughtUp(t, c)
		if n := succeeded(t, c); n != 10 {
			t.Errorf("%d jobs are counted, want 10", n)
		}
	})
}

func TestLargeEvents(t *testing.T) {
	t.Parallel()
	c := open(t, "sqlite:"+filepath.Join(t.TempDir(), "c.db"), Options{NoSync: true})
	b := startBroker(t, t.TempDir())
	for range 6 {
		b.submit(t, strings.Repeat("large ", 500_000))
	}
	follow(t, c, b.Queue)
	until(t, "all are there", func() bool {
		page, err := c.Jobs(t.Context(), queue.DefaultTenant, Filter{Query: "large"})
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Jobs) == 6
	})
}

// A full disk stops the projection, not the process; it goes on when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	c := open(t, "sqlite:"+filepath.Join(t.TempDir(), "c.db"), Options{NoSync: true})
	b := startBroker(t, t.TempDir())
	limit := func(pages int) {
		if _, err := c.db.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // that is: no more than there are
	b.submit(t, strings.Repeat("large ", 10_000))
	follow(t, c, b.Queue)
	until(t, "the projection is behind", func() bool { return c.Lag().Age > 0 })
	err := c.write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), "INSERT INTO deleted VALUES ($1, 1)", strings.Repeat("x", 1<<20))
		return err
	})
	if !errors.Is(err, queue.ErrFull) {
		t.Errorf("a write to a full disk: %v", err)
	}
	limit(1 << 20)
	b.caughtUp(t, c)
	if n := states(t, c, Filter{Query: "large"}); n[queue.Queued] != 1 {
		t.Errorf("states %v", n)
	}
}

func leads(c *Catalog) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leading
}

// Of the gateways on one database, one projects; another goes on when it ends.
func TestTwoFollowers(t *testing.T) {
	t.Parallel()
	url := postgresURL(t)
	first, second := open(t, url, Options{}), open(t, url, Options{})
	b := startBroker(t, t.TempDir())
	stop := follow(t, first, b.Queue)
	until(t, "the first leads", func() bool { return leads(first) })
	follow(t, second, b.Queue)
	for range 20 {
		b.submit(t, "shared")
	}
	b.work(t, 10)
	b.caughtUp(t, second)
	if leads(second) && leads(first) {
		t.Error("both lead")
	}
	stop()
	b.work(t, 10)
	b.caughtUp(t, second)
	for _, c := range []*Catalog{first, second} {
		if n := states(t, c, Filter{Query: "shared"}); n[queue.Succeeded] != 20 {
			t.Errorf("states %v", n)
		}
	}
	if n := succeeded(t, first); n != 20 {
		t.Errorf("%d jobs are counted", n)
	}
}

// PostgreSQL is killed, again and again, while jobs come in: none is missing in the end,
// none is counted twice.
func TestPostgresIsKilled(t *testing.T) {
	t.Parallel()
	srv, err := pgtest.New()
	if errors.Is(err, pgtest.ErrMissing) && os.Getenv("HELICON_REQUIRE_POSTGRES") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	first, second := open(t, srv.URL(""), Options{}), open(t, srv.URL(""), Options{})
	b := startBroker(t, t.TempDir())
	follow(t, first, b.Queue)
	follow(t, second, b.Queue)
	for range 3 {
		for range 10 {
			b.submit(t, "through fire")
		}
		if err := srv.Kill(); err != nil {
			t.Fatal(err)
		}
		b.work(t, 5)
		// Connections that were open end one by one.
		until(t, "the database is away", func() bool {
			_, err := first.Jobs(t.Context(), queue.DefaultTenant, Filter{})
			if err != nil && !errors.Is(err, ErrUnavailable) {
				t.Fatalf("a list without a database: %v", err)
			}
			return errors.Is(err, ErrUnavailable)
		})
		if err := srv.Start(); err != nil {
			t.Fatal(err)
		}
	}
	b.caughtUp(t, second)
	if n := states(t, second, Filter{Query: "fire"}); n[queue.Succeeded] != 15 || n[queue.Queued] != 15 {
		t.Errorf("states %v", n)
	}
	if n := succeeded(t, second); n != 15 {
		t.Errorf("%d jobs are counted", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"":                                   "want sqlite:FILE",
		"catalog.db":                         "want sqlite:FILE",
		"mysql://user:secret@host/db":        "…@host/db",
		"sqlite:":                            "names no file",
		"postgres://user:secret@:x/db":       "cannot parse",
		"sqlite:" + t.TempDir():              "is a directory",
		"postgres://u:secret@127.0.0.1:1/db": "cannot be reached",
	} {
		c, err := Open(t.Context(), url, Options{})
		if err == nil {
			c.Close()
			t.Errorf("%q was opened", url)
		} else if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %q in it", url, err, want)
		}
	}
}

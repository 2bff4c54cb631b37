package queue

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// serve returns a queue on an embedded server of its own.
func serve(b *testing.B, sync bool) (q *Queue, stop func()) {
	b.Helper()
	srv, err := StartServer(ServerConfig{Dir: b.TempDir(), Sync: sync})
	if err != nil {
		b.Fatal(err)
	}
	nc, err := srv.Connect()
	if err != nil {
		b.Fatal(err)
	}
	q, err = Open(b.Context(), nc, Options{Sync: sync})
	if err != nil {
		b.Fatal(err)
	}
	return q, func() { nc.Close(); srv.Close() }
}

// BenchmarkSubmit measures how fast jobs are accepted: one client waiting for each,
// and 64 at once, with and without a sync to disk before each acknowledgement.
func BenchmarkSubmit(b *testing.B) {
	for name, sync := range map[string]bool{"sync": true, "nosync": false} {
		b.Run(name, func(b *testing.B) {
			q, stop := serve(b, sync)
			defer stop()
			one := func() error {
				return q.Submit(b.Context(), &Job{Task: "text.complete", Input: []byte(`{"prompt":"Once upon a time"}`)})
			}
			b.Run("one", func(b *testing.B) {
				for b.Loop() {
					if err := one(); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("many", func(b *testing.B) {
				b.SetParallelism(32)
				var failed atomic.Int32
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if one() != nil {
							failed.Add(1)
						}
					}
				})
				if failed.Load() > 0 {
					b.Fatalf("%d submissions failed", failed.Load())
				}
			})
		})
	}
}

// BenchmarkBacklog measures a queue in which 100,000 jobs of two tenants wait: how long it
// takes to submit one, to read one, to count them, to cancel one, and until a worker that
// comes has its first; and the memory of client and server.
func BenchmarkBacklog(b *testing.B) {
	const jobs = 100_000
	q, stop := serve(b, false)
	defer stop()
	var ids [jobs]string
	var group errgroup.Group
	for w := range 64 {
		group.Go(func() error {
			for i := w; i < jobs; i += 64 {
				job := &Job{Task: "text.complete", Tenant: fmt.Sprintf("t%d", i%2), Input: []byte(`{"prompt":"Once upon a time"}`)}
				if err := q.Submit(b.Context(), job); err != nil {
					return err
				}
				ids[i] = job.ID
			}
			return nil
		})
	}
	begun := time.Now()
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d jobs submitted: %.0f a second", jobs, jobs/time.Since(begun).Seconds())
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	b.Logf("%d MB of heap, %d MB from the system", memory.HeapAlloc>>20, memory.Sys>>20)
	next := 0
	for _, c := range []struct {
		name string
		one  func() error
	}{
		{"submit", func() error { return q.Submit(b.Context(), &Job{Task: "text.complete", Tenant: "t1"}) }},
		{"submit to a new line", func() error {
			next++
			return q.Submit(b.Context(), &Job{Task: "text.complete", Tenant: fmt.Sprintf("new-%d", next)})
		}},
		{"read", func() error {
			next++
			_, err := q.Job(b.Context(), ids[next%jobs])
			return err
		}},
		{"cancel", func() error {
			next++
			_, err := q.Cancel(b.Context(), ids[next%jobs])
			return err
		}},
		{"depth", func() error {
			_, err := q.Depth(b.Context())
			return err
		}},
		{"first lease", func() error {
			s, err := q.NewSource(b.Context(), "w", "text")
			if err != nil {
				return err
			}
			defer s.Close()
			_, err = s.Next(b.Context())
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if err := c.one(); err != nil && !errors.Is(err, ErrFinished) {
					b.Fatal(err)
				}
			}
		})
	}
}

package queue

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// TestGroups submits many jobs at once to a server that syncs every write, some of them
// twice: each is stored once, with its event.
func TestGroups(t *testing.T) {
	t.Parallel()
	q, _ := openAt(t, ServerConfig{Dir: t.TempDir(), Sync: true}, Options{Sync: true})
	const n = 200
	ids := make([]string, n)
	var all sync.WaitGroup
	for i := range ids {
		ids[i] = NewID()
		for range 1 + i%2 {
			all.Go(func() {
				job := &Job{ID: ids[i], Task: "text.complete"}
				if err := q.Submit(t.Context(), job); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	info, err := q.jobs.Info(t.Context())
	if err != nil || info.State.Msgs != n {
		t.Fatalf("%d jobs are stored, want %d: %v", info.State.Msgs, n, err)
	}
	for _, id := range ids {
		last, err := q.lastEvent(t.Context(), id)
		if err != nil || last == nil || last.Type != EventQueued || last.Job.ID != id {
			t.Fatalf("job %s: last event %+v, %v", id, last, err)
		}
	}
}

// TestGroupConflicts appends to many jobs at once, twice to each behind the same event:
// one of the two wins, and learns its sequence.
func TestGroupConflicts(t *testing.T) {
	t.Parallel()
	q, _ := openAt(t, ServerConfig{Dir: t.TempDir(), Sync: true}, Options{Sync: true})
	var conflicts atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		id := NewID()
		for range 2 {
			all.Go(func() {
				seq, err := q.append(t.Context(), &Event{Type: EventQueued, JobID: id, Job: &Job{ID: id}}, 0)
				if errors.Is(err, errConflict) {
					conflicts.Add(1)
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if last, err := q.lastEvent(t.Context(), id); err != nil || last.Seq != seq {
					t.Errorf("stored as %d, told %d: %v", last.Seq, seq, err)
				}
			})
		}
	}
	all.Wait()
	if conflicts.Load() != 50 {
		t.Errorf("%d conflicts, want 50", conflicts.Load())
	}
}

package queue

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestTailHoldsLittle reads a stream that grows faster: no more is on its way to the
// reader than was asked for.
func TestTailHoldsLittle(t *testing.T) {
	t.Parallel()
	const jobs = 4800
	q := open(t, Options{})
	submitMany(t, q, "a", jobs)
	tail := tail(t, q, 0)
	for n := 0; n < jobs; {
		events, err := tail.Next(t.Context(), time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		n += len(events)
		if waiting, _, err := tail.inbox.Pending(); err != nil || waiting > tailEvents+1 {
			t.Fatalf("%d events are on their way, %v", waiting, err)
		}
	}
}

// TestPace holds back whoever reads on while many jobs are accepted, and nobody else.
func TestPace(t *testing.T) {
	t.Parallel()
	q := &Queue{}
	var p pace
	if err := p.yield(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("ended")
	cancel(cause)
	if err := p.yield(ended, q); err != nil {
		t.Errorf("held back although nothing was accepted: %v", err)
	}
	q.accepted.Add(1 << 40)
	if err := p.yield(ended, q); !errors.Is(err, cause) {
		t.Errorf("not held back: %v", err)
	}
}

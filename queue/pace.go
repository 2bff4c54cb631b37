package queue

import (
	"context"
	"time"
)

// pace holds back what may wait while the process accepts many jobs: to accept them is
// more urgent.
type pace struct {
	accepted int64 // jobs that the process had accepted at the time since
	since    time.Time
}

// A process that accepts so many jobs a second reads on a little later.
const (
	yieldRate = 1000
	yieldTime = 500 * time.Millisecond
)

// yield waits for a while if many jobs have been accepted since it was called last.
func (p *pace) yield(ctx context.Context, q *Queue) error {
	now, accepted := time.Now(), q.accepted.Load()
	rate := float64(accepted-p.accepted) / max(now.Sub(p.since), time.Millisecond).Seconds()
	p.accepted, p.since = accepted, now
	if rate < yieldRate {
		return nil
	}
	later := time.NewTimer(yieldTime)
	defer later.Stop()
	select {
	case <-later.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package storetest

import (
	"context"
	"iter"
	"sync/atomic"
	"time"

	"helicon/queue"
)

// Aged is a store in which everything that was used before a moment is two hours older.
type Aged struct {
	queue.Store
	moment atomic.Int64
}

// Pass makes now that moment.
func (a *Aged) Pass() { a.moment.Store(time.Now().UnixNano()) }

func (a *Aged) at(touched time.Time) time.Time {
	if touched.UnixNano() <= a.moment.Load() {
		return touched.Add(-2 * time.Hour)
	}
	return touched
}

// Info implements queue.Store.
func (a *Aged) Info(ctx context.Context, tenant, digest string) (queue.Artifact, time.Time, error) {
	about, touched, err := a.Store.Info(ctx, tenant, digest)
	return about, a.at(touched), err
}

// All implements queue.Store.
func (a *Aged) All(ctx context.Context) iter.Seq2[queue.Stored, error] {
	return func(yield func(queue.Stored, error) bool) {
		for one, err := range a.Store.All(ctx) {
			one.Touched = a.at(one.Touched)
			if !yield(one, err) {
				return
			}
		}
	}
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Artifacts that nothing refers to are deleted when they have become old enough. Who is
// about to refer to stored bytes therefore makes them young again (refresh), and both do
// what they do to one artifact under a lock, so that nothing is deleted that was found
// to be there a moment ago.

// LeastAge is the least age at which artifacts may be discarded: they stay for so long,
// less freshFor, after they were stored, found stored, or named by a job that was accepted.
const LeastAge = time.Hour

const (
	freshFor   = 30 * time.Minute // what is younger need not be refreshed
	lockTTL    = time.Minute      // after which the lock of a process that died is free
	lockPoll   = 20 * time.Millisecond
	lockedWork = 30 * time.Second // that is done under a lock
)

// refresh returns the description of stored bytes and makes them young; ErrNoArtifact if
// there are none.
func (q *Queue) refresh(ctx context.Context, tenant, digest string) (Artifact, error) {
	about, touched, err := q.stored(ctx, tenant, digest)
	if err != nil || time.Since(touched) < freshFor {
		return about, err
	}
	err = q.locked(ctx, tenant, digest, func(ctx context.Context) error { return q.artifacts.Touch(ctx, tenant, digest) })
	if err != nil {
		return Artifact{}, fmt.Errorf("queue: artifact %s: %w", digest, err)
	}
	return about, nil
}

// refer makes the artifacts young that a job's input names; it may name others.
func (q *Queue) refer(ctx context.Context, job *Job) error {
	for digest := range Digests(job.Input) {
		if _, err := q.refresh(ctx, job.Tenant, digest); err != nil && !errors.Is(err, ErrNoArtifact) {
			return err
		}
	}
	return nil
}

// Digests returns what could be a SHA-256 in a text: each run of exactly 64 small
// hexadecimal digits.
func Digests(text []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		run := 0
		for i := 0; i <= len(text); i++ {
			if i < len(text) && (text[i] >= '0' && text[i] <= '9' || text[i] >= 'a' && text[i] <= 'f') {
				run++
				continue
			}
			if run == 64 && !yield(string(text[i-64:i])) {
				return
			}
			run = 0
		}
	}
}

// Discard deletes stored bytes that were last put or refreshed before a time, which must
// be LeastAge ago, and reports whether it did. There may be none.
func (q *Queue) Discard(ctx context.Context, tenant, digest string, before time.Time) (discarded bool, err error) {
	if time.Since(before) < LeastAge {
		return false, fmt.Errorf("queue: artifact %s: not to be discarded within %v", digest, LeastAge)
	}
	err = q.locked(ctx, tenant, digest, func(ctx context.Context) error {
		_, touched, err := q.artifacts.Info(ctx, tenant, digest)
		if errors.Is(err, ErrNoArtifact) || err == nil && !touched.Before(before) {
			return nil
		}
		if err != nil {
			return err
		}
		discarded = true
		return q.artifacts.Delete(ctx, tenant, digest)
	})
	if err != nil {
		return false, fmt.Errorf("queue: artifact %s: %w", digest, err)
	}
	return discarded, nil
}

// locked does work while nobody else does any on the same artifact.
func (q *Queue) locked(ctx context.Context, tenant, digest string, work func(context.Context) error) error {
	name := tenant + "." + digest
	revision, err := q.locks.Create(ctx, name, nil)
	for errors.Is(err, jetstream.ErrKeyExists) {
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		revision, err = q.locks.Create(ctx, name, nil)
	}
	if err != nil {
		return q.explain(err)
	}
	// A lock that is not taken off goes by itself.
	defer func() { _ = q.locks.Purge(context.WithoutCancel(ctx), name, jetstream.LastRevision(revision)) }()
	ctx, cancel := context.WithTimeout(ctx, lockedWork)
	defer cancel()
	return work(ctx)
}

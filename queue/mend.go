package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Names of streams, for who copies them whole.
const (
	JobsStream   = jobsStream
	EventsStream = eventsStream
)

// FleetingStreams returns the streams of what lives for seconds: who is there, who holds a lock.
func FleetingStreams() []string { return []string{"KV_" + workerBucket, "KV_" + locksBucket} }

// apiPrefix begins the subjects of requests about streams that nats.go has no method for.
const apiPrefix = "$JS.API.STREAM."

// Conn is the connection that the queue was opened on.
func (q *Queue) Conn() *nats.Conn { return q.nc }

// Mend puts jobs back into the work queue that have not ended and are not in it: those that
// were accepted between the copies of the two streams. Only jobs with events behind the
// sequence after can be among them. It returns how many there were.
func (q *Queue) Mend(ctx context.Context, after uint64) (int, error) {
	seen, err := q.touched(ctx, after)
	if err != nil {
		return 0, fmt.Errorf("queue: mend: %w", q.explain(err))
	}
	mended := 0
	for id := range seen {
		job, err := q.Job(ctx, id)
		if err != nil {
			return mended, err
		}
		if job.State.Terminal() {
			continue
		}
		msg, err := q.pending(ctx, id)
		if err != nil {
			return mended, err
		}
		if msg != nil {
			continue
		}
		if err := q.publish(ctx, job); err != nil {
			return mended, err
		}
		mended++
	}
	return mended, nil
}

// touched lists the ids of jobs with events behind the sequence after.
func (q *Queue) touched(ctx context.Context, after uint64) (map[string]bool, error) {
	info, err := q.events.Info(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for last := info.State.LastSeq; after < last; {
		msg, err := q.events.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject("events.*"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		seen[strings.TrimPrefix(msg.Subject, "events.")] = true
		after = msg.Sequence
	}
	return seen, nil
}

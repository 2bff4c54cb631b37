package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Cancel ends a job that has not ended: the terminal event is appended first, so
// that the cancel holds whatever happens to the worker, then the worker is told to
// stop. It returns the job as canceled; ErrFinished, with the job, if it had ended.
func (q *Queue) Cancel(ctx context.Context, id string) (*Job, error) {
	for {
		job, last, err := q.load(ctx, id)
		if err != nil {
			return nil, err
		}
		if job.State.Terminal() {
			return job, ErrFinished
		}
		now := time.Now().UTC()
		job.State = Canceled
		job.Finished = &now
		var seq uint64
		if last != nil {
			seq = last.Seq
		}
		seq, err = q.append(ctx, &Event{Type: EventCanceled, JobID: id, Job: job}, seq)
		if errors.Is(err, errConflict) {
			continue // the job moved on: look again
		}
		if err != nil {
			return nil, err
		}
		job.Revision = seq
		if err := q.nc.Publish(cancelSubject(id), nil); err != nil {
			return nil, fmt.Errorf("queue: cancel %s: %w", id, q.explain(err))
		}
		return job, q.dequeue(ctx, id)
	}
}

// dequeue removes the job's message from JOBS if it is there.
func (q *Queue) dequeue(ctx context.Context, id string) error {
	msg, err := q.pending(ctx, id)
	if err != nil || msg == nil {
		return err
	}
	err = q.jobs.DeleteMsg(ctx, msg.Sequence)
	if err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("queue: dequeue %s: %w", id, q.explain(err))
	}
	return nil
}

// Retry submits the request of a failed or canceled job again, as a new job with
// the same input and seed. ErrNotFinished while it may still succeed, ErrFinished
// if it has succeeded.
func (q *Queue) Retry(ctx context.Context, id string) (*Job, error) {
	old, err := q.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	switch {
	case !old.State.Terminal():
		return nil, ErrNotFinished
	case old.State == Succeeded:
		return nil, ErrFinished
	}
	job := &Job{
		Tenant: old.Tenant, Task: old.Task, Model: old.Model, Input: old.Input, Seed: old.Seed,
		Priority: old.Priority, Needs: old.Needs, Batch: old.Batch, Pipeline: old.Pipeline,
		Tags: old.Tags, Webhook: old.Webhook, WebhookEvents: old.WebhookEvents, RetryOf: old.ID,
	}
	return job, q.Submit(ctx, job)
}

// Delete forgets a job that has ended. Its artifacts stay: other jobs may share
// their bytes. ErrNotFinished if it has not ended.
func (q *Queue) Delete(ctx context.Context, id string) error {
	job, err := q.Job(ctx, id)
	if err != nil {
		return err
	}
	if !job.State.Terminal() {
		return ErrNotFinished
	}
	// The message first: found without events, it would run again.
	if err := q.dequeue(ctx, id); err != nil {
		return err
	}
	if err := q.events.Purge(ctx, jetstream.WithPurgeSubject("events."+id)); err != nil {
		return fmt.Errorf("queue: delete %s: %w", id, q.explain(err))
	}
	return nil
}

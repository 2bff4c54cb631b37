package generators

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"helicon/queue"
)

// errDraining is the cause that stops jobs when the worker must end.
var errDraining = errors.New("generators: the worker is shutting down")

// attempt is one run at one job.
type attempt struct {
	worker  *Worker
	lease   *queue.Lease
	log     *slog.Logger
	started bool // the job was recorded as running
}

// contexts are the lifetimes that an attempt depends on, from the shortest.
type contexts struct {
	accepting context.Context // until the worker begins to drain
	running   context.Context // until running jobs have to stop
	writing   context.Context // until what became of them has to be written
}

// serve runs a leased job and commits what became of it.
func (w *Worker) serve(ctx contexts, lease *queue.Lease) {
	a := &attempt{worker: w, lease: lease, log: w.log.With("job", lease.Job.ID, "task", lease.Job.Task)}
	held, release, err := lease.Hold(ctx.running)
	if err != nil {
		a.log.Error("the job could not be held", "err", err) // it is delivered again
		return
	}
	defer release()
	w.enter(lease.Job.ID)
	defer w.leave(lease.Job.ID)
	begun := time.Now()
	w.metrics.leased(lease.Job, begun)
	defer w.metrics.left(lease.Job)
	held = w.begin(held, lease.Job)
	ctx.writing = trace.ContextWithSpan(ctx.writing, trace.SpanFromContext(held))
	result, ran := a.run(ctx, held)
	// The heartbeat goes on: while the message server is away a commit may take long.
	err = within(ctx.writing, "commit", func(ctx context.Context) error { return a.commit(ctx, result, ran) })
	a.observe(held, outcome(ran, err, lease.Job.State), begun)
	switch {
	case lost(err):
		a.log.Info("job stopped", "cause", err)
	case err != nil:
		a.log.Warn("the outcome could not be recorded; the job is delivered again", "err", err)
	default:
		a.log.Info("job handled", "state", lease.Job.State, "seconds", time.Since(begun).Seconds())
	}
}

// run makes the result. If it fails because the context of the lease ended, the
// error is that context's cause.
func (a *attempt) run(ctx contexts, held context.Context) (result *queue.Result, err error) {
	held, stop := context.WithCancelCause(held)
	defer stop(nil)
	defer func() {
		if v := recover(); v != nil {
			result, err = nil, newPanicError(v)
		}
		if err != nil && held.Err() != nil {
			err = context.Cause(held)
		}
	}()
	job := a.lease.Job
	g, ok := a.worker.generators[job.Task]
	if !ok {
		// Another worker of the modality may know it, as in the middle of an upgrade.
		return nil, Transient(queue.Problemf("unknown_task", "The worker does not know the task %s.", job.Task))
	}
	need, err := g.Estimate(job)
	if err != nil {
		return nil, err
	}
	if job.Model == "" {
		job.Model = cmp.Or(need.Model.ID, need.Model.Key) // from here on the job names what it runs on
	}
	free, err := a.admit(ctx, held, need)
	if err != nil {
		return nil, err
	}
	defer free()
	if err := a.start(ctx.writing); err != nil {
		return nil, err
	}
	out := newOutput(ctx.writing, a.worker.queue, a.lease, a.log, stop)
	defer out.close()
	begun := time.Now()
	result, err = g.Generate(held, a.lease.Job, a.lease.Needs, out)
	if err != nil {
		return nil, err
	}
	if result == nil {
		return nil, fmt.Errorf("generators: %s ended without a result", job.Task)
	}
	a.worker.metrics.written(a.lease.Job, result.Usage, begun, out.phases.end())
	out.close()
	return result, out.flush(ctx.writing)
}

// admit waits for the memory of the job, unless the worker is to end.
func (a *attempt) admit(ctx contexts, held context.Context, need Need) (free func(), err error) {
	waiting, stop := context.WithCancelCause(held)
	defer stop(nil)
	defer context.AfterFunc(ctx.accepting, func() { stop(errDraining) })()
	return a.worker.memory.Acquire(waiting, need)
}

func (a *attempt) start(ctx context.Context) error {
	if a.started {
		return nil
	}
	if err := a.lease.Start(ctx); err != nil {
		return err
	}
	a.started = true
	a.worker.metrics.attempts.WithLabelValues(a.lease.Job.Task).Inc()
	return nil
}

// commit writes what became of the job by the kind of err.
func (a *attempt) commit(ctx context.Context, result *queue.Result, err error) error {
	var problem *queue.Problem
	var panicked *panicError
	switch {
	case err == nil:
		err = a.lease.Succeed(ctx, result)
		for errors.Is(err, queue.ErrFull) && pause(ctx, awayPause) {
			err = a.lease.Succeed(ctx, result) // finished work is worth waiting for room
		}
		if errors.Is(err, queue.ErrTooLarge) {
			return a.lease.Fail(ctx, queue.Problemf("result_too_large", "The result is larger than the queue carries."))
		}
		return err
	case lost(err):
		return err
	case errors.Is(err, errDraining):
		return a.lease.Release(ctx)
	case IsTransient(err):
		a.log.Warn("attempt failed", "err", err)
		return a.retry(ctx, err)
	case errors.As(err, &problem):
		return a.lease.Fail(ctx, problem)
	case errors.As(err, &panicked):
		a.log.Error("attempt failed", "err", err, "stack", panicked.stack)
		return a.retry(ctx, err)
	default:
		a.log.Error("attempt failed", "err", err)
		return a.retry(ctx, err)
	}
}

// lost reports whether err says that the job is not this worker's any more.
func lost(err error) bool {
	return errors.Is(err, queue.ErrCanceled) || errors.Is(err, queue.ErrLeaseLost)
}

// retry ends the attempt and has the job tried again. A job that failed before its
// start is started, so that the attempt counts.
func (a *attempt) retry(ctx context.Context, err error) error {
	if err := a.start(ctx); err != nil {
		return err
	}
	reason := "an internal error, which the log has in full"
	var problem *queue.Problem
	if errors.As(err, &problem) {
		reason = problem.Detail
	}
	return a.lease.Retry(ctx, reason)
}

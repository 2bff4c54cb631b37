package batch

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"helicon/queue"
)

// Config describes a Coordinator. Queue and Gateway are required.
type Config struct {
	Queue   *queue.Queue
	Gateway Gateway
	Log     *slog.Logger
	Slots   int                  // batches at once; default 32
	Ended   func(succeeded bool) // is told of every row that has ended; nil: nobody is
}

// Coordinator runs batches.
type Coordinator struct {
	queue   *queue.Queue
	gateway Gateway
	log     *slog.Logger
	slots   int
	ended   func(succeeded bool)
	name    string
}

// New returns a coordinator that does nothing yet.
func New(c Config) (*Coordinator, error) {
	if c.Queue == nil || c.Gateway == nil || c.Slots < 0 {
		return nil, errors.New("batch: config: want a queue, a gateway and at least 0 slots")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Ended == nil {
		c.Ended = func(bool) {}
	}
	return &Coordinator{
		queue: c.Queue, gateway: c.Gateway, log: c.Log, slots: cmp.Or(c.Slots, 32), ended: c.Ended,
		name: "batches-" + strings.ToLower(rand.Text()[:12]),
	}, nil
}

// awayPause is the time between attempts to lease a batch while that fails.
const awayPause = time.Second

// Run leases and runs batches until ctx ends. Then it hands them back and returns.
func (c *Coordinator) Run(ctx context.Context) error {
	source, err := c.queue.NewSource(ctx, c.name, "batch")
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("batch: %w", err)
	}
	defer source.Close()
	source.Tireless()
	var batches sync.WaitGroup
	defer batches.Wait()
	free := make(chan struct{}, c.slots)
	last := "" // error, to log it once
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		lease, err := source.Next(ctx)
		if lease == nil {
			<-free
			if ctx.Err() != nil {
				return nil
			}
			if err.Error() != last {
				c.log.Warn("no batch can be leased", "err", err)
				last = err.Error()
			}
			pause(ctx, awayPause)
			continue
		}
		last = ""
		batches.Go(func() {
			defer func() { <-free }()
			c.serve(ctx, lease)
		})
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// endPatience is how long a coordinator that stops tries to hand a batch back.
const endPatience = 3 * time.Second

// serve runs one batch as far as it can and says what becomes of its job.
func (c *Coordinator) serve(ctx context.Context, lease *queue.Lease) {
	log := c.log.With("batch", lease.Job.ID)
	err := c.attempt(ctx, lease)
	var problem *queue.Problem
	switch {
	case err == nil, errors.Is(err, queue.ErrLeaseLost), errors.Is(err, queue.ErrCanceled):
		return
	case errors.As(err, &problem) && ctx.Err() == nil:
		err = lease.Fail(ctx, problem)
	default:
		if ctx.Err() == nil {
			log.Warn("the batch is interrupted and will be taken up again", "err", err)
			pause(ctx, awayPause)
		}
		// It goes on where it stopped, here or elsewhere.
		handing, done := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
		defer done()
		err = lease.Release(handing)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, queue.ErrCanceled) && !errors.Is(err, queue.ErrLeaseLost) {
		log.Warn("the batch's lease runs out", "err", err)
	}
}

// attempt runs the batch under its lease. It returns nil when the batch has ended and a
// *queue.Problem when it cannot be run.
func (c *Coordinator) attempt(ctx context.Context, lease *queue.Lease) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			c.log.Error("panic", "batch", lease.Job.ID, "reason", reason, "stack", string(debug.Stack()))
			err = queue.Problemf("internal", "The batch cannot be run; the server's log has the reason.")
		}
	}()
	held, release, err := lease.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := lease.Start(held); err != nil {
		return err
	}
	spec, err := specOf(lease.Job)
	if err != nil {
		return queue.Problemf("unreadable_job", "The batch cannot be read.")
	}
	r := &run{
		coordinator: c, lease: lease, job: lease.Job, spec: spec, id: rand.Text(),
		ended: map[int]outcome{}, account: Account{Phase: Validating}, began: time.Now(),
	}
	err = r.run(c.gateway.As(held, lease.Job.Tenant))
	if cause := context.Cause(held); err != nil && cause != nil && ctx.Err() == nil {
		if errors.Is(cause, queue.ErrCanceled) { // past the account: at least its rows end
			tidying, done := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
			defer done()
			r.sweep(tidying)
		}
		return cause
	}
	return err
}

package batch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"helicon/gateway/batch/table"
	"helicon/queue"
)

// run is one coordinator's work at one batch.
type run struct {
	coordinator *Coordinator
	lease       *queue.Lease
	job         *queue.Job
	spec        *Spec
	id          string // in the account: another's there means that the batch is lost
	began       time.Time
	resumed     int // rows up to this one may have been submitted by an earlier run
	before      int // rows that had ended then

	saving   sync.Mutex // held while the account is written
	revision uint64

	mu      sync.Mutex
	account Account
	ended   map[int]outcome // of rows behind the mark
	changed bool            // since the account was written
}

// outcome is what became of a row.
type outcome struct {
	succeeded bool
	faults    []table.Fault
}

// Why a batch ends before all its rows.
var (
	errCanceled = errors.New("batch: canceled")
	errExpired  = errors.New("batch: expired")
)

// beat is how often the account is written, progress told, and the end looked for.
const beat = 500 * time.Millisecond

// run takes the batch from wherever it is to its end. A *queue.Problem says that it cannot
// be run; other errors that it cannot go on now.
func (r *run) run(ctx context.Context) error {
	if err := r.take(ctx); err != nil {
		return err
	}
	if r.account.Phase != Finalizing {
		if err := r.work(ctx); err != nil {
			return err
		}
	}
	if r.account.Total > 0 { // else it was to end before its rows were counted
		if err := r.finalize(ctx); err != nil {
			return err
		}
	}
	return r.commit(ctx)
}

// take takes the account over from the run before.
func (r *run) take(ctx context.Context) error {
	batches := r.coordinator.queue.Batches()
	for {
		r.account = Account{Phase: Validating}
		revision, err := batches.Get(ctx, r.job.Tenant, r.job.ID, &r.account)
		if err != nil && !errors.Is(err, queue.ErrNoRecord) {
			return err
		}
		r.account.Run = r.id
		r.account.Succeeded, r.account.Failed = r.account.MarkSucceeded, r.account.MarkFailed
		r.resumed, r.before = r.account.Reserved, r.account.Mark
		r.revision, err = batches.Put(ctx, r.job.Tenant, r.job.ID, &r.account, revision)
		if !errors.Is(err, queue.ErrChanged) {
			return err
		}
	}
}

// work validates the file and runs the rows, until all have ended or the batch is to end
// before that: then those that have not are canceled.
func (r *run) work(ctx context.Context) error {
	err := r.tend(ctx, func(ctx context.Context) error {
		if r.account.Phase == Validating {
			if err := r.validate(ctx); err != nil {
				return err
			}
		}
		return r.drive(ctx)
	})
	end := ""
	switch {
	case errors.Is(err, errCanceled):
		end = codeCanceled
	case errors.Is(err, errExpired):
		end = codeExpired
	case err != nil:
		return err
	}
	if end != "" {
		if err := r.sweep(ctx); err != nil {
			return err
		}
	}
	return r.change(ctx, func(a *Account) {
		now := time.Now().UTC()
		a.Phase, a.Closed, a.End = Finalizing, &now, end
	})
}

// change changes the account and writes it.
func (r *run) change(ctx context.Context, change func(*Account)) error {
	r.mu.Lock()
	change(&r.account)
	r.mu.Unlock()
	return r.save(ctx)
}

// save writes the account. Whoever asks for the batch to be canceled has written to it as
// well, which is taken over; another run's name in it means that this one has lost.
func (r *run) save(ctx context.Context) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	batches := r.coordinator.queue.Batches()
	for {
		r.mu.Lock()
		account := r.account
		account.Faults = slices.Clone(account.Faults)
		r.changed = false
		r.mu.Unlock()
		revision, err := batches.Put(ctx, r.job.Tenant, r.job.ID, &account, r.revision)
		if err == nil {
			r.revision = revision
			return nil
		}
		if !errors.Is(err, queue.ErrChanged) {
			return err
		}
		if err := r.look(ctx); err != nil {
			return err
		}
	}
}

// look reads what others have written to the account. saving is held.
func (r *run) look(ctx context.Context) error {
	stored := Account{Run: r.id} // a record that has gone is nobody else's
	revision, err := r.coordinator.queue.Batches().Get(ctx, r.job.Tenant, r.job.ID, &stored)
	if err != nil && !errors.Is(err, queue.ErrNoRecord) {
		return err
	}
	if stored.Run != r.id {
		return queue.ErrLeaseLost
	}
	r.revision = revision
	r.mu.Lock()
	defer r.mu.Unlock()
	if stored.Canceling != nil {
		r.account.Canceling = stored.Canceling
	}
	return nil
}

// tend does the work while it keeps the account and looks for the end of the batch, of
// which its context and its error tell by their cause.
func (r *run) tend(ctx context.Context, work func(context.Context) error) error {
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	switch {
	case r.account.Canceling != nil:
		return errCanceled
	case !time.Now().Before(r.spec.Expires):
		return errExpired
	}
	expiry := time.AfterFunc(time.Until(r.spec.Expires), func() { stop(errExpired) })
	defer expiry.Stop()
	var tending sync.WaitGroup
	tending.Go(func() {
		ticker := time.NewTicker(beat)
		defer ticker.Stop()
		for {
			select {
			case <-working.Done():
				return
			case <-ticker.C:
			}
			if err := r.beat(working); err != nil {
				stop(err)
			}
		}
	})
	err := work(working)
	if cause := context.Cause(working); err != nil && cause != nil {
		err = cause
	}
	stop(nil)
	tending.Wait()
	return err
}

// beat writes what has changed, tells the progress and looks whether the batch is to be
// canceled. While the message server is away it does nothing.
func (r *run) beat(ctx context.Context) error {
	r.mu.Lock()
	changed, progress := r.changed, r.progress()
	r.mu.Unlock()
	var err error
	if changed {
		if err = r.save(ctx); err == nil {
			err = r.lease.Emit(ctx, queue.Event{Type: queue.EventProgress, Progress: progress})
		}
	} else {
		r.saving.Lock()
		err = r.look(ctx)
		r.saving.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(err, queue.ErrUnavailable), errors.Is(err, queue.ErrFull):
		return nil
	case err == nil && r.account.Canceling != nil:
		return errCanceled
	}
	return err
}

// progress is how far the batch is. mu is held.
func (r *run) progress() *queue.Progress {
	done := r.account.Succeeded + r.account.Failed
	p := &queue.Progress{Step: done, Total: r.account.Total, Failed: r.account.Failed}
	if fresh := done - r.before; fresh > 0 {
		p.ETA = time.Since(r.began).Seconds() / float64(fresh) * float64(r.account.Total-done)
	}
	return p
}

// open reads the batch's file from its first row.
func (r *run) open(ctx context.Context) (*source, error) {
	return open(ctx, r.coordinator.queue, r.coordinator.gateway, r.job, r.spec, r.account.Encoding)
}

// validate reads the whole file once.
func (r *run) validate(ctx context.Context) error {
	s, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	v, err := s.look(ctx)
	if err != nil {
		return err
	}
	if err := r.change(ctx, func(a *Account) {
		now := time.Now().UTC()
		a.Encoding, a.Columns, a.Total = v.encoding, v.columns, v.rows
		if len(v.faults) == 0 {
			a.Phase, a.Begun = InProgress, &now
		}
		a.Faults, a.FaultCount = v.faults, v.count
	}); err != nil || len(v.faults) == 0 {
		return err
	}
	first := v.faults[0]
	return queue.Problemf(first.Code, "The file has %d errors; no row was begun. The first, in line %d: %s", v.count, first.Line, first.Message)
}

// chunk is how many rows are reserved at once.
const chunk = 256

// drive submits the rows that have not ended and waits for them, a bounded number at once.
func (r *run) drive(ctx context.Context) error {
	s, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	rows, ctx := errgroup.WithContext(ctx)
	slots := semaphore.NewWeighted(int64(r.spec.Concurrency))
	err = r.feed(ctx, s, rows, slots)
	// The error of a row comes before that of what it has stopped.
	if failed := rows.Wait(); failed != nil {
		return failed
	}
	return err
}

// feed starts a goroutine for each row that has not ended.
func (r *run) feed(ctx context.Context, s *source, rows *errgroup.Group, slots *semaphore.Weighted) error {
	mark := r.account.Mark // what moves it from here on are the rows that are started
	for {
		row, err := s.next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if row.row.Number <= mark {
			continue
		}
		weight := min(int64(max(len(row.jobs), 1)), int64(r.spec.Concurrency))
		if err := slots.Acquire(ctx, weight); err != nil {
			return context.Cause(ctx)
		}
		if row.row.Number > r.account.Reserved {
			// Written before the first of them is submitted: the next run looks for those.
			reserve := func() error {
				return r.change(ctx, func(a *Account) { a.Reserved = row.row.Number + max(chunk, r.spec.Concurrency) })
			}
			if err := insist(ctx, reserve); err != nil {
				return err
			}
		}
		rows.Go(func() error {
			defer slots.Release(weight)
			return insist(ctx, func() error { return r.settle(ctx, s, row) })
		})
	}
}

// insist does something again while the message server is away or full.
func insist(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || !errors.Is(err, queue.ErrUnavailable) && !errors.Is(err, queue.ErrFull) {
			return err
		}
		pause(ctx, awayPause)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// settle sees to it that the jobs of a row exist, and waits until they have ended.
func (r *run) settle(ctx context.Context, s *source, row *request) error {
	number := row.row.Number
	if row.problem == nil {
		made, err := r.taken(ctx, row)
		if err != nil {
			return err
		}
		if made != nil {
			r.settled(number, outcome{succeeded: true})
			return nil
		}
		if err := r.submit(ctx, s, row); err != nil {
			return err
		}
	}
	if row.problem != nil {
		r.settled(number, outcome{faults: row.faults})
		return nil
	}
	o := outcome{succeeded: true}
	for _, job := range row.jobs {
		ended, err := r.coordinator.queue.Wait(ctx, job.ID)
		if errors.Is(err, queue.ErrNotFound) { // deleted by somebody
			o.succeeded = false
			continue
		}
		if err != nil {
			return err
		}
		o.succeeded = o.succeeded && ended.State == queue.Succeeded
	}
	r.settled(number, o)
	return nil
}

// submit submits the jobs of a row, but for those that an earlier run has submitted. A
// problem of theirs becomes the row's.
func (r *run) submit(ctx context.Context, s *source, row *request) error {
	missing := row.jobs
	if row.row.Number <= r.resumed || row.tried {
		missing = nil
		for _, job := range row.jobs {
			_, err := r.coordinator.queue.Job(ctx, job.ID)
			if errors.Is(err, queue.ErrNotFound) {
				missing = append(missing, job)
			} else if err != nil {
				return err
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := s.check(ctx, row); err != nil || row.problem != nil {
		return err
	}
	row.tried = true
	for _, job := range missing {
		own := *job // which the queue fills in
		err := r.coordinator.queue.Submit(ctx, &own)
		switch status, problem := s.gateway.Explain(err); {
		case err == nil, errors.Is(err, queue.ErrNotFound): // the latter has been submitted, and deleted since
		case status < 500:
			row.reject(problem)
			return nil
		default:
			return fmt.Errorf("batch: job %s: %w", job.ID, err)
		}
	}
	return nil
}

// settled notes what became of a row and moves the mark behind the rows that have ended.
func (r *run) settled(row int, o outcome) {
	r.coordinator.ended(o.succeeded)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed = true
	a := &r.account
	if o.succeeded {
		a.Succeeded++
	} else {
		a.Failed++
	}
	a.note(o.faults...)
	r.ended[row] = o
	for {
		o, ok := r.ended[a.Mark+1]
		if !ok {
			return
		}
		a.Mark++
		delete(r.ended, a.Mark)
		if o.succeeded {
			a.MarkSucceeded++
		} else {
			a.MarkFailed++
		}
	}
}

// sweep cancels the jobs of rows that have not ended, of whatever run; the last ones first,
// so that few are begun in the place of those that are stopped.
func (r *run) sweep(ctx context.Context) error {
	open, err := r.unfinished(ctx)
	if err != nil {
		return err
	}
	slices.Reverse(open)
	jobs, ctx := errgroup.WithContext(ctx)
	jobs.SetLimit(16)
	for _, id := range open {
		jobs.Go(func() error {
			_, err := r.coordinator.queue.Cancel(ctx, id)
			if errors.Is(err, queue.ErrNotFound) || errors.Is(err, queue.ErrFinished) {
				return nil
			}
			return err
		})
	}
	return jobs.Wait()
}

// unfinished are the ids of the jobs that may have been submitted and not have ended.
func (r *run) unfinished(ctx context.Context) ([]string, error) {
	r.mu.Lock()
	first, last := r.account.Mark+1, min(r.account.Reserved, r.account.Total)
	r.mu.Unlock()
	if first > last {
		return nil, nil
	}
	s, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var ids []string
	for {
		row, err := s.next(ctx)
		if err == io.EOF || err == nil && row.row.Number > last {
			return ids, nil
		}
		if err != nil {
			return nil, err
		}
		if row.row.Number < first {
			continue
		}
		for _, job := range row.jobs {
			ids = append(ids, job.ID)
		}
	}
}

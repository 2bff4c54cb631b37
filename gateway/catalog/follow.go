package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"helicon/queue"
)

// projection is what a running Follow tells the others of its process.
type projection struct {
	mu      sync.Mutex
	leading bool // this process projects
	at      position
	pending uint64    // events that wait to be projected
	since   time.Time // when the first of those that wait was seen; zero: none waits
}

// Times of following.
const (
	gather     = 10 * time.Millisecond  // events that come within it are one transaction
	settle     = 250 * time.Millisecond // after which a position without news is written, too
	again      = time.Second            // between attempts
	leaderPoll = time.Second            // between looks whether another gateway still projects
	tidyEvery  = time.Hour
)

// Follow projects the events of the queue until ctx ends. What it cannot reach, the queue
// or the database, it waits for; nothing is projected twice and nothing left out that the
// queue has kept. Of several gateways that share a database one projects, and another
// takes over when it has gone.
func (c *Catalog) Follow(ctx context.Context, q *queue.Queue) error {
	for last := ""; ; {
		err := c.lead(ctx, q)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, errMoved) && err.Error() != last {
			last = err.Error()
			c.log.Warn("the catalog is not brought up to date; trying again until it is", "err", err)
		}
		if err == nil {
			last = ""
		}
		if !pause(ctx, again) {
			return nil
		}
	}
}

// pause waits and reports whether ctx lasts.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lead projects as long as this process is the one to do so. With PostgreSQL that is the
// one that holds a lock, which the server takes from a connection that ends; the position
// guards what the lock cannot.
func (c *Catalog) lead(ctx context.Context, q *queue.Queue) error {
	if !c.postgres {
		return c.project(ctx, q)
	}
	conn, err := c.db.Conn(ctx)
	if err != nil {
		return explain(err)
	}
	defer conn.Close()
	for {
		var mine bool
		const lock = "hashtext('helicon catalog ' || current_schema())"
		if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock("+lock+")").Scan(&mine); err != nil {
			return explain(err)
		}
		if mine {
			defer func() {
				// Where that fails, the connection has ended, and the lock with it.
				_, _ = conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock("+lock+")")
			}()
			return c.project(ctx, q)
		}
		if err := c.watch(ctx, q); err != nil || !pause(ctx, leaderPoll) {
			return err
		}
	}
}

// watch takes notice of how far another process has come.
func (c *Catalog) watch(ctx context.Context, q *queue.Queue) error {
	at, err := c.position(ctx)
	if err != nil {
		return err
	}
	log, err := q.EventLog(ctx)
	if err != nil {
		return err
	}
	c.reached(at, max(log.Last, uint64(at.sequence))-uint64(at.sequence))
	return nil
}

// project reads the events behind the position, sweeps once when it has caught up, and
// goes on as they come.
func (c *Catalog) project(ctx context.Context, q *queue.Queue) error {
	at, err := c.locate(ctx, q)
	if err != nil {
		return err
	}
	tail, err := q.Tail(ctx, uint64(at.sequence))
	if err != nil {
		return err
	}
	defer tail.Close(context.WithoutCancel(ctx))
	c.setLeading(true)
	defer c.setLeading(false)
	c.reached(at, tail.Pending())
	run := &run{c: c, tail: tail, saved: at, at: at, enough: fewChanges, pending: tail.Pending(), seen: time.Now()}
	for tail.Pending() > 0 {
		if err := run.next(ctx); err != nil {
			return err
		}
	}
	if err := c.sweep(ctx, q, run.saved); err != nil {
		return fmt.Errorf("catalog: sweep: %w", err)
	}
	for {
		if err := run.next(ctx); err != nil {
			return err
		}
	}
}

// run is one attempt to project: as long as the connections last.
type run struct {
	c     *Catalog
	tail  *queue.Tail
	saved position // as it is in the database
	at    position // as it is read
	wrote time.Time
	tidy  time.Time

	pending uint64    // events that waited when they were looked at last
	seen    time.Time // when that was

	changes int // of jobs, roughly, since PostgreSQL's planner was told what there is
	enough  int // of them to tell it again
}

// Numbers of changes after which PostgreSQL's planner is told anew what is frequent, and
// which pages indexes can speak for: the server would see to it itself, but minutes later.
const (
	fewChanges  = 1000
	manyChanges = 200_000
)

// next projects some events. Where there is no news among them, only progress, the
// position is written after a while, for the other gateways.
func (r *run) next(ctx context.Context) error {
	events, err := r.read(ctx)
	if err != nil {
		return err
	}
	if len(events) > 0 {
		r.at.sequence = int64(events[len(events)-1].Seq)
	}
	begun := time.Now()
	news := slices.ContainsFunc(events, func(e *queue.Event) bool { return e.Job != nil || e.Type == "" })
	if news || r.at != r.saved && time.Since(r.wrote) >= settle {
		if r.saved, err = r.c.apply(ctx, r.saved, r.at, events); err != nil {
			return err
		}
		r.at, r.wrote = r.saved, time.Now()
	}
	r.c.reached(r.at, r.tail.Pending())
	if r.changes += len(events); r.c.postgres && news && r.changes >= r.enough {
		r.changes, r.enough = 0, min(2*r.enough, manyChanges)
		if _, err := r.c.db.ExecContext(ctx, "VACUUM (ANALYZE) jobs, terms"); err != nil {
			return explain(err)
		}
	}
	if time.Since(r.tidy) >= tidyEvery {
		r.tidy = time.Now()
		if err := r.c.tidy(ctx, r.saved); err != nil {
			return err
		}
	}
	r.yield(ctx, len(events), time.Since(begun))
	return nil
}

// In a rush of so many events a second the projection rests for so many times as long as
// it has worked.
const (
	rush = 1000
	rest = 7
)

// yield leaves the processors to those who cause the events, if they come faster than
// lists can be of use: the projection takes an eighth of one, falls behind, and catches up
// at full speed when the rush is over.
func (r *run) yield(ctx context.Context, read int, worked time.Duration) {
	pending, now := r.tail.Pending(), time.Now()
	came := float64(pending) + float64(read) - float64(r.pending)
	if came > rush*now.Sub(r.seen).Seconds() && pending > 0 {
		pause(ctx, rest*worked)
	}
	r.pending, r.seen = pending, now
}

// read waits for events; for some time only, if the position is still to be written.
func (r *run) read(ctx context.Context) ([]*queue.Event, error) {
	if r.at == r.saved {
		return r.tail.Next(ctx, gather)
	}
	brief, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	events, err := r.tail.Next(brief, gather)
	if err != nil && brief.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return events, err
}

// locate returns the position to go on from. If the stream is not the one that was
// followed, or ends before the position, it was lost: everything that the new one has is
// projected, and comes behind what was known.
func (c *Catalog) locate(ctx context.Context, q *queue.Queue) (position, error) {
	at, err := c.position(ctx)
	if err != nil {
		return at, err
	}
	log, err := q.EventLog(ctx)
	if err != nil {
		return at, err
	}
	if at.stream == log.ID && uint64(at.sequence) <= log.Last {
		return at, nil
	}
	if at.stream != "" {
		c.log.Warn("the stream of events is not the one that the catalog has followed; it is read from its beginning",
			"stream", log.ID, "last", log.Last, "followed", at.stream, "position", at.sequence)
	}
	to := position{stream: log.ID, epoch: at.epoch + 1}
	if at.stream == log.ID {
		to.notified = min(at.notified, int64(log.Last))
	}
	return to, c.write(ctx, func(tx *sql.Tx) error { return move(ctx, tx, at, to) })
}

// Rebuild indexes the jobs anew, of which it returns the number, and then has the
// projection made again from the events that the queue has kept, by whichever process
// follows. Jobs whose events have aged out stay, usage is not counted twice, and receivers
// of webhooks notice nothing.
func (c *Catalog) Rebuild(ctx context.Context) (jobs int, err error) {
	for num := int64(-1); ; {
		n := 0
		err := c.write(ctx, func(tx *sql.Tx) (err error) {
			num, n, err = c.reindex(ctx, tx, num)
			return err
		})
		if err != nil {
			return jobs, fmt.Errorf("catalog: rebuild: %w", err)
		}
		if jobs += n; n == 0 {
			break
		}
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE position SET epoch = epoch + 1, sequence = 0")
		return err
	})
	if err != nil {
		return jobs, fmt.Errorf("catalog: rebuild: %w", err)
	}
	return jobs, nil
}

// reindex indexes the next n jobs behind a number and returns the last one's.
func (c *Catalog) reindex(ctx context.Context, tx *sql.Tx, after int64) (last int64, n int, err error) {
	var jobs []*queue.Job
	nums := map[string]int64{}
	found, err := tx.QueryContext(ctx, "SELECT num, body FROM jobs WHERE num > $1 ORDER BY num LIMIT $2", after, rowsAtOnce)
	err = each(found, err, func(scan func(...any) error) error {
		var body []byte
		if err := scan(&last, &body); err != nil {
			return err
		}
		job := new(queue.Job)
		if err := json.Unmarshal(body, job); err != nil {
			return err
		}
		jobs = append(jobs, job)
		nums[job.ID] = last
		return nil
	})
	if err != nil || len(jobs) == 0 {
		return after, 0, err
	}
	return last, len(jobs), c.index(ctx, tx, nums, jobs)
}

// sweep adds jobs that have no events (the first one is a courtesy, and may be lost) and
// ends those in the catalog that the queue has lost.
func (c *Catalog) sweep(ctx context.Context, q *queue.Queue, at position) error {
	waiting, err := q.Waiting(ctx)
	if err != nil {
		return err
	}
	isWaiting := map[string]bool{}
	for _, id := range waiting {
		isWaiting[id] = true
	}
	for chunk := range slices.Chunk(waiting, rowsAtOnce) {
		if err := c.adopt(ctx, q, at, chunk); err != nil {
			return err
		}
	}
	for num := int64(-1); ; {
		var unended []string
		found, err := c.read.QueryContext(ctx, `SELECT num, id FROM jobs WHERE state IN ('queued', 'running') AND num > $1
			ORDER BY num LIMIT $2`, num, rowsAtOnce)
		n := 0
		err = each(found, err, func(scan func(...any) error) error {
			var id string
			err := scan(&num, &id)
			if n++; !isWaiting[id] {
				unended = append(unended, id)
			}
			return err
		})
		if err != nil {
			return explain(err)
		}
		for _, id := range unended {
			if err := c.reconcile(ctx, q, at, id); err != nil {
				return err
			}
		}
		if n < rowsAtOnce {
			return nil
		}
	}
}

// adopt adds those of the jobs that the catalog does not have.
func (c *Catalog) adopt(ctx context.Context, q *queue.Queue, at position, ids []string) error {
	missing := map[string]bool{}
	args := make([]any, len(ids))
	for i, id := range ids {
		missing[id] = true
		args[i] = id
	}
	found, err := c.read.QueryContext(ctx, "SELECT id FROM jobs WHERE id IN "+tuple(1, len(ids)), args...)
	err = each(found, err, func(scan func(...any) error) error {
		var id string
		err := scan(&id)
		delete(missing, id)
		return err
	})
	if err != nil {
		return explain(err)
	}
	var jobs []*queue.Job
	for _, id := range ids {
		if !missing[id] {
			continue
		}
		job, err := q.Job(ctx, id)
		if errors.Is(err, queue.ErrNotFound) {
			continue // it has ended and was deleted since
		}
		if err != nil {
			return err
		}
		jobs = append(jobs, job)
	}
	if len(jobs) == 0 {
		return nil
	}
	return c.write(ctx, func(tx *sql.Tx) error { return c.store(ctx, tx, at, jobs) })
}

// lost is the problem of a job of which the queue knows nothing any more.
var lost = &queue.Problem{Code: "job_lost", Detail: "The message server no longer has this job: it was lost with its storage, or ended so long ago that no event tells how."}

// reconcile brings a job up to date that should have a message in the work queue and has
// none: it has just ended, or it was lost.
func (c *Catalog) reconcile(ctx context.Context, q *queue.Queue, at position, id string) error {
	job, err := q.Job(ctx, id)
	if err == nil {
		return c.write(ctx, func(tx *sql.Tx) error { return c.store(ctx, tx, at, []*queue.Job{job}) })
	}
	if !errors.Is(err, queue.ErrNotFound) {
		return err
	}
	return c.write(ctx, func(tx *sql.Tx) error {
		var old known
		var body []byte
		err := tx.QueryRowContext(ctx, "SELECT num, version, body FROM jobs WHERE id = $1 AND state IN ('queued', 'running')", id).
			Scan(&old.num, &old.version, &body)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		job := new(queue.Job)
		if err := json.Unmarshal(body, job); err != nil {
			return err
		}
		now := time.Now().UTC()
		job.State, job.Problem, job.Finished, job.Revision = queue.Failed, lost, &now, sequence(old.version)
		// The version stays: should it turn up how the job ended, that counts.
		was := position{epoch: old.version >> sequenceBits}
		nums := map[string]int64{id: old.num}
		if err := upsert(ctx, tx, was, nums, []*queue.Job{job}); err != nil {
			return err
		}
		return c.index(ctx, tx, nums, []*queue.Job{job})
	})
}

// Delete removes a tenant's job that has ended, and sees to it that events of the job
// that are still on their way do not bring it back. log is how far the stream had come.
// queue.ErrNotFound if the catalog has none.
func (c *Catalog) Delete(ctx context.Context, tenant, id string, log queue.EventLog) error {
	err := c.write(ctx, func(tx *sql.Tx) error {
		var at position
		if err := tx.QueryRowContext(ctx, "SELECT epoch FROM position").Scan(&at.epoch); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO deleted (id, version) VALUES ($1, $2)
			ON CONFLICT (id) DO UPDATE SET version = excluded.version`, id, at.version(log.Last))
		if err != nil {
			return err
		}
		var num int64
		err = tx.QueryRowContext(ctx, "SELECT num FROM jobs WHERE id = $1 AND tenant = $2", id, tenant).Scan(&num)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return c.remove(ctx, tx, []any{num})
	})
	if err != nil {
		return fmt.Errorf("catalog: delete %s: %w", id, err)
	}
	return nil
}

// remove deletes the rows of the numbers.
func (c *Catalog) remove(ctx context.Context, tx *sql.Tx, nums []any) error {
	key := "rowid"
	if c.postgres {
		key = "num"
	}
	for _, statement := range []string{"DELETE FROM terms WHERE " + key + " IN ", "DELETE FROM jobs WHERE num IN "} {
		if _, err := tx.ExecContext(ctx, statement+tuple(1, len(nums)), nums...); err != nil {
			return err
		}
	}
	return nil
}

// tidy removes what is no longer needed: marks of deleted jobs whose events have passed,
// and jobs that ended longer ago than they are kept.
func (c *Catalog) tidy(ctx context.Context, at position) error {
	err := c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM deleted WHERE version < $1", at.version(uint64(at.sequence)))
		return err
	})
	if err != nil || c.opts.Keep <= 0 {
		return err
	}
	oldest := numAt(time.Now().Add(-c.opts.Keep))
	for {
		n := 0
		err := c.write(ctx, func(tx *sql.Tx) error {
			var nums []any
			found, err := tx.QueryContext(ctx, `SELECT num FROM jobs WHERE num < $1 AND state NOT IN ('queued', 'running')
				ORDER BY num LIMIT $2`, oldest, rowsAtOnce)
			err = each(found, err, func(scan func(...any) error) error {
				var num int64
				err := scan(&num)
				nums = append(nums, num)
				return err
			})
			if n = len(nums); err != nil || n == 0 {
				return err
			}
			return c.remove(ctx, tx, nums)
		})
		if err != nil || n < rowsAtOnce {
			return err
		}
	}
}

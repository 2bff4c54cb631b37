package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"helicon/gateway/catalog/terms"
	"helicon/queue"
)

// position is how far the projection has come.
type position struct {
	stream   string
	epoch    int64
	sequence int64
	notified int64
}

// version is the place of an event among all that the catalog has ever seen: those of a
// new stream, whose sequences begin anew, come behind those of the one that was lost.
func (p position) version(sequence uint64) int64 { return p.epoch<<sequenceBits | int64(sequence) }

const sequenceBits = 48

// sequence is the sequence of the event that has the version.
func sequence(version int64) uint64 { return uint64(version) & (1<<sequenceBits - 1) }

// errMoved says that another process has projected in the meantime.
var errMoved = errors.New("catalog: the projection was moved on by another process")

func (c *Catalog) position(ctx context.Context) (p position, err error) {
	err = c.read.QueryRowContext(ctx, "SELECT stream, epoch, sequence, notified FROM position").
		Scan(&p.stream, &p.epoch, &p.sequence, &p.notified)
	return p, explain(err)
}

// move sets the position, if it is still the one that is known. It is the first thing in
// the transaction of a projection, so that of two that begin at the same place one fails.
func move(ctx context.Context, tx *sql.Tx, from, to position) error {
	done, err := tx.ExecContext(ctx, `UPDATE position SET stream = $1, epoch = $2, sequence = $3, notified = $4
		WHERE epoch = $5 AND sequence = $6`, to.stream, to.epoch, to.sequence, to.notified, from.epoch, from.sequence)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return cmp.Or(err, errMoved)
	}
	return nil
}

// apply projects events that follow a position, sets the position to the one behind them,
// and returns that. What happened to a job within them is written once.
func (c *Catalog) apply(ctx context.Context, from, to position, events []*queue.Event) (position, error) {
	to.notified = max(from.notified, to.sequence)
	var jobs []*queue.Job
	latest := map[string]int{}
	for _, e := range events {
		switch {
		case e.Type == "":
			c.log.Error("an event cannot be read and is left out of the catalog", "job", e.JobID, "sequence", e.Seq)
		case e.Job == nil:
		default:
			if i, known := latest[e.JobID]; known {
				jobs[i] = e.Job
				continue
			}
			latest[e.JobID] = len(jobs)
			jobs = append(jobs, e.Job)
		}
	}
	news := events[behind(events, from.notified):]
	err := c.write(ctx, func(tx *sql.Tx) error {
		if err := move(ctx, tx, from, to); err != nil {
			return err
		}
		for chunk := range slices.Chunk(jobs, rowsAtOnce) {
			if err := c.store(ctx, tx, to, chunk); err != nil {
				return err
			}
		}
		if len(jobs) == 0 || len(news) == 0 {
			return nil
		}
		return c.notify(ctx, tx, news...)
	})
	if err != nil {
		return from, err
	}
	if len(jobs) > 0 {
		c.mail()
	}
	return to, nil
}

// behind is the index of the first event whose sequence is greater.
func behind(events []*queue.Event, sequence int64) int {
	i, _ := slices.BinarySearchFunc(events, sequence, func(e *queue.Event, s int64) int {
		if int64(e.Seq) <= s {
			return -1
		}
		return 1
	})
	return i
}

// rowsAtOnce is how many rows one statement reads or writes.
const rowsAtOnce = 100

// known is what the catalog has of a job.
type known struct {
	num     int64
	version int64
	state   queue.State
}

// store writes jobs as they stand at their revisions, where the catalog knows them only
// as they stood before, and counts those that have ended since.
func (c *Catalog) store(ctx context.Context, tx *sql.Tx, at position, jobs []*queue.Job) error {
	olds, err := knownOf(ctx, tx, jobs)
	if err != nil {
		return fmt.Errorf("catalog: rows: %w", err)
	}
	gone, err := tombs(ctx, tx, jobs)
	if err != nil {
		return fmt.Errorf("catalog: deleted jobs: %w", err)
	}
	var fresh, ended []*queue.Job
	for _, job := range jobs {
		old, isKnown := olds[job.ID]
		tomb, isGone := gone[job.ID]
		version := at.version(job.Revision)
		// What has ended stays so, also while the events are told from the start again.
		if isKnown && (old.version >= version || old.state.Terminal() && !job.State.Terminal()) || isGone && tomb >= version {
			continue
		}
		fresh = append(fresh, job)
		if job.State.Terminal() && !old.state.Terminal() {
			ended = append(ended, job)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	nums, err := numbers(ctx, tx, olds, fresh)
	if err != nil {
		return fmt.Errorf("catalog: numbers: %w", err)
	}
	if err := upsert(ctx, tx, at, nums, fresh); err != nil {
		return fmt.Errorf("catalog: jobs: %w", err)
	}
	if err := c.index(ctx, tx, nums, fresh); err != nil {
		return fmt.Errorf("catalog: terms: %w", err)
	}
	return count(ctx, tx, ended)
}

// knownOf reads what the catalog has of the jobs.
func knownOf(ctx context.Context, tx *sql.Tx, jobs []*queue.Job) (map[string]known, error) {
	olds := map[string]known{}
	found, err := tx.QueryContext(ctx, "SELECT id, num, version, state FROM jobs WHERE id IN "+tuple(1, len(jobs)), ids(jobs)...)
	return olds, each(found, err, func(scan func(...any) error) error {
		var id string
		var k known
		err := scan(&id, &k.num, &k.version, &k.state)
		olds[id] = k
		return err
	})
}

// tombs reads which of the jobs were deleted, and up to which version.
func tombs(ctx context.Context, tx *sql.Tx, jobs []*queue.Job) (map[string]int64, error) {
	gone := map[string]int64{}
	found, err := tx.QueryContext(ctx, "SELECT id, version FROM deleted WHERE id IN "+tuple(1, len(jobs)), ids(jobs)...)
	return gone, each(found, err, func(scan func(...any) error) error {
		var id string
		var version int64
		err := scan(&id, &version)
		gone[id] = version
		return err
	})
}

// each calls f for every row of an answer.
func each(found *sql.Rows, err error, f func(scan func(...any) error) error) error {
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		if err := f(found.Scan); err != nil {
			return err
		}
	}
	return found.Err()
}

func ids(jobs []*queue.Job) []any {
	ids := make([]any, len(jobs))
	for i, job := range jobs {
		ids[i] = job.ID
	}
	return ids
}

// tuple is a list of n parameters of a statement, ($1,$2,…), from the given one on.
func tuple(from, n int) string {
	out := []byte("(")
	for i := range n {
		out = append(out, '$')
		out = strconv.AppendInt(out, int64(from+i), 10)
		out = append(out, ',')
	}
	out[len(out)-1] = ')'
	return string(out)
}

// numBits are the bits of a job's number that tell apart the jobs of one microsecond.
const numBits = 11

// numAt is the lowest number that a job of the time can have.
func numAt(t time.Time) int64 {
	us := min(max(t.UnixMicro(), 0), math.MaxInt64>>numBits)
	return us << numBits
}

// numbers gives each job the number that it has or, if it is new, the next free one from
// that of its time on.
func numbers(ctx context.Context, tx *sql.Tx, olds map[string]known, jobs []*queue.Job) (map[string]int64, error) {
	nums := map[string]int64{}
	var wanted []any
	for _, job := range jobs {
		if old, isKnown := olds[job.ID]; isKnown {
			nums[job.ID] = old.num
		} else {
			wanted = append(wanted, numAt(job.Created))
		}
	}
	if len(wanted) == 0 {
		return nums, nil
	}
	taken := map[int64]bool{}
	found, err := tx.QueryContext(ctx, "SELECT num FROM jobs WHERE num IN "+tuple(1, len(wanted)), wanted...)
	err = each(found, err, func(scan func(...any) error) error {
		var num int64
		err := scan(&num)
		taken[num] = true
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, job := range jobs {
		if _, numbered := nums[job.ID]; numbered {
			continue
		}
		num := numAt(job.Created)
		if taken[num] {
			// Of a microsecond that has jobs: behind the last of them.
			if err := tx.QueryRowContext(ctx, "SELECT COALESCE(max(num) + 1, $1) FROM jobs WHERE num >= $1 AND num < $2", num, num+1<<numBits).Scan(&num); err != nil {
				return nil, err
			}
		}
		for taken[num] {
			num++
		}
		taken[num] = true
		nums[job.ID] = num
	}
	return nums, nil
}

// upsert writes the rows of jobs.
func upsert(ctx context.Context, tx *sql.Tx, at position, nums map[string]int64, jobs []*queue.Job) error {
	const columns = 10
	values := make([]string, len(jobs))
	var args []any
	for i, job := range jobs {
		body, err := json.Marshal(job)
		if err != nil {
			return err
		}
		values[i] = tuple(i*columns+1, columns)
		args = append(args, nums[job.ID], job.ID, job.Tenant, string(job.State), job.Task, job.Model, job.Batch, job.Pipeline,
			at.version(job.Revision), body)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO jobs (num, id, tenant, state, task, model, batch, pipeline, version, body) VALUES `+
		strings.Join(values, ",")+` ON CONFLICT (num) DO UPDATE SET state = excluded.state, model = excluded.model,
		version = excluded.version, body = excluded.body`, args...)
	return err
}

// index writes what the jobs are found by.
func (c *Catalog) index(ctx context.Context, tx *sql.Tx, nums map[string]int64, jobs []*queue.Job) error {
	values := make([]string, len(jobs))
	var args []any
	for i, job := range jobs {
		args = append(args, nums[job.ID], terms.OfJob(job))
		values[i] = tuple(2*i+1, 2)
		if c.postgres {
			values[i] = fmt.Sprintf("($%d, array_to_tsvector(string_to_array($%d, ' ')))", 2*i+1, 2*i+2)
		}
	}
	statement := "INSERT OR REPLACE INTO terms (rowid, list) VALUES " + strings.Join(values, ",")
	if c.postgres {
		statement = "INSERT INTO terms (num, terms) VALUES " + strings.Join(values, ",") +
			" ON CONFLICT (num) DO UPDATE SET terms = excluded.terms WHERE terms.terms <> excluded.terms"
	}
	_, err := tx.ExecContext(ctx, statement, args...)
	return err
}

// count adds jobs that have ended to the usage of their tenants. A batch is not counted
// itself: its rows are.
func count(ctx context.Context, tx *sql.Tx, ended []*queue.Job) error {
	sums := map[usageKey]*Usage{}
	for _, job := range ended {
		if job.Modality() == "batch" {
			continue
		}
		key := usageKey{job.Tenant, cmp.Or(job.Finished, &job.Created).UTC().Format(time.DateOnly), job.Task, job.Model}
		if sums[key] == nil {
			sums[key] = new(Usage)
		}
		sums[key].add(job)
	}
	// In one order, so that transactions of several gateways cannot wait for each other.
	for _, key := range slices.SortedFunc(maps.Keys(sums), usageKey.compare) {
		if err := sums[key].store(ctx, tx, key); err != nil {
			return fmt.Errorf("catalog: usage: %w", err)
		}
	}
	return nil
}

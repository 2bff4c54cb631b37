// Package garbage deletes artifacts that nothing refers to any more: no job that the
// queue or the catalog keeps, no file and no batch.
//
// What is old enough is a candidate. Candidates that are referred to are then taken off,
// and what is left is deleted unless it was used in the meantime (queue.Discard): a job
// that is accepted, or a result that is stored, makes what it refers to young first. Jobs
// are read from the queue before the catalog, so that one that ends in between is seen.
package garbage

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"helicon/gateway/catalog"
	"helicon/queue"
)

// Report is what a pass has found.
type Report struct {
	DryRun    bool      `json:"dry_run"`
	Before    time.Time `json:"before"`    // what was used since stays
	Artifacts int       `json:"artifacts"` // that are stored
	Bytes     int64     `json:"bytes"`
	Garbage   int       `json:"garbage"` // artifacts that nothing refers to: deleted, unless this is a dry run
	Freed     int64     `json:"freed"`   // bytes of them
}

// Collector deletes garbage.
type Collector struct {
	Queue   *queue.Queue
	Catalog *catalog.Catalog
	Keep    time.Duration // after its last use, whatever refers to it; at least queue.LeastAge
}

// ErrBehind says that the catalog does not know yet what the queue knows.
var ErrBehind = errors.New("garbage: the catalog is behind the queue; try again when it has caught up")

// object names an artifact.
type object struct {
	tenant string
	digest [32]byte
}

// candidates are old artifacts that nothing is known to refer to.
type candidates map[object]candidate

type candidate struct {
	size    int64
	touched time.Time
}

// keep takes an artifact off.
func (c candidates) keep(tenant, digest string) {
	if o, ok := named(tenant, digest); ok {
		delete(c, o)
	}
}

// atOnce is how many candidates are held in memory.
const atOnce = 100_000

// Collect makes one pass. With dryRun nothing is deleted.
func (c *Collector) Collect(ctx context.Context, dryRun bool) (Report, error) {
	r := Report{DryRun: dryRun, Before: time.Now().UTC().Add(-c.Keep)}
	found := candidates{}
	for one, err := range c.Queue.Artifacts().All(ctx) {
		if err != nil {
			return r, fmt.Errorf("garbage: artifacts: %w", err)
		}
		r.Artifacts++
		r.Bytes += one.Size
		if o, ok := named(one.Tenant, one.SHA256); ok && one.Touched.Before(r.Before) {
			found[o] = candidate{one.Size, one.Touched}
		}
		if len(found) == atOnce {
			if err := c.sweep(ctx, &r, found); err != nil {
				return r, err
			}
			clear(found)
		}
	}
	return r, c.sweep(ctx, &r, found)
}

// named is the object of a digest that is written in hexadecimal digits.
func named(tenant, digest string) (object, bool) {
	o := object{tenant: tenant}
	n, err := hex.Decode(o.digest[:], []byte(digest))
	return o, err == nil && n == len(o.digest)
}

// sweep deletes those candidates that nothing refers to.
func (c *Collector) sweep(ctx context.Context, r *Report, found candidates) error {
	if len(found) == 0 {
		return nil
	}
	for _, look := range []func(context.Context, candidates) error{c.unfinished, c.records, c.finished} {
		if err := look(ctx, found); err != nil {
			return fmt.Errorf("garbage: references: %w", err)
		}
	}
	for o, one := range found {
		deleted := true
		if !r.DryRun {
			var err error
			if deleted, err = c.Queue.Discard(ctx, o.tenant, hex.EncodeToString(o.digest[:]), r.Before); err != nil {
				return err
			}
		}
		if deleted {
			r.Garbage++
			r.Freed += one.size
		}
	}
	return nil
}

// unfinished keeps what jobs refer to that have not ended, and what the rows of unfinished
// batches do, which are jobs only later; and what a tenant has stored since the first of
// his jobs that run was begun, which may be part of its result.
func (c *Collector) unfinished(ctx context.Context, found candidates) error {
	ids, err := c.Queue.Waiting(ctx)
	if err != nil {
		return err
	}
	begun := map[string]time.Time{}
	defer func() {
		for o, one := range found {
			if first, runs := begun[o.tenant]; runs && !one.touched.Before(first) {
				delete(found, o)
			}
		}
	}()
	for _, id := range ids {
		job, err := c.Queue.Job(ctx, id)
		if errors.Is(err, queue.ErrNotFound) {
			continue // it ended and was deleted
		}
		if err != nil {
			return err
		}
		if first, runs := begun[job.Tenant]; job.State == queue.Running && job.Started != nil && (!runs || job.Started.Before(first)) {
			begun[job.Tenant] = *job.Started
		}
		for digest := range queue.Digests(job.Input) {
			found.keep(job.Tenant, digest)
			if job.Modality() != "batch" {
				continue
			}
			if err := c.rows(ctx, job.Tenant, digest, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// rows keeps what the file of a batch refers to.
func (c *Collector) rows(ctx context.Context, tenant, digest string, found candidates) error {
	_, content, err := c.Queue.Artifact(ctx, tenant, digest)
	if errors.Is(err, queue.ErrNoArtifact) {
		return nil
	}
	if err != nil {
		return err
	}
	defer content.Close()
	return digests(content, func(named string) { found.keep(tenant, named) })
}

// digests finds what could be a SHA-256 in a file, in any of the encodings in which the
// digits are ASCII or UTF-16.
func digests(r io.Reader, found func(digest string)) error {
	buffer := make([]byte, 64<<10)
	run := make([]byte, 0, 65) // digits in a row
	for {
		n, err := r.Read(buffer)
		for _, b := range buffer[:n] {
			switch {
			case b == 0: // half of a digit in UTF-16
			case b >= '0' && b <= '9' || b >= 'a' && b <= 'f':
				if len(run) < cap(run) {
					run = append(run, b)
				}
			default:
				if len(run) == 64 {
					found(string(run))
				}
				run = run[:0]
			}
		}
		if err != nil {
			if len(run) == 64 {
				found(string(run))
			}
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// records keeps what files and batches refer to. Files that have expired are forgotten.
func (c *Collector) records(ctx context.Context, found candidates) error {
	files, err := c.Queue.Files().Keys(ctx, "*")
	if err != nil {
		return err
	}
	for _, f := range files {
		file, err := c.Queue.File(ctx, f.Tenant, f.ID)
		if errors.Is(err, queue.ErrNoRecord) {
			continue
		}
		if err != nil {
			return err
		}
		found.keep(f.Tenant, file.Artifact.SHA256)
	}
	batches, err := c.Queue.Batches().Keys(ctx, "*")
	if err != nil {
		return err
	}
	for _, b := range batches {
		var account json.RawMessage
		_, err := c.Queue.Batches().Get(ctx, b.Tenant, b.ID, &account)
		if err != nil && !errors.Is(err, queue.ErrNoRecord) {
			return err
		}
		for digest := range queue.Digests(account) {
			found.keep(b.Tenant, digest)
		}
	}
	return nil
}

// finished keeps what the jobs in the catalog refer to: ErrBehind unless it has all events
// that there are now.
func (c *Collector) finished(ctx context.Context, found candidates) error {
	log, err := c.Queue.EventLog(ctx)
	if err != nil {
		return err
	}
	if c.Catalog.CatchUp(ctx, log); !c.Catalog.Has(ctx, log) {
		return ErrBehind
	}
	for body, err := range c.Catalog.Bodies(ctx) {
		if err != nil {
			return err
		}
		for digest := range queue.Digests(body.JSON) {
			found.keep(body.Tenant, digest)
		}
	}
	return nil
}

// Run makes a pass every so often until ctx ends, and tells of each.
func (c *Collector) Run(ctx context.Context, every time.Duration, told func(Report, error)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			report, err := c.Collect(ctx, false)
			if ctx.Err() == nil {
				told(report, err)
			}
		}
	}
}

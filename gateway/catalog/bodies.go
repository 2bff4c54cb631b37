package catalog

import (
	"context"
	"fmt"
	"iter"

	"helicon/queue"
)

// Body is a job as the catalog keeps it.
type Body struct {
	Tenant string
	JSON   []byte
}

// bodiesAtOnce is how many jobs are read in one query.
const bodiesAtOnce = 500

// Bodies lists the jobs of all tenants, oldest first.
func (c *Catalog) Bodies(ctx context.Context) iter.Seq2[Body, error] {
	return func(yield func(Body, error) bool) {
		for after, more := int64(-1), true; more; {
			page, err := all(ctx, c.read, func(r scanner) (b Body, err error) {
				return b, r.Scan(&after, &b.Tenant, &b.JSON)
			}, "SELECT num, tenant, body FROM jobs WHERE num > $1 ORDER BY num LIMIT $2", after, bodiesAtOnce)
			if err != nil {
				yield(Body{}, fmt.Errorf("catalog: jobs: %w", err))
				return
			}
			for _, b := range page {
				if !yield(b, nil) {
					return
				}
			}
			more = len(page) == bodiesAtOnce
		}
	}
}

// Has reports whether what the stream of events had is in the catalog.
func (c *Catalog) Has(ctx context.Context, log queue.EventLog) bool {
	at, ok := c.whereabouts(ctx)
	return ok && at.stream == log.ID && uint64(at.sequence) >= log.Last
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"helicon/gateway/catalog"
)

// recordFlags tune the record of jobs.
type recordFlags struct {
	KeepJobs time.Duration `help:"How long ended jobs stay in lists and search; their usage stays in any case. 0 is for good." default:"0s"`
}

// openCatalog opens the catalog of a server, and waits for its database if that cannot be
// reached.
func (f httpFlags) openCatalog(ctx context.Context, env *environment, store queueFlags) (*catalog.Catalog, error) {
	for told := false; ; told = true {
		c, err := catalog.Open(ctx, f.url(store.Data), catalog.Options{Log: env.log, NoSync: !store.Sync, Keep: f.KeepJobs})
		if !errors.Is(err, catalog.ErrUnavailable) || ctx.Err() != nil {
			return c, err
		}
		if !told {
			env.log.Error("the database cannot be reached; trying again until it can", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// catalogCmd groups the commands about the record of jobs.
type catalogCmd struct {
	Rebuild rebuildCatalogCmd `cmd:"" help:"Make the record of jobs again from the events that the queue has kept, and index its texts anew."`
	Usage   usageCmd          `cmd:"" help:"Print what tenants have used."`
}

type rebuildCatalogCmd struct{ catalogFlags }

// Run makes the record again.
func (c *rebuildCatalogCmd) Run(ctx context.Context, env *environment) error {
	return c.use(ctx, env, func(record *catalog.Catalog) error {
		n, err := record.Rebuild(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.stdout, "%d jobs indexed; the server reads the queue's events again from the first that is kept, now or when it starts\n", n)
		return err
	})
}

type usageCmd struct {
	catalogFlags
	Tenant string    `help:"Of this tenant only." placeholder:"NAME"`
	From   time.Time `help:"First day; 30 days ago unless given." format:"2006-01-02" placeholder:"YYYY-MM-DD"`
	To     time.Time `help:"Last day; today unless given." format:"2006-01-02" placeholder:"YYYY-MM-DD"`
	By     []string  `help:"Sums for each of these: tenant, day, task, model." default:"tenant"`
}

// Validate refuses to group by what is not counted.
func (c *usageCmd) Validate() error {
	for _, by := range c.By {
		if !slices.Contains(catalog.UsageColumns(), by) {
			return fmt.Errorf("--by: there is no %q; want some of %s", by, strings.Join(catalog.UsageColumns(), ", "))
		}
	}
	return nil
}

// Run prints the sums.
func (c *usageCmd) Run(ctx context.Context, env *environment) error {
	f := catalog.UsageFilter{Tenant: c.Tenant, From: c.From, To: c.To, By: c.By}
	if f.To.IsZero() {
		f.To = time.Now()
	}
	if f.From.IsZero() {
		f.From = f.To.AddDate(0, 0, -30)
	}
	return c.use(ctx, env, func(record *catalog.Catalog) error {
		sums, err := record.Usage(ctx, f)
		if err != nil {
			return err
		}
		if c.JSON {
			out := json.NewEncoder(env.stdout)
			out.SetIndent("", "  ")
			return out.Encode(sums)
		}
		head := append(slices.Clone(c.By), "jobs", "succeeded", "failed", "canceled", "tokens in", "tokens out", "pixels", "media s", "compute s")
		rows := []string{strings.ToUpper(strings.Join(head, "\t"))}
		for _, u := range sums {
			var row []string
			for _, by := range c.By {
				row = append(row, map[string]string{"tenant": u.Tenant, "day": u.Day, "task": u.Task, "model": u.Model}[by])
			}
			rows = append(rows, fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f\t%.1f", strings.Join(row, "\t"),
				u.Jobs, u.Succeeded, u.Failed, u.Canceled, u.InputTokens, u.OutputTokens, u.Pixels, u.MediaSeconds, u.ComputeSeconds))
		}
		return table(env.stdout, rows...)
	})
}

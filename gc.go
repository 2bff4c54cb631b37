package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/dustin/go-humanize"

	"helicon/gateway/catalog"
	"helicon/gateway/garbage"
	"helicon/queue"
)

// artifactFlags say for how long artifacts are kept.
type artifactFlags struct {
	KeepArtifacts time.Duration `help:"How long artifacts are kept after their last use that no job, file or batch refers to; 0 is for good." default:"168h"`
}

// validate refuses to delete what is being used.
func (f artifactFlags) validate() error {
	if f.KeepArtifacts != 0 && f.KeepArtifacts < queue.LeastAge {
		return fmt.Errorf("--keep-artifacts: want at least %v, or 0", queue.LeastAge)
	}
	return nil
}

// collectEvery is the pause between two passes over the artifacts.
const collectEvery = 6 * time.Hour

// collect deletes garbage until ctx ends.
func (f artifactFlags) collect(ctx context.Context, env *environment, q *queue.Queue, c *catalog.Catalog) error {
	if f.KeepArtifacts == 0 {
		return nil
	}
	collector := garbage.Collector{Queue: q, Catalog: c, Keep: f.KeepArtifacts}
	return collector.Run(ctx, collectEvery, func(r garbage.Report, err error) {
		switch {
		case err != nil:
			env.log.Warn("artifacts could not be looked through", "err", err)
		case r.Garbage > 0:
			env.log.Info("artifacts deleted that nothing refers to", "artifacts", r.Garbage, "bytes", r.Freed, "left", r.Artifacts-r.Garbage)
		}
	})
}

// gcCmd has a server delete the artifacts that nothing refers to.
type gcCmd struct {
	DryRun bool      `help:"Only say what would be deleted."`
	Server serverURL `help:"Address of the running server; ${default} unless given." default:"http://127.0.0.1:8080" placeholder:"URL"`
	Key    string    `help:"Key with the scope admin, if the server requires keys." placeholder:"KEY"`
	JSON   bool      `help:"Print JSON." name:"json"`
}

// Run asks the server and prints what it has done.
func (c *gcCmd) Run(ctx context.Context, env *environment) error {
	server := &client{base: string(c.Server), key: c.Key, http: &http.Client{}}
	var r garbage.Report
	err := server.call(ctx, http.MethodPost, "/v1/gc", map[string]bool{"dry_run": c.DryRun}, &r)
	if errors.Is(err, errUnreachable) {
		return fmt.Errorf("%w (start it first, or name another with --server)", err)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(env.stdout).Encode(r)
	}
	what := map[bool]string{true: "would be deleted", false: "deleted"}[r.DryRun]
	left := r.Artifacts - r.Garbage
	_, err = fmt.Fprintf(env.stdout, "%d artifacts %s (%s), that nothing refers to and that were last used before %s; %d stay (%s)\n",
		r.Garbage, what, humanize.IBytes(uint64(r.Freed)), r.Before.Local().Format(time.DateTime), left, humanize.IBytes(uint64(r.Bytes-r.Freed)))
	return err
}

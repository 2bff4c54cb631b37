package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/gateway/catalog"
	"helicon/queue"
)

// list is the body of an answer that lists something.
type list[T any] struct {
	Object  string `json:"object"`
	Data    []T    `json:"data"`
	HasMore bool   `json:"has_more"`
	Next    string `json:"next,omitempty"` // the parameter after of the next page
}

func listOf[T any](data []T) list[T] {
	if data == nil {
		data = []T{}
	}
	return list[T]{Object: "list", Data: data}
}

// onlyQuery refuses query parameters that the route does not know.
func onlyQuery(c *gin.Context, known ...string) error {
	for name, values := range c.Request.URL.Query() {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return queue.Problemf("invalid_request", "The query parameter %q is unknown; this route takes none.", name)
			}
			return queue.Problemf("invalid_request", "The query parameter %q is unknown; the known ones are %s.", name, strings.Join(known, ", "))
		}
		if len(values) > 1 {
			return queue.Problemf("invalid_request", "The query parameter %q appears twice.", name)
		}
	}
	return nil
}

const maxPage = 200 // jobs

// filter reads the query of a list.
func filter(c *gin.Context) (catalog.Filter, error) {
	f := catalog.Filter{
		State: queue.State(c.Query("state")), Task: c.Query("task"), Model: c.Query("model"), Tag: c.Query("tag"),
		Batch: c.Query("batch"), Pipeline: c.Query("pipeline"), Query: c.Query("q"), After: c.Query("after"),
	}
	if err := onlyQuery(c, "state", "task", "model", "tag", "batch", "pipeline", "from", "to", "q", "limit", "after"); err != nil {
		return f, err
	}
	if f.State != "" && !f.State.Valid() {
		return f, queue.Problemf("invalid_request", "There is no state %q; want queued, running, succeeded, failed or canceled.", f.State)
	}
	if f.After != "" && !queue.ValidID(f.After) {
		return f, queue.Problemf("invalid_request", "after=%q is not the id of a job.", f.After)
	}
	if len(f.Query) > catalog.MaxQuery {
		return f, queue.Problemf("invalid_request", "q has %d bytes; at most %d.", len(f.Query), catalog.MaxQuery)
	}
	for _, bound := range []struct {
		name string
		to   *time.Time
	}{{"from", &f.From}, {"to", &f.To}} {
		text := c.Query(bound.name)
		if text == "" {
			continue
		}
		when, err := parseTime(text)
		if err != nil {
			return f, queue.Problemf("invalid_request", "%s=%q: want a day or a time such as 2006-01-02 or 2006-01-02T15:04:05Z.", bound.name, text)
		}
		*bound.to = when
	}
	if text := c.Query("limit"); text != "" {
		limit, err := strconv.Atoi(text)
		if err != nil || limit < 1 || limit > maxPage {
			return f, queue.Problemf("invalid_request", "limit=%q: want 1 to %d.", text, maxPage)
		}
		f.Limit = limit
	}
	return f, nil
}

// parseTime reads a time (RFC 3339), or a day, which stands for its beginning in UTC.
func parseTime(text string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day, nil
	}
	return time.Parse(time.RFC3339, text)
}

// catalog returns the record of jobs.
func (g *Gateway) catalog() (*catalog.Catalog, error) {
	if g.config.Catalog == nil {
		return nil, queue.Problemf("not_implemented", "This server keeps no record of jobs.")
	}
	return g.config.Catalog, nil
}

// askLog bounds the question how far the events have come. Without an answer a list shows
// what the catalog has: it works while the message server is away.
const askLog = 250 * time.Millisecond

// listJobs answers GET /v1/jobs.
func (g *Gateway) listJobs(c *gin.Context) error {
	f, err := filter(c)
	if err != nil {
		return err
	}
	record, err := g.catalog()
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	brief, cancel := context.WithTimeout(ctx, askLog)
	log, err := g.queue.EventLog(brief)
	cancel()
	if err == nil {
		record.CatchUp(ctx, log)
	}
	page, err := record.Jobs(ctx, principalOf(ctx).Tenant, f)
	if err != nil {
		return err
	}
	answer := listOf(page.Jobs)
	answer.HasMore, answer.Next = page.Next != "", page.Next
	writeJSON(c, http.StatusOK, answer)
	return nil
}

// record returns a job of the caller's tenant, from the catalog if its events are older
// than the queue keeps them.
func (g *Gateway) record(ctx context.Context, id string) (*queue.Job, error) {
	job, err := g.job(ctx, id)
	if errors.Is(err, queue.ErrNotFound) && g.config.Catalog != nil {
		return g.config.Catalog.Job(ctx, principalOf(ctx).Tenant, id)
	}
	return job, err
}

// showJob answers GET /v1/jobs/{id}.
func (g *Gateway) showJob(c *gin.Context) error {
	job, err := g.record(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, job)
	return nil
}

// cancelJob answers POST /v1/jobs/{id}/cancel.
func (g *Gateway) cancelJob(c *gin.Context) error {
	job, err := g.job(c.Request.Context(), c.Param("id"))
	if err == nil {
		job, err = g.cancel(c.Request.Context(), job)
	}
	if errors.Is(err, queue.ErrFinished) {
		return queue.Problemf("job_finished", "The job has already ended: it is %s.", job.State)
	}
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, job)
	return nil
}

// retryJob answers POST /v1/jobs/{id}/retry.
func (g *Gateway) retryJob(c *gin.Context) error {
	job, err := g.job(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	done, err := g.limiter.Job(c.Request.Context(), g.queue)
	if err != nil {
		return err
	}
	defer done()
	job, err = g.again(c.Request.Context(), job)
	if errors.Is(err, queue.ErrFinished) {
		return queue.Problemf("job_finished", "The job has succeeded; only failed and canceled ones can be tried again.")
	}
	if err != nil {
		return err
	}
	c.Writer.Header().Set("Location", "/v1/jobs/"+job.ID)
	writeJSON(c, http.StatusAccepted, job)
	return nil
}

// deleteJob answers DELETE /v1/jobs/{id}.
func (g *Gateway) deleteJob(c *gin.Context) error {
	if err := g.forget(c.Request.Context(), c.Param("id")); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// forget removes a job of the caller's tenant that has ended, from the record first: if
// the queue cannot be reached then, the job is still there to be deleted again.
func (g *Gateway) forget(ctx context.Context, id string) error {
	job, err := g.record(ctx, id)
	if err != nil {
		return err
	}
	if !job.State.Terminal() {
		return queue.ErrNotFinished
	}
	if g.config.Catalog != nil {
		log, err := g.queue.EventLog(ctx)
		if err != nil {
			return err
		}
		if err := g.config.Catalog.Delete(ctx, job.Tenant, id, log); err != nil {
			return err
		}
	}
	err = g.queue.Delete(ctx, id)
	if errors.Is(err, queue.ErrNotFound) {
		return nil // the catalog alone still knew it
	}
	return err
}

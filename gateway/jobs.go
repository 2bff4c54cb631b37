package gateway

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

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
func filter(c *gin.Context) (queue.Filter, error) {
	f := queue.Filter{State: queue.State(c.Query("state")), Task: c.Query("task"), Tag: c.Query("tag"), After: c.Query("after")}
	if err := onlyQuery(c, "state", "task", "tag", "limit", "after"); err != nil {
		return f, err
	}
	if f.State != "" && !f.State.Valid() {
		return f, queue.Problemf("invalid_request", "There is no state %q; want queued, running, succeeded, failed or canceled.", f.State)
	}
	if f.After != "" && !queue.ValidID(f.After) {
		return f, queue.Problemf("invalid_request", "after=%q is not the id of a job.", f.After)
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

// listJobs answers GET /v1/jobs.
func (g *Gateway) listJobs(c *gin.Context) error {
	f, err := filter(c)
	if err != nil {
		return err
	}
	page, err := g.queue.Jobs(c.Request.Context(), f)
	if err != nil {
		return err
	}
	answer := listOf(page.Jobs)
	answer.HasMore, answer.Next = page.Next != "", page.Next
	writeJSON(c, http.StatusOK, answer)
	return nil
}

// showJob answers GET /v1/jobs/{id}.
func (g *Gateway) showJob(c *gin.Context) error {
	job, err := g.queue.Job(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, job)
	return nil
}

// cancelJob answers POST /v1/jobs/{id}/cancel.
func (g *Gateway) cancelJob(c *gin.Context) error {
	job, err := g.queue.Cancel(c.Request.Context(), c.Param("id"))
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
	job, err := g.queue.Retry(c.Request.Context(), c.Param("id"))
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
	if err := g.queue.Delete(c.Request.Context(), c.Param("id")); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

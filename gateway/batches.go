package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/gateway/access"
	"helicon/gateway/batch"
	"helicon/gateway/catalog"
	"helicon/gateway/openai"
	"helicon/gateway/strict"
	"helicon/queue"
)

// rows lends batches what they share with the routes.
type rows struct{ g *Gateway }

// As returns a context in which a tenant calls.
func (b rows) As(ctx context.Context, tenant string) context.Context {
	return access.With(ctx, &access.Principal{Tenant: tenant, Scopes: []string{catalog.ScopeRead, catalog.ScopeWrite}})
}

// Translate reads the body of a request to an OpenAI route.
func (b rows) Translate(ctx context.Context, path, origin string, body []byte) (*openai.Exchange, error) {
	return openai.New(backend(b)).Translate(ctx, path, origin, body)
}

// Check validates a job as if it was submitted.
func (b rows) Check(ctx context.Context, job *queue.Job) error { return b.g.validate(ctx, job) }

// Schema returns the schema of a task's input.
func (b rows) Schema(ctx context.Context, task string) (json.RawMessage, error) {
	t, err := b.g.directory.task(ctx, task)
	if err != nil {
		return nil, err
	}
	return t.Schema, nil
}

// Explain returns what an error means to a client.
func (b rows) Explain(err error) (int, *queue.Problem) { return explain(err) }

// coordinate runs batches until ctx ends or stop is called, which waits for the end.
func (g *Gateway) coordinate(ctx context.Context) (stop func(), err error) {
	c, err := batch.New(batch.Config{Queue: g.queue, Gateway: rows{g}, Log: g.log, Ended: g.metrics.rowEnded})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := c.Run(ctx); err != nil {
				g.log.Error("no batches are run", "err", err)
				pause(ctx, reconnectPause)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}, nil
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// createBatch answers POST /v1/batches: a new batch, or what its first rows would be.
func (g *Gateway) createBatch(c *gin.Context) error {
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, g.maxBody())
	var request batch.Request
	body, err := strict.Read(c.Request, &request)
	if err != nil {
		return err
	}
	spec, err := request.Spec(time.Now().UTC())
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	tenant := principalOf(ctx).Tenant
	file, err := g.queue.File(ctx, tenant, spec.InputFile)
	if errors.Is(err, queue.ErrNoRecord) {
		return strict.Invalid("/input_file_id", "there is no file %q; POST /v1/files gives one", spec.InputFile)
	}
	if err != nil {
		return err
	}
	spec.Source, spec.Origin = file.Artifact.SHA256, origin(c.Request)
	if spec.Task != "" || request.DryRun != nil {
		n := 0
		if request.DryRun != nil {
			n = *request.DryRun
		}
		// What is wrong with the file as a whole or with the template is told at once.
		dry, err := batch.Try(ctx, g.queue, rows{g}, tenant, spec, n)
		if err != nil {
			return err
		}
		if request.DryRun != nil {
			writeJSON(c, http.StatusOK, dry)
			return nil
		}
	}
	job, err := spec.Job(tenant, request.Tags)
	if err != nil {
		return err
	}
	return g.submitBatch(c, body, job)
}

// origin is the address under which the client has reached the gateway.
func origin(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// submitBatch submits a batch and answers with it. body is that of the request.
func (g *Gateway) submitBatch(c *gin.Context, body []byte, job *queue.Job) error {
	check := func(_ context.Context, job *queue.Job) error { return checkRequest(job, g.queue.MaxInput()) }
	job, replayed, err := g.acceptIf(check, c.Request, body, 0, job)
	if err != nil {
		return err
	}
	header := c.Writer.Header()
	if replayed {
		header.Set("Idempotency-Replayed", "true")
	} else {
		g.enlist(c.Request.Context(), job)
	}
	header.Set("Location", "/v1/batches/"+batch.Name(job.ID))
	header.Set("X-Helicon-Job", job.ID)
	return g.writeBatch(c, job)
}

// enlist makes the record by which a new batch is listed. Should that fail, the batch is
// there all the same, and its coordinator makes the record.
func (g *Gateway) enlist(ctx context.Context, job *queue.Job) {
	_, err := g.queue.Batches().Put(ctx, job.Tenant, job.ID, batch.Account{Phase: batch.Validating}, 0)
	if err != nil && !errors.Is(err, queue.ErrChanged) {
		g.log.Warn("a batch is not listed yet", "batch", job.ID, "err", err)
	}
}

func (g *Gateway) writeBatch(c *gin.Context, job *queue.Job) error {
	b, err := batch.Describe(c.Request.Context(), g.queue, job)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, b)
	return nil
}

// batchJob returns the job of the batch that a request names, if it is the caller's.
func (g *Gateway) batchJob(c *gin.Context) (*queue.Job, error) {
	name := c.Param("id")
	missing := queue.Problemf("not_found", "There is no batch %q.", name)
	id, err := batch.JobOf(name)
	if err != nil {
		return nil, missing
	}
	job, err := g.job(c.Request.Context(), id)
	if errors.Is(err, queue.ErrNotFound) || err == nil && job.Task != batch.Task {
		return nil, missing
	}
	return job, err
}

// showBatch answers GET /v1/batches/{id}.
func (g *Gateway) showBatch(c *gin.Context) error {
	job, err := g.batchJob(c)
	if err != nil {
		return err
	}
	return g.writeBatch(c, job)
}

// Limits on a page of batches, as OpenAI has them.
const (
	someBatches = 20
	mostBatches = 100
)

// batchList is the body of an answer that lists batches.
type batchList struct {
	Object  string         `json:"object"`
	Data    []*batch.Batch `json:"data"`
	FirstID string         `json:"first_id,omitempty"`
	LastID  string         `json:"last_id,omitempty"`
	HasMore bool           `json:"has_more"`
}

// listBatches answers GET /v1/batches, the newest first.
func (g *Gateway) listBatches(c *gin.Context) error {
	if err := onlyQuery(c, "after", "limit"); err != nil {
		return err
	}
	limit := someBatches
	if text := c.Query("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > mostBatches {
			return queue.Problemf("invalid_request", "limit=%.64q: want 1 to %d.", text, mostBatches)
		}
	}
	ctx := c.Request.Context()
	keys, err := g.queue.Batches().Keys(ctx, principalOf(ctx).Tenant)
	if err != nil {
		return err
	}
	slices.Reverse(keys)
	answer := batchList{Object: "list", Data: []*batch.Batch{}}
	for _, k := range keys {
		if after := c.Query("after"); after != "" && batch.Name(k.ID) >= after {
			continue
		}
		if len(answer.Data) == limit {
			answer.HasMore = true
			break
		}
		job, err := g.job(ctx, k.ID)
		if errors.Is(err, queue.ErrNotFound) {
			continue // deleted, or never accepted
		}
		if err != nil {
			return err
		}
		b, err := batch.Describe(ctx, g.queue, job)
		if err != nil {
			return err
		}
		answer.Data = append(answer.Data, b)
	}
	if n := len(answer.Data); n > 0 {
		answer.FirstID, answer.LastID = answer.Data[0].ID, answer.Data[n-1].ID
	}
	writeJSON(c, http.StatusOK, answer)
	return nil
}

// cancel ends a job. One that is a batch ends when its rows have: they are canceled first.
func (g *Gateway) cancel(ctx context.Context, job *queue.Job) (*queue.Job, error) {
	if job.Task != batch.Task || job.State.Terminal() {
		return g.queue.Cancel(ctx, job.ID)
	}
	if err := batch.Cancel(ctx, g.queue, job); err != nil {
		return job, err
	}
	return g.queue.Job(ctx, job.ID)
}

// cancelBatch answers POST /v1/batches/{id}/cancel.
func (g *Gateway) cancelBatch(c *gin.Context) error {
	job, err := g.batchJob(c)
	if err != nil {
		return err
	}
	job, err = g.cancel(c.Request.Context(), job)
	if errors.Is(err, queue.ErrFinished) {
		return queue.Problemf("job_finished", "The rows of the batch have already ended.")
	}
	if err != nil {
		return err
	}
	return g.writeBatch(c, job)
}

// again submits the request of a job that has not succeeded again. A batch takes over the
// rows that have.
func (g *Gateway) again(ctx context.Context, old *queue.Job) (*queue.Job, error) {
	if old.Task != batch.Task {
		return g.queue.Retry(ctx, old.ID)
	}
	job, err := batch.Again(ctx, g.queue, old, time.Now().UTC())
	if err == nil {
		err = g.queue.Submit(ctx, job)
	}
	if err != nil {
		return nil, err
	}
	g.enlist(ctx, job)
	return job, nil
}

// retryBatch answers POST /v1/batches/{id}/retry: a new batch that does again what did not
// succeed in an old one.
func (g *Gateway) retryBatch(c *gin.Context) error {
	old, err := g.batchJob(c)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	done, err := g.limiter.Job(ctx, g.queue)
	if err != nil {
		return err
	}
	defer done()
	job, err := g.again(ctx, old)
	if errors.Is(err, queue.ErrFinished) {
		return queue.Problemf("job_finished", "All rows of the batch have succeeded; there is nothing to try again.")
	}
	if err != nil {
		return err
	}
	c.Writer.Header().Set("Location", "/v1/batches/"+batch.Name(job.ID))
	return g.writeBatch(c, job)
}

// deleteBatch answers DELETE /v1/batches/{id}. The files that it has made stay.
func (g *Gateway) deleteBatch(c *gin.Context) error {
	job, err := g.batchJob(c)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	if err := g.queue.Delete(ctx, job.ID); err != nil {
		return err
	}
	if err := g.queue.Batches().Delete(ctx, job.Tenant, job.ID); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// batchResults answers GET /v1/batches/{id}/results?format=jsonl|csv|zip.
func (g *Gateway) batchResults(c *gin.Context) error {
	if err := onlyQuery(c, "format"); err != nil {
		return err
	}
	job, err := g.batchJob(c)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	described, err := batch.Describe(ctx, g.queue, job)
	if err != nil {
		return err
	}
	account, err := batch.Results(ctx, g.queue, job)
	if errors.Is(err, queue.ErrNoRecord) {
		return queue.Problemf("not_found", "The batch %s has no results: it is %s.", described.ID, described.Status)
	}
	if err != nil {
		return err
	}
	export := &batch.Export{Queue: g.queue, Tenant: job.Tenant, Batch: described, Account: account}
	switch format := c.DefaultQuery("format", "jsonl"); format {
	case "jsonl":
		about, content, err := g.queue.Artifact(ctx, job.Tenant, account.Results.Artifact.SHA256)
		if err != nil {
			return err
		}
		defer content.Close()
		about.Name = account.Results.Name
		return g.send(c.Writer, c.Request, about, content, true)
	case "csv":
		return g.export(c, described.ID+".csv", "text/csv; charset=utf-8", export.CSV)
	case "zip":
		return g.export(c, described.ID+".zip", "application/zip", export.ZIP)
	default:
		return queue.Problemf("invalid_request", "format=%.64q: want jsonl, csv or zip.", format)
	}
}

// export answers with a file that is made as it is sent.
func (g *Gateway) export(c *gin.Context, name, mediaType string, write func(context.Context, io.Writer) error) error {
	ctx, end, err := g.hold(c.Writer, c.Request)
	if err != nil {
		return err
	}
	defer end()
	header := c.Writer.Header()
	header.Set("Content-Type", mediaType)
	header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return nil
	}
	out := &patientWriter{c.Writer, g.sender(c.Writer), ctx.Err}
	err = write(ctx, out)
	if err != nil && c.Writer.Written() {
		// Half a file must not look like a whole one.
		if c.Request.Context().Err() == nil {
			g.log.Error("an export broke off", "file", name, "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		return fmt.Errorf("gateway: %s: %w", name, err)
	}
	return nil
}

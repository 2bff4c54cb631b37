package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/gateway/strict"
	"helicon/queue"
)

// jobRequest is the body of POST /v1/jobs.
type jobRequest struct {
	Task     string          `json:"task"`
	Model    string          `json:"model"`
	Input    json.RawMessage `json:"input"`
	Seed     *uint64         `json:"seed"`
	Priority queue.Priority  `json:"priority"`
	Needs    []string        `json:"needs"`
	Tags     []string        `json:"tags"`
	Deadline *time.Time      `json:"deadline"`
	Batch    string          `json:"batch"`
	Pipeline string          `json:"pipeline"`

	Webhook       string   `json:"webhook"`
	WebhookEvents []string `json:"webhook_events_filter"`
}

// job makes the request a job, with a seed drawn and an empty input where it names none.
func (r *jobRequest) job() *queue.Job {
	job := &queue.Job{
		Task: r.Task, Model: r.Model, Input: r.Input, Priority: r.Priority, Needs: r.Needs,
		Tags: r.Tags, Deadline: r.Deadline, Batch: r.Batch, Pipeline: r.Pipeline,
		Webhook: r.Webhook, WebhookEvents: r.WebhookEvents,
	}
	if r.Seed != nil {
		job.Seed = *r.Seed
	} else {
		job.Seed = rand.Uint64N(queue.MaxSeed + 1)
	}
	if len(job.Input) == 0 || string(job.Input) == "null" {
		job.Input = json.RawMessage("{}")
	}
	return job
}

// Limits on members that the queue carries without looking at them.
const (
	maxModelName = 256 // bytes
	maxGroupName = 128 // bytes of batch and pipeline
)

// maxBody is how many bytes a JSON request may have: an input and what is around it.
func (g *Gateway) maxBody() int64 { return int64(g.queue.MaxInput()) + 64<<10 }

// submitJob answers POST /v1/jobs.
func (g *Gateway) submitJob(c *gin.Context) error {
	wait, waiting := preferredWait(c.Request)
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, g.maxBody())
	var request jobRequest
	body, err := strict.Read(c.Request, &request)
	if err != nil {
		return err
	}
	job, replayed, err := g.accept(c.Request, body, 0, request.job())
	if err != nil {
		return err
	}
	header := c.Writer.Header()
	header.Set("Location", "/v1/jobs/"+job.ID)
	status := http.StatusAccepted
	if replayed {
		header.Set("Idempotency-Replayed", "true")
		status = http.StatusOK
	}
	if waiting {
		// The job is accepted: if waiting fails that is still the answer.
		if waited, err := g.await(c, job.ID, wait); err == nil {
			header.Set("Preference-Applied", fmt.Sprintf("wait=%d", int(wait.Seconds())))
			job = waited
		}
		status = http.StatusAccepted
		if job.State.Terminal() {
			status = http.StatusOK
		}
	}
	writeJSON(c, status, job)
	return nil
}

// maxWait is how long a request that prefers to wait is held at most.
const maxWait = 60 * time.Second

// preferredWait reads "Prefer: wait" or "wait=N" (RFC 7240). A preference that cannot
// be understood is ignored, as the RFC demands; what applies is told in the answer.
func preferredWait(r *http.Request) (time.Duration, bool) {
	for _, preference := range strings.Split(strings.Join(r.Header.Values("Prefer"), ","), ",") {
		name, value, given := strings.Cut(strings.TrimSpace(preference), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		if !given {
			return maxWait, true
		}
		seconds, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
		if err != nil || seconds < 0 {
			return 0, false
		}
		return min(time.Duration(min(seconds, 3600))*time.Second, maxWait), true
	}
	return 0, false
}

// await returns the job when it has ended, or as it stands after the given time or
// when the gateway stops.
func (g *Gateway) await(c *gin.Context, id string, limit time.Duration) (*queue.Job, error) {
	ctx, end, err := g.hold(c.Writer, c.Request)
	if err != nil {
		return nil, err
	}
	defer end()
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for e, err := range g.watch(timed, id, 0) {
		if err != nil && timed.Err() == nil {
			return nil, err
		}
		if err == nil && e.Terminal() {
			return e.Job, nil
		}
	}
	return g.queue.Job(c.Request.Context(), id)
}

// accept validates a job and submits it, once per idempotency key if the request
// carries one. slot tells apart several jobs of one request. replayed says that the
// job returned is one that an earlier request made.
func (g *Gateway) accept(r *http.Request, body []byte, slot int, job *queue.Job) (accepted *queue.Job, replayed bool, err error) {
	return g.acceptIf(g.validate, r, body, slot, job)
}

// acceptIf is accept with another validation.
func (g *Gateway) acceptIf(valid func(context.Context, *queue.Job) error, r *http.Request, body []byte, slot int, job *queue.Job) (accepted *queue.Job, replayed bool, err error) {
	ctx := r.Context()
	job.Tenant = principalOf(ctx).Tenant
	job.Trace = traceparent(ctx)
	defer func() { g.accepted(ctx, accepted, replayed, err) }()
	if err := valid(ctx, job); err != nil {
		return nil, false, err
	}
	done, err := g.limiter.Job(ctx, g.queue)
	if err != nil {
		return nil, false, err
	}
	defer done()
	key := r.Header.Get("Idempotency-Key")
	retry, err := strconv.Atoi(r.Header.Get("X-Stainless-Retry-Count"))
	counted := err == nil && retry >= 0
	if key == "" && !counted {
		return job, false, g.queue.Submit(ctx, job)
	}
	print, err := fingerprint(r, body)
	if err != nil {
		return nil, false, err
	}
	if key == "" {
		return g.acceptSDK(ctx, fmt.Sprintf("sdk %d %s", slot, print), retry, job)
	}
	if err := checkKey(key); err != nil {
		return nil, false, err
	}
	return g.queue.SubmitOnce(ctx, fmt.Sprintf("key %d %s", slot, key), print, keyWindow, job)
}

// Windows within which a repeated request is given the first one's job.
const (
	keyWindow = 24 * time.Hour
	sdkWindow = 10 * time.Minute
)

// acceptSDK submits a job for OpenAI's SDKs, which send no idempotency key but count
// their retries. A first attempt always makes a job and takes over the key, since
// equal requests may be meant; a retry gets the job of the latest first attempt,
// unless that was canceled (as it is when its connection is lost).
func (g *Gateway) acceptSDK(ctx context.Context, key string, retry int, job *queue.Job) (*queue.Job, bool, error) {
	if retry == 0 {
		return g.queue.SubmitOnce(ctx, key, key, 0, job)
	}
	again := *job // SubmitOnce gives a job its id
	held, replayed, err := g.queue.SubmitOnce(ctx, key, key, sdkWindow, job)
	if err != nil || !replayed || held.State != queue.Canceled {
		return held, replayed, err
	}
	return g.queue.SubmitOnce(ctx, key, key, 0, &again)
}

// fingerprint identifies a request: method, path and canonical body.
func fingerprint(r *http.Request, body []byte) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return "", fmt.Errorf("gateway: fingerprint: %w", err)
	}
	canonical, err := json.Marshal(value) // sorts members
	if err != nil {
		return "", fmt.Errorf("gateway: fingerprint: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s\n", r.Method, r.URL.Path)
	sum.Write(canonical)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// maxKey is how many bytes an Idempotency-Key may have.
const maxKey = 255

func checkKey(key string) error {
	if len(key) > maxKey {
		return queue.Problemf("invalid_request", "The Idempotency-Key has %d bytes; at most %d.", len(key), maxKey)
	}
	return nil
}

// validate checks everything about a job that a client decides: what the queue
// demands, the task, its input, the model, and what the job needs.
func (g *Gateway) validate(ctx context.Context, job *queue.Job) error {
	if err := checkRequest(job, g.queue.MaxInput()); err != nil {
		return err
	}
	t, err := g.directory.task(ctx, job.Task)
	if err != nil {
		return err
	}
	if err := t.validate(job.Input); err != nil {
		return err
	}
	if job.Model != "" {
		if err := g.directory.checkModel(ctx, job.Task, job.Model); err != nil {
			return err
		}
	}
	for i, id := range job.Needs {
		_, err := g.job(ctx, id)
		if errors.Is(err, queue.ErrNotFound) {
			return strict.Invalid(fmt.Sprintf("/needs/%d", i), "there is no job %s", id)
		}
		if err != nil {
			return err
		}
	}
	return g.admitWebhook(ctx, job)
}

// checkRequest checks what needs no look at anything else. maxInput is in bytes.
func checkRequest(job *queue.Job, maxInput int) error {
	filled := *job
	filled.Tenant = cmp.Or(job.Tenant, queue.DefaultTenant)
	if filled.Priority == "" {
		filled.Priority = queue.Normal
	}
	if problem := filled.Validate(); problem != nil {
		return problem
	}
	for _, name := range []struct {
		pointer, value string
		limit          int
	}{{"/model", job.Model, maxModelName}, {"/batch", job.Batch, maxGroupName}, {"/pipeline", job.Pipeline, maxGroupName}} {
		if len(name.value) > name.limit {
			return strict.Invalid(name.pointer, "at most %d bytes, got %d", name.limit, len(name.value))
		}
	}
	if job.Deadline != nil && !job.Deadline.After(time.Now()) {
		return strict.Invalid("/deadline", "the time has passed already")
	}
	if len(job.Input) > maxInput {
		return queue.Problemf("too_large", "The input has %d bytes; at most %d. Media go to POST /v1/uploads.", len(job.Input), maxInput)
	}
	return nil
}

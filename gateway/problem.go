package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"helicon/gateway/access"
	"helicon/gateway/catalog"
	"helicon/gateway/garbage"
	"helicon/gateway/openai"
	"helicon/queue"
)

// problem is the body of an error answer (RFC 9457). Where OpenAI's clients call
// too, it carries their error object as an extension.
type problem struct {
	Type     string             `json:"type"`
	Title    string             `json:"title"`
	Status   int                `json:"status"`
	Detail   string             `json:"detail"`
	Code     string             `json:"code"`
	Errors   []queue.FieldError `json:"errors,omitempty"`
	Instance string             `json:"instance,omitempty"` // path of the request
	Error    *openai.Error      `json:"error,omitempty"`
	Violated []string           `json:"violated-policies,omitempty"` // limits that are reached, as the field RateLimit names them
}

const problemTypes = "https://helicon.dev/problems/"

// kindOf is what every problem of one code has in common.
type kindOf struct {
	status int
	title  string
}

// kinds maps the codes of problems to statuses. Codes that only a generator knows
// are failures of the job: 500.
var kinds = map[string]kindOf{
	"invalid_request":        {http.StatusBadRequest, "The request is not valid"},
	"invalid_input":          {http.StatusBadRequest, "The input is not valid"},
	"unknown_task":           {http.StatusBadRequest, "There is no such task"},
	"prompt_too_long":        {http.StatusBadRequest, "The prompt does not fit the model"},
	"prompt_empty":           {http.StatusBadRequest, "The prompt is empty"},
	"prompt_unreadable":      {http.StatusBadRequest, "The prompt cannot be read"},
	"chat_unreadable":        {http.StatusBadRequest, "The conversation cannot be read"},
	"no_chat_template":       {http.StatusBadRequest, "The model does not chat"},
	"tools_unsupported":      {http.StatusBadRequest, "The model does not call tools"},
	"form_impossible":        {http.StatusBadRequest, "The model cannot answer in this form"},
	"image_unreadable":       {http.StatusBadRequest, "The picture cannot be read"},
	"image_too_large":        {http.StatusRequestEntityTooLarge, "The picture is too large"},
	"image_unwritable":       {http.StatusBadRequest, "The format cannot hold the picture"},
	"input_missing":          {http.StatusBadRequest, "A file of the input is missing"},
	"invalid_file":           {http.StatusBadRequest, "The file cannot be read"},
	"empty_file":             {http.StatusBadRequest, "The file has no rows"},
	"duplicate_column":       {http.StatusBadRequest, "The header names a column twice"},
	"too_many_rows":          {http.StatusBadRequest, "The file has too many rows"},
	"too_many_jobs":          {http.StatusBadRequest, "The row asks for too many jobs"},
	"need_missing":           {http.StatusBadRequest, "A needed job is missing"},
	"key_required":           {http.StatusUnauthorized, "A key is required"},
	"key_invalid":            {http.StatusUnauthorized, "The key is not valid"},
	"scope_missing":          {http.StatusForbidden, "The key does not allow this"},
	"cross_origin":           {http.StatusForbidden, "Another site may not do this"},
	"request_timeout":        {http.StatusRequestTimeout, "The request came too slowly"},
	"not_found":              {http.StatusNotFound, "Not found"},
	"model_not_found":        {http.StatusNotFound, "There is no such model"},
	"method_not_allowed":     {http.StatusMethodNotAllowed, "The method is not allowed"},
	"job_finished":           {http.StatusConflict, "The job has ended"},
	"job_not_finished":       {http.StatusConflict, "The job has not ended"},
	"too_many_webhooks":      {http.StatusConflict, "There are too many webhooks"},
	"webhook_disabled":       {http.StatusConflict, "The webhook is disabled"},
	"canceled":               {http.StatusConflict, "The job was canceled"},
	"need_failed":            {http.StatusConflict, "A needed job did not succeed"},
	"too_large":              {http.StatusRequestEntityTooLarge, "Too large"},
	"unsupported_media_type": {http.StatusUnsupportedMediaType, "The media type is not supported"},
	"host_not_allowed":       {http.StatusMisdirectedRequest, "The host is not served here"},
	"idempotency_key_reused": {http.StatusUnprocessableEntity, "The idempotency key was used for another request"},
	"rate_limit_exceeded":    {http.StatusTooManyRequests, "Too many requests"},
	"quota_exceeded":         {http.StatusTooManyRequests, "The quota is used up"},
	"too_many_failures":      {http.StatusTooManyRequests, "Too many false keys"},
	"too_many_streams":       {http.StatusTooManyRequests, "Too many event streams"},
	"internal":               {http.StatusInternalServerError, "The server failed"},
	"not_implemented":        {http.StatusNotImplemented, "Not offered here"},
	"unavailable":            {http.StatusServiceUnavailable, "Not available at the moment"},
	"shutting_down":          {http.StatusServiceUnavailable, "The server is stopping"},
	"deadline_exceeded":      {http.StatusGatewayTimeout, "The deadline passed"},
	"storage_full":           {http.StatusInsufficientStorage, "The storage is full"},
}

// errShuttingDown ends whatever waits when the gateway stops.
var errShuttingDown = queue.Problemf("shutting_down", "The server is stopping; ask again in a moment.")

// explain is the one place that decides what an error means to a client: the
// status and the problem to tell.
func explain(err error) (int, *queue.Problem) {
	told := tell(err)
	if k, ok := kinds[told.Code]; ok {
		return k.status, told
	}
	return http.StatusInternalServerError, told
}

func tell(err error) *queue.Problem {
	var told *queue.Problem
	var body *http.MaxBytesError
	switch {
	case errors.As(err, &told):
		return told
	case errors.As(err, &body):
		return queue.Problemf("too_large", "The body is larger than %d bytes. Media go to POST /v1/uploads.", body.Limit)
	case errors.Is(err, queue.ErrTooLarge):
		return queue.Problemf("too_large", "The request is larger than the queue carries.")
	case errors.Is(err, queue.ErrNotFound):
		return queue.Problemf("not_found", "There is no such job.")
	case errors.Is(err, queue.ErrNoArtifact):
		return queue.Problemf("not_found", "There is no such artifact.")
	case errors.Is(err, garbage.ErrBehind):
		return queue.Problemf("unavailable", "The record of jobs is behind the queue; ask again in a moment.")
	case errors.Is(err, catalog.ErrNoEndpoint):
		return queue.Problemf("not_found", "There is no such webhook.")
	case errors.Is(err, catalog.ErrNoDelivery):
		return queue.Problemf("not_found", "There is no such delivery of this webhook.")
	case errors.Is(err, catalog.ErrEndpoints):
		return queue.Problemf("too_many_webhooks", "There are %d webhooks already; delete one first.", catalog.MaxEndpoints)
	case errors.Is(err, queue.ErrFinished):
		return queue.Problemf("job_finished", "The job has already ended.")
	case errors.Is(err, queue.ErrNotFinished):
		return queue.Problemf("job_not_finished", "The job has not ended yet. Cancel it first or wait for its end.")
	case errors.Is(err, queue.ErrKeyReused):
		return queue.Problemf("idempotency_key_reused", "The Idempotency-Key was used with another request. Send a new key with a new request.")
	case errors.Is(err, catalog.ErrUnavailable):
		return queue.Problemf("unavailable", "The database cannot be reached at the moment; ask again in a while.")
	case errors.Is(err, queue.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return queue.Problemf("unavailable", "The message server cannot be reached at the moment; ask again.")
	case errors.Is(err, queue.ErrFull):
		return queue.Problemf("storage_full", "The server's storage is full. Delete jobs or give it more space.")
	}
	return queue.Problemf("internal", "The server failed; its log has the reason under this answer's X-Request-Id.")
}

// statusClientGone stands in the access log for requests whose client did not wait.
const statusClientGone = 499

// fail answers a request with the error in the dialect of its route. What the
// client is not told goes to the log.
func (g *Gateway) fail(c *gin.Context, err error) {
	status, told := explain(err)
	// A body that stays away ends the request's context as well, but not the client.
	if c.Request.Context().Err() != nil && told.Code != "request_timeout" {
		c.Status(statusClientGone)
		return
	}
	if status >= http.StatusInternalServerError {
		g.log.Error("request failed", "request", requestID(c), "route", c.FullPath(), "err", err)
	}
	if c.Writer.Written() {
		return // the answer is under way: all that is left is to end it
	}
	header := c.Writer.Header()
	for _, name := range []string{"Content-Length", "Content-Disposition", "Etag", "Last-Modified"} {
		header.Del(name)
	}
	header.Set("Cache-Control", "no-store")
	if challenge, ok := challenges[told.Code]; ok {
		header.Set("WWW-Authenticate", challenge)
	}
	var limit *access.Limited
	again := status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
	if errors.As(err, &limit) {
		again = limit.Tell(header)
	} else if again {
		header.Set("Retry-After", "1")
		header.Set("Retry-After-Ms", "1000")
	}
	shape := dialect(c)
	if shape != native {
		header.Set("X-Should-Retry", map[bool]string{true: "true", false: "false"}[again])
	}
	if shape == openAI {
		writeJSON(c, status, openai.ErrorBody{Error: openai.NewError(status, told)})
		return
	}
	body := problem{
		Type: problemTypes + told.Code, Title: title(told.Code), Status: status, Detail: told.Detail,
		Code: told.Code, Errors: told.Errors, Instance: c.Request.URL.Path,
	}
	if limit != nil {
		body.Violated = []string{limit.Policy}
	}
	if shape == shared {
		body.Error = openai.NewError(status, told)
	}
	header.Set("Content-Type", "application/problem+json")
	writeJSON(c, status, body)
}

func title(code string) string {
	if k, ok := kinds[code]; ok {
		return k.title
	}
	return "The job failed"
}

// The dialects of error answers.
const (
	native = iota
	openAI
	shared // both at once, where clients of both kinds call
)

// dialect tells which clients call a route. An unknown one below /v1 may be meant
// by either.
func dialect(c *gin.Context) int {
	path := c.Request.URL.Path
	switch {
	case openai.Owns(path):
		return openAI
	case c.FullPath() == "" && strings.HasPrefix(path, "/v1/"), strings.HasPrefix(path, "/v1/models"), strings.HasPrefix(path, "/v1/batches"):
		return shared
	}
	return native
}

// writeJSON answers with a JSON value; the content type is JSON unless one is set.
func writeJSON(c *gin.Context, status int, value any) {
	if c.Writer.Header().Get("Content-Type") == "" {
		c.Writer.Header().Set("Content-Type", "application/json")
	}
	c.Writer.WriteHeader(status)
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return
	}
	encoder := json.NewEncoder(c.Writer)
	encoder.SetEscapeHTML(false)
	// The connection is the only thing that can fail, and nobody is left to be told.
	_ = encoder.Encode(value)
}

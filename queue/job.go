package queue

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// State is where a job stands: queued → running → succeeded | failed | canceled.
// A job that is handed back or tried again returns from running to queued.
type State string

// The states of a job.
const (
	Queued    State = "queued"
	Running   State = "running"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Canceled  State = "canceled"
)

// Terminal reports whether the state is final.
func (s State) Terminal() bool { return s == Succeeded || s == Failed || s == Canceled }

// Valid reports whether s is one of the five states.
func (s State) Valid() bool { return s == Queued || s == Running || s.Terminal() }

// Priority orders queued jobs. A worker prefers high to normal to low, but visits
// the lower ones at fixed intervals so that none starves.
type Priority string

// The priorities of a job.
const (
	High   Priority = "high"
	Normal Priority = "normal"
	Low    Priority = "low"
)

// MaxSeed is the largest seed: the largest integer that every JSON reader keeps exact.
const MaxSeed = 1<<53 - 1

// DefaultTenant owns the jobs of a server that knows no tenants.
const DefaultTenant = "default"

// Job is one request for one result. The gateway fills the request, the queue the
// state, and the worker the result.
type Job struct {
	ID       string          `json:"id"` // ULID
	Tenant   string          `json:"tenant,omitempty"`
	Task     string          `json:"task"`            // <modality>.<verb>
	Model    string          `json:"model,omitempty"` // empty: the task's default, filled in by the worker
	State    State           `json:"state"`
	Revision uint64          `json:"revision"` // grows with every change of state
	Input    json.RawMessage `json:"input"`    // parameters of the task, valid by its schema
	Seed     uint64          `json:"seed"`     // 0 … MaxSeed
	Priority Priority        `json:"priority"`
	Needs    []string        `json:"needs,omitempty"` // jobs that must have succeeded before this one starts
	Batch    string          `json:"batch,omitempty"`
	Pipeline string          `json:"pipeline,omitempty"`
	Tags     []string        `json:"tags,omitempty"`
	Webhook  string          `json:"webhook,omitempty"`  // URL that is told what happens to the job
	RetryOf  string          `json:"retry_of,omitempty"` // the job whose request this one repeats
	Trace    string          `json:"trace,omitempty"`    // W3C traceparent of the request that made it
	Memo     json.RawMessage `json:"memo,omitempty"`     // what the route that made it remembers of its request; nobody else reads it

	WebhookEvents []string `json:"webhook_events_filter,omitempty"` // what the webhook is told of; nil: the end

	Created  time.Time  `json:"created"`
	Started  *time.Time `json:"started,omitempty"` // of the current or last attempt
	Finished *time.Time `json:"finished,omitempty"`
	Deadline *time.Time `json:"deadline,omitempty"` // not started or not ended by then: failed

	Attempts int       `json:"attempts"`           // runs begun, hand-backs not counted
	Failures []Failure `json:"failures,omitempty"` // why earlier attempts ended
	Worker   string    `json:"worker,omitempty"`   // that runs or ran it
	Progress *Progress `json:"progress,omitempty"`
	Result   *Result   `json:"result,omitempty"`
	Problem  *Problem  `json:"problem,omitempty"`
}

// Modality is the part of the task before the dot: text, image, audio, video or model.
func (j *Job) Modality() string {
	m, _, _ := strings.Cut(j.Task, ".")
	return m
}

// Failure says why one attempt at a job ended without a result.
type Failure struct {
	Attempt int       `json:"attempt"`
	Worker  string    `json:"worker"`
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time"`
}

// Progress tells how far a running job is.
type Progress struct {
	Step  int     `json:"step"`
	Total int     `json:"total"`
	ETA   float64 `json:"eta,omitempty"` // seconds until the end, estimated from the speed so far
	// Failed is how many of the steps failed, where one can: the rows of a batch.
	Failed int `json:"failed,omitempty"`
}

// Result is what a succeeded job produced.
type Result struct {
	Text      string          `json:"text,omitempty"`
	Artifacts []Artifact      `json:"artifacts,omitempty"`
	Usage     *Usage          `json:"usage,omitempty"`
	Meta      json.RawMessage `json:"meta,omitempty"` // task-specific facts: parameters used, finish reason
}

// Usage counts what a job consumed.
type Usage struct {
	InputTokens    int     `json:"input_tokens,omitempty"`
	OutputTokens   int     `json:"output_tokens,omitempty"`
	ComputeSeconds float64 `json:"compute_seconds,omitempty"`
}

// Artifact names stored bytes by their SHA-256.
type Artifact struct {
	SHA256    string  `json:"sha256"` // 64 hex digits
	MediaType string  `json:"media_type"`
	Size      int64   `json:"size"` // bytes
	Name      string  `json:"name,omitempty"`
	Width     int     `json:"width,omitempty"`    // pixels
	Height    int     `json:"height,omitempty"`   // pixels
	Duration  float64 `json:"duration,omitempty"` // seconds
	URL       string  `json:"url,omitempty"`      // path on the gateway
}

// Problem is an error that a user may see: a stable code, a sentence, and where
// the input is at fault the fields. It is an error value itself.
type Problem struct {
	Code   string       `json:"code"`
	Detail string       `json:"detail"`
	Errors []FieldError `json:"errors,omitempty"`
}

// FieldError points at one value of the input (JSON Pointer) and says what is wrong with it.
type FieldError struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// Error implements error.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// Problemf makes a Problem from a code and a formatted sentence.
func Problemf(code, format string, args ...any) *Problem {
	return &Problem{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Limits on what a job may carry.
const (
	MaxNeeds     = 64
	MaxTags      = 32
	MaxTagLength = 128
)

var (
	taskName   = regexp.MustCompile(`^[a-z]+\.[a-z]+$`)
	tenantName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`) // safe as one token of a subject
)

// Validate reports what makes the request unfit for the queue as a *Problem, or
// nil. It does not look into Input: that is the task's schema's part.
func (j *Job) Validate() *Problem {
	var errs []FieldError
	bad := func(pointer, format string, args ...any) {
		errs = append(errs, FieldError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
	}
	if !taskName.MatchString(j.Task) {
		bad("/task", "want <modality>.<verb>, for example text.complete")
	}
	if j.Priority != High && j.Priority != Normal && j.Priority != Low {
		bad("/priority", "want high, normal or low")
	}
	if j.Seed > MaxSeed {
		bad("/seed", "want an integer from 0 to %d", int64(MaxSeed))
	}
	if !ValidTenant(j.Tenant) {
		bad("/tenant", "want 1 to 64 of a-z, 0-9 and -, the first not -")
	}
	if len(j.Needs) > MaxNeeds {
		bad("/needs", "at most %d jobs", MaxNeeds)
	}
	for i, id := range j.Needs {
		if !ValidID(id) {
			bad(fmt.Sprintf("/needs/%d", i), "want a job id")
		}
	}
	if len(j.Tags) > MaxTags {
		bad("/tags", "at most %d tags", MaxTags)
	}
	for i, tag := range j.Tags {
		if tag == "" || len(tag) > MaxTagLength {
			bad(fmt.Sprintf("/tags/%d", i), "want 1 to %d bytes", MaxTagLength)
		}
	}
	if errs == nil {
		return nil
	}
	return &Problem{Code: "invalid_request", Detail: "The job is not valid.", Errors: errs}
}

// NewID returns a new job id: a ULID, so that ids sort by time of creation.
func NewID() string { return ulid.Make().String() }

// ValidTenant reports whether name has the form of a tenant's: 1 to 64 small letters,
// digits and hyphens, of which the first is no hyphen.
func ValidTenant(name string) bool { return tenantName.MatchString(name) }

// ValidID reports whether id has the form of a job id.
func ValidID(id string) bool {
	_, err := ulid.ParseStrict(id)
	return err == nil && id == strings.ToUpper(id)
}

// Package batch runs the rows of a file as jobs. A batch is itself a job, of the task
// batch.run, which a Coordinator leases: one runs in every gateway, and when it dies
// another takes over where it stopped, since the ids of the rows' jobs follow from the
// batch and the row. Nothing else has to be remembered: the record of a batch (Account)
// only saves looking at rows that are known to have ended.
//
// The rows are lines of OpenAI's batch format, whose requests are translated as their
// routes do, or the rows of a table that a template makes the inputs of a task.
package batch

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"helicon/gateway/openai"
	"helicon/gateway/strict"
	"helicon/queue"
)

// Task is the task of the jobs that batches are.
const Task = "batch.run"

// Limits on batches, and what applies where a request does not say.
const (
	MaxConcurrency = 1024
	MaxDryRun      = 100

	defaultConcurrency = 32
	defaultWindow      = "24h"
	leastWindow        = time.Minute
	mostWindow         = 7 * 24 * time.Hour
	maxMetadata        = 16
	maxMetadataName    = 64  // characters
	maxMetadataValue   = 512 // characters
)

// Spec is what a batch is to do: the input of its job. It is either of OpenAI's kind and
// has an endpoint, or a native one and has a task.
type Spec struct {
	InputFile   string            `json:"input_file_id"`
	Source      string            `json:"source"` // SHA-256 of the file
	Window      string            `json:"completion_window"`
	Expires     time.Time         `json:"expires"`
	Concurrency int               `json:"concurrency"` // rows at once
	Priority    queue.Priority    `json:"priority"`    // of the rows' jobs
	Metadata    map[string]string `json:"metadata,omitempty"`
	Keep        time.Duration     `json:"keep,omitempty"`       // of the files that it makes; 0: for good
	TakesOver   []string          `json:"takes_over,omitempty"` // batches whose succeeded rows are this one's, newest first

	Endpoint string `json:"endpoint,omitempty"`
	Origin   string `json:"origin,omitempty"` // what URLs in answers begin with

	Task     string          `json:"task,omitempty"`
	Model    string          `json:"model,omitempty"`
	Template json.RawMessage `json:"template,omitempty"` // absent: each column is a member of the input
	Seed     uint64          `json:"seed"`               // of the first row; each has the one before it and one more
}

// Request is the body of POST /v1/batches: OpenAI's members, of which endpoint makes it a
// batch of requests, and those of a native one, of which task does.
type Request struct {
	InputFileID      string            `json:"input_file_id"`
	Endpoint         string            `json:"endpoint"`
	CompletionWindow string            `json:"completion_window"`
	Metadata         map[string]string `json:"metadata"`
	OutputExpires    *Expiry           `json:"output_expires_after"`

	Task        string          `json:"task"`
	Model       string          `json:"model"`
	Template    json.RawMessage `json:"template"`
	Seed        *uint64         `json:"seed"`
	Concurrency *int            `json:"concurrency"`
	Priority    queue.Priority  `json:"priority"`
	Tags        []string        `json:"tags"`
	DryRun      *int            `json:"dry_run"` // rows to show instead of running any
}

// Expiry says how long a file is kept.
type Expiry struct {
	Anchor  string `json:"anchor"` // created_at
	Seconds int64  `json:"seconds"`
}

// Validate reports what is wrong with how long a file is to be kept, at the pointer.
func (e *Expiry) Validate(pointer string) error {
	switch {
	case e.Anchor != "created_at":
		return strict.Invalid(pointer+"/anchor", "want created_at")
	case e.Seconds < int64(openai.LeastExpiry.Seconds()) || e.Seconds > int64(openai.MostExpiry.Seconds()):
		return strict.Invalid(pointer+"/seconds", "want %.0f to %.0f", openai.LeastExpiry.Seconds(), openai.MostExpiry.Seconds())
	}
	return nil
}

// Spec checks the request, but for the file, the task and the template, and returns what
// it asks for at the time now.
func (r *Request) Spec(now time.Time) (*Spec, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	s := &Spec{
		InputFile: r.InputFileID, Window: r.CompletionWindow, Metadata: r.Metadata, Endpoint: r.Endpoint,
		Task: r.Task, Model: r.Model, Priority: r.Priority, Concurrency: defaultConcurrency,
	}
	if len(r.Template) > 0 && string(r.Template) != "null" {
		s.Template = r.Template
	}
	if s.Priority == "" {
		s.Priority = queue.Low
	}
	if r.Concurrency != nil {
		s.Concurrency = *r.Concurrency
	}
	if s.Window == "" {
		s.Window = defaultWindow
	}
	window, err := time.ParseDuration(s.Window)
	if err != nil || window < leastWindow || window > mostWindow {
		return nil, strict.Invalid("/completion_window", "want 24h, or another time from %s to %.0fh", leastWindow, mostWindow.Hours())
	}
	s.Expires = now.Add(window)
	s.Seed = rand.Uint64N(queue.MaxSeed + 1)
	if r.Seed != nil {
		s.Seed = *r.Seed
	}
	if r.OutputExpires != nil {
		if err := r.OutputExpires.Validate("/output_expires_after"); err != nil {
			return nil, err
		}
		s.Keep = time.Duration(r.OutputExpires.Seconds) * time.Second
	}
	return s, nil
}

func (r *Request) validate() error {
	switch {
	case r.InputFileID == "":
		return strict.Invalid("/input_file_id", "required, but missing; POST /v1/files with purpose=batch gives one")
	case r.Endpoint == "" && r.Task == "":
		return strict.Invalid("/endpoint", "required, but missing; a native batch has a task instead")
	case r.Endpoint != "" && r.Task != "":
		return strict.Invalid("/task", "contradicts endpoint; send one of them")
	case r.Endpoint != "" && !slices.Contains(openai.Endpoints(), r.Endpoint):
		return strict.Invalid("/endpoint", "want one of %s", strings.Join(openai.Endpoints(), ", "))
	case r.Endpoint != "" && (r.Model != "" || len(r.Template) > 0 || r.Seed != nil):
		return strict.Invalid("/template", "model, template and seed are for batches with a task; here each line has its own")
	case r.Seed != nil && *r.Seed > queue.MaxSeed:
		return strict.Invalid("/seed", "want an integer from 0 to %d", int64(queue.MaxSeed))
	case r.Concurrency != nil && (*r.Concurrency < 1 || *r.Concurrency > MaxConcurrency):
		return strict.Invalid("/concurrency", "want 1 to %d rows at once", MaxConcurrency)
	case r.Priority != "" && r.Priority != queue.High && r.Priority != queue.Normal && r.Priority != queue.Low:
		return strict.Invalid("/priority", "want high, normal or low")
	case r.DryRun != nil && (*r.DryRun < 1 || *r.DryRun > MaxDryRun):
		return strict.Invalid("/dry_run", "want 1 to %d rows", MaxDryRun)
	case len(r.Metadata) > maxMetadata:
		return strict.Invalid("/metadata", "at most %d members", maxMetadata)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Metadata)) {
		if len([]rune(name)) > maxMetadataName || len([]rune(r.Metadata[name])) > maxMetadataValue {
			return strict.Invalid("/metadata/"+strict.Escape(name), "at most %d characters in a name and %d in a value", maxMetadataName, maxMetadataValue)
		}
	}
	return nil
}

// Job is the job that the batch is, for a tenant.
func (s *Spec) Job(tenant string, tags []string) (*queue.Job, error) {
	input, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("batch: spec: %w", err)
	}
	return &queue.Job{ID: queue.NewID(), Tenant: tenant, Task: Task, Model: s.Model, Input: input, Priority: queue.Normal, Tags: tags}, nil
}

// specOf reads the spec of a batch's job.
func specOf(job *queue.Job) (*Spec, error) {
	s := new(Spec)
	if err := json.Unmarshal(job.Input, s); err != nil {
		return nil, fmt.Errorf("batch: %s: spec: %w", job.ID, err)
	}
	return s, nil
}

const prefix = "batch_"

// Name is how a batch is called by those who know nothing of jobs.
func Name(job string) string { return prefix + job }

// JobOf returns the job of a batch by its name; queue.ErrNotFound if it is none.
func JobOf(name string) (string, error) {
	id, ok := strings.CutPrefix(name, prefix)
	if !ok || !queue.ValidID(id) {
		return "", queue.ErrNotFound
	}
	return id, nil
}

// maxSlots bounds how many jobs a row makes.
const maxSlots = 1 << 7

// rowID is the id of a row's job of the given slot: a ULID of the batch's time whose last
// bytes say which row it is, so that whoever runs the batch finds it, and ids sort as rows.
func rowID(batch string, row, slot int) string {
	id, err := ulid.ParseStrict(batch)
	if err != nil {
		panic(fmt.Sprintf("batch: %q is no job id", batch)) // the queue hands out valid ones only
	}
	sum := sha256.Sum256([]byte(batch))
	copy(id[6:12], sum[:])
	binary.BigEndian.PutUint32(id[12:], uint32(row*maxSlots+slot))
	return id.String()
}

// fileID is the id of the file of the given number that a batch makes.
func fileID(batch string, number int) string { return "file-" + rowID(batch, 0, number) }

// Again is the job of a batch that does again what did not succeed in an old one, and takes
// over what did. ErrNotFinished before the old one's end, ErrFinished if all its rows have
// succeeded.
func Again(ctx context.Context, q *queue.Queue, old *queue.Job, now time.Time) (*queue.Job, error) {
	if !old.State.Terminal() {
		return nil, queue.ErrNotFinished
	}
	account := new(Account)
	if _, err := q.Batches().Get(ctx, old.Tenant, old.ID, account); err != nil && !errors.Is(err, queue.ErrNoRecord) {
		return nil, err
	}
	if old.State == queue.Succeeded && account.Failed+account.Canceled == 0 {
		return nil, queue.ErrFinished
	}
	spec, err := specOf(old)
	if err != nil {
		return nil, err
	}
	spec.TakesOver = append([]string{old.ID}, spec.TakesOver...)
	spec.TakesOver = spec.TakesOver[:min(len(spec.TakesOver), maxTakenOver)]
	window, err := time.ParseDuration(spec.Window)
	if err != nil {
		return nil, fmt.Errorf("batch: %s: window: %w", old.ID, err)
	}
	spec.Expires = now.Add(window)
	job, err := spec.Job(old.Tenant, old.Tags)
	if err == nil {
		job.RetryOf = old.ID
	}
	return job, err
}

// maxTakenOver bounds how many batches a row's job is looked for in.
const maxTakenOver = 16

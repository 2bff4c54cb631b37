package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"helicon/gateway/batch/table"
	"helicon/queue"
)

// Phase is how far the coordinators of a batch have come.
type Phase string

// The phases of a batch.
const (
	Validating Phase = "validating"
	InProgress Phase = "in_progress"
	Finalizing Phase = "finalizing"
)

// Account is what the coordinators of a batch remember of it.
type Account struct {
	Run   string `json:"run"` // of the coordinator that runs it; another one has taken over from it
	Phase Phase  `json:"phase"`

	Encoding table.Encoding `json:"encoding,omitempty"`
	Columns  []string       `json:"columns,omitempty"`
	Total    int            `json:"total"`

	Succeeded int `json:"succeeded"` // rows, as are the next two
	Failed    int `json:"failed"`
	Canceled  int `json:"canceled"`

	Mark          int `json:"mark"` // all rows up to this one have ended
	MarkSucceeded int `json:"mark_succeeded"`
	MarkFailed    int `json:"mark_failed"`
	Reserved      int `json:"reserved"` // no row behind this one has been submitted

	Faults     []table.Fault `json:"faults,omitempty"` // the first of them
	FaultCount int           `json:"fault_count,omitempty"`

	Begun     *time.Time `json:"begun,omitempty"`     // in progress
	Closed    *time.Time `json:"closed,omitempty"`    // finalizing
	Canceling *time.Time `json:"canceling,omitempty"` // asked for
	End       string     `json:"end,omitempty"`       // why it ended before all its rows

	Output  *queue.File  `json:"output,omitempty"`  // answers of the rows that succeeded
	Errors  *queue.File  `json:"errors,omitempty"`  // what became of the others
	Results *queue.File  `json:"results,omitempty"` // a Record a row
	Usage   *queue.Usage `json:"usage,omitempty"`
}

// maxFaults bounds how many faults are remembered.
const maxFaults = 100

// note remembers a fault of a row, once.
func (a *Account) note(faults ...table.Fault) {
	for _, f := range faults {
		if slices.Contains(a.Faults, f) {
			continue // by the coordinator before this one
		}
		a.FaultCount++
		if len(a.Faults) < maxFaults {
			a.Faults = append(a.Faults, f)
		}
	}
}

// Cancel asks for the end of a batch: its rows that have not ended are canceled, and the
// results of the others are kept. ErrFinished if it has ended.
func Cancel(ctx context.Context, q *queue.Queue, job *queue.Job) error {
	if job.State == queue.Queued && job.Attempts == 0 {
		_, err := q.Cancel(ctx, job.ID) // there is nothing to tidy up yet
		return err
	}
	for {
		now := time.Now().UTC()
		account := &Account{Phase: Validating}
		revision, err := q.Batches().Get(ctx, job.Tenant, job.ID, account)
		if err != nil && !errors.Is(err, queue.ErrNoRecord) {
			return err
		}
		if account.Phase == Finalizing {
			return queue.ErrFinished
		}
		if account.Canceling != nil {
			return nil
		}
		account.Canceling = &now
		_, err = q.Batches().Put(ctx, job.Tenant, job.ID, account, revision)
		if !errors.Is(err, queue.ErrChanged) {
			return err
		}
	}
}

// Batch is a batch as GET /v1/batches/{id} shows it, to OpenAI's clients and ours.
type Batch struct {
	ID               string            `json:"id"`
	Object           string            `json:"object"`
	Endpoint         string            `json:"endpoint"` // "" of a native one
	Model            string            `json:"model,omitempty"`
	Errors           *Faults           `json:"errors"`
	InputFileID      string            `json:"input_file_id"`
	CompletionWindow string            `json:"completion_window"`
	Status           string            `json:"status"`
	OutputFileID     string            `json:"output_file_id,omitempty"`
	ErrorFileID      string            `json:"error_file_id,omitempty"`
	CreatedAt        int64             `json:"created_at"` // Unix seconds, as are the next ones
	InProgressAt     *int64            `json:"in_progress_at"`
	ExpiresAt        int64             `json:"expires_at"`
	FinalizingAt     *int64            `json:"finalizing_at"`
	CompletedAt      *int64            `json:"completed_at"`
	FailedAt         *int64            `json:"failed_at"`
	ExpiredAt        *int64            `json:"expired_at"`
	CancellingAt     *int64            `json:"cancelling_at"`
	CancelledAt      *int64            `json:"cancelled_at"`
	RequestCounts    Counts            `json:"request_counts"`
	Usage            *Usage            `json:"usage,omitempty"`
	Metadata         map[string]string `json:"metadata"`

	Job           string          `json:"job"`
	Task          string          `json:"task,omitempty"`
	Template      any             `json:"template,omitempty"`
	Seed          *uint64         `json:"seed,omitempty"`
	Concurrency   int             `json:"concurrency"`
	Priority      queue.Priority  `json:"priority"`
	Tags          []string        `json:"tags,omitempty"`
	Progress      *queue.Progress `json:"progress,omitempty"`
	Encoding      table.Encoding  `json:"encoding,omitempty"`
	Columns       []string        `json:"columns,omitempty"`
	ResultsFileID string          `json:"results_file_id,omitempty"`
	RetryOf       string          `json:"retry_of,omitempty"`
}

// Counts are rows by what became of them.
type Counts struct {
	Total     int `json:"total"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	Canceled  int `json:"canceled"`
}

// Faults is a list of what is wrong with the file.
type Faults struct {
	Object string        `json:"object"`
	Data   []table.Fault `json:"data"`
	Total  int           `json:"total"` // of which data has the first
}

// Usage is what all rows together took, in OpenAI's words.
type Usage struct {
	InputTokens  int `json:"input_tokens"`
	InputDetails struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"input_tokens_details"`
	OutputTokens  int `json:"output_tokens"`
	OutputDetails struct {
		ReasoningTokens int `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
	TotalTokens    int     `json:"total_tokens"`
	ComputeSeconds float64 `json:"compute_seconds"`
}

// Problem codes of batches that ended before all their rows.
const (
	codeExpired  = "batch_expired"
	codeCanceled = "batch_cancelled"
)

// Describe returns the batch that a job is.
func Describe(ctx context.Context, q *queue.Queue, job *queue.Job) (*Batch, error) {
	if job.Task != Task {
		return nil, queue.ErrNotFound
	}
	spec, err := specOf(job)
	if err != nil {
		return nil, err
	}
	account := &Account{Phase: Validating}
	if _, err := q.Batches().Get(ctx, job.Tenant, job.ID, account); err != nil && !errors.Is(err, queue.ErrNoRecord) {
		return nil, err
	}
	b := &Batch{
		ID: Name(job.ID), Object: "batch", Endpoint: spec.Endpoint, Model: spec.Model,
		InputFileID: spec.InputFile, CompletionWindow: spec.Window, CreatedAt: job.Created.Unix(),
		ExpiresAt: spec.Expires.Unix(), InProgressAt: unix(account.Begun), FinalizingAt: unix(account.Closed),
		CancellingAt: unix(account.Canceling), Metadata: spec.Metadata,
		RequestCounts: Counts{account.Total, account.Succeeded, account.Failed, account.Canceled},
		Job:           job.ID, Task: spec.Task, Concurrency: spec.Concurrency, Priority: spec.Priority, Tags: job.Tags,
		Progress: job.Progress, Encoding: account.Encoding, Columns: account.Columns,
	}
	if spec.Task != "" {
		b.Template, b.Seed = spec.Template, &spec.Seed
	}
	if len(spec.TakesOver) > 0 {
		b.RetryOf = Name(spec.TakesOver[0])
	}
	b.conclude(job, account)
	return b, nil
}

// conclude fills in the status and what is known at the end alone.
func (b *Batch) conclude(job *queue.Job, account *Account) {
	ended := unix(job.Finished)
	b.Status = string(account.Phase)
	switch {
	case job.State == queue.Succeeded:
		b.Status, b.CompletedAt = "completed", ended
	case job.State == queue.Canceled:
		b.Status, b.CancelledAt = "cancelled", ended
	case job.State == queue.Failed && job.Problem != nil && job.Problem.Code == codeExpired:
		b.Status, b.ExpiredAt = "expired", ended
	case job.State == queue.Failed:
		b.Status, b.FailedAt = "failed", ended
		if job.Problem != nil && len(account.Faults) == 0 {
			account.note(table.Fault{Code: job.Problem.Code, Message: job.Problem.Detail})
		}
	case account.Canceling != nil && account.Phase != Finalizing, account.End == codeCanceled:
		b.Status = "cancelling"
	}
	if len(account.Faults) > 0 {
		b.Errors = &Faults{"list", account.Faults, account.FaultCount}
	}
	if !job.State.Terminal() {
		return
	}
	b.OutputFileID, b.ErrorFileID, b.ResultsFileID = idOf(account.Output), idOf(account.Errors), idOf(account.Results)
	if u := account.Usage; u != nil {
		b.Usage = &Usage{InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, TotalTokens: u.InputTokens + u.OutputTokens, ComputeSeconds: u.ComputeSeconds}
	}
}

func idOf(f *queue.File) string {
	if f == nil {
		return ""
	}
	return f.ID
}

func unix(t *time.Time) *int64 {
	if t == nil {
		return nil
	}
	seconds := t.Unix()
	return &seconds
}

// Results returns the records of a batch that has ended, a JSON Record a line;
// ErrNotFinished before that, ErrNoRecord if there are none.
func Results(ctx context.Context, q *queue.Queue, job *queue.Job) (*Account, error) {
	if !job.State.Terminal() {
		return nil, queue.ErrNotFinished
	}
	account := new(Account)
	if _, err := q.Batches().Get(ctx, job.Tenant, job.ID, account); err != nil {
		return nil, err
	}
	if account.Results == nil {
		return nil, fmt.Errorf("%w: the batch %s has no results", queue.ErrNoRecord, job.ID)
	}
	return account, nil
}

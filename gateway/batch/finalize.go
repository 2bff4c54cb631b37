package batch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"helicon/gateway/batch/table"
	"helicon/gateway/openai"
	"helicon/queue"
)

// Record is what became of one row: a line of a batch's results.
type Record struct {
	Row       int              `json:"row"` // from 1
	CustomID  string           `json:"custom_id,omitempty"`
	State     queue.State      `json:"state"` // succeeded, failed or canceled
	Jobs      []string         `json:"jobs,omitempty"`
	Columns   map[string]any   `json:"columns,omitempty"` // of the row of a native batch
	Seed      uint64           `json:"seed,omitempty"`
	Text      string           `json:"text,omitempty"`
	Artifacts []queue.Artifact `json:"artifacts,omitempty"`
	Meta      json.RawMessage  `json:"meta,omitempty"`
	Usage     *queue.Usage     `json:"usage,omitempty"`
	Problem   *queue.Problem   `json:"problem,omitempty"`
	Errors    []table.Fault    `json:"errors,omitempty"` // what is wrong with the row, by column
}

// answerLine is a line of the output and error files of one of OpenAI's batches.
type answerLine struct {
	ID       string       `json:"id"`
	CustomID string       `json:"custom_id"`
	Response *answer      `json:"response"`
	Error    *answerError `json:"error"`
}

type answer struct {
	StatusCode int             `json:"status_code"`
	RequestID  string          `json:"request_id"`
	Body       json.RawMessage `json:"body"`
}

// answerError is why a line was not begun.
type answerError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// find returns the ended jobs of a row: its own, else those that it takes over; nil if
// there are none, or not all.
func (r *run) find(ctx context.Context, row *request) ([]*queue.Job, error) {
	jobs, err := r.jobs(ctx, row, r.job.ID)
	if err != nil || jobs != nil {
		return jobs, err
	}
	return r.taken(ctx, row)
}

// jobs returns the jobs of a row in a batch, if all of them are on record and have ended.
func (r *run) jobs(ctx context.Context, row *request, batch string) ([]*queue.Job, error) {
	var found []*queue.Job
	for slot := range row.jobs {
		job, err := r.coordinator.queue.Job(ctx, rowID(batch, row.row.Number, slot))
		if errors.Is(err, queue.ErrNotFound) || err == nil && !job.State.Terminal() {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		found = append(found, job)
	}
	return found, nil
}

// taken returns the jobs of a row that have succeeded in a batch that this one takes over.
func (r *run) taken(ctx context.Context, row *request) ([]*queue.Job, error) {
	for _, batch := range r.spec.TakesOver {
		jobs, err := r.jobs(ctx, row, batch)
		if err != nil {
			return nil, err
		}
		succeeded := len(jobs) > 0
		for _, job := range jobs {
			succeeded = succeeded && job.State == queue.Succeeded
		}
		if succeeded {
			return jobs, nil
		}
	}
	return nil, nil
}

// conclusion is a row with what became of it.
type conclusion struct {
	request *request
	ended   []*queue.Job
}

// together is how many rows are looked up at once for the files.
const together = 16

// finalize writes the files of the batch: all its rows in their order, each in one line of
// the results and in one of either output or errors. It depends on nothing but the jobs,
// and may be done again.
func (r *run) finalize(ctx context.Context) error {
	s, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	w := &writer{run: r, source: s, usage: &queue.Usage{}}
	for i, name := range []string{"output", "errors", "results"} {
		w.spools[i] = &spool{queue: r.coordinator.queue, tenant: r.job.Tenant, name: Name(r.job.ID) + "_" + name + ".jsonl"}
	}
	err = w.all(ctx)
	var files [3]*queue.File
	for i, sp := range w.spools {
		artifact, closed := sp.close(err)
		if err == nil {
			err = closed
		}
		if err == nil && artifact != nil {
			files[i], err = r.keep(ctx, fileID(r.job.ID, i), *artifact)
		}
	}
	if err != nil {
		return err
	}
	return r.change(ctx, func(a *Account) {
		a.Output, a.Errors, a.Results, a.Usage = files[0], files[1], files[2], w.usage
		a.Succeeded, a.Failed, a.Canceled = w.counts.Completed, w.counts.Failed, w.counts.Canceled
	})
}

// keep makes a file of what the batch has made.
func (r *run) keep(ctx context.Context, id string, artifact queue.Artifact) (*queue.File, error) {
	f := &queue.File{ID: id, Purpose: "batch_output", Name: artifact.Name, Artifact: artifact, Created: time.Now().UTC()}
	if r.spec.Keep > 0 {
		expires := f.Created.Add(r.spec.Keep)
		f.Expires = &expires
	}
	files := r.coordinator.queue.Files()
	revision, err := files.Get(ctx, r.job.Tenant, id, new(queue.File))
	if err != nil && !errors.Is(err, queue.ErrNoRecord) {
		return nil, err
	}
	_, err = files.Put(ctx, r.job.Tenant, id, f, revision)
	return f, err
}

// writer writes what became of the rows.
type writer struct {
	run    *run
	source *source
	spools [3]*spool // output, errors, results
	counts Counts
	usage  *queue.Usage
}

func (w *writer) all(ctx context.Context) error {
	for end := false; !end; {
		rows := make([]conclusion, 0, together)
		for len(rows) < together && !end {
			row, err := w.source.next(ctx)
			if err == io.EOF {
				end = true
				break
			}
			if err != nil {
				return err
			}
			rows = append(rows, conclusion{request: row})
		}
		group, looking := errgroup.WithContext(ctx)
		for i := range rows {
			group.Go(func() (err error) {
				if rows[i].request.problem == nil {
					rows[i].ended, err = w.run.find(looking, rows[i].request)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for _, row := range rows {
			if err := w.row(ctx, row); err != nil {
				return err
			}
		}
	}
	return nil
}

// row writes one row.
func (w *writer) row(ctx context.Context, c conclusion) error {
	record, err := w.record(ctx, c)
	if err != nil {
		return err
	}
	to := w.spools[1]
	switch record.State {
	case queue.Succeeded:
		to = w.spools[0]
		w.counts.Completed++
	case queue.Canceled:
		w.counts.Canceled++
	default:
		w.counts.Failed++
	}
	if err := w.spools[2].line(ctx, record); err != nil {
		return err
	}
	if c.request.exchange == nil && w.run.spec.Endpoint == "" {
		return to.line(ctx, record)
	}
	answer, err := w.answer(ctx, c, record)
	if err != nil {
		return err
	}
	return to.line(ctx, answer)
}

// record says what became of a row.
func (w *writer) record(ctx context.Context, c conclusion) (*Record, error) {
	row := c.request
	if row.problem == nil && c.ended == nil && w.run.account.End == "" {
		// No job: the gateway refused it, and says why once more.
		if err := w.source.check(ctx, row); err != nil {
			return nil, err
		}
	}
	rec := &Record{Row: row.row.Number, CustomID: row.customID, Columns: row.columns, State: queue.Failed, Problem: row.problem, Errors: row.faults}
	switch {
	case c.ended != nil:
		w.sum(rec, c.ended)
	case row.problem != nil:
	case w.run.account.End == codeCanceled:
		rec.State, rec.Problem = queue.Canceled, queue.Problemf(codeCanceled, "The batch was canceled before the row was begun.")
	case w.run.account.End == codeExpired:
		rec.State, rec.Problem = queue.Canceled, queue.Problemf(codeExpired, "The row could not be done before the batch's completion window was over.")
	default:
		rec.Problem = queue.Problemf("record_lost", "The job of the row is no longer on record: it was deleted, or is older than records are kept.")
	}
	return rec, nil
}

// sum fills the record with what the row's jobs have made.
func (w *writer) sum(rec *Record, ended []*queue.Job) {
	rec.State = queue.Succeeded
	for _, job := range ended {
		rec.Jobs = append(rec.Jobs, job.ID)
		rec.Seed = job.Seed
		if job.State != queue.Succeeded {
			rec.State, rec.Problem = job.State, job.Problem
		}
		if job.State == queue.Canceled {
			rec.Problem = queue.Problemf("canceled", "The job was canceled.")
			if w.run.account.End != "" {
				rec.Problem = queue.Problemf(w.run.account.End, "The batch ended before the row did.")
			}
		}
		if job.Result == nil {
			continue
		}
		rec.Text += job.Result.Text
		rec.Meta = job.Result.Meta
		rec.Artifacts = append(rec.Artifacts, job.Result.Artifacts...)
		if u := job.Result.Usage; u != nil {
			rec.Usage = u
			w.usage.InputTokens += u.InputTokens
			w.usage.OutputTokens += u.OutputTokens
			w.usage.ComputeSeconds += u.ComputeSeconds
		}
	}
}

// answer tells a row as a line of OpenAI's files.
func (w *writer) answer(ctx context.Context, c conclusion, rec *Record) (*answerLine, error) {
	id := rowID(w.run.job.ID, rec.Row, 0)
	out := &answerLine{ID: "batch_req_" + id, CustomID: rec.CustomID}
	if len(rec.Jobs) > 0 {
		id = rec.Jobs[0]
	}
	if rec.State == queue.Canceled {
		out.Error = &answerError{rec.Problem.Code, rec.Problem.Detail}
		return out, nil
	}
	out.Response = &answer{StatusCode: 200, RequestID: id}
	var err error = rec.Problem
	if rec.State == queue.Succeeded {
		out.Response.Body, err = c.request.exchange.Body(ctx, c.ended)
	} else if c.request.exchange != nil {
		err = c.request.exchange.Rename(rec.Problem)
	}
	if err == nil {
		return out, nil
	}
	status, problem := w.source.gateway.Explain(err)
	if status >= 500 && rec.State == queue.Succeeded {
		return nil, err
	}
	body, err := marshal(openai.ErrorBody{Error: openai.NewError(status, problem)})
	out.Response.StatusCode, out.Response.Body = status, body
	return out, err
}

// maxSpool is how many bytes a file of a batch may have.
const maxSpool = 8 << 30

// spool stores lines as they are written. It stores nothing if there are none.
type spool struct {
	queue        *queue.Queue
	tenant, name string

	buffer *bufio.Writer
	pipe   *io.PipeWriter
	stored chan struct{} // closed when artifact and err are set
	made   queue.Artifact
	err    error
}

// line writes a value as a line.
func (s *spool) line(ctx context.Context, value any) error {
	text, err := marshal(value)
	if err != nil {
		return fmt.Errorf("batch: %s: %w", s.name, err)
	}
	if s.pipe == nil {
		var out *io.PipeReader
		out, s.pipe = io.Pipe()
		s.buffer = bufio.NewWriterSize(s.pipe, 64<<10)
		s.stored = make(chan struct{})
		go func() {
			defer close(s.stored)
			s.made, s.err = s.queue.PutArtifact(ctx, s.tenant, out, maxSpool, queue.Artifact{MediaType: "application/jsonl", Name: s.name})
			out.CloseWithError(s.err)
		}()
	}
	if _, err := s.buffer.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("batch: %s: %w", s.name, err)
	}
	return nil
}

// close ends the file, which is not stored if there was an error, and waits for it.
func (s *spool) close(failed error) (*queue.Artifact, error) {
	if s.pipe == nil {
		return nil, nil
	}
	if failed == nil {
		failed = s.buffer.Flush()
	}
	s.pipe.CloseWithError(failed) // nil is the end
	<-s.stored
	if s.err != nil {
		return nil, s.err
	}
	return &s.made, nil
}

// commit ends the job of the batch as the batch has ended.
func (r *run) commit(ctx context.Context) error {
	a := &r.account
	switch a.End {
	case codeCanceled:
		_, err := r.coordinator.queue.Cancel(ctx, r.job.ID)
		if errors.Is(err, queue.ErrFinished) {
			return nil
		}
		return err
	case codeExpired:
		return r.lease.Fail(ctx, queue.Problemf(codeExpired, "The completion window of %s was over after %d of %d rows.", r.spec.Window, a.Succeeded+a.Failed, a.Total))
	}
	meta, err := marshal(map[string]any{
		"request_counts": Counts{a.Total, a.Succeeded, a.Failed, a.Canceled},
		"output_file_id": idOf(a.Output), "error_file_id": idOf(a.Errors), "results_file_id": idOf(a.Results),
	})
	if err != nil {
		return fmt.Errorf("batch: result: %w", err)
	}
	result := &queue.Result{Meta: meta}
	for _, f := range []*queue.File{a.Output, a.Errors, a.Results} {
		if f != nil {
			result.Artifacts = append(result.Artifacts, f.Artifact)
		}
	}
	return r.lease.Succeed(ctx, result)
}

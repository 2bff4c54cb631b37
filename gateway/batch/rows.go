package batch

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"helicon/gateway/batch/table"
	"helicon/gateway/openai"
	"helicon/gateway/strict"
	"helicon/queue"
)

// Gateway is what batches need of the gateway beside the queue.
type Gateway interface {
	// As returns a context in which a tenant calls.
	As(ctx context.Context, tenant string) context.Context
	// Translate reads the body of a request to an OpenAI route.
	Translate(ctx context.Context, path, origin string, body []byte) (*openai.Exchange, error)
	// Check validates a job as if its tenant submitted it.
	Check(ctx context.Context, job *queue.Job) error
	// Schema returns the schema of a task's input.
	Schema(ctx context.Context, task string) (json.RawMessage, error)
	// Explain returns the status and the problem that an error means to a client.
	Explain(err error) (status int, problem *queue.Problem)
}

// source reads the rows of a batch's file as what they ask for.
type source struct {
	gateway  Gateway
	spec     *Spec
	batch    string // id of its job, "" in a dry run
	tenant   string
	tags     []string
	table    *table.Table
	template *Template // nil for OpenAI's lines, and for JSON lines that are inputs themselves
	content  io.Closer
}

// request is a row as what it asks for: jobs, or the problem why there are none.
type request struct {
	row      *table.Row
	customID string
	columns  map[string]any
	jobs     []*queue.Job
	exchange *openai.Exchange // of one of OpenAI's lines
	problem  *queue.Problem
	faults   []table.Fault // the problem, by the row's columns
	template *Template
	tried    bool // submitting the jobs was begun
}

// open begins to read the file of a batch from its first row.
func open(ctx context.Context, q *queue.Queue, gateway Gateway, job *queue.Job, spec *Spec, encoding table.Encoding) (*source, error) {
	content, err := fetch(ctx, q, job.Tenant, spec.Source)
	if err != nil {
		return nil, err
	}
	s := &source{gateway: gateway, spec: spec, batch: job.ID, tenant: job.Tenant, tags: job.Tags, content: content}
	if encoding == "" {
		if encoding, err = table.Detect(content); err == nil {
			_, err = content.Seek(0, io.SeekStart)
		}
	}
	if err == nil {
		s.table, err = table.Open(content, encoding)
	}
	if err == nil && spec.Task != "" {
		err = s.plan(ctx)
	}
	if err != nil {
		content.Close()
		return nil, err
	}
	return s, nil
}

// local is a copy of a stored file, which goes when it is closed. Rows are read as slowly
// as their jobs are done; the store is not kept waiting for that.
type local struct{ *os.File }

// Close implements io.Closer.
func (l local) Close() error { return errors.Join(l.File.Close(), os.Remove(l.Name())) }

// fetch copies a stored file.
func fetch(ctx context.Context, q *queue.Queue, tenant, digest string) (content local, err error) {
	_, stored, err := q.Artifact(ctx, tenant, digest)
	if errors.Is(err, queue.ErrNoArtifact) {
		return local{}, queue.Problemf("invalid_file", "The bytes of the input file are gone.")
	}
	if err != nil {
		return local{}, err
	}
	defer stored.Close()
	file, err := os.CreateTemp("", "helicon-batch-*")
	if err != nil {
		return local{}, fmt.Errorf("batch: %w", err)
	}
	content = local{file}
	_, err = io.Copy(file, stored)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		content.Close()
		return local{}, fmt.Errorf("batch: input: %w", err)
	}
	return content, nil
}

// plan prepares the template of a native batch.
func (s *source) plan(ctx context.Context) error {
	schema, err := s.gateway.Schema(ctx, s.spec.Task)
	if err != nil {
		return err
	}
	switch {
	case s.spec.Template != nil:
		if s.template, err = ParseTemplate(s.spec.Template, schema); err != nil {
			return err
		}
		if s.table.Columns != nil {
			return s.template.Check(s.table.Columns)
		}
	case s.table.Columns != nil:
		s.template = EveryColumn(s.table.Columns, schema)
	}
	return nil
}

func (s *source) close() { s.content.Close() }

// next reads the next row, or returns io.EOF.
func (s *source) next(ctx context.Context) (*request, error) {
	row, err := s.table.Next()
	if err != nil {
		return nil, err
	}
	r := &request{row: row, template: s.template}
	if s.spec.Endpoint == "" {
		s.render(r)
	} else if err := s.translate(ctx, r); err != nil {
		return nil, err
	}
	if len(r.jobs) > maxSlots {
		r.refuse(row.Fault("too_many_jobs", "", "The row asks for %d jobs; at most %d.", len(r.jobs), maxSlots))
	}
	for slot, job := range r.jobs {
		job.Tenant, job.Priority, job.Tags = s.tenant, s.spec.Priority, s.tags
		if s.batch != "" {
			job.ID, job.Batch = rowID(s.batch, row.Number, slot), Name(s.batch)
		}
	}
	return r, nil
}

// refuse notes why the row makes no jobs.
func (r *request) refuse(faults ...table.Fault) {
	r.jobs, r.faults = nil, faults
	r.problem = &queue.Problem{Code: faults[0].Code, Detail: faults[0].Message}
	for _, f := range faults {
		r.problem.Errors = append(r.problem.Errors, queue.FieldError{Pointer: "/" + strict.Escape(f.Param), Detail: f.Message})
	}
}

// reject notes the problem of the row's job, by the columns that it comes from.
func (r *request) reject(problem *queue.Problem) {
	r.jobs, r.problem = nil, problem
	if r.template == nil {
		r.template = &Template{}
	}
	r.faults = r.template.faultsOf(r.row, problem)
}

// line is a line of OpenAI's batch format.
type line struct {
	CustomID string          `json:"custom_id"`
	Method   string          `json:"method"`
	URL      string          `json:"url"`
	Body     json.RawMessage `json:"body"`
}

const maxCustomID = 512 // bytes

// read reads a line for an endpoint, but not its request.
func (l *line) read(row *table.Row, endpoint string) []table.Fault {
	if len(row.Faults) > 0 {
		return row.Faults
	}
	if row.Text == nil {
		return []table.Fault{row.Fault("invalid_json_line", "", "The file is CSV; a batch for %s takes lines of JSON.", endpoint)}
	}
	err := strict.Check(row.Text)
	if err == nil {
		err = strict.Object(row.Text, "", l)
	}
	var problem *queue.Problem
	if errors.As(err, &problem) {
		return []table.Fault{row.Fault("invalid_json_line", "", "%s", problem.Detail)}
	}
	var faults []table.Fault
	bad := func(code, param, format string, args ...any) {
		faults = append(faults, row.Fault(code, param, format, args...))
	}
	if l.CustomID == "" || len(l.CustomID) > maxCustomID {
		bad("invalid_custom_id", "custom_id", "Want a custom_id of 1 to %d bytes.", maxCustomID)
	}
	if l.Method != "POST" {
		bad("invalid_method", "method", "The method is %q; want POST.", l.Method)
	}
	if l.URL != endpoint {
		bad("invalid_url", "url", "The url is %q, but the batch is for %s.", l.URL, endpoint)
	}
	if len(l.Body) == 0 || l.Body[0] != '{' {
		bad("missing_body", "body", "Want a body: the request as an object.")
	}
	return faults
}

// translate reads one of OpenAI's lines. An error is none of the row's.
func (s *source) translate(ctx context.Context, r *request) error {
	var l line
	faults := l.read(r.row, s.spec.Endpoint)
	r.customID = l.CustomID
	if len(faults) > 0 {
		r.refuse(faults...)
		return nil
	}
	x, err := s.gateway.Translate(ctx, s.spec.Endpoint, s.spec.Origin, l.Body)
	switch {
	case err == nil:
		r.exchange, r.jobs = x, x.Jobs
	case errors.Is(err, queue.ErrUnavailable), ctx.Err() != nil:
		return fmt.Errorf("batch: row %d: %w", r.row.Number, err)
	default:
		_, problem := s.gateway.Explain(err)
		r.reject(problem)
	}
	return nil
}

// values are the values of a native row by column.
func (s *source) values(row *table.Row) (map[string]any, []table.Fault) {
	if len(row.Faults) > 0 {
		return nil, row.Faults
	}
	values := map[string]any{}
	if row.Cells != nil {
		for i, name := range s.table.Columns {
			if name != "" {
				values[name] = row.Cells[i]
			}
		}
		return values, nil
	}
	err := strict.Check(row.Text)
	var problem *queue.Problem
	if errors.As(err, &problem) {
		return nil, []table.Fault{row.Fault("invalid_json_line", "", "%s", problem.Detail)}
	}
	read, err := decode(row.Text)
	values, ok := read.(map[string]any)
	if err != nil || !ok {
		return nil, []table.Fault{row.Fault("invalid_json_line", "", "Want an object: values by column.")}
	}
	return values, nil
}

// nameOf is the custom_id among the values of a native row: a text, or a number.
func nameOf(row *table.Row, values map[string]any) (string, []table.Fault) {
	name := ""
	switch v := values[customID].(type) {
	case nil:
	case string:
		name = v
	case json.Number:
		name = v.String()
	default:
		return "", []table.Fault{row.Fault("invalid_custom_id", customID, "Want a text.")}
	}
	if len(name) > maxCustomID {
		return "", []table.Fault{row.Fault("invalid_custom_id", customID, "Want at most %d bytes.", maxCustomID)}
	}
	return name, nil
}

// render makes the input of a native row.
func (s *source) render(r *request) {
	values, faults := s.values(r.row)
	r.columns = values
	if len(faults) == 0 {
		r.customID, faults = nameOf(r.row, values)
	}
	if len(faults) > 0 {
		r.refuse(faults...)
		return
	}
	var input json.RawMessage
	if s.template != nil {
		if input, faults = s.template.Render(r.row, values); len(faults) > 0 {
			r.refuse(faults...)
			return
		}
	} else {
		own := maps.Clone(values)
		delete(own, customID)
		var err error
		if input, err = marshal(own); err != nil {
			r.refuse(r.row.Fault("invalid_row", "", "The input cannot be written: %v.", err))
			return
		}
	}
	if err := strict.Check(input); err != nil { // a value that is put into the template nests deeper
		_, problem := s.gateway.Explain(err)
		r.reject(problem)
		return
	}
	seed := (s.spec.Seed + uint64(r.row.Number) - 1) % (queue.MaxSeed + 1)
	r.jobs = []*queue.Job{{Task: s.spec.Task, Model: s.spec.Model, Input: input, Seed: seed}}
}

// check has the gateway validate the jobs of a row. An error is none of the row's.
func (s *source) check(ctx context.Context, r *request) error {
	for _, job := range r.jobs {
		err := s.gateway.Check(ctx, job)
		if err == nil {
			continue
		}
		if r.exchange != nil {
			err = r.exchange.Rename(err)
		}
		status, problem := s.gateway.Explain(err)
		if status >= 500 {
			return fmt.Errorf("batch: row %d: %w", r.row.Number, err)
		}
		r.reject(problem)
		return nil
	}
	return nil
}

// DryRun is what the first rows of a batch would ask for.
type DryRun struct {
	Object   string         `json:"object"` // batch.dry_run
	Encoding table.Encoding `json:"encoding"`
	Columns  []string       `json:"columns,omitempty"`
	Inputs   []DryInput     `json:"inputs"`
	Errors   Faults         `json:"errors"`
}

// DryInput is one job that would be submitted.
type DryInput struct {
	Row      int             `json:"row"`
	CustomID string          `json:"custom_id,omitempty"`
	Task     string          `json:"task"`
	Model    string          `json:"model,omitempty"`
	Seed     uint64          `json:"seed"`
	Input    json.RawMessage `json:"input"`
}

// Try reads the first n rows of a batch's file and returns what they would ask for. The
// error is a *queue.Problem if the file or the template is at fault.
func Try(ctx context.Context, q *queue.Queue, gateway Gateway, tenant string, spec *Spec, n int) (*DryRun, error) {
	s, err := open(ctx, q, gateway, &queue.Job{Tenant: tenant}, spec, "")
	if err != nil {
		return nil, err
	}
	defer s.close()
	dry := &DryRun{
		Object: "batch.dry_run", Encoding: s.table.Encoding, Columns: s.table.Columns,
		Inputs: []DryInput{}, Errors: Faults{Object: "list", Data: []table.Fault{}},
	}
	for range n {
		r, err := s.next(ctx)
		if err == io.EOF {
			break
		}
		if err == nil {
			err = s.check(ctx, r)
		}
		if err != nil {
			return nil, err
		}
		dry.Errors.Data = append(dry.Errors.Data, r.faults...)
		for _, job := range r.jobs {
			dry.Inputs = append(dry.Inputs, DryInput{r.row.Number, r.customID, job.Task, job.Model, job.Seed, job.Input})
		}
	}
	dry.Errors.Total = len(dry.Errors.Data)
	dry.Errors.Data = dry.Errors.Data[:min(len(dry.Errors.Data), maxFaults)]
	return dry, nil
}

// survey is what reading a file once has told.
type survey struct {
	encoding table.Encoding
	columns  []string
	rows     int
	faults   []table.Fault // that keep the batch from being begun; the first of them
	count    int           // of all of those
}

// look reads the whole file without making jobs: it counts the rows and finds what is
// wrong with the file rather than with a row.
func (s *source) look(ctx context.Context) (*survey, error) {
	v := &survey{encoding: s.table.Encoding, columns: s.table.Columns}
	names := map[[16]byte]int{} // rows by a digest of their names, which may be long
	for ; ; v.rows++ {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		row, err := s.table.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		name := v.glance(s, row)
		if name == "" {
			continue
		}
		sum := sha256.Sum256([]byte(name))
		if first := names[[16]byte(sum[:])]; first > 0 {
			v.fault(row.Fault("duplicate_custom_id", customID, "Row %d has the same.", first))
			continue
		}
		names[[16]byte(sum[:])] = row.Number
	}
	if v.rows == 0 {
		return nil, queue.Problemf("empty_file", "The file has no rows but its header.")
	}
	return v, nil
}

// glance looks at one row and returns its custom_id.
func (v *survey) glance(s *source, row *table.Row) string {
	if s.spec.Endpoint != "" {
		var l line
		for _, f := range l.read(row, s.spec.Endpoint) {
			v.fault(f)
		}
		return l.CustomID
	}
	values, faults := s.values(row)
	if len(faults) > 0 {
		return ""
	}
	if row.Cells == nil {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			if len(v.columns) < table.MaxColumns && len(name) <= table.MaxName && !slices.Contains(v.columns, name) {
				v.columns = append(v.columns, name)
			}
		}
	}
	name, _ := nameOf(row, values)
	return name
}

func (v *survey) fault(f table.Fault) {
	v.count++
	if len(v.faults) < maxFaults {
		v.faults = append(v.faults, f)
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"helicon/gateway/batch"
	"helicon/queue"
)

// batchCmd groups the commands of batches.
type batchCmd struct {
	Run     batchRunCmd     `cmd:"" help:"Run the rows of a CSV file, or of one with a JSON object a line, as jobs."`
	Status  batchStatusCmd  `cmd:"" help:"Tell how far a batch is."`
	Cancel  batchCancelCmd  `cmd:"" help:"End a batch; what it has made is kept."`
	Results batchResultsCmd `cmd:"" help:"Fetch what a batch has made."`
	Retry   batchRetryCmd   `cmd:"" help:"Run those rows of a batch again that did not succeed, in a new batch."`
}

// batchRunCmd is one batch.
type batchRunCmd struct {
	clientFlags
	File        string          `arg:"" help:"Rows: CSV with a header, in UTF-8, UTF-16 or GB18030, or a JSON object a line." type:"existingfile"`
	Task        string          `help:"Task of the jobs, such as image.generate." xor:"kind" required:"" placeholder:"TASK"`
	Endpoint    string          `help:"Instead of a task: the rows are lines of OpenAI's batch format for this route." xor:"kind" required:"" placeholder:"PATH"`
	Template    string          `help:"Input of the task, as JSON, with names of columns in double braces. Without it, each column is a member of the input." placeholder:"JSON"`
	Model       string          `help:"Model to use." placeholder:"ID"`
	Seed        *uint64         `help:"Seed of the first row; each has the one before it and one more." placeholder:"N"`
	Concurrency *int            `help:"Rows at once." placeholder:"N"`
	Priority    *queue.Priority `help:"Priority of the jobs: high, normal or low; low unless given." placeholder:"P"`
	Tags        []string        `help:"Tags of the jobs." placeholder:"TAG"`
	Window      string          `help:"What is not done after this time is given up." placeholder:"24h"`
	DryRun      *int            `help:"Show what the first N rows would be, and run none." placeholder:"N"`
	Detach      bool            `help:"Do not wait for the end."`
	Out         string          `short:"o" help:"File for the results: .jsonl, .csv or .zip; the standard output, as JSON lines, unless given." placeholder:"FILE"`
}

// Validate refuses settings that mean nothing.
func (c *batchRunCmd) Validate() error {
	if c.Template != "" && !json.Valid([]byte(c.Template)) {
		return errors.New("--template: not valid JSON")
	}
	if _, err := formatOf(c.Out); err != nil {
		return err
	}
	return c.engineFlags.validate()
}

// formatOf is the form of results that the name of a file asks for.
func formatOf(name string) (string, error) {
	if name == "" {
		return "jsonl", nil
	}
	format := strings.TrimPrefix(strings.ToLower(filepath.Ext(name)), ".")
	if !slices.Contains([]string{"jsonl", "csv", "zip"}, format) {
		return "", fmt.Errorf("--out: %q: want a name that ends with .jsonl, .csv or .zip", name)
	}
	return format, nil
}

// Run submits the batch and shows its progress until it ends.
func (c *batchRunCmd) Run(ctx context.Context, env *environment) error {
	return c.withServer(ctx, env, func(ctx context.Context, server *client) error {
		return describe(c.run(ctx, env, server))
	})
}

func (c *batchRunCmd) run(ctx context.Context, env *environment, server *client) error {
	request, err := c.request(ctx, server)
	if err != nil {
		return err
	}
	if c.DryRun != nil {
		dry := new(batch.DryRun)
		if err := server.call(ctx, http.MethodPost, "/v1/batches", request, dry); err != nil {
			return err
		}
		return indented(env.stdout, dry)
	}
	b := new(batch.Batch)
	if err := server.call(ctx, http.MethodPost, "/v1/batches", request, b); err != nil {
		return err
	}
	own := c.Server == "" && server.base != defaultServer // it goes with this process
	if c.Detach && !own {
		fmt.Fprintln(env.stdout, b.ID)
		return nil
	}
	return watchBatch(ctx, env, server, b, batchOutput{file: c.Out, json: c.JSON, own: own})
}

// request uploads the file and returns what is asked for.
func (c *batchRunCmd) request(ctx context.Context, server *client) (map[string]any, error) {
	id, err := server.uploadFile(ctx, c.File)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	request := map[string]any{"input_file_id": id}
	for name, value := range map[string]string{"task": c.Task, "endpoint": c.Endpoint, "model": c.Model, "completion_window": c.Window} {
		if value != "" {
			request[name] = value
		}
	}
	if c.Template != "" {
		request["template"] = json.RawMessage(c.Template)
	}
	if len(c.Tags) > 0 {
		request["tags"] = c.Tags
	}
	set(request, "seed", c.Seed)
	set(request, "concurrency", c.Concurrency)
	set(request, "priority", c.Priority)
	set(request, "dry_run", c.DryRun)
	return request, nil
}

// uploadFile stores a file for a batch, as it is read, and returns its id.
func (c *client) uploadFile(ctx context.Context, name string) (id string, err error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	body, into := io.Pipe()
	form := multipart.NewWriter(into)
	go func() {
		err := form.WriteField("purpose", "batch")
		var part io.Writer
		if err == nil {
			part, err = form.CreateFormFile("file", filepath.Base(name))
		}
		if err == nil {
			_, err = io.Copy(part, file)
		}
		if err == nil {
			err = form.Close()
		}
		into.CloseWithError(err) // nil is the end
	}()
	defer body.Close()
	resp, err := c.do(ctx, http.MethodPost, "/v1/files", body, map[string]string{"Content-Type": form.FormDataContentType()})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var stored struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&stored); err != nil {
		return "", fmt.Errorf("answer of %s: %w", c.base, err)
	}
	return stored.ID, nil
}

// batchOutput says what becomes of a batch that is watched.
type batchOutput struct {
	file string // for the results; "": the standard output
	json bool   // the batch instead of its results
	own  bool   // the batch ends with this process
}

// watchBatch shows the progress of a batch until it ends, and then its results.
func watchBatch(ctx context.Context, env *environment, server *client, b *batch.Batch, out batchOutput) error {
	bar := &batchBar{out: env.stderr, live: isTerminal(env.stderr), begun: time.Now()}
	if bar.live || !out.own {
		fmt.Fprintln(env.stderr, b.ID)
	}
	err := server.follow(ctx, b.Job, bar.show)
	bar.clear()
	if ctx.Err() != nil {
		if !out.own {
			fmt.Fprintf(env.stderr, "The batch goes on: helicon batch status %s\n", b.ID)
		}
		return &exitError{status: exitInterrupted}
	}
	if err != nil {
		return err
	}
	if err := server.call(ctx, http.MethodGet, "/v1/batches/"+b.ID, nil, b); err != nil {
		return err
	}
	switch {
	case out.json:
		err = indented(env.stdout, b)
	case b.ResultsFileID != "":
		err = saveResults(ctx, env, server, b.ID, out.file)
	}
	if err != nil {
		return err
	}
	return batchFailure(b)
}

// batchFailure is the error of a batch that has ended with anything but success.
func batchFailure(b *batch.Batch) error {
	c := b.RequestCounts
	text := fmt.Sprintf("the batch is %s: %d of %d rows succeeded, %d failed, %d were canceled", b.Status, c.Completed, c.Total, c.Failed, c.Canceled)
	if b.Errors != nil {
		for i, e := range b.Errors.Data {
			if i == 10 {
				text += fmt.Sprintf("\n  … and %d more", b.Errors.Total-i)
				break
			}
			text += fmt.Sprintf("\n  line %d %s: %s", e.Line, e.Param, e.Message)
		}
	}
	if b.Status == "completed" && c.Failed == 0 {
		return nil
	}
	return &exitError{status: exitFailed, err: errors.New(text)}
}

// saveResults writes the results of a batch to a file, in the form that its name asks for,
// or to the standard output.
func saveResults(ctx context.Context, env *environment, server *client, id, name string) error {
	format, err := formatOf(name)
	if err != nil {
		return err
	}
	resp, err := server.do(ctx, http.MethodGet, "/v1/batches/"+id+"/results?format="+format, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if name == "" {
		_, err = io.Copy(env.stdout, resp.Body)
		return err
	}
	// Beside its place until it is whole.
	file, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = io.Copy(file, resp.Body)
	if err := errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}

// batchBar shows how far a batch is on one line of a terminal.
type batchBar struct {
	out   io.Writer
	live  bool
	begun time.Time
	drawn bool
}

const rowBarWidth = 30 // characters

// show draws what an event tells.
func (b *batchBar) show(e *queue.Event) error {
	p := e.Progress
	if !b.live || p == nil || p.Total == 0 {
		return nil
	}
	filled := rowBarWidth * p.Step / p.Total
	line := fmt.Sprintf("[%s%s] %3d %%  %d of %d", strings.Repeat("█", filled), strings.Repeat("·", rowBarWidth-filled), 100*p.Step/p.Total, p.Step, p.Total)
	if p.Failed > 0 {
		line += fmt.Sprintf(", %d failed", p.Failed)
	}
	if p.ETA > 0 {
		line += fmt.Sprintf(", %v left", time.Duration(p.ETA*float64(time.Second)).Round(time.Second))
	}
	b.drawn = true
	_, err := fmt.Fprintf(b.out, "\r\x1b[K%s", line)
	return err
}

// clear removes the line.
func (b *batchBar) clear() {
	if b.drawn {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}

// remoteFlags say which server a batch is on.
type remoteFlags struct {
	Server serverURL `help:"Address of the server; ${default} unless given." default:"http://127.0.0.1:8080" placeholder:"URL"`
	Key    string    `help:"Key for the server; better kept in the environment, as HELICON_KEY." placeholder:"KEY"`
}

func (f remoteFlags) client() *client {
	return &client{base: string(f.Server), key: f.Key, http: &http.Client{}}
}

// call makes a request and prints the batch that answers it.
func (f remoteFlags) call(ctx context.Context, env *environment, method, path string) error {
	b := new(batch.Batch)
	if err := f.client().call(ctx, method, path, nil, b); err != nil {
		return unavailable(describe(err))
	}
	return indented(env.stdout, b)
}

// batchStatusCmd shows a batch.
type batchStatusCmd struct {
	remoteFlags
	ID string `arg:"" help:"Batch."`
}

// Run prints the batch.
func (c *batchStatusCmd) Run(ctx context.Context, env *environment) error {
	return c.call(ctx, env, http.MethodGet, "/v1/batches/"+c.ID)
}

// batchCancelCmd ends a batch.
type batchCancelCmd struct {
	remoteFlags
	ID string `arg:"" help:"Batch."`
}

// Run cancels the batch and prints it.
func (c *batchCancelCmd) Run(ctx context.Context, env *environment) error {
	return c.call(ctx, env, http.MethodPost, "/v1/batches/"+c.ID+"/cancel")
}

// batchResultsCmd fetches the results of a batch.
type batchResultsCmd struct {
	remoteFlags
	ID  string `arg:"" help:"Batch."`
	Out string `short:"o" help:"File: .jsonl, .csv or .zip; the standard output, as JSON lines, unless given." placeholder:"FILE"`
}

// Validate refuses forms that there are not.
func (c *batchResultsCmd) Validate() error {
	_, err := formatOf(c.Out)
	return err
}

// Run writes the results.
func (c *batchResultsCmd) Run(ctx context.Context, env *environment) error {
	return unavailable(describe(saveResults(ctx, env, c.client(), c.ID, c.Out)))
}

// batchRetryCmd runs the rest of a batch again.
type batchRetryCmd struct {
	remoteFlags
	ID  string `arg:"" help:"Batch."`
	Out string `short:"o" help:"Wait for the end and write the results of all rows to this file: .jsonl, .csv or .zip." placeholder:"FILE"`
}

// Validate refuses forms that there are not.
func (c *batchRetryCmd) Validate() error {
	_, err := formatOf(c.Out)
	return err
}

// Run makes the new batch.
func (c *batchRetryCmd) Run(ctx context.Context, env *environment) error {
	if c.Out == "" {
		return c.call(ctx, env, http.MethodPost, "/v1/batches/"+c.ID+"/retry")
	}
	b, server := new(batch.Batch), c.client()
	err := server.call(ctx, http.MethodPost, "/v1/batches/"+c.ID+"/retry", nil, b)
	if err == nil {
		err = watchBatch(ctx, env, server, b, batchOutput{file: c.Out})
	}
	return unavailable(describe(err))
}

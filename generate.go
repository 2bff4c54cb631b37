package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"helicon/gateway"
	"helicon/queue"
)

// generateCmd groups the commands that make something.
type generateCmd struct {
	Text  generateTextCmd  `cmd:"" help:"Write text from a prompt."`
	Image generateImageCmd `cmd:"" help:"Make pictures from a prompt, or from another picture."`
}

// clientFlags say which server makes it.
type clientFlags struct {
	Server      serverURL `help:"Address of a running server. Without it, one on the default address is used if it answers, and otherwise the work is done in this process." placeholder:"URL"`
	Key         string    `help:"Key for the server; better kept in the environment, as HELICON_KEY." placeholder:"KEY"`
	JSON        bool      `help:"Print the finished job as JSON instead of its result." name:"json"`
	engineFlags `group:"For work in this process"`
}

// defaultServer is where helicon serve listens unless told otherwise.
const defaultServer = "http://127.0.0.1:8080"

// generateTextCmd is one text job. Flags that are not given leave the choice to the
// model's own settings.
type generateTextCmd struct {
	clientFlags
	Prompt            string   `arg:"" help:"What to write on from; - reads it from the standard input, less its last line end."`
	Chat              bool     `help:"Treat the prompt as a request to answer rather than a text to continue."`
	System            string   `help:"With --chat: what the model should keep to." placeholder:"TEXT"`
	Model             string   `help:"Model to use." placeholder:"ID"`
	Seed              *uint64  `help:"Same seed, same text." placeholder:"N"`
	MaxTokens         *int     `help:"Most tokens to write." placeholder:"N"`
	Temperature       *float64 `help:"0 always takes the likeliest token; more is more varied." placeholder:"T"`
	TopK              *int     `help:"Choose among the K likeliest tokens; 0 is off." placeholder:"K"`
	TopP              *float64 `help:"Choose among the likeliest tokens that together have probability P." placeholder:"P"`
	MinP              *float64 `help:"Drop tokens less likely than P times the likeliest." placeholder:"P"`
	RepetitionPenalty *float64 `help:"Above 1 discourages what was written before." placeholder:"R"`
	Stop              []string `help:"End before this text; may be repeated." sep:"none" placeholder:"TEXT"`
	Schema            string   `help:"Answer in JSON that satisfies the JSON Schema in this file." type:"existingfile" placeholder:"FILE" xor:"form"`
	Grammar           string   `help:"Write a sentence of the GBNF grammar in this file." type:"existingfile" placeholder:"FILE" xor:"form"`
	Beams             *int     `help:"Search for the likeliest text with N beams in the place of drawing it." placeholder:"N"`
}

// Validate refuses settings that mean nothing.
func (c *generateTextCmd) Validate() error { return c.engineFlags.validate() }

// Run submits the job and prints its text as it is written.
func (c *generateTextCmd) Run(ctx context.Context, env *environment) error {
	job, err := c.submission(ctx)
	if err != nil {
		return err
	}
	return c.withServer(ctx, env, func(ctx context.Context, server *client) error {
		return runJob(ctx, server, job, newTextView(env, c.JSON))
	})
}

func (c *generateTextCmd) submission(ctx context.Context) (*submission, error) {
	prompt := c.Prompt
	if prompt == "-" {
		var err error
		if prompt, err = readPrompt(ctx, os.Stdin); err != nil {
			return nil, fmt.Errorf("prompt: %w", err)
		}
	}
	job := &submission{Task: "text.complete", Model: c.Model, Seed: c.Seed, Input: map[string]any{}, Priority: queue.High}
	if c.Chat {
		job.Task = "text.chat"
		var messages []map[string]string
		if c.System != "" {
			messages = append(messages, map[string]string{"role": "system", "content": c.System})
		}
		job.Input["messages"] = append(messages, map[string]string{"role": "user", "content": prompt})
	} else {
		if c.System != "" {
			return nil, errors.New("--system needs --chat")
		}
		job.Input["prompt"] = prompt
	}
	set(job.Input, "max_tokens", c.MaxTokens)
	set(job.Input, "temperature", c.Temperature)
	set(job.Input, "top_k", c.TopK)
	set(job.Input, "top_p", c.TopP)
	set(job.Input, "min_p", c.MinP)
	set(job.Input, "repetition_penalty", c.RepetitionPenalty)
	set(job.Input, "num_beams", c.Beams)
	if len(c.Stop) > 0 {
		job.Input["stop"] = c.Stop
	}
	return job, c.form(job.Input)
}

// form puts into the input what the text must look like.
func (c *generateTextCmd) form(input map[string]any) error {
	if c.Grammar != "" {
		grammar, err := os.ReadFile(c.Grammar)
		if err != nil {
			return err
		}
		input["grammar"] = string(grammar)
	}
	if c.Schema == "" {
		return nil
	}
	schema, err := os.ReadFile(c.Schema)
	if err != nil {
		return err
	}
	if !json.Valid(schema) {
		return fmt.Errorf("%s: not valid JSON", c.Schema)
	}
	name := strings.TrimSuffix(filepath.Base(c.Schema), filepath.Ext(c.Schema))
	input["response_format"] = map[string]any{
		"type": "json_schema", "json_schema": map[string]any{"name": name, "schema": json.RawMessage(schema), "strict": true},
	}
	return nil
}

// maxPrompt is how many bytes of a prompt are read; models take far less.
const maxPrompt = 4 << 20

// readPrompt reads a prompt and drops the line end that echo and editors put behind
// it. When ctx ends first it leaves the read behind, which nothing can interrupt at a
// terminal; the process is about to end.
func readPrompt(ctx context.Context, r io.Reader) (string, error) {
	type input struct {
		text []byte
		err  error
	}
	read := make(chan input, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(r, maxPrompt+1))
		read <- input{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case in := <-read:
		if len(in.text) > maxPrompt {
			return "", fmt.Errorf("longer than %d bytes", maxPrompt)
		}
		if !utf8.Valid(in.text) {
			return "", errors.New("not valid UTF-8")
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(in.text), "\n"), "\r"), in.err
	}
}

// set puts a value into the input if it was given.
func set[T any](input map[string]any, name string, value *T) {
	if value != nil {
		input[name] = *value
	}
}

// withServer calls use with a client of the named server, of a running one, or of
// one that lives in this process until use returns.
func (f clientFlags) withServer(ctx context.Context, env *environment, use func(context.Context, *client) error) error {
	server := &client{base: string(f.Server), key: f.Key, http: &http.Client{}}
	if f.Server != "" {
		return unavailable(use(ctx, server))
	}
	if server.base = defaultServer; server.alive(ctx) {
		return unavailable(use(ctx, server))
	}
	return f.inProcess(ctx, env, use)
}

// inProcess runs queue, gateway and worker for one command, in a directory that is
// gone afterwards.
func (f clientFlags) inProcess(ctx context.Context, env *environment, use func(context.Context, *client) error) error {
	dir, err := os.MkdirTemp("", "helicon-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	q, closeQueue, err := queueFlags{Data: dir}.openEmbedded(ctx, env.warnings, nil)
	if err != nil {
		return err
	}
	defer closeQueue()
	g, err := gateway.New(gateway.Config{Queue: q, Log: env.warnings, Inspect: inspect})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	quiet := *env
	quiet.log = env.warnings
	e, err := f.open(ctx, &quiet, q, modalities)
	if err != nil {
		listener.Close()
		return err
	}
	// The server outlives ctx: use cancels its job through it when ctx ends.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, serving := errgroup.WithContext(serving)
	group.Go(func() error { return g.Serve(serving, listener) })
	group.Go(func() error { return e.run(serving) })
	using, cancel := context.WithCancelCause(ctx)
	context.AfterFunc(serving, func() { cancel(context.Cause(serving)) })
	err = use(using, &client{base: "http://" + listener.Addr().String(), http: &http.Client{}})
	stop()
	if failed := ended(group.Wait()); failed != nil {
		return failed
	}
	return err
}

// unavailable gives the error of a server that does not answer its exit status.
func unavailable(err error) error {
	if errors.Is(err, errUnreachable) {
		return &exitError{status: exitUnavailable, err: err}
	}
	return err
}

// jobView shows a job.
type jobView interface {
	show(*queue.Event) error // what an event adds
	clear()                  // removes what changes on the screen
	cut()                    // ends what will not be finished
	finish() error           // shows the end of the job and returns its failure
}

// runJob submits a job and shows it until it ends. When ctx ends first it cancels
// the job.
func runJob(ctx context.Context, server *client, s *submission, view jobView) error {
	job, err := server.submit(ctx, s)
	if err != nil {
		return describe(err)
	}
	err = server.follow(ctx, job.ID, view.show)
	view.clear()
	if ctx.Err() != nil {
		view.cut()
		stopping, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		if err := server.cancel(stopping, job.ID); err != nil {
			return &exitError{status: exitInterrupted, err: fmt.Errorf("job %s could not be canceled: %w", job.ID, err)}
		}
		return &exitError{status: exitInterrupted}
	}
	if err != nil {
		view.cut()
		return describe(err)
	}
	return view.finish()
}

// describe writes the fields of a problem that its sentence does not tell under it.
func describe(err error) error {
	var problem *queue.Problem
	if !errors.As(err, &problem) {
		return err
	}
	text := problem.Detail
	for _, f := range problem.Errors {
		if told := strings.Contains(problem.Detail, f.Detail); !told || len(problem.Errors) > 1 && !strings.Contains(problem.Detail, f.Pointer+":") {
			text += fmt.Sprintf("\n  %s: %s", f.Pointer, f.Detail)
		}
	}
	return errors.New(text)
}

// view prints a text as its events arrive.
type view struct {
	out     io.Writer
	status  io.Writer
	live    bool // status is a terminal: show a line that changes
	waiting bool // that line is there
	asJSON  bool // only the last job counts
	written int  // bytes of text printed
	job     *queue.Job
}

func newTextView(env *environment, asJSON bool) *view {
	return &view{out: env.stdout, status: env.stderr, live: isTerminal(env.stderr) && !asJSON, asJSON: asJSON}
}

func (v *view) show(e *queue.Event) error {
	if e.Job != nil {
		v.job = e.Job
	}
	if e.Type == queue.EventQueued && v.live {
		fmt.Fprint(v.status, "\r\x1b[Kqueued …")
		v.waiting = true
	}
	if e.Delta == nil || e.Delta.Choice != 0 || v.asJSON {
		return nil
	}
	// A job that was begun anew repeats what is printed already.
	fresh := e.Delta.Text
	if skip := v.written - e.Delta.Offset; skip > 0 {
		fresh = fresh[min(skip, len(fresh)):]
	}
	v.clear()
	v.written += len(fresh)
	_, err := io.WriteString(v.out, fresh)
	return err
}

// clear removes the status line.
func (v *view) clear() {
	if v.waiting {
		fmt.Fprint(v.status, "\r\x1b[K")
		v.waiting = false
	}
}

// cut ends the line of a text that will not be finished.
func (v *view) cut() {
	if v.written > 0 {
		fmt.Fprintln(v.out)
	}
}

// finish prints the end of the job and returns its failure.
func (v *view) finish() error {
	if v.asJSON {
		if err := indented(v.out, v.job); err != nil {
			return err
		}
	} else if v.job.Result != nil {
		fmt.Fprintln(v.out, v.job.Result.Text[min(v.written, len(v.job.Result.Text)):])
	} else {
		v.cut()
	}
	if err := failure(v.job); err != nil {
		return err
	}
	if u := v.job.Result.Usage; v.live && u != nil && v.job.Started != nil && v.job.Finished != nil {
		seconds := v.job.Finished.Sub(*v.job.Started).Seconds()
		fmt.Fprintf(v.status, "%d tokens in %.1f s, seed %d\n", u.OutputTokens, seconds, v.job.Seed)
	}
	return nil
}

// indented prints a value as JSON.
func indented(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// failure is the error of a job that has ended without success.
func failure(job *queue.Job) error {
	switch job.State {
	case queue.Failed:
		return &exitError{status: exitFailed, err: describe(job.Problem)}
	case queue.Canceled:
		return &exitError{status: exitFailed, err: errors.New("the job was canceled")}
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

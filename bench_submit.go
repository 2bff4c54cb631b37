package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/alecthomas/kong"
	"github.com/gin-gonic/gin"
	proc "github.com/shirou/gopsutil/v4/process"

	"helicon/queue"
)

// benchSubmitCmd measures how fast a gateway accepts jobs.
type benchSubmitCmd struct {
	Addr        serverURL     `help:"Gateway to submit to, which keeps the jobs; one of the command's own, without workers, in a temporary folder, unless given." placeholder:"URL"`
	Key         string        `help:"API key for the gateway." placeholder:"KEY"`
	Connections int           `help:"Clients that submit one job after the other." default:"64"`
	Duration    time.Duration `help:"How long to submit." default:"10s"`
	Prompt      int           `help:"Bytes of each job's prompt." default:"512"`
	Sync        bool          `help:"Let the own gateway write every accepted job through to the disk before it answers."`
	JSON        bool          `help:"Print JSON." name:"json"`
}

// Validate refuses settings that mean nothing.
func (c *benchSubmitCmd) Validate() error {
	switch {
	case c.Connections < 1 || c.Connections > 4096:
		return errors.New("--connections: want 1 to 4096")
	case c.Duration <= 0:
		return errors.New("--duration: want more than 0")
	case c.Prompt < 1 || c.Prompt > 8192:
		return errors.New("--prompt: want 1 to 8192")
	case c.Addr != "" && c.Sync:
		return errors.New("--sync is for the own gateway; that of --addr has its own setting")
	}
	return nil
}

// submitView is what helicon bench submit prints as JSON. Rates are a second, times in
// milliseconds.
type submitView struct {
	Machine     string   `json:"machine"`
	Connections int      `json:"connections"`
	Sync        *bool    `json:"sync,omitempty"` // of the own gateway
	Submit      loadView `json:"submit"`
	// What parts of the way reach by themselves, with the same load.
	HTTP  *loadView `json:"http_ceiling,omitempty"`  // an HTTP server that does nothing, which is what the client costs
	Queue *loadView `json:"queue_ceiling,omitempty"` // the queue without HTTP
	Disk  float64   `json:"disk_syncs,omitempty"`    // writes synced to the disk one by one
}

// loadView is what a load came to.
type loadView struct {
	Rate   float64 `json:"rate"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
	CPU    float64 `json:"cpu_us"` // of this process, for each that is done: of both sides, unless the gateway is another's
	Done   int     `json:"done"`
	Errors int     `json:"errors"`
	Error  string  `json:"error,omitempty"` // the first
}

// ceilingShare is the part of the duration that each ceiling is measured for.
const ceilingShare = 4

// Run measures and prints.
func (c *benchSubmitCmd) Run(ctx context.Context, env *environment) error {
	dir, err := os.MkdirTemp("", "helicon-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	view := submitView{Machine: cpuName(ctx), Connections: c.Connections}
	if c.Addr != "" {
		view.Submit, err = c.submit(ctx, string(c.Addr), c.Duration)
	} else {
		view.Sync = &c.Sync
		err = c.embedded(ctx, env, dir, &view)
	}
	if err != nil {
		return err
	}
	if view.HTTP, err = c.echo(ctx); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(env, view)
	}
	c.print(env, &view)
	return nil
}

func (c *benchSubmitCmd) print(env *environment, view *submitView) {
	where := "gateway at " + string(c.Addr)
	if view.Sync != nil {
		where = "own gateway, writes synced by the operating system"
		if *view.Sync {
			where = "own gateway, every write synced"
		}
	}
	fmt.Fprintf(env.stdout, "%s, %d connections, %s\n\n", view.Machine, view.Connections, where)
	fmt.Fprintf(env.stdout, "%-16s %10s %9s %9s %9s %9s %8s\n", "", "A SECOND", "P50 MS", "P99 MS", "MAX MS", "CPU US", "ERRORS")
	for _, line := range []struct {
		name string
		load *loadView
	}{{"submissions", &view.Submit}, {"queue alone", view.Queue}, {"HTTP alone", view.HTTP}} {
		if l := line.load; l != nil {
			fmt.Fprintf(env.stdout, "%-16s %10.0f %9.2f %9.2f %9.2f %9.0f %8d\n", line.name, l.Rate, l.P50, l.P99, l.Max, l.CPU, l.Errors)
		}
	}
	if view.Disk > 0 {
		fmt.Fprintf(env.stdout, "%-16s %10.0f\n", "disk syncs", view.Disk)
	}
	if view.Submit.Error != "" {
		fmt.Fprintf(env.stdout, "\nthe first error: %s\n", view.Submit.Error)
	}
}

// embedded measures a gateway of its own and what it stands on.
func (c *benchSubmitCmd) embedded(ctx context.Context, env *environment, dir string, view *submitView) error {
	address, stop, err := c.start(ctx, env, filepath.Join(dir, "gateway"))
	if err != nil {
		return err
	}
	view.Submit, err = c.submit(ctx, address, c.Duration)
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	if view.Queue, err = c.alone(ctx, filepath.Join(dir, "queue")); err != nil {
		return err
	}
	view.Disk, err = syncs(dir, c.Duration/ceilingShare)
	return err
}

// start runs helicon gateway in this process, and returns its address when it is ready
// for jobs. Its log goes to a file.
func (c *benchSubmitCmd) start(ctx context.Context, env *environment, dir string) (address string, stop func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	port, err := unusedPort()
	if err != nil {
		return "", nil, err
	}
	var command gatewayCmd
	parser, err := kong.New(&command, kong.Vars{"data": dir})
	if err != nil {
		return "", nil, err
	}
	if _, err := parser.Parse([]string{"--data=" + dir, "--addr=127.0.0.1:0", "--nats-listen=" + port, fmt.Sprintf("--sync=%t", c.Sync)}); err != nil {
		return "", nil, err
	}
	logged, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return "", nil, err
	}
	told, tell := io.Pipe()
	quiet := *env
	quiet.log, quiet.stdout = slog.New(slog.NewTextHandler(logged, nil)), tell
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		err := command.Run(running, &quiet)
		tell.CloseWithError(cmp.Or(err, io.EOF))
		ended <- err
	}()
	stop = func() error {
		cancel()
		told.Close()
		return errors.Join(<-ended, logged.Close())
	}
	first, err := bufio.NewReader(told).ReadString('\n')
	at := strings.Index(first, "http://")
	if err != nil || at < 0 {
		return "", nil, errors.Join(fmt.Errorf("the gateway did not start: %q", first), err, stop())
	}
	if err := define(ctx, &quiet, command.queueFlags, "nats://"+port); err != nil {
		return "", nil, errors.Join(err, stop())
	}
	return strings.TrimSpace(first[at:]), stop, nil
}

// define makes the tasks for text known to a queue, as a worker would.
func define(ctx context.Context, env *environment, flags queueFlags, url string) error {
	flags.Nats = []string{url}
	q, close, err := flags.open(ctx, env, "helicon-bench")
	if err != nil {
		return err
	}
	defer close()
	e, err := engineFlags{Models: filepath.Join(flags.Data, "models")}.open(ctx, env, q, []string{"text"})
	if err != nil {
		return err
	}
	e.close()
	return nil
}

// unusedPort returns an address on which nobody listens.
func unusedPort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// body is the job that is submitted.
func (c *benchSubmitCmd) body() []byte {
	prompt := strings.Repeat("Once upon a time there was a job. ", c.Prompt/34+1)[:c.Prompt]
	body, err := json.Marshal(submission{Task: "text.complete", Input: map[string]any{"prompt": prompt, "max_tokens": 16}})
	if err != nil {
		panic(err)
	}
	return body
}

// submit loads a gateway with jobs.
func (c *benchSubmitCmd) submit(ctx context.Context, address string, d time.Duration) (loadView, error) {
	return c.post(ctx, address+"/v1/jobs", http.StatusAccepted, d)
}

// post loads an address with requests that are to be answered with a status.
func (c *benchSubmitCmd) post(ctx context.Context, address string, status int, d time.Duration) (loadView, error) {
	transport := &http.Transport{MaxIdleConns: c.Connections, MaxIdleConnsPerHost: c.Connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	body := c.body()
	return load(ctx, c.Connections, d, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		if c.Key != "" {
			request.Header.Set("Authorization", "Bearer "+c.Key)
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
		if err == nil && answer.StatusCode != status {
			err = fmt.Errorf("%s: %s", answer.Status, text)
		}
		return err
	})
}

// load calls one from many goroutines, each call after the last, and measures them.
func load(ctx context.Context, goroutines int, d time.Duration, one func(context.Context) error) (loadView, error) {
	var mu sync.Mutex
	var all []time.Duration
	var view loadView
	var running sync.WaitGroup
	computed, err := cpuTime(ctx)
	if err != nil {
		return view, err
	}
	begun := time.Now()
	for range goroutines {
		running.Go(func() {
			var took []time.Duration
			var failed error
			failures := 0
			for ctx.Err() == nil && time.Since(begun) < d {
				start := time.Now()
				if err := one(ctx); err != nil {
					failures++
					failed = err
				} else {
					took = append(took, time.Since(start))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			view.Errors += failures
			if failed != nil && view.Error == "" {
				view.Error = failed.Error()
			}
		})
	}
	running.Wait()
	if err := ctx.Err(); err != nil {
		return view, context.Cause(ctx)
	}
	if len(all) == 0 {
		return view, fmt.Errorf("nothing was accepted: %s", view.Error)
	}
	until, err := cpuTime(ctx)
	if err != nil {
		return view, err
	}
	view.Done = len(all)
	view.CPU = (until - computed) * 1e6 / float64(len(all))
	view.Rate = float64(len(all)) / time.Since(begun).Seconds()
	slices.Sort(all)
	at := func(share float64) float64 {
		return float64(all[int(share*float64(len(all)-1))]) / float64(time.Millisecond)
	}
	view.P50, view.P99, view.Max = at(0.5), at(0.99), at(1)
	return view, nil
}

// cpuTime is how many seconds this process has computed.
func cpuTime(ctx context.Context) (float64, error) {
	own, err := proc.NewProcessWithContext(ctx, int32(os.Getpid()))
	if err != nil {
		return 0, err
	}
	times, err := own.TimesWithContext(ctx)
	if err != nil {
		return 0, err
	}
	return times.User + times.System, nil
}

// echo measures an HTTP server that only reads what it is sent and answers with it.
func (c *benchSubmitCmd) echo(ctx context.Context) (*loadView, error) {
	gin.SetMode(gin.ReleaseMode) // or it prints its routes
	engine := gin.New()
	engine.POST("/", func(g *gin.Context) {
		body, err := io.ReadAll(g.Request.Body)
		if err != nil {
			return
		}
		g.Data(http.StatusOK, "application/json", body)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: engine, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	view, err := c.post(ctx, "http://"+listener.Addr().String()+"/", http.StatusOK, c.Duration/ceilingShare)
	err = errors.Join(err, server.Close())
	<-served
	return &view, err
}

// alone measures the queue without HTTP.
func (c *benchSubmitCmd) alone(ctx context.Context, dir string) (*loadView, error) {
	srv, err := queue.StartServer(queue.ServerConfig{Dir: dir, Sync: c.Sync})
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	nc, err := srv.Connect()
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	q, err := queue.Open(ctx, nc, queue.Options{Full: srv.Full, Sync: c.Sync})
	if err != nil {
		return nil, err
	}
	var job submission
	if err := json.Unmarshal(c.body(), &job); err != nil {
		return nil, err
	}
	input, err := json.Marshal(job.Input)
	if err != nil {
		return nil, err
	}
	view, err := load(ctx, c.Connections, c.Duration/ceilingShare, func(ctx context.Context) error {
		return q.Submit(ctx, &queue.Job{Task: job.Task, Input: input})
	})
	return &view, err
}

// syncs returns how many small writes to a file the disk takes a second, one by one.
func syncs(dir string, d time.Duration) (float64, error) {
	file, err := os.CreateTemp(dir, "sync-*")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	record := make([]byte, 1<<10)
	begun := time.Now()
	n := 0
	for ; time.Since(begun) < d; n++ {
		if _, err := file.Write(record); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}

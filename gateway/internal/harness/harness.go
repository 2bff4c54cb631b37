// Package harness runs a whole gateway for tests: an embedded message server, the
// queue, the gateway on a real connection, and workers whose work the test decides.
// A worker speaks the queue's own contract; nothing is mocked.
package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"helicon/gateway"
	"helicon/gateway/catalog"
	"helicon/queue"
)

// Harness is a running gateway.
type Harness struct {
	URL     string
	Queue   *queue.Queue
	Gateway *gateway.Gateway
	Catalog *catalog.Catalog
	Client  *http.Client
	Stop    func() error // ends the gateway and returns what Serve returned

	conn *nats.Conn
}

// Start runs a gateway on a message server of its own until the test ends.
func Start(t testing.TB, config gateway.Config) *Harness {
	t.Helper()
	server, err := queue.StartServer(queue.ServerConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	conn, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	q, err := queue.Open(t.Context(), conn, queue.Options{AckWait: time.Second, WorkerTTL: time.Hour}) // its workers say once that they live
	if err != nil {
		t.Fatal(err)
	}
	config.Queue = q
	if config.Catalog == nil {
		config.Catalog = openCatalog(t, q)
	}
	g, err := gateway.New(config)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &Harness{URL: "http://" + listener.Addr().String(), Queue: q, Gateway: g, Catalog: config.Catalog, conn: conn}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, listener) }()
	var stopped bool
	h.Stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-served
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	h.Client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := h.Stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return h
}

// openCatalog opens a catalog in a file of its own, which follows the queue until the test
// ends.
func openCatalog(t testing.TB, q *queue.Queue) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	go func() { followed <- c.Follow(ctx, q) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-followed, c.Close()); err != nil {
			t.Errorf("catalog: %v", err)
		}
	})
	return c
}

// Disconnect cuts the gateway off from the message server for good.
func (h *Harness) Disconnect() { h.conn.Close() }

// Work is what a worker does with a job that it has leased, held and started. It
// commits the result itself.
type Work func(ctx context.Context, l *queue.Lease) error

// Model is what the workers of the harness serve.
const Model = "test-model"

// Digest is the digest of Model.
const Digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// Worker runs jobs of the text tasks with work until the test ends or stop is called.
func (h *Harness) Worker(t testing.TB, id string, work Work) (stop func()) {
	t.Helper()
	return h.worker(t, id, "text", Tasks(), work)
}

// ImageWorker is Worker for the tasks that make pictures.
func (h *Harness) ImageWorker(t testing.TB, id string, work Work) (stop func()) {
	t.Helper()
	return h.worker(t, id, "image", ImageTasks(), work)
}

func (h *Harness) worker(t testing.TB, id, modality string, tasks []queue.Task, work Work) (stop func()) {
	t.Helper()
	names := make([]string, len(tasks))
	for i, task := range tasks {
		names[i] = task.Name
	}
	if err := h.Queue.Define(t.Context(), tasks); err != nil {
		t.Fatal(err)
	}
	about := queue.Worker{ID: id, Modalities: []string{modality}, Slots: 1, Started: time.Now().UTC(), Tasks: tasks, Models: []queue.Model{{
		ID: Model, Tasks: names, Architecture: "LlamaForCausalLM",
		Context: 512, Digest: Digest, Source: "embedded", Created: 1700000000,
	}}}
	if err := h.Queue.Advertise(t.Context(), about); err != nil {
		t.Fatal(err)
	}
	source, err := h.Queue.NewSource(t.Context(), id, modality)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			lease, err := source.Next(ctx)
			if err != nil {
				return
			}
			if err := run(ctx, lease, work); err != nil && ctx.Err() == nil {
				t.Errorf("worker %s: job %s: %v", id, lease.Job.ID, err)
			}
		}
	}()
	var stopped bool
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
			source.Close()
		}
	}
	t.Cleanup(stop)
	return stop
}

func run(ctx context.Context, lease *queue.Lease, work Work) error {
	held, release, err := lease.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := lease.Start(held); err != nil {
		return unlessCanceled(err)
	}
	return unlessCanceled(work(held, lease))
}

func unlessCanceled(err error) error {
	if errors.Is(err, queue.ErrCanceled) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Tasks returns the text tasks as their workers define them: with the schemas that lie
// beside the text generator, which a gateway must not import.
func Tasks() []queue.Task {
	return withSchemas([]queue.Task{
		{Name: "text.complete", Title: "Complete", Description: "Continue a text."},
		{Name: "text.chat", Title: "Chat", Description: "Answer a conversation."},
		{Name: "text.embed", Title: "Embed", Description: "Turn texts into vectors."},
	})
}

// ImageTasks returns tasks that make pictures, as Tasks does for texts.
func ImageTasks() []queue.Task {
	return withSchemas([]queue.Task{
		{Name: "image.generate", Title: "Make", Description: "Make pictures."},
		{Name: "image.edit", Title: "Change", Description: "Change a picture."},
		{Name: "image.inpaint", Title: "Repaint", Description: "Repaint a part."},
		{Name: "image.variation", Title: "Vary", Description: "Vary a picture."},
	})
}

func withSchemas(tasks []queue.Task) []queue.Task {
	_, file, _, _ := runtime.Caller(0)
	for i, t := range tasks {
		modality, verb, _ := strings.Cut(t.Name, ".")
		schema, err := os.ReadFile(filepath.Join(filepath.Dir(file), "..", "..", "..", "generators", modality, "schemas", verb+".json"))
		if err != nil {
			panic(fmt.Sprintf("harness: the schema of %s: %v", t.Name, err))
		}
		tasks[i].Model, tasks[i].Schema = Model, schema
	}
	return tasks
}

// Answer is what a request came back with.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request with a JSON body (or none, if it is "") and reads the answer.
// headers alternate between names and values.
func (h *Harness) Do(t testing.TB, method, path, body string, headers ...string) Answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
	}
	response, err := h.Client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return Answer{response.StatusCode, response.Header, text}
}

// JSON decodes the answer's body after checking its status.
func (a Answer) JSON(t testing.TB, status int, into any) {
	t.Helper()
	if a.Status != status {
		t.Fatalf("status %d, want %d: %s", a.Status, status, a.Body)
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		t.Fatalf("%v: %s", err, a.Body)
	}
}

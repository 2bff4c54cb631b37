package generators_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"helicon/generators"
	"helicon/queue"
)

func TestMain(m *testing.M) {
	// nats.go 1.55.0 leaves it behind when an object is stored before it has begun to run.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// limit is how long any one thing may take before its test gives up.
const limit = 20 * time.Second

// scripted is a generator of tasks text.complete and text.chat whose work is a function.
type scripted struct {
	need func(job *queue.Job) generators.Need
	run  func(ctx context.Context, job *queue.Job, out generators.Output) (*queue.Result, error)
}

func (s scripted) Tasks() []queue.Task {
	return []queue.Task{
		{Name: "text.complete", Title: "Complete", Schema: json.RawMessage(`{"type":"object"}`), Model: "script"},
		{Name: "text.chat", Title: "Chat", Schema: json.RawMessage(`{"type":"object"}`), Model: "script"},
	}
}

func (s scripted) Models() []queue.Model {
	return []queue.Model{{ID: "script", Tasks: []string{"text.complete"}}}
}

func (s scripted) Estimate(job *queue.Job) (generators.Need, error) {
	if s.need == nil {
		return generators.Need{}, nil
	}
	return s.need(job), nil
}

func (s scripted) Generate(ctx context.Context, job *queue.Job, _ []*queue.Job, out generators.Output) (*queue.Result, error) {
	return s.run(ctx, job, out)
}

// write emits a text word by word and returns it as the result.
func write(text string, out generators.Output) *queue.Result {
	words := strings.SplitAfter(text, " ")
	offset := 0
	for i, word := range words {
		out.Delta(queue.Delta{Text: word, Offset: offset})
		out.Progress(i+1, len(words))
		offset += len(word)
	}
	return &queue.Result{Text: text}
}

// untilEnd blocks until ctx ends.
func untilEnd(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// testContext ends before the test binary would be killed, and at the test's end.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit)
	t.Cleanup(cancel)
	return ctx
}

// openQueue starts an embedded server and opens a queue on it.
func openQueue(t *testing.T, opts queue.Options) *queue.Queue {
	t.Helper()
	srv, err := queue.StartServer(queue.ServerConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	q, err := queue.Open(testContext(t), nc, opts)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// startWorker runs a worker until the returned function is called, which waits for it.
func startWorker(t *testing.T, c generators.Config) (w *generators.Worker, stop func()) {
	t.Helper()
	if c.Memory == nil {
		c.Memory = generators.NewMemory(1 << 20)
	}
	c.Log = slog.New(slog.NewTextHandler(testLog{t}, nil))
	w, err := generators.NewWorker(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return w, stop
}

type testLog struct{ t *testing.T }

var _ io.Writer = testLog{}

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// submit accepts a job; change, if any, alters it before.
func submit(t *testing.T, q *queue.Queue, change func(*queue.Job)) *queue.Job {
	t.Helper()
	job := &queue.Job{Task: "text.complete"}
	if change != nil {
		change(job)
	}
	if err := q.Submit(testContext(t), job); err != nil {
		t.Fatal(err)
	}
	return job
}

// await returns the job when it has ended.
func await(t *testing.T, q *queue.Queue, id string) *queue.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(testContext(t), limit)
	defer cancel()
	job, err := q.Wait(ctx, id)
	if err != nil {
		t.Fatalf("job %s: %v", id, err)
	}
	return job
}

// awaitState fails unless the job ends in the state.
func awaitState(t *testing.T, q *queue.Queue, id string, want queue.State) *queue.Job {
	t.Helper()
	job := await(t, q, id)
	if job.State != want {
		t.Fatalf("job ended %s, want %s; problem %v", job.State, want, job.Problem)
	}
	return job
}

// receive waits for a value.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(limit):
		t.Fatalf("%s did not happen", what)
		panic("unreachable")
	}
}

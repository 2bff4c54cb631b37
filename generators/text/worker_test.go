package text

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"helicon/generators"
	"helicon/models/hub"
	"helicon/models/tensor"
	"helicon/queue"
)

// testOptions have the lease of a killed worker end soon.
func testOptions() queue.Options { return queue.Options{AckWait: time.Second} }

// limit is how long any one thing may take before its test gives up.
const limit = 30 * time.Second

// startQueue starts an embedded server that other processes can reach.
func startQueue(t testing.TB) (q *queue.Queue, url, token string) {
	t.Helper()
	dir := t.TempDir()
	srv, err := queue.StartServer(queue.ServerConfig{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if q, err = queue.Open(t.Context(), nc, testOptions()); err != nil {
		t.Fatal(err)
	}
	if token, err = queue.ReadToken(dir); err != nil {
		t.Fatal(err)
	}
	return q, srv.URL(), token
}

// startWorker runs a worker for text until the returned function is called.
func startWorker(t *testing.T, q *queue.Queue, g *Generator) (stop func()) {
	t.Helper()
	return startWorkerOf(t, generators.Config{Queue: q, Generators: []generators.Generator{g}, Memory: g.memory, Slots: 2})
}

func startWorkerOf(t testing.TB, c generators.Config) (stop func()) {
	t.Helper()
	w, err := generators.NewWorker(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return stop
}

func submit(t *testing.T, q *queue.Queue, input any) *queue.Job {
	t.Helper()
	job := jobOf(t, taskComplete, "plain", input)
	if err := q.Submit(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	return job
}

// watch follows a job to its end and returns it with the text that its deltas make.
func watch(t *testing.T, q *queue.Queue, id string) (job *queue.Job, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var b []byte
	for e, err := range q.Watch(ctx, id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Delta != nil {
			b = append(b[:min(e.Delta.Offset, len(b))], e.Delta.Text...)
		}
		job = e.Job
	}
	return job, string(b)
}

// TestSameTextEverywhere compares the text of one job made by a call, by a worker in
// this process and by one in another process, on other numbers of threads.
func TestSameTextEverywhere(t *testing.T) {
	dir := models(t)
	input := object{"prompt": "Wherever it is made, ", "max_tokens": 100}
	g := open(t, dir, 1)
	want, _ := generate(t, g, jobOf(t, taskComplete, "plain", input))
	q, url, token := startQueue(t)

	stop := startWorker(t, q, g)
	here, text := watch(t, q, submit(t, q, input).ID)
	stop()
	if here.State != queue.Succeeded || here.Result.Text != want.Text || text != want.Text {
		t.Fatalf("in this process: %s %+v, streamed %q; want %q", here.State, here.Result, text, want.Text)
	}
	if here.Model != "plain" {
		t.Errorf("the job names the model %q", here.Model)
	}

	other, stdin, stdout := startProcess(t, dir, url, token)
	there, text := watch(t, q, submit(t, q, input).ID)
	stdin.Close() // it ends
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		t.Log("other process: ", lines.Text())
	}
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	if there.State != queue.Succeeded || there.Result.Text != want.Text || text != want.Text || there.Worker == here.Worker {
		t.Errorf("in another process: %s %+v, streamed %q; want %q", there.State, there.Result, text, want.Text)
	}
	var a, b meta
	if json.Unmarshal(here.Result.Meta, &a) != nil || json.Unmarshal(there.Result.Meta, &b) != nil || a.Digest != b.Digest {
		t.Errorf("digests %s and %s", a.Digest, b.Digest)
	}
}

// startProcess starts TestWorkerProcess in a process of its own, which ends with its
// standard input.
func startProcess(t *testing.T, models, url, token string) (cmd *exec.Cmd, stdin io.WriteCloser, stdout io.ReadCloser) {
	t.Helper()
	cmd = exec.Command(os.Args[0], "-test.run=^TestWorkerProcess$", "-test.v")
	cmd.Env = append(os.Environ(), "HELICON_TEST_WORKER="+url, "HELICON_TEST_TOKEN="+token, "HELICON_TEST_MODELS="+models)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if stdout, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, stdin, stdout
}

// TestKilledWorker kills a worker in the middle of a job: another one begins anew and
// writes the same text.
func TestKilledWorker(t *testing.T) {
	dir := models(t)
	input := object{"prompt": "Twice", "max_tokens": 150, "n": 8}
	g := open(t, dir, 1)
	want, _ := generate(t, g, jobOf(t, taskComplete, "plain", input))
	q, url, token := startQueue(t)
	other, stdin, stdout := startProcess(t, dir, url, token)
	job := submit(t, q, input)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for e, err := range q.Watch(ctx, job.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == queue.EventToken {
			break
		}
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	if err := other.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	defer startWorker(t, q, g)()
	end, _ := watch(t, q, job.ID)
	if end.State != queue.Succeeded || end.Result.Text != want.Text {
		t.Fatalf("ended %s (%v) with %+v, want %q", end.State, end.Problem, end.Result, want.Text)
	}
	if end.Attempts != 2 || len(end.Failures) != 1 {
		t.Errorf("%d attempts, failures %v", end.Attempts, end.Failures)
	}
}

// TestWorkerProcess is not a test: it is the other process of the tests above, and
// works until its standard input ends.
func TestWorkerProcess(t *testing.T) {
	url := os.Getenv("HELICON_TEST_WORKER")
	if url == "" {
		t.Skip("runs as a part of other tests")
	}
	nc, err := queue.Connect(url, os.Getenv("HELICON_TEST_TOKEN"), "test worker")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	q, err := queue.Open(t.Context(), nc, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	stop := startWorker(t, q, open(t, os.Getenv("HELICON_TEST_MODELS"), 2))
	defer stop()
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// cancelInTheMiddle cancels a long job that is being written, and reports whether it was in time.
func cancelInTheMiddle(t *testing.T, q *queue.Queue) bool {
	t.Helper()
	job := submit(t, q, object{"prompt": "Long", "max_tokens": 150, "n": 8, "logprobs": 0})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for e, err := range q.Watch(ctx, job.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == queue.EventToken {
			break
		}
	}
	_, err := q.Cancel(ctx, job.ID)
	if err != nil && !errors.Is(err, queue.ErrFinished) {
		t.Fatal(err)
	}
	return err == nil
}

// TestCancelFreesTheWorker cancels a long job in the middle; the next one runs.
func TestCancelFreesTheWorker(t *testing.T) {
	q, _, _ := startQueue(t)
	g := open(t, models(t), 1)
	defer startWorker(t, q, g)()
	// So small a model may be done before the cancel arrives: then another job is tried.
	canceled := false
	for range 50 {
		if canceled = cancelInTheMiddle(t, q); canceled {
			break
		}
	}
	if !canceled {
		t.Error("no job could be canceled in time")
	}
	if next, _ := watch(t, q, submit(t, q, object{"prompt": "Next", "max_tokens": 5}).ID); next.State != queue.Succeeded {
		t.Errorf("the next job: %s, %v", next.State, next.Problem)
	}
}

// BenchmarkDefaultModel measures the embedded model as jobs run on it.
func BenchmarkDefaultModel(b *testing.B) {
	h, err := hub.Open(hub.Config{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := h.Bundle(defaultModel); err != nil {
		b.Skip("this build embeds no ", defaultModel)
	}
	pool := tensor.NewPool(tensor.Config{})
	defer pool.Close()
	memory := generators.NewMemory(1 << 30)
	defer memory.Close()
	g, err := New(Config{Hub: h, Pool: pool, Memory: memory})
	if err != nil {
		b.Fatal(err)
	}
	job := jobOf(b, taskComplete, defaultModel, object{"prompt": "Once upon a time", "max_tokens": 200})
	var tokens, seconds float64
	for b.Loop() {
		job.Seed++
		w, _ := generate(b, g, job)
		tokens += float64(w.Usage.OutputTokens)
		seconds += float64(w.Usage.OutputTokens) / max(w.meta.TokensPerSecond, 1)
	}
	b.ReportMetric(tokens/seconds, "tok/s")
}

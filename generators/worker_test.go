package generators_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"helicon/generators"
	"helicon/queue"
)

func TestWorkerRunsJob(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	text := strings.Repeat("Once upon a time there was a queue. ", 400)
	startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
		run: func(_ context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			return write(text, out), nil
		},
	}}})
	job := submit(t, q, nil)
	var written strings.Builder
	events := 0
	for e, err := range q.Watch(testContext(t), job.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		events++
		if e.Type == queue.EventToken {
			if e.Delta.Offset != written.Len() {
				t.Fatalf("delta at offset %d, want %d", e.Delta.Offset, written.Len())
			}
			if e.Progress == nil || e.Progress.Step == 0 {
				t.Errorf("token event without progress: %+v", e.Progress)
			}
			written.WriteString(e.Delta.Text)
		}
		if e.Terminal() {
			job = e.Job
		}
	}
	if job.State != queue.Succeeded || job.Result.Text != text {
		t.Fatalf("job ended %s with %d bytes of text, want %d", job.State, len(job.Result.Text), len(text))
	}
	if written.String() != text {
		t.Errorf("deltas add up to %d bytes, want the result's %d", written.Len(), len(text))
	}
	if events > 100 {
		t.Errorf("%d events: deltas were not gathered", events)
	}
	if job.Attempts != 1 || job.Worker == "" || job.Started == nil || job.Finished == nil {
		t.Errorf("attempts %d, worker %q, started %v, finished %v", job.Attempts, job.Worker, job.Started, job.Finished)
	}
}

func TestErrorsDecideTheJobsFate(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		fail     func() error // of the first attempt
		state    queue.State
		attempts int
		says     string // in the problem, or in the first failure
	}{
		{"problem", func() error { return queue.Problemf("bad_prompt", "The prompt is bad.") }, queue.Failed, 1, "The prompt is bad."},
		{"wrapped problem", func() error { return fmt.Errorf("text: %w", queue.Problemf("bad_prompt", "The prompt is bad.")) }, queue.Failed, 1, "The prompt is bad."},
		{"transient", func() error { return generators.Transient(errors.New("secret host is away")) }, queue.Succeeded, 2, "an internal error"},
		{"transient problem", func() error { return generators.Transient(queue.Problemf("busy", "The engine is busy.")) }, queue.Succeeded, 2, "The engine is busy."},
		{"internal", func() error { return errors.New("secret path") }, queue.Succeeded, 2, "an internal error"},
		{"panic", func() error { panic("a broken model") }, queue.Succeeded, 2, "an internal error"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			q := openQueue(t, queue.Options{})
			startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
				run: func(_ context.Context, job *queue.Job, out generators.Output) (*queue.Result, error) {
					if job.Attempts == 1 {
						if err := c.fail(); err != nil {
							return nil, err
						}
					}
					return write("done", out), nil
				},
			}}})
			job := awaitState(t, q, submit(t, q, nil).ID, c.state)
			if job.Attempts != c.attempts {
				t.Errorf("%d attempts, want %d", job.Attempts, c.attempts)
			}
			said := ""
			if job.Problem != nil {
				said = job.Problem.Detail
			} else {
				said = job.Failures[0].Reason
			}
			if !strings.Contains(said, c.says) || strings.Contains(said, "secret") {
				t.Errorf("the user reads %q, want %q", said, c.says)
			}
		})
	}
}

func TestPoisonJobEndsAndTheWorkerLives(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{MaxAttempts: 2})
	startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
		run: func(_ context.Context, job *queue.Job, out generators.Output) (*queue.Result, error) {
			if job.Task == "text.complete" {
				panic("poison")
			}
			return write("alive", out), nil
		},
	}}})
	poison := submit(t, q, nil)
	job := awaitState(t, q, poison.ID, queue.Failed)
	if job.Problem.Code != "attempts_exhausted" || len(job.Failures) != 2 || strings.Contains(job.Problem.Detail, "poison") {
		t.Errorf("problem %v after failures %v", job.Problem, job.Failures)
	}
	awaitState(t, q, submit(t, q, func(j *queue.Job) { j.Task = "text.chat" }).ID, queue.Succeeded)
}

func TestUnknownTaskIsTriedElsewhereAndFails(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{MaxAttempts: 1})
	startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{}}})
	job := awaitState(t, q, submit(t, q, func(j *queue.Job) { j.Task = "text.embed" }).ID, queue.Failed)
	if !strings.Contains(job.Problem.Detail, "does not know the task text.embed") {
		t.Errorf("problem %v", job.Problem)
	}
}

func TestCancelStopsTheJobAlone(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	started, stopped := make(chan string, 2), make(chan error, 1)
	finish := make(chan struct{})
	startWorker(t, generators.Config{Queue: q, Slots: 2, Generators: []generators.Generator{scripted{
		run: func(ctx context.Context, job *queue.Job, out generators.Output) (*queue.Result, error) {
			started <- job.ID
			if job.Task == "text.complete" {
				err := untilEnd(ctx)
				stopped <- err
				return nil, err
			}
			<-finish
			return write("other", out), nil
		},
	}}})
	job := submit(t, q, nil)
	other := submit(t, q, func(j *queue.Job) { j.Task = "text.chat" })
	receive(t, started, "the start of a job")
	receive(t, started, "the start of the other job")
	if _, err := q.Cancel(testContext(t), job.ID); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, stopped, "the end of the canceled job"); !errors.Is(err, queue.ErrCanceled) {
		t.Errorf("the generator was stopped by %v, want %v", err, queue.ErrCanceled)
	}
	close(finish)
	awaitState(t, q, other.ID, queue.Succeeded)
	awaitState(t, q, job.ID, queue.Canceled)
}

func TestDeadlineFailsARunningJob(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
		run: func(ctx context.Context, _ *queue.Job, _ generators.Output) (*queue.Result, error) {
			return nil, untilEnd(ctx)
		},
	}}})
	job := submit(t, q, func(j *queue.Job) {
		deadline := time.Now().Add(time.Second)
		j.Deadline = &deadline
	})
	if job = awaitState(t, q, job.ID, queue.Failed); job.Problem.Code != "deadline_exceeded" {
		t.Errorf("problem %v", job.Problem)
	}
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	var running, most atomic.Int64
	memory := generators.NewMemory(100)
	startWorker(t, generators.Config{Queue: q, Slots: 3, Memory: memory, Generators: []generators.Generator{scripted{
		need: func(job *queue.Job) generators.Need {
			if job.Task == "text.chat" {
				return generators.Need{Memory: 60, Model: generators.Footprint{Key: "huge", Bytes: 41}}
			}
			return generators.Need{Memory: 60}
		},
		run: func(ctx context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			return write("done", out), nil
		},
	}}})
	var ids []string
	for range 6 {
		ids = append(ids, submit(t, q, nil).ID)
	}
	large := awaitState(t, q, submit(t, q, func(j *queue.Job) { j.Task = "text.chat" }).ID, queue.Failed)
	if large.Problem.Code != "model_too_large" || !strings.Contains(large.Problem.Detail, "101 bytes") || !strings.Contains(large.Problem.Detail, "100 bytes") {
		t.Errorf("problem %v does not name the figures", large.Problem)
	}
	if large.Attempts != 0 {
		t.Errorf("a job that can never run was started %d times", large.Attempts)
	}
	for _, id := range ids {
		awaitState(t, q, id, queue.Succeeded)
	}
	if most.Load() != 1 {
		t.Errorf("%d jobs of 60 bytes ran at once in 100", most.Load())
	}
}

func TestCancelOfAJobThatWaitsForMemory(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	started, finish := make(chan string, 2), make(chan struct{})
	w, _ := startWorker(t, generators.Config{Queue: q, Slots: 2, Memory: generators.NewMemory(1), Generators: []generators.Generator{scripted{
		need: func(*queue.Job) generators.Need { return generators.Need{Memory: 1} },
		run: func(_ context.Context, job *queue.Job, out generators.Output) (*queue.Result, error) {
			started <- job.ID
			<-finish
			return write("done", out), nil
		},
	}}})
	ids := []string{submit(t, q, nil).ID, submit(t, q, nil).ID}
	running := receive(t, started, "a start")
	waiting := ids[0]
	if running == waiting {
		waiting = ids[1]
	}
	for held := 0; held < 2; { // the worker has leased both
		workers, err := q.Workers(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(workers) == 1 {
			held = len(workers[0].Running)
		}
	}
	if _, err := q.Cancel(testContext(t), waiting); err != nil {
		t.Fatal(err)
	}
	close(finish)
	awaitState(t, q, running, queue.Succeeded)
	if job := awaitState(t, q, waiting, queue.Canceled); job.Attempts != 0 || job.Worker == w.ID() {
		t.Errorf("attempts %d by %q", job.Attempts, job.Worker)
	}
	select {
	case id := <-started:
		t.Errorf("job %s was started", id)
	default:
	}
}

func TestDrainHandsBackAndAnotherWorkerFinishes(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	started := make(chan struct{})
	_, stop := startWorker(t, generators.Config{Queue: q, Grace: time.Millisecond, Generators: []generators.Generator{scripted{
		run: func(ctx context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			out.Delta(queue.Delta{Text: "unfinished"})
			close(started)
			return nil, untilEnd(ctx)
		},
	}}})
	job := submit(t, q, nil)
	receive(t, started, "the start")
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("draining took %v", took)
	}
	second, _ := startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
		run: func(_ context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			return write("finished", out), nil
		},
	}}})
	job = awaitState(t, q, job.ID, queue.Succeeded)
	if job.Attempts != 1 || job.Worker != second.ID() || len(job.Failures) != 0 {
		t.Errorf("attempts %d by %s, failures %v; a hand-back is no attempt", job.Attempts, job.Worker, job.Failures)
	}
}

func TestDrainLetsRunningJobsEndAndReturnsWaitingOnes(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	started, finish := make(chan struct{}, 2), make(chan struct{})
	_, stop := startWorker(t, generators.Config{Queue: q, Slots: 2, Memory: generators.NewMemory(1), Generators: []generators.Generator{scripted{
		need: func(*queue.Job) generators.Need { return generators.Need{Memory: 1} },
		run: func(_ context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			started <- struct{}{}
			<-finish
			return write("finished", out), nil
		},
	}}})
	a, b := submit(t, q, nil), submit(t, q, nil)
	receive(t, started, "the start")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	// The worker says that it drains once it takes no more jobs.
	for draining := false; !draining; {
		workers, err := q.Workers(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		draining = len(workers) == 1 && workers[0].Draining
	}
	close(finish)
	receive(t, stopped, "the end of the worker")
	states := map[queue.State]int{}
	for _, id := range []string{a.ID, b.ID} {
		job, err := q.Job(testContext(t), id)
		if err != nil {
			t.Fatal(err)
		}
		states[job.State]++
	}
	if states[queue.Succeeded] != 1 || states[queue.Queued] != 1 {
		t.Errorf("states %v, want one succeeded and one queued", states)
	}
}

func TestTwoWorkersShareTheWork(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	arrived, both := make(chan struct{}, 2), make(chan struct{})
	for range 2 {
		startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
			run: func(ctx context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
				arrived <- struct{}{}
				select {
				case <-both:
					return write("done", out), nil
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
			},
		}}})
	}
	a, b := submit(t, q, nil), submit(t, q, nil)
	receive(t, arrived, "one start")
	receive(t, arrived, "the other start")
	close(both)
	first, second := awaitState(t, q, a.ID, queue.Succeeded), awaitState(t, q, b.ID, queue.Succeeded)
	if first.Worker == second.Worker {
		t.Errorf("one worker of one slot ran both jobs at once")
	}
}

func TestWorkOutlivesTheMessageServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, err := queue.StartServer(queue.ServerConfig{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := queue.ReadToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(srv.URL(), "nats://")
	if _, _, err := net.SplitHostPort(address); err != nil {
		t.Fatal(err)
	}
	nc, err := queue.Connect(srv.URL(), token, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	q, err := queue.Open(testContext(t), nc, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	started, away := make(chan struct{}), make(chan struct{})
	text := "written while the server was away"
	worked := make(chan struct{})
	startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
		run: func(_ context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			close(started)
			<-away
			defer close(worked)
			return write(text, out), nil
		},
	}}})
	job := submit(t, q, nil)
	receive(t, started, "the start")
	back := nc.StatusChanged(nats.CONNECTED)
	srv.Close()
	close(away)
	receive(t, worked, "the work without a server")
	srv, err = queue.StartServer(queue.ServerConfig{Dir: dir, Listen: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	receive(t, back, "the reconnection")
	job = awaitState(t, q, job.ID, queue.Succeeded)
	if job.Result.Text != text || job.Attempts != 1 {
		t.Errorf("text %q after %d attempts", job.Result.Text, job.Attempts)
	}
	var written string
	for e, err := range q.Watch(testContext(t), job.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Delta != nil {
			written += e.Delta.Text
		}
	}
	if written != text {
		t.Errorf("deltas add up to %q", written)
	}
}

func TestArtifact(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
		run: func(ctx context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			a, err := out.Artifact(ctx, bytes.NewReader([]byte("pixels")), queue.Artifact{MediaType: "image/png", Width: 2})
			return &queue.Result{Artifacts: []queue.Artifact{a}}, err
		},
	}}})
	job := submit(t, q, nil)
	var announced *queue.Artifact
	for e, err := range q.Watch(testContext(t), job.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == queue.EventArtifact {
			announced = e.Artifact
		}
	}
	job = await(t, q, job.ID)
	if announced == nil || *announced != job.Result.Artifacts[0] || announced.Size != 6 || announced.Width != 2 {
		t.Errorf("announced %+v, result %+v", announced, job.Result.Artifacts)
	}
}

func TestWorkerMakesItselfKnown(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	started, finish := make(chan struct{}), make(chan struct{})
	w, stop := startWorker(t, generators.Config{Queue: q, Name: "w1", Version: "v9", Generators: []generators.Generator{scripted{
		run: func(_ context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			close(started)
			<-finish
			return write("done", out), nil
		},
	}}})
	job := submit(t, q, nil)
	receive(t, started, "the start")
	var self queue.Worker
	for len(self.Running) == 0 {
		workers, err := q.Workers(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(workers) > 0 {
			self = workers[0]
		}
	}
	close(finish)
	if self.ID != w.ID() || self.Version != "v9" || self.Slots != 1 || self.Running[0] != job.ID || self.Memory != 1<<20 ||
		len(self.Modalities) != 1 || self.Modalities[0] != "text" || len(self.Tasks) != 2 || len(self.Models) != 1 {
		body, _ := json.Marshal(self)
		t.Errorf("advertised %s", body)
	}
	awaitState(t, q, job.ID, queue.Succeeded)
	stop()
	if workers, err := q.Workers(testContext(t)); err != nil || len(workers) != 0 {
		t.Errorf("workers %v, %v after the end", workers, err)
	}
	if tasks, err := q.Tasks(testContext(t)); err != nil || len(tasks) != 2 {
		t.Errorf("tasks %v, %v: definitions outlive their worker", tasks, err)
	}
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	memory := generators.NewMemory(1)
	one := []generators.Generator{scripted{}}
	for name, c := range map[string]generators.Config{
		"no queue":      {Memory: memory, Generators: one},
		"no memory":     {Queue: q, Generators: one},
		"no generators": {Queue: q, Memory: memory},
		"same tasks":    {Queue: q, Memory: memory, Generators: []generators.Generator{scripted{}, scripted{}}},
		"slots":         {Queue: q, Memory: memory, Generators: one, Slots: -1},
		"name":          {Queue: q, Memory: memory, Generators: one, Name: "a.b"},
	} {
		if _, err := generators.NewWorker(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

package generators_test

import (
	"context"
	"encoding/json"
	"testing"

	"helicon/generators"
	"helicon/queue"
)

// pictures is a generator of another modality, one job after the other.
type pictures struct{ scripted }

func (pictures) Tasks() []queue.Task {
	return []queue.Task{{Name: "image.generate", Title: "Paint", Schema: json.RawMessage(`{"type":"object"}`), Model: "script"}}
}

// batched is a generator whose jobs are worth running three at a time.
type batched struct{ scripted }

func (batched) Together() int { return 3 }

// TestLanes checks that a worker of default settings runs as many jobs of a modality as
// its generator can use together, and of another one a single job beside them.
func TestLanes(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{})
	begun, proceed := make(chan string, 10), make(chan struct{})
	run := func(ctx context.Context, job *queue.Job, out generators.Output) (*queue.Result, error) {
		begun <- job.Task
		select {
		case <-proceed:
			return &queue.Result{}, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	w, _ := startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{batched{scripted{run: run}}, pictures{scripted{run: run}}}})
	var jobs []*queue.Job
	for range 5 {
		jobs = append(jobs, submit(t, q, nil), submit(t, q, func(j *queue.Job) { j.Task = "image.generate" }))
	}
	count := map[string]int{}
	for range 4 {
		count[receive(t, begun, "a job")]++
	}
	if count["text.complete"] != 3 || count["image.generate"] != 1 {
		t.Errorf("%v run at once, want 3 texts and a picture", count)
	}
	workers, err := q.Workers(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range workers {
		if known.ID == w.ID() && known.Slots != 4 {
			t.Errorf("the worker is known for %d slots, want 4", known.Slots)
		}
	}
	select {
	case task := <-begun:
		t.Errorf("another job, %s, has begun beside those", task)
	default:
	}
	close(proceed)
	for _, job := range jobs {
		awaitState(t, q, job.ID, queue.Succeeded)
	}
}

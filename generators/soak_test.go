package generators_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"helicon/generators"
	"helicon/queue"
)

// TestEveryJobEndsOnce runs many jobs of all kinds on workers that come and go: each
// job must end once, in the state that befits it, with deltas that make its text.
func TestEveryJobEndsOnce(t *testing.T) {
	t.Parallel()
	q := openQueue(t, queue.Options{MaxAttempts: 20})
	generator := scripted{
		need: func(*queue.Job) generators.Need {
			return generators.Need{Memory: 20, Model: generators.Footprint{Key: "shared", Bytes: 40}}
		},
		run: func(ctx context.Context, job *queue.Job, out generators.Output) (*queue.Result, error) {
			switch kind := job.Tags[0]; {
			case kind == "bad":
				return nil, queue.Problemf("bad", "It is bad.")
			case kind == "shaky" && job.Attempts == 1:
				return nil, generators.Transient(errors.New("once"))
			case kind == "broken" && job.Attempts == 1:
				panic("once")
			}
			result := &queue.Result{}
			for i := range 20 {
				select {
				case <-time.After(time.Duration(rand.IntN(10)) * time.Millisecond): // the work
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
				word := fmt.Sprintf("%s-%d ", job.ID, i)
				out.Delta(queue.Delta{Text: word, Offset: len(result.Text)})
				out.Progress(i+1, 20)
				result.Text += word
			}
			return result, nil
		},
	}
	worker := func() (stop func()) {
		_, stop = startWorker(t, generators.Config{
			Queue: q, Slots: 4, Memory: generators.NewMemory(100), Grace: time.Millisecond,
			Generators: []generators.Generator{generator},
		})
		return stop
	}
	first := worker()
	kinds := []string{"good", "bad", "shaky", "broken", "canceled", "good"}
	jobs := make([]*queue.Job, 48)
	for i := range jobs {
		jobs[i] = submit(t, q, func(j *queue.Job) { j.Tags = []string{kinds[i%len(kinds)]} })
	}
	second := worker()
	for _, job := range jobs {
		if job.Tags[0] == "canceled" {
			if _, err := q.Cancel(testContext(t), job.ID); err != nil && !errors.Is(err, queue.ErrFinished) {
				t.Error(err)
			}
		}
	}
	first()
	worker()
	second()
	var watchers sync.WaitGroup
	for _, job := range jobs {
		watchers.Go(func() { checkRecord(t, q, job) })
	}
	watchers.Wait()
}

// checkRecord follows a job of TestEveryJobEndsOnce to its end.
func checkRecord(t *testing.T, q *queue.Queue, job *queue.Job) {
	ctx, cancel := context.WithTimeout(testContext(t), 2*limit)
	defer cancel()
	var text string
	var ended []*queue.Job
	for e, err := range q.Watch(ctx, job.ID, 0) {
		if err != nil {
			t.Errorf("%s %s: %v", job.Tags[0], job.ID, err)
			return
		}
		switch {
		case e.Type == queue.EventStarted:
			text = ""
		case e.Delta != nil && e.Delta.Offset > len(text):
			t.Errorf("%s %s: a delta at %d behind %d bytes", job.Tags[0], job.ID, e.Delta.Offset, len(text))
		case e.Delta != nil:
			text = text[:e.Delta.Offset] + e.Delta.Text
		case e.Terminal():
			ended = append(ended, e.Job)
		}
	}
	if len(ended) != 1 {
		t.Errorf("%s %s ended %d times", job.Tags[0], job.ID, len(ended))
		return
	}
	end := ended[0]
	want := queue.Succeeded
	switch job.Tags[0] {
	case "bad":
		want = queue.Failed
	case "canceled":
		want = end.State
		if end.State != queue.Canceled && end.State != queue.Succeeded { // it may have been faster
			t.Errorf("%s ended %s", job.ID, end.State)
		}
	}
	if end.State != want {
		t.Errorf("%s %s ended %s, want %s: %v", job.Tags[0], job.ID, end.State, want, end.Problem)
	}
	if end.State == queue.Succeeded && (end.Result.Text != text || !strings.HasPrefix(text, job.ID+"-0 ")) {
		t.Errorf("%s %s: streamed %d bytes, result %d", job.Tags[0], job.ID, len(text), len(end.Result.Text))
	}
}

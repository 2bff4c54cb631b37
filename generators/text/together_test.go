package text

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"helicon/generators"
	"helicon/models/hub"
	"helicon/models/lm"
	"helicon/models/tensor"
	"helicon/queue"
)

// someJobs are jobs of different lengths, forms and seeds, of which some begin alike.
func someJobs(t testing.TB, n int) []*queue.Job {
	t.Helper()
	jobs := make([]*queue.Job, n)
	for i := range jobs {
		input := object{"prompt": fmt.Sprintf("%d. Side by side %s", i%5, strings.Repeat("and on ", i%4)), "max_tokens": 20 + 3*i}
		switch i % 4 {
		case 1:
			input["n"] = 3
		case 2:
			input["temperature"] = 0
		case 3:
			input["logprobs"] = 1
		}
		jobs[i] = jobOf(t, taskComplete, "plain", input)
		jobs[i].Seed = uint64(100 + i)
	}
	return jobs
}

// TestTogetherAsAlone runs 16 jobs at once, all different, and compares each with what
// it gives when nothing else runs.
func TestTogetherAsAlone(t *testing.T) {
	t.Parallel()
	dir := models(t)
	jobs := someJobs(t, 16)
	together := open(t, dir, 2)
	got := make([]written, len(jobs))
	var group sync.WaitGroup
	for i, job := range jobs {
		group.Go(func() { got[i], _ = generate(t, together, job) })
	}
	group.Wait()
	for i, job := range jobs {
		want, _ := generate(t, open(t, dir, 1), job)
		if got[i].Text != want.Text || fmt.Sprint(got[i].meta.Choices) != fmt.Sprint(want.meta.Choices) {
			t.Errorf("job %d beside others is %q %+v, alone %q %+v", i, got[i].Text, got[i].meta.Choices, want.Text, want.meta.Choices)
		}
	}
}

// TestWorkerLeasesTextsTogether checks that a worker of default settings takes as many
// texts as are worth writing at once, and that each comes out as it does alone.
func TestWorkerLeasesTextsTogether(t *testing.T) {
	dir := models(t)
	g := open(t, dir, 2)
	q, _, _ := startQueue(t)
	var submitted []*queue.Job
	for _, job := range someJobs(t, together) {
		if err := q.Submit(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		submitted = append(submitted, job)
	}
	stop := startWorkerOf(t, generators.Config{Queue: q, Generators: []generators.Generator{g}, Memory: g.memory})
	defer stop()
	alone := open(t, dir, 1)
	for _, job := range submitted {
		ended, _ := watch(t, q, job.ID)
		want, _ := generate(t, alone, job)
		if ended.State != queue.Succeeded || ended.Result.Text != want.Text {
			t.Errorf("job %s: %s %+v, alone %q", job.ID, ended.State, ended.Result, want.Text)
		}
	}
}

// TestPageBytes checks how memory for keys and values follows from the worker's.
func TestPageBytes(t *testing.T) {
	t.Parallel()
	f := lm.Footprint{Weights: 1000, Batcher: 100, Page: 10, Context: 10 * lm.PageTokens}
	for _, tt := range []struct {
		total, want int64
	}{
		{1 << 20, together * 100}, // all that could be used
		{1600, 200},               // half of what the weights and jobs leave
		{1280, 100},               // one whole context
		{1200, 20},                // less: what there is
		{1000, 10},                // none at all: a page, for which the job will be refused
	} {
		if got := pageBytes(f, tt.total); got != tt.want {
			t.Errorf("%d bytes of %d for keys and values, want %d", got, tt.total, tt.want)
		}
	}
}

// TestTextBeyondTheMemory checks that a text which the worker has no memory for is
// refused with the figures.
func TestTextBeyondTheMemory(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	b, err := g.hub.Bundle("plain")
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.profile(b)
	if err != nil {
		t.Fatal(err)
	}
	f := p.footprint
	g.memory = generators.NewMemory((f.Weights + f.Batcher + 3*f.Page) * reservedShare / (reservedShare - 1))
	t.Cleanup(g.memory.Close)
	if w, _ := generate(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "Short", "max_tokens": 20})); w.Text == "" {
		t.Error("no text")
	}
	problem := problemOf(t, g, jobOf(t, taskComplete, "plain", object{"prompt": "Long", "max_tokens": 100}))
	if problem.Code != "model_too_large" || !strings.Contains(problem.Detail, "104") || !strings.Contains(problem.Detail, "96") {
		t.Errorf("problem %v, want one with 104 tokens and room for 96", problem)
	}
}

// BenchmarkTogether measures what a worker of default settings writes, end to end, with
// the embedded model and so many jobs at once.
func BenchmarkTogether(b *testing.B) {
	h, err := hub.Open(hub.Config{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := h.Bundle(defaultModel); err != nil {
		b.Skip("this build embeds no ", defaultModel)
	}
	for _, clients := range []int{1, 4, together} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			pool := tensor.NewPool(tensor.Config{})
			defer pool.Close()
			memory := generators.NewMemory(2 << 30)
			defer memory.Close()
			g, err := New(Config{Hub: h, Pool: pool, Memory: memory})
			if err != nil {
				b.Fatal(err)
			}
			q, _, _ := startQueue(b)
			defer startWorkerOf(b, generators.Config{Queue: q, Generators: []generators.Generator{g}, Memory: memory})()
			var tokens, seed atomic.Int64
			write := func() {
				job := jobOf(b, taskComplete, defaultModel, object{"prompt": "Once upon a time", "max_tokens": 200, "temperature": 1})
				job.Seed = uint64(seed.Add(1))
				if err := q.Submit(b.Context(), job); err != nil {
					b.Error(err)
					return
				}
				ended, err := q.Wait(b.Context(), job.ID)
				if err != nil || ended.Result == nil {
					b.Error(err, ended.State)
					return
				}
				tokens.Add(int64(ended.Result.Usage.OutputTokens))
			}
			write()
			tokens.Store(0)
			for b.Loop() {
				var group sync.WaitGroup
				for range clients {
					group.Go(func() {
						for range 4 {
							write()
						}
					})
				}
				group.Wait()
			}
			b.ReportMetric(float64(tokens.Load())/b.Elapsed().Seconds(), "tok/s")
		})
	}
}

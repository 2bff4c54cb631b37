package generators

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"helicon/queue"
)

// Config describes a Worker. Queue, Generators and Memory are required.
type Config struct {
	Queue      *queue.Queue
	Generators []Generator // of different tasks
	Memory     *Memory     // shared with the generators
	Log        *slog.Logger
	Slots      int           // jobs of a modality at once; default what its generators say by Together, else 1
	Name       string        // unique among the workers of the queue; default from host and process
	Version    string        // of the program, for people
	Grace      time.Duration // given to running jobs when Run's context ends; default 8 s

	Metrics prometheus.Registerer // where what the worker counts is shown; nil: nowhere
	Tracer  trace.TracerProvider  // where the spans of attempts go; nil: nowhere
}

// validate lists every rule and returns the tasks by the generator that does them.
func (c Config) validate() (map[string]Generator, error) {
	switch {
	case c.Queue == nil:
		return nil, errors.New("generators: a worker needs a queue")
	case c.Memory == nil:
		return nil, errors.New("generators: a worker needs a memory budget")
	case c.Slots < 0 || c.Grace < 0:
		return nil, errors.New("generators: slots and grace cannot be negative")
	case !workerName.MatchString(c.Name):
		return nil, fmt.Errorf("generators: worker name %q: want 1 to 64 letters, digits, - or _", c.Name)
	}
	tasks := map[string]Generator{}
	for _, g := range c.Generators {
		for _, t := range g.Tasks() {
			if tasks[t.Name] != nil {
				return nil, fmt.Errorf("generators: two generators do the task %s", t.Name)
			}
			tasks[t.Name] = g
		}
	}
	if len(tasks) == 0 {
		return nil, errors.New("generators: a worker needs something to do")
	}
	return tasks, nil
}

var (
	workerName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	notInName  = regexp.MustCompile(`[^A-Za-z0-9_-]+`)
)

// Worker leases jobs and runs them.
type Worker struct {
	queue      *queue.Queue
	generators map[string]Generator // by task
	distinct   []Generator
	memory     *Memory
	log        *slog.Logger
	lanes      []lane
	id         string
	host       string
	version    string
	grace      time.Duration
	begun      time.Time
	metrics    *metrics
	tracer     trace.Tracer

	changed chan struct{} // of capacity one: what is advertised is out of date

	mu       sync.Mutex
	running  map[string]bool // ids of jobs
	draining bool
}

// writeMargin is what is left, after running jobs were told to stop, for writing
// what became of them.
const writeMargin = time.Second

// NewWorker returns a worker that does nothing yet.
func NewWorker(c Config) (*Worker, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	if c.Name == "" {
		short := host[:min(len(host), 32)]
		c.Name = fmt.Sprintf("%s-%d-%s", notInName.ReplaceAllString(short, "-"), os.Getpid(), strings.ToLower(rand.Text()[:4]))
	}
	tasks, err := c.validate()
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Tracer == nil {
		c.Tracer = noop.NewTracerProvider()
	}
	return &Worker{
		queue: c.Queue, generators: tasks, distinct: c.Generators, memory: c.Memory,
		log:   c.Log.With("worker", c.Name),
		lanes: lanes(tasks, c.Slots), id: c.Name, host: host, version: c.Version,
		grace: cmp.Or(c.Grace, 8*time.Second), begun: time.Now().UTC(),
		metrics: newMetrics(c.Metrics, c.Memory), tracer: c.Tracer.Tracer(tracing),
		changed: make(chan struct{}, 1), running: map[string]bool{},
	}, nil
}

// ID returns the name under which the worker is known to the queue.
func (w *Worker) ID() string { return w.id }

// lane is the jobs of one modality, which have slots of their own: many texts can be
// written in one batch while pictures are made one after the other, and a worker leases
// no more jobs than it can begin.
type lane struct {
	modality string
	slots    int // jobs at once
}

// lanes lists the modalities of tasks, sorted, each with the given slots or, if they
// are 0, as many as one of its generators can use.
func lanes(tasks map[string]Generator, slots int) []lane {
	most := map[string]int{}
	for task, g := range tasks {
		n := cmp.Or(slots, 1)
		if t, ok := g.(Together); ok && slots == 0 {
			n = max(n, t.Together())
		}
		modality, _, _ := strings.Cut(task, ".")
		most[modality] = max(most[modality], n)
	}
	all := make([]lane, 0, len(most))
	for _, modality := range slices.Sorted(maps.Keys(most)) {
		all = append(all, lane{modality, most[modality]})
	}
	return all
}

// modalities lists the modalities of the tasks, sorted.
func (w *Worker) modalities() []string {
	names := make([]string, len(w.lanes))
	for i, l := range w.lanes {
		names[i] = l.modality
	}
	return names
}

// slots is how many jobs can run at once.
func (w *Worker) slots() int {
	n := 0
	for _, l := range w.lanes {
		n += l.slots
	}
	return n
}

// Run leases and runs jobs until ctx ends. Then it takes no more, lets the running
// ones end within the grace period, hands back the others, and returns nil when
// everything it started has stopped. It may be called once.
func (w *Worker) Run(ctx context.Context) error {
	sources := make([]*queue.Source, len(w.lanes))
	for i, l := range w.lanes {
		source, err := w.queue.NewSource(ctx, w.id, l.modality)
		if err != nil {
			if ctx.Err() != nil {
				return nil // told to stop before it began
			}
			return fmt.Errorf("generators: worker %s: %w", w.id, err)
		}
		defer source.Close()
		sources[i] = source
	}
	writing, stopWriting := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWriting(errDraining)
	running, stopRunning := context.WithCancelCause(writing)
	announcing, withdraw := context.WithCancel(writing)
	var announcer sync.WaitGroup
	announcer.Go(func() { w.announce(announcing) })
	defer func() { withdraw(); announcer.Wait() }()

	jobs := make(chan struct{}) // closed when all have ended
	go func() {
		defer close(jobs)
		var leasing sync.WaitGroup
		for i, l := range w.lanes {
			leasing.Go(func() {
				w.leaseAll(contexts{accepting: ctx, running: running, writing: writing}, sources[i], l.slots)
			})
		}
		leasing.Wait()
	}()
	<-ctx.Done()
	w.drain()
	for _, step := range []struct {
		wait time.Duration
		then context.CancelCauseFunc
	}{{w.grace, stopRunning}, {writeMargin, stopWriting}} {
		select {
		case <-jobs:
		case <-time.After(step.wait):
			step.then(errDraining)
		}
	}
	select {
	case <-jobs:
		return nil
	case <-time.After(writeMargin / 2):
		return fmt.Errorf("generators: worker %s: jobs %s did not stop", w.id, strings.Join(w.runningJobs(), ", "))
	}
}

// leaseAll keeps the slots of a lane busy until the worker drains, and waits for the jobs.
func (w *Worker) leaseAll(ctx contexts, source *queue.Source, slots int) {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	free := make(chan struct{}, slots)
	var last string // the last error, to log it once
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.accepting.Done():
			return
		}
		lease, err := source.Next(ctx.accepting)
		if ctx.accepting.Err() != nil && lease == nil {
			return
		}
		if err != nil {
			<-free
			if err.Error() != last {
				w.log.Warn("no job can be leased", "err", err)
			}
			last = err.Error()
			pause(ctx.accepting, awayPause)
			continue
		}
		if last != "" {
			w.log.Info("jobs can be leased again")
			last = ""
		}
		jobs.Go(func() {
			defer func() { <-free }()
			w.serve(ctx, lease)
		})
	}
}

func (w *Worker) enter(job string) {
	w.mu.Lock()
	w.running[job] = true
	w.mu.Unlock()
	w.change()
}

func (w *Worker) leave(job string) {
	w.mu.Lock()
	delete(w.running, job)
	w.mu.Unlock()
	w.change()
}

func (w *Worker) drain() {
	w.mu.Lock()
	w.draining = true
	w.mu.Unlock()
	w.change()
}

func (w *Worker) runningJobs() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.running))
}

// change has the advertisement renewed.
func (w *Worker) change() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

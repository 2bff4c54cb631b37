package gateway

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"helicon/queue"
)

// directory remembers for a moment which tasks and workers there are.
type directory struct {
	queue *queue.Queue

	mu      sync.Mutex // held while reading, so that many misses read once
	current *listing
}

// listing is the tasks and workers at one time. It is never changed.
type listing struct {
	read    time.Time
	tasks   []*task
	workers []queue.Worker
	models  []*model // of all workers, by id
}

// fresh is how long a listing is good enough.
const fresh = time.Second

func newDirectory(q *queue.Queue) *directory {
	return &directory{queue: q, current: &listing{}}
}

// list returns the listing, at most a second old.
func (d *directory) list(ctx context.Context) (*listing, error) {
	return d.newer(ctx, time.Now().Add(-fresh))
}

// newer returns a listing that was read after the given time.
func (d *directory) newer(ctx context.Context, than time.Time) (*listing, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current.read.After(than) {
		return d.current, nil
	}
	next := &listing{read: time.Now()}
	tasks, err := d.queue.Tasks(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		next.tasks = append(next.tasks, d.current.compiled(t))
	}
	if next.workers, err = d.queue.Workers(ctx); err != nil {
		return nil, err
	}
	next.models = catalogue(next.workers)
	d.current = next
	return next, nil
}

// compiled returns the task with its schema, as compiled before if it is the same.
func (l *listing) compiled(t queue.Task) *task {
	if known := l.task(t.Name); known != nil && string(known.Schema) == string(t.Schema) {
		return &task{Task: t, schema: known.schema, err: known.err}
	}
	schema, err := compile(t)
	return &task{Task: t, schema: schema, err: err}
}

func (l *listing) task(name string) *task {
	for _, t := range l.tasks {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// task finds a task. One that is not listed is looked for anew, since its worker may
// just have come.
func (d *directory) task(ctx context.Context, name string) (*task, error) {
	asked := time.Now()
	l, err := d.list(ctx)
	if err == nil && l.task(name) == nil {
		l, err = d.newer(ctx, asked)
	}
	if err != nil {
		return nil, err
	}
	if t := l.task(name); t != nil {
		return t, nil
	}
	known := make([]string, len(l.tasks))
	for i, t := range l.tasks {
		known[i] = t.Name
	}
	if len(known) == 0 {
		return nil, queue.Problemf("unknown_task", "There is no task %q: no worker has been started yet.", name)
	}
	return nil, queue.Problemf("unknown_task", "There is no task %q. The tasks are %s.", name, strings.Join(known, ", "))
}

// checkModel reports a model that no live worker serves for the task. While no
// worker for the task is alive any name may be right, and the job waits.
func (d *directory) checkModel(ctx context.Context, task, model string) error {
	asked := time.Now()
	l, err := d.list(ctx)
	if err == nil && !l.serves(task, model) {
		l, err = d.newer(ctx, asked)
	}
	if err != nil || l.serves(task, model) {
		return err
	}
	known := l.serving(task)
	if len(known) == 0 {
		return nil
	}
	return &queue.Problem{
		Code:   "model_not_found",
		Detail: "No worker serves the model " + model + " for " + task + ". The models are " + strings.Join(known, ", ") + ".",
		Errors: []queue.FieldError{{Pointer: "/model", Detail: "want one of " + strings.Join(known, ", ")}},
	}
}

func (l *listing) serves(task, model string) bool { return slices.Contains(l.serving(task), model) }

// serving lists the ids of the models that live workers serve for a task.
func (l *listing) serving(task string) []string {
	var ids []string
	for _, m := range l.models {
		if slices.Contains(m.Tasks, task) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// model is a model as GET /v1/models shows it, to OpenAI's clients and ours.
type model struct {
	queue.Model
	Object  string   `json:"object"`
	OwnedBy string   `json:"owned_by"`
	Workers []string `json:"workers"` // ids of those that serve it
}

// catalogue joins the models of all workers, by id.
func catalogue(workers []queue.Worker) []*model {
	byID := map[string]*model{}
	list := []*model{}
	for _, w := range workers {
		for _, m := range w.Models {
			known := byID[m.ID]
			if known == nil {
				known = &model{Model: m, Object: "model", OwnedBy: "helicon"}
				known.Tasks = []string{} // a model may only change or steer others
				byID[m.ID] = known
				list = append(list, known)
			}
			known.Workers = append(known.Workers, w.ID)
			for _, t := range m.Tasks {
				if !slices.Contains(known.Tasks, t) {
					known.Tasks = append(known.Tasks, t)
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b *model) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// model finds a model by its id, or returns nil.
func (l *listing) model(id string) *model {
	for _, m := range l.models {
		if m.ID == id {
			return m
		}
	}
	return nil
}

package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Task is a kind of job that some worker can do.
type Task struct {
	Name        string          `json:"name"` // <modality>.<verb>
	Title       string          `json:"title"`
	Description string          `json:"description"`
	Schema      json.RawMessage `json:"schema"`          // JSON Schema (2020-12) of the input
	Model       string          `json:"model,omitempty"` // used when a job names none
}

// Model is a neural network that a worker can serve.
type Model struct {
	ID           string   `json:"id"`
	Tasks        []string `json:"tasks"`
	Architecture string   `json:"architecture"`
	Parameters   int64    `json:"parameters,omitempty"` // count of weights
	Context      int      `json:"context,omitempty"`    // tokens
	Bytes        int64    `json:"bytes"`                // of the weight files
	Digest       string   `json:"digest"`               // sha256:… of the bundle's files
	Licence      string   `json:"licence,omitempty"`
	Source       string   `json:"source"`  // embedded, or the folder it was found in
	Created      int64    `json:"created"` // Unix seconds
}

// Worker is a process that runs jobs, as it last described itself.
type Worker struct {
	ID         string    `json:"id"`
	Host       string    `json:"host"`
	PID        int       `json:"pid"`
	Version    string    `json:"version"`
	Started    time.Time `json:"started"`
	Modalities []string  `json:"modalities"`
	Slots      int       `json:"slots"`   // jobs it runs at once
	Running    []string  `json:"running"` // ids of the jobs it runs now
	Memory     int64     `json:"memory"`  // bytes that models and jobs may take
	MemoryUsed int64     `json:"memory_used"`
	Draining   bool      `json:"draining"`
	Tasks      []Task    `json:"tasks"`
	Models     []Model   `json:"models"`
}

// Advertise makes a worker known until its TTL ends; call it again well before.
func (q *Queue) Advertise(ctx context.Context, w Worker) error {
	if err := q.connected(); err != nil {
		return err
	}
	if err := put(ctx, q.workers, w.ID, w); err != nil {
		return fmt.Errorf("queue: advertise: %w", q.explain(err))
	}
	return nil
}

// Withdraw makes a worker unknown at once.
func (q *Queue) Withdraw(ctx context.Context, worker string) error {
	if err := q.connected(); err != nil {
		return err
	}
	if err := q.workers.Delete(ctx, worker); err != nil {
		return fmt.Errorf("queue: withdraw: %w", q.explain(err))
	}
	return nil
}

// Workers lists the workers that are alive, by id.
func (q *Queue) Workers(ctx context.Context) ([]Worker, error) {
	return list(ctx, q, q.workers, func(a, b Worker) bool { return a.ID < b.ID })
}

// Define records tasks for good, so that jobs can be validated and accepted while
// no worker happens to be there.
func (q *Queue) Define(ctx context.Context, tasks []Task) error {
	if err := q.connected(); err != nil {
		return err
	}
	for _, t := range tasks {
		if err := put(ctx, q.tasks, t.Name, t); err != nil {
			return fmt.Errorf("queue: define %s: %w", t.Name, q.explain(err))
		}
	}
	return nil
}

// Tasks lists every task that was ever defined, by name.
func (q *Queue) Tasks(ctx context.Context) ([]Task, error) {
	return list(ctx, q, q.tasks, func(a, b Task) bool { return a.Name < b.Name })
}

func put(ctx context.Context, kv jetstream.KeyValue, name string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = kv.Put(ctx, name, body)
	return err
}

// list reads all values of a bucket. It asks the bucket's stream for its subjects:
// KeyValue.Keys waits for ever for a key that expires while it listens.
func list[T any](ctx context.Context, q *Queue, kv bucket, less func(a, b T) bool) ([]T, error) {
	if err := q.connected(); err != nil {
		return nil, err
	}
	prefix := "$KV." + kv.Bucket() + "."
	info, err := kv.stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, fmt.Errorf("queue: list %s: %w", kv.Bucket(), q.explain(err))
	}
	values := make([]T, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		k := strings.TrimPrefix(subject, prefix)
		entry, err := kv.Get(ctx, k)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue // gone since the keys were listed
		}
		if err != nil {
			return nil, fmt.Errorf("queue: list %s: %w", kv.Bucket(), q.explain(err))
		}
		var v T
		if err := json.Unmarshal(entry.Value(), &v); err != nil {
			return nil, fmt.Errorf("queue: %s %s: %w", kv.Bucket(), k, err)
		}
		values = append(values, v)
	}
	sort.Slice(values, func(i, j int) bool { return less(values[i], values[j]) })
	return values, nil
}

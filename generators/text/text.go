// Package text writes text: it makes the results of the tasks text.complete, text.chat
// and text.embed with the language models of package lm.
//
// Jobs on the same model are written together, in one batch. The same job gives the same
// text, whatever the number of threads, whatever else is in the batch and whoever
// watches: the first answer is drawn from the job's seed, and answer k from one that
// follows from the seed and k.
package text

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"helicon/generators"
	"helicon/models/hub"
	"helicon/models/lm/family"
	"helicon/models/sample/grammar"
	"helicon/models/tensor"
	"helicon/queue"
)

// The tasks of this package.
const (
	taskComplete = "text.complete"
	taskChat     = "text.chat"
	taskEmbed    = "text.embed"
)

//go:embed schemas
var schemas embed.FS

// Config describes a Generator. Hub and Memory are required.
type Config struct {
	Hub    *hub.Hub
	Memory *generators.Memory // where models stay loaded; the worker's
	Pool   *tensor.Pool       // nil: compute on one thread
	Model  string             // used when a job names none; default helicon-text, else the first usable one
	Log    *slog.Logger
}

// defaultModel is the embedded one.
const defaultModel = "helicon-text"

// Generator implements generators.Generator for text.
type Generator struct {
	hub    *hub.Hub
	memory *generators.Memory
	pool   *tensor.Pool
	log    *slog.Logger
	model  string
	tasks  []queue.Task // without Model

	mu       sync.Mutex
	profiles map[string]*profile         // by model
	grammars map[string]*grammar.Grammar // that jobs asked for lately
}

// New returns a Generator. It loads no model.
func New(c Config) (*Generator, error) {
	if c.Hub == nil || c.Memory == nil {
		return nil, errors.New("text: a hub and a memory budget are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	g := &Generator{hub: c.Hub, memory: c.Memory, pool: c.Pool, log: c.Log, model: c.Model, profiles: map[string]*profile{}, grammars: map[string]*grammar.Grammar{}}
	for _, t := range []queue.Task{
		{Name: taskComplete, Title: "Continue a text", Description: "Writes on where the prompt ends."},
		{Name: taskChat, Title: "Chat", Description: "Answers the last message of a conversation."},
		{Name: taskEmbed, Title: "Embed", Description: "Turns texts into vectors that show which are alike."},
	} {
		schema, err := schemas.ReadFile("schemas/" + strings.TrimPrefix(t.Name, "text.") + ".json")
		if err != nil {
			return nil, fmt.Errorf("text: %w", err)
		}
		t.Schema = schema
		g.tasks = append(g.tasks, t)
	}
	return g, nil
}

// Tasks implements generators.Generator.
func (g *Generator) Tasks() []queue.Task {
	tasks := slices.Clone(g.tasks)
	for i := range tasks {
		tasks[i].Model = g.defaultModel(tasks[i].Name)
	}
	return tasks
}

// Models implements generators.Generator. New folders are found on the way.
func (g *Generator) Models() []queue.Model {
	if err := g.hub.Rescan(); err != nil {
		g.log.Warn("the models folder cannot be read", "err", err)
	}
	models := []queue.Model{}
	for _, b := range g.hub.Bundles() {
		tasks := g.tasksOf(b)
		if tasks == nil {
			continue
		}
		m := queue.Model{
			ID: b.ID, Tasks: tasks, Architecture: b.Architectures[0], Parameters: b.Parameters, Context: b.Context,
			Bytes: b.Bytes, Digest: b.KnownDigest(), Licence: b.Licence, Source: b.Source,
		}
		if !b.Created.IsZero() {
			m.Created = b.Created.Unix()
		}
		models = append(models, m)
	}
	return models
}

// tasksOf lists the tasks that a bundle can be used for, nil if it is none of ours.
func (g *Generator) tasksOf(b *hub.Bundle) []string {
	if !supported(b) {
		return nil
	}
	p, err := g.profile(b)
	switch {
	case err != nil:
		return nil
	case p.chatErr == nil:
		return []string{taskComplete, taskChat, taskEmbed}
	}
	return []string{taskComplete, taskEmbed}
}

// supported reports whether a bundle is a sound language model.
func supported(b *hub.Bundle) bool {
	return b.Problem == nil && slices.ContainsFunc(b.Architectures, func(name string) bool {
		return slices.Contains(family.Architectures(), name)
	})
}

// defaultModel returns the id of the model for jobs of the task that name none, ""
// if there is none.
func (g *Generator) defaultModel(task string) string {
	var first string
	for _, b := range g.hub.Bundles() {
		if !slices.Contains(g.tasksOf(b), task) {
			continue
		}
		if b.ID == g.model || g.model == "" && b.ID == defaultModel {
			return b.ID
		}
		if first == "" {
			first = b.ID
		}
	}
	return first
}

// bundle returns the bundle that a job runs on.
func (g *Generator) bundle(job *queue.Job) (*hub.Bundle, error) {
	id := job.Model
	if id == "" {
		if id = g.defaultModel(job.Task); id == "" {
			return nil, queue.Problemf("model_not_found", "The worker has no model for the task %s.", job.Task)
		}
	}
	b, err := g.hub.Bundle(id)
	if errors.Is(err, hub.ErrNotFound) {
		if err := g.hub.Rescan(); err != nil {
			return nil, fmt.Errorf("text: %w", err)
		}
		b, err = g.hub.Bundle(id)
	}
	switch {
	case errors.Is(err, hub.ErrNotFound):
		return nil, &queue.Problem{
			Code: "model_not_found", Detail: fmt.Sprintf("There is no model %q.", id),
			Errors: []queue.FieldError{{Pointer: "/model", Detail: "no such model"}},
		}
	case err != nil:
		return nil, fmt.Errorf("text: %w", err)
	case b.Problem != nil:
		return nil, unusable(b, b.Problem)
	case !supported(b):
		return nil, unusable(b, unsupported(b))
	}
	return b, nil
}

// unsupported says that a sound bundle is no language model of ours.
func unsupported(b *hub.Bundle) error {
	return fmt.Errorf("there is no network for its architecture, %s", strings.Join(b.Architectures, ", "))
}

// unusable is the problem of a job whose model cannot be loaded.
func unusable(b *hub.Bundle, err error) *queue.Problem {
	return &queue.Problem{
		Code: "model_unusable", Detail: fmt.Sprintf("The model %s cannot be used: %v.", b.ID, err),
		Errors: []queue.FieldError{{Pointer: "/model", Detail: "cannot be used"}},
	}
}

// Estimate implements generators.Generator. The number of the prompt's tokens is not
// known yet; its bytes are never fewer.
func (g *Generator) Estimate(job *queue.Job) (generators.Need, error) {
	if job.Task == taskEmbed {
		r, err := g.embedRequest(job)
		if err != nil {
			return generators.Need{}, err
		}
		return g.embedNeed(r)
	}
	r, err := g.request(job)
	if err != nil {
		return generators.Need{}, err
	}
	return g.need(r)
}

// Generate implements generators.Generator.
func (g *Generator) Generate(ctx context.Context, job *queue.Job, _ []*queue.Job, out generators.Output) (*queue.Result, error) {
	if job.Task == taskEmbed {
		return g.embed(ctx, job, out)
	}
	r, err := g.request(job)
	if err != nil {
		return nil, err
	}
	need, err := g.need(r)
	if err != nil {
		return nil, err
	}
	e, done, err := generators.Use(ctx, g.memory, need.Model, func(ctx context.Context) (*engine, error) {
		return g.load(ctx, r.bundle)
	})
	if err != nil {
		return nil, err
	}
	defer done()
	if r.params.Beams != nil {
		return e.search(ctx, r, out)
	}
	if r.form, err = g.withTools(e, &r.input, r.form); err != nil {
		return nil, err
	}
	return e.write(ctx, r, out)
}

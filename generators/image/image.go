// Package image makes pictures: the results of the tasks image.generate, image.edit,
// image.inpaint and image.variation with the diffusion models of package diffusion, of
// image.upscale with the networks of package upscale or by Lanczos interpolation, and of
// image.adjust without a model.
//
// The same job gives the same files, byte for byte, whatever the number of threads. Of n
// pictures the first has the job's seed and each other the seed before it and one more, so
// that every one of them can be made again alone; its file says by what.
package image

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"helicon/generators"
	"helicon/generators/media"
	"helicon/models/hub"
	"helicon/models/tensor"
	"helicon/queue"
)

// The tasks of this package.
const (
	taskGenerate  = "image.generate"
	taskEdit      = "image.edit"
	taskInpaint   = "image.inpaint"
	taskVariation = "image.variation"
	taskUpscale   = "image.upscale"
	taskAdjust    = "image.adjust"
)

//go:embed schemas
var schemas embed.FS

// Artifacts is where pictures that jobs name are read from; a *queue.Queue is it.
type Artifacts interface {
	// Artifact opens what a tenant has stored; queue.ErrNoArtifact if there is nothing.
	Artifact(ctx context.Context, tenant, digest string) (queue.Artifact, io.ReadSeekCloser, error)
}

// Config describes a Generator. Hub, Memory and Artifacts are required.
type Config struct {
	Hub       *hub.Hub
	Memory    *generators.Memory // where models stay loaded; the worker's
	Artifacts Artifacts
	Pool      *tensor.Pool // nil: compute on one thread
	Compute   tensor.DType // type that networks are computed in; 0 as their weights are stored
	Model     string       // used when a job names none; default helicon-stickers, else the first usable one
	Log       *slog.Logger
}

// The embedded models, and the way of enlarging that needs none.
const (
	defaultModel    = "helicon-stickers"
	defaultUpscaler = "helicon-upscale"
	lanczos         = "lanczos"
)

// Generator implements generators.Generator for pictures.
type Generator struct {
	hub       *hub.Hub
	memory    *generators.Memory
	artifacts Artifacts
	pool      *tensor.Pool
	compute   tensor.DType
	preferred string // model of jobs that name none
	log       *slog.Logger
	tasks     []queue.Task // without Model
	schemas   map[string]*jsonschema.Schema

	mu       sync.Mutex
	profiles map[string]*profile // by model
}

// New returns a Generator. It loads no model.
func New(c Config) (*Generator, error) {
	if c.Hub == nil || c.Memory == nil || c.Artifacts == nil {
		return nil, errors.New("image: a hub, a memory budget and artifacts are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	g := &Generator{
		hub: c.Hub, memory: c.Memory, artifacts: c.Artifacts, pool: c.Pool, compute: c.Compute, preferred: c.Model, log: c.Log,
		schemas: map[string]*jsonschema.Schema{}, profiles: map[string]*profile{},
	}
	for _, t := range []queue.Task{
		{Name: taskGenerate, Title: "Make pictures", Description: "Makes pictures from a prompt."},
		{Name: taskEdit, Title: "Change a picture", Description: "Makes pictures after another one and a prompt."},
		{Name: taskInpaint, Title: "Repaint a part", Description: "Makes a part of a picture anew, or extends it."},
		{Name: taskVariation, Title: "Vary a picture", Description: "Makes pictures that are like another one."},
		{Name: taskUpscale, Title: "Enlarge a picture", Description: "Makes a picture larger and restores detail."},
		{Name: taskAdjust, Title: "Adjust a picture", Description: "Cuts, turns, resizes and colours a picture."},
	} {
		schema, err := schemas.ReadFile("schemas/" + strings.TrimPrefix(t.Name, "image.") + ".json")
		if err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		t.Schema = schema
		g.tasks = append(g.tasks, t)
		if g.schemas[t.Name], err = compile(schema); err != nil {
			return nil, fmt.Errorf("image: schema of %s: %w", t.Name, err)
		}
	}
	return g, nil
}

// Tasks implements generators.Generator. All tasks exist without a model: what needs one
// says so when it is asked for.
func (g *Generator) Tasks() []queue.Task {
	tasks := slices.Clone(g.tasks)
	for i := range tasks {
		tasks[i].Model = g.defaultModel(tasks[i].Name)
	}
	return tasks
}

// Models implements generators.Generator. New folders are found on the way. Models that
// only change or steer others have no tasks of their own.
func (g *Generator) Models() []queue.Model {
	if err := g.hub.Rescan(); err != nil {
		g.log.Warn("the models folder cannot be read", "err", err)
	}
	models := []queue.Model{{
		ID: lanczos, Tasks: []string{taskUpscale}, Architecture: "Lanczos", Source: hub.Embedded,
	}}
	for _, b := range g.hub.Bundles() {
		p := g.profile(b)
		if p == nil || p.err != nil {
			continue
		}
		m := queue.Model{
			ID: b.ID, Tasks: p.tasks(), Architecture: b.Architectures[0], Parameters: b.Parameters,
			Bytes: b.Bytes, Digest: b.KnownDigest(), Licence: b.Licence, Source: b.Source,
		}
		if !b.Created.IsZero() {
			m.Created = b.Created.Unix()
		}
		models = append(models, m)
	}
	return models
}

// defaultModel returns the id of the model for jobs of the task that name none, "" if
// there is none.
func (g *Generator) defaultModel(task string) string {
	var first string
	for _, b := range g.hub.Bundles() {
		p := g.profile(b)
		if p == nil || p.err != nil || !slices.Contains(p.tasks(), task) {
			continue
		}
		if b.ID == g.preferred || b.ID == defaultUpscaler || g.preferred == "" && b.ID == defaultModel {
			return b.ID
		}
		if first == "" {
			first = b.ID
		}
	}
	if first == "" && task == taskUpscale {
		return lanczos
	}
	return first
}

// bundle returns the model of a job by its id, as a profile that can do the task.
func (g *Generator) bundle(id, task string) (*profile, error) {
	if id == "" {
		if id = g.defaultModel(task); id == "" {
			return nil, queue.Problemf("model_not_found", "There is no model for pictures on this worker. Add one to its models folder: a Stable Diffusion, SDXL, SD3, Flux or PixArt model as a folder of diffusers or as a single .safetensors or .gguf file.")
		}
	}
	b, err := g.find(id, "/model")
	if err != nil {
		return nil, err
	}
	p := g.profile(b)
	switch {
	case b.Problem != nil:
		return nil, unusable(b.ID, "/model", b.Problem)
	case p == nil:
		return nil, unusable(b.ID, "/model", fmt.Errorf("it makes no pictures: its architecture is %s", strings.Join(b.Architectures, ", ")))
	case p.err != nil:
		return nil, unusable(b.ID, "/model", p.err)
	case !slices.Contains(p.tasks(), task):
		return nil, unusable(b.ID, "/model", fmt.Errorf("it does not do %s; it is %s", task, p.role))
	}
	return p, nil
}

// find returns the bundle with an id, which the input has at pointer.
func (g *Generator) find(id, pointer string) (*hub.Bundle, error) {
	b, err := g.hub.Bundle(id)
	if errors.Is(err, hub.ErrNotFound) {
		if err := g.hub.Rescan(); err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		b, err = g.hub.Bundle(id)
	}
	if errors.Is(err, hub.ErrNotFound) {
		return nil, &queue.Problem{
			Code: "model_not_found", Detail: fmt.Sprintf("There is no model %q.", id),
			Errors: []queue.FieldError{{Pointer: pointer, Detail: "no such model"}},
		}
	}
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return b, nil
}

// unusable is the problem of a job that names a model which cannot be used for it.
func unusable(id, pointer string, err error) *queue.Problem {
	return &queue.Problem{
		Code: "model_unusable", Detail: fmt.Sprintf("The model %s cannot be used: %v.", id, err),
		Errors: []queue.FieldError{{Pointer: pointer, Detail: "cannot be used"}},
	}
}

// Estimate implements generators.Generator.
func (g *Generator) Estimate(job *queue.Job) (generators.Need, error) {
	r, err := g.request(job)
	if err != nil {
		return generators.Need{}, err
	}
	return g.need(r)
}

// inputMemory is what reading a picture takes at most, with the copy that is worked on.
const inputMemory = media.MaxMemory + 4*media.MaxPixels

// need estimates the memory of a request. How large the pictures are that it names is not
// known before they are read: they are given the most that they may take, but never more
// than half of the worker's memory, for most are far smaller.
func (g *Generator) need(r *request) (generators.Need, error) {
	need := generators.Need{}
	if r.takesPicture() {
		need.Memory = min(inputMemory, g.memory.Total()/2)
	}
	switch {
	case r.job.Task == taskAdjust:
		return need, nil
	case r.model == nil: // lanczos
		need.Model.Key = lanczos
		return need, nil
	case r.job.Task == taskUpscale:
		return g.upscaleNeed(r, need)
	}
	return g.paintNeed(r, need)
}

// Generate implements generators.Generator.
func (g *Generator) Generate(ctx context.Context, job *queue.Job, needs []*queue.Job, out generators.Output) (*queue.Result, error) {
	r, err := g.request(job)
	if err != nil {
		return nil, err
	}
	s := &studio{Generator: g, request: r, needs: needs, out: out}
	switch job.Task {
	case taskAdjust:
		return s.adjust(ctx)
	case taskUpscale:
		return s.upscale(ctx)
	}
	return s.paint(ctx)
}

// studio is one job at work.
type studio struct {
	*Generator
	*request
	needs []*queue.Job
	out   generators.Output
}

package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"math"
	"strings"
	"time"

	"helicon/generators"
	"helicon/generators/media"
	"helicon/models/diffusion"
	"helicon/models/hub"
	"helicon/models/weights"
	"helicon/queue"
)

// engine is a loaded pipeline. It is shared by jobs.
type engine struct {
	*diffusion.Pipeline
	digest string // of the model's files
}

// options are what the request's pipeline is loaded with.
func (g *Generator) options(r *request) (diffusion.Options, error) {
	o := diffusion.Options{Pool: g.pool, Compute: g.compute}
	for i, b := range r.loras {
		name, err := weightsFile(b.Files)
		if err != nil {
			return o, unusable(b.ID, fmt.Sprintf("/input/loras/%d/model", i), err)
		}
		o.LoRAs = append(o.LoRAs, diffusion.LoRA{Files: b.Files, Name: name, Weight: float32(value(r.input.LoRAs[i].Weight, 1))})
	}
	for i, b := range r.embeddings {
		name, err := weightsFile(b.Files)
		if err != nil {
			return o, unusable(b.ID, fmt.Sprintf("/input/embeddings/%d", i), err)
		}
		o.Embeddings = append(o.Embeddings, diffusion.Embedding{Files: b.Files, Name: name})
	}
	if r.tinyVAE != nil {
		o.TinyVAE = r.tinyVAE.Files
	}
	if r.control != nil {
		o.ControlNet = r.control.Files
	}
	return o, nil
}

// key names the pipeline with all that it is loaded with.
func (r *request) key() string {
	key := r.model.bundle.ID
	for i, b := range r.loras {
		key += fmt.Sprintf(" + %s × %g", b.ID, value(r.input.LoRAs[i].Weight, 1))
	}
	for _, b := range r.embeddings {
		key += " + " + b.ID
	}
	for _, b := range []*hub.Bundle{r.tinyVAE, r.control} {
		if b != nil {
			key += " + " + b.ID
		}
	}
	return key
}

// paintNeed adds what the model takes to a need, and what one picture does.
func (g *Generator) paintNeed(r *request, need generators.Need) (generators.Need, error) {
	o, err := g.options(r)
	if err != nil {
		return need, err
	}
	f, err := diffusion.Estimate(r.model.bundle.Files, o)
	if err != nil {
		return need, unusable(r.model.bundle.ID, "/model", err)
	}
	width, height := whole(r.input.Width, f.Width), whole(r.input.Height, f.Height)
	if h := r.input.Hires; h != nil {
		scale := value(h.Scale, defaultScale)
		width, height = int(float64(width)*scale), int(float64(height)*scale)
		if max(width, height) > maxHires {
			return need, invalid("/input/hires/scale", "the picture would be %d × %d pixels; at most %d a side are made", width, height, maxHires)
		}
	}
	const filePixels = 16 // bytes a pixel of the picture and of its file
	need.Memory += f.Work(width, height, 1) + int64(width)*int64(height)*filePixels
	need.Model = generators.Footprint{Key: r.key(), ID: r.model.bundle.ID, Bytes: f.Weights}
	return need, nil
}

const (
	defaultScale = 2    // of hires
	maxHires     = 4096 // pixels a side
)

// load loads the pipeline of a request. What is wrong with its files is a *queue.Problem.
func (g *Generator) load(ctx context.Context, r *request) (*engine, error) {
	o, err := g.options(r)
	if err != nil {
		return nil, err
	}
	b := r.model.bundle
	digest, err := b.Digest(ctx)
	if err != nil {
		return nil, err
	}
	p, err := diffusion.Load(ctx, b.Files, o)
	switch {
	case err == nil:
		return &engine{p, digest}, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	if added := r.added(); len(added) > 0 { // one of them may be what is wrong
		return nil, misfits(b.ID, added, err)
	}
	if errors.Is(err, weights.ErrFormat) || errors.Is(err, weights.ErrMissing) || errors.Is(err, weights.ErrShape) {
		g.reject(b, err)
	}
	return nil, unusable(b.ID, "/model", err)
}

// addition is what a request adds to its model, and where its input names it.
type addition struct{ id, pointer string }

// added lists what the request adds to its model.
func (r *request) added() []addition {
	var all []addition
	for i, b := range r.loras {
		all = append(all, addition{b.ID, fmt.Sprintf("/input/loras/%d/model", i)})
	}
	for i, b := range r.embeddings {
		all = append(all, addition{b.ID, fmt.Sprintf("/input/embeddings/%d", i)})
	}
	if r.tinyVAE != nil {
		all = append(all, addition{r.tinyVAE.ID, "/input/tiny_vae"})
	}
	if r.control != nil {
		all = append(all, addition{r.control.ID, "/input/control/model"})
	}
	return all
}

// misfits is the problem of a model that cannot be loaded with what is added to it.
func misfits(id string, added []addition, err error) *queue.Problem {
	p := &queue.Problem{Code: "model_unusable"}
	names := make([]string, len(added))
	for i, a := range added {
		names[i] = a.id
		p.Errors = append(p.Errors, queue.FieldError{Pointer: a.pointer, Detail: "cannot be used with this model"})
	}
	p.Detail = fmt.Sprintf("The model %s cannot be used with %s: %v.", id, strings.Join(names, ", "), err)
	return p
}

// paint makes the pictures of a job.
func (s *studio) paint(ctx context.Context) (*queue.Result, error) {
	need, err := s.paintNeed(s.request, generators.Need{})
	if err != nil {
		return nil, err
	}
	e, done, err := generators.Use(ctx, s.memory, need.Model, func(ctx context.Context) (*engine, error) {
		return s.load(ctx, s.request)
	})
	if err != nil {
		return nil, err
	}
	defer done()
	begun := time.Now()
	easel, err := s.prepare(ctx, e.Info())
	if err != nil {
		return nil, err
	}
	result := &queue.Result{}
	made := meta{Model: s.model.bundle.ID, Digest: e.digest, Parameters: s.input}
	for k := range whole(s.input.N, 1) {
		easel.Seed = (s.job.Seed + uint64(k)) % (queue.MaxSeed + 1)
		easel.Observe = s.observer(k, whole(s.input.N, 1))
		p, err := e.Generate(ctx, easel.Request)
		if err != nil {
			return nil, s.explain(ctx, err)
		}
		final := p.Image
		if easel.repaint != nil {
			final = easel.repaint.merge(final)
		}
		stored, err := s.store(ctx, final, s.provenance(easel.Seed, e.digest))
		if err != nil {
			return nil, err
		}
		result.Artifacts = append(result.Artifacts, stored)
		made.Seeds = append(made.Seeds, easel.Seed)
		if p.NSFW != nil {
			made.NSFW = append(made.NSFW, *p.NSFW)
		}
	}
	result.Usage = &queue.Usage{ComputeSeconds: time.Since(begun).Seconds()}
	if result.Meta, err = json.Marshal(made); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return result, nil
}

// meta is what a result tells beside its artifacts.
type meta struct {
	Model      string   `json:"model,omitempty"`
	Digest     string   `json:"digest,omitempty"`
	Parameters input    `json:"parameters"` // as used
	Seeds      []uint64 `json:"seeds,omitempty"`
	NSFW       []bool   `json:"nsfw,omitempty"` // whether the model's safety checker blackened the picture
}

// leastGuidance stands for none: in a request to a pipeline 0 is what suits the model.
const leastGuidance = 1e-6

// easel is a request to a pipeline, and what is done with its picture.
type easel struct {
	diffusion.Request
	repaint *repaint // nil: the picture is whole
}

// prepare reads the pictures of a job and decides what it left open, so that the input
// says from then on all that was used.
func (s *studio) prepare(ctx context.Context, info diffusion.Info) (*easel, error) {
	in := &s.input
	if err := s.checkAbilities(info); err != nil {
		return nil, err
	}
	e := &easel{}
	if s.job.Task != taskGenerate {
		from, err := s.source(ctx)
		if err != nil {
			return nil, err
		}
		task := s.job.Task
		if task == taskEdit && in.MaskMode == byTransparent && !from.Opaque() {
			task = taskInpaint
		}
		if task == taskInpaint {
			if e.repaint, err = s.repaint(ctx, from); err != nil {
				return nil, err
			}
			e.Mask, from.NRGBA = e.repaint.mask, e.repaint.canvas
		}
		from.NRGBA = media.Flatten(from.NRGBA, white())
		e.Init = from.NRGBA
		strength := map[string]float64{taskEdit: 0.75, taskInpaint: 1, taskVariation: 0.6}[task]
		in.Strength = pointer(value(in.Strength, strength))
		e.Strength = float32(*in.Strength)
		s.size(info, from.NRGBA)
	} else {
		s.size(info, nil)
	}
	if c := in.Control; c != nil {
		p, err := s.read(ctx, c.Image, "/input/control/image")
		if err != nil {
			return nil, err
		}
		e.Control, e.ControlScale = media.Flatten(p.NRGBA, white()), float32(value(c.Scale, 1))
	}
	if h := in.Hires; h != nil {
		e.Hires = &diffusion.Hires{Scale: float32(value(h.Scale, defaultScale)), Steps: whole(h.Steps, 0), Strength: float32(value(h.Strength, 0.7))}
	}
	in.Steps, in.Effort = pointer(value(in.Steps, effort(info.Steps, in.Effort))), ""
	in.Guidance = pointer(value(in.Guidance, float64(info.Guidance)))
	if in.Scheduler == "" {
		in.Scheduler = info.Scheduler
	}
	e.Prompt, e.Negative, e.Scheduler = in.Prompt, in.Negative, in.Scheduler
	e.Width, e.Height, e.Steps = whole(in.Width, 0), whole(in.Height, 0), whole(in.Steps, 0)
	e.Guidance, e.GuidanceRescale = max(float32(*in.Guidance), leastGuidance), float32(value(in.GuidanceRescale, 0))
	e.ClipSkip = whole(in.ClipSkip, 0)
	return e, nil
}

// effort is how many steps are made of those that suit the model.
func effort(steps int, effort string) float64 {
	switch effort {
	case "low":
		return math.Ceil(float64(steps) / 2)
	case "high":
		return math.Ceil(float64(steps) * 3 / 2)
	}
	return float64(steps)
}

func pointer(v float64) *float64 { return &v }

// size decides the size that the model works at.
func (s *studio) size(info diffusion.Info, from *image.NRGBA) {
	multiple := info.Multiple
	if info.Width%step == 0 && info.Height%step == 0 { // all but the tiniest models
		multiple = max(multiple, step)
	}
	width, height := s.input.sized(image.Pt(info.Width, info.Height), multiple, from)
	s.input.Width, s.input.Height = pointer(float64(width)), pointer(float64(height))
}

// checkAbilities refuses what the model has no part for.
func (s *studio) checkAbilities(info diffusion.Info) error {
	cannot := func(can bool, what string) error {
		if can {
			return nil
		}
		return unusable(s.model.bundle.ID, "/model", errors.New(what))
	}
	switch {
	case s.job.Task == taskInpaint && !info.Inpaint:
		return cannot(false, "it cannot make a part of a picture anew")
	case s.job.Task == taskEdit || s.job.Task == taskVariation:
		return cannot(info.Edit, "it makes pictures from prompts alone")
	case s.input.ClipSkip != nil && *s.input.ClipSkip > 0 && !info.ClipSkip:
		return invalid("/input/clip_skip", "the model %s has no text encoder that layers could be left out of", s.model.bundle.ID)
	}
	return nil
}

// repaint reads the mask of a picture.
func (s *studio) repaint(ctx context.Context, from *picture) (*repaint, error) {
	if s.input.Mask == "" {
		return newRepaint(&s.input, from.NRGBA, nil)
	}
	mask, err := s.read(ctx, s.input.Mask, "/input/mask")
	if err != nil {
		return nil, err
	}
	return newRepaint(&s.input, from.NRGBA, mask.NRGBA)
}

// explain tells an error of the pipeline as one about the job, where it is.
func (s *studio) explain(ctx context.Context, err error) error {
	var wrong *diffusion.RequestError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &wrong):
		name, ok := map[string]string{
			"Negative": "negative_prompt", "ClipSkip": "clip_skip", "GuidanceRescale": "guidance_rescale", "Init": "image",
			"ControlScale": "control/scale", "Control": "control", "Hires.Scale": "hires/scale", "Hires.Steps": "hires/steps", "Hires.Strength": "hires/strength",
		}[wrong.Field]
		if !ok {
			name = strings.ToLower(wrong.Field)
		}
		return invalid("/input/"+name, "%s", wrong.Reason)
	case errors.Is(err, diffusion.ErrUnsupported):
		return unusable(s.model.bundle.ID, "/model", err)
	}
	return fmt.Errorf("image: %w", err)
}

package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"helicon/models/hub"
	"helicon/queue"
)

// input is what the tasks take, each its part by its schema. What was left out is nil or
// empty. Numbers are as JSON has them: the schemas see to it that they are whole where they
// have to be.
type input struct {
	Prompt          string   `json:"prompt,omitempty"`
	Negative        string   `json:"negative_prompt,omitempty"`
	Width           *float64 `json:"width,omitempty"`
	Height          *float64 `json:"height,omitempty"`
	N               *float64 `json:"n,omitempty"`
	Steps           *float64 `json:"steps,omitempty"`
	Effort          string   `json:"effort,omitempty"`
	Guidance        *float64 `json:"guidance,omitempty"`
	GuidanceRescale *float64 `json:"guidance_rescale,omitempty"`
	Scheduler       string   `json:"scheduler,omitempty"`
	ClipSkip        *float64 `json:"clip_skip,omitempty"`
	Embeddings      []string `json:"embeddings,omitempty"`
	TinyVAE         string   `json:"tiny_vae,omitempty"`
	LoRAs           []lora   `json:"loras,omitempty"`
	Hires           *hires   `json:"hires,omitempty"`
	Control         *control `json:"control,omitempty"`

	Image    string   `json:"image,omitempty"`
	Strength *float64 `json:"strength,omitempty"`
	Mask     string   `json:"mask,omitempty"`
	MaskMode string   `json:"mask_mode,omitempty"`
	Feather  *float64 `json:"feather,omitempty"`
	Pad      *pad     `json:"pad,omitempty"`

	Scale      *float64    `json:"scale,omitempty"`
	Operations []operation `json:"operations,omitempty"`

	Format  string   `json:"output_format,omitempty"`
	Quality *float64 `json:"quality,omitempty"`
	Preview *bool    `json:"preview,omitempty"`
}

type lora struct {
	Model  string   `json:"model"`
	Weight *float64 `json:"weight,omitempty"`
}

type hires struct {
	Scale    *float64 `json:"scale,omitempty"`
	Steps    *float64 `json:"steps,omitempty"`
	Strength *float64 `json:"strength,omitempty"`
}

type control struct {
	Model string   `json:"model"`
	Image string   `json:"image"`
	Scale *float64 `json:"scale,omitempty"`
}

// pad is how far a picture is extended, pixels.
type pad struct {
	Left   int `json:"left,omitempty"`
	Top    int `json:"top,omitempty"`
	Right  int `json:"right,omitempty"`
	Bottom int `json:"bottom,omitempty"`
}

// The ways a mask marks what is made anew.
const (
	byWhite       = "white"
	byTransparent = "transparent"
)

// value returns a number, or what stands for one that was left out.
func value(p *float64, absent float64) float64 {
	if p == nil {
		return absent
	}
	return *p
}

func whole(p *float64, absent int) int { return int(value(p, float64(absent))) }

// compile prepares a schema. It refers to nothing outside of itself.
func compile(schema []byte) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{})
	if err := c.AddResource("schema", doc); err != nil {
		return nil, err
	}
	return c.Compile("schema")
}

// request is a job's input with everything decided that can be without reading pictures.
type request struct {
	job        *queue.Job
	input      input
	model      *profile // nil: none is needed
	loras      []*hub.Bundle
	embeddings []*hub.Bundle
	tinyVAE    *hub.Bundle // or nil
	control    *hub.Bundle
}

// request reads a job. The error is a *queue.Problem where the job is at fault. The
// gateway has checked the input against the schema; that is done again for whoever comes
// past it.
func (g *Generator) request(job *queue.Job) (*request, error) {
	schema := g.schemas[job.Task]
	if schema == nil {
		return nil, queue.Problemf("unknown_task", "The worker does not know the task %s.", job.Task)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(job.Input))
	if err == nil {
		err = schema.Validate(document)
	}
	r := &request{job: job}
	if err == nil {
		err = json.Unmarshal(job.Input, &r.input)
	}
	if err != nil {
		return nil, misfit(err)
	}
	if job.Task == taskAdjust {
		if job.Model != "" {
			return nil, invalid("/model", "is not part of %s, which needs none", taskAdjust)
		}
		return r, nil
	}
	if job.Task == taskUpscale && (job.Model == lanczos || job.Model == "" && g.defaultModel(taskUpscale) == lanczos) {
		return r, nil
	}
	if r.model, err = g.bundle(job.Model, job.Task); err != nil {
		return nil, err
	}
	return r, g.additions(r)
}

// additions finds what changes or steers the model.
func (g *Generator) additions(r *request) error {
	for i, l := range r.input.LoRAs {
		b, err := g.addition(l.Model, fmt.Sprintf("/input/loras/%d/model", i), roleLoRA)
		if err != nil {
			return err
		}
		r.loras = append(r.loras, b)
	}
	for i, id := range r.input.Embeddings {
		b, err := g.addition(id, fmt.Sprintf("/input/embeddings/%d", i), roleEmbedding)
		if err != nil {
			return err
		}
		r.embeddings = append(r.embeddings, b)
	}
	if id := r.input.TinyVAE; id != "" {
		var err error
		if r.tinyVAE, err = g.addition(id, "/input/tiny_vae", roleTinyVAE); err != nil {
			return err
		}
	}
	if c := r.input.Control; c != nil {
		var err error
		if r.control, err = g.addition(c.Model, "/input/control/model", roleControl); err != nil {
			return err
		}
	}
	return nil
}

func (g *Generator) addition(id, pointer string, as role) (*hub.Bundle, error) {
	b, err := g.find(id, pointer)
	if err != nil {
		return nil, err
	}
	p := g.profile(b)
	switch {
	case b.Problem != nil:
		return nil, unusable(id, pointer, b.Problem)
	case p == nil || p.role != as:
		return nil, unusable(id, pointer, fmt.Errorf("it is not %s", as))
	case p.err != nil:
		return nil, unusable(id, pointer, p.err)
	}
	return b, nil
}

// takesPicture reports whether a picture has to be read.
func (r *request) takesPicture() bool { return r.job.Task != taskGenerate || r.input.Control != nil }

// invalid is the problem of one value of the job.
func invalid(pointer, format string, args ...any) *queue.Problem {
	detail := fmt.Sprintf(format, args...)
	return &queue.Problem{
		Code: "invalid_input", Detail: fmt.Sprintf("The input is not valid: %s: %s.", pointer, detail),
		Errors: []queue.FieldError{{Pointer: pointer, Detail: detail}},
	}
}

// misfit is the problem of an input that its schema does not allow.
func misfit(err error) *queue.Problem {
	var wrong *jsonschema.ValidationError
	if !errors.As(err, &wrong) {
		return queue.Problemf("invalid_input", "The input is not a JSON object of the task's schema.")
	}
	for len(wrong.Causes) > 0 {
		wrong = wrong.Causes[0]
	}
	pointer := "/input"
	if len(wrong.InstanceLocation) > 0 {
		pointer += "/" + strings.Join(wrong.InstanceLocation, "/")
	}
	_, detail, _ := strings.Cut(wrong.Error(), "': ")
	if detail == "" {
		detail = "does not fit the schema"
	}
	return invalid(pointer, "%s", strings.TrimSpace(detail))
}

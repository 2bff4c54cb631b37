package openai

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	"helicon/gateway/strict"
	"helicon/queue"
)

// imageRequest is what the three routes take, the first as JSON and the others as a form,
// where image and mask are files. Seed, NegativePrompt, Steps, Guidance and Scheduler are
// not OpenAI's: they are those of the native tasks.
type imageRequest struct {
	Model          string `json:"model"`
	Prompt         string `json:"prompt"`
	N              *int   `json:"n"`
	Size           string `json:"size"`
	Quality        string `json:"quality"`
	ResponseFormat string `json:"response_format"`
	OutputFormat   string `json:"output_format"`
	Compression    *int   `json:"output_compression"`
	Background     string `json:"background"`
	Moderation     string `json:"moderation"`
	Fidelity       string `json:"input_fidelity"`
	Stream         bool   `json:"stream"`
	Partials       *int   `json:"partial_images"`
	User           string `json:"user"` // taken as OpenAI takes it; it changes nothing

	Seed           *uint64  `json:"seed"`
	NegativePrompt string   `json:"negative_prompt"`
	Steps          *int     `json:"steps"`
	Guidance       *float64 `json:"guidance"`
	Scheduler      string   `json:"scheduler"`

	image, mask string // digests of the files
	edit        bool   // the events of a stream are named after edits
}

// Values of response_format, and of output_format.
const (
	asURL  = "url"
	asB64  = "b64_json"
	asPNG  = "png"
	asJPEG = "jpeg"
	asWebP = "webp"
)

// maxPartials is how many partial pictures may be asked for.
const maxPartials = 3

// validate lists what a route cannot honour, by name.
func (r *imageRequest) validate(path string) error {
	one := func(value, pointer string, allowed ...string) error {
		for _, a := range append(allowed, "") {
			if value == a {
				return nil
			}
		}
		return strict.Invalid(pointer, "want %s", strings.Join(allowed, ", "))
	}
	compressed := r.Compression != nil && *r.Compression != 100
	switch {
	case r.N != nil && (*r.N < 1 || *r.N > 10):
		return strict.Invalid("/n", "want 1 to 10")
	case r.Compression != nil && (*r.Compression < 0 || *r.Compression > 100):
		return strict.Invalid("/output_compression", "want 0 to 100")
	case compressed && r.OutputFormat != asJPEG:
		return strict.Invalid("/output_compression", "only JPEG files are compressed to a degree; PNG and WebP lose nothing here")
	case r.Seed != nil && *r.Seed > queue.MaxSeed:
		return strict.Invalid("/seed", "want an integer from 0 to %d", int64(queue.MaxSeed))
	case r.Partials != nil && (*r.Partials < 0 || *r.Partials > maxPartials):
		return strict.Invalid("/partial_images", "want 0 to %d", maxPartials)
	case r.Partials != nil && *r.Partials > 0 && !r.Stream:
		return strict.Invalid("/partial_images", "needs stream")
	case r.Stream && r.ResponseFormat == asURL:
		return strict.Invalid("/response_format", "a stream carries the pictures themselves; want %s", asB64)
	case r.Prompt == "" && path != variationPath:
		return strict.Invalid("/prompt", "required, but missing")
	}
	return cmp.Or(
		one(r.ResponseFormat, "/response_format", asURL, asB64),
		one(r.OutputFormat, "/output_format", asPNG, asJPEG, asWebP),
		one(r.Quality, "/quality", "auto", "low", "medium", "high", "standard", "hd"),
		one(r.Background, "/background", "auto", "opaque"),
		one(r.Moderation, "/moderation", "auto"),
		one(r.Fidelity, "/input_fidelity", "low", "high"),
	)
}

// dimensions reads a size as "512x512"; 0 stands for what the model chooses.
func (r *imageRequest) dimensions() (width, height int, err error) {
	if r.Size == "" || r.Size == "auto" {
		return 0, 0, nil
	}
	w, h, ok := strings.Cut(r.Size, "x")
	width, err1 := strconv.Atoi(w)
	height, err2 := strconv.Atoi(h)
	if !ok || err1 != nil || err2 != nil || width < 1 || height < 1 || max(width, height) > math.MaxInt32 {
		return 0, 0, strict.Invalid("/size", "want auto, or a size such as 512x512")
	}
	return width, height, nil
}

// fidelityStrength is how far a picture is changed that is to be kept to.
const fidelityStrength = 0.5

// job is what the request asks for.
func (r *imageRequest) job(path string) (*queue.Job, error) {
	if err := r.validate(path); err != nil {
		return nil, err
	}
	width, height, err := r.dimensions()
	if err != nil {
		return nil, err
	}
	task, in := "image.generate", map[string]any{"preview": r.Stream && r.Partials != nil && *r.Partials > 0}
	set := func(name string, given bool, value any) {
		if given {
			in[name] = value
		}
	}
	switch {
	case path == variationPath:
		task = "image.variation"
	case r.mask != "":
		task = "image.inpaint"
		in["mask_mode"] = "transparent" // what is transparent in OpenAI's masks is edited
	case path == editPath:
		task = "image.edit"
		in["mask_mode"] = "transparent" // as of the mask, so of a picture without one
		set("strength", r.Fidelity == "high", fidelityStrength)
	}
	set("prompt", r.Prompt != "", r.Prompt)
	set("image", r.image != "", r.image)
	set("mask", r.mask != "", r.mask)
	set("width", width > 0, width)
	set("height", height > 0, height)
	set("n", r.N != nil, r.N)
	set("output_format", r.OutputFormat != "", r.OutputFormat)
	set("quality", r.Compression != nil && r.OutputFormat == asJPEG, max(1, whole(r.Compression)))
	set("effort", r.Quality == "low" || r.Quality == "high", r.Quality)
	set("effort", r.Quality == "hd", "high")
	set("negative_prompt", r.NegativePrompt != "", r.NegativePrompt)
	set("steps", r.Steps != nil, r.Steps)
	set("guidance", r.Guidance != nil, r.Guidance)
	set("scheduler", r.Scheduler != "", r.Scheduler)
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("openai: input: %w", err)
	}
	job := &queue.Job{Task: task, Model: r.Model, Input: text, Seed: rand.Uint64N(queue.MaxSeed + 1)}
	if r.Seed != nil {
		job.Seed = *r.Seed
	}
	return job, nil
}

func whole(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}

// readGeneration reads a request of POST /v1/images/generations.
func readGeneration(_ context.Context, body []byte) (*Exchange, error) {
	request := new(imageRequest)
	if err := strict.Object(body, "", request); err != nil {
		return nil, err
	}
	return request.exchange(generationPath)
}

// readPictures reads a request that carries a picture: POST /v1/images/edits or variations.
func (a *API) readPictures(r *http.Request) (*Exchange, error) {
	request, err := a.readForm(r)
	if err != nil {
		return nil, err
	}
	if request.image == "" {
		return nil, strict.Invalid("/image", "required, but missing")
	}
	if r.URL.Path == variationPath && (request.mask != "" || request.Prompt != "") {
		return nil, strict.Invalid("/prompt", "neither prompt nor mask is part of a variation; /v1/images/edits takes both")
	}
	x, err := request.exchange(r.URL.Path)
	if err != nil {
		return nil, err
	}
	// The files are in the input by their digests.
	x.print, err = json.Marshal(map[string]any{"model": request.Model, "input": x.Jobs[0].Input, "seed": request.Seed})
	if err != nil {
		return nil, fmt.Errorf("openai: job: %w", err)
	}
	return x, nil
}

// exchange makes the job of a request to the route of a path.
func (r *imageRequest) exchange(path string) (*Exchange, error) {
	job, err := r.job(path)
	if err != nil {
		return nil, err
	}
	r.edit = path != generationPath
	x := &Exchange{Jobs: []*queue.Job{job}, whole: r.whole, names: map[string]string{
		"width": "size", "height": "size", "quality": "output_compression", "effort": "quality", "strength": "input_fidelity",
	}}
	if r.Stream {
		x.stream = r.flow
	}
	return x, nil
}

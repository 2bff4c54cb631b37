// Package checkpoint reads diffusion models that are one file, in the layouts of those who
// first published them: Stable Diffusion 1, 2, XL and 3, Flux, and autoencoders, text
// encoders and ControlNets by themselves, as .safetensors, .ckpt, or GGUF as stable-diffusion.cpp and
// ComfyUI-GGUF write it. It shows them as what diffusers has in folders: a weights.Store of
// each component, its tensors renamed and cut where they lie, and a configuration that is
// told from names and shapes. It also merges LoRA files into components, and reads
// embeddings of textual inversion.
//
// Names follow https://github.com/CompVis/latent-diffusion, OpenCLIP, Stability's sd3.5,
// Black Forest Labs' flux, and diffusers' conversions of them.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"helicon/models/weights"
)

// ErrUnsupported is wrapped by errors about a file whose layout is not one of those known.
var ErrUnsupported = errors.New("unsupported checkpoint")

// Family is a kind of models that share their networks' structure.
type Family string

// The families. A file of which only an autoencoder or text encoders are known has none.
const (
	SD1  Family = "sd1"
	SD2  Family = "sd2"
	SDXL Family = "sdxl"
	SD3  Family = "sd3"
	Flux Family = "flux"
)

// Layout is what a file holds.
type Layout struct {
	Family Family

	parts    map[string]part
	configs  map[string]any          // of what has no weights
	reshaped map[string]weights.View // tensors that were flattened to be quantised
}

// part is a component.
type part struct {
	library, class string
	config         map[string]any
	views          map[string]weights.View // by diffusers' or transformers' names
}

// Inspect tells what a file holds, from the names and shapes of its tensors alone. The
// error wraps ErrUnsupported if nothing in it is known, and weights.ErrMissing or
// weights.ErrShape if something is that lacks a tensor.
func Inspect(h *weights.Header) (*Layout, error) {
	s, err := newSource(h)
	if err != nil {
		return nil, err
	}
	l := &Layout{parts: map[string]part{}, configs: map[string]any{}, reshaped: s.reshaped}
	for _, find := range []func(*source) error{l.findControlNet, l.findUNet, l.findMMDiT, l.findFlux, l.findVAE, l.findTexts} {
		if err := find(s); err != nil {
			return nil, err
		}
	}
	if len(l.parts) == 0 {
		return nil, fmt.Errorf("checkpoint: %s: no network that is known among its %d tensors: %w", h.Files[0].Name, len(h.Names()), ErrUnsupported)
	}
	l.describe()
	return l, nil
}

// Parts returns the names of the components, sorted: unet or transformer, vae,
// text_encoder, text_encoder_2, text_encoder_3, controlnet.
func (l *Layout) Parts() []string { return slices.Sorted(maps.Keys(l.parts)) }

// Has reports whether the file holds a component.
func (l *Layout) Has(name string) bool { _, ok := l.parts[name]; return ok }

// Config returns the JSON that a folder would have of a component, or as its
// "scheduler", or its "model_index"; nil if there is none. Settings that do not show in a
// file, such as the number of attention heads, are those of the family's own models.
func (l *Layout) Config(name string) []byte {
	value := l.configs[name]
	if p, ok := l.parts[name]; ok {
		value = p.config
	}
	if value == nil {
		return nil
	}
	data, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("checkpoint: config of %s: %v", name, err)) // they are strings and numbers
	}
	return data
}

// Store returns the tensors of a component of the file s, by the names that diffusers and
// transformers have for them. The errors are those of weights.Store.View, and one that
// wraps ErrUnsupported if the file has no such component.
func (l *Layout) Store(s *weights.Store, name string) (*weights.Store, error) {
	p, ok := l.parts[name]
	if !ok {
		return nil, fmt.Errorf("checkpoint: no %s: %w", name, ErrUnsupported)
	}
	if len(l.reshaped) > 0 {
		views := make(map[string]weights.View)
		for _, n := range s.Names() {
			views[n] = weights.View{Name: n}
		}
		maps.Copy(views, l.reshaped)
		var err error
		if s, err = s.View(views); err != nil {
			return nil, err
		}
	}
	return s.View(p.views)
}

// Checkpoint is an opened file.
type Checkpoint struct {
	*Layout
	file *weights.Store
}

// Open opens a file. Whether a network predicts noise or velocity is told from what lies
// beside its weights: a file of the same name that ends in .yaml, a tensor that says so, or
// for Stable Diffusion 2 how far a norm's biases are spread. The errors are those of
// weights.OpenFile and Inspect.
func Open(fsys fs.FS, name string) (*Checkpoint, error) {
	s, err := weights.OpenFile(fsys, name)
	if err != nil {
		return nil, err
	}
	l, err := Inspect(s.Header())
	if err == nil {
		err = l.predict(fsys, name, s)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &Checkpoint{l, s}, nil
}

// Part returns the tensors of a component: see Layout.Store. Closing it closes the file.
func (c *Checkpoint) Part(name string) (*weights.Store, error) { return c.Store(c.file, name) }

// Close releases the file.
func (c *Checkpoint) Close() error { return c.file.Close() }

// maxYAML bounds the size of a configuration beside a file, in bytes.
const maxYAML = 1 << 20

// predict sets the scheduler's prediction_type.
func (l *Layout) predict(fsys fs.FS, name string, s *weights.Store) error {
	scheduler, ok := l.configs["scheduler"].(map[string]any)
	if !ok || l.Family != SD1 && l.Family != SD2 && l.Family != SDXL {
		return nil
	}
	velocity, err := yamlSaysVelocity(fsys, strings.TrimSuffix(name, path.Ext(name))+".yaml")
	if err != nil {
		return err
	}
	if s.Has("v_pred") || l.Family == SD2 && l.spread(s) > 0.09 {
		velocity = true
	}
	if velocity {
		scheduler["prediction_type"] = "v_prediction"
	}
	if velocity && l.Family == SD2 {
		l.parts["unet"].config["sample_size"] = 96 // those that predict noise were made for 64
	}
	if s.Has("ztsnr") {
		scheduler["rescale_betas_zero_snr"] = true
	}
	return nil
}

// yamlSaysVelocity looks for "parameterization: v" in a file, if there is one.
func yamlSaysVelocity(fsys fs.FS, name string) (bool, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("checkpoint: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxYAML))
	if err != nil {
		return false, fmt.Errorf("checkpoint: %s: %w", name, err)
	}
	return regexp.MustCompile(`(?m)^\s*parameterization:\s*["']?v["']?\s*(#.*)?$`).Match(data), nil
}

// spread returns the standard deviation of the biases of the last transformer's first norm.
// It is above 0.09 in networks of Stable Diffusion 2 that predict velocity and far below in
// those that predict noise, as ComfyUI's users found out; nothing else tells them apart.
func (l *Layout) spread(s *weights.Store) float64 {
	unet := l.parts["unet"]
	v, ok := unet.views["up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"]
	if !ok || unet.config["in_channels"] != 4 { // those for inpainting and depth predict noise
		return 0
	}
	t, err := s.Lookup(v.Name)
	if err != nil || !t.DType.Float() || t.Len() == 0 {
		return 0
	}
	return deviation(t.Float32s())
}

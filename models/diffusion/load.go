package diffusion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"strings"

	"helicon/models/diffusion/components"
	"helicon/models/diffusion/scheduler"
	"helicon/models/dit"
	"helicon/models/tensor"
	"helicon/models/vae"
	"helicon/models/weights"
)

// Detect returns what kind of model a bundle is, from its small files or from the header
// of its single file. The error wraps ErrUnsupported if it is no diffusion model that this
// package knows, and fs.ErrNotExist if there is no model.
func Detect(files fs.FS) (Kind, error) {
	b, err := openBundle(files, Options{})
	if err != nil {
		return "", err
	}
	return b.kind, b.Close()
}

// validate lists the rules for options.
func (o Options) validate() error {
	switch o.Compute {
	case 0, tensor.F32, tensor.F16, tensor.BF16, tensor.I8:
	default:
		return bad("Compute", "is %v, want F32, F16, BF16, I8 or none", o.Compute)
	}
	for i, l := range o.LoRAs {
		if l.Files == nil || !fs.ValidPath(l.Name) {
			return bad(fmt.Sprintf("LoRAs[%d]", i), "has no file %q", l.Name)
		}
		if !(l.Weight >= -10 && l.Weight <= 10) {
			return bad(fmt.Sprintf("LoRAs[%d].Weight", i), "is %v, want -10 to 10", l.Weight)
		}
	}
	for i, l := range o.Embeddings {
		if l.Files == nil || !fs.ValidPath(l.Name) {
			return bad(fmt.Sprintf("Embeddings[%d]", i), "has no file %q", l.Name)
		}
	}
	return nil
}

// bundle is a model's components, and what it is to be loaded with.
type bundle struct {
	*components.Model
	kind    Kind
	options Options
}

// openBundle finds the components of a model, and reads none of its weights.
func openBundle(files fs.FS, o Options) (*bundle, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	m, err := components.Find(files, components.Options{
		Compute: o.Compute, LoRAs: o.LoRAs, Embeddings: o.Embeddings, Tokenizers: o.Tokenizers,
	})
	if err != nil {
		return nil, err
	}
	k, ok := kindOf(m.Class)
	if !ok {
		return nil, fmt.Errorf("diffusion: model_index.json: pipeline %q: %w", m.Class, ErrUnsupported)
	}
	return &bundle{m, k, o}, nil
}

// Load reads a model, by ctx in between its components. Weights are laid out for the
// kernels as they are read; the pages of mapped files are given back. Errors name the file
// and the tensor or field; they wrap ErrUnsupported, ErrRequest, weights.ErrFormat,
// weights.ErrMissing, weights.ErrShape or fs.ErrNotExist.
func Load(ctx context.Context, files fs.FS, o Options) (*Pipeline, error) {
	b, err := openBundle(files, o)
	if err != nil {
		return nil, err
	}
	p, err := load(ctx, b)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return p, nil
}

func load(ctx context.Context, b *bundle) (*Pipeline, error) {
	p := &Pipeline{bundle: b}
	if err := b.Open(); err != nil {
		return nil, err
	}
	raw, err := b.Config("scheduler")
	if err != nil {
		return nil, err
	}
	if p.scheduler, err = scheduler.Parse(raw); err != nil {
		return nil, fmt.Errorf("diffusion: scheduler/scheduler_config.json: %w: %w", err, ErrUnsupported)
	}
	if p.family, err = familyOf(b); err != nil {
		return nil, err
	}
	a, err := configureVAE(b)
	if err != nil {
		return nil, err
	}
	if err := fits(p.family.traits(), a.latents); err != nil {
		return nil, err
	}
	if err := p.family.load(ctx, b); err != nil {
		return nil, err
	}
	if p.vae, err = a.load(b); err != nil {
		return nil, err
	}
	if b.Has("safety_checker") && !b.options.SkipSafety {
		if p.safety, err = loadSafety(b); err != nil {
			return nil, err
		}
	}
	b.Evict()
	debug.FreeOSMemory() // what loading has left behind is as large as a network
	p.info = p.describe()
	if err := p.info.readGeneration(b.Files); err != nil {
		return nil, err
	}
	return p, context.Cause(ctx)
}

// readGeneration takes the defaults from generation_config.json, which need not exist.
func (i *Info) readGeneration(files fs.FS) error {
	const name = "generation_config.json"
	raw, err := components.ReadText(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c := struct {
		Steps    int     `json:"num_inference_steps"`
		Guidance float32 `json:"guidance_scale"`
	}{i.Steps, i.Guidance}
	if err := json.Unmarshal(raw, &c); err != nil {
		return fmt.Errorf("diffusion: %s: %w: %w", name, err, ErrUnsupported)
	}
	if c.Steps < 1 || c.Steps > maxDefaultSteps || !(c.Guidance > 0) || c.Guidance > maxGuidance {
		return fmt.Errorf("diffusion: %s: num_inference_steps %d, guidance_scale %v, want 1 to %d and above 0 to %d: %w",
			name, c.Steps, c.Guidance, maxDefaultSteps, maxGuidance, ErrUnsupported)
	}
	i.Steps, i.Guidance = c.Steps, c.Guidance
	return nil
}

// maxDefaultSteps bounds the default of a model's steps: more than it was trained with
// are none.
const maxDefaultSteps = 1000

// fits checks that the network and the VAE have the same latents.
func fits(t traits, l vae.Latents) error {
	switch {
	case t.channels != l.Channels:
		return fmt.Errorf("diffusion: the network has latents of %d channels, the VAE of %d: %w", t.channels, l.Channels, ErrUnsupported)
	case t.input != t.channels && t.input != 2*t.channels+1:
		return fmt.Errorf("diffusion: a network of %d input and %d output channels: %w", t.input, t.channels, ErrUnsupported)
	}
	return nil
}

func (p *Pipeline) describe() Info {
	l := p.vae.Latents()
	i := Info{
		Kind: p.bundle.kind, Multiple: l.Down * max(p.family.traits().patch, 1),
		Scheduler: p.scheduler.Name(), Schedulers: p.scheduler.Names(),
		Edit: p.vae.encoder != nil, Inpaint: p.vae.encoder != nil, Safety: p.safety != nil,
	}
	p.family.describe(&i, p.scheduler)
	i.Width, i.Height = i.Width*l.Down, i.Height*l.Down
	return i
}

// Estimate returns the memory that a bundle will take, from its headers and
// configurations alone. The errors are those of Load.
func Estimate(files fs.FS, o Options) (Footprint, error) {
	b, err := openBundle(files, o)
	if err != nil {
		return Footprint{}, err
	}
	f, err := b.estimate()
	return f, errors.Join(err, b.Close())
}

func (b *bundle) estimate() (Footprint, error) {
	f := Footprint{Kind: b.kind}
	if err := b.OpenFiles(); err != nil {
		return f, err
	}
	m, err := familyOf(b)
	if err != nil {
		return f, err
	}
	a, err := configureVAE(b)
	if err != nil {
		return f, err
	}
	brief := int64(0) // of components that are in memory while they work alone
	for _, part := range b.weighty() {
		n, err := b.partBytes(part)
		if err != nil {
			return f, err
		}
		if part.brief && len(b.options.LoRAs) == 0 {
			brief += n
		} else {
			f.Weights += n
		}
	}
	latents := a.latents
	var i Info
	m.describe(&i, scheduler.Config{})
	f.Width, f.Height = i.Width*latents.Down, i.Height*latents.Down
	f.Work = func(width, height, batch int) int64 {
		s := shape{height: height / latents.Down, width: width / latents.Down, channels: latents.Channels}
		n, err := m.workspace(s, 2)
		if err != nil {
			return 0 // no picture of such a size will be made
		}
		pictures := 4 * 3 * int64(width) * int64(height) * 4 // of floats, in and out
		// An Exec keeps as much again, at most; the network's memory is given back before the
		// VAE's is taken.
		n = int64(batch) * (2*max(n, a.workspace(s)) + pictures)
		if batch > 1 { // one call may read its prompt while another draws
			return n + brief
		}
		return max(n, brief)
	}
	return f, nil
}

// part is a component with weights, and the type that they are computed in.
type part struct {
	name    string
	files   fs.FS // its own, if it is a ControlNet
	compute tensor.DType
	brief   bool // see components.Model.Brief
}

// weighty lists the components that have weights.
func (b *bundle) weighty() []part {
	var list []part
	for _, name := range []string{"unet", "transformer"} {
		list = append(list, part{name: name, compute: b.options.Compute})
	}
	for _, name := range []string{"text_encoder", "text_encoder_2", "text_encoder_3"} {
		list = append(list, part{name: name, brief: true})
	}
	if b.options.TinyVAE == nil {
		list = append(list, part{name: "vae", compute: vaeCompute(b.options.Compute)})
	}
	if !b.options.SkipSafety {
		list = append(list, part{name: "safety_checker", brief: true})
	}
	list = slices.DeleteFunc(list, func(p part) bool { return !b.Has(p.name) })
	if b.options.ControlNet != nil {
		list = append(list, part{name: "ControlNet", files: b.options.ControlNet, compute: b.options.Compute})
	}
	return list
}

// partBytes returns the memory of the weights of a component, from its header.
func (b *bundle) partBytes(p part) (int64, error) {
	list, err := b.tensorsOf(p)
	if err != nil {
		return 0, fmt.Errorf("diffusion: %s: %w", p.name, err)
	}
	total := int64(0)
	for _, t := range list {
		if p.name == "vae" && (strings.HasPrefix(t.Name, "encoder.") || strings.HasPrefix(t.Name, "quant_conv.")) {
			continue // they are not kept
		}
		n := t.Bytes
		kept := p.name == "transformer" && p.compute == tensor.I8 && dit.KeepsType(t.Name)
		if p.compute != 0 && len(t.Shape) > 1 && !kept {
			n = t.Len() * int64(p.compute.Size())
		}
		if strings.Contains(t.Name, "upsamplers.") && len(t.Shape) == 4 { // 16 taps made of 9, as they are or in F32
			if p.compute == 0 {
				n = t.Len() * 4
			}
			n = n * 16 / 9
		}
		total += n
	}
	return total + total/20, nil // memory comes in large pages
}

// tensorsOf describes the tensors of a component.
func (b *bundle) tensorsOf(p part) ([]weights.Info, error) {
	if p.files == nil {
		return b.Tensors(p.name)
	}
	c, err := components.FindControl(p.files)
	if err != nil {
		return nil, err
	}
	return c.Tensors()
}

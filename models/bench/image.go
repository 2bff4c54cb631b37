package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"helicon/models/clip"
	"helicon/models/tensor"
	"helicon/models/unet"
	"helicon/models/vae"
	"helicon/models/weights"
)

// Image says what to measure of a diffusion model.
type Image struct {
	Shape         ImageShape
	Height, Width int            // pixels, multiples of 64
	Types         []tensor.DType // that matrices and convolutions are computed in
	Steps         int            // of the whole picture
}

// Image measures the networks that make a picture, with random weights that it writes in
// F16 into the folder dir: the text encoder, a step of the UNet, and the decoders of the
// autoencoder and of its tiny stand-in, and then a picture as few-step models make it, from
// the prompt to the tiny decoder. report is told each result as it comes. Fractions are of
// the float32 peak, whatever the type: above 1 is faster than float32 can be.
func (b *Bench) Image(ctx context.Context, dir string, c Image, report func(Result)) error {
	passes, err := c.write(ctx, dir)
	if err != nil {
		return err
	}
	for _, d := range c.Types {
		p := &painter{bench: b, image: c, dtype: d, dir: dir, passes: passes, exec: tensor.NewExec(b.pool)}
		if err := p.measure(ctx, report); err != nil {
			return err
		}
	}
	return nil
}

// The folders of the networks, as in a bundle, and the one of the tiny autoencoder.
const (
	textPart, unetPart, vaePart, tinyPart = "text_encoder", "unet", "vae", "vae_tiny"

	textBase, otherBase = "model", "diffusion_pytorch_model"
)

// write makes the files of the networks and returns what a pass through each does.
func (c Image) write(ctx context.Context, dir string) (map[string]pass, error) {
	passes := map[string]pass{}
	for _, part := range []struct {
		name, base string
		list       func(*sheet)
	}{
		{textPart, textBase, c.Shape.Encoder.tensors},
		{unetPart, otherBase, func(s *sheet) { c.Shape.unet(s, c.Height, c.Width) }},
		{vaePart, otherBase, func(s *sheet) { decoder(s, c.Height, c.Width) }},
		{tinyPart, otherBase, func(s *sheet) { tinyDecoder(s, c.Height, c.Width) }},
	} {
		s := newSheet(tensor.F16)
		part.list(s)
		if err := s.write(ctx, filepath.Join(dir, part.name), part.base); err != nil {
			return nil, err
		}
		passes[part.name] = s.pass
	}
	return passes, nil
}

// painter measures the networks in one type.
type painter struct {
	bench  *Bench
	image  Image
	dtype  tensor.DType
	dir    string
	passes map[string]pass // by part
	exec   *tensor.Exec

	arena   tensor.Arena
	files   []*weights.Store
	text    *clip.Text
	states  *clip.TextState
	ids     []int
	unet    *unet.Model
	noise   *unet.State
	context unet.Conditioning
	x, y    []float32 // latents, and what the UNet makes of them
	decoder *vae.KL
	tiny    *vae.Tiny
	work    *vae.State
	picture []float32
}

func (p *painter) measure(ctx context.Context, report func(Result)) (err error) {
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.load(); err != nil {
		return err
	}
	for _, c := range []struct {
		name string
		pass pass
		run  func(context.Context) error
	}{
		{"text encoder", p.passes[textPart], p.read},
		{"unet step", p.passes[unetPart], p.step},
		{"vae decode", p.passes[vaePart], p.decode},
		{"tiny vae decode", p.passes[tinyPart], p.decodeTiny},
		{fmt.Sprintf("picture, %d steps", p.image.Steps), p.whole(), p.paint},
	} {
		w := work{name: c.name, dtype: p.dtype, operations: c.pass.operations, bytes: c.pass.bytes, peak: F32}
		r, err := p.bench.measure(ctx, w, c.run)
		if err != nil {
			return err
		}
		report(r)
	}
	return nil
}

// whole is what the making of a picture does.
func (p *painter) whole() pass {
	text, step, tiny, n := p.passes[textPart], p.passes[unetPart], p.passes[tinyPart], float64(p.image.Steps)
	return pass{
		operations: text.operations + n*step.operations + tiny.operations,
		bytes:      text.bytes + n*step.bytes + tiny.bytes,
	}
}

// with loads a part, to be computed in the painter's type, and lets go of its pages.
func (p *painter) with(part, base string, load func(*weights.Store) error) error {
	s, err := weights.Open(os.DirFS(filepath.Join(p.dir, part)), base)
	if err != nil {
		return err
	}
	p.files = append(p.files, s)
	if err := load(s.Packed(&p.arena, p.dtype)); err != nil {
		return err
	}
	s.Evict()
	return nil
}

func (p *painter) close() error {
	err := p.arena.Close()
	for _, s := range p.files {
		err = errors.Join(err, s.Close())
	}
	return err
}

func (p *painter) load() error {
	for _, part := range []struct {
		name, base string
		load       func(*weights.Store) error
	}{
		{textPart, textBase, p.loadText},
		{unetPart, otherBase, p.loadUNet},
		{vaePart, otherBase, func(s *weights.Store) (err error) {
			p.decoder, err = vae.Load(s, vae.StableDiffusion())
			return err
		}},
		{tinyPart, otherBase, p.loadTiny},
	} {
		if err := p.with(part.name, part.base, part.load); err != nil {
			return err
		}
	}
	p.work, p.picture = vae.NewState(0), make([]float32, 3*p.image.Height*p.image.Width)
	return nil
}

func (p *painter) loadText(s *weights.Store) error {
	raw, err := p.image.Shape.Encoder.config()
	if err != nil {
		return err
	}
	c, err := clip.ParseTextConfig(raw)
	if err != nil {
		return err
	}
	if p.text, err = clip.LoadText(s, c); err != nil {
		return err
	}
	p.states, p.ids = p.text.NewState(1), someTokens(promptTokens, clipVocabulary)
	return nil
}

func (p *painter) loadUNet(s *weights.Store) error {
	raw, err := p.image.Shape.unetConfig()
	if err != nil {
		return err
	}
	c, err := unet.ParseConfig(raw)
	if err != nil {
		return err
	}
	if p.unet, err = unet.Load(s, c); err != nil {
		return err
	}
	h, w := p.image.Height/latentDown, p.image.Width/latentDown
	if p.noise, err = p.unet.NewState(unet.Shape{Batch: 1, Height: h, Width: w, Tokens: promptTokens}); err != nil {
		return err
	}
	p.x, p.y = randomFloats(h*w*latentChannels), make([]float32, h*w*latentChannels)
	p.context.Context = randomFloats(promptTokens * p.image.Shape.Context)
	if p.image.Shape.Added > 0 {
		p.context.Pooled, p.context.TimeIDs = randomFloats(p.image.Shape.Added-6*256), []float32{1024, 1024, 0, 0, 1024, 1024}
	}
	return p.unet.Condition(p.exec, p.noise, p.context)
}

func (p *painter) loadTiny(s *weights.Store) error {
	c, err := vae.ParseTinyConfig([]byte(tinyConfig))
	if err != nil {
		return err
	}
	p.tiny, err = vae.LoadTiny(s, c)
	return err
}

func (p *painter) read(context.Context) error {
	return p.text.Forward(p.exec, p.states, clip.TextInput{IDs: p.ids})
}

func (p *painter) step(ctx context.Context) error {
	return p.unet.Forward(ctx, p.exec, p.noise, p.y, p.x, []float32{500})
}

func (p *painter) latents() vae.Map {
	return vae.Map{Data: p.x, Height: p.image.Height / latentDown, Width: p.image.Width / latentDown}
}

func (p *painter) decode(ctx context.Context) error {
	return p.decoder.Decode(ctx, p.exec, p.work, p.picture, p.latents())
}

func (p *painter) decodeTiny(ctx context.Context) error {
	return p.tiny.Decode(ctx, p.exec, p.work, p.picture, p.latents())
}

// paint makes a picture as a few-step model does it.
func (p *painter) paint(ctx context.Context) error {
	if err := p.read(ctx); err != nil {
		return err
	}
	if err := p.unet.Condition(p.exec, p.noise, p.context); err != nil {
		return err
	}
	for range p.image.Steps {
		if err := p.step(ctx); err != nil {
			return err
		}
	}
	return p.decodeTiny(ctx)
}

package diffusion

import (
	"context"
	"errors"
	"fmt"
	"image"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"

	"helicon/models/diffusion/scheduler"
	"helicon/models/tensor"
	"helicon/models/vae"
)

// Pipeline is a loaded model. Any number of goroutines may call Generate; each call has
// memory of its own.
type Pipeline struct {
	bundle    *bundle
	family    family
	vae       coder
	scheduler scheduler.Config
	safety    *safety // or nil
	info      Info

	mu      sync.Mutex  // of preview
	preview *projection // made when the first is asked for
}

// Info describes the pipeline.
func (p *Pipeline) Info() Info { return p.info }

// Close releases the weights and files. No call of Generate may be running, and none may
// follow.
func (p *Pipeline) Close() error { return p.bundle.Close() }

// Generate makes a picture. The error wraps ErrRequest if the request cannot be served as
// it is, and is the cause of ctx's end if that comes first: within a block of the network.
func (p *Pipeline) Generate(ctx context.Context, r Request) (*Picture, error) {
	j, err := p.resolve(r)
	if err != nil {
		return nil, err
	}
	d := &drawing{p: p, job: j, e: tensor.NewExec(p.bundle.options.Pool), vae: vae.NewState(0)}
	defer d.e.Until(ctx)()
	width, height, x, err := d.draw(ctx)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // what was computed since is of no use
	}
	d.release()
	if err != nil {
		return nil, err
	}
	if j.mask != nil {
		paste(x, j.picture, j.mask, width, height)
	}
	picture := &Picture{Image: paint(x, width, height)}
	if p.safety == nil {
		return picture, nil
	}
	unsafe, err := p.safety.check(tensor.NewExec(p.bundle.options.Pool), picture.Image)
	if err != nil {
		return nil, err
	}
	picture.NSFW = &unsafe
	if unsafe {
		picture.Image = paint(make([]float32, len(x)), width, height)
	}
	return picture, nil
}

// release gives the memory of a large picture back to the system, so that the next one does
// not begin while it waits for the garbage collector.
func (d *drawing) release() {
	large := d.vae.Bytes() > largeWorkspace
	d.e, d.vae, d.cond = nil, nil, nil
	if large {
		debug.FreeOSMemory()
	}
}

// shape returns the size of the latents of a picture.
func (p *Pipeline) shape(width, height int) shape {
	l := p.vae.Latents()
	return shape{height: height / l.Down, width: width / l.Down, channels: l.Channels}
}

// drawing is one picture in the making.
type drawing struct {
	p           *Pipeline
	job         *job
	e           *tensor.Exec
	vae         *vae.State
	cond        *condition
	done, total int // calls of the network
}

// pass is one walk from noise to latents.
type pass struct {
	run     *scheduler.Run
	width   int // of the picture, pixels
	height  int
	streams uint32 // of noise, beside the first ones

	from   []float32 // latents of the picture that is changed, or nil
	pure   bool      // it begins with noise alone all the same
	mask   []float32 // [h, w], 1 is made anew, or nil
	masked []float32 // latents of the picture without what is masked, for networks that read them
}

// draw returns the picture in 0..1, [height, width, 3].
func (d *drawing) draw(ctx context.Context) (width, height int, x []float32, err error) {
	j := d.job
	passes, err := d.passes()
	if err != nil {
		return 0, 0, nil, err
	}
	d.cond, err = d.p.family.encode(ctx, d.e, prompt{
		text: j.Prompt, negative: j.Negative, guided: j.guided, guidance: j.Guidance,
		clipSkip: j.ClipSkip, width: j.Width, height: j.Height,
	})
	if err != nil {
		return 0, 0, nil, err
	}
	first := &passes[0]
	if err := d.begin(ctx, first); err != nil {
		return 0, 0, nil, err
	}
	z, err := d.walk(ctx, first)
	if err != nil {
		return 0, 0, nil, err
	}
	last := first
	if len(passes) > 1 {
		last = &passes[1]
		last.from = d.enlarged(z, first, last)
		d.cond.width, d.cond.height = last.width, last.height
		if z, err = d.walk(ctx, last); err != nil {
			return 0, 0, nil, err
		}
	}
	x, err = d.decode(ctx, z, last.width, last.height)
	return last.width, last.height, x, err
}

// passes plans the walks, and counts the calls of the network.
func (d *drawing) passes() ([]pass, error) {
	j := d.job
	strength := 0.0
	if j.picture != nil {
		strength = decimal(j.Strength)
	}
	list := []pass{{width: j.Width, height: j.Height}}
	err := d.schedule(&list[0], j.Steps, strength)
	if err == nil && j.Hires != nil {
		second := pass{streams: hiresStreams}
		second.width, second.height = d.p.hiresSize(j)
		err = d.schedule(&second, j.Hires.Steps, decimal(j.Hires.Strength))
		list = append(list, second)
	}
	return list, err
}

// decimal returns the number that a fraction is written as: 0.7 of 10 steps are 7, which
// the float32 next to it falls short of.
func decimal(x float32) float64 {
	y, err := strconv.ParseFloat(strconv.FormatFloat(float64(x), 'g', -1, 32), 64)
	if err != nil {
		return float64(x) // no number
	}
	return y
}

// schedule makes the run of a pass.
func (d *drawing) schedule(ps *pass, steps int, strength float64) error {
	j := d.job
	o := scheduler.Options{Steps: steps, Strength: strength, Eta: float64(j.Eta)}
	base := ps.streams + samplerStream
	o.Noise = func(draw int, dst []float32) { j.noise(base+uint32(draw), dst) }
	d.p.family.schedule(&o, j.scheduler, d.p.shape(ps.width, ps.height))
	run, err := scheduler.New(j.scheduler, o)
	if errors.Is(err, scheduler.ErrOptions) {
		return bad("Steps", "do not suit the scheduler: %v", err)
	}
	if err != nil {
		return fmt.Errorf("diffusion: %w", err)
	}
	ps.run = run
	d.total += len(run.Calls())
	return nil
}

// begin encodes the picture of the request for its pass.
func (d *drawing) begin(ctx context.Context, ps *pass) (err error) {
	j := d.job
	if j.picture == nil {
		return nil
	}
	if j.mask != nil {
		ps.mask = d.p.shrink(j.mask, j.Width, j.Height)
		ps.pure = j.Strength == 1
	}
	encoder, release, err := d.p.vae.encoder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if d.p.inpaints() {
		hidden := slices.Clone(j.picture)
		for i, m := range j.mask {
			if m >= 0.5 {
				clear(hidden[3*i:][:3])
			}
		}
		if ps.masked, err = d.encode(ctx, encoder, hidden, maskedStream); err != nil || ps.pure {
			return err
		}
	}
	ps.from, err = d.encode(ctx, encoder, j.picture, pictureStream)
	return err
}

// shrink returns a mask [H, W] in the size of latents: of each, its first pixel.
func (p *Pipeline) shrink(mask []float32, width, height int) []float32 {
	s, down := p.shape(width, height), p.vae.Latents().Down
	small := make([]float32, s.height*s.width)
	for i := range small {
		small[i] = mask[i/s.width*down*width+i%s.width*down]
	}
	return small
}

// encode returns the latents of a picture of the request's size.
func (d *drawing) encode(ctx context.Context, m vae.Autoencoder, picture []float32, stream uint32) ([]float32, error) {
	j, l := d.job, d.p.vae.Latents()
	z := make([]float32, d.p.shape(j.Width, j.Height).floats())
	noise := make([]float32, len(z))
	j.noise(stream, noise)
	if err := m.Encode(ctx, d.e, d.vae, z, vae.Map{Data: picture, Width: j.Width, Height: j.Height}, noise); err != nil {
		return nil, fmt.Errorf("diffusion: vae: %w", err)
	}
	l.ToModel(z)
	return z, nil
}

// largeWorkspace is the size in bytes from which on the memory of a network is given back
// to the system before the VAE takes its own: that takes some milliseconds.
const largeWorkspace = 64 << 20

// decode returns the picture that latents show, in 0..1.
func (d *drawing) decode(ctx context.Context, z []float32, width, height int) ([]float32, error) {
	l, s := d.p.vae.Latents(), d.p.shape(width, height)
	if n, err := d.p.family.workspace(s, d.cond.batch); err == nil && n > largeWorkspace {
		d.e = tensor.NewExec(d.p.bundle.options.Pool)
		defer d.e.Until(ctx)()
		debug.FreeOSMemory()
	}
	l.FromModel(z)
	x := make([]float32, width*height*3)
	if err := d.p.vae.Decode(ctx, d.e, d.vae, x, vae.Map{Data: z, Width: s.width, Height: s.height}); err != nil {
		return nil, fmt.Errorf("diffusion: vae: %w", err)
	}
	return unsigned(x), nil
}

// enlarged returns the latents of one pass in the size of another.
func (d *drawing) enlarged(z []float32, from, to *pass) []float32 {
	a, b := d.p.shape(from.width, from.height), d.p.shape(to.width, to.height)
	y := make([]float32, b.floats())
	d.e.Resize(tensor.Resize{
		Y: y, X: z, Height: a.height, Width: a.width, OutHeight: b.height, OutWidth: b.width,
		Channels: a.channels, By: tensor.Bilinear,
	})
	return y
}

// walk takes the latents of a pass from its first level of noise to the last.
func (d *drawing) walk(ctx context.Context, ps *pass) ([]float32, error) {
	j, s := d.job, d.p.shape(ps.width, ps.height)
	net, err := d.denoiser(ps, s)
	if err != nil {
		return nil, err
	}
	noise, x := make([]float32, s.floats()), make([]float32, s.floats())
	j.noise(ps.streams+startStream, noise)
	if ps.from != nil && !ps.pure {
		ps.run.AddNoise(x, ps.from, noise, 0)
	} else {
		sigma := ps.run.InitSigma()
		for i, v := range noise {
			x[i] = sigma * v
		}
	}
	batch := d.cond.batch
	in := make([]float32, batch*s.height*s.width*d.p.family.traits().input)
	out, y := make([]float32, batch*len(x)), make([]float32, len(x))
	var seen []float32 // the picture as the network sees it
	if j.Observe != nil {
		seen = make([]float32, len(x))
	}
	for k, call := range ps.run.Calls() {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		ps.input(in, x, call.Scale, s)
		if err := net.forward(ctx, out, in, call.Timestep); err != nil {
			return nil, err
		}
		if batch == 2 {
			guide(y, out, j.Guidance, j.GuidanceRescale)
		} else {
			copy(y, out)
		}
		if seen != nil {
			ps.run.Predict(seen, x, y)
		}
		ps.run.Step(x, y)
		if ps.mask != nil && ps.masked == nil {
			ps.keep(x, y, noise, k+1)
		}
		d.news(ctx, seen, s)
		if j.seen != nil {
			j.seen(x)
		}
	}
	return x, nil
}

// denoiser returns the network ready for a pass.
func (d *drawing) denoiser(ps *pass, s shape) (denoiser, error) {
	net, err := d.p.family.denoiser(d.e, d.cond, s)
	if err != nil || d.job.control == nil {
		return net, err
	}
	c, ok := net.(controlled)
	if !ok {
		return nil, fmt.Errorf("diffusion: a ControlNet for a %s model: %w", d.p.info.Kind, ErrUnsupported)
	}
	picture := d.job.control
	if ps.width != d.job.Width || ps.height != d.job.Height {
		picture = floats(fit(d.job.Control, ps.width, ps.height))
	}
	return net, c.control(picture, ps.width, ps.height, d.job.ControlScale)
}

// input writes what the network reads, [B, H, W, input], of latents x times a scale: the
// same for each of the batch.
func (ps *pass) input(in, x []float32, scale float32, s shape) {
	wide := s.channels
	if ps.masked != nil { // latents, mask, masked latents
		wide = 2*s.channels + 1
	}
	one := in[:s.height*s.width*wide]
	for i := range s.height * s.width {
		pixel := one[i*wide:][:wide]
		for c, v := range x[i*s.channels:][:s.channels] {
			pixel[c] = scale * v
		}
		if ps.masked != nil {
			pixel[s.channels] = ps.mask[i]
			copy(pixel[s.channels+1:], ps.masked[i*s.channels:][:s.channels])
		}
	}
	for at := len(one); at < len(in); at += len(one) {
		copy(in[at:], one)
	}
}

// keep puts back the latents of the picture where the mask keeps them, with the noise of
// the next call. scratch is as long as x.
func (ps *pass) keep(x, scratch, noise []float32, next int) {
	ps.run.AddNoise(scratch, ps.from, noise, next)
	channels := len(x) / len(ps.mask)
	for i, m := range ps.mask {
		for c := i * channels; c < (i+1)*channels; c++ {
			x[c] = (1-m)*scratch[c] + m*x[c]
		}
	}
}

// news tells the observer that a call of the network is done.
func (d *drawing) news(ctx context.Context, seen []float32, s shape) {
	d.done++
	if d.job.Observe == nil {
		return
	}
	d.job.Observe(Step{Index: d.done, Total: d.total, Preview: func() *image.NRGBA {
		q, err := d.p.projection(ctx, d)
		if err != nil { // the call is about to end
			return image.NewNRGBA(image.Rect(0, 0, s.width, s.height))
		}
		return q.apply(seen, s)
	}})
}

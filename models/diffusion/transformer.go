package diffusion

import (
	"context"
	"fmt"

	"helicon/models/dit"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// transformer is one of the networks of package dit.
type transformer interface {
	NewState(dit.Shape) (*dit.State, error)
	Condition(*tensor.Exec, *dit.State, dit.Condition) error
	Forward(ctx context.Context, e *tensor.Exec, st *dit.State, y, x, t []float32) error
}

// transformerConfig reads the configuration of the bundle's transformer.
func transformerConfig[C any](b *bundle, parse func([]byte) (C, error)) (C, error) {
	var c C
	raw, err := b.Config("transformer")
	if err != nil {
		return c, err
	}
	if c, err = parse(raw); err != nil {
		return c, fmt.Errorf("diffusion: transformer/config.json: %w: %w", err, ErrUnsupported)
	}
	return c, nil
}

// loadTransformer reads the weights of the bundle's transformer.
func loadTransformer[C, M any](ctx context.Context, b *bundle, c C, load func(*weights.Store, C) (M, error)) (M, error) {
	var m M
	if ctx.Err() != nil {
		return m, context.Cause(ctx)
	}
	s, err := b.Packed("transformer")
	if err != nil {
		return m, err
	}
	if m, err = load(s, c); err != nil {
		return m, fmt.Errorf("diffusion: transformer: %w", err)
	}
	return m, nil
}

// transformerDenoiser is a transformer at work on one picture.
type transformerDenoiser struct {
	net   transformer
	e     *tensor.Exec
	state *dit.State
	times []float32
	wide  []float32 // what the network returns, if that has more channels than latents
	extra int       // how many more
	shape shape
}

// newTransformerDenoiser prepares a network that returns so many channels.
func newTransformerDenoiser(e *tensor.Exec, net transformer, c *condition, s shape, channels int) (denoiser, error) {
	size := dit.Shape{Batch: c.batch, Height: s.height, Width: s.width, Tokens: c.tokens}
	state, err := net.NewState(size)
	if err != nil {
		return nil, fmt.Errorf("diffusion: %w", err)
	}
	err = net.Condition(e, state, dit.Condition{
		States: c.context, Mask: c.mask, Pooled: c.pooled, Labels: c.labels, Guidance: c.guidance,
		Resolution: [2]int{c.height, c.width},
	})
	if err != nil {
		return nil, fmt.Errorf("diffusion: %w", err)
	}
	d := &transformerDenoiser{net: net, e: e, state: state, times: make([]float32, c.batch), shape: s}
	if d.extra = channels - s.channels; d.extra > 0 { // a learned variance, which samplers do not read
		d.wide = make([]float32, c.batch*s.height*s.width*channels)
	}
	return d, nil
}

func (d *transformerDenoiser) forward(ctx context.Context, y, x []float32, timestep float32) error {
	for i := range d.times {
		d.times[i] = timestep
	}
	if d.extra == 0 {
		return d.net.Forward(ctx, d.e, d.state, y, x, d.times)
	}
	if err := d.net.Forward(ctx, d.e, d.state, d.wide, x, d.times); err != nil {
		return err
	}
	n := d.shape.channels
	for i := range len(y) / n {
		copy(y[i*n:][:n], d.wide[i*(n+d.extra):])
	}
	return nil
}

// learned returns the channels of the latents of a network that may return a variance
// besides, and an error if it returns anything else.
func learned(in, out int) (int, error) {
	if out != in && out != 2*in {
		return 0, fmt.Errorf("diffusion: transformer/config.json: %d channels in and %d out: %w", in, out, ErrUnsupported)
	}
	return in, nil
}

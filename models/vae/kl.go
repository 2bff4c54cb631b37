package vae

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// KL is an AutoencoderKL.
type KL struct {
	config  Config
	encoder *encoder // or nil
	decoder *decoder
}

// encoder turns a picture into mean and log variance of latents.
type encoder struct {
	in     nn.Conv2d
	levels []level
	middle middle
	norm   nn.GroupNorm
	out    nn.Conv2d
	quant  *nn.Linear // [2C, 2C], or nil
}

// decoder turns latents into a picture.
type decoder struct {
	quant  *nn.Linear // [C, C], or nil
	in     nn.Conv2d
	middle middle
	levels []level
	norm   nn.GroupNorm
	out    nn.Conv2d
}

// Load reads "decoder" and, if the store has it, "encoder". Errors name the tensor.
func Load(s *weights.Store, c Config) (*KL, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	m := &KL{config: c}
	var err error
	if m.decoder, err = loadDecoder(s, &c); err != nil {
		return nil, fmt.Errorf("vae: %w", err)
	}
	if s.Has("encoder.conv_in.weight") {
		if m.encoder, err = loadEncoder(s, &c); err != nil {
			return nil, fmt.Errorf("vae: %w", err)
		}
	}
	return m, nil
}

func loadDecoder(s *weights.Store, c *Config) (d *decoder, err error) {
	d = &decoder{}
	if c.UsePostQuantConv {
		quant, err := nn.LoadLinear(s.Sub("post_quant_conv"), c.LatentChannels, c.LatentChannels, true)
		if err != nil {
			return nil, err
		}
		d.quant = &quant
	}
	s = s.Sub("decoder")
	channels := slices.Clone(c.Channels)
	slices.Reverse(channels)
	if d.in, err = nn.LoadConv2d(s.Sub("conv_in"), square(c.LatentChannels, channels[0]), true); err != nil {
		return nil, err
	}
	if d.middle, err = loadMiddle(s.Sub("mid_block"), c); err != nil {
		return nil, err
	}
	in := channels[0]
	for i, out := range channels {
		l, err := loadLevel(s.Sub("up_blocks."+strconv.Itoa(i)), c, in, out, c.Layers+1)
		if err != nil {
			return nil, err
		}
		if i < len(channels)-1 {
			conv, err := nn.LoadConv2d(s.Sub("up_blocks."+strconv.Itoa(i)+".upsamplers.0.conv"), double(out), true)
			if err != nil {
				return nil, err
			}
			l.resize = &conv
		}
		d.levels, in = append(d.levels, l), out
	}
	if d.norm, err = nn.LoadGroupNorm(s.Sub("conv_norm_out"), c.Groups, in, normEps); err != nil {
		return nil, err
	}
	d.out, err = nn.LoadConv2d(s.Sub("conv_out"), square(in, c.OutChannels), true)
	return d, err
}

func loadEncoder(s *weights.Store, c *Config) (m *encoder, err error) {
	m = &encoder{}
	moments := 2 * c.LatentChannels
	if c.UseQuantConv {
		quant, err := nn.LoadLinear(s.Sub("quant_conv"), moments, moments, true)
		if err != nil {
			return nil, err
		}
		m.quant = &quant
	}
	s = s.Sub("encoder")
	in := c.Channels[0]
	if m.in, err = nn.LoadConv2d(s.Sub("conv_in"), square(c.InChannels, in), true); err != nil {
		return nil, err
	}
	for i, out := range c.Channels {
		l, err := loadLevel(s.Sub("down_blocks."+strconv.Itoa(i)), c, in, out, c.Layers)
		if err != nil {
			return nil, err
		}
		if i < len(c.Channels)-1 {
			conv, err := nn.LoadConv2d(s.Sub("down_blocks."+strconv.Itoa(i)+".downsamplers.0.conv"), halve(out), true)
			if err != nil {
				return nil, err
			}
			l.resize = &conv
		}
		m.levels, in = append(m.levels, l), out
	}
	if m.middle, err = loadMiddle(s.Sub("mid_block"), c); err != nil {
		return nil, err
	}
	if m.norm, err = nn.LoadGroupNorm(s.Sub("conv_norm_out"), c.Groups, in, normEps); err != nil {
		return nil, err
	}
	m.out, err = nn.LoadConv2d(s.Sub("conv_out"), square(in, moments), true)
	return m, err
}

func loadLevel(s *weights.Store, c *Config, in, out, layers int) (l level, err error) {
	for j := range layers {
		b, err := loadResnet(s.Sub("resnets."+strconv.Itoa(j)), c.Groups, in, out)
		if err != nil {
			return l, err
		}
		l.resnets, in = append(l.resnets, b), out
	}
	return l, nil
}

// Latents describes the latents.
func (m *KL) Latents() Latents { return m.config.Latents() }

// Encodes reports whether the encoder was loaded.
func (m *KL) Encodes() bool { return m.encoder != nil }

// Config returns what the autoencoder was loaded with.
func (m *KL) Config() Config { return m.config }

// Bytes returns the memory of the weights.
func (m *KL) Bytes() int64 {
	d := m.decoder
	n := d.in.Bytes() + d.middle.bytes() + bytesOf(d.levels) + d.norm.Bytes() + d.out.Bytes() + bytesOfQuant(d.quant)
	if e := m.encoder; e != nil {
		n += e.in.Bytes() + bytesOf(e.levels) + e.middle.bytes() + e.norm.Bytes() + e.out.Bytes() + bytesOfQuant(e.quant)
	}
	return n
}

func bytesOf(levels []level) (n int64) {
	for i := range levels {
		n += levels[i].bytes()
	}
	return n
}

func bytesOfQuant(l *nn.Linear) int64 {
	if l == nil {
		return 0
	}
	return l.Bytes()
}

// Decode is Autoencoder's.
func (m *KL) Decode(ctx context.Context, e *tensor.Exec, st *State, dst []float32, z Map) error {
	l := m.Latents()
	if err := z.check("latents", l.Channels, 1); err != nil {
		return err
	}
	if want := len(z.Data) / l.Channels * l.Down * l.Down * 3; len(dst) != want {
		return fmt.Errorf("vae: a picture of %d floats, want %d: %w", len(dst), want, ErrInput)
	}
	p := m.config.decodePlan(z.Height, z.Width, st.tile)
	if max(z.Height, z.Width) <= st.tile {
		return m.decoder.forward(ctx, st.run(e, p), dst, z, nil)
	}
	return blended{
		in: z, out: dst, inChannels: l.Channels, outChannels: 3, step: 1, up: l.Down, tile: st.tile,
	}.run(st, func(out []float32, in Map) error { return m.decoder.forward(ctx, st.run(e, p), out, in, nil) })
}

// observer is called with activations [H, W, C], by the names of the modules that made
// them. Tests have one.
type observer func(module string, x []float32)

func (o observer) see(module string, x []float32) {
	if o != nil {
		o(module, x)
	}
}

// level is see for a level's number.
func (o observer) level(module string, i int, x []float32) {
	if o != nil {
		o(module+strconv.Itoa(i), x)
	}
}

func (d *decoder) forward(ctx context.Context, r *run, dst []float32, z Map, see observer) error {
	x := r.start(z.Height, z.Width, len(z.Data)/(z.Height*z.Width))
	if d.quant != nil {
		d.quant.Forward(r.e, x, z.Data)
	} else {
		copy(x, z.Data)
	}
	r.conv(&d.in, 0) // [h, w, C of the last level]
	see.see("conv_in", r.x())
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d.middle.forward(r)
	see.see("mid_block", r.x())
	for i := range d.levels {
		l := &d.levels[i]
		for j := range l.resnets {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			l.resnets[j].forward(r)
		}
		if l.resize != nil {
			r.conv(l.resize, 0) // twice the size
		}
		see.level("up_blocks.", i, r.x())
	}
	d.norm.Forward(r.e, r.x(), r.x(), 1, tensor.SiLU)
	d.out.Forward(r.e, tensor.Convolution{Y: dst, X: r.x(), Height: r.height, Width: r.width})
	return nil
}

// Encode is Autoencoder's.
func (m *KL) Encode(ctx context.Context, e *tensor.Exec, st *State, dst []float32, picture Map, noise []float32) error {
	if noise != nil && len(noise) != len(dst) {
		return fmt.Errorf("vae: noise of %d floats for %d: %w", len(noise), len(dst), ErrInput)
	}
	moments := grow(&st.moments, 2*len(dst))
	if err := m.Moments(ctx, e, st, moments, picture); err != nil {
		return err
	}
	c := m.config.LatentChannels
	for i := range dst {
		at := i/c*2*c + i%c
		dst[i] = moments[at]
		if noise != nil {
			dst[i] += float32(math.Exp(0.5*float64(moments[at+c]))) * noise[i]
		}
	}
	return nil
}

// errNoEncoder is the error of an autoencoder whose file has the decoder alone.
var errNoEncoder = fmt.Errorf("vae: an autoencoder without encoder: %w", ErrUnsupported)

// Moments writes into dst [H/Down, W/Down, 2C] the means of the latents of a picture and
// the logarithms of their variances, -30 to 20. Errors are Encode's.
func (m *KL) Moments(ctx context.Context, e *tensor.Exec, st *State, dst []float32, picture Map) error {
	if m.encoder == nil {
		return errNoEncoder
	}
	l := m.Latents()
	if err := picture.check("picture", 3, l.Down); err != nil {
		return err
	}
	h, w, moments := picture.Height/l.Down, picture.Width/l.Down, 2*l.Channels
	if len(dst) != h*w*moments {
		return fmt.Errorf("vae: moments of %d floats, want %d: %w", len(dst), h*w*moments, ErrInput)
	}
	p := m.config.encodePlan(h, w, st.tile)
	var err error
	if max(h, w) <= st.tile {
		err = m.encoder.forward(ctx, st.run(e, p), dst, picture, nil)
	} else {
		err = blended{
			in: picture, out: dst, inChannels: 3, outChannels: moments, step: l.Down, up: 1, tile: st.tile,
		}.run(st, func(out []float32, in Map) error { return m.encoder.forward(ctx, st.run(e, p), out, in, nil) })
	}
	if err != nil {
		return err
	}
	for ; len(dst) > 0; dst = dst[moments:] {
		for i, v := range dst[l.Channels:moments] {
			dst[l.Channels+i] = min(max(v, -30), 20)
		}
	}
	return nil
}

func (m *encoder) forward(ctx context.Context, r *run, dst []float32, picture Map, see observer) error {
	copy(r.start(picture.Height, picture.Width, 3), picture.Data)
	r.conv(&m.in, 0) // [H, W, C of the first level]
	see.see("conv_in", r.x())
	for i := range m.levels {
		l := &m.levels[i]
		for j := range l.resnets {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			l.resnets[j].forward(r)
		}
		if l.resize != nil {
			r.conv(l.resize, 0) // half the size
		}
		see.level("down_blocks.", i, r.x())
	}
	m.middle.forward(r)
	see.see("mid_block", r.x())
	m.norm.Forward(r.e, r.x(), r.x(), 1, tensor.SiLU)
	r.conv(&m.out, 0) // [h, w, 2C]
	if m.quant == nil {
		copy(dst, r.x())
		return nil
	}
	m.quant.Forward(r.e, dst, r.x())
	return nil
}

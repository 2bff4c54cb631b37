// Package unet has the convolutional networks that denoise images: the UNet of Stable
// Diffusion 1, 2 and XL, of LCM and of inpainting (Rombach et al. 2022; Podell et al.
// 2023; Luo et al. 2023; diffusers' UNet2DConditionModel), the unconditional one of DDPM
// (Ho et al. 2020; UNet2DModel), and ControlNet (Zhang et al. 2023; ControlNetModel).
//
// Images are [B, H, W, C] in latent pixels. A network is read-only once loaded and shared;
// what a picture needs is in its State, and a step allocates nothing. Axes: B images,
// P pixels, C channels, D dimension of the embedded time, S tokens of the context.
package unet

import (
	"context"
	"fmt"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Model is a UNet: a way down, a middle and a way up, whose stages also see what left the
// stage of their size on the way down.
type Model struct {
	encoder
	up      []block
	normOut nn.GroupNorm
	convOut nn.Conv2d
}

// Load reads the network of a configuration of class Conditional or Unconditional. The
// error wraps ErrUnsupported, or those of weights.Store about a tensor.
func Load(s *weights.Store, c Config) (*Model, error) {
	if c.Class == Control {
		return nil, fmt.Errorf("unet: a %s makes no image by itself: %w", Control, ErrUnsupported)
	}
	l, p, err := newLoader(c)
	if err != nil {
		return nil, err
	}
	m := &Model{encoder: l.encoder(s, p)}
	m.up = l.upBlocks(s.Sub("up_blocks"), p.up)
	m.normOut = l.groupNorm(s.Sub("conv_norm_out"), c.Groups, c.BlockOut[0], c.NormEps)
	m.convOut = l.conv(s.Sub("conv_out"), same3x3(c.BlockOut[0], c.OutChannels))
	if err := m.finish(l); err != nil {
		return nil, err
	}
	return m, nil
}

// Forward computes what the network predicts, y [B, H, W, OutChannels], of images x
// [B, H, W, InChannels] at their times t [B]. It returns ctx's cause if ctx ends before
// that, after which the state can be used again, and an error if one of the state's
// Controls is no ControlNet for this network. The state must have been conditioned.
func (m *Model) Forward(ctx context.Context, e *tensor.Exec, s *State, y, x, t []float32) error {
	if err := m.descend(ctx, e, s, x, t); err != nil {
		return err
	}
	if err := s.addControls(e); err != nil {
		return err
	}
	if err := m.ascend(ctx, e, s); err != nil {
		return err
	}
	out := s.h[:s.Batch*s.sizes[0].pixels()*m.config.BlockOut[0]]
	m.normOut.Forward(e, out, out, s.Batch, m.act)
	m.convOut.Forward(e, s.image(y, out, s.sizes[0]))
	return nil
}

// ascend takes the image from the middle, in s.h, up to its full size.
func (m *Model) ascend(ctx context.Context, e *tensor.Exec, s *State) error {
	skip := len(s.skips)
	for i := range m.up {
		b := &m.up[i]
		level := len(m.up) - 1 - i
		size := s.sizes[level]
		rows := s.Batch * size.pixels()
		for j := range b.resnets {
			if err := stopped(ctx); err != nil {
				return err
			}
			r := &b.resnets[j]
			skip--
			joined, x := s.g[:rows*r.in], s.h[:rows*r.out]
			e.Concat(joined, s.h[:rows*(r.in-r.skip)], s.skips[skip], rows)
			r.forward(e, s, x, joined, size)
			if j < len(b.attentions) {
				b.attentions[j].forward(e, s, x)
			}
		}
		if b.shape.sampler {
			b.enlarge(e, s, size, s.sizes[level-1])
			rows = s.Batch * s.sizes[level-1].pixels()
		}
		s.seen("up_block", i, s.h[:rows*b.resnets[0].out])
	}
	return nil
}

// enlarge brings the image in s.h to the size of the next skips, which is twice its own
// or, where that was odd, a pixel less.
func (b *block) enlarge(e *tensor.Exec, s *State, from, to extent) {
	channels := b.resnets[0].out
	x, y := s.h[:s.Batch*from.pixels()*channels], s.g[:s.Batch*to.pixels()*channels]
	if to.height == 2*from.height && to.width == 2*from.width {
		b.doubled.Forward(e, s.image(y, x, from))
		s.h, s.g = s.g, s.h
		return
	}
	e.Resize(tensor.Resize{
		Y: y, X: x, Batch: s.Batch, Height: from.height, Width: from.width,
		OutHeight: to.height, OutWidth: to.width, Channels: channels,
	})
	b.sampler.Forward(e, s.image(s.h[:len(y)], y, to))
}

// addControls adds the residuals of the state's ControlNets. The error says that one is
// of another network, or of another size.
func (s *State) addControls(e *tensor.Exec) error {
	for _, c := range s.Controls {
		last := len(c.residuals) - 1
		if last != len(s.skips) {
			return fmt.Errorf("unet: a ControlNet with %d residuals for a network that takes %d", last, len(s.skips))
		}
		for i, r := range c.residuals[:last] {
			if len(r) != len(s.skips[i]) {
				return fmt.Errorf("unet: a ControlNet's residual %d has %d floats, want %d", i, len(r), len(s.skips[i]))
			}
			e.Add(s.skips[i], r)
		}
		e.Add(s.h[:len(c.residuals[last])], c.residuals[last])
	}
	return nil
}

// stopped returns the cause of ctx's end, nil while it goes on.
func stopped(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

package unet

import (
	"context"
	"fmt"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// ControlNet is a copy of a UNet's way down and middle that also sees a hint, as of edges
// or depth, and makes residuals for the UNet (Zhang et al. 2023).
type ControlNet struct {
	encoder
	hints  []nn.Conv2d // with SiLU between them, every second of the middle ones halves the image
	zeros  []nn.Linear // of each output on the way down: convolutions of one pixel
	middle nn.Linear
}

// LoadControlNet reads the network of a configuration of class Control. Its errors are
// those of Load.
func LoadControlNet(s *weights.Store, c Config) (*ControlNet, error) {
	if c.Class != Control {
		return nil, fmt.Errorf("unet: class %q is no ControlNet: %w", c.Class, ErrUnsupported)
	}
	l, p, err := newLoader(c)
	if err != nil {
		return nil, err
	}
	m := &ControlNet{encoder: l.encoder(s, p), hints: l.hints(s.Sub("controlnet_cond_embedding"))}
	channels := []int{c.BlockOut[0]}
	for _, st := range p.down {
		for _, r := range st.resnets {
			channels = append(channels, r.out)
		}
		if st.sampler {
			channels = append(channels, st.resnets[0].out)
		}
	}
	for i, n := range channels {
		m.zeros = append(m.zeros, l.linear(s.Sub("controlnet_down_blocks").Sub(strconv.Itoa(i)), n, n, true))
	}
	last := channels[len(channels)-1]
	m.middle = l.linear(s.Sub("controlnet_mid_block"), last, last, true)
	if err := m.finish(l); err != nil {
		return nil, err
	}
	return m, nil
}

// hints reads the convolutions of the hint.
func (l *loader) hints(s *weights.Store) []nn.Conv2d {
	out := l.c.HintOut
	list := []nn.Conv2d{l.conv(s.Sub("conv_in"), same3x3(l.c.HintChannels, out[0]))}
	for i := range len(out) - 1 {
		half := same3x3(out[i], out[i+1])
		half.Stride = [2]int{2, 2}
		list = append(list, l.conv(s.Sub("blocks."+strconv.Itoa(2*i)), same3x3(out[i], out[i])),
			l.conv(s.Sub("blocks."+strconv.Itoa(2*i+1)), half))
	}
	return append(list, l.conv(s.Sub("conv_out"), same3x3(out[len(out)-1], l.c.BlockOut[0])))
}

// HintScale returns how many times as high and wide as the latent image a hint is.
func (m *ControlNet) HintScale() int { return 1 << (len(m.config.HintOut) - 1) }

// SetHint embeds the hint of a picture: one image [H, W, C] for all of the batch, or
// [B, H, W, C], in 0 to 1 and HintScale times the size of the latent image, C most often
// RGB. The error says that it has another size.
func (m *ControlNet) SetHint(e *tensor.Exec, s *State, hint []float32) error {
	h, w, c := s.Height*m.HintScale(), s.Width*m.HintScale(), m.config.HintChannels
	batch := 1
	if len(hint) == s.Batch*h*w*c {
		batch = s.Batch
	}
	if len(hint) != batch*h*w*c {
		return fmt.Errorf("unet: hint of %d floats, want [%d, %d, %d]", len(hint), h, w, c)
	}
	x := hint
	if m.config.HintOrder == "bgr" {
		x = make([]float32, len(hint))
		for i := range x {
			x[i] = hint[i/c*c+c-1-i%c]
		}
	}
	for i := range m.hints {
		config := m.hints[i].Config()
		call := tensor.Convolution{X: x, Batch: batch, Height: h, Width: w, Activation: tensor.SiLU}
		if i == len(m.hints)-1 {
			call.Activation = 0
		}
		h, w = config.OutSize(h, w)
		call.Y = make([]float32, batch*h*w*config.Out)
		m.hints[i].Forward(e, call)
		x = call.Y
	}
	for at := 0; at < len(s.hint); at += len(x) {
		copy(s.hint[at:], x)
	}
	s.hinted = true
	return nil
}

// Forward computes the residuals, times a scale, of images x [B, H, W, InChannels] at
// times t [B], and leaves them in the state: see State.Controls. It returns ctx's cause
// if ctx ends before that. The state must have been conditioned and given a hint.
func (m *ControlNet) Forward(ctx context.Context, e *tensor.Exec, s *State, x, t []float32, scale float32) error {
	if !s.hinted {
		panic("unet: the state has no hint")
	}
	if err := m.descend(ctx, e, s, x, t); err != nil {
		return err
	}
	last := len(m.zeros)
	for i := range m.zeros {
		m.zeros[i].Forward(e, s.residuals[i], s.skips[i])
	}
	m.middle.Forward(e, s.residuals[last], s.h[:len(s.residuals[last])])
	for i, r := range s.residuals {
		if m.config.GlobalPool {
			channels := m.middle.Weight.Rows
			if i < last {
				channels = m.zeros[i].Weight.Rows
			}
			poolImages(r, s.Batch, channels)
		}
		for j := range r {
			r[j] *= scale
		}
	}
	return nil
}

// poolImages replaces the pixels of each image of x [B, P, C] by their mean.
func poolImages(x []float32, batch, channels int) {
	n := len(x) / batch
	for b := range batch {
		image := x[b*n:][:n]
		for c := range channels {
			sum := 0.0
			for i := c; i < n; i += channels {
				sum += float64(image[i])
			}
			mean := float32(sum / float64(n/channels))
			for i := c; i < n; i += channels {
				image[i] = mean
			}
		}
	}
}

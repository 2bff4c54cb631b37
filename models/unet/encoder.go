package unet

import (
	"context"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// encoder is the half that a UNet and a ControlNet have in common: the embeddings, the way
// down and the middle.
type encoder struct {
	config     Config
	act        tensor.Activation
	embeddings embeddings
	convIn     nn.Conv2d
	down       []block
	mid        *block
	cross      []attention // of the whole network, by their slots
	bytes      int64
}

// block is the layers of a stage.
type block struct {
	shape      stage
	resnets    []resnet
	attentions []attender
	sampler    nn.Conv2d // if the shape has one
	doubled    nn.Conv2d // on the way up, the sampler with the doubling of the image in it
}

func (l *loader) encoder(s *weights.Store, p plan) encoder {
	m := encoder{config: l.c, act: l.act}
	m.embeddings = l.embeddings(asStored(s))
	m.convIn = l.conv(s.Sub("conv_in"), same3x3(l.c.InChannels, l.c.BlockOut[0]))
	m.down = l.downBlocks(s.Sub("down_blocks"), p.down)
	if p.mid != nil {
		mid := l.block(s.Sub("mid_block"), *p.mid, p.mid.attentions(true))
		m.mid = &mid
	}
	return m
}

// finish takes over what the loader has counted, and returns its error.
func (m *encoder) finish(l *loader) error {
	m.cross, m.bytes = l.cross, l.bytes
	return l.err
}

// Config returns the configuration.
func (m *encoder) Config() Config { return m.config }

// Bytes returns the memory of the weights.
func (m *encoder) Bytes() int64 { return m.bytes }

// NewState returns the memory for images of a shape. The errors are those of Workspace.
func (m *encoder) NewState(shape Shape) (*State, error) { return newState(&m.config, shape) }

// descend takes the images x at times t through the way down, leaving what each step makes
// in s.skips, and through the middle, leaving its result in s.h.
func (m *encoder) descend(ctx context.Context, e *tensor.Exec, s *State, x, t []float32) error {
	if !s.ready {
		panic("unet: the state has not been conditioned")
	}
	m.embeddings.time(e, s, t)
	m.convIn.Forward(e, s.image(s.skips[0], x, s.sizes[0]))
	s.seen("conv_in", -1, s.skips[0])
	if s.hint != nil {
		e.Add(s.skips[0], s.hint)
	}
	at := 0
	for i := range m.down {
		b := &m.down[i]
		for j := range b.resnets {
			if err := stopped(ctx); err != nil {
				return err
			}
			b.resnets[j].forward(e, s, s.skips[at+1], s.skips[at], s.sizes[i])
			at++
			if j < len(b.attentions) {
				b.attentions[j].forward(e, s, s.skips[at])
			}
		}
		if b.shape.sampler {
			b.sampler.Forward(e, s.image(s.skips[at+1], s.skips[at], s.sizes[i]))
			at++
		}
		s.seen("down_block", i, s.skips[at])
	}
	return m.middle(ctx, e, s, s.skips[at])
}

// middle computes s.h of x.
func (m *encoder) middle(ctx context.Context, e *tensor.Exec, s *State, x []float32) error {
	n := len(x)
	if m.mid == nil {
		copy(s.h, x)
		return nil
	}
	for i := range m.mid.resnets {
		if err := stopped(ctx); err != nil {
			return err
		}
		m.mid.resnets[i].forward(e, s, s.g[:n], x, s.sizes[len(s.sizes)-1])
		s.h, s.g = s.g, s.h
		x = s.h[:n]
		if i < len(m.mid.attentions) {
			m.mid.attentions[i].forward(e, s, x)
		}
	}
	s.seen("mid_block", -1, x)
	return nil
}

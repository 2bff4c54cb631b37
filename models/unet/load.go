package unet

import (
	"fmt"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// loader reads layers, counts what they take, and keeps the first error: after it, layers
// are empty.
type loader struct {
	c     Config
	act   tensor.Activation
	err   error
	bytes int64
	cross []attention // that have keys and values of the context, by their slots
}

// newLoader returns a loader for a configuration, and the plan of what is to be read.
func newLoader(c Config) (*loader, plan, error) {
	if err := c.validate(); err != nil {
		return nil, plan{}, fmt.Errorf("unet: config: %w", err)
	}
	p, err := c.plan()
	act, _ := tensor.ParseActivation(c.Act)
	return &loader{c: c, act: act}, p, err
}

// layer is what all layers have.
type layer interface{ Bytes() int64 }

// read returns what load makes, unless there has been an error.
func read[T layer](l *loader, load func() (T, error)) T {
	var none T
	if l.err != nil {
		return none
	}
	x, err := load()
	if err != nil {
		l.err = err
		return none
	}
	l.bytes += x.Bytes()
	return x
}

func (l *loader) linear(s *weights.Store, out, in int, bias bool) nn.Linear {
	return read(l, func() (nn.Linear, error) { return nn.LoadLinear(s, out, in, bias) })
}

func (l *loader) embedding(s *weights.Store, n, channels int) nn.Embedding {
	table := read(l, func() (nn.Linear, error) { return nn.LoadLinear(s, n, channels, false) })
	return nn.Embedding{Weight: table.Weight}
}

func (l *loader) conv(s *weights.Store, c tensor.ConvConfig) nn.Conv2d {
	return read(l, func() (nn.Conv2d, error) { return nn.LoadConv2d(s, c, true) })
}

func (l *loader) groupNorm(s *weights.Store, groups, channels int, eps float32) nn.GroupNorm {
	return read(l, func() (nn.GroupNorm, error) { return nn.LoadGroupNorm(s, groups, channels, eps) })
}

func (l *loader) layerNorm(s *weights.Store, channels int) nn.LayerNorm {
	const eps = 1e-5
	return read(l, func() (nn.LayerNorm, error) { return nn.LoadLayerNorm(s, channels, eps) })
}

// block reads the layers of a stage.
func (l *loader) block(s *weights.Store, shape stage, attentions int) block {
	b := block{shape: shape}
	for i, r := range shape.resnets {
		b.resnets = append(b.resnets, l.resnet(s.Sub("resnets").Sub(strconv.Itoa(i)), r))
		if i < attentions {
			b.attentions = append(b.attentions, l.attender(s.Sub("attentions").Sub(strconv.Itoa(i)), shape.attention))
		}
	}
	return b
}

func (l *loader) attender(s *weights.Store, shape attentionShape) attender {
	if shape.kind == spatial {
		return l.spatialAttention(s, shape)
	}
	return l.transformer(s, shape)
}

// downBlocks reads the blocks of the way down.
func (l *loader) downBlocks(s *weights.Store, stages []stage) []block {
	var list []block
	for i, shape := range stages {
		s := s.Sub(strconv.Itoa(i))
		b := l.block(s, shape, shape.attentions(false))
		if shape.sampler {
			b.sampler = l.conv(s.Sub("downsamplers.0.conv"), downsampling(shape.resnets[0].out, l.c.DownPadding))
		}
		list = append(list, b)
	}
	return list
}

// upBlocks reads the blocks of the way up.
func (l *loader) upBlocks(s *weights.Store, stages []stage) []block {
	var list []block
	for i, shape := range stages {
		s := s.Sub(strconv.Itoa(i))
		b := l.block(s, shape, shape.attentions(false))
		if shape.sampler {
			s, config := s.Sub("upsamplers.0.conv"), same3x3(shape.resnets[0].out, shape.resnets[0].out)
			b.sampler = l.conv(s, config)
			config.Upsample = 2
			b.doubled = l.conv(s, config)
		}
		list = append(list, b)
	}
	return list
}

// same3x3 is a convolution of 3×3 pixels that keeps the size of the image.
func same3x3(in, out int) tensor.ConvConfig {
	return tensor.ConvConfig{In: in, Out: out, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}
}

// downsampling is the convolution that halves an image.
func downsampling(channels, padding int) tensor.ConvConfig {
	c := same3x3(channels, channels)
	c.Stride = [2]int{2, 2}
	if padding == 0 {
		c.Padding = [4]int{0, 0, 1, 1} // as the reference pads before it
	}
	return c
}

// asStored returns the store with its layers packed but computed in the type that their
// weights have: layers of a row or two take no time, and all others depend on them.
func asStored(s *weights.Store) *weights.Store {
	if p := s.Packing(); p.On {
		return s.Packed(p.Arena, 0)
	}
	return s
}

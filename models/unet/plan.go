package unet

import (
	"fmt"
	"slices"
)

// The kinds of blocks that are computed, by the names of configurations.
const (
	plainDown = "DownBlock2D"
	crossDown = "CrossAttnDownBlock2D"
	attnDown  = "AttnDownBlock2D"
	plainUp   = "UpBlock2D"
	crossUp   = "CrossAttnUpBlock2D"
	attnUp    = "AttnUpBlock2D"
)

// plan is the network as a list of stages, which is all that its loading, its memory and
// its computation need to know of a configuration.
type plan struct {
	down, up []stage
	mid      *stage // nil: none
}

// stage is a block of the network, at one size of the image.
type stage struct {
	resnets   []resnetShape
	attention attentionShape // after each of the resnets, but after the last of the middle
	sampler   bool           // the size changes at the end of it
}

// resnetShape is the channels that a resnet takes, among them skip from the way down, and
// makes.
type resnetShape struct{ in, skip, out int }

// attentionShape is what attends in a stage. The zero value is nothing.
type attentionShape struct {
	kind      attentionKind
	channels  int
	heads     int
	layers    int // of a transformer
	context   int // channels of what a transformer attends to
	onlyCross bool
	groups    int
}

type attentionKind uint8

const (
	noAttention  attentionKind = iota
	spatial                    // of the pixels to each other
	transformers               // of the pixels to each other and to the context
)

// plan returns the stages. The error wraps ErrUnsupported if a block is of another kind.
func (c *Config) plan() (plan, error) {
	var p plan
	n := len(c.BlockOut)
	channels := c.BlockOut[0]
	for i, kind := range c.DownBlocks {
		attention, err := c.attention(kind, i)
		if err != nil {
			return p, err
		}
		s := stage{attention: attention, sampler: i < n-1}
		for range at(c.LayersPerBlock, i) {
			s.resnets = append(s.resnets, resnetShape{in: channels, out: c.BlockOut[i]})
			channels = c.BlockOut[i]
		}
		p.down = append(p.down, s)
	}
	mid, err := c.middle()
	if err != nil {
		return p, err
	}
	p.mid = mid
	if c.Class == Control {
		return p, nil
	}
	for i, kind := range c.UpBlocks {
		level := n - 1 - i
		attention, err := c.attention(kind, level)
		if err != nil {
			return p, err
		}
		s := stage{attention: attention, sampler: i < n-1}
		layers := at(c.LayersPerBlock, level) + 1
		for j := range layers {
			skip := c.BlockOut[level]
			if j == layers-1 {
				skip = c.BlockOut[max(level-1, 0)]
			}
			if (channels+skip)%c.Groups != 0 {
				return p, fmt.Errorf("unet: config: %d channels do not divide into %d groups: %w", channels+skip, c.Groups, ErrUnsupported)
			}
			s.resnets = append(s.resnets, resnetShape{in: channels + skip, skip: skip, out: c.BlockOut[level]})
			channels = c.BlockOut[level]
		}
		p.up = append(p.up, s)
	}
	return p, nil
}

// attention returns what attends in a block of a kind and level.
func (c *Config) attention(kind string, level int) (attentionShape, error) {
	a := attentionShape{channels: c.BlockOut[level], heads: c.heads(level), groups: c.Groups}
	switch kind {
	case plainDown, plainUp:
		return attentionShape{}, nil
	case attnDown, attnUp:
		a.kind = spatial
		return a, nil
	case crossDown, crossUp:
		if c.Class == Unconditional {
			break
		}
		if at(c.CrossAttention, level) != c.CrossAttention[0] {
			return a, fmt.Errorf("unet: config: cross_attention_dim %v, one context for all: %w", c.CrossAttention, ErrUnsupported)
		}
		a.kind = transformers
		a.layers, a.context, a.onlyCross = at(c.TransformerLayers, level), c.CrossAttention[0], at(c.OnlyCross, level)
		return a, nil
	}
	return a, fmt.Errorf("unet: config: block %q: %w", kind, ErrUnsupported)
}

// middle returns the stage between the ways down and up: two resnets and, between them,
// attention. A network may have none.
func (c *Config) middle() (*stage, error) {
	if c.MidBlock == nil {
		return nil, nil
	}
	last := len(c.BlockOut) - 1
	channels := c.BlockOut[last]
	s := &stage{resnets: slices.Repeat([]resnetShape{{in: channels, out: channels}}, 2)}
	var err error
	switch *c.MidBlock {
	case "UNetMidBlock2DCrossAttn":
		if s.attention, err = c.attention(crossDown, last); err != nil {
			return nil, err
		}
		s.attention.onlyCross = false
	case "UNetMidBlock2D":
		// In a Conditional network this kind has a single resnet and nothing that attends.
		if c.Class != Unconditional {
			s.resnets = s.resnets[:1]
		} else if c.AddAttention {
			s.attention = attentionShape{kind: spatial, channels: channels, heads: c.heads(last), groups: c.Groups}
			if c.MidGroups != nil {
				s.attention.groups = *c.MidGroups
			}
		}
	default:
		return nil, fmt.Errorf("unet: config: mid_block_type %q: %w", *c.MidBlock, ErrUnsupported)
	}
	return s, nil
}

// attentions returns how many of the stage's resnets are followed by attention.
func (s *stage) attentions(mid bool) int {
	if s.attention.kind == noAttention {
		return 0
	}
	if mid {
		return len(s.resnets) - 1
	}
	return len(s.resnets)
}

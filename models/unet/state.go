package unet

import (
	"fmt"
	"slices"

	"helicon/models/tensor"
)

// Shape is the size of what a network computes at once.
type Shape struct {
	Height, Width int // of the image, in latent pixels
	Batch         int // B images, among them those without guidance
	Tokens        int // of the context of each image; 0 for an Unconditional network
}

// Bounds of a Shape, so that sizes can be counted without overflow.
const (
	maxSide   = 1 << 14
	maxBatch  = 1 << 10
	maxTokens = 1 << 16
)

// extent is the size of an image.
type extent struct{ height, width int }

func (x extent) pixels() int { return x.height * x.width }

// State is the memory of a network at work on a picture: all activations, and what does
// not change from step to step. It belongs to one caller at a time.
type State struct {
	Shape

	// Controls are the states of ControlNets, after their Forward: their residuals are
	// added to the network's own.
	Controls []*State

	sizes  []extent    // of the stages on the way down
	skips  [][]float32 // [B, P, C]: the outputs on the way down
	h, g   []float32   // the image on the way up, and joined with a skip
	a, b   []float32   // a norm's output and the middle of a block
	q      []float32   // queries; an MLP's output
	k, v   []float32   // keys and values; an MLP's middle
	cross  []keyValue  // of the context
	sin    []float32   // [B, C], the sinusoidal embedding
	hidden []float32   // [B, D], the middle of an embedding
	emb    []float32   // [B, D], the time and what is added to it, activated
	added  []float32   // [B, D], what does not change with the time
	guide  []float32   // [B, C], LCM's guidance
	film   []float32   // what the time is for a resnet

	residuals [][]float32 // a ControlNet's, of skips and middle
	hint      []float32   // its embedded hint [B, P, C]

	ready   bool // conditioned
	hinted  bool // hint is set
	bytes   int64
	observe func(name string, i int, x []float32) // in tests
}

// keyValue is the keys and values of a context, [B, S, C] each.
type keyValue struct{ k, v []float32 }

// Bytes returns the memory of the state.
func (s *State) Bytes() int64 { return s.bytes }

// image returns the convolution of x to y, of the state's batch and a size.
func (s *State) image(y, x []float32, size extent) tensor.Convolution {
	return tensor.Convolution{Y: y, X: x, Batch: s.Batch, Height: size.height, Width: size.width}
}

// seen tells a test of an intermediate result, that of block i if i is not negative.
func (s *State) seen(name string, i int, x []float32) {
	if s.observe != nil {
		s.observe(name, i, x)
	}
}

// Workspace returns the bytes that a State takes, without making one. The error says
// which of the sizes is out of range: not positive, too large, or too small to be halved
// as often as the network does.
func Workspace(c Config, shape Shape) (int64, error) {
	parts, err := new(State).parts(&c, shape)
	return 4 * total(parts), err
}

// newState returns the memory for images of a shape. The errors are those of Workspace.
func newState(c *Config, shape Shape) (*State, error) {
	s := &State{Shape: shape}
	parts, err := s.parts(c, shape)
	if err != nil {
		return nil, err
	}
	memory := make([]float32, total(parts))
	s.bytes = 4 * int64(len(memory))
	for _, p := range parts {
		*p.slice = memory[:p.floats:p.floats]
		memory = memory[lines(p.floats):]
	}
	return s, nil
}

// part is one of the slices that memory is divided into.
type part struct {
	slice  *[]float32
	floats int64
}

func total(parts []part) int64 {
	n := int64(0)
	for _, p := range parts {
		n += lines(p.floats)
	}
	return n
}

// lines rounds up to whole cache lines.
func lines(floats int64) int64 {
	const line = 16
	return (floats + line - 1) / line * line
}

// needs is what the stages ask of the slices that they share, in floats.
type needs struct{ wide, a, b, attention, film int64 }

// parts counts what every slice of the state takes.
func (s *State) parts(c *Config, shape Shape) ([]part, error) {
	p, err := c.plan()
	if err != nil {
		return nil, err
	}
	if err := shape.check(c); err != nil {
		return nil, err
	}
	var n needs
	var skips, cross []int64
	batch := int64(shape.Batch)
	visit := func(st *stage, size extent, mid bool) {
		pixels := batch * int64(size.pixels())
		for i, r := range st.resnets {
			in, out := pixels*int64(r.in), pixels*int64(r.out)
			n.a, n.b, n.film = max(n.a, in, out), max(n.b, out), max(n.film, 2*batch*int64(r.out))
			if i < st.attentions(mid) {
				n.attention = max(n.attention, out, int64(geluFactor*r.out))
				cross = append(cross, st.attention.crossFloats(shape)...)
			}
		}
	}

	size := extent{shape.Height, shape.Width}
	skips = append(skips, batch*int64(size.pixels()*c.BlockOut[0]))
	for i := range p.down {
		st := &p.down[i]
		s.sizes = append(s.sizes, size)
		visit(st, size, false)
		for _, r := range st.resnets {
			skips = append(skips, batch*int64(size.pixels()*r.out))
		}
		if st.sampler {
			if size, err = c.halved(size); err != nil {
				return nil, err
			}
			skips = append(skips, batch*int64(size.pixels()*c.BlockOut[i]))
		}
	}
	n.wide = skips[len(skips)-1]
	if p.mid != nil {
		visit(p.mid, size, true)
	}
	for i := range p.up {
		st := &p.up[i]
		size = s.sizes[len(p.up)-1-i]
		visit(st, size, false)
		for _, r := range st.resnets {
			n.wide = max(n.wide, batch*int64(size.pixels()*max(r.in, r.out)))
		}
		if st.sampler {
			n.wide = max(n.wide, batch*int64(s.sizes[len(p.up)-2-i].pixels()*st.resnets[0].out))
		}
	}
	if c.Class == Control {
		n.b = max(n.b, skips[0])
	}
	return append(s.fixed(c, shape, n), s.lists(c, skips, cross)...), nil
}

// fixed returns the parts that every network has.
func (s *State) fixed(c *Config, shape Shape, n needs) []part {
	batch := int64(shape.Batch)
	first, dim := batch*int64(c.BlockOut[0]), batch*int64(c.timeDim())
	parts := []part{
		{&s.h, n.wide}, {&s.g, n.wide}, {&s.a, n.a}, {&s.b, n.b},
		{&s.q, n.attention}, {&s.k, n.attention}, {&s.v, n.attention}, {&s.film, n.film},
		{&s.sin, first}, {&s.hidden, dim}, {&s.emb, dim}, {&s.added, dim},
	}
	if c.TimeCondDim > 0 {
		parts = append(parts, part{&s.guide, first})
	}
	return parts
}

// lists returns the parts for the outputs on the way down, what a ControlNet makes of
// them, and the keys and values of contexts.
func (s *State) lists(c *Config, skips, cross []int64) []part {
	var parts []part
	s.skips = make([][]float32, len(skips))
	for i := range skips {
		parts = append(parts, part{&s.skips[i], skips[i]})
	}
	if c.Class == Control {
		s.residuals = make([][]float32, len(skips)+1)
		for i := range s.residuals {
			parts = append(parts, part{&s.residuals[i], skips[min(i, len(skips)-1)]})
		}
		parts = append(parts, part{&s.hint, skips[0]})
	}
	s.cross = make([]keyValue, len(cross))
	for i := range cross {
		parts = append(parts, part{&s.cross[i].k, cross[i]}, part{&s.cross[i].v, cross[i]})
	}
	return parts
}

// crossFloats lists the sizes of the keys of each attention to the context.
func (a attentionShape) crossFloats(shape Shape) []int64 {
	if a.kind != transformers {
		return nil
	}
	n := a.layers
	if a.onlyCross {
		n *= 2
	}
	return slices.Repeat([]int64{int64(shape.Batch*shape.Tokens) * int64(a.channels)}, n)
}

// halved returns the size of an image after downsampling.
func (c *Config) halved(x extent) (extent, error) {
	if min(x.height, x.width) < 2-c.DownPadding {
		return x, fmt.Errorf("unet: image of %d×%d latent pixels in the middle: too small to be halved", x.height, x.width)
	}
	h, w := downsampling(1, c.DownPadding).OutSize(x.height, x.width)
	return extent{h, w}, nil
}

// check says which of the sizes is out of range.
func (x Shape) check(c *Config) error {
	tokens := 0
	if c.Conditioned() {
		tokens = 1
	}
	for _, v := range []struct {
		name       string
		is, lo, hi int
	}{
		{"height", x.Height, 1, maxSide}, {"width", x.Width, 1, maxSide},
		{"batch", x.Batch, 1, maxBatch}, {"tokens", x.Tokens, tokens, tokens * maxTokens},
	} {
		if v.is < v.lo || v.is > v.hi {
			return fmt.Errorf("unet: %s of the state is %d, want %d to %d", v.name, v.is, v.lo, v.hi)
		}
	}
	return nil
}

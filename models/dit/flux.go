package dit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// FluxConfig is the config.json of a FluxTransformer2DModel.
type FluxConfig struct {
	PatchSize    int   `json:"patch_size"`        // 1: what comes in is packed already
	InChannels   int   `json:"in_channels"`       // of a token: 4 times those of the latents
	OutChannels  int   `json:"out_channels"`      // InChannels
	Layers       int   `json:"num_layers"`        // blocks of two streams
	SingleLayers int   `json:"num_single_layers"` // blocks of one
	HeadDim      int   `json:"attention_head_dim"`
	Heads        int   `json:"num_attention_heads"`
	TextDim      int   `json:"joint_attention_dim"` // of the text's states
	PooledDim    int   `json:"pooled_projection_dim"`
	Guided       bool  `json:"guidance_embeds"` // the guidance scale is an input: dev, not schnell
	Axes         []int `json:"axes_dims_rope"`  // components of a head that turn by an axis: 0, row, column
}

// ParseFluxConfig decodes config.json. The error wraps ErrUnsupported if it describes a
// network that this package does not compute.
func ParseFluxConfig(data []byte) (FluxConfig, error) {
	c := FluxConfig{
		PatchSize: 1, InChannels: 64, Layers: 19, SingleLayers: 38, HeadDim: 128, Heads: 24,
		TextDim: 4096, PooledDim: 768, Axes: []int{16, 56, 56},
	}
	if err := parse(data, &c, "FluxTransformer2DModel"); err != nil {
		return c, err
	}
	if c.OutChannels == 0 {
		c.OutChannels = c.InChannels
	}
	return c, c.validate()
}

func (c *FluxConfig) validate() error {
	if err := checkHeads(c.Heads, c.HeadDim); err != nil {
		return err
	}
	turned := 0
	for _, n := range c.Axes {
		if n < 2 || n%2 != 0 || n > c.HeadDim {
			return fmt.Errorf("dit: axes_dims_rope %v, want even numbers: %w", c.Axes, ErrUnsupported)
		}
		turned += n
	}
	switch {
	case c.PatchSize != 1:
		return fmt.Errorf("dit: patch_size %d, want 1: %w", c.PatchSize, ErrUnsupported)
	case len(c.Axes) != 3 || turned != c.HeadDim:
		return fmt.Errorf("dit: axes_dims_rope %v, want 3 that add up to %d: %w", c.Axes, c.HeadDim, ErrUnsupported)
	case c.InChannels%fluxPixels != 0 || c.OutChannels != c.InChannels:
		return fmt.Errorf("dit: %d channels in and %d out, want the same multiple of 4: %w", c.InChannels, c.OutChannels, ErrUnsupported)
	}
	return checkFields(field{"in_channels", c.InChannels, maxChannels}, field{"num_layers", c.Layers, maxLayers},
		field{"num_single_layers", c.SingleLayers, maxLayers}, field{"joint_attention_dim", c.TextDim, maxWidth},
		field{"pooled_projection_dim", c.PooledDim, maxWidth})
}

// Tokens of Flux are 2×2 pixels of the latents.
const (
	fluxSide   = 2
	fluxPixels = fluxSide * fluxSide
)

func (c *FluxConfig) backbone() backbone {
	return backbone{
		heads: c.Heads, dim: c.HeadDim, inner: 4 * c.Heads * c.HeadDim,
		patch: fluxSide, in: c.LatentChannels(), out: c.LatentChannels(),
	}
}

// LatentChannels returns the channels of the latents, of which a token has 2×2 pixels.
func (c FluxConfig) LatentChannels() int { return c.InChannels / fluxPixels }

// Workspace returns the memory of a state, and of the operations on it. The error is that
// of NewState.
func (c FluxConfig) Workspace(s Shape) (int64, error) {
	if err := c.backbone().check(s, true); err != nil {
		return 0, err
	}
	l := c.layout(s)
	return l.bytes(), nil
}

func (c *FluxConfig) layout(s Shape) layout {
	n := c.backbone()
	l := n.layout(s)
	l.contexts, l.pooled = s.Batch*s.Tokens*l.width, s.Batch*l.width
	l.mod = 12 * l.width
	l.joined = min(l.longest, mlpTokens) * (l.width + n.inner)
	l.angles = l.longest * c.HeadDim / 2
	return l
}

// Flux is a transformer of blocks with two streams, text and image, and then of blocks
// with both in one.
type Flux struct {
	config FluxConfig
	size   backbone
	bytes  int64

	image    nn.Linear // [C, InChannels]
	text     nn.Linear // [C, TextDim]
	time     embedder
	pooled   embedder
	guidance embedder // if Guided
	blocks   []jointBlock
	singles  []singleBlock
	final    final
}

// singleBlock computes attention and feed-forward network side by side, of the same norm,
// and one layer joins them.
type singleBlock struct {
	mod    nn.Linear   // [3C, C]
	attend projections // without out
	up     nn.Linear   // [inner, C]
	down   nn.Linear   // [C, C+inner]
}

// LoadFlux loads the network.
func LoadFlux(s *weights.Store, c FluxConfig) (*Flux, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := c.backbone()
	width := n.width()
	var l loader
	embed := s.Sub("time_text_embed")
	m := &Flux{
		config: c, size: n,
		image:  l.linear(fine(s.Sub("x_embedder")), width, c.InChannels, true),
		text:   l.linear(s.Sub("context_embedder"), width, c.TextDim, true),
		time:   l.embedder(embed.Sub("timestep_embedder"), width, timeChannels),
		pooled: l.embedder(embed.Sub("text_embedder"), width, c.PooledDim),
	}
	if c.Guided {
		m.guidance = l.embedder(embed.Sub("guidance_embedder"), width, timeChannels)
	}
	for i := range c.Layers {
		s := s.Sub("transformer_blocks").Sub(strconv.Itoa(i))
		m.blocks = append(m.blocks, l.jointBlock(s, jointConfig{size: n, norms: true}))
	}
	p := projectionConfig{width: width, source: width, bias: true, noOut: true, dim: c.HeadDim}
	for i := range c.SingleLayers {
		s := s.Sub("single_transformer_blocks").Sub(strconv.Itoa(i))
		m.singles = append(m.singles, singleBlock{
			mod:    l.linear(fine(s.Sub("norm.linear")), 3*width, width, true),
			attend: l.projections(s.Sub("attn"), ownNames(), p),
			up:     l.linear(s.Sub("proj_mlp"), n.inner, width, true),
			down:   l.linear(s.Sub("proj_out"), width, width+n.inner, true),
		})
	}
	m.final = final{
		mod: l.linear(fine(s.Sub("norm_out.linear")), 2*width, width, true),
		out: l.linear(fine(s.Sub("proj_out")), c.InChannels, width, true),
	}
	m.bytes = l.bytes
	return m, l.err
}

// Config returns the configuration.
func (m *Flux) Config() FluxConfig { return m.config }

// Bytes returns the memory of the weights.
func (m *Flux) Bytes() int64 { return m.bytes }

// NewState returns the memory of a picture. The error says what is wrong with the shape.
func (m *Flux) NewState(s Shape) (*State, error) {
	if err := m.size.check(s, true); err != nil {
		return nil, err
	}
	st := newState(m, s, m.config.layout(s))
	half := m.config.HeadDim / 2
	for i := range s.Tokens + m.size.tokens(s) {
		ids := [3]int{} // of text tokens all 0
		if i >= s.Tokens {
			at, across := i-s.Tokens, s.Width/fluxSide
			ids[1], ids[2] = at/across, at%across
		}
		m.turn(st.cos[i*half:][:half], st.sin[i*half:][:half], ids)
	}
	return st, nil
}

// turn writes the cosines and sines of a token's angles: each axis turns its pairs of
// components at the speeds 10000^(-2i/n).
func (m *Flux) turn(cos, sin []float32, ids [3]int) {
	at := 0
	for axis, n := range m.config.Axes {
		for i := range n / 2 {
			s, c := math.Sincos(float64(ids[axis]) * math.Pow(10000, -float64(2*i)/float64(n)))
			cos[at], sin[at] = float32(c), float32(s)
			at++
		}
	}
}

// Condition embeds text and guidance. The error says what does not fit the state.
func (m *Flux) Condition(e *tensor.Exec, st *State, c Condition) error {
	if st.owner != m {
		return errors.New("dit: the state belongs to another network")
	}
	s := st.shape
	if err := wantFloats("text", c.States, s.Batch*s.Tokens*m.config.TextDim); err != nil {
		return err
	}
	if err := wantFloats("pooled text", c.Pooled, s.Batch*m.config.PooledDim); err != nil {
		return err
	}
	m.text.Forward(e, st.context, c.States)
	m.pooled.forward(e, st.pooled, c.Pooled, make([]float32, len(st.pooled)))
	if m.config.Guided {
		st.sines(1000*c.Guidance, 0)
		m.guidance.forward(e, st.embed, st.frequencies, st.scale)
		e.AddEach(st.pooled, st.embed, len(st.embed))
	}
	return nil
}

// Forward predicts the velocity y [B, H, W, C/4] of latents x [B, H, W, C/4] at times t
// [B], 0 to 1000; a token is 2×2 pixels. The error is the context's cause, or says what
// does not fit the state.
func (m *Flux) Forward(ctx context.Context, e *tensor.Exec, st *State, y, x, t []float32) error {
	c := call{y, x, t}
	if err := st.check(m, m.size, c); err != nil {
		return err
	}
	text, image := st.textPart(), st.imagePart()
	for b := range st.shape.Batch {
		y, x := st.member(m.size, c, b)
		pack(st.patches, x, st.shape.Width, m.size.in)
		m.image.Forward(e, image.x, st.patches)
		st.show("x_embedder", image.x)
		copy(text.x, st.context[b*len(text.x):])
		st.embedTime(e, m.time, t[b], b)
		for i := range m.blocks {
			if err := stop(ctx); err != nil {
				return err
			}
			m.blocks[i].forward(e, st)
		}
		for i := range m.singles {
			if err := stop(ctx); err != nil {
				return err
			}
			m.singles[i].forward(e, st)
		}
		m.final.modulation(e, st)
		unpack(y, m.final.patches(e, st, image), st.shape.Width, m.size.out)
	}
	return nil
}

func (b *singleBlock) forward(e *tensor.Exec, st *State) {
	a, c := st.whole(), st.layout.width
	b.mod.Forward(e, st.mod[:3*c], st.active)
	m := st.modulation(st.mod, 0)
	st.modulate(e, a.h, a.x, m, epsilon)
	b.attend.project(e, a)
	st.rotate(e, a)
	b.attend.find(e, st, a.q, a.k, a.v)
	for lo := 0; lo < len(a.h); lo += mlpTokens * c {
		h, q := a.h[lo:min(lo+mlpTokens*c, len(a.h))], a.q[lo:]
		rows := len(h) / c
		hidden, joined := st.mlp[:rows*b.up.Weight.Rows], st.joined[:rows*b.down.Weight.Cols]
		b.up.Forward(e, hidden, h)
		e.Activate(tensor.GELUTanh, hidden)
		e.Concat(joined, q[:len(h)], hidden, rows)
		b.down.Forward(e, h, joined)
	}
	e.AddGated(a.x, a.h, m.gate)
}

// pack makes tokens [T, C·4] of latents x [H, W, C]: the pixels of a token's square, by
// rows, for each channel.
func pack(tokens, x []float32, width, channels int) {
	for i := range x {
		tokens[packed(i, width, channels)] = x[i]
	}
}

// unpack puts tokens together to latents y.
func unpack(y, tokens []float32, width, channels int) {
	for i := range y {
		y[i] = tokens[packed(i, width, channels)]
	}
}

// packed returns where the tokens have float i of the latents.
func packed(i, width, channels int) int {
	pixel, c := i/channels, i%channels
	row, column := pixel/width, pixel%width
	token := row/fluxSide*(width/fluxSide) + column/fluxSide
	return (token*channels+c)*fluxPixels + row%fluxSide*fluxSide + column%fluxSide
}

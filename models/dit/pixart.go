package dit

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// PixArtConfig is the config.json of a PixArtTransformer2DModel, or of a
// Transformer2DModel with the norm type ada_norm_single.
type PixArtConfig struct {
	Heads           int     `json:"num_attention_heads"`
	HeadDim         int     `json:"attention_head_dim"`
	InChannels      int     `json:"in_channels"`
	OutChannels     int     `json:"out_channels"` // twice InChannels: the variance is learned
	Layers          int     `json:"num_layers"`
	AttentionBias   bool    `json:"attention_bias"`
	CrossDim        int     `json:"cross_attention_dim"`
	CaptionChannels int     `json:"caption_channels"` // of the text encoder
	SampleSize      int     `json:"sample_size"`      // side of the latents that it was trained with
	PatchSize       int     `json:"patch_size"`
	Activation      string  `json:"activation_fn"`
	NormType        string  `json:"norm_type"`
	NormAffine      bool    `json:"norm_elementwise_affine"`
	NormEps         float32 `json:"norm_eps"`
	Interpolation   float64 `json:"interpolation_scale"` // of positions; absent is SampleSize/64, at least 1

	// SizeConditions is whether resolution and aspect ratio are inputs; absent is whether
	// SampleSize is 128.
	SizeConditions *bool `json:"use_additional_conditions"`
}

// ParsePixArtConfig decodes config.json. The error wraps ErrUnsupported if it describes a
// network that this package does not compute.
func ParsePixArtConfig(data []byte) (PixArtConfig, error) {
	c := PixArtConfig{
		Heads: 16, HeadDim: 72, InChannels: 4, OutChannels: 8, Layers: 28, AttentionBias: true, CrossDim: 1152,
		CaptionChannels: 4096, SampleSize: 128, PatchSize: 2, Activation: "gelu-approximate", NormType: "ada_norm_single", NormEps: 1e-6,
	}
	if err := parse(data, &c, "PixArtTransformer2DModel", "Transformer2DModel"); err != nil {
		return c, err
	}
	if c.Interpolation == 0 {
		c.Interpolation = float64(max(c.SampleSize/64, 1))
	}
	if c.SizeConditions == nil {
		large := c.SampleSize == 128
		c.SizeConditions = &large
	}
	return c, c.validate()
}

func (c *PixArtConfig) validate() error {
	if err := checkHeads(c.Heads, c.HeadDim); err != nil {
		return err
	}
	width := c.Heads * c.HeadDim
	switch {
	case c.NormType != "ada_norm_single" || c.NormAffine:
		return fmt.Errorf("dit: norm_type %q, with weights %v, want ada_norm_single without: %w", c.NormType, c.NormAffine, ErrUnsupported)
	case c.CrossDim != width:
		return fmt.Errorf("dit: cross_attention_dim %d, want %d as the width: %w", c.CrossDim, width, ErrUnsupported)
	case !(c.Interpolation > 0):
		return fmt.Errorf("dit: interpolation_scale %v, want more than 0: %w", c.Interpolation, ErrUnsupported)
	case c.SizeConditions == nil:
		return fmt.Errorf("dit: use_additional_conditions is not decided: %w", ErrUnsupported)
	case *c.SizeConditions && width%3 != 0:
		return fmt.Errorf("dit: width %d for three conditions: %w", width, ErrUnsupported)
	}
	if _, err := parseActivation(c.Activation); err != nil {
		return err
	}
	return checkFields(field{"in_channels", c.InChannels, maxChannels}, field{"out_channels", c.OutChannels, maxChannels},
		field{"num_layers", c.Layers, maxLayers}, field{"sample_size", c.SampleSize, maxSide}, field{"patch_size", c.PatchSize, maxPatch},
		field{"sample_size in patches", c.SampleSize / max(c.PatchSize, 1), maxSide}, field{"caption_channels", c.CaptionChannels, maxWidth})
}

func (c *PixArtConfig) backbone() backbone {
	return backbone{
		heads: c.Heads, dim: c.HeadDim, inner: 4 * c.Heads * c.HeadDim,
		patch: c.PatchSize, in: c.InChannels, out: c.OutChannels,
	}
}

// Workspace returns the memory of a state, and of the operations on it. The error is that
// of NewState.
func (c PixArtConfig) Workspace(s Shape) (int64, error) {
	if err := c.backbone().check(s, true); err != nil {
		return 0, err
	}
	l := c.layout(s)
	return l.bytes(), nil
}

// layout adds the text, which is no stream: the keys and values that each block makes of
// it are the same at all times.
func (c *PixArtConfig) layout(s Shape) layout {
	n, tokens := c.backbone(), s.Tokens
	s.Tokens = 0
	l := n.layout(s)
	l.contexts = s.Batch * tokens * l.width
	l.pooled = s.Batch * l.width
	l.blocks, l.cross = c.Layers, 2*l.contexts
	l.mod *= 2 // what blocks have in common, and their own
	l.longest = max(l.longest, tokens)
	return l
}

// PixArt is a transformer whose tokens read a text by cross attention, and whose norms all
// have one modulation in common (adaLN-single), to which each block adds its own.
type PixArt struct {
	config PixArtConfig
	size   backbone
	bytes  int64

	patches    patchEmbed
	caption    embedder
	time       embedder
	resolution embedder  // [C/3]; those two if SizeConditions
	aspect     embedder  // [C/3]
	mod        nn.Linear // [6C, C]
	blocks     []crossBlock
	table      []float32 // [2, C], the last norm's own shift and scale
	final      final
}

// crossBlock is self attention, cross attention and a feed-forward network.
type crossBlock struct {
	table      []float32 // [6, C], the block's own modulation
	own, cross projections
	mlp        mlp
}

// LoadPixArt loads the network.
func LoadPixArt(s *weights.Store, c PixArtConfig) (*PixArt, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := c.backbone()
	width := n.width()
	var l loader
	emb := s.Sub("adaln_single.emb")
	m := &PixArt{
		config: c, size: n,
		patches: l.patchEmbed(s.Sub("pos_embed"), n),
		caption: l.embedder(s.Sub("caption_projection"), width, c.CaptionChannels),
		time:    l.embedder(emb.Sub("timestep_embedder"), width, timeChannels),
		mod:     l.linear(fine(s.Sub("adaln_single.linear")), 6*width, width, true),
	}
	m.caption.activation = tensor.GELUTanh
	if *c.SizeConditions {
		m.resolution = l.embedder(emb.Sub("resolution_embedder"), width/3, timeChannels)
		m.aspect = l.embedder(emb.Sub("aspect_ratio_embedder"), width/3, timeChannels)
	}
	f, _ := parseActivation(c.Activation)
	p := projectionConfig{width: width, source: width, bias: c.AttentionBias}
	for i := range c.Layers {
		s := s.Sub("transformer_blocks").Sub(strconv.Itoa(i))
		m.blocks = append(m.blocks, crossBlock{
			table: l.vector(s, "scale_shift_table", 6, width),
			own:   l.projections(s.Sub("attn1"), ownNames(), p),
			cross: l.projections(s.Sub("attn2"), ownNames(), p),
			mlp:   l.mlp(s.Sub("ff"), width, 4*width, f),
		})
	}
	m.table = l.vector(s, "scale_shift_table", 2, width)
	m.final = final{out: l.linear(fine(s.Sub("proj_out")), c.PatchSize*c.PatchSize*c.OutChannels, width, true), shiftFirst: true}
	m.bytes = l.bytes
	return m, l.err
}

// Config returns the configuration.
func (m *PixArt) Config() PixArtConfig { return m.config }

// Bytes returns the memory of the weights.
func (m *PixArt) Bytes() int64 { return m.bytes }

// NewState returns the memory of a picture. The error says what is wrong with the shape.
func (m *PixArt) NewState(s Shape) (*State, error) {
	if err := m.size.check(s, true); err != nil {
		return nil, err
	}
	st := newState(m, s, m.config.layout(s))
	c := &m.config
	m.size.stretched(s, c.SampleSize/c.PatchSize, c.Interpolation).sincos(st.positions, m.size.width())
	return st, nil
}

// Condition embeds the text and makes keys and values of it for every block. Tokens that
// the mask hides are left out; a text that is hidden whole is read whole, which is what
// equally small weights come to. The error says what does not fit the state.
func (m *PixArt) Condition(e *tensor.Exec, st *State, c Condition) error {
	s := st.shape
	if st.owner != m {
		return errors.New("dit: the state belongs to another network")
	}
	if err := wantFloats("text", c.States, s.Batch*s.Tokens*m.config.CaptionChannels); err != nil {
		return err
	}
	if c.Mask != nil && len(c.Mask) != s.Batch*s.Tokens {
		return fmt.Errorf("dit: mask of %d tokens, want [%d, %d]", len(c.Mask), s.Batch, s.Tokens)
	}
	m.embedSize(e, st, c.Resolution)
	width, caption := m.size.width(), m.config.CaptionChannels
	states := make([]float32, s.Tokens*caption)
	hidden := make([]float32, s.Tokens*width)
	for b := range s.Batch {
		text := c.States[b*s.Tokens*caption:][:s.Tokens*caption]
		n := 0
		for i := range s.Tokens {
			if c.Mask != nil && c.Mask[b*s.Tokens+i] {
				copy(states[n*caption:][:caption], text[i*caption:])
				n++
			}
		}
		if n == 0 {
			n = copy(states, text) / caption
		}
		st.lengths[b] = n
		embedded := st.context[b*s.Tokens*width:][:n*width]
		m.caption.forward(e, embedded, states[:n*caption], hidden)
		for i := range m.blocks {
			k, v := st.captionKeys(i, b)
			p := &m.blocks[i].cross
			e.MatMuls(embedded, p.k.Product(k), p.v.Product(v))
		}
	}
	return nil
}

// captionKeys returns what block i reads of the text of member b.
func (st *State) captionKeys(i, b int) (k, v []float32) {
	half := st.layout.cross / 2
	at, n := b*half/st.shape.Batch, st.lengths[b]*st.layout.width
	return st.cross[i][at:][:n], st.cross[i][half+at:][:n]
}

// embedSize makes the part of the modulating vector that depends on the picture's size.
func (m *PixArt) embedSize(e *tensor.Exec, st *State, resolution [2]int) {
	if !*m.config.SizeConditions {
		clear(st.pooled)
		return
	}
	if resolution == [2]int{} {
		resolution = [2]int{8 * st.shape.Height, 8 * st.shape.Width}
	}
	height, width := float32(resolution[0]), float32(resolution[1])
	third := m.size.width() / 3
	for i, v := range [3]float32{height, width, height / width} {
		f := &m.resolution
		if i == 2 {
			f = &m.aspect
		}
		st.sines(v, 0)
		f.forward(e, st.embed[i*third:][:third], st.frequencies, st.scale)
	}
	for b := range st.shape.Batch {
		copy(st.pooled[b*m.size.width():], st.embed)
	}
}

// Forward predicts the noise y [B, H, W, out] in latents x [B, H, W, in] at times t [B], 0
// to 1000. The error is the context's cause, or says what does not fit the state.
func (m *PixArt) Forward(ctx context.Context, e *tensor.Exec, st *State, y, x, t []float32) error {
	c := call{y, x, t}
	if err := st.check(m, m.size, c); err != nil {
		return err
	}
	width := m.size.width()
	common := st.mod[6*width:] // [6, C], shift, scale and gate twice
	for b := range st.shape.Batch {
		y, x := st.member(m.size, c, b)
		m.patches.forward(e, st, st.x, x)
		st.embedTime(e, m.time, t[b], b)
		m.mod.Forward(e, common, st.active)
		for i := range m.blocks {
			if err := stop(ctx); err != nil {
				return err
			}
			copy(st.mod, m.blocks[i].table)
			e.Add(st.mod[:6*width], common)
			m.block(e, st, i, b)
			st.showBlock(i, st.x)
		}
		copy(st.mod, m.table)
		e.Add(st.mod[:width], st.time)
		e.Add(st.mod[width:2*width], st.time)
		m.size.unpatch(y, m.final.patches(e, st, st.whole()), st.shape.Width)
	}
	return nil
}

// block computes block i with the modulation st.mod.
func (m *PixArt) block(e *tensor.Exec, st *State, i, b int) {
	f, a := &m.blocks[i], st.whole()
	s := st.modulation(st.mod, 0)
	st.modulate(e, a.h, a.x, s, m.config.NormEps)
	f.own.project(e, a)
	f.own.find(e, st, a.q, a.k, a.v)
	f.own.out.Forward(e, a.h, a.q)
	e.AddGated(a.x, a.h, s.gate)

	k, v := st.captionKeys(i, b)
	f.cross.q.Forward(e, a.q, a.x) // without a norm
	f.cross.find(e, st, a.q, k, v)
	f.cross.out.Forward(e, a.h, a.q)
	e.Add(a.x, a.h)

	s = st.modulation(st.mod, 1)
	st.modulate(e, a.h, a.x, s, m.config.NormEps)
	f.mlp.forward(e, st, a.h)
	e.AddGated(a.x, a.h, s.gate)
}

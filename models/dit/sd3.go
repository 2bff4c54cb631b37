package dit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// SD3Config is the config.json of an SD3Transformer2DModel.
type SD3Config struct {
	SampleSize   int    `json:"sample_size"` // side of the latents that it was trained with
	PatchSize    int    `json:"patch_size"`
	InChannels   int    `json:"in_channels"`
	OutChannels  int    `json:"out_channels"`
	Layers       int    `json:"num_layers"`
	HeadDim      int    `json:"attention_head_dim"`
	Heads        int    `json:"num_attention_heads"`
	TextDim      int    `json:"joint_attention_dim"`    // of the text's states
	CaptionDim   int    `json:"caption_projection_dim"` // of the text stream
	PooledDim    int    `json:"pooled_projection_dim"`
	MaxSize      int    `json:"pos_embed_max_size"`    // side of the square of positions, patches
	QKNorm       string `json:"qk_norm"`               // "" or "rms_norm"
	SecondLayers []int  `json:"dual_attention_layers"` // blocks whose image attends to itself besides
}

// ParseSD3Config decodes config.json. The error wraps ErrUnsupported if it describes a
// network that this package does not compute.
func ParseSD3Config(data []byte) (SD3Config, error) {
	c := SD3Config{
		SampleSize: 128, PatchSize: 2, InChannels: 16, OutChannels: 16, Layers: 18, HeadDim: 64, Heads: 18,
		TextDim: 4096, CaptionDim: 1152, PooledDim: 2048, MaxSize: 96,
	}
	if err := parse(data, &c, "SD3Transformer2DModel"); err != nil {
		return c, err
	}
	return c, c.validate()
}

func (c *SD3Config) validate() error {
	if err := checkHeads(c.Heads, c.HeadDim); err != nil {
		return err
	}
	switch {
	case c.QKNorm != "" && c.QKNorm != "rms_norm":
		return fmt.Errorf("dit: qk_norm %q: %w", c.QKNorm, ErrUnsupported)
	case c.CaptionDim != c.Heads*c.HeadDim:
		return fmt.Errorf("dit: caption_projection_dim %d, want %d as the width: %w", c.CaptionDim, c.Heads*c.HeadDim, ErrUnsupported)
	case slices.ContainsFunc(c.SecondLayers, func(i int) bool { return i < 0 || i >= c.Layers }):
		return fmt.Errorf("dit: dual_attention_layers %v of %d layers: %w", c.SecondLayers, c.Layers, ErrUnsupported)
	}
	return checkFields(field{"sample_size", c.SampleSize, maxSide}, field{"patch_size", c.PatchSize, maxPatch},
		field{"in_channels", c.InChannels, maxChannels}, field{"out_channels", c.OutChannels, maxChannels},
		field{"num_layers", c.Layers, maxLayers}, field{"joint_attention_dim", c.TextDim, maxWidth},
		field{"pooled_projection_dim", c.PooledDim, maxWidth}, field{"pos_embed_max_size", c.MaxSize, maxSide},
		field{"sample_size in patches", c.SampleSize / max(c.PatchSize, 1), maxSide})
}

func (c *SD3Config) backbone() backbone {
	return backbone{
		heads: c.Heads, dim: c.HeadDim, inner: 4 * c.Heads * c.HeadDim,
		patch: c.PatchSize, in: c.InChannels, out: c.OutChannels,
	}
}

// check returns an error if the network cannot compute the shape.
func (c *SD3Config) check(s Shape) error {
	if err := c.backbone().check(s, true); err != nil {
		return err
	}
	if most := c.MaxSize * c.PatchSize; max(s.Height, s.Width) > most {
		return fmt.Errorf("dit: latents of %d×%d, want at most %d on a side", s.Height, s.Width, most)
	}
	return nil
}

// Workspace returns the memory of a state, and of the operations on it. The error is that
// of NewState.
func (c SD3Config) Workspace(s Shape) (int64, error) {
	if err := c.check(s); err != nil {
		return 0, err
	}
	l := c.layout(s)
	return l.bytes(), nil
}

func (c *SD3Config) layout(s Shape) layout {
	l := c.backbone().layout(s)
	l.contexts, l.pooled = s.Batch*s.Tokens*l.width, s.Batch*l.width
	l.mod = 12 * l.width
	if len(c.SecondLayers) > 0 {
		l.mod += 3 * l.width
		l.second = l.image
	}
	return l
}

// SD3 is the transformer of Stable Diffusion 3 and 3.5, an MMDiT.
type SD3 struct {
	config SD3Config
	size   backbone
	bytes  int64

	patches   patchEmbed
	positions tensor.Matrix // [MaxSize·MaxSize, C], or none
	time      embedder
	pooled    embedder
	text      nn.Linear // [C, TextDim]
	blocks    []jointBlock
	final     final
}

// LoadSD3 loads the network.
func LoadSD3(s *weights.Store, c SD3Config) (*SD3, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := c.backbone()
	width := n.width()
	var l loader
	embed := s.Sub("time_text_embed")
	m := &SD3{
		config: c, size: n,
		patches: l.patchEmbed(s.Sub("pos_embed"), n),
		time:    l.embedder(embed.Sub("timestep_embedder"), width, timeChannels),
		pooled:  l.embedder(embed.Sub("text_embedder"), width, c.PooledDim),
		text:    l.linear(s.Sub("context_embedder"), width, c.TextDim, true),
	}
	if s.Has("pos_embed.pos_embed") {
		m.positions = l.table(s, "pos_embed.pos_embed", 1, c.MaxSize*c.MaxSize, width)
	}
	for i := range c.Layers {
		m.blocks = append(m.blocks, l.jointBlock(s.Sub("transformer_blocks").Sub(strconv.Itoa(i)), jointConfig{
			size: n, norms: c.QKNorm != "", textEnds: i == c.Layers-1, second: slices.Contains(c.SecondLayers, i),
		}))
	}
	m.final = final{
		mod: l.linear(fine(s.Sub("norm_out.linear")), 2*width, width, true),
		out: l.linear(fine(s.Sub("proj_out")), c.PatchSize*c.PatchSize*c.OutChannels, width, true),
	}
	m.bytes = l.bytes
	return m, l.err
}

// Config returns the configuration.
func (m *SD3) Config() SD3Config { return m.config }

// Bytes returns the memory of the weights.
func (m *SD3) Bytes() int64 { return m.bytes }

// NewState returns the memory of a picture. The error says what is wrong with the shape:
// the latents have at most MaxSize patches on a side.
func (m *SD3) NewState(s Shape) (*State, error) {
	if err := m.config.check(s); err != nil {
		return nil, err
	}
	h, w, most := s.Height/m.size.patch, s.Width/m.size.patch, m.config.MaxSize
	st := newState(m, s, m.config.layout(s))
	m.place(st.positions, grid{height: h, width: w, top: (most - h) / 2, left: (most - w) / 2})
	return st, nil
}

// place writes the positions of a grid in the middle of the square: those that were
// trained with the network or, if it has none, those that training begins with.
func (m *SD3) place(y []float32, g grid) {
	width, most := m.size.width(), m.config.MaxSize
	if m.positions.Rows == 0 {
		g.stepDown = float64(m.config.SampleSize/m.config.PatchSize) / float64(most)
		g.stepAcross = g.stepDown
		g.sincos(y, width)
		return
	}
	for i := range g.height * g.width {
		m.positions.Row(y[i*width:][:width], (g.top+i/g.width)*most+g.left+i%g.width)
	}
}

// Condition embeds the text. The error says what does not fit the state.
func (m *SD3) Condition(e *tensor.Exec, st *State, c Condition) error {
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
	return nil
}

// Forward predicts the velocity y [B, H, W, out] of latents x [B, H, W, in] at times t
// [B], 0 to 1000. The error is the context's cause, or says what does not fit the state.
func (m *SD3) Forward(ctx context.Context, e *tensor.Exec, st *State, y, x, t []float32) error {
	c := call{y, x, t}
	if err := st.check(m, m.size, c); err != nil {
		return err
	}
	text, image := st.textPart(), st.imagePart()
	for b := range st.shape.Batch {
		y, x := st.member(m.size, c, b)
		m.patches.forward(e, st, image.x, x)
		copy(text.x, st.context[b*len(text.x):])
		st.embedTime(e, m.time, t[b], b)
		for i := range m.blocks {
			if err := stop(ctx); err != nil {
				return err
			}
			m.blocks[i].forward(e, st)
		}
		m.final.modulation(e, st)
		m.size.unpatch(y, m.final.patches(e, st, image), st.shape.Width)
	}
	return nil
}

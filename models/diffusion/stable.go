package diffusion

import (
	"context"
	"fmt"
	"slices"

	"helicon/models/clip"
	"helicon/models/diffusion/components"
	"helicon/models/diffusion/scheduler"
	"helicon/models/tensor"
	"helicon/models/unet"
)

// stable is Stable Diffusion 1 and 2 (Rombach et al. 2022) and XL (Podell et al. 2023),
// and those made from them to take few steps or to inpaint: a UNet that attends to the
// states of one text encoder of CLIP, or of two side by side.
type stable struct {
	xl         bool
	config     unet.Config
	texts      []*textEncoder
	forceZeros bool // zeros stand for a negative prompt that is empty
	net        *unet.Model

	control    *components.Control // or nil
	hintConfig *unet.Config
	hint       *unet.ControlNet
}

func (m *stable) configure(b *bundle) error {
	raw, err := b.Config("unet")
	if err != nil {
		return err
	}
	if m.config, err = unet.ParseConfig(raw); err != nil {
		return fmt.Errorf("diffusion: unet/config.json: %w: %w", err, ErrUnsupported)
	}
	names := []string{"text_encoder"}
	if m.xl {
		names = append(names, "text_encoder_2")
		m.forceZeros = b.Index.ForceZeros == nil || *b.Index.ForceZeros
	}
	width := 0
	for _, name := range names {
		t, err := configureText(b, name)
		if err != nil {
			return err
		}
		m.texts = append(m.texts, t)
		width += t.config.Hidden
	}
	switch last := m.texts[len(m.texts)-1].config; {
	case !m.config.Conditioned() || m.config.NumClasses > 0 || m.config.ClassType != "":
		return fmt.Errorf("diffusion: unet/config.json: %s with classes or without text: %w", m.config.Class, ErrUnsupported)
	case width != m.config.ContextDim():
		return fmt.Errorf("diffusion: unet/config.json: cross_attention_dim %d, but the text encoders' hidden_size is %d: %w", m.config.ContextDim(), width, ErrUnsupported)
	case m.config.AddedText() != m.xl:
		return fmt.Errorf("diffusion: unet/config.json: addition_embed_type %q in a %s: %w", m.config.AddedType, b.Class, ErrUnsupported)
	case m.xl && m.config.PooledDim() != last.Projection:
		return fmt.Errorf("diffusion: unet/config.json: a pooled text of %d, but text_encoder_2's projection_dim is %d: %w", m.config.PooledDim(), last.Projection, ErrUnsupported)
	}
	return m.configureControl(b)
}

// configureControl reads the configuration of the ControlNet, if there is to be one.
func (m *stable) configureControl(b *bundle) error {
	if b.options.ControlNet == nil {
		return nil
	}
	var err error
	if m.control, err = components.FindControl(b.options.ControlNet); err != nil {
		return fmt.Errorf("diffusion: ControlNet: %w", err)
	}
	c, err := unet.ParseConfig(m.control.Config)
	if err != nil {
		return fmt.Errorf("diffusion: ControlNet: %w: %w", err, ErrUnsupported)
	}
	if c.Class != unet.Control || c.InChannels != m.config.InChannels || !slices.Equal(c.BlockOut, m.config.BlockOut) || c.ContextDim() != m.config.ContextDim() || c.PooledDim() != m.config.PooledDim() || c.HintChannels != 3 {
		return fmt.Errorf("diffusion: ControlNet: a %s of in_channels %d, block_out_channels %v and cross_attention_dim %d does not fit this model: %w", c.Class, c.InChannels, c.BlockOut, c.ContextDim(), ErrUnsupported)
	}
	m.hintConfig = &c
	return nil
}

func (m *stable) load(ctx context.Context, b *bundle) error {
	for i, t := range m.texts {
		if err := t.load(b, []string{"tokenizer", "tokenizer_2"}[i]); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s, err := b.Packed("unet")
	if err != nil {
		return err
	}
	if m.net, err = unet.Load(s, m.config); err != nil {
		return fmt.Errorf("diffusion: unet: %w", err)
	}
	if m.hintConfig == nil {
		return nil
	}
	if s, err = m.control.Open(); err != nil {
		return fmt.Errorf("diffusion: ControlNet: %w", err)
	}
	b.Keep(s)
	if m.hint, err = unet.LoadControlNet(s.Packed(b.Arena, b.options.Compute), *m.hintConfig); err != nil {
		return fmt.Errorf("diffusion: ControlNet: %w", err)
	}
	return nil
}

func (m *stable) describe(i *Info, c scheduler.Config) {
	side := 64
	if m.xl {
		side = 128
	}
	i.Height, i.Width = side, side
	if n := len(m.config.SampleSize); n > 0 {
		i.Height, i.Width = m.config.SampleSize[0], m.config.SampleSize[n-1]
	}
	i.PromptTokens, i.Chunks, i.Negative, i.ClipSkip = m.texts[0].config.Positions-2, true, true, true
	i.Control = m.hintConfig != nil
	i.Steps, i.Guidance = 25, 7.5
	if m.xl {
		i.Guidance = 5
	}
	switch {
	case m.config.TimeCondDim > 0: // distilled with guidance as an input
		i.Steps, i.Guidance, i.Negative = 4, 8.5, false
	case c.Class == "LCMScheduler" || c.Class == "TCDScheduler":
		i.Steps, i.Guidance = 4, 1
	case (c.Class == "EulerAncestralDiscreteScheduler" || c.Class == "EulerDiscreteScheduler") &&
		c.Spacing == "trailing" && c.Prediction == scheduler.Epsilon && !c.ZeroSNR: // Turbo, Lightning
		i.Steps, i.Guidance = 4, 1
	}
}

func (m *stable) traits() traits {
	return traits{channels: m.config.OutChannels, input: m.config.InChannels, guidanceInput: m.config.TimeCondDim > 0}
}

func (m *stable) workspace(s shape, batch int) (int64, error) {
	shape := unet.Shape{Height: s.height, Width: s.width, Batch: batch, Tokens: m.texts[0].config.Positions}
	n, err := unet.Workspace(m.config, shape)
	if err != nil {
		return 0, err
	}
	if m.hintConfig != nil {
		hint, err := unet.Workspace(*m.hintConfig, shape)
		if err != nil {
			return 0, err
		}
		n += hint
	}
	for _, t := range m.texts {
		n = max(n, t.workspace())
	}
	return n, nil
}

func (m *stable) schedule(*scheduler.Options, scheduler.Config, shape) {}

func (m *stable) encode(ctx context.Context, e *tensor.Exec, p prompt) (*condition, error) {
	c := &condition{batch: 1, guidance: p.guidance, width: p.width, height: p.height}
	texts, fields := []string{p.text}, []string{"Prompt"}
	if p.guided {
		c.batch = 2
		texts, fields = []string{p.negative, p.text}, []string{"Negative", "Prompt"}
	}
	all, err := m.states(ctx, e, texts, fields, p.clipSkip)
	if err != nil {
		return nil, err
	}
	c.tokens = len(all[0][0].context) / m.texts[0].config.Hidden
	for i, text := range texts {
		from, pooled := len(c.context), len(c.pooled)
		for s := range c.tokens { // the encoders' channels side by side
			for k, t := range m.texts {
				n := t.config.Hidden
				c.context = append(c.context, all[i][k].context[s*n:][:n]...)
			}
		}
		if m.xl {
			c.pooled = append(c.pooled, all[i][1].pooled...)
		}
		if m.forceZeros && i < c.batch-1 && text == "" {
			clear(c.context[from:])
			clear(c.pooled[pooled:])
		}
	}
	return c, nil
}

// states runs all encoders on all texts, in as many chunks as the longest takes.
func (m *stable) states(ctx context.Context, e *tensor.Exec, texts, fields []string, skip int) ([][]states, error) {
	l := layer{skip: skip, norm: true}
	if m.xl { // the states before the last layer, as they are
		l = layer{skip: skip + 1}
	}
	chunks, most := make([][][]clip.Chunk, len(texts)), 0
	for i, text := range texts {
		for _, t := range m.texts {
			if err := t.checkSkip(skip, l.skip-skip); err != nil {
				return nil, err
			}
			c, err := t.chunks(text, fields[i])
			if err != nil {
				return nil, err
			}
			chunks[i], most = append(chunks[i], c), max(most, len(c))
		}
	}
	all := make([][]states, len(texts))
	for i := range texts {
		for k, t := range m.texts {
			for len(chunks[i][k]) < most {
				chunks[i][k] = append(chunks[i][k], t.prompter.Empty())
			}
			s, err := t.encode(ctx, e, chunks[i][k], l)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], s)
		}
	}
	return all, nil
}

// stableDenoiser is the UNet at work.
type stableDenoiser struct {
	m     *stable
	e     *tensor.Exec
	state *unet.State
	times []float32
	cond  unet.Conditioning

	hint  *unet.State // of the ControlNet, or nil
	scale float32
}

func (m *stable) denoiser(e *tensor.Exec, c *condition, s shape) (denoiser, error) {
	size := unet.Shape{Height: s.height, Width: s.width, Batch: c.batch, Tokens: c.tokens}
	state, err := m.net.NewState(size)
	if err != nil {
		return nil, fmt.Errorf("diffusion: %w", err)
	}
	d := &stableDenoiser{m: m, e: e, state: state, times: make([]float32, c.batch), cond: unet.Conditioning{Context: c.context}}
	for range c.batch {
		if m.xl { // original size, crop, target size
			h, w := float32(c.height), float32(c.width)
			d.cond.TimeIDs = append(d.cond.TimeIDs, h, w, 0, 0, h, w)
		}
		if dim := m.config.TimeCondDim; dim > 0 {
			d.cond.Guidance = append(d.cond.Guidance, unet.GuidanceEmbedding(c.guidance-1, dim)...)
		}
	}
	if m.xl {
		d.cond.Pooled = c.pooled
	}
	if err := m.net.Condition(e, state, d.cond); err != nil {
		return nil, fmt.Errorf("diffusion: %w", err)
	}
	return d, nil
}

func (d *stableDenoiser) forward(ctx context.Context, y, x []float32, timestep float32) error {
	for i := range d.times {
		d.times[i] = timestep
	}
	if d.hint != nil {
		if err := d.m.hint.Forward(ctx, d.e, d.hint, x, d.times, d.scale); err != nil {
			return err
		}
	}
	return d.m.net.Forward(ctx, d.e, d.state, y, x, d.times)
}

// control prepares the ControlNet.
func (d *stableDenoiser) control(picture []float32, width, height int, scale float32) error {
	hint, err := d.m.hint.NewState(d.state.Shape)
	if err != nil {
		return fmt.Errorf("diffusion: ControlNet: %w", err)
	}
	if by := d.m.hint.HintScale(); width != by*d.state.Width || height != by*d.state.Height {
		return fmt.Errorf("diffusion: ControlNet: hints are %d times the latents, want a picture of %d×%d: %w", by, width, height, ErrUnsupported)
	}
	cond := d.cond
	cond.Guidance = nil
	if err := d.m.hint.Condition(d.e, hint, cond); err != nil {
		return fmt.Errorf("diffusion: ControlNet: %w", err)
	}
	if err := d.m.hint.SetHint(d.e, hint, picture); err != nil {
		return fmt.Errorf("diffusion: ControlNet: %w", err)
	}
	d.hint, d.scale, d.state.Controls = hint, scale, []*unet.State{hint}
	return nil
}

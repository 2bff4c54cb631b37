package diffusion

import (
	"context"
	"fmt"

	"helicon/models/diffusion/scheduler"
	"helicon/models/dit"
	"helicon/models/tensor"
)

// stable3 is Stable Diffusion 3 and 3.5 (Esser et al. 2024): a transformer that reads the
// states of three text encoders, the two of SDXL and one of T5. The last, which is by far
// the largest, may be missing.
type stable3 struct {
	config dit.SD3Config
	clips  stable     // the encoders of CLIP, read as SDXL does
	t5     *t5Encoder // or nil
	net    *dit.SD3
}

// stable3Tokens is how many tokens of T5 the network reads.
const stable3Tokens = 256

func (m *stable3) configure(b *bundle) error {
	var err error
	if m.config, err = transformerConfig(b, dit.ParseSD3Config); err != nil {
		return err
	}
	m.clips.xl = true
	width, pooled := 0, 0
	for _, name := range []string{"text_encoder", "text_encoder_2"} {
		t, err := configureText(b, name)
		if err != nil {
			return err
		}
		m.clips.texts = append(m.clips.texts, t)
		width, pooled = width+t.config.Hidden, pooled+t.config.Projection
	}
	wide := m.config.TextDim
	if b.Has("text_encoder_3") {
		if m.t5, err = configureT5(b, "text_encoder_3", stable3Tokens); err != nil {
			return err
		}
		wide = m.t5.config.Width
	}
	switch {
	case m.config.InChannels != m.config.OutChannels:
		return fmt.Errorf("diffusion: transformer/config.json: %d channels in and %d out: %w", m.config.InChannels, m.config.OutChannels, ErrUnsupported)
	case pooled != m.config.PooledDim:
		return fmt.Errorf("diffusion: transformer/config.json: pooled_projection_dim %d, but the text encoders' projection_dim is %d: %w", m.config.PooledDim, pooled, ErrUnsupported)
	case width > m.config.TextDim || wide != m.config.TextDim:
		return fmt.Errorf("diffusion: transformer/config.json: joint_attention_dim %d, but the text encoders have %d and %d: %w", m.config.TextDim, width, wide, ErrUnsupported)
	}
	return nil
}

func (m *stable3) load(ctx context.Context, b *bundle) error {
	for i, t := range m.clips.texts {
		if err := t.load(b, []string{"tokenizer", "tokenizer_2"}[i]); err != nil {
			return err
		}
	}
	if m.t5 != nil {
		if err := m.t5.load(b, "tokenizer_3"); err != nil {
			return err
		}
	}
	var err error
	m.net, err = loadTransformer(ctx, b, m.config, dit.LoadSD3)
	return err
}

func (m *stable3) describe(i *Info, _ scheduler.Config) {
	i.Height, i.Width = m.config.SampleSize, m.config.SampleSize
	i.PromptTokens, i.Chunks, i.Negative, i.ClipSkip = m.clips.texts[0].config.Positions-2, true, true, true
	i.Steps, i.Guidance = 28, 7
	if m.config.QKNorm != "" { // 3.5
		i.Guidance = 4.5
	}
}

func (m *stable3) traits() traits {
	return traits{channels: m.config.InChannels, input: m.config.InChannels, patch: m.config.PatchSize}
}

// sentenceTokens is how many tokens the states of T5 have: in its place are zeros.
func (m *stable3) sentenceTokens() int {
	if m.t5 != nil {
		return m.t5.tokens
	}
	return m.clips.texts[0].config.Positions
}

func (m *stable3) workspace(s shape, batch int) (int64, error) {
	tokens := m.clips.texts[0].config.Positions + m.sentenceTokens()
	n, err := m.config.Workspace(dit.Shape{Batch: batch, Height: s.height, Width: s.width, Tokens: tokens})
	for _, t := range m.clips.texts {
		n = max(n, t.workspace())
	}
	if m.t5 != nil {
		n = max(n, m.t5.workspace())
	}
	return n, err
}

func (m *stable3) schedule(o *scheduler.Options, c scheduler.Config, s shape) {
	if c.DynamicShift {
		o.Mu = c.Mu(s.height / m.config.PatchSize * (s.width / m.config.PatchSize))
	}
}

func (m *stable3) encode(ctx context.Context, e *tensor.Exec, p prompt) (*condition, error) {
	prompts := p.prompts()
	texts, fields := make([]string, len(prompts)), make([]string, len(prompts))
	for i, f := range prompts {
		texts[i], fields[i] = f.text, f.field
	}
	all, err := m.clips.states(ctx, e, texts, fields, p.clipSkip)
	if err != nil {
		return nil, err
	}
	c := &condition{batch: len(prompts), width: p.width, height: p.height}
	read := len(all[0][0].context) / m.clips.texts[0].config.Hidden // tokens of CLIP
	c.tokens = read + m.sentenceTokens()
	wide := m.config.TextDim
	c.context = make([]float32, c.batch*c.tokens*wide)
	for i, f := range prompts {
		own := c.context[i*c.tokens*wide:][:c.tokens*wide]
		at := 0 // channels of the encoders side by side, and zeros
		for k, t := range m.clips.texts {
			n := t.config.Hidden
			for s := range read {
				copy(own[s*wide+at:][:n], all[i][k].context[s*n:])
			}
			at += n
			c.pooled = append(c.pooled, all[i][k].pooled...)
		}
		if m.t5 == nil {
			continue
		}
		states, _, err := m.t5.encode(ctx, e, f, false)
		if err != nil {
			return nil, err
		}
		copy(own[read*wide:], states)
	}
	return c, nil
}

func (m *stable3) denoiser(e *tensor.Exec, c *condition, s shape) (denoiser, error) {
	return newTransformerDenoiser(e, m.net, c, s, m.config.OutChannels)
}

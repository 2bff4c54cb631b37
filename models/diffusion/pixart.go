package diffusion

import (
	"context"
	"fmt"
	"strings"

	"helicon/models/diffusion/scheduler"
	"helicon/models/dit"
	"helicon/models/tensor"
)

// pixart is PixArt α and Σ (Chen et al. 2023, 2024): a transformer that attends to the
// states of a text encoder of T5.
type pixart struct {
	config dit.PixArtConfig
	text   *t5Encoder
	net    *dit.PixArt
}

// Tokens of a text that the two were trained with.
const (
	pixartAlphaTokens = 120
	pixartSigmaTokens = 300
)

func (m *pixart) configure(b *bundle) error {
	var err error
	if m.config, err = transformerConfig(b, dit.ParsePixArtConfig); err != nil {
		return err
	}
	if _, err := learned(m.config.InChannels, m.config.OutChannels); err != nil {
		return err
	}
	tokens := pixartAlphaTokens
	if b.Class == "PixArtSigmaPipeline" {
		tokens = pixartSigmaTokens
	}
	if m.text, err = configureT5(b, "text_encoder", tokens); err != nil {
		return err
	}
	if m.text.config.Width != m.config.CaptionChannels {
		return fmt.Errorf("diffusion: transformer/config.json: caption_channels %d, but the text encoder's d_model is %d: %w",
			m.config.CaptionChannels, m.text.config.Width, ErrUnsupported)
	}
	return nil
}

func (m *pixart) load(ctx context.Context, b *bundle) error {
	if err := m.text.load(b, "tokenizer"); err != nil {
		return err
	}
	var err error
	m.net, err = loadTransformer(ctx, b, m.config, dit.LoadPixArt)
	return err
}

func (m *pixart) describe(i *Info, c scheduler.Config) {
	i.Height, i.Width = m.config.SampleSize, m.config.SampleSize
	i.PromptTokens, i.Negative = m.text.tokens-1, true // beside the end token
	i.Steps, i.Guidance = 20, 4.5
	if c.Class == "LCMScheduler" {
		i.Steps, i.Guidance = 4, 1
	}
}

func (m *pixart) traits() traits {
	return traits{channels: m.config.InChannels, input: m.config.InChannels, patch: m.config.PatchSize}
}

func (m *pixart) workspace(s shape, batch int) (int64, error) {
	n, err := m.config.Workspace(dit.Shape{Batch: batch, Height: s.height, Width: s.width, Tokens: m.text.tokens})
	return max(n, m.text.workspace()), err
}

func (m *pixart) schedule(*scheduler.Options, scheduler.Config, shape) {}

// encode reads prompts in small letters, as the network's captions were.
func (m *pixart) encode(ctx context.Context, e *tensor.Exec, p prompt) (*condition, error) {
	c := &condition{tokens: m.text.tokens, width: p.width, height: p.height}
	for _, text := range p.prompts() {
		text.text = strings.ToLower(strings.TrimSpace(text.text))
		states, mask, err := m.text.encode(ctx, e, text, true)
		if err != nil {
			return nil, err
		}
		c.context, c.mask = append(c.context, states...), append(c.mask, mask...)
		c.batch++
	}
	return c, nil
}

func (m *pixart) denoiser(e *tensor.Exec, c *condition, s shape) (denoiser, error) {
	return newTransformerDenoiser(e, m.net, c, s, m.config.OutChannels)
}

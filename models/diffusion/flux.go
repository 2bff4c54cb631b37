package diffusion

import (
	"context"
	"fmt"
	"strings"

	"helicon/models/clip"
	"helicon/models/diffusion/scheduler"
	"helicon/models/dit"
	"helicon/models/tensor"
)

// flux is Flux (Black Forest Labs 2024): a transformer that reads the states of a text
// encoder of T5, and the one vector that CLIP's makes of a text. It was made from a guided
// model and needs no negative half: guidance is an input (dev), or there is none (schnell).
type flux struct {
	config dit.FluxConfig
	clip   *textEncoder
	t5     *t5Encoder
	net    *dit.Flux
}

// Tokens of a text that the two were trained with, and side of the native latents.
const (
	fluxDevTokens     = 512
	fluxSchnellTokens = 256
	fluxSide          = 128
)

func (m *flux) configure(b *bundle) error {
	var err error
	if m.config, err = transformerConfig(b, dit.ParseFluxConfig); err != nil {
		return err
	}
	if m.clip, err = configureText(b, "text_encoder"); err != nil {
		return err
	}
	tokens := fluxSchnellTokens
	if m.config.Guided {
		tokens = fluxDevTokens
	}
	if m.t5, err = configureT5(b, "text_encoder_2", tokens); err != nil {
		return err
	}
	if m.clip.config.Hidden != m.config.PooledDim || m.t5.config.Width != m.config.TextDim {
		return fmt.Errorf("diffusion: transformer/config.json: pooled_projection_dim %d and joint_attention_dim %d, but the text encoders have %d and %d: %w",
			m.config.PooledDim, m.config.TextDim, m.clip.config.Hidden, m.t5.config.Width, ErrUnsupported)
	}
	return nil
}

func (m *flux) load(ctx context.Context, b *bundle) error {
	if err := m.clip.load(b, "tokenizer"); err != nil {
		return err
	}
	if err := m.t5.load(b, "tokenizer_2"); err != nil {
		return err
	}
	var err error
	m.net, err = loadTransformer(ctx, b, m.config, dit.LoadFlux)
	return err
}

func (m *flux) describe(i *Info, _ scheduler.Config) {
	i.Height, i.Width = fluxSide, fluxSide
	i.PromptTokens = m.t5.tokens - 1 // beside the end token
	i.Steps, i.Guidance = 4, 1
	if m.config.Guided {
		i.Steps, i.Guidance = 28, 3.5
	}
}

func (m *flux) traits() traits {
	channels := m.config.LatentChannels()
	return traits{channels: channels, input: channels, patch: 2, guidanceInput: true}
}

func (m *flux) workspace(s shape, batch int) (int64, error) {
	n, err := m.config.Workspace(dit.Shape{Batch: batch, Height: s.height, Width: s.width, Tokens: m.t5.tokens})
	return max(n, m.t5.workspace(), m.clip.workspace()), err
}

// schedule spaces the levels evenly from all noise to a step above none, and shifts them
// by the number of tokens if the model was trained so.
func (m *flux) schedule(o *scheduler.Options, c scheduler.Config, s shape) {
	if c.DynamicShift {
		o.Mu = c.Mu(s.height / 2 * (s.width / 2))
	}
	if !strings.HasPrefix(c.Class, "FlowMatch") {
		return
	}
	for i := range o.Steps {
		o.Sigmas = append(o.Sigmas, 1-float64(i)/float64(o.Steps))
	}
}

func (m *flux) encode(ctx context.Context, e *tensor.Exec, p prompt) (*condition, error) {
	if !m.config.Guided && p.guidance > 1 {
		return nil, bad("Guidance", "is %v, but this model has none", p.guidance)
	}
	text := p.prompts()[0] // guidance is an input: there is no other
	chunks, err := m.clip.chunks(text.text, text.field)
	if err != nil {
		return nil, err
	}
	vector, err := m.clip.encode(ctx, e, []clip.Chunk{chunks[0]}, layer{})
	if err != nil {
		return nil, err
	}
	states, _, err := m.t5.encode(ctx, e, text, false)
	if err != nil {
		return nil, err
	}
	return &condition{
		batch: 1, tokens: m.t5.tokens, context: states, pooled: vector.pooled, guidance: p.guidance,
		width: p.width, height: p.height,
	}, nil
}

func (m *flux) denoiser(e *tensor.Exec, c *condition, s shape) (denoiser, error) {
	return newTransformerDenoiser(e, m.net, c, s, s.channels)
}

package diffusion

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"helicon/models/clip"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// textEncoder is one of CLIP's, with its tokenizer.
type textEncoder struct {
	name     string // of the component
	config   clip.TextConfig
	prompter *clip.Prompter
	model    *clip.Text
	store    *weights.Store
	vectors  []float32 // of learned words
}

// configureText reads the configuration of a component that is a CLIP text encoder.
func configureText(b *bundle, name string) (*textEncoder, error) {
	raw, err := b.Config(name)
	if err != nil {
		return nil, err
	}
	t := &textEncoder{name: name}
	if t.config, err = clip.ParseTextConfig(raw); err != nil {
		return nil, fmt.Errorf("diffusion: %s/config.json: %w: %w", name, err, ErrUnsupported)
	}
	return t, nil
}

// load reads the weights, the tokenizer and the learned words.
func (t *textEncoder) load(b *bundle, tokens string) error {
	words, vectors, err := b.Words(t.name, t.config.Hidden)
	if err != nil {
		return err
	}
	tokenizer, err := b.Tokenizer(tokens)
	if err != nil {
		return err
	}
	if t.prompter, err = clip.NewPrompter(tokenizer, t.config, words...); err != nil {
		return fmt.Errorf("diffusion: %s: %w", tokens, err)
	}
	t.vectors = vectors
	if t.store, err = b.Brief(t.name); err != nil {
		return err
	}
	if t.model, err = clip.LoadText(t.store, t.config); err != nil {
		return fmt.Errorf("diffusion: %s: %w", t.name, err)
	}
	return nil
}

// workspace is about what encode takes.
func (t *textEncoder) workspace() int64 {
	c := t.config
	return 4 * int64(c.Positions) * (int64(c.Hidden)*int64(c.Layers+8) + int64(c.Intermediate))
}

// chunks reads a prompt; field names it in errors.
func (t *textEncoder) chunks(prompt, field string) ([]clip.Chunk, error) {
	c, err := t.prompter.Chunks(prompt)
	if errors.Is(err, clip.ErrPrompt) {
		return nil, &RequestError{Field: field, Reason: fmt.Sprintf("is no prompt: %v", err)}
	}
	if len(c) > maxChunks {
		return nil, bad(field, "takes %d times what the text encoder reads at once, want at most %d", len(c), maxChunks)
	}
	return c, err
}

// maxChunks bounds the memory of attention to a prompt, which goes through the whole
// network: 64 KiB of text could take tens of gigabytes.
const maxChunks = 16

// states is what an encoder makes of chunks.
type states struct {
	context []float32 // [S, C]
	pooled  []float32 // [P] of the first chunk, through the projection if there is one
}

// layer is which states of an encoder are wanted.
type layer struct {
	skip int  // last layers that are left out
	norm bool // by the final norm, as Stable Diffusion 1 and 2 want it
}

// encode runs the encoder on each chunk, and gives back the pages of its file.
func (t *textEncoder) encode(ctx context.Context, e *tensor.Exec, chunks []clip.Chunk, l layer) (states, error) {
	defer t.store.Evict()
	var out states
	st := t.model.NewState(1)
	for i, c := range chunks {
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		if err := t.model.Forward(e, st, clip.TextInput{IDs: c.IDs, Vectors: t.vectors}); err != nil {
			return out, fmt.Errorf("diffusion: %s: %w", t.name, err)
		}
		x := st.Hidden(t.config.Layers - l.skip)
		if l.norm {
			t.model.Norm(e, x, x)
		}
		from := len(out.context)
		out.context = append(out.context, x...)
		c.Weigh(out.context[from:])
		if i > 0 {
			continue
		}
		if out.pooled = slices.Clone(st.Embeds()); out.pooled == nil {
			out.pooled = slices.Clone(st.Pooled())
		}
	}
	return out, nil
}

// checkSkip returns an error if so many layers cannot be left out.
func (t *textEncoder) checkSkip(skip, more int) error {
	if most := t.config.Layers - 1 - more; skip < 0 || skip > most {
		return &RequestError{Field: "ClipSkip", Reason: fmt.Sprintf("is %d, want 0 to %d", skip, most)}
	}
	return nil
}

package diffusion

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"helicon/models/clip"
	"helicon/models/t5"
	"helicon/models/tensor"
	"helicon/models/tokenizer"
	"helicon/models/weights"
)

// t5Encoder is an encoder of T5, with its tokenizer.
type t5Encoder struct {
	name      string // of the component
	tokens    int    // of every text: longer ones are cut, shorter ones filled up
	config    t5.Config
	tokenizer *tokenizer.Tokenizer
	model     *t5.Encoder
	store     *weights.Store
}

// configureT5 reads the configuration of a component that is a T5 encoder.
func configureT5(b *bundle, name string, tokens int) (*t5Encoder, error) {
	raw, err := b.Config(name)
	if err != nil {
		return nil, err
	}
	t := &t5Encoder{name: name, tokens: tokens}
	if t.config, err = t5.ParseConfig(raw); err != nil {
		return nil, fmt.Errorf("diffusion: %s/config.json: %w: %w", name, err, ErrUnsupported)
	}
	return t, nil
}

// load reads the weights, in the type that they are stored in, and the tokenizer.
func (t *t5Encoder) load(b *bundle, tokens string) error {
	var err error
	if t.tokenizer, err = b.Tokenizer(tokens); err != nil {
		return err
	}
	if t.store, err = b.Brief(t.name); err != nil {
		return err
	}
	if t.model, err = t5.Load(t.store, t.config); err != nil {
		return fmt.Errorf("diffusion: %s: %w", t.name, err)
	}
	return nil
}

// workspace is about what encode takes.
func (t *t5Encoder) workspace() int64 {
	c, n := t.config, int64(t.tokens)
	return 4 * n * (3*int64(c.Width) + 3*int64(c.Heads*c.HeadDim) + 2*int64(c.Inner) + 2*int64(c.Heads)*n)
}

// encode returns the states [tokens, C] of a prompt, and which of them are not padding; field
// names the prompt in errors. Weights in the prompt are CLIP's, and T5 reads past them. The
// states do not heed padding if masked is set, as in PixArt; in others it is read like text.
func (t *t5Encoder) encode(ctx context.Context, e *tensor.Exec, prompt promptField, masked bool) ([]float32, []bool, error) {
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	text, err := plainText(prompt)
	if err != nil {
		return nil, nil, err
	}
	ids, mask, err := t.read(text)
	if err != nil {
		return nil, nil, fmt.Errorf("diffusion: %s: %w", t.name, err)
	}
	defer t.store.Evict()
	in := t5.Input{IDs: ids}
	if masked {
		in.Mask = mask
	}
	x, err := t.model.Forward(e, t.model.NewState(1, t.tokens), in)
	if err != nil {
		return nil, nil, fmt.Errorf("diffusion: %s: %w", t.name, err)
	}
	return x, mask, nil
}

// read returns the ids of a text with its end token, and which of them are not padding.
func (t *t5Encoder) read(text string) ([]int, []bool, error) {
	ids, err := t.tokenizer.Encode(text, tokenizer.EncodeOptions{AddSpecial: true})
	if err != nil {
		return nil, nil, err
	}
	if end := t.tokenizer.EOS(); len(end) > 0 && (len(ids) == 0 || !slices.Contains(end, ids[len(ids)-1])) {
		ids = append(ids, end[0])
	}
	if len(ids) > t.tokens { // the end stays
		ids = append(ids[:t.tokens-1], ids[len(ids)-1])
	}
	mask := make([]bool, t.tokens)
	for i := range ids {
		mask[i] = true
	}
	pad, ok := t.tokenizer.PAD()
	if !ok {
		pad = 0
	}
	for len(ids) < t.tokens {
		ids = append(ids, pad)
	}
	return ids, mask, nil
}

// promptField is a prompt, and its field in a request.
type promptField struct{ text, field string }

// prompts returns the prompts to be encoded, the negative one first if it is wanted.
func (p prompt) prompts() []promptField {
	if p.guided {
		return []promptField{{p.negative, "Negative"}, {p.text, "Prompt"}}
	}
	return []promptField{{p.text, "Prompt"}}
}

// plainText returns a prompt without the syntax of weights.
func plainText(p promptField) (string, error) {
	fragments, err := clip.ParsePrompt(p.text)
	if errors.Is(err, clip.ErrPrompt) {
		return "", &RequestError{Field: p.field, Reason: fmt.Sprintf("is no prompt: %v", err)}
	}
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, f := range fragments {
		if f.Break {
			text.WriteByte(' ')
		}
		text.WriteString(f.Text)
	}
	return text.String(), nil
}

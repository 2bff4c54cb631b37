package text

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"helicon/models/hub"
	"helicon/models/lm"
	"helicon/models/tensor"
	"helicon/models/tokenizer"
)

// profile is what a bundle's small files say about how to use it.
type profile struct {
	bundle     *hub.Bundle
	generation sampling // recommended values
	chat       bool     // it has a chat template
	err        error    // the files cannot be used
}

// profile reads the small files of a bundle, unless it knows them.
func (g *Generator) profile(b *hub.Bundle) (*profile, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.profiles[b.ID]
	if p == nil || p.bundle != b {
		p = &profile{bundle: b}
		p.generation, p.err = readGeneration(b.Files)
		if p.err == nil {
			p.chat, p.err = hasChatTemplate(b.Files)
		}
		g.profiles[b.ID] = p
	}
	return p, p.err
}

// readGeneration reads generation_config.json, which need not exist.
func readGeneration(files fs.FS) (sampling, error) {
	const name = "generation_config.json"
	raw, err := fs.ReadFile(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return sampling{}, nil
	}
	if err != nil {
		return sampling{}, err
	}
	var c struct {
		sampling
		MaxNewTokens *int  `json:"max_new_tokens"`
		DoSample     *bool `json:"do_sample"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return sampling{}, fmt.Errorf("%s: %w", name, err)
	}
	c.MaxTokens = c.MaxNewTokens
	if c.MaxTokens != nil && *c.MaxTokens > maxTokens {
		c.MaxTokens = nil // more than a job may ask for is no recommendation for one
	}
	if c.DoSample != nil && !*c.DoSample {
		c.Temperature = new(float64)
	}
	if f := c.over(defaults()).validate(); f != nil {
		return sampling{}, fmt.Errorf("%s: %s: %s", name, f[0].Pointer[1:], f[0].Detail)
	}
	return c.sampling, nil
}

// hasChatTemplate looks for a chat template without reading the vocabulary.
func hasChatTemplate(files fs.FS) (bool, error) {
	if _, err := fs.Stat(files, "chat_template.jinja"); err == nil {
		return true, nil
	}
	const name = "tokenizer_config.json"
	raw, err := fs.ReadFile(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var c struct {
		ChatTemplate any `json:"chat_template"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	return c.ChatTemplate != nil && c.ChatTemplate != "", nil
}

// engine is a loaded model with its tokenizer. It is shared by jobs.
type engine struct {
	bundle    *hub.Bundle
	digest    string
	model     *lm.Model
	tokenizer *tokenizer.Tokenizer
	chat      *tokenizer.ChatTemplate // unless there is chatErr
	chatErr   error
	stops     map[int]bool // tokens that end a text
}

// load loads a bundle. What is wrong with its files is a *queue.Problem.
func load(ctx context.Context, b *hub.Bundle, pool *tensor.Pool) (*engine, error) {
	digest, err := b.Digest(ctx)
	if err != nil {
		return nil, err
	}
	t, err := tokenizer.Load(b.Files)
	if err != nil {
		return nil, unusable(b, err)
	}
	m, err := lm.Load(b.Files, lm.Options{Pool: pool})
	if err != nil {
		return nil, unusable(b, err)
	}
	e := &engine{bundle: b, digest: digest, model: m, tokenizer: t, stops: map[int]bool{}}
	e.chat, e.chatErr = t.ChatTemplate()
	for _, ids := range [][]int{t.EOS(), m.Config().EOS} {
		for _, id := range ids {
			e.stops[id] = true
		}
	}
	return e, nil
}

// Close implements io.Closer.
func (e *engine) Close() error { return e.model.Close() }

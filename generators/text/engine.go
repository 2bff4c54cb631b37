package text

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"helicon/models/hub"
	"helicon/models/lm"
	"helicon/models/tokenizer"
	"helicon/models/weights"
)

// profile is what a bundle's small files say about how to use it.
type profile struct {
	bundle     *hub.Bundle
	generation sampling // recommended values
	footprint  lm.Footprint
	chatErr    error // why it cannot chat
	err        error // why it cannot be used
}

// profile reads the small files of a bundle, unless it knows them. The log tells once
// why a bundle cannot be used.
func (g *Generator) profile(b *hub.Bundle) (*profile, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.profiles[b.ID]
	if p == nil || p.bundle != b {
		p = &profile{bundle: b}
		g.keep(p, p.read())
	}
	return p, p.err
}

// Check says why a language model cannot be used, as far as its small files tell: what
// is wrong with its weights shows when they are loaded.
func Check(b *hub.Bundle) error {
	switch {
	case b.Problem != nil:
		return b.Problem
	case !supported(b):
		return unsupported(b)
	}
	return (&profile{bundle: b}).read()
}

// reject remembers what only loading could find: the bundle's weights cannot be used
// as they are.
func (g *Generator) reject(b *hub.Bundle, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.profiles[b.ID]; p != nil && p.bundle == b && p.err == nil {
		rejected := *p // the one before is in use
		g.keep(&rejected, err)
	}
}

// keep takes in a profile with what is wrong with its bundle.
func (g *Generator) keep(p *profile, err error) {
	p.err = err
	log := g.log.With("model", p.bundle.ID, "source", p.bundle.Source)
	switch {
	case err != nil:
		log.Warn("a model cannot be used", "err", err)
	case p.chatErr != nil && !errors.Is(p.chatErr, tokenizer.ErrNoChatTemplate):
		log.Warn("a model cannot be used for conversations", "err", p.chatErr)
	}
	g.profiles[p.bundle.ID] = p
}

// read fills in the profile. The error says why the bundle cannot be used.
func (p *profile) read() error {
	var err error
	if p.generation, err = readGeneration(p.bundle.Files); err != nil {
		return err
	}
	if p.footprint, err = lm.Estimate(p.bundle.Files, 1); err != nil {
		return err
	}
	t, err := tokenizer.Load(p.bundle.Files)
	if err != nil {
		return err
	}
	_, p.chatErr = t.ChatTemplate()
	return nil
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
		MaxNewTokens *whole `json:"max_new_tokens"`
		DoSample     *bool  `json:"do_sample"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		if f, ok := misfit(err); ok {
			return sampling{}, fmt.Errorf("%s: %s: %s", name, f.Pointer[1:], f.Detail)
		}
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

// engine is a loaded model with its tokenizer. It is shared by jobs, whose texts its
// batcher writes together.
type engine struct {
	bundle    *hub.Bundle
	digest    string
	model     *lm.Model
	batcher   *lm.Batcher
	tokenizer *tokenizer.Tokenizer
	chat      *tokenizer.ChatTemplate // unless there is chatErr
	chatErr   error
	toolChat  *tokenizer.ChatTemplate // for conversations with tools, unless there is chatErr
	stops     map[int]bool            // tokens that end a text
	automata  automata
}

// load loads a bundle. What is wrong with its files is a *queue.Problem.
func (g *Generator) load(ctx context.Context, b *hub.Bundle) (*engine, error) {
	p, err := g.profile(b)
	if err != nil {
		return nil, unusable(b, err)
	}
	digest, err := b.Digest(ctx)
	if err != nil {
		return nil, err
	}
	t, err := tokenizer.Load(b.Files)
	if err != nil {
		return nil, unusable(b, err)
	}
	m, err := lm.Load(b.Files, lm.Options{Pool: g.pool})
	if errors.Is(err, weights.ErrFormat) || errors.Is(err, weights.ErrMissing) || errors.Is(err, weights.ErrShape) {
		g.reject(b, err)
	}
	if err != nil {
		return nil, unusable(b, err)
	}
	e := &engine{bundle: b, digest: digest, model: m, tokenizer: t, stops: map[int]bool{}}
	options := lm.BatchOptions{Memory: pageBytes(p.footprint, g.memory.Total())}
	if e.batcher, err = m.NewBatcher(context.WithoutCancel(ctx), options); err != nil {
		return nil, errors.Join(fmt.Errorf("text: %w", err), m.Close())
	}
	e.chat, e.chatErr = t.ChatTemplate()
	if e.toolChat, err = t.ToolTemplate(); err != nil {
		e.toolChat = e.chat // which says itself what is wrong with it
	}
	for _, ids := range [][]int{t.EOS(), m.Config().EOS} {
		for _, id := range ids {
			e.stops[id] = true
		}
	}
	return e, nil
}

// Close implements io.Closer.
func (e *engine) Close() error { return errors.Join(e.batcher.Close(), e.model.Close()) }

// Package lm runs decoder-only transformers from the folders that Hugging Face
// repositories have, config.json and model.safetensors, and from GGUF files, which say
// both. OPT, Falcon with ALiBi and what else GGUF has no words for is in folders alone.
//
// There is one decoder (decoder.go) for all families, of which package family knows how
// their bundles describe it and name its tensors. A Model is read-only and shared; a
// State is one sequence with its KV cache; a Batcher computes many together. Tokens go in,
// logits come out: text and sampling are the business of packages tokenizer and sample.
//
// Axes: T tokens of a call, C hidden channels, H query heads, G key-value heads,
// D head dimension, I channels inside the MLP, X experts, V vocabulary, E width of its
// embedding, which nearly always is C.
package lm

import (
	"errors"
	"fmt"
	"io/fs"

	"helicon/models/lm/family"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Errors that callers tell apart.
var (
	// ErrFull is wrapped when a sequence would outgrow its state.
	ErrFull = errors.New("sequence is full")
	// ErrToken is wrapped when a token id is outside the vocabulary.
	ErrToken = errors.New("token outside the vocabulary")
)

// Options are the choices of Load. The zero value computes on the caller's thread.
type Options struct {
	Pool *tensor.Pool // shares the work of operations; it must outlive the model
}

// Model is a loaded language model. It may be used by any number of goroutines,
// each with its own State.
type Model struct {
	config family.Config
	pool   *tensor.Pool
	store  *weights.Store
	arena  *tensor.Arena // of the packed matrices
	net    network
}

// Load opens the model in a folder. The errors are those of family.Open.
func Load(fsys fs.FS, o Options) (*Model, error) {
	config, store, err := family.Open(fsys)
	if err != nil {
		return nil, err
	}
	m := &Model{config: config, pool: o.Pool, store: store, arena: new(tensor.Arena)}
	if m.net, err = loadNetwork(store, &m.config, m.arena); err != nil {
		return nil, errors.Join(fmt.Errorf("lm: %s: %w", config.Architecture, err), m.Close())
	}
	return m, nil
}

// Config returns the model's configuration.
func (m *Model) Config() family.Config { return m.config }

// Bytes returns the size of the weights.
func (m *Model) Bytes() int64 { return m.store.Bytes() }

// Close releases the weights. No state of the model may be used any more.
func (m *Model) Close() error { return errors.Join(m.store.Close(), m.arena.Close()) }

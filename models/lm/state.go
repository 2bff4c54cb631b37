package lm

import (
	"fmt"
	"io/fs"
	"slices"

	"helicon/models/lm/family"
	"helicon/models/nn"
)

// chunkTokens is how many tokens pass the network together: enough that a weight is
// read from memory once for many, few enough that activations stay small.
const chunkTokens = 128

// maxState bounds the memory of a state, in bytes.
const maxState = 1 << 42

// State is one sequence: its KV cache and the activations of a call, all allocated
// when it is made. It and its forks belong to one goroutine at a time. Batcher is for
// sequences that are to be computed together.
type State struct {
	model  *Model
	pass   *pass
	seq    *sequence
	run    [1]run
	logits []float32 // [V]
}

// NewState returns an empty sequence with room for maxTokens tokens. With learned
// positions they are at most Config.Context; other positions go on beyond it.
func (m *Model) NewState(maxTokens int) (*State, error) {
	c := &m.config
	if err := checkLength(c, maxTokens); err != nil {
		return nil, err
	}
	n := pagesFor(maxTokens)
	cache := newPages(c, n)
	cache.promise(n)
	cache.grow(n)
	return &State{model: m, pass: m.newPass(stateSize(maxTokens)), seq: cache.newSequence(maxTokens, n)}, nil
}

// stateSize is the size of what a state computes at once.
func stateSize(tokens int) passSize {
	return passSize{tokens: min(tokens, chunkTokens), sequences: 1, outputs: 1, positions: tokens}
}

// Fork returns a sequence that goes on from the same text by itself. The two share the
// pages of keys and values that they have in common, and the activations of a call.
// Close gives the fork's pages to those that come later; it may be left to the garbage
// collector together with all others.
func (s *State) Fork() *State {
	cache := s.seq.cache
	cache.limit += s.seq.most
	cache.promise(s.seq.most)
	return &State{model: s.model, pass: s.pass, seq: s.seq.fork()}
}

// Close gives the pages of a sequence to its forks, or to the one that it is a fork of.
// It must not be used any more.
func (s *State) Close() {
	s.seq.cache.limit -= s.seq.most
	s.seq.close()
}

func checkLength(c *family.Config, tokens int) error {
	switch {
	case tokens < 1 || tokens > family.MaxContext:
		return fmt.Errorf("lm: state for %d tokens, want 1 to %d: %w", tokens, family.MaxContext, ErrFull)
	case c.Layout.Positions != "" && tokens > c.Context:
		return fmt.Errorf("lm: state for %d tokens of a model with %d learned positions: %w", tokens, c.Context, ErrFull)
	case int64(pagesFor(tokens)) > maxState/pageBytes(c) || stateBytes(c, tokens) > maxState:
		return fmt.Errorf("lm: state for %d tokens takes more than %d bytes: %w", tokens, int64(maxState), ErrFull)
	}
	return nil
}

// switches reports whether angles depend on the length of the sequence.
func switches(c *family.Config) bool { return slices.ContainsFunc(c.Rotations, nn.Rope.Switches) }

// Len returns the number of tokens in the sequence.
func (s *State) Len() int { return len(s.seq.text) }

// Cap returns the number of tokens that the sequence has room for.
func (s *State) Cap() int { return cap(s.seq.text) }

// Truncate forgets all but the first n tokens, so that another text with the same
// beginning can go on from there. It panics unless 0 ≤ n ≤ Len.
func (s *State) Truncate(n int) {
	if n < 0 || n > s.Len() {
		panic(fmt.Sprintf("lm: truncate a sequence of %d tokens to %d", s.Len(), n))
	}
	s.seq.truncate(n)
}

// Bytes returns the memory of the state, without what its forks take.
func (s *State) Bytes() int64 { return stateBytes(&s.model.config, s.Cap()) }

// stateBytes returns what a state for so many tokens takes.
func stateBytes(c *family.Config, tokens int) int64 {
	return sequenceBytes(tokens) + int64(pagesFor(tokens))*pageBytes(c) + passBytes(c, stateSize(tokens))
}

// sequenceBytes returns what a sequence takes beside its pages.
func sequenceBytes(tokens int) int64 { return 8*int64(tokens) + 4*int64(pagesFor(tokens)) }

// Footprint is the memory that a model needs, in bytes, and what it depends on.
type Footprint struct {
	Weights int64 // once a model
	State   int64 // once a State
	Batcher int64 // once a Batcher, beside its pages
	Page    int64 // once for each PageTokens tokens of a text in a Batcher
	Logits  int64 // those of one position
	Context int   // Config.Context, in tokens
}

// Estimate returns what the model in a folder will take, with a sequence of so many
// tokens, from its configuration and the headers of its files alone, in which it finds
// all that would keep the model from loading. The errors are those of Load and NewState.
func Estimate(fsys fs.FS, tokens int) (Footprint, error) {
	c, header, err := family.Describe(fsys)
	if err != nil {
		return Footprint{}, err
	}
	if err := checkLength(&c, tokens); err != nil {
		return Footprint{}, err
	}
	if err := c.CheckTensors(header); err != nil {
		return Footprint{}, err
	}
	f := Footprint{
		State: stateBytes(&c, tokens), Page: pageBytes(&c), Logits: 4 * int64(c.Vocab),
		Batcher: passBytes(&c, BatchOptions{}.size(&c)), Context: c.Context,
	}
	f.Weights = header.Bytes()
	return f, nil
}

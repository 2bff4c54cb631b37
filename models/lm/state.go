package lm

import (
	"fmt"
	"io/fs"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// chunkTokens is how many tokens pass the network together: enough that a weight is
// read from memory once for many, few enough that activations stay small.
const chunkTokens = 128

// maxState bounds the memory of a state, in bytes.
const maxState = 1 << 42

// State is one sequence: its KV cache and the activations of a call, all allocated
// when it is made. It belongs to one goroutine at a time.
type State struct {
	model  *Model
	exec   *tensor.Exec
	cache  *nn.KVCache
	length int

	x, h     []float32 // [chunk, C]
	q        []float32 // [chunk, H, D]
	k, v     []float32 // [chunk, G, D]
	gate, up []float32 // [chunk, I]
	cos, sin []float32 // [chunk, D/2]
	logits   []float32 // [V]
	ids      []int     // [chunk], positions
}

// NewState returns an empty sequence with room for maxTokens tokens. With learned
// positions they are at most Config.Context; rotary positions go on beyond it.
func (m *Model) NewState(maxTokens int) (*State, error) {
	c := &m.config
	if err := c.checkLength(maxTokens); err != nil {
		return nil, err
	}
	t, half := min(maxTokens, chunkTokens), c.rope.Half()
	floats := func(n int) []float32 { return make([]float32, n) }
	s := &State{
		model: m,
		exec:  tensor.NewExec(m.pool),
		cache: nn.NewKVCache(c.Layers, c.KVHeads, maxTokens, c.HeadDim),
		x:     floats(t * c.Hidden), h: floats(t * c.Hidden),
		q: floats(t * c.Heads * c.HeadDim),
		k: floats(t * c.KVHeads * c.HeadDim), v: floats(t * c.KVHeads * c.HeadDim),
		up:  floats(t * c.Intermediate),
		cos: floats(t * half), sin: floats(t * half),
		logits: floats(c.Vocab),
		ids:    make([]int, t),
	}
	if c.gated {
		s.gate = floats(t * c.Intermediate)
	}
	return s, nil
}

func (c *Config) checkLength(tokens int) error {
	switch {
	case tokens < 1 || tokens > maxContext:
		return fmt.Errorf("lm: state for %d tokens, want 1 to %d: %w", tokens, maxContext, ErrFull)
	case c.ropeConfig == nil && tokens > c.Context:
		return fmt.Errorf("lm: state for %d tokens of a model with %d learned positions: %w", tokens, c.Context, ErrFull)
	case c.stateBytes(tokens) > maxState:
		return fmt.Errorf("lm: state for %d tokens takes %d bytes, limit %d: %w", tokens, c.stateBytes(tokens), int64(maxState), ErrFull)
	}
	return nil
}

// Len returns the number of tokens in the sequence.
func (s *State) Len() int { return s.length }

// Cap returns the number of tokens that the sequence has room for.
func (s *State) Cap() int { return s.cache.Capacity() }

// Truncate forgets all but the first n tokens, so that another text with the same
// beginning can go on from there. It panics unless 0 ≤ n ≤ Len.
func (s *State) Truncate(n int) {
	if n < 0 || n > s.length {
		panic(fmt.Sprintf("lm: truncate a sequence of %d tokens to %d", s.length, n))
	}
	s.length = n
}

// Bytes returns the memory of the state.
func (s *State) Bytes() int64 { return s.model.config.stateBytes(s.Cap()) }

// stateBytes returns what a state for so many tokens takes.
func (c *Config) stateBytes(tokens int) int64 {
	chunk := int64(min(tokens, chunkTokens))
	mlp := int64(c.Intermediate)
	if c.gated {
		mlp *= 2
	}
	heads := int64(c.Heads+2*c.KVHeads) * int64(c.HeadDim)
	angles := 2 * int64(c.rope.Half())
	const intSize = 8
	activations := chunk*(4*(2*int64(c.Hidden)+heads+mlp+angles)+intSize) + 4*int64(c.Vocab)
	perToken := 4 * 2 * int64(c.Layers) * int64(c.KVHeads) * int64(c.HeadDim)
	return activations + perToken*int64(tokens)
}

// Footprint is the memory that a model needs, in bytes.
type Footprint struct {
	Weights int64 // once a model
	State   int64 // once a sequence
}

// Estimate returns what the model in a folder will take, with a sequence of so many
// tokens, from its configuration and the sizes of its files alone. The errors are
// those of Load and NewState.
func Estimate(fsys fs.FS, tokens int) (Footprint, error) {
	_, c, err := readConfig(fsys)
	if err != nil {
		return Footprint{}, err
	}
	if err := c.checkLength(tokens); err != nil {
		return Footprint{}, err
	}
	files, err := weights.Files(fsys, weightsBase)
	if err != nil {
		return Footprint{}, fmt.Errorf("lm: %w", err)
	}
	f := Footprint{State: c.stateBytes(tokens)}
	for _, file := range files {
		f.Weights += file.Size
	}
	return f, nil
}

package lm

import (
	"fmt"
	"io/fs"
	"slices"

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

	x, h, side []float32 // [chunk, C]; side only if parallel, h is as wide as E at least
	q          []float32 // [chunk, H, D]
	k, v       []float32 // [chunk, G, D]
	gate, up   []float32 // [chunk, I]
	routing    routing
	angles     []angles  // of each of Config.rotations
	keyBias    []float32 // [H, capacity], or nil
	logits     []float32 // [V]
	ids        []int     // [chunk], positions
	text       []int     // [capacity], the tokens; nil unless angles switch with the length
	made       angleSet  // what the cached keys have, if angles switch
}

// angleSet is one of the rotations of a position, where there is more than one.
type angleSet uint8

const (
	mixedAngles angleSet = iota
	shortAngles
	longAngles
)

// angles are the rotations of the positions of a chunk.
type angles struct {
	half     int
	cos, sin []float32 // [chunk, half]
}

// of returns the part for t positions.
func (a *angles) of(t int) (cos, sin []float32) { return a.cos[:t*a.half], a.sin[:t*a.half] }

// NewState returns an empty sequence with room for maxTokens tokens. With learned
// positions they are at most Config.Context; other positions go on beyond it.
func (m *Model) NewState(maxTokens int) (*State, error) {
	c := &m.config
	if err := c.checkLength(maxTokens); err != nil {
		return nil, err
	}
	t := min(maxTokens, chunkTokens)
	floats := func(n int) []float32 { return make([]float32, n) }
	s := &State{
		model: m,
		exec:  tensor.NewExec(m.pool),
		cache: nn.NewKVCache(c.Layers, c.KVHeads, maxTokens, c.HeadDim),
		x:     floats(t * c.Hidden), h: floats(t * max(c.Hidden, c.embedWidth)),
		q: floats(t * c.Heads * c.HeadDim),
		k: floats(t * c.KVHeads * c.HeadDim), v: floats(t * c.KVHeads * c.HeadDim),
		up:      floats(t * c.inner()),
		routing: newRouting(c, t),
		logits:  floats(c.Vocab),
		ids:     make([]int, t),
	}
	if c.layout.gated() {
		s.gate = floats(t * c.inner())
	}
	if c.parallel {
		s.side = floats(t * c.Hidden)
	}
	for _, r := range c.rotations {
		s.angles = append(s.angles, angles{half: r.Half(), cos: floats(t * r.Half()), sin: floats(t * r.Half())})
	}
	if c.switches() {
		s.text = make([]int, maxTokens)
	}
	if c.keyBias != nil {
		s.keyBias = floats(c.Heads * maxTokens)
		for h := range c.Heads {
			c.keyBias(s.keyBias[h*maxTokens:][:maxTokens], h)
		}
	}
	return s, nil
}

func (c *Config) checkLength(tokens int) error {
	switch {
	case tokens < 1 || tokens > maxContext:
		return fmt.Errorf("lm: state for %d tokens, want 1 to %d: %w", tokens, maxContext, ErrFull)
	case c.layout.positions != "" && tokens > c.Context:
		return fmt.Errorf("lm: state for %d tokens of a model with %d learned positions: %w", tokens, c.Context, ErrFull)
	case c.stateBytes(tokens) > maxState:
		return fmt.Errorf("lm: state for %d tokens takes %d bytes, limit %d: %w", tokens, c.stateBytes(tokens), int64(maxState), ErrFull)
	}
	return nil
}

// begin returns the tokens that a call has to run: its own, or the whole sequence again
// if the cached keys have other angles than one of the new length.
func (s *State) begin(tokens []int) ([]int, chunk) {
	at := chunk{start: s.length, fresh: s.length, length: s.length + len(tokens)}
	if s.text == nil {
		return tokens, at
	}
	copy(s.text[s.length:], tokens)
	if s.made != s.model.config.anglesOf(at.length) {
		s.made, at.start = mixedAngles, 0
	}
	return s.text[at.start:at.length], at
}

// end makes what a call has run part of the sequence.
func (s *State) end(length int) {
	s.length = length
	if s.text != nil {
		s.made = s.model.config.anglesOf(length)
	}
}

// switches reports whether angles depend on the length of the sequence.
func (c *Config) switches() bool { return slices.ContainsFunc(c.rotations, nn.Rope.Switches) }

// anglesOf returns the angles of a sequence of that length.
func (c *Config) anglesOf(length int) angleSet {
	if slices.ContainsFunc(c.rotations, func(r nn.Rope) bool { return r.Long(length) }) {
		return longAngles
	}
	return shortAngles
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
	const floatSize, intSize = 4, 8
	floats := int64(c.Hidden) + int64(max(c.Hidden, c.embedWidth)) // of a token of a chunk
	floats += int64(c.Heads+2*c.KVHeads) * int64(c.HeadDim)
	floats += int64(c.inner())
	if c.layout.gated() {
		floats += int64(c.inner())
	}
	if c.parallel {
		floats += int64(c.Hidden)
	}
	for _, r := range c.rotations {
		floats += 2 * int64(r.Half())
	}
	ints := int64(1)
	if n := c.experts.count; n > 0 {
		floats += int64(n) + 2*int64(c.Hidden) + 1
		ints++
	}
	cached := 2 * int64(c.Layers) * int64(c.KVHeads) * int64(c.HeadDim) // of a token
	if c.keyBias != nil {
		cached += int64(c.Heads)
	}
	text := int64(0)
	if c.switches() {
		text = intSize * int64(tokens)
	}
	chunk := int64(min(tokens, chunkTokens))
	return text + chunk*(floatSize*floats+intSize*ints) + floatSize*(cached*int64(tokens)+int64(c.Vocab))
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
	c, err := readConfig(fsys)
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

// Package t5 has the encoder of T5 (Raffel et al. 2020) and of its version 1.1, which
// conditions SD3, Flux, PixArt and MusicGen on texts.
//
// The reference is transformers' T5EncoderModel; the tokenizers are in package tokenizer.
// Axes: B batch, T tokens, C channels, H heads.
package t5

import (
	"fmt"
	"math"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Encoder is the network. It is read-only and may be shared by any number of goroutines.
type Encoder struct {
	config     Config
	tokens     nn.Embedding // [vocabulary, C]
	biases     []float32    // [Buckets, H], of attention, by relative position
	blocks     []block
	norm       nn.RMSNorm
	activation tensor.Activation
	gated      bool
}

// block is attention and feed-forward, each on a normalised copy and added to the state.
type block struct {
	norm1, norm2 nn.RMSNorm
	q, k, v      nn.Linear // [H·D, C]
	out          nn.Linear // [C, H·D]
	gate, up     nn.Linear // [Inner, C]; gate only if gated
	down         nn.Linear // [C, Inner]
}

// Load reads "encoder", and the embedding as "shared" or "encoder.embed_tokens". Errors
// name the tensor.
func Load(s *weights.Store, c Config) (*Encoder, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	m := &Encoder{config: c}
	m.activation, m.gated, _ = c.feedForward()
	if err := m.load(s); err != nil {
		return nil, fmt.Errorf("t5: %w", err)
	}
	return m, nil
}

func (m *Encoder) load(s *weights.Store) error {
	c, root := &m.config, s.Sub("encoder")
	table := s.Sub("shared")
	if !table.Has("weight") && root.Has("embed_tokens.weight") {
		table = root.Sub("embed_tokens")
	}
	var err error
	if m.tokens, err = nn.LoadEmbedding(table, c.Vocab, c.Width); err != nil {
		return err
	}
	biases, err := root.Tensor("block.0.layer.0.SelfAttention.relative_attention_bias.weight", c.Buckets, c.Heads)
	if err != nil {
		return err
	}
	m.biases = biases.Float32s()
	for i := range c.Layers {
		b, err := m.loadBlock(root.Sub("block." + strconv.Itoa(i)))
		if err != nil {
			return err
		}
		m.blocks = append(m.blocks, b)
	}
	m.norm, err = nn.LoadRMSNorm(root.Sub("final_layer_norm"), c.Width, float32(c.Eps))
	return err
}

func (m *Encoder) loadBlock(s *weights.Store) (b block, err error) {
	c := &m.config
	inner := c.Heads * c.HeadDim
	up := "layer.1.DenseReluDense.wi"
	if m.gated {
		up = "layer.1.DenseReluDense.wi_1"
		if b.gate, err = nn.LoadLinear(s.Sub("layer.1.DenseReluDense.wi_0"), c.Inner, c.Width, false); err != nil {
			return b, err
		}
	}
	for _, l := range []struct {
		to      *nn.Linear
		name    string
		out, in int
	}{
		{&b.q, "layer.0.SelfAttention.q", inner, c.Width},
		{&b.k, "layer.0.SelfAttention.k", inner, c.Width},
		{&b.v, "layer.0.SelfAttention.v", inner, c.Width},
		{&b.out, "layer.0.SelfAttention.o", c.Width, inner},
		{&b.up, up, c.Inner, c.Width},
		{&b.down, "layer.1.DenseReluDense.wo", c.Width, c.Inner},
	} {
		if *l.to, err = nn.LoadLinear(s.Sub(l.name), l.out, l.in, false); err != nil {
			return b, err
		}
	}
	if b.norm1, err = nn.LoadRMSNorm(s.Sub("layer.0.layer_norm"), c.Width, float32(c.Eps)); err != nil {
		return b, err
	}
	b.norm2, err = nn.LoadRMSNorm(s.Sub("layer.1.layer_norm"), c.Width, float32(c.Eps))
	return b, err
}

// Config returns what the encoder was loaded with.
func (m *Encoder) Config() Config { return m.config }

// Bytes returns the memory of the weights.
func (m *Encoder) Bytes() int64 {
	n := m.tokens.Weight.Bytes() + 4*int64(len(m.biases)+(2*len(m.blocks)+1)*m.config.Width)
	for i := range m.blocks {
		b := &m.blocks[i]
		for _, l := range []*nn.Linear{&b.q, &b.k, &b.v, &b.out, &b.up, &b.down} {
			n += l.Bytes()
		}
		if m.gated {
			n += b.gate.Bytes()
		}
	}
	return n
}

// State is the memory of calls of Forward, for one caller at a time.
type State struct {
	x        []float32 // [B, T, C]
	h        []float32 // [T, C]
	q, k, v  []float32 // [T, H·D]
	gate, up []float32 // [T, Inner]
	bias     []float32 // [H, T, T]
}

// NewState returns memory for up to batch texts of up to tokens tokens at once.
func (m *Encoder) NewState(batch, tokens int) *State {
	c := &m.config
	inner := tokens * c.Heads * c.HeadDim
	st := &State{
		x: make([]float32, batch*tokens*c.Width), h: make([]float32, tokens*c.Width),
		q: make([]float32, inner), k: make([]float32, inner), v: make([]float32, inner),
		up: make([]float32, tokens*c.Inner), bias: make([]float32, c.Heads*tokens*tokens),
	}
	if m.gated {
		st.gate = make([]float32, tokens*c.Inner)
	}
	return st
}

// Bytes returns the memory of the state.
func (st *State) Bytes() int64 {
	return 4 * int64(len(st.x)+len(st.h)+3*len(st.q)+len(st.gate)+len(st.up)+len(st.bias))
}

// Input is texts of equal length.
type Input struct {
	IDs   []int  // [B, T]
	Batch int    // B; 0 is 1
	Mask  []bool // [B, T], which tokens may be read by others; nil is all

	// Observe is called with the states [T, C] of each text after each block, if it is not
	// nil.
	Observe func(layer int, x []float32)
}

// Forward returns the states [B, T, C] after the final norm, valid until the next call.
// States of masked tokens are computed, too. The error wraps ErrInput if there are more
// texts or tokens than the state has room for, an id that is none, or a mask of another
// size.
func (m *Encoder) Forward(e *tensor.Exec, st *State, in Input) ([]float32, error) {
	c, batch := &m.config, max(in.Batch, 1)
	t := len(in.IDs) / batch
	if t == 0 || t > maxTokens || len(in.IDs)%batch != 0 || len(in.IDs)*c.Width > len(st.x) || t*c.Width > len(st.h) {
		return nil, fmt.Errorf("t5: %d tokens in %d texts, want room for them: %w", len(in.IDs), batch, ErrInput)
	}
	if in.Mask != nil && len(in.Mask) != len(in.IDs) {
		return nil, fmt.Errorf("t5: %d tokens with a mask of %d: %w", len(in.IDs), len(in.Mask), ErrInput)
	}
	for _, id := range in.IDs {
		if id < 0 || id >= c.Vocab {
			return nil, fmt.Errorf("t5: token %d of a vocabulary of %d: %w", id, c.Vocab, ErrInput)
		}
	}
	x, bias := st.x[:len(in.IDs)*c.Width], st.bias[:c.Heads*t*t]
	m.tokens.Forward(x, in.IDs)
	for b := range batch { // texts have masks of their own, and enough tokens each
		if b == 0 || in.Mask != nil {
			m.relative(bias, t)
		}
		if in.Mask != nil {
			hide(bias, in.Mask[b*t:][:t])
		}
		text := x[b*t*c.Width:][:t*c.Width]
		for i := range m.blocks {
			m.forward(e, st, &m.blocks[i], text)
			if in.Observe != nil {
				in.Observe(i, text)
			}
		}
	}
	m.norm.Forward(e, x, x)
	return x, nil
}

// forward runs a block on the states x [T, C] of a text.
func (m *Encoder) forward(e *tensor.Exec, st *State, b *block, x []float32) {
	c := &m.config
	t := len(x) / c.Width
	inner := t * c.Heads * c.HeadDim
	h, q, k, v := st.h[:len(x)], st.q[:inner], st.k[:inner], st.v[:inner]
	b.norm1.Forward(e, h, x)
	e.MatMuls(h, b.q.Product(q), b.k.Product(k), b.v.Product(v))
	e.Attention(tensor.Attention{ // whose scores T5 does not scale
		Out: q, Q: q, K: k, V: v, Heads: c.Heads, KVHeads: c.Heads, HeadDim: c.HeadDim, Scale: 1, Bias: st.bias[:c.Heads*t*t],
	})
	b.out.Forward(e, h, q)
	e.Add(x, h)

	b.norm2.Forward(e, h, x)
	up := st.up[:t*c.Inner]
	if m.gated {
		gate := st.gate[:len(up)]
		e.MatMuls(h, b.gate.Product(gate), b.up.Product(up))
		e.Gate(m.activation, gate, up)
		up = gate
	} else {
		b.up.Forward(e, up, h)
		e.Activate(m.activation, up)
	}
	b.down.Forward(e, h, up)
	e.Add(x, h)
}

// hide makes the biases [H, T, T] of keys that the mask leaves out -Inf.
func hide(bias []float32, mask []bool) {
	hidden := float32(math.Inf(-1))
	for row := range len(bias) / len(mask) {
		for i, seen := range mask {
			if !seen {
				bias[row*len(mask)+i] = hidden
			}
		}
	}
}

// relative writes the biases [H, T, T] that follow from the distances of tokens.
func (m *Encoder) relative(bias []float32, t int) {
	c := &m.config
	for distance := 1 - t; distance < t; distance++ {
		values := m.biases[c.bucket(distance)*c.Heads:][:c.Heads]
		for h, v := range values {
			for q := max(0, -distance); q < min(t, t-distance); q++ {
				bias[(h*t+q)*t+q+distance] = v
			}
		}
	}
}

// bucket returns which biases a key has that is so many tokens after the query: half of
// the buckets are for those after it, and in each half one a distance up to its middle,
// and from there on logarithmically more distances, up to MaxDistance.
func (c *Config) bucket(distance int) int {
	half := c.Buckets / 2
	first := 0
	if distance > 0 {
		first = half
	}
	distance = max(distance, -distance)
	exact := half / 2
	if distance < exact {
		return first + distance
	}
	// In float32, as in the reference: the buckets of some distances depend on it.
	share := float32(math.Log(float64(float32(distance)/float32(exact)))) / float32(math.Log(float64(c.MaxDistance)/float64(exact)))
	return first + min(exact+int(share*float32(half-exact)), half-1)
}

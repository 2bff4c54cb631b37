package clip

import (
	"fmt"
	"slices"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Text is a text encoder. It is read-only and may be shared by any number of goroutines.
type Text struct {
	config     TextConfig
	tokens     nn.Embedding // [vocabulary, C]
	positions  []float32    // [Positions, C]
	encoder    encoder
	norm       nn.LayerNorm
	projection *nn.Linear // [Projection, C], or nil
}

// LoadText reads "text_model", or its parts where the store has no such folder, and
// "text_projection" if the configuration or the store has it. Errors name the tensor.
func LoadText(s *weights.Store, c TextConfig) (*Text, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	m := &Text{config: c}
	if err := m.load(s); err != nil {
		return nil, fmt.Errorf("clip: text encoder: %w", err)
	}
	return m, nil
}

func (m *Text) load(s *weights.Store) error {
	c := &m.config
	root := s
	if s.Has("text_model.embeddings.token_embedding.weight") {
		root = s.Sub("text_model")
	}
	var err error
	if m.tokens, err = nn.LoadEmbedding(root.Sub("embeddings.token_embedding"), c.Vocab, c.Hidden); err != nil {
		return err
	}
	positions, err := root.Tensor("embeddings.position_embedding.weight", c.Positions, c.Hidden)
	if err != nil {
		return err
	}
	m.positions = positions.Float32s()
	t := tower{c.Hidden, c.Intermediate, c.Layers, c.Heads, c.Projection, c.Activation, c.Eps}
	if m.encoder, err = loadEncoder(root.Sub("encoder"), t, true); err != nil {
		return err
	}
	if m.norm, err = nn.LoadLayerNorm(root.Sub("final_layer_norm"), c.Hidden, float32(c.Eps)); err != nil {
		return err
	}
	if !c.Projected && !s.Has("text_projection.weight") {
		return nil
	}
	projection, err := nn.LoadLinear(s.Sub("text_projection"), c.Projection, c.Hidden, false)
	m.projection = &projection
	return err
}

// Config returns what the encoder was loaded with.
func (m *Text) Config() TextConfig { return m.config }

// Bytes returns the memory of the weights.
func (m *Text) Bytes() int64 {
	n := m.tokens.Weight.Bytes() + 4*int64(len(m.positions)+2*m.config.Hidden) + m.encoder.bytes()
	if m.projection != nil {
		n += m.projection.Bytes()
	}
	return n
}

// TextState is the memory of calls of Forward, for one caller at a time.
type TextState struct {
	tokens  int         // of the last call, in all
	hidden  [][]float32 // [Layers+1], each [B, T, C]
	last    []float32   // [B, T, C]
	pooled  []float32   // [B, C]
	embeds  []float32   // [B, Projection], or nil
	batch   int         // of the last call
	width   int         // C
	scratch scratch
	room    int // texts
}

// NewState returns memory for up to batch texts at once.
func (m *Text) NewState(batch int) *TextState {
	c := &m.config
	tokens := batch * c.Positions
	st := &TextState{room: batch, width: c.Hidden, scratch: m.encoder.newScratch(tokens)}
	for range c.Layers + 1 {
		st.hidden = append(st.hidden, make([]float32, tokens*c.Hidden))
	}
	st.last, st.pooled = make([]float32, tokens*c.Hidden), make([]float32, batch*c.Hidden)
	if m.projection != nil {
		st.embeds = make([]float32, batch*c.Projection)
	}
	return st
}

// Bytes returns the memory of the state.
func (st *TextState) Bytes() int64 {
	return 4*int64((len(st.hidden)+1)*len(st.last)+len(st.pooled)+len(st.embeds)) + st.scratch.bytes()
}

// Hidden returns the states [B, T, C] after so many blocks, 0 being the embeddings,
// before the final norm. They are valid until the next Forward.
func (st *TextState) Hidden(layer int) []float32 { return st.hidden[layer][:st.tokens*st.width] }

// Last returns the states [B, T, C] after all blocks and the final norm.
func (st *TextState) Last() []float32 { return st.last[:st.tokens*st.width] }

// Pooled returns the state [B, C] of Last at the token that ends each text.
func (st *TextState) Pooled() []float32 { return st.pooled[:st.batch*st.width] }

// Embeds returns Pooled through the projection, [B, Projection], or nil without one.
func (st *TextState) Embeds() []float32 {
	if st.embeds == nil {
		return nil
	}
	return st.embeds[:st.batch*(len(st.embeds)/st.room)]
}

// TextInput is texts of equal length.
type TextInput struct {
	IDs   []int // [B, T], T at most Positions
	Batch int   // B; 0 is 1

	// Vectors [n, C] stand for the ids from Vocab on: words that a textual inversion
	// (Gal et al. 2022) taught.
	Vectors []float32
}

// Forward runs the encoder; the results are in st. The error wraps ErrInput if there are
// too many texts or tokens, or an id that is none.
func (m *Text) Forward(e *tensor.Exec, st *TextState, in TextInput) error {
	batch := max(in.Batch, 1)
	if err := m.checkInput(st, in, batch); err != nil {
		return err
	}
	st.tokens, st.batch = len(in.IDs), batch
	m.embed(st.Hidden(0), in, len(in.IDs)/batch)
	for i := range m.encoder.blocks {
		m.encoder.forward(e, &st.scratch, &m.encoder.blocks[i], batch, st.Hidden(i+1), st.Hidden(i))
	}
	m.Norm(e, st.Last(), st.Hidden(m.config.Layers))

	t, c := len(in.IDs)/batch, m.config.Hidden
	for b := range batch {
		end := m.end(in.IDs[b*t:][:t])
		copy(st.pooled[b*c:][:c], st.last[(b*t+end)*c:])
	}
	if m.projection != nil {
		m.projection.Forward(e, st.Embeds(), st.Pooled())
	}
	return nil
}

// Norm applies the final norm to states x [B, T, C]. Stable Diffusion 1 and 2 apply it to
// whatever layer they take, SDXL does not. y may be x.
func (m *Text) Norm(e *tensor.Exec, y, x []float32) { m.norm.Forward(e, y, x) }

func (m *Text) checkInput(st *TextState, in TextInput, batch int) error {
	c := &m.config
	t := len(in.IDs) / batch
	if t == 0 || len(in.IDs)%batch != 0 || t > c.Positions || batch > st.room {
		return fmt.Errorf("clip: %d tokens in %d texts, want 1 to %d in each of at most %d: %w", len(in.IDs), batch, c.Positions, st.room, ErrInput)
	}
	if len(in.Vectors)%c.Hidden != 0 {
		return fmt.Errorf("clip: vectors of %d floats in all, want %d each: %w", len(in.Vectors), c.Hidden, ErrInput)
	}
	for _, id := range in.IDs {
		if id < 0 || id >= c.Vocab+len(in.Vectors)/c.Hidden {
			return fmt.Errorf("clip: token %d of a vocabulary of %d: %w", id, c.Vocab, ErrInput)
		}
	}
	return nil
}

// embed writes into y [B, T, C] the vectors of tokens and of their positions.
func (m *Text) embed(y []float32, in TextInput, t int) {
	c := m.config.Hidden
	for i, id := range in.IDs {
		row := y[i*c:][:c]
		if id < m.config.Vocab {
			m.tokens.Weight.Row(row, id)
		} else {
			copy(row, in.Vectors[(id-m.config.Vocab)*c:])
		}
		for j, p := range m.positions[i%t*c:][:c] {
			row[j] += p
		}
	}
}

// end returns the index of the token that ends a text, as the reference finds it: the
// largest id where the configuration has the old 2, else the first eos_token_id, and the
// first token if there is none. Learned words do not count.
func (m *Text) end(ids []int) int {
	if m.config.EOS != 2 {
		return max(slices.Index(ids, m.config.EOS), 0)
	}
	best := 0
	for i, id := range ids {
		if id < m.config.Vocab && (id > ids[best] || ids[best] >= m.config.Vocab) {
			best = i
		}
	}
	return best
}

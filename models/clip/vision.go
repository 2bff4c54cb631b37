package clip

import (
	"fmt"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Vision is a vision tower: a Vision Transformer (Dosovitskiy et al. 2021) over patches
// of a square picture. It is read-only and may be shared by any number of goroutines.
type Vision struct {
	config     VisionConfig
	class      []float32 // [C], the token before those of the patches
	patches    nn.Linear // [C, Patch·Patch·Channels]
	positions  []float32 // [Tokens, C]
	before     nn.LayerNorm
	encoder    encoder
	after      nn.LayerNorm
	projection *nn.Linear // [Projection, C], or nil
}

// LoadVision reads "vision_model", and "visual_projection" if the configuration or the
// store has it. Errors name the tensor.
func LoadVision(s *weights.Store, c VisionConfig) (*Vision, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	m := &Vision{config: c}
	if err := m.load(s); err != nil {
		return nil, fmt.Errorf("clip: vision tower: %w", err)
	}
	return m, nil
}

func (m *Vision) load(s *weights.Store) error {
	c, root := &m.config, s.Sub("vision_model")
	class, err := root.Tensor("embeddings.class_embedding", c.Hidden)
	if err != nil {
		return err
	}
	m.class = class.Float32s()
	patch, err := root.Tensor("embeddings.patch_embedding.weight", c.Hidden, c.Channels, c.Patch, c.Patch)
	if err != nil {
		return err
	}
	m.patches = nn.Linear{Weight: channelsLast(patch.Float32s(), c)}
	positions, err := root.Tensor("embeddings.position_embedding.weight", c.Tokens(), c.Hidden)
	if err != nil {
		return err
	}
	m.positions = positions.Float32s()
	eps := float32(c.Eps)
	if m.before, err = nn.LoadLayerNorm(root.Sub("pre_layrnorm"), c.Hidden, eps); err != nil { // the file's spelling
		return err
	}
	t := tower{c.Hidden, c.Intermediate, c.Layers, c.Heads, c.Projection, c.Activation, c.Eps}
	if m.encoder, err = loadEncoder(root.Sub("encoder"), t, false); err != nil {
		return err
	}
	if m.after, err = nn.LoadLayerNorm(root.Sub("post_layernorm"), c.Hidden, eps); err != nil {
		return err
	}
	if !c.Projected && !s.Has("visual_projection.weight") {
		return nil
	}
	projection, err := nn.LoadLinear(s.Sub("visual_projection"), c.Projection, c.Hidden, false)
	m.projection = &projection
	return err
}

// channelsLast returns the convolution [C, Channels, Patch, Patch] over patches as a
// product with their pixels, channels last.
func channelsLast(w []float32, c *VisionConfig) tensor.Matrix {
	out := make([]float32, len(w))
	pixels := c.Patch * c.Patch
	for o := range c.Hidden {
		row := out[o*pixels*c.Channels:]
		for channel := range c.Channels {
			for p, v := range w[(o*c.Channels+channel)*pixels:][:pixels] {
				row[p*c.Channels+channel] = v
			}
		}
	}
	return tensor.FromFloat32s(c.Hidden, pixels*c.Channels, out)
}

// Tokens returns the number of tokens of a picture: the class's and one a patch.
func (c *VisionConfig) Tokens() int { n := c.Image / c.Patch; return 1 + n*n }

// Config returns what the tower was loaded with.
func (m *Vision) Config() VisionConfig { return m.config }

// Bytes returns the memory of the weights.
func (m *Vision) Bytes() int64 {
	n := m.patches.Bytes() + 4*int64(len(m.positions)+5*m.config.Hidden) + m.encoder.bytes()
	if m.projection != nil {
		n += m.projection.Bytes()
	}
	return n
}

// VisionState is the memory of calls of Forward, for one caller at a time.
type VisionState struct {
	patches []float32 // [B, Tokens-1, Patch·Patch·Channels]
	made    []float32 // [B, Tokens-1, C]
	x       []float32 // [B, Tokens, C]
	pooled  []float32 // [B, C]
	embeds  []float32 // [B, Projection], or nil
	room    int       // pictures
	batch   int       // of the last call
	scratch scratch
}

// NewState returns memory for up to batch pictures at once.
func (m *Vision) NewState(batch int) *VisionState {
	c := &m.config
	tokens := c.Tokens()
	st := &VisionState{
		room:    batch,
		patches: make([]float32, batch*(tokens-1)*c.Patch*c.Patch*c.Channels),
		made:    make([]float32, batch*(tokens-1)*c.Hidden),
		x:       make([]float32, batch*tokens*c.Hidden),
		pooled:  make([]float32, batch*c.Hidden),
		scratch: m.encoder.newScratch(batch * tokens),
	}
	if m.projection != nil {
		st.embeds = make([]float32, batch*c.Projection)
	}
	return st
}

// Bytes returns the memory of the state.
func (st *VisionState) Bytes() int64 {
	return 4*int64(len(st.patches)+len(st.made)+len(st.x)+len(st.pooled)+len(st.embeds)) + st.scratch.bytes()
}

// part returns the share of the last call's pictures in memory for room of them.
func (st *VisionState) part(x []float32) []float32 { return x[:len(x)/st.room*st.batch] }

// Last returns the states [B, Tokens, C] after all blocks.
func (st *VisionState) Last() []float32 { return st.part(st.x) }

// Pooled returns the normalised state [B, C] of the class token.
func (st *VisionState) Pooled() []float32 { return st.part(st.pooled) }

// Embeds returns Pooled through the projection, [B, Projection], or nil without one.
func (st *VisionState) Embeds() []float32 { return st.part(st.embeds) }

// Forward runs the tower on normalised pictures [B, Image, Image, Channels]; the results
// are in st. The error wraps ErrInput if that is not their size.
func (m *Vision) Forward(e *tensor.Exec, st *VisionState, pixels []float32) error {
	c := &m.config
	picture := c.Image * c.Image * c.Channels
	batch := len(pixels) / picture
	if batch == 0 || len(pixels)%picture != 0 || batch > st.room {
		return fmt.Errorf("clip: %d floats for at most %d pictures of %d×%d pixels and %d channels: %w", len(pixels), st.room, c.Image, c.Image, c.Channels, ErrInput)
	}
	st.batch = batch
	for b := range batch {
		m.cut(st.patches[b*(len(st.patches)/st.room):], pixels[b*picture:][:picture])
	}
	made := st.part(st.made)
	m.patches.Forward(e, made, st.part(st.patches)) // [B, Tokens-1, C]
	tokens, width, x := c.Tokens(), c.Hidden, st.Last()
	for b := range batch {
		row := x[b*tokens*width:][:tokens*width]
		copy(row, m.class)
		copy(row[width:], made[b*(tokens-1)*width:])
		for i, p := range m.positions {
			row[i] += p
		}
	}
	m.before.Forward(e, x, x)
	for i := range m.encoder.blocks {
		m.encoder.forward(e, &st.scratch, &m.encoder.blocks[i], batch, x, x)
	}
	pooled := st.Pooled()
	for b := range batch {
		copy(pooled[b*width:][:width], x[b*tokens*width:])
	}
	m.after.Forward(e, pooled, pooled)
	if m.projection != nil {
		m.projection.Forward(e, st.Embeds(), pooled)
	}
	return nil
}

// cut writes the patches of a picture one after the other, in rows. Pixels beyond the
// last whole patch are left out, as by a convolution.
func (m *Vision) cut(to, picture []float32) {
	c := &m.config
	n, run := c.Image/c.Patch, c.Patch*c.Channels
	for i := range n * n {
		for y := range c.Patch {
			from := ((i/n*c.Patch+y)*c.Image + i%n*c.Patch) * c.Channels
			copy(to[:run], picture[from:])
			to = to[run:]
		}
	}
}

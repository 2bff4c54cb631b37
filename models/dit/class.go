package dit

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// DiTConfig is the config.json of a DiTTransformer2DModel, or of a Transformer2DModel
// with the norm type ada_norm_zero.
type DiTConfig struct {
	Heads         int     `json:"num_attention_heads"`
	HeadDim       int     `json:"attention_head_dim"`
	InChannels    int     `json:"in_channels"`
	OutChannels   int     `json:"out_channels"` // twice InChannels if the variance is learned
	Layers        int     `json:"num_layers"`
	AttentionBias bool    `json:"attention_bias"`
	SampleSize    int     `json:"sample_size"` // side of the latents that it was trained with
	PatchSize     int     `json:"patch_size"`
	Activation    string  `json:"activation_fn"`
	Classes       int     `json:"num_embeds_ada_norm"` // and the number of the class that is none
	NormType      string  `json:"norm_type"`
	NormAffine    bool    `json:"norm_elementwise_affine"`
	NormEps       float32 `json:"norm_eps"` // of the second norm of a block
}

// ParseDiTConfig decodes config.json. The error wraps ErrUnsupported if it describes a
// network that this package does not compute.
func ParseDiTConfig(data []byte) (DiTConfig, error) {
	c := DiTConfig{
		Heads: 16, HeadDim: 72, InChannels: 4, Layers: 28, AttentionBias: true, SampleSize: 32, PatchSize: 2,
		Activation: "gelu-approximate", Classes: 1000, NormType: "ada_norm_zero", NormEps: 1e-5,
	}
	if err := parse(data, &c, "DiTTransformer2DModel", "Transformer2DModel"); err != nil {
		return c, err
	}
	if c.OutChannels == 0 {
		c.OutChannels = c.InChannels
	}
	return c, c.validate()
}

func (c *DiTConfig) validate() error {
	if err := checkHeads(c.Heads, c.HeadDim); err != nil {
		return err
	}
	if c.NormType != "ada_norm_zero" || c.NormAffine {
		return fmt.Errorf("dit: norm_type %q, with weights %v, want ada_norm_zero without: %w", c.NormType, c.NormAffine, ErrUnsupported)
	}
	if _, err := parseActivation(c.Activation); err != nil {
		return err
	}
	return checkFields(field{"in_channels", c.InChannels, maxChannels}, field{"out_channels", c.OutChannels, maxChannels},
		field{"num_layers", c.Layers, maxLayers}, field{"sample_size", c.SampleSize, maxSide}, field{"patch_size", c.PatchSize, maxPatch},
		field{"sample_size in patches", c.SampleSize / max(c.PatchSize, 1), maxSide}, field{"num_embeds_ada_norm", c.Classes, 1 << 24})
}

func (c *DiTConfig) backbone() backbone {
	return backbone{
		heads: c.Heads, dim: c.HeadDim, inner: 4 * c.Heads * c.HeadDim,
		patch: c.PatchSize, in: c.InChannels, out: c.OutChannels,
	}
}

// Workspace returns the memory of a state, and of the operations on it. The error is that
// of NewState.
func (c DiTConfig) Workspace(s Shape) (int64, error) {
	if err := c.backbone().check(s, false); err != nil {
		return 0, err
	}
	l := c.backbone().layout(s)
	return l.bytes(), nil
}

// DiT is a transformer that draws by class.
type DiT struct {
	config DiTConfig
	size   backbone
	bytes  int64

	patches patchEmbed
	blocks  []classBlock
	final   final
}

// classBlock is attention and a feed-forward network whose norms are modulated by time
// and class, which every block embeds for itself.
type classBlock struct {
	time   embedder
	class  nn.Embedding // [classes+1, C]
	mod    nn.Linear    // [6C, C]
	attend projections
	mlp    mlp
	eps    float32 // of the norm before mlp
}

// LoadDiT loads the network.
func LoadDiT(s *weights.Store, c DiTConfig) (*DiT, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := c.backbone()
	width := n.width()
	var l loader
	m := &DiT{config: c, size: n, patches: l.patchEmbed(s.Sub("pos_embed"), n)}
	for i := range c.Layers {
		m.blocks = append(m.blocks, loadClassBlock(&l, s.Sub("transformer_blocks").Sub(strconv.Itoa(i)), c))
	}
	m.final = final{
		mod: l.linear(fine(s.Sub("proj_out_1")), 2*width, width, true),
		out: l.linear(fine(s.Sub("proj_out_2")), c.PatchSize*c.PatchSize*c.OutChannels, width, true), shiftFirst: true,
	}
	m.bytes = l.bytes
	return m, l.err
}

func loadClassBlock(l *loader, s *weights.Store, c DiTConfig) classBlock {
	width := c.Heads * c.HeadDim
	emb := s.Sub("norm1.emb")
	b := classBlock{
		eps:    c.NormEps,
		time:   l.embedder(emb.Sub("timestep_embedder"), width, timeChannels),
		mod:    l.linear(fine(s.Sub("norm1.linear")), 6*width, width, true),
		attend: l.projections(s.Sub("attn1"), ownNames(), projectionConfig{width: width, source: width, bias: c.AttentionBias}),
	}
	f, _ := parseActivation(c.Activation)
	b.mlp = l.mlp(s.Sub("ff"), width, 4*width, f)
	b.class.Weight = l.table(emb.Sub("class_embedder.embedding_table"), "weight", c.Classes+1, width)
	return b
}

// Config returns the configuration.
func (m *DiT) Config() DiTConfig { return m.config }

// Bytes returns the memory of the weights.
func (m *DiT) Bytes() int64 { return m.bytes }

// NewState returns the memory of a picture. The error says what is wrong with the shape.
func (m *DiT) NewState(s Shape) (*State, error) {
	if err := m.size.check(s, false); err != nil {
		return nil, err
	}
	st := newState(m, s, m.size.layout(s))
	m.size.stretched(s, m.config.SampleSize/m.config.PatchSize, 1).sincos(st.positions, m.size.width())
	return st, nil
}

// Condition sets the classes. The error says which one there is not.
func (m *DiT) Condition(_ *tensor.Exec, st *State, c Condition) error {
	if st.owner != m {
		return errors.New("dit: the state belongs to another network")
	}
	if len(c.Labels) != st.shape.Batch {
		return fmt.Errorf("dit: %d classes for a batch of %d", len(c.Labels), st.shape.Batch)
	}
	for _, label := range c.Labels {
		if label < 0 || label > m.config.Classes {
			return fmt.Errorf("dit: class %d, want 0 to %d", label, m.config.Classes)
		}
	}
	copy(st.labels, c.Labels)
	return nil
}

// Forward predicts the noise y [B, H, W, out] in latents x [B, H, W, in] at times t [B], 0
// to 1000. The error is the context's cause, or says what does not fit the state.
func (m *DiT) Forward(ctx context.Context, e *tensor.Exec, st *State, y, x, t []float32) error {
	c := call{y, x, t}
	if err := st.check(m, m.size, c); err != nil {
		return err
	}
	for b := range st.shape.Batch {
		y, x := st.member(m.size, c, b)
		m.patches.forward(e, st, st.x, x)
		for i := range m.blocks {
			if err := stop(ctx); err != nil {
				return err
			}
			m.blocks[i].forward(e, st, t[b], b)
			st.showBlock(i, st.x)
		}
		m.blocks[0].embed(e, st, t[b], b)
		m.final.modulation(e, st)
		m.size.unpatch(y, m.final.patches(e, st, st.whole()), st.shape.Width)
	}
	return nil
}

// embed makes the vector of time and class.
func (b *classBlock) embed(e *tensor.Exec, st *State, t float32, member int) {
	b.class.Forward(st.embed, st.labels[member:member+1])
	st.sines(t, 1)
	b.time.forward(e, st.time, st.frequencies, st.scale)
	e.Add(st.time, st.embed)
	st.activate(e)
}

func (b *classBlock) forward(e *tensor.Exec, st *State, t float32, member int) {
	b.embed(e, st, t, member)
	b.mod.Forward(e, st.mod, st.active) // shift, scale and gate, twice
	a := st.whole()
	m := st.modulation(st.mod, 0)
	st.modulate(e, a.h, a.x, m, epsilon)
	b.attend.project(e, a)
	b.attend.find(e, st, a.q, a.k, a.v)
	b.attend.out.Forward(e, a.h, a.q)
	e.AddGated(a.x, a.h, m.gate)

	m = st.modulation(st.mod, 1)
	st.modulate(e, a.h, a.x, m, b.eps)
	b.mlp.forward(e, st, a.h)
	e.AddGated(a.x, a.h, m.gate)
}

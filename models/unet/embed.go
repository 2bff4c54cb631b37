package unet

import (
	"fmt"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// embeddings are the vectors that tell every resnet the time and what else there is to
// know of a picture as a whole.
type embeddings struct {
	sinusoid  nn.Timesteps
	times     mlp
	guidance  nn.Linear    // LCM's, of no rows if there is none
	sizes     nn.Timesteps // of text_time
	added     mlp          // of text_time
	pool      textPool     // of text
	classes   nn.Embedding // of class numbers
	classMLP  mlp          // of class_embed_type
	classType string       // "", "table", "timestep" or "projection"
}

// mlp is two layers with SiLU between them, diffusers' TimestepEmbedding.
type mlp struct{ first, second nn.Linear }

func (l *loader) mlp(s *weights.Store, in int) mlp {
	d := l.c.timeDim()
	return mlp{l.linear(s.Sub("linear_1"), d, in, true), l.linear(s.Sub("linear_2"), d, d, true)}
}

// forward computes y [B, D] from x [B, in], with the middle in hidden.
func (m *mlp) forward(e *tensor.Exec, y, x, hidden []float32) {
	m.first.Forward(e, hidden, x)
	e.Activate(tensor.SiLU, hidden)
	m.second.Forward(e, y, hidden)
}

func (l *loader) embeddings(s *weights.Store) embeddings {
	c := &l.c
	m := embeddings{
		sinusoid:  nn.Timesteps{Channels: c.BlockOut[0], Flip: c.FlipSinToCos, FreqShift: c.FreqShift},
		sizes:     nn.Timesteps{Channels: c.AddedTimeDim, Flip: c.FlipSinToCos, FreqShift: c.FreqShift},
		times:     l.mlp(s.Sub("time_embedding"), c.BlockOut[0]),
		classType: c.ClassType,
	}
	if c.TimeCondDim > 0 {
		m.guidance = l.linear(s.Sub("time_embedding.cond_proj"), c.BlockOut[0], c.TimeCondDim, false)
	}
	if c.AddedText() {
		m.added = l.mlp(s.Sub("add_embedding"), c.ProjectionInput)
	}
	if c.PoolsText() {
		m.pool = l.textPool(s.Sub("add_embedding"))
	}
	switch {
	case c.ClassType == "timestep":
		m.classMLP = l.mlp(s.Sub("class_embedding"), c.BlockOut[0])
	case c.ClassType == "projection":
		m.classMLP = l.mlp(s.Sub("class_embedding"), c.ProjectionInput)
	case c.NumClasses > 0:
		m.classType = "table"
		m.classes = l.embedding(s.Sub("class_embedding"), c.NumClasses, c.timeDim())
	}
	return m
}

// time computes s.emb [B, D] of times t [B].
func (m *embeddings) time(e *tensor.Exec, s *State, t []float32) {
	m.sinusoid.Forward(s.sin, t)
	if s.guide != nil {
		e.Add(s.sin, s.guide)
	}
	m.times.forward(e, s.emb, s.sin, s.hidden)
	s.seen("time_embedding", -1, s.emb)
	e.Add(s.emb, s.added)
	e.Activate(tensor.SiLU, s.emb)
}

// Conditioning is what a picture is made from beside its noise.
type Conditioning struct {
	Context []float32 // [B, S, cross_attention_dim]: the text; nil for an Unconditional network

	// Pooled [B, PooledDim] is a text's embedding and TimeIDs [B, 6] are original height
	// and width, top and left of the crop, target height and width, all in pixels: for
	// networks with AddedText.
	Pooled, TimeIDs []float32

	// Guidance [B, time_cond_proj_dim] is GuidanceEmbedding of each image, for networks
	// that were distilled with guidance. nil leaves it out.
	Guidance []float32

	// Classes [B] are class numbers or noise levels, or [B, n] what is projected, for
	// networks that have them.
	Classes []float32
}

// Condition prepares the state for steps of a picture. The error says what has another
// size than the network needs.
func (m *encoder) Condition(e *tensor.Exec, s *State, c Conditioning) error {
	context := 0
	if m.config.Conditioned() {
		context = s.Batch * s.Tokens * m.config.ContextDim()
	}
	guidance := 0
	if c.Guidance != nil {
		guidance = s.Batch * m.config.TimeCondDim
	}
	added := 0
	if m.config.AddedText() {
		added = s.Batch
	}
	for _, v := range []struct {
		name     string
		is, want int
	}{
		{"context", len(c.Context), context}, {"guidance", len(c.Guidance), guidance},
		{"pooled text", len(c.Pooled), added * m.config.PooledDim()}, {"sizes", len(c.TimeIDs), added * timeIDs},
		{"classes", len(c.Classes), m.classFloats(s.Batch)},
	} {
		if v.is != v.want {
			return fmt.Errorf("unet: %d floats of %s, want %d", v.is, v.name, v.want)
		}
	}
	for _, a := range m.cross {
		kv := s.cross[a.slot]
		e.MatMuls(c.Context, a.k.Product(kv.k), a.v.Product(kv.v))
	}
	clear(s.guide)
	if c.Guidance != nil {
		m.embeddings.guidance.Forward(e, s.guide, c.Guidance)
	}
	clear(s.added)
	m.embeddings.addText(e, s, c)
	if m.config.PoolsText() {
		m.embeddings.pool.add(e, s, c.Context)
	}
	if err := m.embeddings.addClasses(e, s, c.Classes); err != nil {
		return err
	}
	s.ready = true
	return nil
}

// classFloats returns how many floats name the classes of a batch.
func (m *encoder) classFloats(batch int) int {
	switch m.embeddings.classType {
	case "":
		return 0
	case "projection":
		return batch * m.config.ProjectionInput
	}
	return batch
}

// addText adds the pooled text and the sizes to s.added.
func (m *embeddings) addText(e *tensor.Exec, s *State, c Conditioning) {
	if len(c.Pooled) == 0 {
		return
	}
	pooled, sizes := len(c.Pooled)/s.Batch, timeIDs*m.sizes.Channels
	x := make([]float32, s.Batch*(pooled+sizes))
	for b := range s.Batch {
		row := x[b*(pooled+sizes):][:pooled+sizes]
		copy(row, c.Pooled[b*pooled:][:pooled])
		m.sizes.Forward(row[pooled:], c.TimeIDs[b*timeIDs:][:timeIDs])
	}
	y := make([]float32, len(s.added))
	m.added.forward(e, y, x, s.hidden)
	s.seen("add_embedding", -1, y)
	e.Add(s.added, y)
}

// addClasses adds the embeddings of classes to s.added. The error names a class that the
// network does not have.
func (m *embeddings) addClasses(e *tensor.Exec, s *State, classes []float32) error {
	y := make([]float32, len(s.added))
	switch m.classType {
	case "":
		return nil
	case "table":
		ids := make([]int, len(classes))
		for i, v := range classes {
			ids[i] = int(v)
			if v < 0 || v >= float32(m.classes.Weight.Rows) || float32(ids[i]) != v {
				return fmt.Errorf("unet: class %v, want a whole number below %d", v, m.classes.Weight.Rows)
			}
		}
		m.classes.Forward(y, ids)
	case "timestep":
		x := make([]float32, s.Batch*m.sinusoid.Channels)
		m.sinusoid.Forward(x, classes)
		m.classMLP.forward(e, y, x, s.hidden)
	case "projection":
		m.classMLP.forward(e, y, classes, s.hidden)
	}
	e.Add(s.added, y)
	return nil
}

// GuidanceEmbedding returns the embedding of a guidance scale less one, as a network with
// time_cond_proj_dim takes it (Luo et al. 2023).
func GuidanceEmbedding(scale float32, dim int) []float32 {
	y := make([]float32, dim)
	nn.Timesteps{Channels: dim, FreqShift: 1, Scale: 1000}.Forward(y, []float32{scale})
	return y
}

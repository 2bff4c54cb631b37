package family

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Export is a model in the terms of GGUF: metadata, without that of a tokenizer, and
// tensors that are read as they are asked for.
type Export struct {
	Config Config         // of the source
	Pairs  []weights.Pair // of the metadata
	Parts  []Part         // the tensors

	store *weights.Store
}

// Part is a tensor of an export.
type Part struct {
	Name  string       // in GGUF
	DType tensor.DType // of the source
	Shape []int        // row-major
	// Open returns what writes row i, [Shape[last]], of all the tensor's rows. It may be
	// called by several goroutines, until another part is opened.
	Open func() (row func(dst []float32, i int), err error)
}

// Rows returns the number of rows, and their length.
func (p *Part) Rows() (n, columns int) {
	n, columns = 1, 1
	for _, d := range p.Shape {
		n, columns = n*columns, d
	}
	return n, columns
}

// Close releases the files of the model.
func (x *Export) Close() error { return x.store.Close() }

// ToGGUF reads the model in a folder, in Hugging Face's layout, for writing as GGUF. The
// errors are those of Open; ErrUnsupported is also wrapped if GGUF has no form for the
// architecture or for something that this model does.
func ToGGUF(fsys fs.FS) (*Export, error) {
	c, store, err := Open(fsys)
	if err != nil {
		return nil, err
	}
	x := &Export{Config: c, store: store}
	form := architectures[c.Architecture].gguf
	switch {
	case store.Header().Format == weights.GGUF:
		err = errors.New("lm: the model is GGUF already")
	case form.name == "":
		err = fmt.Errorf("lm: %s has no form in GGUF: %w", c.Architecture, ErrUnsupported)
	default:
		err = x.build(form)
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return x, nil
}

func (x *Export) build(form ggufForm) error {
	c := &x.Config
	x.Pairs = c.ggufPairs(form.name)
	target := c.ggufLayout(form, c.Layout.QKV != "")
	from, to := c.slots(&c.Layout, c.Layout.RootPath(x.store.Has)), c.slots(&target, "")
	written := map[string]bool{}
	for i, s := range from {
		name := to[i].names[0]
		if written[name] {
			continue // the one norm of attention and MLP
		}
		written[name] = true
		part := Part{Name: name, Shape: to[i].shape}
		part.Open = func() (func([]float32, int), error) { return x.rows(s) }
		t, err := x.store.Tensor(s.names[0], s.shape...)
		if err != nil {
			return wrap(c.Architecture, err)
		}
		part.DType = t.DType
		x.Parts = append(x.Parts, part)
	}
	x.factors()
	return x.complete(form.name)
}

// factors adds the factors of rotary positions that GGUF has as tensors.
func (x *Export) factors() {
	if len(x.Config.Ropes) == 0 || x.Config.Ropes[0].Scaling == nil {
		return
	}
	switch s := x.Config.Ropes[0].Scaling; s.Type {
	case "llama3", "factors":
		x.vector("rope_freqs.weight", x.Config.Rotations[0].Slowing())
	case "longrope":
		x.vector("rope_factors_long.weight", narrow(s.LongFactor))
		x.vector("rope_factors_short.weight", narrow(s.ShortFactor))
	}
}

func narrow(list []float64) []float32 {
	out := make([]float32, len(list))
	for i, v := range list {
		out[i] = float32(v)
	}
	return out
}

func (x *Export) vector(name string, values []float32) {
	x.Parts = append(x.Parts, Part{
		Name: name, DType: tensor.F32, Shape: []int{len(values)},
		Open: func() (func([]float32, int), error) {
			return func(dst []float32, _ int) { copy(dst, values) }, nil
		},
	})
}

// complete adds what the file would else be read without, and makes sure that what is
// read of it is this model.
func (x *Export) complete(arch string) error {
	back, err := x.readBack()
	if err != nil {
		return err
	}
	c := &x.Config
	if scale := c.AttentionScale(0); back.AttentionScale(0) != scale {
		x.Pairs = append(x.Pairs, weights.Pair{Key: arch + ".attention.scale", Value: scale})
	}
	if windows := c.eachLayer(c.WindowOf); !slices.Equal(windows, back.eachLayer(back.WindowOf)) {
		local := make([]bool, c.Layers)
		for i, w := range windows {
			local[i] = w > 0
		}
		x.Pairs = append(x.Pairs, weights.Pair{Key: arch + ".attention.sliding_window_pattern", Value: local})
	}
	if back, err = x.readBack(); err != nil {
		return err
	}
	if what := c.differs(&back); what != "" {
		return fmt.Errorf("lm: GGUF cannot say of a %s what this one does: %s: %w", c.Architecture, what, ErrUnsupported)
	}
	return nil
}

func (c *Config) eachLayer(of func(layer int) int) []int {
	list := make([]int, c.Layers)
	for i := range list {
		list[i] = of(i)
	}
	return list
}

// readBack returns the configuration that the file will be read as.
func (x *Export) readBack() (Config, error) {
	meta, err := weights.NewMetadata("export", x.Pairs)
	if err != nil {
		return Config{}, err
	}
	part := func(name string) *Part {
		if i := slices.IndexFunc(x.Parts, func(p Part) bool { return p.Name == name }); i >= 0 {
			return &x.Parts[i]
		}
		return nil
	}
	f := &ggufFile{meta: meta}
	f.shape = func(name string) []int {
		if p := part(name); p != nil {
			return p.Shape
		}
		return nil
	}
	f.vector = func(name string) ([]float64, error) {
		row, err := part(name).Open()
		if err != nil {
			return nil, err
		}
		values := make([]float32, part(name).Shape[0])
		row(values, 0)
		wide := make([]float64, len(values))
		for i, v := range values {
			wide[i] = float64(v)
		}
		return wide, nil
	}
	return f.read()
}

// rows opens the tensors of a slot, in the form that GGUF has them in.
func (x *Export) rows(s slot) (func(dst []float32, i int), error) {
	c := &x.Config
	columns := s.shape[len(s.shape)-1]
	var parts []tensor.Matrix
	for _, name := range s.names {
		t, err := x.store.Tensor(name, s.shape...)
		if err != nil {
			return nil, wrap(c.Architecture, err)
		}
		rows := t.Len() / max(columns, 1)
		if rotated := s.role >= ofQuery && s.role <= ofJoint; rotated && len(s.shape) == 1 {
			rows, columns = t.Len(), 1 // a bias is turned like the rows of its matrix
		}
		m := tensor.NewMatrix(t.DType, rows, columns, t.Data)
		if c.Layout.Conv1D && len(s.shape) == 2 && s.role >= ofQuery {
			m = m.Transposed()
		}
		parts = append(parts, m)
	}
	order := c.rowOrder(s.role)
	if columns == 1 && len(s.shape) == 1 && s.shape[0] > 1 {
		return func(dst []float32, _ int) {
			for i := range dst {
				parts[0].Row(dst[i:i+1], order(i))
			}
		}, nil
	}
	lessOne := s.role == ofNorm && c.Norm == RMSNormLessOne
	return func(dst []float32, i int) {
		parts[i/parts[0].Rows].Row(dst, order(i%parts[0].Rows))
		if lessOne {
			for j := range dst {
				dst[j]++
			}
		}
	}, nil
}

// rowOrder returns which row of the source is row i in GGUF.
func (c *Config) rowOrder(r role) func(i int) int {
	var rows []int
	form := architectures[c.Architecture].gguf
	switch {
	case r == ofQuery && form.turn:
		rows = Turned(c.Heads, c.HeadDim, true)
	case r == ofKey && form.turn:
		rows = Turned(c.KVHeads, c.HeadDim, true)
	case r == ofJoint && c.Layout.Grouped && c.KVHeads > 1:
		q, k, v := c.GroupedRows()
		rows = slices.Concat(q, k, v)
	default:
		return func(i int) int { return i }
	}
	return func(i int) int { return rows[i] }
}

// ggufPairs returns what GGUF says of the configuration.
func (c *Config) ggufPairs(arch string) []weights.Pair {
	pairs := []weights.Pair{{Key: "general.architecture", Value: arch}}
	add := func(key string, value any) {
		pairs = append(pairs, weights.Pair{Key: arch + "." + key, Value: value})
	}
	add("vocab_size", uint32(c.Vocab))
	for _, p := range parameters {
		if value := p.value(c); value != nil {
			add(p.key, value)
		}
	}
	if len(c.Ropes) > 0 {
		add("rope.dimension_count", uint32(c.Ropes[0].Dim))
	}
	if arch == "falcon" {
		add("tensor_data_layout", "jploski") // query, key and value one after the other
	}
	if len(c.Ropes) == 0 || c.Ropes[0].Scaling == nil {
		return pairs
	}
	switch s := c.Ropes[0].Scaling; s.Type {
	case "linear":
		add("rope.scaling.type", "linear")
		add("rope.scaling.factor", float32(s.Factor))
	case "dynamic":
		add("rope.scaling.type", "none")
		add(dynamicKey, float32(s.Factor))
	case "yarn":
		add("rope.scaling.type", "yarn")
		add("rope.scaling.factor", float32(s.Factor))
		add("rope.scaling.original_context_length", uint32(c.Ropes[0].Context)) // what corrections are counted over
		if s.AttentionFactor != 0 {
			add("rope.scaling.attn_factor", float32(s.AttentionFactor/(0.1*math.Log(s.Factor)+1)))
		}
		if s.BetaFast != 0 {
			add("rope.scaling.yarn_beta_fast", float32(s.BetaFast))
		}
		if s.BetaSlow != 0 {
			add("rope.scaling.yarn_beta_slow", float32(s.BetaSlow))
		}
	case "longrope":
		add("rope.scaling.type", "longrope")
		if s.OriginalContext != 0 {
			add("rope.scaling.original_context_length", uint32(s.OriginalContext))
		}
		add("rope.scaling.attn_factor", c.Rotations[0].Factor())
	}
	return pairs
}

// differs names something in which two configurations make different models, "" if there
// is nothing.
func (c *Config) differs(o *Config) string {
	a, b := *c, *o
	for _, f := range []struct {
		name string
		same bool
	}{
		{"its sizes", slices.Equal(a.sizes(), b.sizes())},
		{"its activation", a.Activation == b.Activation},
		{"its norms", a.Norm == b.Norm || a.Norm == RMSNormLessOne && b.Norm == RMSNorm},
		{"the epsilon of its norms", float32(a.Eps) == float32(b.Eps)},
		{"attention and MLP side by side, or not", a.Parallel == b.Parallel},
		{"the output matrix being the embedding, or not", a.Tied == b.Tied},
		{"its biases", a.AttentionBias == b.AttentionBias && a.OutputBias == b.OutputBias && a.MLPBias == b.MLPBias && (a.Tied || a.HeadBias == b.HeadBias)},
		{"the scale of its embedding", a.EmbedScale == b.EmbedScale},
		{"its soft caps", float32(a.ScoreCap) == float32(b.ScoreCap) && float32(a.LogitCap) == float32(b.LogitCap)},
		{"its norms of heads", a.HeadNorms == b.HeadNorms && (a.Layout.QNorm == "") == (b.Layout.QNorm == "") && (a.Layout.KNorm == "") == (b.Layout.KNorm == "")},
		{"the places of its norms", a.Layout.places() == b.Layout.places()},
		{"the windows of its layers", slices.Equal(a.eachLayer(a.WindowOf), b.eachLayer(b.WindowOf))},
		{"which layers turn how", slices.Equal(a.eachLayer(a.RopeOf), b.eachLayer(b.RopeOf))},
		{"the scale of attention", slices.Equal(a.eachLayer(a.scaleBits), b.eachLayer(b.scaleBits))},
		{"which layers have experts, and the weights of those", slices.Equal(a.eachLayer(a.sparseBit), b.eachLayer(b.sparseBit)) && a.Experts.Normalise == b.Experts.Normalise},
		{"its rotary positions", sameRotations(a.Rotations, b.Rotations)},
		{"the bias of its attention", (a.KeyBias == nil) == (b.KeyBias == nil)},
	} {
		if !f.same {
			return f.name
		}
	}
	return ""
}

func (c *Config) sizes() []int {
	return []int{
		c.Vocab, c.Context, c.Hidden, c.Layers, c.Heads, c.KVHeads, c.HeadDim, c.Intermediate, c.EmbedWidth, c.PositionOffset,
		c.Experts.Count, c.Experts.Used, c.Experts.Intermediate, len(c.Ropes),
	}
}

func (c *Config) scaleBits(i int) int { return int(math.Float32bits(c.AttentionScale(i))) }

func (c *Config) sparseBit(i int) int {
	if c.Sparse(i) {
		return 1
	}
	return 0
}

// places says where a decoder has norms.
func (l *Layout) places() [9]bool {
	return [...]bool{
		l.Positions != "", l.EmbedNorm != "", l.Norm != "", l.Widen != "",
		l.Attention.Before != "", l.Attention.After != "", l.Attention.Sum != "", l.MLP.After != "", l.MLP.Sum != "",
	}
}

// sameRotations reports whether rotations turn alike, as near as GGUF's float32 allows.
func sameRotations(a, b []nn.Rope) bool {
	return slices.EqualFunc(a, b, func(a, b nn.Rope) bool {
		if a.Half() != b.Half() || a.Switches() != b.Switches() {
			return false
		}
		return slices.EqualFunc(angleProbe(a), angleProbe(b), func(x, y float32) bool {
			return math.Abs(float64(x-y)) < 1e-4
		})
	})
}

// angleProbe returns the cosines and sines of some positions of a short sequence and of
// a long one.
func angleProbe(r nn.Rope) []float32 {
	const positions = 4
	var all []float32
	for _, length := range []int{positions, 1 << 20} {
		cos, sin := make([]float32, positions*r.Half()), make([]float32, positions*r.Half())
		r.Angles(cos, sin, 1, length)
		all = slices.Concat(all, cos, sin)
	}
	return all
}

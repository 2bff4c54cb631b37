package lm

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// layout says where a family keeps the tensors of a decoder. A decoder has no layer
// whose path is empty.
type layout struct {
	root      string // path of all but the head; files of the bare network leave it out
	embed     string
	positions string // table of learned positions
	embedNorm string // of what the embedding gives
	widen     string // from the embedding's width to the blocks'
	norm      string // of what leaves the last block
	narrow    string // back to the embedding's width
	head      string // from the root of the file

	blocks    string     // paths below are those in a block
	attention normLayout // around attention
	mlp       normLayout // around the MLP

	q, k, v, o   string
	qkv          string // in the place of q, k and v
	grouped      bool   // qkv has a group's queries, its key and its value in turn
	qNorm, kNorm string // of each head

	gate, up, down string // without gate, the MLP is not gated
	gateUp         string // in the place of gate and up
	router         string
	experts        string    // has the MLPs 0, 1, …
	expert         mlpLayout // within each
	conv1D         bool      // matrices of blocks are stored as [in, out]
	turned         bool      // rows of q and k are in the order of interleaved rotation
	stacked        bool      // experts, and norms of heads, lie in one tensor
}

// normLayout has the norms of one half of a block.
type normLayout struct {
	before string // of what enters
	after  string // of what is added to the residual
	sum    string // of the sum
}

// mlpLayout has the gated MLP of an expert.
type mlpLayout struct{ gate, up, down string }

// gated reports whether the MLP multiplies two projections.
func (l *layout) gated() bool { return l.gate != "" || l.gateUp != "" }

// loader reads layers until the first error, which it keeps: what it returns after
// that is empty.
type loader struct {
	config *Config
	err    error
}

// loadNetwork reads a decoder from the tensors of its family. Its matrices are laid out
// for the kernels in memory of a, and the pages of the files that they came from given
// back to the system, so that the weights are in memory once.
func loadNetwork(s *weights.Store, c *Config, a *tensor.Arena) (n network, err error) {
	ld, names, root := &loader{config: c}, &c.layout, rootOf(s, &c.layout)
	n.embed = ld.embedding(root, names.embed, c.Vocab, c.embedWidth)
	n.embed.Scale = float32(c.embedScale)
	if names.positions != "" {
		table := ld.embedding(root, names.positions, c.positionOffset+c.Context, c.Hidden)
		if ld.err == nil {
			n.positions = nn.Embedding{Weight: table.Weight.Slice(c.positionOffset, c.positionOffset+c.Context)}
		}
	}
	n.embedNorm = ld.norm(root, names.embedNorm)
	if names.widen != "" {
		n.widen = ld.linear(root, names.widen, c.Hidden, c.embedWidth, false)
	}
	for i := range c.Layers {
		if ld.err != nil {
			return n, ld.err
		}
		l := ld.block(root.Sub(names.blocks).Sub(strconv.Itoa(i)), i)
		pack(s, a, l.linears()...)
		n.layers = append(n.layers, l)
	}
	n.norm = ld.norm(root, names.norm)
	if names.narrow != "" {
		n.narrow = ld.linear(root, names.narrow, c.embedWidth, c.Hidden, false)
	}
	if c.Tied {
		n.head = nn.Linear{Weight: n.embed.Weight}
	} else {
		n.head = ld.linear(s, names.head, c.Vocab, c.embedWidth, c.headBias)
	}
	pack(s, a, &n.widen, &n.narrow, &n.head)
	if c.Tied {
		n.embed.Weight = n.head.Weight
	}
	return n, ld.err
}

// pack lays matrices out for the kernels, all at the same time. A panic, as for want of
// memory, is the caller's.
func pack(s *weights.Store, a *tensor.Arena, linears ...*nn.Linear) {
	var packing sync.WaitGroup
	panics := make(chan any, len(linears))
	for _, l := range linears {
		packing.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					panics <- v
				}
			}()
			l.Weight = l.Weight.Pack(a)
		})
	}
	packing.Wait()
	close(panics)
	for v := range panics {
		panic(v)
	}
	s.Evict()
}

// linears returns the matrices of a block.
func (l *layer) linears() []*nn.Linear {
	all := []*nn.Linear{&l.q, &l.k, &l.v, &l.o}
	if l.mlp != nil {
		all = append(all, l.mlp.linears()...)
	}
	return all
}

// rootOf returns the part of the store with the embedding.
func rootOf(s *weights.Store, names *layout) *weights.Store {
	if path := rootPath(names, s.Has); path != "" {
		return s.Sub(path)
	}
	return s
}

// rootPath returns the path of the embedding: the layout's root or, in files of the bare
// network, less of it or nothing.
func rootPath(names *layout, has func(tensor string) bool) string {
	for path := names.root; path != ""; _, path, _ = strings.Cut(path, ".") {
		if has(path + "." + names.embed + ".weight") {
			return path
		}
	}
	if has(names.embed + ".weight") {
		return ""
	}
	return names.root
}

// block reads block i from its own part of the store.
func (ld *loader) block(s *weights.Store, i int) (l layer) {
	c, names := ld.config, &ld.config.layout
	l.attentionNorms, l.mlpNorms = ld.norms(s, names.attention), ld.norms(s, names.mlp)
	l.parallel = c.parallel
	l.scale, l.window, l.rope = c.attentionScale(i), c.windowOf(i), c.ropeOf(i)

	queries, keys := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	if names.qkv != "" {
		l.q, l.k, l.v = ld.split(ld.projection(s, names.qkv, queries+2*keys, c.Hidden, c.attentionBias))
	} else {
		l.q = ld.projection(s, names.q, queries, c.Hidden, c.attentionBias)
		l.k = ld.projection(s, names.k, keys, c.Hidden, c.attentionBias)
		l.v = ld.projection(s, names.v, keys, c.Hidden, c.attentionBias)
	}
	if names.turned && ld.err == nil {
		l.q, l.k = l.q.Gather(turned(c.Heads, c.HeadDim, false)), l.k.Gather(turned(c.KVHeads, c.HeadDim, false))
	}
	l.qNorm, l.kNorm = ld.headNorm(s, names.qNorm, c.Heads), ld.headNorm(s, names.kNorm, c.KVHeads)
	l.o = ld.projection(s, names.o, c.Hidden, queries, c.outputBias)
	if c.sparse(i) {
		l.mlp = ld.mixture(s)
	} else {
		l.mlp = ld.mlp(s)
	}
	return l
}

// turned lists the rows of heads of dimension dim as a file with interleaved rotation
// (back false) holds them in the order of the halves that we rotate, or (back true) the
// other way round.
func turned(heads, dim int, back bool) []int {
	rows := make([]int, heads*dim)
	for i := range rows {
		head, at := i/dim*dim, i%dim
		from := at%(dim/2)*2 + at/(dim/2)
		if back {
			rows[head+from] = i
		} else {
			rows[i] = head + from
		}
	}
	return rows
}

func (ld *loader) norms(s *weights.Store, names normLayout) norms {
	return norms{before: ld.norm(s, names.before), after: ld.norm(s, names.after), sum: ld.norm(s, names.sum)}
}

// split takes query, key and value out of their joint matrix.
func (ld *loader) split(qkv nn.Linear) (q, k, v nn.Linear) {
	c := ld.config
	if ld.err != nil {
		return
	}
	queries, keys := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	if !ld.config.layout.grouped || c.KVHeads == 1 {
		return qkv.Slice(0, queries), qkv.Slice(queries, queries+keys), qkv.Slice(queries+keys, queries+2*keys)
	}
	queryRows, keyRows, valueRows := c.groupedRows()
	return qkv.Gather(queryRows), qkv.Gather(keyRows), qkv.Gather(valueRows)
}

// groupedRows lists the rows of query, key and value in a grouped joint matrix.
func (c *Config) groupedRows() (q, k, v []int) {
	var rows [3][]int
	for group, at := 0, 0; group < c.KVHeads; group++ {
		for part, n := range []int{c.Heads / c.KVHeads * c.HeadDim, c.HeadDim, c.HeadDim} {
			for range n {
				rows[part] = append(rows[part], at)
				at++
			}
		}
	}
	return rows[0], rows[1], rows[2]
}

func (ld *loader) mlp(s *weights.Store) *mlp {
	c, names := ld.config, &ld.config.layout
	f := &mlp{activation: c.activation, gated: names.gated(), inner: c.Intermediate}
	if names.gateUp != "" {
		both := ld.projection(s, names.gateUp, 2*f.inner, c.Hidden, c.mlpBias)
		if ld.err == nil {
			f.gate, f.up = both.Slice(0, f.inner), both.Slice(f.inner, 2*f.inner)
		}
	} else {
		if f.gated {
			f.gate = ld.projection(s, names.gate, f.inner, c.Hidden, c.mlpBias)
		}
		f.up = ld.projection(s, names.up, f.inner, c.Hidden, c.mlpBias)
	}
	f.down = ld.projection(s, names.down, c.Hidden, f.inner, c.mlpBias)
	return f
}

func (ld *loader) mixture(s *weights.Store) *mixture {
	c, names := ld.config, &ld.config.layout
	m := &mixture{used: c.experts.used, normalise: c.experts.normalise}
	m.router = ld.projection(s, names.router, c.experts.count, c.Hidden, false)
	if names.stacked {
		gate := ld.stack(s, names.expert.gate, c.experts.intermediate, c.Hidden)
		up := ld.stack(s, names.expert.up, c.experts.intermediate, c.Hidden)
		down := ld.stack(s, names.expert.down, c.Hidden, c.experts.intermediate)
		for i := range down {
			f := mlp{activation: c.activation, gated: true, inner: c.experts.intermediate}
			f.gate, f.up, f.down = gate[i], up[i], down[i]
			m.experts = append(m.experts, f)
		}
		return m
	}
	for i := range c.experts.count {
		expert := s.Sub(names.experts).Sub(strconv.Itoa(i))
		f := mlp{activation: c.activation, gated: true, inner: c.experts.intermediate}
		f.gate = ld.projection(expert, names.expert.gate, f.inner, c.Hidden, false)
		f.up = ld.projection(expert, names.expert.up, f.inner, c.Hidden, false)
		f.down = ld.projection(expert, names.expert.down, c.Hidden, f.inner, false)
		m.experts = append(m.experts, f)
	}
	return m
}

// stack reads the matrices of all experts from the tensor that holds them.
func (ld *loader) stack(s *weights.Store, path string, out, in int) []nn.Linear {
	if ld.err != nil {
		return nil
	}
	t, err := s.Sub(path).Tensor("weight", ld.config.experts.count, out, in)
	if err != nil {
		ld.err = err
		return nil
	}
	list := make([]nn.Linear, ld.config.experts.count)
	size := len(t.Data) / len(list)
	for i := range list {
		list[i].Weight = tensor.NewMatrix(t.DType, out, in, t.Data[i*size:(i+1)*size])
	}
	return list
}

func (ld *loader) linear(s *weights.Store, path string, out, in int, bias bool) (l nn.Linear) {
	if ld.err == nil {
		l, ld.err = nn.LoadLinear(s.Sub(path), out, in, bias)
	}
	return l
}

// projection is linear within a block, where GPT-2 has its own form.
func (ld *loader) projection(s *weights.Store, path string, out, in int, bias bool) (l nn.Linear) {
	if !ld.config.layout.conv1D {
		return ld.linear(s, path, out, in, bias)
	}
	if ld.err == nil {
		l, ld.err = nn.LoadConv1D(s.Sub(path), out, in, bias)
	}
	return l
}

func (ld *loader) embedding(s *weights.Store, path string, n, channels int) (m nn.Embedding) {
	if ld.err == nil {
		m, ld.err = nn.LoadEmbedding(s.Sub(path), n, channels)
	}
	return m
}

// norm reads a norm over the channels of a token, or returns nil for no path.
func (ld *loader) norm(s *weights.Store, path string) nn.Norm {
	return ld.normOf(s, path, ld.config.Hidden)
}

// headNorm reads the norm of so many heads, or returns nil for no path.
func (ld *loader) headNorm(s *weights.Store, path string, heads int) (n nn.Norm) {
	c := ld.config
	if !c.headNorms || path == "" || ld.err != nil {
		return ld.normOf(s, path, c.HeadDim)
	}
	if c.layout.stacked {
		var t weights.Tensor
		t, ld.err = s.Sub(path).Tensor("weight", heads, c.HeadDim)
		if ld.err != nil {
			return nil
		}
		return nn.HeadLayerNorm{Weight: t.Float32s(), Heads: heads, Eps: float32(c.eps)}
	}
	n, ld.err = nn.LoadHeadLayerNorm(s.Sub(path), heads, c.HeadDim, float32(c.eps))
	return n
}

func (ld *loader) normOf(s *weights.Store, path string, channels int) (n nn.Norm) {
	if path == "" || ld.err != nil {
		return nil
	}
	s, eps := s.Sub(path), float32(ld.config.eps)
	switch ld.config.norm {
	case rmsNorm:
		n, ld.err = nn.LoadRMSNorm(s, channels, eps)
	case rmsNormLessOne:
		n, ld.err = nn.LoadRMSNormLessOne(s, channels, eps)
	case layerNorm:
		n, ld.err = nn.LoadLayerNorm(s, channels, eps)
	case plainLayerNorm:
		n = nn.LayerNorm{Weight: slices.Repeat([]float32{1}, channels), Eps: eps}
	}
	return n
}

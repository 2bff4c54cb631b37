package lm

import (
	"slices"
	"strconv"
	"sync"

	"helicon/models/lm/family"
	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// loader reads layers until the first error, which it keeps: what it returns after
// that is empty.
type loader struct {
	config *family.Config
	err    error
}

// loadNetwork reads a decoder from the tensors of its family. Its matrices are laid out
// for the kernels in memory of a, and the pages of the files that they came from given
// back to the system, so that the weights are in memory once.
func loadNetwork(s *weights.Store, c *family.Config, a *tensor.Arena) (n network, err error) {
	ld, names, root := &loader{config: c}, &c.Layout, rootOf(s, &c.Layout)
	n.embed = ld.embedding(root, names.Embed, c.Vocab, c.EmbedWidth)
	n.embed.Scale = float32(c.EmbedScale)
	if names.Positions != "" {
		table := ld.embedding(root, names.Positions, c.PositionOffset+c.Context, c.Hidden)
		if ld.err == nil {
			n.positions = nn.Embedding{Weight: table.Weight.Slice(c.PositionOffset, c.PositionOffset+c.Context)}
		}
	}
	n.embedNorm = ld.norm(root, names.EmbedNorm)
	if names.Widen != "" {
		n.widen = ld.linear(root, names.Widen, c.Hidden, c.EmbedWidth, false)
	}
	for i := range c.Layers {
		if ld.err != nil {
			return n, ld.err
		}
		l := ld.block(root.Sub(names.Blocks).Sub(strconv.Itoa(i)), i)
		pack(s, a, l.linears()...)
		n.layers = append(n.layers, l)
	}
	n.norm = ld.norm(root, names.Norm)
	if names.Narrow != "" {
		n.narrow = ld.linear(root, names.Narrow, c.EmbedWidth, c.Hidden, false)
	}
	if c.Tied {
		n.head = nn.Linear{Weight: n.embed.Weight}
	} else {
		n.head = ld.linear(s, names.Head, c.Vocab, c.EmbedWidth, c.HeadBias)
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
func rootOf(s *weights.Store, names *family.Layout) *weights.Store {
	if path := names.RootPath(s.Has); path != "" {
		return s.Sub(path)
	}
	return s
}

// block reads block i from its own part of the store.
func (ld *loader) block(s *weights.Store, i int) (l layer) {
	c, names := ld.config, &ld.config.Layout
	l.attentionNorms, l.mlpNorms = ld.norms(s, names.Attention), ld.norms(s, names.MLP)
	l.parallel = c.Parallel
	l.scale, l.window, l.rope = c.AttentionScale(i), c.WindowOf(i), c.RopeOf(i)

	queries, keys := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	if names.QKV != "" {
		l.q, l.k, l.v = ld.split(ld.projection(s, names.QKV, queries+2*keys, c.Hidden, c.AttentionBias))
	} else {
		l.q = ld.projection(s, names.Q, queries, c.Hidden, c.AttentionBias)
		l.k = ld.projection(s, names.K, keys, c.Hidden, c.AttentionBias)
		l.v = ld.projection(s, names.V, keys, c.Hidden, c.AttentionBias)
	}
	if names.Turned && ld.err == nil {
		l.q, l.k = l.q.Gather(family.Turned(c.Heads, c.HeadDim, false)), l.k.Gather(family.Turned(c.KVHeads, c.HeadDim, false))
	}
	l.qNorm, l.kNorm = ld.headNorm(s, names.QNorm, c.Heads), ld.headNorm(s, names.KNorm, c.KVHeads)
	l.o = ld.projection(s, names.O, c.Hidden, queries, c.OutputBias)
	if c.Sparse(i) {
		l.mlp = ld.mixture(s)
	} else {
		l.mlp = ld.mlp(s)
	}
	return l
}

func (ld *loader) norms(s *weights.Store, names family.NormLayout) norms {
	return norms{before: ld.norm(s, names.Before), after: ld.norm(s, names.After), sum: ld.norm(s, names.Sum)}
}

// split takes query, key and value out of their joint matrix.
func (ld *loader) split(qkv nn.Linear) (q, k, v nn.Linear) {
	c := ld.config
	if ld.err != nil {
		return
	}
	queries, keys := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	if !ld.config.Layout.Grouped || c.KVHeads == 1 {
		return qkv.Slice(0, queries), qkv.Slice(queries, queries+keys), qkv.Slice(queries+keys, queries+2*keys)
	}
	queryRows, keyRows, valueRows := c.GroupedRows()
	return qkv.Gather(queryRows), qkv.Gather(keyRows), qkv.Gather(valueRows)
}

func (ld *loader) mlp(s *weights.Store) *mlp {
	c, names := ld.config, &ld.config.Layout
	f := &mlp{activation: c.Activation, gated: names.Gated(), inner: c.Intermediate}
	if names.GateUp != "" {
		both := ld.projection(s, names.GateUp, 2*f.inner, c.Hidden, c.MLPBias)
		if ld.err == nil {
			f.gate, f.up = both.Slice(0, f.inner), both.Slice(f.inner, 2*f.inner)
		}
	} else {
		if f.gated {
			f.gate = ld.projection(s, names.Gate, f.inner, c.Hidden, c.MLPBias)
		}
		f.up = ld.projection(s, names.Up, f.inner, c.Hidden, c.MLPBias)
	}
	f.down = ld.projection(s, names.Down, c.Hidden, f.inner, c.MLPBias)
	return f
}

func (ld *loader) mixture(s *weights.Store) *mixture {
	c, names := ld.config, &ld.config.Layout
	m := &mixture{used: c.Experts.Used, normalise: c.Experts.Normalise}
	m.router = ld.projection(s, names.Router, c.Experts.Count, c.Hidden, false)
	if names.Stacked {
		gate := ld.stack(s, names.Expert.Gate, c.Experts.Intermediate, c.Hidden)
		up := ld.stack(s, names.Expert.Up, c.Experts.Intermediate, c.Hidden)
		down := ld.stack(s, names.Expert.Down, c.Hidden, c.Experts.Intermediate)
		for i := range down {
			f := mlp{activation: c.Activation, gated: true, inner: c.Experts.Intermediate}
			f.gate, f.up, f.down = gate[i], up[i], down[i]
			m.experts = append(m.experts, f)
		}
		return m
	}
	for i := range c.Experts.Count {
		expert := s.Sub(names.Experts).Sub(strconv.Itoa(i))
		f := mlp{activation: c.Activation, gated: true, inner: c.Experts.Intermediate}
		f.gate = ld.projection(expert, names.Expert.Gate, f.inner, c.Hidden, false)
		f.up = ld.projection(expert, names.Expert.Up, f.inner, c.Hidden, false)
		f.down = ld.projection(expert, names.Expert.Down, c.Hidden, f.inner, false)
		m.experts = append(m.experts, f)
	}
	return m
}

// stack reads the matrices of all experts from the tensor that holds them.
func (ld *loader) stack(s *weights.Store, path string, out, in int) []nn.Linear {
	if ld.err != nil {
		return nil
	}
	t, err := s.Sub(path).Tensor("weight", ld.config.Experts.Count, out, in)
	if err != nil {
		ld.err = err
		return nil
	}
	list := make([]nn.Linear, ld.config.Experts.Count)
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
	if !ld.config.Layout.Conv1D {
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
	if !c.HeadNorms || path == "" || ld.err != nil {
		return ld.normOf(s, path, c.HeadDim)
	}
	if c.Layout.Stacked {
		var t weights.Tensor
		t, ld.err = s.Sub(path).Tensor("weight", heads, c.HeadDim)
		if ld.err != nil {
			return nil
		}
		return nn.HeadLayerNorm{Weight: t.Float32s(), Heads: heads, Eps: float32(c.Eps)}
	}
	n, ld.err = nn.LoadHeadLayerNorm(s.Sub(path), heads, c.HeadDim, float32(c.Eps))
	return n
}

func (ld *loader) normOf(s *weights.Store, path string, channels int) (n nn.Norm) {
	if path == "" || ld.err != nil {
		return nil
	}
	s, eps := s.Sub(path), float32(ld.config.Eps)
	switch ld.config.Norm {
	case family.RMSNorm:
		n, ld.err = nn.LoadRMSNorm(s, channels, eps)
	case family.RMSNormLessOne:
		n, ld.err = nn.LoadRMSNormLessOne(s, channels, eps)
	case family.LayerNorm:
		n, ld.err = nn.LoadLayerNorm(s, channels, eps)
	case family.PlainLayerNorm:
		n = nn.LayerNorm{Weight: slices.Repeat([]float32{1}, channels), Eps: eps}
	}
	return n
}

package lm

import (
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"helicon/models/weights"
)

// slot is a tensor that a decoder needs, or several of one shape that some files have in
// one, stacked along a first axis.
type slot struct {
	names []string // in full
	shape []int    // of each
	role  role
}

// role is what a tensor is, as far as formats differ in it.
type role uint8

const (
	plain   role = iota
	ofNorm       // weight of a norm
	ofQuery      // weight or bias
	ofKey
	ofJoint // query, key and value
	ofBlock // matrix within a block
)

// slots lists what loadNetwork reads of a file with layout l, whose tensors but the head
// are below root. Layouts of one configuration give the same list, name by name.
func (c *Config) slots(l *layout, root string) []slot {
	w := &slotWalk{c: c, l: l, path: below(root, "")}
	w.add(l.embed, "weight", plain, c.Vocab, c.embedWidth)
	w.add(l.positions, "weight", plain, c.positionOffset+c.Context, c.Hidden)
	w.norm(l.embedNorm, c.Hidden)
	w.add(l.widen, "weight", plain, c.Hidden, c.embedWidth)
	for i := range c.Layers {
		w.path = below(below(root, l.blocks), strconv.Itoa(i))
		w.block(i)
	}
	w.path = root
	w.norm(l.norm, c.Hidden)
	w.add(l.narrow, "weight", plain, c.embedWidth, c.Hidden)
	if !c.Tied {
		w.path = ""
		w.linear(l.head, plain, c.Vocab, c.embedWidth, c.headBias)
	}
	return w.list
}

// below joins two paths, either of which may be empty.
func below(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "." + name
}

// slotWalk collects slots at a path. Nothing is collected for an empty name.
type slotWalk struct {
	c    *Config
	l    *layout
	path string
	list []slot
}

func (w *slotWalk) add(name, kind string, r role, shape ...int) {
	if name != "" {
		w.list = append(w.list, slot{[]string{below(below(w.path, name), kind)}, shape, r})
	}
}

func (w *slotWalk) linear(name string, r role, out, in int, bias bool) {
	shape := []int{out, in}
	if w.l.conv1D && r != plain {
		slices.Reverse(shape)
	}
	w.add(name, "weight", r, shape...)
	if bias {
		w.add(name, "bias", r, out)
	}
}

func (w *slotWalk) norm(name string, channels int) {
	if w.c.norm == plainLayerNorm {
		return
	}
	w.add(name, "weight", ofNorm, channels)
	if w.c.norm == layerNorm {
		w.add(name, "bias", plain, channels)
	}
}

func (w *slotWalk) block(i int) {
	c, l := w.c, w.l
	for _, n := range []normLayout{l.attention, l.mlp} {
		w.norm(n.before, c.Hidden)
		w.norm(n.after, c.Hidden)
		w.norm(n.sum, c.Hidden)
	}
	queries, keys := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	w.linear(l.qkv, ofJoint, queries+2*keys, c.Hidden, c.attentionBias)
	w.linear(l.q, ofQuery, queries, c.Hidden, c.attentionBias)
	w.linear(l.k, ofKey, keys, c.Hidden, c.attentionBias)
	w.linear(l.v, ofBlock, keys, c.Hidden, c.attentionBias)
	w.headNorm(l.qNorm, c.Heads)
	w.headNorm(l.kNorm, c.KVHeads)
	w.linear(l.o, ofBlock, c.Hidden, queries, c.outputBias)
	if c.sparse(i) {
		w.linear(l.router, ofBlock, c.experts.count, c.Hidden, false)
		w.experts(l.expert.gate, c.experts.intermediate, c.Hidden)
		w.experts(l.expert.up, c.experts.intermediate, c.Hidden)
		w.experts(l.expert.down, c.Hidden, c.experts.intermediate)
		return
	}
	w.linear(l.gateUp, ofBlock, 2*c.Intermediate, c.Hidden, c.mlpBias)
	if l.gateUp == "" {
		w.linear(l.gate, ofBlock, c.Intermediate, c.Hidden, c.mlpBias)
		w.linear(l.up, ofBlock, c.Intermediate, c.Hidden, c.mlpBias)
	}
	w.linear(l.down, ofBlock, c.Hidden, c.Intermediate, c.mlpBias)
}

func (w *slotWalk) headNorm(name string, heads int) {
	if !w.c.headNorms || name == "" {
		w.norm(name, w.c.HeadDim)
		return
	}
	if w.l.stacked {
		w.add(name, "weight", ofNorm, heads, w.c.HeadDim)
		return
	}
	s := slot{shape: []int{w.c.HeadDim}, role: ofNorm}
	for i := range heads {
		s.names = append(s.names, below(w.path, name)+".norms."+strconv.Itoa(i)+".weight")
	}
	w.list = append(w.list, s)
}

func (w *slotWalk) experts(name string, out, in int) {
	if w.l.stacked {
		w.add(name, "weight", ofBlock, w.c.experts.count, out, in)
		return
	}
	s := slot{shape: []int{out, in}, role: ofBlock}
	for i := range w.c.experts.count {
		s.names = append(s.names, below(below(w.path, w.l.experts), strconv.Itoa(i))+"."+name+".weight")
	}
	w.list = append(w.list, s)
}

// Check says what would keep the model in a folder from loading, from its configuration
// and the headers of its files alone: that a tensor is missing, or of another shape or
// type than the network needs. The errors are those of Load.
func Check(fsys fs.FS) error {
	c, h, err := describe(fsys)
	if err != nil {
		return err
	}
	return c.checkTensors(h)
}

// checkTensors is Check for a model whose configuration and header are known.
func (c *Config) checkTensors(h *weights.Header) error {
	for _, s := range c.slots(&c.layout, rootPath(&c.layout, h.Has)) {
		for _, name := range s.names {
			if err := fits(h, name, s.shape); err != nil {
				return wrap(c.Architecture, err)
			}
		}
	}
	return nil
}

// fits says whether Store.Tensor would return a tensor of that shape. The errors are
// the same.
func fits(h *weights.Header, name string, shape []int) error {
	t, err := h.Lookup(name)
	switch file := h.Files[0].Name; {
	case err != nil:
		return err
	case t.DType == 0:
		return fmt.Errorf("%s: tensor %q: type %s is not supported: %w", file, name, t.Kind, weights.ErrShape)
	case !slices.Equal(t.Shape, shape):
		return fmt.Errorf("%s: tensor %q: shape %v, want %v: %w", file, name, t.Shape, shape, weights.ErrShape)
	case !t.DType.Float() && !t.DType.Quantised():
		return fmt.Errorf("%s: tensor %q: type %v, want F32, F16, BF16 or a quantised type: %w", file, name, t.DType, weights.ErrShape)
	}
	return nil
}

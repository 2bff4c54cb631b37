package family

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

// slots lists what a decoder reads of a file with layout l, whose tensors but the head
// are below root. Layouts of one configuration give the same list, name by name.
func (c *Config) slots(l *Layout, root string) []slot {
	w := &slotWalk{c: c, l: l, path: below(root, "")}
	w.add(l.Embed, "weight", plain, c.Vocab, c.EmbedWidth)
	w.add(l.Positions, "weight", plain, c.PositionOffset+c.Context, c.Hidden)
	w.norm(l.EmbedNorm, c.Hidden)
	w.add(l.Widen, "weight", plain, c.Hidden, c.EmbedWidth)
	for i := range c.Layers {
		w.path = below(below(root, l.Blocks), strconv.Itoa(i))
		w.block(i)
	}
	w.path = root
	w.norm(l.Norm, c.Hidden)
	w.add(l.Narrow, "weight", plain, c.EmbedWidth, c.Hidden)
	if !c.Tied {
		w.path = ""
		w.linear(l.Head, plain, c.Vocab, c.EmbedWidth, c.HeadBias)
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
	l    *Layout
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
	if w.l.Conv1D && r != plain {
		slices.Reverse(shape)
	}
	w.add(name, "weight", r, shape...)
	if bias {
		w.add(name, "bias", r, out)
	}
}

func (w *slotWalk) norm(name string, channels int) {
	if w.c.Norm == PlainLayerNorm {
		return
	}
	w.add(name, "weight", ofNorm, channels)
	if w.c.Norm == LayerNorm {
		w.add(name, "bias", plain, channels)
	}
}

func (w *slotWalk) block(i int) {
	c, l := w.c, w.l
	for _, n := range []NormLayout{l.Attention, l.MLP} {
		w.norm(n.Before, c.Hidden)
		w.norm(n.After, c.Hidden)
		w.norm(n.Sum, c.Hidden)
	}
	queries, keys := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	w.linear(l.QKV, ofJoint, queries+2*keys, c.Hidden, c.AttentionBias)
	w.linear(l.Q, ofQuery, queries, c.Hidden, c.AttentionBias)
	w.linear(l.K, ofKey, keys, c.Hidden, c.AttentionBias)
	w.linear(l.V, ofBlock, keys, c.Hidden, c.AttentionBias)
	w.headNorm(l.QNorm, c.Heads)
	w.headNorm(l.KNorm, c.KVHeads)
	w.linear(l.O, ofBlock, c.Hidden, queries, c.OutputBias)
	if c.Sparse(i) {
		w.linear(l.Router, ofBlock, c.Experts.Count, c.Hidden, false)
		w.experts(l.Expert.Gate, c.Experts.Intermediate, c.Hidden)
		w.experts(l.Expert.Up, c.Experts.Intermediate, c.Hidden)
		w.experts(l.Expert.Down, c.Hidden, c.Experts.Intermediate)
		return
	}
	w.linear(l.GateUp, ofBlock, 2*c.Intermediate, c.Hidden, c.MLPBias)
	if l.GateUp == "" {
		w.linear(l.Gate, ofBlock, c.Intermediate, c.Hidden, c.MLPBias)
		w.linear(l.Up, ofBlock, c.Intermediate, c.Hidden, c.MLPBias)
	}
	w.linear(l.Down, ofBlock, c.Hidden, c.Intermediate, c.MLPBias)
}

func (w *slotWalk) headNorm(name string, heads int) {
	if !w.c.HeadNorms || name == "" {
		w.norm(name, w.c.HeadDim)
		return
	}
	if w.l.Stacked {
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
	if w.l.Stacked {
		w.add(name, "weight", ofBlock, w.c.Experts.Count, out, in)
		return
	}
	s := slot{shape: []int{out, in}, role: ofBlock}
	for i := range w.c.Experts.Count {
		s.names = append(s.names, below(below(w.path, w.l.Experts), strconv.Itoa(i))+"."+name+".weight")
	}
	w.list = append(w.list, s)
}

// Check says what would keep the model in a folder from loading, from its configuration
// and the headers of its files alone: that a tensor is missing, or of another shape or
// type than the network needs. The errors are those of Open.
func Check(fsys fs.FS) error {
	c, h, err := Describe(fsys)
	if err != nil {
		return err
	}
	return c.CheckTensors(h)
}

// CheckTensors is Check for a model whose configuration and header h are known.
func (c *Config) CheckTensors(h *weights.Header) error {
	for _, s := range c.slots(&c.Layout, c.Layout.RootPath(h.Has)) {
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

package weights

import (
	"fmt"
	"slices"

	"helicon/models/tensor"
)

// View is a tensor as another store shows it: renamed, a part of it, or changed. Its
// fields apply in the order that they have here.
type View struct {
	Name       string // of the tensor in the store that is viewed, below its path
	Rows       [2]int // the part [from, to) of the first axis; zero is all of it
	Shape      []int  // of as many elements; nil is the shape it has
	Transposed bool   // a matrix, turned

	// Edit returns the tensor with other elements, and of another type if it likes, but
	// of the same shape. It is called whenever the tensor is looked up. nil is no edit.
	Edit func(Tensor) (Tensor, error)
}

// View returns a store of the tensors that views has, by their new names, over the memory
// of s: nothing is read until a tensor is looked up. A tensor of a block type whose rows
// are no whole number of blocks in the view, or that is turned, comes as F32. It keeps the packing of s, and
// closing either closes both. The error wraps ErrMissing if there is no tensor of a name,
// and ErrShape if it has no such rows or not as many elements as the new shape.
func (s *Store) View(views map[string]View) (*Store, error) {
	h := *s.header
	h.entries = make(map[string]entry, len(views))
	for name, v := range views {
		e, ok := s.header.entries[s.prefix+v.Name]
		if !ok {
			return nil, fmt.Errorf("weights: %s: tensor %q: %w", s.header.origin, s.prefix+v.Name, ErrMissing)
		}
		shape, err := v.shape(e.Shape)
		if err != nil {
			return nil, s.header.unfit(e, "%v", err)
		}
		e.Name, e.Shape, e.strides = name, shape, nil
		if n, size := e.DType.Block(); n > 0 {
			e.Bytes = e.Len() / int64(n) * int64(size)
		}
		h.entries[name] = e
	}
	base := *s
	return &Store{bundle: &bundle{header: &h, base: &base, views: views}, packing: s.packing}, nil
}

// Edited returns the same part of the store with some of its tensors changed whenever
// they are looked up: see View.Edit. The error wraps ErrMissing if there is no tensor of a
// name.
func (s *Store) Edited(edits map[string]func(Tensor) (Tensor, error)) (*Store, error) {
	views := make(map[string]View)
	for _, name := range s.Names() {
		views[name] = View{Name: name}
	}
	for name, edit := range edits {
		views[name] = View{Name: name, Edit: edit}
	}
	return s.View(views)
}

// shape returns the shape that a tensor of a shape has in the view.
func (v *View) shape(shape []int) ([]int, error) {
	out := slices.Clone(shape)
	if v.Rows != [2]int{} {
		if len(out) == 0 || v.Rows[0] < 0 || v.Rows[0] >= v.Rows[1] || v.Rows[1] > out[0] {
			return nil, fmt.Errorf("shape %v has no rows %d to %d", shape, v.Rows[0], v.Rows[1])
		}
		out[0] = v.Rows[1] - v.Rows[0]
	}
	if v.Shape != nil {
		have, want := Tensor{Shape: out}, Tensor{Shape: v.Shape}
		if have.Len() != want.Len() {
			return nil, fmt.Errorf("shape %v, want %v", out, v.Shape)
		}
		out = slices.Clone(v.Shape)
	}
	if v.Transposed {
		if len(out) != 2 {
			return nil, fmt.Errorf("shape %v is no matrix", out)
		}
		slices.Reverse(out)
	}
	return out, nil
}

// lookup returns a tensor of a view by its full name.
func (b *bundle) lookup(name string) (Tensor, error) {
	v, e := b.views[name], b.header.entries[name]
	t, err := b.base.Lookup(v.Name)
	if err != nil {
		return t, err
	}
	if v.Rows != [2]int{} {
		row := len(t.Data) / t.Shape[0]
		if n, _ := t.DType.Block(); t.Len()/t.Shape[0]%n != 0 {
			return t, b.header.unfit(e, "rows of %v cannot be cut", t.DType)
		}
		t.Data = t.Data[v.Rows[0]*row : v.Rows[1]*row : v.Rows[1]*row]
		if t.mapped != nil {
			t.mapped = t.Data
		}
	}
	t.Name, t.Shape = name, e.Shape
	if n, _ := t.DType.Block(); t.DType.Quantised() && (v.Transposed || len(t.Shape) == 0 || t.Shape[len(t.Shape)-1]%n != 0) {
		t = t.WithFloats(t.Float32s())
	}
	if v.Transposed {
		t = transposed(t)
	}
	if v.Edit == nil {
		return t, nil
	}
	t, err = v.Edit(t)
	if err == nil && (t.Name != name || !slices.Equal(t.Shape, e.Shape)) {
		panic(fmt.Sprintf("weights: edit made %q %v of %q %v", t.Name, t.Shape, name, e.Shape))
	}
	return t, err
}

// transposed returns a copy of a matrix of plain elements whose shape is turned already.
func transposed(t Tensor) Tensor {
	size := t.DType.Size()
	rows, cols := t.Shape[0], t.Shape[1]
	data := make([]byte, len(t.Data))
	for r := range rows {
		for c := range cols {
			copy(data[(r*cols+c)*size:][:size], t.Data[(c*rows+r)*size:])
		}
	}
	t.Data, t.mapped = data, nil
	return t
}

// WithFloats returns t with the elements x, as F32. It panics if they are
// another number.
func (t Tensor) WithFloats(x []float32) Tensor {
	if len(x) != t.Len() {
		panic(fmt.Sprintf("weights: %d floats for tensor %q %v", len(x), t.Name, t.Shape))
	}
	data := make([]byte, 4*len(x))
	tensor.Encode(data, tensor.F32, x)
	return Tensor{Name: t.Name, DType: tensor.F32, Shape: t.Shape, Data: data}
}

// Describe returns what the store's header says of a tensor below its path. The error
// wraps ErrMissing if there is none of that name.
func (s *Store) Describe(name string) (Info, error) { return s.header.Lookup(s.prefix + name) }

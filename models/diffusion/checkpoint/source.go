package checkpoint

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"helicon/models/weights"
)

// source is the tensors of a file.
type source struct {
	header   *weights.Header
	names    []string // sorted
	reshaped map[string]weights.View
}

// newSource reads the shapes that ComfyUI-GGUF keeps beside tensors whose rows it changed
// so that they could be quantised.
func newSource(h *weights.Header) (*source, error) {
	s := &source{header: h, names: h.Names(), reshaped: map[string]weights.View{}}
	for _, pair := range h.Metadata.Pairs() {
		name, ok := strings.CutPrefix(pair.Key, "comfy.gguf.orig_shape.")
		if !ok || !h.Has(name) {
			continue
		}
		shape, err := h.Metadata.Ints(pair.Key)
		if err != nil {
			return nil, err
		}
		info, err := h.Lookup(name)
		if err != nil {
			return nil, err
		}
		if !sameLength(shape, info.Len()) {
			return nil, fmt.Errorf("checkpoint: %s: %s is %v, but the tensor %v: %w", h.Files[0].Name, pair.Key, shape, info.Shape, weights.ErrFormat)
		}
		s.reshaped[name] = weights.View{Name: name, Shape: shape}
	}
	return s, nil
}

// sameLength reports whether a shape has n elements.
func sameLength(shape []int, n int64) bool {
	left := n
	for _, d := range shape {
		if d <= 0 || left%int64(d) != 0 {
			return false
		}
		left /= int64(d)
	}
	return left == 1
}

func (s *source) has(name string) bool { return s.header.Has(name) }

// shape returns the shape of a tensor of so many axes.
func (s *source) shape(name string, axes int) ([]int, error) {
	info, err := s.header.Lookup(name)
	if err != nil {
		return nil, err
	}
	if v, ok := s.reshaped[name]; ok {
		info.Shape = v.Shape
	}
	if len(info.Shape) != axes || slices.ContainsFunc(info.Shape, func(d int) bool { return d <= 0 }) {
		return nil, fmt.Errorf("checkpoint: %s: tensor %q: shape %v, want %d axes that are not empty: %w", s.header.Files[0].Name, name, info.Shape, axes, weights.ErrShape)
	}
	return info.Shape, nil
}

// axes returns the number of axes of a tensor, 0 if there is none of that name.
func (s *source) axes(name string) int {
	if v, ok := s.reshaped[name]; ok {
		return len(v.Shape)
	}
	info, err := s.header.Lookup(name)
	if err != nil {
		return 0
	}
	return len(info.Shape)
}

// under returns the names that have a prefix, without it.
func (s *source) under(prefix string) []string {
	first, _ := slices.BinarySearch(s.names, prefix)
	var rest []string
	for _, name := range s.names[first:] {
		r, ok := strings.CutPrefix(name, prefix)
		if !ok {
			break
		}
		rest = append(rest, r)
	}
	return rest
}

// count returns how many of prefix0, prefix1, … there are in a row, each the path of a
// module.
func (s *source) count(prefix string) int {
	n := 0
	for n < maxModules && len(s.under(prefix+strconv.Itoa(n)+".")) > 0 {
		n++
	}
	return n
}

// maxModules bounds counts of modules of a kind.
const maxModules = 1 << 10

// prefixOf returns the first of the prefixes under which there is a tensor of a name.
func (s *source) prefixOf(name string, prefixes ...string) (string, bool) {
	for _, p := range prefixes {
		if s.has(p + name) {
			return p, true
		}
	}
	return "", false
}

// renamed returns views of the tensors under a prefix that have a new name.
func (s *source) renamed(prefix string, n names) map[string]weights.View {
	views := map[string]weights.View{}
	for _, rest := range s.under(prefix) {
		if name, ok := n.translate(rest); ok {
			views[name] = weights.View{Name: prefix + rest}
		}
	}
	return views
}

// same returns views of all tensors under a prefix, by their own names.
func (s *source) same(prefix string) map[string]weights.View {
	views := map[string]weights.View{}
	for _, rest := range s.under(prefix) {
		views[rest] = weights.View{Name: prefix + rest}
	}
	return views
}

// cut adds views of runs of rows of a tensor, of so many rows each.
func (s *source) cut(views map[string]weights.View, name string, rows int, parts ...string) {
	for i, part := range parts {
		views[part] = weights.View{Name: name, Rows: [2]int{i * rows, (i + 1) * rows}}
	}
}

// swapped returns a tensor with the halves of its rows the other way round.
func swapped(t weights.Tensor) (weights.Tensor, error) {
	if len(t.Shape) == 0 || t.Shape[0]%2 != 0 {
		return t, fmt.Errorf("checkpoint: tensor %q: shape %v, want two halves: %w", t.Name, t.Shape, weights.ErrShape)
	}
	half := len(t.Data) / 2
	return weights.Tensor{Name: t.Name, DType: t.DType, Shape: t.Shape, Data: slices.Concat(t.Data[half:], t.Data[:half])}, nil
}

// deviation returns the standard deviation of numbers.
func deviation(x []float32) float64 {
	mean, square := 0.0, 0.0
	for _, v := range x {
		mean += float64(v) / float64(len(x))
	}
	for _, v := range x {
		square += (float64(v) - mean) * (float64(v) - mean) / float64(len(x))
	}
	return math.Sqrt(square)
}

package nn

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// Unnormed shows a store with the weights that checkpoints have in two halves, a length and a
// direction (weight normalisation: Salimans and Kingma 2016), as one "weight" each:
// g·v/|v|, the norm over all axes but the first. PyTorch has stored the halves as
// "weight_g" and "weight_v", and since as "parametrizations.weight.original0" and
// "original1". Everything else keeps its name. Products are computed when a weight is looked
// up.
func Unnormed(s *weights.Store) (*weights.Store, error) {
	views, edits := map[string]weights.View{}, map[string]func(weights.Tensor) (weights.Tensor, error){}
	for _, name := range s.Names() {
		if isLength(name) {
			continue
		}
		base, length, ok := direction(name)
		if !ok {
			views[name] = weights.View{Name: name}
			continue
		}
		if !s.Has(length) {
			return nil, fmt.Errorf("nn: tensor %q without %q: %w", name, length, weights.ErrMissing)
		}
		views[base] = weights.View{Name: name}
		edits[base] = func(v weights.Tensor) (weights.Tensor, error) {
			g, err := s.Lookup(length)
			if err != nil {
				return v, err
			}
			return scaled(v, g)
		}
	}
	if len(edits) == 0 {
		return s, nil
	}
	shown, err := s.View(views)
	if err != nil {
		return nil, err
	}
	return shown.Edited(edits)
}

// The endings of the two halves' names.
var normEndings = [][2]string{
	{"weight_g", "weight_v"},
	{"parametrizations.weight.original0", "parametrizations.weight.original1"},
}

func isLength(name string) bool {
	return slices.ContainsFunc(normEndings, func(e [2]string) bool { return strings.HasSuffix(name, e[0]) })
}

// direction returns the names of the weight and of its length, if a tensor is a direction.
func direction(name string) (base, length string, ok bool) {
	for _, e := range normEndings {
		if stem, ok := strings.CutSuffix(name, e[1]); ok {
			return stem + "weight", stem + e[0], true
		}
	}
	return "", "", false
}

// scaled returns the rows of v with the lengths g.
func scaled(v, g weights.Tensor) (weights.Tensor, error) {
	if len(v.Shape) == 0 || v.Shape[0] == 0 || g.Len() != v.Shape[0] || !v.DType.Float() || !g.DType.Float() {
		return v, fmt.Errorf("nn: tensor %q: %v %v with %d lengths: %w", v.Name, v.DType, v.Shape, g.Len(), weights.ErrShape)
	}
	x, lengths := slices.Clone(v.Float32s()), g.Float32s()
	row := len(x) / v.Shape[0]
	for i, length := range lengths {
		part, squares := x[i*row:][:row], 0.0
		for _, u := range part {
			squares += float64(u) * float64(u)
		}
		if squares == 0 {
			continue
		}
		factor := float64(length) / math.Sqrt(squares)
		for j, u := range part {
			part[j] = float32(float64(u) * factor)
		}
	}
	v.DType = tensor.F32
	return v.WithFloats(x), nil
}

// Package nn has the layers that networks are built from: weights of checked shape
// read from a weights.Store, and a Forward over flat activations.
//
// A layer is read-only once loaded and may be used by any number of goroutines; the
// tensor.Exec and the activations belong to the call. Axes: T tokens, C channels,
// H heads, D head dimension.
package nn

import (
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Linear is y = x·Wᵀ + b.
type Linear struct {
	Weight tensor.Matrix // [out, in]
	Bias   []float32     // [out], or nil
}

// LoadLinear reads "weight" [out, in] and, if bias is set, "bias" [out]. The weight may
// be that of a convolution of one pixel, [out, in, 1] or [out, in, 1, 1]. It is kept as the
// store's Packing says.
func LoadLinear(s *weights.Store, out, in int, bias bool) (Linear, error) {
	w, err := oneOf(s, "weight", []int{out, in}, []int{out, in, 1, 1}, []int{out, in, 1})
	if err != nil {
		return Linear{}, err
	}
	b, err := loadBias(s, out, bias)
	if err != nil {
		return Linear{}, err
	}
	w.Shape = []int{out, in}
	l := Linear{Weight: w.Matrix(), Bias: b}
	if p := s.Packing(); p.On {
		compute := p.Compute
		if compute != 0 && min(in, out) < fewChannels {
			compute = tensor.F32
		}
		l.Weight = l.Weight.PackAs(p.Arena, compute)
		w.Evict()
	}
	return l, nil
}

// LoadConv1D reads the layer that GPT-2 calls Conv1D: a Linear whose "weight" is
// stored as [in, out]. The weight is turned once, into a copy of the same type.
func LoadConv1D(s *weights.Store, out, in int, bias bool) (Linear, error) {
	w, err := s.Tensor("weight", in, out)
	if err != nil {
		return Linear{}, err
	}
	b, err := loadBias(s, out, bias)
	return Linear{Weight: w.Matrix().Transposed(), Bias: b}, err
}

func loadBias(s *weights.Store, out int, bias bool) ([]float32, error) {
	if !bias {
		return nil, nil
	}
	return loadVector(s, "bias", out)
}

// loadVector reads a vector as float32, whatever type it is stored in: vectors are
// small and used whole.
func loadVector(s *weights.Store, name string, n int) ([]float32, error) {
	t, err := s.Tensor(name, n)
	if err != nil {
		return nil, err
	}
	return t.Float32s(), nil
}

// Slice returns the layer of outputs lo to hi-1, sharing memory.
func (l Linear) Slice(lo, hi int) Linear {
	part := Linear{Weight: l.Weight.Slice(lo, hi)}
	if l.Bias != nil {
		part.Bias = l.Bias[lo:hi]
	}
	return part
}

// Gather returns the layer of the listed outputs, in a copy.
func (l Linear) Gather(outputs []int) Linear {
	part := Linear{Weight: l.Weight.Gather(outputs)}
	if l.Bias != nil {
		for _, i := range outputs {
			part.Bias = append(part.Bias, l.Bias[i])
		}
	}
	return part
}

// Forward computes y [T, out] from x [T, in]. y may not overlap x.
func (l Linear) Forward(e *tensor.Exec, y, x []float32) {
	e.MatMul(y, x, l.Weight, l.Bias)
}

// Product returns the layer's part in a joint tensor.Exec.MatMuls that writes to y.
func (l Linear) Product(y []float32) tensor.Product {
	return tensor.Product{Y: y, W: l.Weight, Bias: l.Bias}
}

// Bytes returns the memory of the weights.
func (l Linear) Bytes() int64 { return l.Weight.Bytes() + 4*int64(len(l.Bias)) }

// Embedding is a table of vectors.
type Embedding struct {
	Weight tensor.Matrix // [n, C]
	Scale  float32       // factor of the vectors; 0 is 1
}

// LoadEmbedding reads "weight" [n, channels].
func LoadEmbedding(s *weights.Store, n, channels int) (Embedding, error) {
	w, err := s.Tensor("weight", n, channels)
	if err != nil {
		return Embedding{}, err
	}
	return Embedding{Weight: w.Matrix()}, nil
}

// Forward writes the vectors of ids into y [len(ids), C]. Ids outside the table are
// the caller's error and panic.
func (m Embedding) Forward(y []float32, ids []int) {
	c := m.Weight.Cols
	for i, id := range ids {
		m.Weight.Row(y[i*c:][:c], id)
	}
	if m.Scale != 0 {
		for i := range y[:len(ids)*c] {
			y[i] *= m.Scale
		}
	}
}

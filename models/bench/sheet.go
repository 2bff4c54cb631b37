package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// sheet lists the tensors of a network and the operations of a pass through it. Weights
// are random: they take the time that trained ones take.
type sheet struct {
	dtype   tensor.DType // of matrices and convolutions
	random  []byte       // a pattern of that type
	ones    []byte       // in float32
	tensors []weights.Source
	pass
}

// pass is what a pass through a network does.
type pass struct {
	operations float64
	bytes      float64 // of weights, as they lie in the file
}

func newSheet(d tensor.DType) *sheet {
	s := &sheet{dtype: d, random: pattern(d), ones: make([]byte, 4*patternElements)}
	tensor.Encode(s.ones, tensor.F32, slices.Repeat([]float32{1}, patternElements))
	return s
}

// write makes the file of the tensors, base.safetensors, in a folder that it makes too.
func (s *sheet) write(ctx context.Context, dir, base string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	f, err := os.Create(filepath.Join(dir, base+".safetensors"))
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return weights.EncodeSafetensors(ctx, f, s.tensors)
}

// matrix adds a tensor of several axes.
func (s *sheet) matrix(name string, shape ...int) {
	n := 1
	for _, axis := range shape {
		n *= axis
	}
	s.tensors = append(s.tensors, weights.Source{
		Name: name, DType: s.dtype, Shape: shape, Write: repeat(s.random, s.dtype.Bytes(n)),
	})
	s.bytes += float64(s.dtype.Bytes(n))
}

func (s *sheet) vector(name string, n int) {
	s.tensors = append(s.tensors, weights.Source{
		Name: name, DType: tensor.F32, Shape: []int{n}, Write: repeat(s.ones, int64(4*n)),
	})
}

// norm adds a scale and a shift.
func (s *sheet) norm(name string, channels int) {
	s.vector(name+".weight", channels)
	s.vector(name+".bias", channels)
}

// linear adds a layer that so many tokens go through.
func (s *sheet) linear(name string, out, in, tokens int, bias bool) {
	s.matrix(name+".weight", out, in)
	if bias {
		s.vector(name+".bias", out)
	}
	s.operations += 2 * float64(out) * float64(in) * float64(tokens)
}

// conv adds a convolution of size×size whose result has so many pixels.
func (s *sheet) conv(name string, out, in, size, pixels int, bias bool) {
	s.matrix(name+".weight", out, in, size, size)
	if bias {
		s.vector(name+".bias", out)
	}
	s.operations += 2 * float64(out) * float64(in) * float64(size*size) * float64(pixels)
}

// attend adds the operations of attention between so many queries and keys.
func (s *sheet) attend(queries, keys, channels int) {
	s.operations += 4 * float64(queries) * float64(keys) * float64(channels)
}

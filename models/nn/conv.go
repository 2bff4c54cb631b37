package nn

import (
	"errors"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// Conv2d is a convolution of images [B, H, W, C] or, with a kernel of height 1, of
// sequences [B, 1, T, C].
type Conv2d struct {
	conv *tensor.Conv
}

// LoadConv2d reads "weight" as PyTorch has it, [out, in/groups, height, width], or
// transposed [in, out/groups, height, width], and if bias is set "bias" [out]. The axes of
// length 1 that a checkpoint leaves out at the end, or the height of a sequence, may be
// missing. It panics if the configuration has no meaning.
//
// Convolutions with few channels on one side are computed in F32 whatever the store says:
// they take no time, and the first and the last of a network decide on its quality.
func LoadConv2d(s *weights.Store, c tensor.ConvConfig, bias bool) (Conv2d, error) {
	groups := max(c.Groups, 1)
	outer, inner := c.Out, c.In/groups
	if c.Transposed {
		outer, inner = c.In, c.Out/groups
	}
	t, err := oneOf(s, "weight", convShapes(outer, inner, c.Kernel)...)
	if err != nil {
		return Conv2d{}, err
	}
	b, err := loadBias(s, c.Out, bias)
	if err != nil {
		return Conv2d{}, err
	}
	p, taps := s.Packing(), c.Kernel[0]*c.Kernel[1]
	t.Shape = []int{outer, inner * taps}
	compute := p.Compute
	if compute != 0 && min(c.In, c.Out) < fewChannels {
		compute = tensor.F32
	}
	conv := tensor.PackConv(p.Arena, compute, c, t.Matrix(), b)
	if p.On {
		t.Evict()
	}
	return Conv2d{conv}, nil
}

// fewChannels is the number of channels below which a layer stays in F32.
const fewChannels = 16

// convShapes lists the shapes that the weight of a convolution may be stored in.
func convShapes(outer, inner int, kernel [2]int) [][]int {
	shapes := [][]int{{outer, inner, kernel[0], kernel[1]}}
	if kernel[0] == 1 {
		shapes = append(shapes, []int{outer, inner, kernel[1]})
	}
	if kernel == [2]int{1, 1} {
		shapes = append(shapes, []int{outer, inner})
	}
	return shapes
}

// oneOf returns the tensor if it has one of the shapes, and otherwise the error about the
// first.
func oneOf(s *weights.Store, name string, shapes ...[]int) (weights.Tensor, error) {
	var first error
	for _, shape := range shapes {
		t, err := s.Tensor(name, shape...)
		if err == nil {
			return t, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, weights.ErrShape) {
			break
		}
	}
	return weights.Tensor{}, first
}

// Config returns the shape, defaults filled in.
func (l Conv2d) Config() tensor.ConvConfig { return l.conv.Config() }

// OutSize returns the height and width that the result has for an image of a size.
func (l Conv2d) OutSize(height, width int) (int, int) { return l.conv.Config().OutSize(height, width) }

// Forward computes the convolution c, whose Conv is the layer's.
func (l Conv2d) Forward(e *tensor.Exec, c tensor.Convolution) {
	c.Conv = l.conv
	e.Conv(c)
}

// Bytes returns the memory of the weights.
func (l Conv2d) Bytes() int64 { return l.conv.Bytes() }

// Sequence is the shape of a convolution of sequences [T, C] that keeps their length.
func Sequence(in, out, kernel, dilation int) tensor.ConvConfig {
	around := (kernel - 1) * dilation
	return tensor.ConvConfig{
		In: in, Out: out, Kernel: [2]int{1, kernel}, Dilation: [2]int{1, dilation}, Padding: [4]int{0, around / 2, 0, around - around/2},
	}
}

// Package dac is the convolutional codecs of sound with snakes for activations: the Descript
// Audio Codec (Kumar et al. 2023), whose frames are codes that refine one another, and
// Oobleck, the autoencoder of Stable Audio (Evans et al. 2024), whose frames are vectors. They
// have the tensor names of Hugging Face's DacModel and of diffusers' AutoencoderOobleck. Axes:
// T frames, C channels; sequences are [T, C].
package dac

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// ErrUnsupported is wrapped by errors about configurations that mean nothing or another
// network.
var ErrUnsupported = errors.New("unsupported codec")

// ErrInput is wrapped by errors about a call.
var ErrInput = errors.New("not to be coded")

// snake is x + sin²(αx)/β, which suits what repeats (Ziyin, Hartwig and Ueda 2020).
type snake struct{ alpha, inverse []float32 }

// loadSnake reads α, and β, which is α unless it is given. Oobleck keeps their logarithms.
func loadSnake(s *weights.Store, channels int) (snake, error) {
	alpha, err := s.Tensor("alpha", 1, channels, 1)
	if err != nil {
		return snake{}, err
	}
	a := slices.Clone(alpha.Float32s())
	b := a
	if s.Has("beta") {
		beta, err := s.Tensor("beta", 1, channels, 1)
		if err != nil {
			return snake{}, err
		}
		b = slices.Clone(beta.Float32s())
		for i := range a {
			a[i], b[i] = float32(math.Exp(float64(a[i]))), float32(math.Exp(float64(b[i])))
		}
	}
	n := snake{alpha: a, inverse: make([]float32, channels)}
	for i, v := range b {
		n.inverse[i] = 1 / (v + 1e-9)
	}
	return n, nil
}

func (n snake) apply(x []float32) {
	for i, v := range x {
		c := i % len(n.alpha)
		sin := math.Sin(float64(n.alpha[c] * v))
		x[i] = v + n.inverse[c]*float32(sin*sin)
	}
}

// unit is a dilated convolution and one that mixes channels, added to their input.
type unit struct {
	snake1, snake2 snake
	conv1, conv2   nn.Conv2d
}

func loadUnit(s *weights.Store, channels, dilation int) (u unit, err error) {
	if u.snake1, err = loadSnake(s.Sub("snake1"), channels); err != nil {
		return u, err
	}
	if u.conv1, err = nn.LoadConv2d(s.Sub("conv1"), nn.Sequence(channels, channels, 7, dilation), true); err != nil {
		return u, err
	}
	if u.snake2, err = loadSnake(s.Sub("snake2"), channels); err != nil {
		return u, err
	}
	u.conv2, err = nn.LoadConv2d(s.Sub("conv2"), nn.Sequence(channels, channels, 1, 1), true)
	return u, err
}

func (u *unit) forward(e *tensor.Exec, x []float32, channels int) {
	t := len(x) / channels
	a, b := slices.Clone(x), make([]float32, len(x))
	u.snake1.apply(a)
	u.conv1.Forward(e, tensor.Convolution{Y: b, X: a, Height: 1, Width: t})
	u.snake2.apply(b)
	u.conv2.Forward(e, tensor.Convolution{Y: x, X: b, Height: 1, Width: t, Residual: x})
}

// dilations are those of the units of a block.
var dilations = [...]int{1, 3, 9}

// block is units and a convolution that lowers the rate before them, or raises it after them.
type block struct {
	units   [len(dilations)]unit
	snake   snake
	resize  nn.Conv2d
	in, out int
	up      bool
}

func loadBlock(s *weights.Store, in, out, stride int, up bool) (b block, err error) {
	b.in, b.out, b.up = in, out, up
	width, name := in, "conv1"
	if up {
		width, name = out, "conv_t1"
	}
	for i, d := range dilations {
		if b.units[i], err = loadUnit(s.Sub(fmt.Sprintf("res_unit%d", i+1)), width, d); err != nil {
			return b, err
		}
	}
	if b.snake, err = loadSnake(s.Sub("snake1"), in); err != nil {
		return b, err
	}
	pad := (stride + 1) / 2
	b.resize, err = nn.LoadConv2d(s.Sub(name), tensor.ConvConfig{
		In: in, Out: out, Kernel: [2]int{1, 2 * stride}, Stride: [2]int{1, stride}, Padding: [4]int{0, pad, 0, pad}, Transposed: up,
	}, true)
	return b, err
}

func (b *block) forward(e *tensor.Exec, x []float32) []float32 {
	if !b.up {
		b.run(e, x, b.in)
	}
	b.snake.apply(x)
	t := len(x) / b.in
	_, width := b.resize.OutSize(1, t)
	y := make([]float32, width*b.out)
	b.resize.Forward(e, tensor.Convolution{Y: y, X: x, Height: 1, Width: t})
	if b.up {
		b.run(e, y, b.out)
	}
	return y
}

func (b *block) run(e *tensor.Exec, x []float32, channels int) {
	for i := range b.units {
		b.units[i].forward(e, x, channels)
	}
}

// half is an encoder or a decoder.
type half struct {
	first, last nn.Conv2d
	blocks      []block
	snake       snake
}

// shape is how wide a half is: what comes in, what the first convolution and each block make of
// it, and what goes out.
type shape struct {
	in, out int
	widths  []int // one more than strides
	strides []int
	last    int // kernel of the last convolution
	bias    bool
	up      bool
}

func loadHalf(s *weights.Store, c shape) (h half, err error) {
	if h.first, err = nn.LoadConv2d(s.Sub("conv1"), nn.Sequence(c.in, c.widths[0], 7, 1), true); err != nil {
		return h, err
	}
	for i, stride := range c.strides {
		b, err := loadBlock(s.Sub(fmt.Sprintf("block.%d", i)), c.widths[i], c.widths[i+1], stride, c.up)
		if err != nil {
			return h, err
		}
		h.blocks = append(h.blocks, b)
	}
	width := c.widths[len(c.widths)-1]
	if h.snake, err = loadSnake(s.Sub("snake1"), width); err != nil {
		return h, err
	}
	h.last, err = nn.LoadConv2d(s.Sub("conv2"), nn.Sequence(width, c.out, c.last, 1), c.bias)
	return h, err
}

func (h *half) forward(e *tensor.Exec, x []float32) []float32 {
	c := h.first.Config()
	t := len(x) / c.In
	y := make([]float32, t*c.Out)
	h.first.Forward(e, tensor.Convolution{Y: y, X: x, Height: 1, Width: t})
	for i := range h.blocks {
		y = h.blocks[i].forward(e, y)
	}
	h.snake.apply(y)
	c = h.last.Config()
	t = len(y) / c.In
	out := make([]float32, t*c.Out)
	h.last.Forward(e, tensor.Convolution{Y: out, X: y, Height: 1, Width: t})
	return out
}

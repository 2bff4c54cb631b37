package encodec

import (
	"fmt"
	"math"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// conv is a convolution over a sequence that is mirrored at its ends: before its beginning
// alone if the codec is causal.
type conv struct {
	layer               nn.Conv2d
	norm                *nn.GroupNorm
	kernel, stride, pad int // kernel with its dilation
	causal              bool
	out                 int
}

// shape is that of a convolution.
type shape struct{ in, out, kernel, stride, dilation int }

func loadConv(s *weights.Store, c Config, h shape) (*conv, error) {
	v := &conv{kernel: (h.kernel-1)*h.dilation + 1, stride: h.stride, causal: c.Causal, out: h.out}
	v.pad = v.kernel - v.stride
	if v.pad < 0 {
		return nil, fmt.Errorf("encodec: config: a kernel of %d that strides by %d: %w", v.kernel, v.stride, ErrUnsupported)
	}
	var err error
	if v.layer, err = nn.LoadConv2d(s.Sub("conv"), tensor.ConvConfig{
		In: h.in, Out: h.out, Kernel: [2]int{1, h.kernel}, Stride: [2]int{1, h.stride}, Dilation: [2]int{1, h.dilation},
	}, true); err != nil {
		return nil, err
	}
	v.norm, err = loadNorm(s, c, h.out)
	return v, err
}

// loadNorm reads the norm over a whole sequence that follows a convolution, if there is one.
func loadNorm(s *weights.Store, c Config, channels int) (*nn.GroupNorm, error) {
	if c.Norm != "time_group_norm" {
		return nil, nil
	}
	n, err := nn.LoadGroupNorm(s.Sub("norm"), 1, channels, 1e-5)
	return &n, err
}

func (v *conv) forward(e *tensor.Exec, x []float32, channels int) ([]float32, int) {
	t := len(x) / channels
	// So much more that the last samples fill a frame.
	frames := (t - v.kernel + v.pad + v.stride - 1) / v.stride
	extra := frames*v.stride + v.kernel - v.pad - t
	left, right := v.pad, extra
	if !v.causal {
		right = v.pad / 2
		left, right = v.pad-right, right+extra
	}
	x = mirrored(x, channels, left, right)
	t = len(x) / channels
	_, width := v.layer.OutSize(1, t)
	y := make([]float32, width*v.out)
	v.layer.Forward(e, tensor.Convolution{Y: y, X: x, Height: 1, Width: t})
	if v.norm != nil {
		v.norm.Forward(e, y, y, 1, 0)
	}
	return y, v.out
}

// mirrored returns a sequence with so many more frames at its ends, which go back from there.
// One that is too short for that is followed by silence first, as in the reference.
func mirrored(x []float32, channels, left, right int) []float32 {
	t := len(x) / channels
	whole := t
	if most := max(left, right); t <= most {
		whole = most + 1
	}
	out := make([]float32, 0, (left+t+right)*channels)
	for i := -left; i < t+right; i++ {
		at := i
		if at < 0 {
			at = -at
		}
		if at >= whole {
			at = 2*(whole-1) - at
		}
		if at < t {
			out = append(out, x[at*channels:][:channels]...)
		} else {
			out = append(out, make([]float32, channels)...)
		}
	}
	return out
}

// transposed is a transposed convolution, cut to a multiple of what came in.
type transposed struct {
	layer       nn.Conv2d
	norm        *nn.GroupNorm
	left, right int // frames to cut off
	out         int
}

func loadTransposed(s *weights.Store, c Config, in, out, ratio int) (*transposed, error) {
	v := &transposed{out: out, right: ratio / 2}
	if c.Causal {
		v.right = int(math.Ceil(float64(ratio) * c.TrimRight))
	}
	v.left = ratio - v.right
	var err error
	if v.layer, err = nn.LoadConv2d(s.Sub("conv"), tensor.ConvConfig{
		In: in, Out: out, Kernel: [2]int{1, 2 * ratio}, Stride: [2]int{1, ratio}, Transposed: true,
	}, true); err != nil {
		return nil, err
	}
	v.norm, err = loadNorm(s, c, out)
	return v, err
}

func (v *transposed) forward(e *tensor.Exec, x []float32, channels int) ([]float32, int) {
	t := len(x) / channels
	_, width := v.layer.OutSize(1, t)
	y := make([]float32, width*v.out)
	v.layer.Forward(e, tensor.Convolution{Y: y, X: x, Height: 1, Width: t})
	if v.norm != nil {
		v.norm.Forward(e, y, y, 1, 0)
	}
	return y[v.left*v.out : (width-v.right)*v.out], v.out
}

// elu is max(x, 0) + min(e^x - 1, 0).
type elu struct{}

func (elu) forward(_ *tensor.Exec, x []float32, channels int) ([]float32, int) {
	for i, v := range x {
		if v < 0 {
			x[i] = float32(math.Expm1(float64(v)))
		}
	}
	return x, channels
}

// residual is two convolutions, added to their input.
type residual struct {
	narrow, wide *conv
	shortcut     *conv // or nil
}

func loadResidual(s *weights.Store, c Config, width, dilation int) (*residual, error) {
	b := new(residual)
	hidden := width / c.Compress
	var err error
	if b.narrow, err = loadConv(s.Sub("block.1"), c, shape{width, hidden, c.BlockKernel, 1, dilation}); err != nil {
		return nil, err
	}
	if b.wide, err = loadConv(s.Sub("block.3"), c, shape{hidden, width, 1, 1, 1}); err != nil {
		return nil, err
	}
	if c.Shortcut {
		b.shortcut, err = loadConv(s.Sub("shortcut"), c, shape{width, width, 1, 1, 1})
	}
	return b, err
}

func (b *residual) forward(e *tensor.Exec, x []float32, channels int) ([]float32, int) {
	y, _ := elu{}.forward(e, append([]float32(nil), x...), channels)
	y, n := b.narrow.forward(e, y, channels)
	y, _ = elu{}.forward(e, y, n)
	y, _ = b.wide.forward(e, y, n)
	if b.shortcut != nil {
		x, _ = b.shortcut.forward(e, x, channels)
	}
	e.Add(y, x)
	return y, channels
}

// lstm is layers of long short-term memory (Hochreiter and Schmidhuber 1997), added to their
// input.
type lstm struct{ cells []cell }

type cell struct {
	in, state nn.Linear // to the gates: in, forget, new, out
}

func loadLSTM(s *weights.Store, width, count int) (*lstm, error) {
	l := new(lstm)
	for i := range count {
		var c cell
		for _, p := range []struct {
			to   *nn.Linear
			name string
		}{{&c.in, "ih"}, {&c.state, "hh"}} {
			weight, bias := fmt.Sprintf("weight_%s_l%d", p.name, i), fmt.Sprintf("bias_%s_l%d", p.name, i)
			named, err := s.View(map[string]weights.View{"weight": {Name: weight}, "bias": {Name: bias}})
			if err != nil {
				return nil, err
			}
			if *p.to, err = nn.LoadLinear(named, 4*width, width, true); err != nil {
				return nil, err
			}
		}
		l.cells = append(l.cells, c)
	}
	return l, nil
}

func (l *lstm) forward(e *tensor.Exec, x []float32, channels int) ([]float32, int) {
	y := append([]float32(nil), x...)
	for i := range l.cells {
		y = l.cells[i].forward(e, y, channels)
	}
	e.Add(y, x)
	return y, channels
}

func (c *cell) forward(e *tensor.Exec, x []float32, width int) []float32 {
	t := len(x) / width
	gates := make([]float32, 4*len(x))
	c.in.Forward(e, gates, x)
	memory, recalled := make([]float64, width), make([]float32, 4*width)
	out := make([]float32, len(x))
	for i := range t {
		own := gates[4*i*width:][:4*width]
		if i > 0 {
			c.state.Forward(e, recalled, out[(i-1)*width:][:width])
		} else {
			copy(recalled, c.state.Bias)
		}
		for j := range width {
			gate := func(k int) float64 { return float64(own[k*width+j] + recalled[k*width+j]) }
			memory[j] = sigmoid(gate(1))*memory[j] + sigmoid(gate(0))*math.Tanh(gate(2))
			out[i*width+j] = float32(sigmoid(gate(3)) * math.Tanh(memory[j]))
		}
	}
	return out
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

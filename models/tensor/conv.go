package tensor

import "fmt"

// Activations of images and sequences are channels-last, [B, H, W, C]: the channels of
// a pixel lie together. A convolution with a kernel of one pixel is a MatMul then,
// attention takes pixels as tokens as they are, and a norm reads rows in order. A
// sequence is an image of height 1.

// ConvConfig is the shape of a convolution, as in PyTorch's Conv1d, Conv2d and
// ConvTranspose2d. Pairs are of height and width.
type ConvConfig struct {
	In, Out    int // channels
	Kernel     [2]int
	Stride     [2]int // 0 is 1
	Dilation   [2]int // 0 is 1
	Padding    [4]int // rows and columns of zeros: top, left, bottom, right
	Groups     int    // 0 is 1; In and Out are multiples of it
	Transposed bool   // each input pixel spreads over the output: upsampling by Stride

	// Upsample is how often each pixel of the input is read in each direction before the
	// convolution, whose stride is 1: nearest interpolation; 0 is 1. What kernel elements
	// that read the same pixel have in common is summed in the weights.
	Upsample int

	// OutputPadding makes the result of a transposed convolution larger at the bottom and
	// at the right; it is below Stride.
	OutputPadding [2]int
}

// normal returns the configuration with its defaults, and panics if it has no meaning.
func (c ConvConfig) normal() ConvConfig {
	good := c.In > 0 && c.Out > 0 && c.Groups >= 0 && min(c.Padding[0], c.Padding[1], c.Padding[2], c.Padding[3]) >= 0
	for axis := range 2 {
		c.Stride[axis], c.Dilation[axis] = defaultOne(c.Stride[axis]), defaultOne(c.Dilation[axis])
		good = good && c.Kernel[axis] > 0 && c.Stride[axis] > 0 && c.Dilation[axis] > 0
		good = good && c.OutputPadding[axis] >= 0 && c.OutputPadding[axis] < c.Stride[axis]
		good = good && (c.Transposed || c.OutputPadding[axis] == 0)
	}
	c.Groups, c.Upsample = defaultOne(c.Groups), defaultOne(c.Upsample)
	good = good && c.Upsample > 0 && (c.Upsample == 1 || !c.Transposed && c.Stride == [2]int{1, 1})
	if !good || c.In%c.Groups != 0 || c.Out%c.Groups != 0 {
		panic(fmt.Sprintf("tensor: no convolution has the shape %+v", c))
	}
	return c
}

func defaultOne(n int) int {
	if n == 0 {
		return 1
	}
	return n
}

// OutSize returns the height and width that the result has for an image of a size. It
// panics if the image is smaller than the kernel.
func (c ConvConfig) OutSize(height, width int) (int, int) {
	c = c.normal()
	return c.outLength(height, 0), c.outLength(width, 1)
}

func (c *ConvConfig) outLength(n, axis int) int {
	n *= c.Upsample
	padding, span := c.Padding[axis]+c.Padding[axis+2], c.Dilation[axis]*(c.Kernel[axis]-1)
	out := (n+padding-span-1)/c.Stride[axis] + 1
	valid := n > 0 && n+padding > span
	if c.Transposed {
		out = (n-1)*c.Stride[axis] - padding + span + c.OutputPadding[axis] + 1
		valid = n > 0 && out > 0
	}
	if !valid {
		panic(fmt.Sprintf("tensor: convolution %+v of %d pixels", *c, n))
	}
	return out
}

// outStep is the distance of the output pixels of a phase, inStep that of the input
// pixels which they read.
func (c *ConvConfig) outStep() [2]int {
	if c.Transposed {
		return c.Stride
	}
	return [2]int{c.Upsample, c.Upsample}
}

func (c *ConvConfig) inStep() [2]int {
	if c.Transposed {
		return [2]int{1, 1}
	}
	return c.Stride
}

// Conv is a convolution: its shape and its weights, laid out for the kernels. It is
// read-only and may be shared by any number of goroutines.
type Conv struct {
	config ConvConfig
	phases []convPhase
	dtype  DType
	bias   []float32 // [groups, padded]
	padded int       // output channels of a group, in whole panels
	taps   int       // of all phases
	k      int       // taps × input channels of a group

	// Weights [groups, padded/16, k, 16], the taps in the order of the phases and the
	// input channels of each together; or [taps, C] in f32 if every channel is a group.
	f32 []float32
	u16 []uint16

	// Where the image is read in place, weights for dot kernels: of I8 as byteLayout says,
	// of BF16 pairs [padded/16, taps, pairDepth/2, 16, 2].
	dots []byte
}

// convPhase is the output pixels that the same taps lead to: all of them, or for a
// transposed or upsampled convolution every second, third … from start on.
type convPhase struct {
	start [2]int
	first int // of the taps, in the order of weights
	taps  []convTap
}

// convTap says which pixel a tap reads, relative to the one that the output pixel is
// at, and the elements of the kernel whose sum is its weight.
type convTap struct {
	offset   [2]int
	elements []int
}

// NewConv lays out the weights of a convolution: [Out, In/Groups·height·width] as in
// PyTorch, or transposed [In, Out/Groups·height·width]. bias is [Out] or nil. The matrix
// may not be packed, and is not kept.
func NewConv(config ConvConfig, weight Matrix, bias []float32) *Conv {
	return PackConv(nil, 0, config, weight, bias)
}

// PackConv is NewConv in memory of a, computed in d: F32, F16, BF16, I8, or 0 for the
// type that the weights have. Convolutions over groups of channels, or over fewer than
// 16, are computed in F32 if d is I8, as are those that upsample, or whose weights are of a
// block type, if d is 0.
func PackConv(a *Arena, d DType, config ConvConfig, weight Matrix, bias []float32) *Conv {
	config = config.normal()
	elements := config.Kernel[0] * config.Kernel[1]
	rows, cols := config.Out, config.In/config.Groups*elements
	if config.Transposed {
		rows, cols = config.In, config.Out/config.Groups*elements
	}
	if weight.Rows != rows || weight.Cols != cols || weight.Packed() || bias != nil && len(bias) != config.Out {
		panic(fmt.Sprintf("tensor: convolution %+v with %v weights [%d, %d] and %d biases", config, weight.DType, weight.Rows, weight.Cols, len(bias)))
	}
	if d == 0 {
		d = weight.DType
		if config.Upsample > 1 {
			d = F32 // sums of elements would be rounded to their type
		}
	}
	c := config.conv(d)
	c.pack(a, weight)
	c.bias = make([]float32, config.Groups*c.padded)
	if n := config.Out / config.Groups; bias != nil {
		for g := range config.Groups {
			copy(c.bias[g*c.padded:], bias[g*n:][:n])
		}
	}
	return c
}

// conv returns the convolution that computes in d, without its weights.
func (c ConvConfig) conv(d DType) *Conv {
	v := &Conv{config: c, phases: c.phases(), padded: roundUp(c.Out/c.Groups, panelWidth)}
	for i := range v.phases {
		v.phases[i].first = v.taps
		v.taps += len(v.phases[i].taps)
	}
	v.k = v.taps * (c.In / c.Groups)
	v.dtype = v.computes(d)
	if v.depthwise() {
		v.padded = 1
	}
	return v
}

// PackedBytes returns the memory of a convolution that computes in d: F32, F16, BF16 or
// I8.
func (c ConvConfig) PackedBytes(d DType) int64 {
	c = c.normal()
	v := c.conv(d)
	biases := 4 * int64(c.Groups) * int64(v.padded)
	if v.depthwise() {
		return biases + 4*int64(v.taps)*int64(c.Out)
	}
	return biases + int64(c.Groups)*int64(v.padded/groupRows)*int64(v.groupBytes())
}

// computes returns the type that the weights get if d is asked for.
func (c *Conv) computes(d DType) DType {
	switch {
	case d == I8 && c.direct():
		return I8
	case !d.Float() || c.depthwise():
		return F32
	}
	return d
}

// fewestDirect is the number of input channels from which the image is read in place.
const fewestDirect = 16

// direct reports whether kernels read the image in place, pixel by pixel; otherwise what
// an output needs is gathered.
func (c *Conv) direct() bool { return c.config.Groups == 1 && c.config.In >= fewestDirect }

// Config returns the shape, defaults filled in.
func (c *Conv) Config() ConvConfig { return c.config }

// Bytes returns the memory of the weights.
func (c *Conv) Bytes() int64 {
	return int64(4*len(c.f32) + 2*len(c.u16) + len(c.dots) + 4*len(c.bias))
}

// depthwise reports whether every channel is a group.
func (c *Conv) depthwise() bool {
	return c.config.Groups == c.config.In && c.config.Groups == c.config.Out && c.config.In > 1
}

// phases lists which taps lead to which output pixels.
func (c *ConvConfig) phases() []convPhase {
	step := c.outStep()
	var all []convPhase
	for phase := range step[0] * step[1] {
		p := convPhase{start: [2]int{phase / step[1], phase % step[1]}}
		for i := range c.Kernel[0] * c.Kernel[1] {
			element := [2]int{i / c.Kernel[1], i % c.Kernel[1]}
			if offset, ok := c.reads(p.start, element); ok {
				p.add(offset, i)
			}
		}
		all = append(all, p)
	}
	return all
}

// reads returns which pixel the output pixels of a phase get through an element of the
// kernel, and whether they get any.
func (c *ConvConfig) reads(start, element [2]int) (offset [2]int, ok bool) {
	for axis := range 2 {
		at := element[axis] * c.Dilation[axis]
		if c.Transposed {
			// The output pixel o gets the element k of the input pixel i if
			// o + padding = i·stride + k·dilation.
			at = start[axis] + c.Padding[axis] - at
			if at%c.Stride[axis] != 0 {
				return offset, false
			}
			offset[axis] = at / c.Stride[axis]
			continue
		}
		offset[axis] = floorDiv(start[axis]+at-c.Padding[axis], c.Upsample)
	}
	return offset, true
}

// add gives the phase an element of the kernel.
func (p *convPhase) add(offset [2]int, element int) {
	for i := range p.taps {
		if p.taps[i].offset == offset {
			p.taps[i].elements = append(p.taps[i].elements, element)
			return
		}
	}
	p.taps = append(p.taps, convTap{offset, []int{element}})
}

// floorDiv is a/b, rounded down; b is above 0.
func floorDiv(a, b int) int {
	if a < 0 {
		return -ceilDiv(-a, b)
	}
	return a / b
}

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
	c.Groups = defaultOne(c.Groups)
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

// Conv is a convolution: its shape and its weights, laid out for the kernels in memory
// of its own. It is read-only and may be shared by any number of goroutines.
type Conv struct {
	config ConvConfig
	phases []convPhase
	dtype  DType
	bias   []float32 // [groups, padded]
	padded int       // output channels of a group, in whole panels
	k      int       // taps × input channels of a group

	// Weights [groups, padded/16, k, 16], the taps in the order of the phases and the
	// input channels of each together; or [taps, C] in f32 if every channel is a group.
	f32 []float32
	u16 []uint16
}

// convPhase is the output pixels that the same taps lead to: all of them, or for a
// transposed convolution every Stride-th from start on.
type convPhase struct {
	start [2]int
	first int // of the taps, in the order of weights
	taps  []convTap
}

// convTap says which pixel a tap reads, relative to the one that the output pixel is
// at, and which of the kernel's it is.
type convTap struct {
	offset [2]int
	index  int
}

// NewConv lays out the weights of a convolution: [Out, In/Groups·height·width] as in
// PyTorch, or transposed [In, Out/Groups·height·width]. bias is [Out] or nil. The matrix
// is F32, F16 or BF16, may not be packed, and is not kept.
func NewConv(config ConvConfig, weight Matrix, bias []float32) *Conv {
	config = config.normal()
	taps := config.Kernel[0] * config.Kernel[1]
	rows, cols := config.Out, config.In/config.Groups*taps
	if config.Transposed {
		rows, cols = config.In, config.Out/config.Groups*taps
	}
	if weight.Rows != rows || weight.Cols != cols || weight.Packed() || !weight.DType.Float() || bias != nil && len(bias) != config.Out {
		panic(fmt.Sprintf("tensor: convolution %+v with %v weights [%d, %d] and %d biases", config, weight.DType, weight.Rows, weight.Cols, len(bias)))
	}
	c := &Conv{config: config, dtype: weight.DType, k: config.In / config.Groups * taps}
	c.phases = config.phases()
	c.padded = roundUp(config.Out/config.Groups, panelWidth)
	if c.depthwise() {
		c.dtype, c.padded = F32, 1
		c.f32 = make([]float32, taps*config.Out)
		c.packDepthwise(weight)
	} else if weight.DType == F32 {
		c.f32 = make([]float32, config.Groups*c.padded*c.k)
		packConv(c, c.f32, weight.f32)
	} else {
		c.u16 = make([]uint16, config.Groups*c.padded*c.k)
		packConv(c, c.u16, weight.u16)
	}
	c.bias = make([]float32, config.Groups*c.padded)
	if n := config.Out / config.Groups; bias != nil {
		for g := range config.Groups {
			copy(c.bias[g*c.padded:], bias[g*n:][:n])
		}
	}
	return c
}

// Config returns the shape, defaults filled in.
func (c *Conv) Config() ConvConfig { return c.config }

// Bytes returns the memory of the weights.
func (c *Conv) Bytes() int64 { return int64(4*len(c.f32) + 2*len(c.u16) + 4*len(c.bias)) }

// depthwise reports whether every channel is a group.
func (c *Conv) depthwise() bool {
	return c.config.Groups == c.config.In && c.config.Groups == c.config.Out && c.config.In > 1
}

// phases lists which taps lead to which output pixels.
func (c *ConvConfig) phases() []convPhase {
	if !c.Transposed {
		p := convPhase{}
		for i := range c.Kernel[0] * c.Kernel[1] {
			y, x := i/c.Kernel[1], i%c.Kernel[1]
			p.taps = append(p.taps, convTap{[2]int{y*c.Dilation[0] - c.Padding[0], x*c.Dilation[1] - c.Padding[1]}, i})
		}
		return []convPhase{p}
	}
	var all []convPhase
	first := 0
	for phase := range c.Stride[0] * c.Stride[1] {
		p := convPhase{start: [2]int{phase / c.Stride[1], phase % c.Stride[1]}, first: first}
		for i := range c.Kernel[0] * c.Kernel[1] {
			// The output pixel o gets the tap k of the input pixel i if
			// o + padding = i·stride + k·dilation.
			y := p.start[0] + c.Padding[0] - i/c.Kernel[1]*c.Dilation[0]
			x := p.start[1] + c.Padding[1] - i%c.Kernel[1]*c.Dilation[1]
			if y%c.Stride[0] == 0 && x%c.Stride[1] == 0 {
				p.taps = append(p.taps, convTap{[2]int{y / c.Stride[0], x / c.Stride[1]}, i})
			}
		}
		first += len(p.taps)
		all = append(all, p)
	}
	return all
}

// packConv lays out the weights src, row after row as in files, as panels.
func packConv[T float32 | uint16](c *Conv, dst, src []T) {
	z := &c.config
	taps, in, out := z.Kernel[0]*z.Kernel[1], z.In/z.Groups, z.Out/z.Groups
	for g := range z.Groups {
		for o := range out {
			to := dst[(g*c.padded+o/panelWidth*panelWidth)*c.k+o%panelWidth:]
			for _, p := range c.phases {
				for t, tap := range p.taps {
					for i := range in {
						from := ((g*out+o)*in+i)*taps + tap.index
						if z.Transposed {
							from = ((g*in+i)*out+o)*taps + tap.index
						}
						to[((p.first+t)*in+i)*panelWidth] = src[from]
					}
				}
			}
		}
	}
}

// packDepthwise lays out one weight a tap and channel. Rows of the matrix are channels
// in either direction.
func (c *Conv) packDepthwise(weight Matrix) {
	row := make([]float32, weight.Cols)
	for o := range weight.Rows {
		weight.Row(row, o)
		for _, p := range c.phases {
			for t, tap := range p.taps {
				c.f32[(p.first+t)*weight.Rows+o] = row[tap.index]
			}
		}
	}
}

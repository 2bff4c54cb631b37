package bench

import (
	"context"
	"fmt"

	"helicon/models/tensor"
)

// Conv is a convolution as the U-Net and the decoder of Stable Diffusion have it: square
// images [Size, Size, In], square kernels, padded so that the image keeps its size.
type Conv struct {
	In, Out, Size int // channels and pixels
	Kernel        int
	Stride        int
}

// String returns the size of the image, the channels and the kernel.
func (c Conv) String() string {
	text := fmt.Sprintf("%d²x%d to %d, %dx%d", c.Size, c.In, c.Out, c.Kernel, c.Kernel)
	if c.Stride > 1 {
		text += fmt.Sprintf(" by %d", c.Stride)
	}
	return text
}

// Convs returns the convolutions that are measured.
func Convs() []Conv {
	return []Conv{
		{320, 320, 64, 3, 1}, {640, 640, 32, 3, 1}, {1280, 1280, 16, 3, 1},
		{320, 320, 64, 3, 2}, {960, 320, 64, 1, 1},
		{128, 128, 256, 3, 1}, {4, 320, 64, 3, 1},
	}
}

// Conv measures a convolution with F16 weights. The error is the cause of ctx's end.
func (b *Bench) Conv(ctx context.Context, c Conv) (Result, error) {
	const dtype = tensor.F16
	pad := c.Kernel / 2
	config := tensor.ConvConfig{
		In: c.In, Out: c.Out, Kernel: [2]int{c.Kernel, c.Kernel},
		Stride: [2]int{c.Stride, c.Stride}, Padding: [4]int{pad, pad, pad, pad},
	}
	terms := c.In * c.Kernel * c.Kernel
	data := make([]byte, dtype.Bytes(c.Out*terms))
	fill(data, pattern(dtype))
	conv := tensor.NewConv(config, tensor.NewMatrix(dtype, c.Out, terms, data), nil)
	height, width := config.OutSize(c.Size, c.Size)
	call := tensor.Convolution{
		Y: make([]float32, height*width*c.Out), X: randomFloats(c.Size * c.Size * c.In),
		Conv: conv, Height: c.Size, Width: c.Size,
	}
	w := work{
		name: c.String(), dtype: dtype, bytes: float64(len(data)), peak: F32,
		operations: 2 * float64(height*width) * float64(c.Out) * float64(terms),
	}
	exec := tensor.NewExec(b.pool)
	return b.measure(ctx, w, func(context.Context) error {
		exec.Conv(call)
		return nil
	})
}

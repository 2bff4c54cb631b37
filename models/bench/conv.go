package bench

import (
	"context"
	"fmt"

	"helicon/models/tensor"
)

// Conv is a convolution as the U-Net and the decoder of Stable Diffusion have it: square
// images [Size, Size, In], square kernels, padded so that the image keeps its size but
// for Stride and Upsample.
type Conv struct {
	In, Out, Size int // channels and pixels
	Kernel        int
	Stride        int // 0 is 1
	Upsample      int // 0 is 1
	Type          tensor.DType
}

// String returns the size of the image, the channels and the kernel.
func (c Conv) String() string {
	text := fmt.Sprintf("%d²x%d to %d, %dx%d", c.Size, c.In, c.Out, c.Kernel, c.Kernel)
	if c.Stride > 1 {
		text += fmt.Sprintf(" by %d", c.Stride)
	}
	if c.Upsample > 1 {
		text += fmt.Sprintf(" up %d", c.Upsample)
	}
	return text
}

// Convs returns the convolutions that are measured, each in the types that networks of
// images compute in.
func Convs() []Conv {
	var all []Conv
	for _, c := range []Conv{
		{In: 320, Out: 320, Size: 64, Kernel: 3}, {In: 960, Out: 320, Size: 64, Kernel: 3},
		{In: 640, Out: 640, Size: 32, Kernel: 3}, {In: 1280, Out: 1280, Size: 16, Kernel: 3},
		{In: 2560, Out: 1280, Size: 8, Kernel: 3}, {In: 320, Out: 320, Size: 64, Kernel: 3, Stride: 2},
		{In: 640, Out: 640, Size: 32, Kernel: 3, Upsample: 2}, {In: 960, Out: 320, Size: 64, Kernel: 1},
		{In: 128, Out: 128, Size: 256, Kernel: 3}, {In: 512, Out: 256, Size: 128, Kernel: 3},
		{In: 4, Out: 320, Size: 64, Kernel: 3}, {In: 128, Out: 3, Size: 256, Kernel: 3},
	} {
		for _, d := range []tensor.DType{tensor.F32, tensor.BF16, tensor.I8} {
			if d != tensor.F32 && min(c.In, c.Out) < 16 {
				break // networks compute these in F32 alone
			}
			c.Type = d
			all = append(all, c)
		}
	}
	return all
}

// Conv measures a convolution. Operations are those of the kernel as it is written, with
// upsampling too. Where tiles multiply bytes, they are faster than the peak, which is that
// of vectors. The error is the cause of ctx's end.
func (b *Bench) Conv(ctx context.Context, c Conv) (Result, error) {
	pad, stride := c.Kernel/2, max(c.Stride, 1)
	config := tensor.ConvConfig{
		In: c.In, Out: c.Out, Kernel: [2]int{c.Kernel, c.Kernel},
		Stride: [2]int{stride, stride}, Padding: [4]int{pad, pad, pad, pad}, Upsample: c.Upsample,
	}
	terms := c.In * c.Kernel * c.Kernel
	data := make([]byte, tensor.BF16.Bytes(c.Out*terms))
	fill(data, pattern(tensor.BF16))
	conv := tensor.PackConv(nil, c.Type, config, tensor.NewMatrix(tensor.BF16, c.Out, terms, data), nil)
	height, width := config.OutSize(c.Size, c.Size)
	call := tensor.Convolution{
		Y: make([]float32, height*width*c.Out), X: randomFloats(c.Size * c.Size * c.In),
		Conv: conv, Height: c.Size, Width: c.Size,
	}
	w := work{
		name: c.String(), dtype: c.Type, bytes: float64(conv.Bytes()), peak: b.multiplying(c.Type),
		operations: 2 * float64(height*width) * float64(c.Out) * float64(terms),
	}
	exec := tensor.NewExec(b.pool)
	return b.measure(ctx, w, func(context.Context) error {
		exec.Conv(call)
		return nil
	})
}

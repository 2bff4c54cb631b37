package unet

import (
	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// resnet is a residual block of two convolutions that is told the time (He et al. 2015;
// Ho et al. 2020):
//
//	h = conv1(silu(norm1(x))) + time(silu(emb))
//	y = conv2(silu(norm2(h))) + shortcut(x)
//
// In the form scale_shift (Dhariwal and Nichol 2021), the time scales and shifts norm2
// instead.
type resnet struct {
	resnetShape
	norm1, norm2 nn.GroupNorm
	conv1, conv2 nn.Conv2d
	time         nn.Linear
	shortcut     *nn.Linear // nil if y has the channels of x
	scaleShift   bool
	act          tensor.Activation
}

func (l *loader) resnet(s *weights.Store, shape resnetShape) resnet {
	r := resnet{resnetShape: shape, scaleShift: l.c.TimeScaleShift == "scale_shift", act: l.act}
	times := shape.out
	if r.scaleShift {
		times *= 2
	}
	r.norm1 = l.groupNorm(s.Sub("norm1"), l.c.Groups, shape.in, l.c.NormEps)
	r.conv1 = l.conv(s.Sub("conv1"), same3x3(shape.in, shape.out))
	r.time = l.linear(asStored(s.Sub("time_emb_proj")), times, l.c.timeDim(), true)
	r.norm2 = l.groupNorm(s.Sub("norm2"), l.c.Groups, shape.out, l.c.NormEps)
	r.conv2 = l.conv(s.Sub("conv2"), same3x3(shape.out, shape.out))
	if shape.in != shape.out {
		shortcut := l.linear(s.Sub("conv_shortcut"), shape.out, shape.in, true)
		r.shortcut = &shortcut
	}
	return r
}

// forward computes y [B, P, out] from x [B, P, in], which it leaves as it is.
func (r *resnet) forward(e *tensor.Exec, s *State, y, x []float32, size extent) {
	pixels := s.Batch * size.pixels()
	a, h := s.a[:pixels*r.in], s.b[:pixels*r.out]

	times := s.film[:s.Batch*r.time.Weight.Rows]
	r.time.Forward(e, times, s.emb)

	r.norm1.Forward(e, a, x, s.Batch, r.act)
	first := s.image(h, a, size)
	if r.scaleShift {
		r.conv1.Forward(e, first)
		r.modulate(e, s, h, times)
	} else {
		first.Shift = times
		r.conv1.Forward(e, first)
		r.norm2.Forward(e, h, h, s.Batch, r.act)
	}
	if r.shortcut != nil {
		a = s.a[:pixels*r.out]
		r.shortcut.Forward(e, a, x)
		x = a
	}
	second := s.image(y, h, size)
	second.Residual = x
	r.conv2.Forward(e, second)
}

// modulate computes h = f(norm2(h)·(1+scale) + shift), scale and shift being the halves of
// each image's times: a norm of other weights for each image.
func (r *resnet) modulate(e *tensor.Exec, s *State, h, times []float32) {
	n := r.out
	for b := range s.Batch {
		scale, shift := times[2*n*b:][:n], times[2*n*b+n:][:n]
		for i := range n {
			scale[i]++
			shift[i] += r.norm2.Bias[i] * scale[i]
			scale[i] *= r.norm2.Weight[i]
		}
		image := h[b*len(h)/s.Batch:][:len(h)/s.Batch]
		norm := nn.GroupNorm{Weight: scale, Bias: shift, Groups: r.norm2.Groups, Eps: r.norm2.Eps}
		norm.Forward(e, image, image, 1, r.act)
	}
}

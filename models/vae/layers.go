package vae

import (
	"math"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// normEps is the epsilon of all norms of an AutoencoderKL, whatever its configuration says.
const normEps = 1e-6

// run is a call in progress: the image that the network is at, in the first of three
// buffers. Its layers replace it.
type run struct {
	e             *tensor.Exec
	image         [3][]float32
	height, width int
	channels      int
}

// buffer returns the beginning of a buffer. What a run needs of them is counted by a plan.
func (r *run) buffer(i, n int) []float32 { return r.image[i][:n] }

// start makes the image one of a size and returns it, to be filled.
func (r *run) start(height, width, channels int) []float32 {
	r.height, r.width, r.channels = height, width, channels
	return r.x()
}

func (r *run) x() []float32 { return r.buffer(0, r.height*r.width*r.channels) }

// swap makes the image that was written to the second buffer the current one.
func (r *run) swap() { r.image[0], r.image[1] = r.image[1], r.image[0] }

// conv replaces the image by f(conv(it)).
func (r *run) conv(l *nn.Conv2d, f tensor.Activation) {
	h, w := l.OutSize(r.height, r.width)
	y := r.buffer(1, h*w*l.Config().Out)
	l.Forward(r.e, tensor.Convolution{Y: y, X: r.x(), Height: r.height, Width: r.width, Activation: f})
	r.height, r.width, r.channels = h, w, l.Config().Out
	r.swap()
}

// square returns a convolution of 3×3 pixels that keeps the size.
func square(in, out int) tensor.ConvConfig {
	return tensor.ConvConfig{In: in, Out: out, Kernel: [2]int{3, 3}, Padding: [4]int{1, 1, 1, 1}}
}

// double returns one that doubles the size first.
func double(channels int) tensor.ConvConfig {
	c := square(channels, channels)
	c.Upsample = 2
	return c
}

// halve returns the convolution that halves the size. It pads at the bottom and at the
// right alone.
func halve(channels int) tensor.ConvConfig {
	return tensor.ConvConfig{In: channels, Out: channels, Kernel: [2]int{3, 3}, Stride: [2]int{2, 2}, Padding: [4]int{0, 0, 1, 1}}
}

// resnet is two convolutions, each on a normalised copy, added to the image (He et al. 2016).
type resnet struct {
	norm1, norm2 nn.GroupNorm
	conv1, conv2 nn.Conv2d
	shortcut     *nn.Linear // [out, in], where the number of channels changes, or nil
	out          int
}

func loadResnet(s *weights.Store, groups, in, out int) (b resnet, err error) {
	b.out = out
	if b.norm1, err = nn.LoadGroupNorm(s.Sub("norm1"), groups, in, normEps); err != nil {
		return b, err
	}
	if b.conv1, err = nn.LoadConv2d(s.Sub("conv1"), square(in, out), true); err != nil {
		return b, err
	}
	if b.norm2, err = nn.LoadGroupNorm(s.Sub("norm2"), groups, out, normEps); err != nil {
		return b, err
	}
	if b.conv2, err = nn.LoadConv2d(s.Sub("conv2"), square(out, out), true); err != nil || in == out {
		return b, err
	}
	shortcut, err := nn.LoadLinear(s.Sub("conv_shortcut"), out, in, true)
	b.shortcut = &shortcut
	return b, err
}

func (b *resnet) bytes() int64 {
	n := b.norm1.Bytes() + b.norm2.Bytes() + b.conv1.Bytes() + b.conv2.Bytes()
	if b.shortcut != nil {
		n += b.shortcut.Bytes()
	}
	return n
}

func (b *resnet) forward(r *run) {
	x, pixels := r.x(), r.height*r.width
	y := r.buffer(2, pixels*b.out)
	h, sum := r.image[1], x
	if b.shortcut != nil { // x is not needed beside it
		h, sum = x, r.buffer(1, pixels*b.out)
		b.shortcut.Forward(r.e, sum, x)
		r.swap()
	}
	h = h[:len(x)]
	b.norm1.Forward(r.e, h, x, 1, tensor.SiLU)
	b.conv1.Forward(r.e, tensor.Convolution{Y: y, X: h, Height: r.height, Width: r.width})
	b.norm2.Forward(r.e, y, y, 1, tensor.SiLU)
	b.conv2.Forward(r.e, tensor.Convolution{Y: sum, X: y, Height: r.height, Width: r.width, Residual: sum})
	r.channels = b.out
}

// attention is that of all pixels with each other, of one head, added to the image.
type attention struct {
	norm         nn.GroupNorm
	q, k, v, out nn.Linear // [C, C]
	bf16         bool      // rounds what it multiplies, as its layers do
}

// loadAttention reads the layer by today's names, or by those of older files.
func loadAttention(s *weights.Store, groups, channels int) (b attention, err error) {
	names := [4]string{"to_q", "to_k", "to_v", "to_out.0"}
	if s.Has("query.weight") {
		names = [4]string{"query", "key", "value", "proj_attn"}
	}
	compute := s.Packing().Compute
	b.bf16 = compute == tensor.BF16 || compute == tensor.I8
	for i, l := range []*nn.Linear{&b.q, &b.k, &b.v, &b.out} {
		if *l, err = nn.LoadLinear(s.Sub(names[i]), channels, channels, true); err != nil {
			return b, err
		}
	}
	b.norm, err = nn.LoadGroupNorm(s.Sub("group_norm"), groups, channels, normEps)
	return b, err
}

func (b *attention) bytes() int64 {
	return b.norm.Bytes() + b.q.Bytes() + b.k.Bytes() + b.v.Bytes() + b.out.Bytes()
}

func (b *attention) forward(r *run) {
	x := r.x()
	n := len(x)
	hkv, q := r.buffer(1, 3*n), r.buffer(2, n)
	h, k, v := hkv[:n], hkv[n:2*n], hkv[2*n:]
	b.norm.Forward(r.e, h, x, 1, 0)
	r.e.MatMuls(h, b.q.Product(q), b.k.Product(k), b.v.Product(v))
	r.e.Attention(tensor.Attention{
		Out: q, Q: q, K: k, V: v, Heads: 1, KVHeads: 1, HeadDim: r.channels, Scale: float32(1 / math.Sqrt(float64(r.channels))),
		BF16: b.bf16,
	})
	b.out.Forward(r.e, h, q)
	r.e.Add(x, h)
}

// middle is the blocks between the levels of encoder and decoder.
type middle struct {
	first, last resnet
	attention   *attention // or nil
}

func loadMiddle(s *weights.Store, c *Config) (m middle, err error) {
	channels := c.Channels[len(c.Channels)-1]
	if m.first, err = loadResnet(s.Sub("resnets.0"), c.Groups, channels, channels); err != nil {
		return m, err
	}
	if m.last, err = loadResnet(s.Sub("resnets.1"), c.Groups, channels, channels); err != nil || !c.MidBlockAttention {
		return m, err
	}
	a, err := loadAttention(s.Sub("attentions.0"), c.Groups, channels)
	m.attention = &a
	return m, err
}

func (m *middle) bytes() int64 {
	n := m.first.bytes() + m.last.bytes()
	if m.attention != nil {
		n += m.attention.bytes()
	}
	return n
}

func (m *middle) forward(r *run) {
	m.first.forward(r)
	if m.attention != nil {
		m.attention.forward(r)
	}
	m.last.forward(r)
}

// level is the blocks of one size, and what leads to the next.
type level struct {
	resnets []resnet
	resize  *nn.Conv2d // halves or doubles the size; nil at the last level
}

func (l *level) bytes() int64 {
	var n int64
	for i := range l.resnets {
		n += l.resnets[i].bytes()
	}
	if l.resize != nil {
		n += l.resize.Bytes()
	}
	return n
}

package vits

import (
	"fmt"
	"math"
	"slices"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// durations tells the logarithm of how many frames each id lasts, [N], from the states of the
// text [N, Hidden].
type durations interface {
	log(e *tensor.Exec, hidden, speaker []float32, r Request) []float32
}

// plain is two convolutions.
type plain struct {
	channels     int
	speaker      nn.Linear
	conv1, conv2 nn.Conv2d
	norm1, norm2 nn.LayerNorm
	project      nn.Conv2d
}

func loadPlain(s *weights.Store, c Config) (durations, error) {
	p := &plain{channels: c.DurationChannels}
	var err error
	if p.conv1, err = nn.LoadConv2d(s.Sub("conv_1"), nn.Sequence(c.Hidden, c.DurationChannels, c.DurationKernel, 1), true); err != nil {
		return nil, err
	}
	if p.norm1, err = nn.LoadLayerNorm(s.Sub("norm_1"), c.DurationChannels, c.NormEps); err != nil {
		return nil, err
	}
	if p.conv2, err = nn.LoadConv2d(s.Sub("conv_2"), nn.Sequence(c.DurationChannels, c.DurationChannels, c.DurationKernel, 1), true); err != nil {
		return nil, err
	}
	if p.norm2, err = nn.LoadLayerNorm(s.Sub("norm_2"), c.DurationChannels, c.NormEps); err != nil {
		return nil, err
	}
	if size := c.speaker(); size > 0 {
		if p.speaker, err = nn.LoadLinear(s.Sub("cond"), c.Hidden, size, true); err != nil {
			return nil, err
		}
	}
	p.project, err = nn.LoadConv2d(s.Sub("proj"), nn.Sequence(c.DurationChannels, 1, 1, 1), true)
	return p, err
}

func (p *plain) log(e *tensor.Exec, hidden, speaker []float32, r Request) []float32 {
	n := len(r.IDs)
	x := withSpeaker(e, p.speaker, hidden, speaker)
	y, z, logs := make([]float32, n*p.channels), make([]float32, n*p.channels), make([]float32, n)
	p.conv1.Forward(e, tensor.Convolution{Y: y, X: x, Height: 1, Width: n, Activation: tensor.ReLU})
	p.norm1.Forward(e, y, y)
	p.conv2.Forward(e, tensor.Convolution{Y: z, X: y, Height: 1, Width: n, Activation: tensor.ReLU})
	p.norm2.Forward(e, z, z)
	p.project.Forward(e, tensor.Convolution{Y: logs, X: z, Height: 1, Width: n})
	return logs
}

// withSpeaker returns x with what a layer makes of the speaker added to every row.
func withSpeaker(e *tensor.Exec, layer nn.Linear, x, speaker []float32) []float32 {
	x = slices.Clone(x)
	if speaker == nil {
		return x
	}
	shift := make([]float32, layer.Weight.Rows)
	layer.Forward(e, shift, speaker)
	for i := range x {
		x[i] += shift[i%len(shift)]
	}
	return x
}

// stochastic draws durations from a flow over splines.
type stochastic struct {
	channels, bins int
	bound          float64
	speaker        nn.Linear
	pre, project   nn.Conv2d
	net            separable
	flows          []splineFlow // in the order in which they undo
	scale, shift   [2]float32   // of the affine flow, undone last
}

// splineFlow moves the second of two values along a spline that it reads in the first.
type splineFlow struct {
	pre, project nn.Conv2d
	net          separable
}

func loadStochastic(s *weights.Store, c Config) (durations, error) {
	d := &stochastic{channels: c.DurationChannels, bins: c.DurationBins, bound: c.TailBound}
	var err error
	if d.pre, err = nn.LoadConv2d(s.Sub("conv_pre"), nn.Sequence(c.Hidden, d.channels, 1, 1), true); err != nil {
		return nil, err
	}
	if d.project, err = nn.LoadConv2d(s.Sub("conv_proj"), nn.Sequence(d.channels, d.channels, 1, 1), true); err != nil {
		return nil, err
	}
	if d.net, err = loadSeparable(s.Sub("conv_dds"), c); err != nil {
		return nil, err
	}
	if size := c.speaker(); size > 0 {
		if d.speaker, err = nn.LoadLinear(s.Sub("cond"), d.channels, size, true); err != nil {
			return nil, err
		}
	}
	// The first of the splines was only trained along, and does nothing here.
	for i := c.DurationFlows; i >= 2; i-- {
		at := s.Sub(fmt.Sprintf("flows.%d", i))
		var f splineFlow
		if f.pre, err = nn.LoadConv2d(at.Sub("conv_pre"), nn.Sequence(1, d.channels, 1, 1), true); err != nil {
			return nil, err
		}
		if f.net, err = loadSeparable(at.Sub("conv_dds"), c); err != nil {
			return nil, err
		}
		if f.project, err = nn.LoadConv2d(at.Sub("conv_proj"), nn.Sequence(d.channels, 3*d.bins-1, 1, 1), true); err != nil {
			return nil, err
		}
		d.flows = append(d.flows, f)
	}
	for name, to := range map[string]*[2]float32{"flows.0.log_scale": &d.scale, "flows.0.translate": &d.shift} {
		t, err := s.Tensor(name, 2, 1)
		if err != nil {
			return nil, err
		}
		copy(to[:], t.Float32s())
	}
	return d, nil
}

func (d *stochastic) log(e *tensor.Exec, hidden, speaker []float32, r Request) []float32 {
	n := len(r.IDs)
	about := make([]float32, n*d.channels)
	d.pre.Forward(e, tensor.Convolution{Y: about, X: hidden, Height: 1, Width: n})
	about = d.net.forward(e, withSpeaker(e, d.speaker, about, speaker), nil)
	condition := make([]float32, len(about))
	d.project.Forward(e, tensor.Convolution{Y: condition, X: about, Height: 1, Width: n})

	noise := make([]float32, 2*n)
	if r.NoiseDuration > 0 {
		r.Noise(0, noise)
	}
	first, second := noise[:n], noise[n:]
	for i := range noise {
		noise[i] *= r.NoiseDuration
	}
	for i := range d.flows {
		first, second = second, first
		d.flows[i].undo(e, first, second, condition, d)
	}
	logs := second // the affine flow turns them around once more, and changes each by itself
	for i, v := range logs {
		logs[i] = (v - d.shift[0]) * float32(math.Exp(-float64(d.scale[0])))
	}
	return logs
}

func (f *splineFlow) undo(e *tensor.Exec, first, second, condition []float32, d *stochastic) {
	n := len(first)
	h := make([]float32, n*d.channels)
	f.pre.Forward(e, tensor.Convolution{Y: h, X: first, Height: 1, Width: n})
	h = f.net.forward(e, h, condition)
	size := 3*d.bins - 1
	shape := make([]float32, n*size)
	f.project.Forward(e, tensor.Convolution{Y: shape, X: h, Height: 1, Width: n})
	root := math.Sqrt(float64(d.channels))
	for i := range second {
		own := shape[i*size:][:size]
		s := newSpline(own[:d.bins], own[d.bins:2*d.bins], own[2*d.bins:], root, d.bound)
		second[i] = float32(s.inverse(float64(second[i])))
	}
}

// separable is convolutions of each channel by itself, ever more dilated, with mixtures of the
// channels in between.
type separable struct {
	channels int
	layers   []separableLayer
}

type separableLayer struct {
	deep, flat   nn.Conv2d
	norm1, norm2 nn.LayerNorm
}

func loadSeparable(s *weights.Store, c Config) (n separable, err error) {
	n.channels = c.DurationChannels
	dilation := 1
	for i := range c.SeparableLayers {
		var l separableLayer
		deep := nn.Sequence(n.channels, n.channels, c.DurationKernel, dilation)
		deep.Groups = n.channels
		if l.deep, err = nn.LoadConv2d(s.Sub(fmt.Sprintf("convs_dilated.%d", i)), deep, true); err != nil {
			return n, err
		}
		if l.flat, err = nn.LoadConv2d(s.Sub(fmt.Sprintf("convs_pointwise.%d", i)), nn.Sequence(n.channels, n.channels, 1, 1), true); err != nil {
			return n, err
		}
		if l.norm1, err = nn.LoadLayerNorm(s.Sub(fmt.Sprintf("norms_1.%d", i)), n.channels, 1e-5); err != nil {
			return n, err
		}
		if l.norm2, err = nn.LoadLayerNorm(s.Sub(fmt.Sprintf("norms_2.%d", i)), n.channels, 1e-5); err != nil {
			return n, err
		}
		n.layers = append(n.layers, l)
		dilation *= c.DurationKernel
	}
	return n, nil
}

// forward returns what the layers make of x [N, C], with a condition added first if there is
// one. x is changed.
func (n *separable) forward(e *tensor.Exec, x, condition []float32) []float32 {
	if condition != nil {
		e.Add(x, condition)
	}
	width := len(x) / n.channels
	a, b := make([]float32, len(x)), make([]float32, len(x))
	for i := range n.layers {
		l := &n.layers[i]
		l.deep.Forward(e, tensor.Convolution{Y: a, X: x, Height: 1, Width: width})
		l.norm1.Forward(e, a, a)
		e.Activate(tensor.GELU, a)
		l.flat.Forward(e, tensor.Convolution{Y: b, X: a, Height: 1, Width: width})
		l.norm2.Forward(e, b, b)
		e.Activate(tensor.GELU, b)
		e.Add(x, b)
	}
	return x
}

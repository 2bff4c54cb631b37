package vits

import (
	"fmt"
	"math"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// coupling moves one half of the channels by what a WaveNet reads in the other (Dinh et al.
// 2017).
type coupling struct {
	half      int
	pre, post nn.Conv2d
	net       waveNet
}

func loadCoupling(s *weights.Store, c Config) (f coupling, err error) {
	f.half = c.Flow / 2
	if f.pre, err = nn.LoadConv2d(s.Sub("conv_pre"), nn.Sequence(f.half, c.Hidden, 1, 1), true); err != nil {
		return f, err
	}
	if f.net, err = loadWaveNet(s.Sub("wavenet"), c); err != nil {
		return f, err
	}
	f.post, err = nn.LoadConv2d(s.Sub("conv_post"), nn.Sequence(c.Hidden, f.half, 1, 1), true)
	return f, err
}

// undo changes latents [T, 2·half] in place.
func (f *coupling) undo(e *tensor.Exec, z, speaker []float32) {
	t := len(z) / (2 * f.half)
	first := make([]float32, t*f.half)
	for i := range t {
		copy(first[i*f.half:][:f.half], z[2*i*f.half:])
	}
	h := make([]float32, t*f.net.hidden)
	f.pre.Forward(e, tensor.Convolution{Y: h, X: first, Height: 1, Width: t})
	h = f.net.forward(e, h, speaker)
	f.post.Forward(e, tensor.Convolution{Y: first, X: h, Height: 1, Width: t})
	for i := range t {
		second := z[(2*i+1)*f.half:][:f.half]
		for j, v := range first[i*f.half:][:f.half] {
			second[j] -= v
		}
	}
}

// waveNet is gated, dilated convolutions whose results are added up (van den Oord et al.
// 2016).
type waveNet struct {
	hidden  int
	in, out []nn.Conv2d
	speaker nn.Linear // to [2·hidden] of every layer
}

func loadWaveNet(s *weights.Store, c Config) (w waveNet, err error) {
	w.hidden = c.Hidden
	dilation := 1
	for i := range c.WaveLayers {
		if dilation > 1<<12 {
			return w, fmt.Errorf("vits: config: wavenet_dilation_rate %d in %d layers: %w", c.WaveDilation, c.WaveLayers, ErrUnsupported)
		}
		in, err := nn.LoadConv2d(s.Sub(fmt.Sprintf("in_layers.%d", i)), nn.Sequence(c.Hidden, 2*c.Hidden, c.WaveKernel, dilation), true)
		if err != nil {
			return w, err
		}
		both := 2 * c.Hidden
		if i == c.WaveLayers-1 {
			both = c.Hidden
		}
		out, err := nn.LoadConv2d(s.Sub(fmt.Sprintf("res_skip_layers.%d", i)), nn.Sequence(c.Hidden, both, 1, 1), true)
		if err != nil {
			return w, err
		}
		w.in, w.out = append(w.in, in), append(w.out, out)
		dilation *= c.WaveDilation
	}
	if size := c.speaker(); size > 0 {
		if w.speaker, err = nn.LoadLinear(s.Sub("cond_layer"), 2*c.Hidden*c.WaveLayers, size, true); err != nil {
			return w, err
		}
	}
	return w, nil
}

// forward returns the sum [T, hidden] of what the layers read in x, which it changes.
func (w *waveNet) forward(e *tensor.Exec, x, speaker []float32) []float32 {
	c := w.hidden
	t := len(x) / c
	sum, acts, gated := make([]float32, len(x)), make([]float32, 2*len(x)), make([]float32, len(x))
	var shifts []float32
	if speaker != nil {
		shifts = make([]float32, 2*c*len(w.in))
		w.speaker.Forward(e, shifts, speaker)
	}
	for i := range w.in {
		var shift []float32
		if shifts != nil {
			shift = shifts[2*c*i:][:2*c]
		}
		w.in[i].Forward(e, tensor.Convolution{Y: acts, X: x, Height: 1, Width: t, Shift: shift})
		gate(gated, acts, c)
		last := i == len(w.in)-1
		both := acts
		if last {
			both = acts[:len(x)]
		}
		w.out[i].Forward(e, tensor.Convolution{Y: both, X: gated, Height: 1, Width: t})
		if last {
			e.Add(sum, both)
			break
		}
		for f := range t {
			for j := range c {
				x[f*c+j] += both[2*f*c+j]
				sum[f*c+j] += both[(2*f+1)*c+j]
			}
		}
	}
	return sum
}

// gate writes tanh(a)·σ(b) for the halves a and b of every frame of 2·channels.
func gate(y, x []float32, channels int) {
	for i := range y {
		f, j := i/channels, i%channels
		a, b := float64(x[2*f*channels+j]), float64(x[(2*f+1)*channels+j])
		y[i] = float32(math.Tanh(a) / (1 + math.Exp(-b)))
	}
}

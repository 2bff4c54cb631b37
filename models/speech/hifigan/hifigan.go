// Package hifigan turns mel spectrograms or latents into sound: HiFi-GAN (Kong et al. 2020),
// transposed convolutions that raise the rate, each followed by the mean of residual blocks
// of several widths. It has the tensor names of SpeechT5HifiGan and of VITS' decoder in
// Hugging Face's transformers. Axes: T frames, C channels; sequences are [T, C].
package hifigan

import (
	"encoding/json"
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
var ErrUnsupported = errors.New("unsupported vocoder")

// Config is the shape of a vocoder.
type Config struct {
	In            int     `json:"model_in_dim"` // C of what comes in
	Rate          int     `json:"sampling_rate"`
	Channels      int     `json:"upsample_initial_channel"`
	Strides       []int   `json:"upsample_rates"`
	Kernels       []int   `json:"upsample_kernel_sizes"`
	BlockKernels  []int   `json:"resblock_kernel_sizes"`
	BlockDilation [][]int `json:"resblock_dilation_sizes"`
	Slope         float32 `json:"leaky_relu_slope"`
	Normalize     bool    `json:"normalize_before"` // by the store's "mean" and "scale"

	Speaker  int  `json:"-"` // size of a speaker's vector that is added, or 0
	PlainEnd bool `json:"-"` // the last convolution has no bias
}

// ParseConfig reads a config.json of SpeechT5HifiGan.
func ParseConfig(data []byte) (Config, error) {
	c := Config{
		In: 80, Rate: 16000, Channels: 512, Strides: []int{4, 4, 4, 4}, Kernels: []int{8, 8, 8, 8}, BlockKernels: []int{3, 7, 11},
		BlockDilation: [][]int{{1, 3, 5}, {1, 3, 5}, {1, 3, 5}}, Slope: 0.1, Normalize: true,
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("hifigan: config: %w: %w", err, ErrUnsupported)
	}
	return c, c.Validate()
}

// Limits on configurations.
const (
	maxChannels = 1 << 13
	maxStages   = 8
	maxKernel   = 64
	maxHop      = 1 << 13
)

// Validate refuses what makes no network.
func (c Config) Validate() error {
	between := func(low, high int, list ...int) bool {
		return !slices.ContainsFunc(list, func(v int) bool { return v < low || v > high })
	}
	switch {
	case !between(1, maxChannels, c.In, c.Channels) || !between(0, maxChannels, c.Speaker):
		return fmt.Errorf("hifigan: config: model_in_dim %d, upsample_initial_channel %d: %w", c.In, c.Channels, ErrUnsupported)
	case len(c.Strides) == 0 || len(c.Strides) > maxStages || len(c.Kernels) != len(c.Strides) || c.Channels%(1<<len(c.Strides)) != 0:
		return fmt.Errorf("hifigan: config: upsample_rates %v, upsample_kernel_sizes %v from %d channels: %w", c.Strides, c.Kernels, c.Channels, ErrUnsupported)
	case len(c.BlockKernels) == 0 || len(c.BlockKernels) > maxStages || len(c.BlockDilation) != len(c.BlockKernels):
		return fmt.Errorf("hifigan: config: resblock_kernel_sizes %v, resblock_dilation_sizes %v: %w", c.BlockKernels, c.BlockDilation, ErrUnsupported)
	case !between(1, maxKernel, c.Kernels...) || !between(1, maxKernel, c.Strides...) || !between(1, maxKernel, c.BlockKernels...):
		return fmt.Errorf("hifigan: config: kernels %v and %v, strides %v, want 1 to %d: %w", c.Kernels, c.BlockKernels, c.Strides, maxKernel, ErrUnsupported)
	case !(c.Slope >= 0 && c.Slope < 1):
		return fmt.Errorf("hifigan: config: leaky_relu_slope %v: %w", c.Slope, ErrUnsupported)
	}
	for i, stride := range c.Strides {
		if c.Kernels[i] < stride || (c.Kernels[i]-stride)%2 != 0 {
			return fmt.Errorf("hifigan: config: a kernel of %d that strides by %d: %w", c.Kernels[i], stride, ErrUnsupported)
		}
	}
	for i, list := range c.BlockDilation {
		if len(list) == 0 || len(list) > maxStages || !between(1, maxKernel, list...) || c.BlockKernels[i]%2 == 0 {
			return fmt.Errorf("hifigan: config: a kernel of %d with dilations %v: %w", c.BlockKernels[i], list, ErrUnsupported)
		}
	}
	if c.Hop() > maxHop {
		return fmt.Errorf("hifigan: config: %d samples a frame: %w", c.Hop(), ErrUnsupported)
	}
	return nil
}

// Hop returns the number of samples that a frame becomes.
func (c Config) Hop() int {
	n := 1
	for _, s := range c.Strides {
		n *= s
	}
	return n
}

// Model is a loaded vocoder.
type Model struct {
	config      Config
	mean, scale []float32 // [In], or nil
	in, out     nn.Conv2d
	speaker     nn.Linear
	stages      []stage
}

type stage struct {
	up     nn.Conv2d
	blocks []block
}

// block is pairs of convolutions, the first of each dilated, added to their input.
type block []pair

type pair struct{ dilated, plain nn.Conv2d }

// Load reads a vocoder. The errors are those of weights.Store and wrap ErrUnsupported.
func Load(s *weights.Store, c Config) (*Model, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s, err := nn.Unnormed(s)
	if err != nil {
		return nil, err
	}
	m := &Model{config: c}
	if c.Normalize {
		mean, err := s.Tensor("mean", c.In)
		if err != nil {
			return nil, err
		}
		scale, err := s.Tensor("scale", c.In)
		if err != nil {
			return nil, err
		}
		m.mean, m.scale = slices.Clone(mean.Float32s()), slices.Clone(scale.Float32s())
	}
	if m.in, err = nn.LoadConv2d(s.Sub("conv_pre"), nn.Sequence(c.In, c.Channels, 7, 1), true); err != nil {
		return nil, err
	}
	if c.Speaker > 0 {
		if m.speaker, err = nn.LoadLinear(s.Sub("cond"), c.Channels, c.Speaker, true); err != nil {
			return nil, err
		}
	}
	channels := c.Channels
	for i, stride := range c.Strides {
		st := stage{}
		up := tensor.ConvConfig{
			In: channels, Out: channels / 2, Kernel: [2]int{1, c.Kernels[i]}, Stride: [2]int{1, stride}, Transposed: true,
		}
		side := (c.Kernels[i] - stride) / 2
		up.Padding = [4]int{0, side, 0, side}
		if st.up, err = nn.LoadConv2d(s.Sub(fmt.Sprintf("upsampler.%d", i)), up, true); err != nil {
			return nil, err
		}
		channels /= 2
		for j, kernel := range c.BlockKernels {
			b, err := loadBlock(s.Sub(fmt.Sprintf("resblocks.%d", i*len(c.BlockKernels)+j)), channels, kernel, c.BlockDilation[j])
			if err != nil {
				return nil, err
			}
			st.blocks = append(st.blocks, b)
		}
		m.stages = append(m.stages, st)
	}
	m.out, err = nn.LoadConv2d(s.Sub("conv_post"), nn.Sequence(channels, 1, 7, 1), !c.PlainEnd)
	return m, err
}

func loadBlock(s *weights.Store, channels, kernel int, dilations []int) (block, error) {
	var b block
	for i, d := range dilations {
		var p pair
		var err error
		if p.dilated, err = nn.LoadConv2d(s.Sub(fmt.Sprintf("convs1.%d", i)), nn.Sequence(channels, channels, kernel, d), true); err != nil {
			return nil, err
		}
		if p.plain, err = nn.LoadConv2d(s.Sub(fmt.Sprintf("convs2.%d", i)), nn.Sequence(channels, channels, kernel, 1), true); err != nil {
			return nil, err
		}
		b = append(b, p)
	}
	return b, nil
}

// Config returns the vocoder's shape.
func (m *Model) Config() Config { return m.config }

// Forward returns the sound, [T·Hop] samples of -1 to 1, of frames x [T, In]. speaker is
// [Speaker], or nil.
func (m *Model) Forward(e *tensor.Exec, x, speaker []float32) []float32 {
	c := m.config
	t := len(x) / c.In
	if m.mean != nil {
		x = slices.Clone(x)
		for i := range x {
			x[i] = (x[i] - m.mean[i%c.In]) / m.scale[i%c.In]
		}
	}
	r := &run{e: e, slope: c.Slope}
	y := make([]float32, t*c.Channels)
	var shift []float32
	if speaker != nil {
		shift = make([]float32, c.Channels)
		m.speaker.Forward(e, shift, speaker)
	}
	m.in.Forward(e, tensor.Convolution{Y: y, X: x, Height: 1, Width: t, Shift: shift})
	channels := c.Channels
	for i := range m.stages {
		st := &m.stages[i]
		r.leaky(y, channels, c.Slope)
		_, wide := st.up.OutSize(1, t)
		channels /= 2
		up := make([]float32, wide*channels)
		st.up.Forward(e, tensor.Convolution{Y: up, X: y, Height: 1, Width: t})
		t = wide
		y = r.mean(st.blocks, up, t, channels)
	}
	r.leaky(y, channels, 0.01)
	sound := make([]float32, t)
	m.out.Forward(e, tensor.Convolution{Y: sound, X: y, Height: 1, Width: t})
	for i, v := range sound {
		sound[i] = float32(math.Tanh(float64(v)))
	}
	return sound
}

// run is a call in progress.
type run struct {
	e       *tensor.Exec
	slope   float32
	slopes  []float32
	scratch [2][]float32
}

// leaky applies max(x, slope·x).
func (r *run) leaky(x []float32, channels int, slope float32) {
	r.slopes = r.slopes[:0]
	for range channels {
		r.slopes = append(r.slopes, slope)
	}
	r.e.PReLU(x, r.slopes)
}

// mean returns the mean of what the blocks make of x [t, channels].
func (r *run) mean(blocks []block, x []float32, t, channels int) []float32 {
	n := t * channels
	for i := range r.scratch {
		if len(r.scratch[i]) < n {
			r.scratch[i] = make([]float32, n)
		}
	}
	sum, y := make([]float32, n), make([]float32, n)
	a, b := r.scratch[0][:n], r.scratch[1][:n]
	for _, block := range blocks {
		copy(y, x)
		for _, p := range block {
			copy(a, y)
			r.leaky(a, channels, r.slope)
			p.dilated.Forward(r.e, tensor.Convolution{Y: b, X: a, Height: 1, Width: t})
			r.leaky(b, channels, r.slope)
			p.plain.Forward(r.e, tensor.Convolution{Y: y, X: b, Height: 1, Width: t, Residual: y})
		}
		r.e.Add(sum, y)
	}
	factor := 1 / float32(len(blocks))
	for i := range sum {
		sum[i] *= factor
	}
	return sum
}

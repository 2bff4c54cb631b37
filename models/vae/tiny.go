package vae

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// TinyConfig describes an AutoencoderTiny, in the words of its config.json.
type TinyConfig struct {
	Class           string  `json:"_class_name"`
	InChannels      int     `json:"in_channels"`
	OutChannels     int     `json:"out_channels"`
	EncoderChannels []int   `json:"encoder_block_out_channels"` // a level
	DecoderChannels []int   `json:"decoder_block_out_channels"`
	EncoderBlocks   []int   `json:"num_encoder_blocks"` // a level
	DecoderBlocks   []int   `json:"num_decoder_blocks"`
	Activation      string  `json:"act_fn"`
	Upsampling      string  `json:"upsample_fn"`
	UpsamplingScale int     `json:"upsampling_scaling_factor"`
	LatentChannels  int     `json:"latent_channels"`
	ScalingFactor   float64 `json:"scaling_factor"`
	ShiftFactor     float64 `json:"shift_factor"`
}

// tinyDefaults are those of diffusers, which are TAESD's.
func tinyDefaults() TinyConfig {
	return TinyConfig{
		InChannels: 3, OutChannels: 3,
		EncoderChannels: []int{64, 64, 64, 64}, DecoderChannels: []int{64, 64, 64, 64},
		EncoderBlocks: []int{1, 3, 3, 3}, DecoderBlocks: []int{3, 3, 3, 1},
		Activation: "relu", Upsampling: "nearest", UpsamplingScale: 2, LatentChannels: 4, ScalingFactor: 1,
	}
}

// ParseTinyConfig reads the config.json of an AutoencoderTiny. Errors wrap ErrConfig or
// ErrUnsupported.
func ParseTinyConfig(data []byte) (TinyConfig, error) {
	c := tinyDefaults()
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("vae: config: %v: %w", err, ErrConfig)
	}
	return c, c.validate()
}

// validate lists every rule that a configuration must meet.
func (c *TinyConfig) validate() error {
	if c.Class != "" && c.Class != "AutoencoderTiny" {
		return fmt.Errorf("vae: config: class %q: %w", c.Class, ErrUnsupported)
	}
	if c.InChannels != 3 || c.OutChannels != 3 || c.Activation != "relu" || c.Upsampling != "nearest" || c.UpsamplingScale != 2 {
		return fmt.Errorf("vae: config: %d and %d channels, act_fn %q, upsample_fn %q by %d, want 3 and 3, relu, nearest by 2: %w",
			c.InChannels, c.OutChannels, c.Activation, c.Upsampling, c.UpsamplingScale, ErrUnsupported)
	}
	if c.LatentChannels < 1 || c.LatentChannels > maxChannels || !(c.ScalingFactor > 0 && c.ScalingFactor < 1e6) || !(c.ShiftFactor > -1e6 && c.ShiftFactor < 1e6) {
		return fmt.Errorf("vae: config: %d latent_channels, scaling_factor %v, shift_factor %v: %w", c.LatentChannels, c.ScalingFactor, c.ShiftFactor, ErrConfig)
	}
	for _, half := range []struct{ channels, blocks []int }{{c.EncoderChannels, c.EncoderBlocks}, {c.DecoderChannels, c.DecoderBlocks}} {
		if len(half.channels) < 1 || len(half.channels) > maxLevels || len(half.blocks) != len(half.channels) || len(half.channels) != len(c.DecoderChannels) {
			return fmt.Errorf("vae: config: block_out_channels %v with num_blocks %v: %w", half.channels, half.blocks, ErrConfig)
		}
		for i, n := range half.channels {
			if n < 1 || n > maxChannels || half.blocks[i] < 0 || half.blocks[i] > maxLayers {
				return fmt.Errorf("vae: config: %d blocks of %d channels: %w", half.blocks[i], n, ErrConfig)
			}
			if n != half.channels[0] {
				return fmt.Errorf("vae: config: block_out_channels %v, want the same at all levels: %w", half.channels, ErrUnsupported)
			}
		}
	}
	return nil
}

// Tiny is an AutoencoderTiny.
type Tiny struct {
	config  TinyConfig
	encoder []tinyLevel // from the picture to the latents, or nil
	decoder []tinyLevel // from the latents to the picture
}

// tinyLevel is the layers of one size. The convolution before them leads to that size; the
// last level of either half has one after them, too.
type tinyLevel struct {
	before nn.Conv2d
	relu   bool // follows it
	blocks []tinyBlock
	after  *nn.Conv2d
}

// tinyBlock is three convolutions, added to the image.
type tinyBlock struct {
	pool  *pool // or nil
	convs [3]nn.Conv2d
}

// pool adds to the image what a normalised copy of it says, as the variant for the latents
// of FLUX.2 has it at the smallest level.
type pool struct {
	expand   nn.Linear // [4C, C]
	norm     nn.GroupNorm
	contract nn.Linear // [C, 4C]
}

const poolGroups = 4

// LoadTiny reads "decoder.layers" and, if the store has it, "encoder.layers". Errors name
// the tensor.
func LoadTiny(s *weights.Store, c TinyConfig) (*Tiny, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	encoder, decoder := s.Sub("encoder.layers"), s.Sub("decoder.layers")
	if !encoder.Has("0.weight") {
		encoder = nil
	}
	return loadTiny(c, encoder, decoder, 0)
}

// LoadTAESD reads the files that TAESD and its relatives were published in:
// taesd_encoder.pth, which may be nil, and taesd_decoder.pth, in any format. The number of
// latent channels is the decoder's. Errors name the tensor.
func LoadTAESD(encoder, decoder *weights.Store) (*Tiny, error) {
	first, err := decoder.Lookup("1.weight")
	if err != nil {
		return nil, fmt.Errorf("vae: %w", err)
	}
	c := tinyDefaults()
	if len(first.Shape) != 4 {
		return nil, fmt.Errorf("vae: tensor %q of shape %v: %w", first.Name, first.Shape, weights.ErrShape)
	}
	c.LatentChannels = first.Shape[1]
	if err := c.validate(); err != nil {
		return nil, err
	}
	return loadTiny(c, encoder, decoder, 1) // there the clamp of the latents is layer 0
}

func loadTiny(c TinyConfig, encoder, decoder *weights.Store, first int) (*Tiny, error) {
	m := &Tiny{config: c}
	var err error
	if m.decoder, err = loadTinyDecoder(decoder, &c, first); err != nil {
		return nil, fmt.Errorf("vae: %w", err)
	}
	if encoder != nil {
		if m.encoder, err = loadTinyEncoder(encoder, &c); err != nil {
			return nil, fmt.Errorf("vae: %w", err)
		}
	}
	return m, nil
}

// loadTinyDecoder reads layers numbered as PyTorch's Sequential does, where activations and
// enlargements count, too.
func loadTinyDecoder(s *weights.Store, c *TinyConfig, n int) (levels []tinyLevel, err error) {
	channels := c.DecoderChannels[0]
	for i, blocks := range c.DecoderBlocks {
		l := tinyLevel{relu: i == 0}
		shape := double(channels)
		if i == 0 {
			shape = square(c.LatentChannels, channels)
		}
		if l.before, err = nn.LoadConv2d(s.Sub(strconv.Itoa(n)), shape, i == 0); err != nil {
			return nil, err
		}
		n++
		if i == 0 {
			n++ // its activation
		}
		if l.blocks, err = loadTinyBlocks(s, n, blocks, channels); err != nil {
			return nil, err
		}
		n += blocks
		if i == len(c.DecoderBlocks)-1 {
			after, err := nn.LoadConv2d(s.Sub(strconv.Itoa(n)), square(channels, c.OutChannels), true)
			if err != nil {
				return nil, err
			}
			l.after = &after
		}
		n++ // the enlargement before the next level
		levels = append(levels, l)
	}
	return levels, nil
}

func loadTinyEncoder(s *weights.Store, c *TinyConfig) (levels []tinyLevel, err error) {
	channels, n := c.EncoderChannels[0], 0
	for i, blocks := range c.EncoderBlocks {
		var l tinyLevel
		shape := square(c.InChannels, channels)
		if i > 0 {
			shape = square(channels, channels)
			shape.Stride = [2]int{2, 2}
		}
		if l.before, err = nn.LoadConv2d(s.Sub(strconv.Itoa(n)), shape, i == 0); err != nil {
			return nil, err
		}
		n++
		if l.blocks, err = loadTinyBlocks(s, n, blocks, channels); err != nil {
			return nil, err
		}
		n += blocks
		if i == len(c.EncoderBlocks)-1 {
			after, err := nn.LoadConv2d(s.Sub(strconv.Itoa(n)), square(channels, c.LatentChannels), true)
			if err != nil {
				return nil, err
			}
			l.after = &after
		}
		levels = append(levels, l)
	}
	return levels, nil
}

func loadTinyBlocks(s *weights.Store, n, count, channels int) ([]tinyBlock, error) {
	var blocks []tinyBlock
	for i := range count {
		var b tinyBlock
		var err error
		at := s.Sub(strconv.Itoa(n + i))
		for j := range b.convs {
			if b.convs[j], err = nn.LoadConv2d(at.Sub("conv."+strconv.Itoa(2*j)), square(channels, channels), true); err != nil {
				return nil, err
			}
		}
		if at.Has("pool.0.weight") {
			if b.pool, err = loadPool(at.Sub("pool"), channels); err != nil {
				return nil, err
			}
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func loadPool(s *weights.Store, channels int) (p *pool, err error) {
	p = &pool{}
	if p.expand, err = nn.LoadLinear(s.Sub("0"), poolGroups*channels, channels, false); err != nil {
		return nil, err
	}
	if p.norm, err = nn.LoadGroupNorm(s.Sub("1"), poolGroups, poolGroups*channels, 1e-5); err != nil {
		return nil, err
	}
	p.contract, err = nn.LoadLinear(s.Sub("3"), channels, poolGroups*channels, false)
	return p, err
}

// Latents describes the latents.
func (m *Tiny) Latents() Latents {
	c := &m.config
	return Latents{Channels: c.LatentChannels, Down: 1 << (len(c.DecoderChannels) - 1), Scale: float32(c.ScalingFactor), Shift: float32(c.ShiftFactor)}
}

// Encodes reports whether the encoder was loaded.
func (m *Tiny) Encodes() bool { return m.encoder != nil }

// Bytes returns the memory of the weights.
func (m *Tiny) Bytes() int64 {
	var n int64
	for _, half := range [][]tinyLevel{m.encoder, m.decoder} {
		for i := range half {
			n += half[i].before.Bytes()
			for j := range half[i].blocks {
				b := &half[i].blocks[j]
				n += b.convs[0].Bytes() + b.convs[1].Bytes() + b.convs[2].Bytes()
				if b.pool != nil {
					n += b.pool.expand.Bytes() + b.pool.norm.Bytes() + b.pool.contract.Bytes()
				}
			}
			if half[i].after != nil {
				n += half[i].after.Bytes()
			}
		}
	}
	return n
}

func (l *tinyLevel) forward(r *run) {
	var f tensor.Activation
	if l.relu {
		f = tensor.ReLU
	}
	r.conv(&l.before, f)
	for i := range l.blocks {
		l.blocks[i].forward(r)
	}
	if l.after != nil {
		r.conv(l.after, 0)
	}
}

func (b *tinyBlock) forward(r *run) {
	if b.pool != nil {
		b.pool.forward(r)
	}
	x := r.x()
	h, y := r.buffer(1, len(x)), r.buffer(2, len(x))
	c := tensor.Convolution{Height: r.height, Width: r.width, Activation: tensor.ReLU}
	c.Y, c.X = h, x
	b.convs[0].Forward(r.e, c)
	c.Y, c.X = y, h
	b.convs[1].Forward(r.e, c)
	c.Y, c.X, c.Residual, c.Activation = x, y, x, 0
	b.convs[2].Forward(r.e, c)
	r.e.Activate(tensor.ReLU, x)
}

func (p *pool) forward(r *run) {
	x := r.x()
	h, y := r.buffer(1, poolGroups*len(x)), r.buffer(2, len(x))
	p.expand.Forward(r.e, h, x)
	p.norm.Forward(r.e, h, h, 1, tensor.ReLU)
	p.contract.Forward(r.e, y, h)
	r.e.Add(x, y)
}

// Decode is Autoencoder's.
func (m *Tiny) Decode(ctx context.Context, e *tensor.Exec, st *State, dst []float32, z Map) error {
	l := m.Latents()
	if err := z.check("latents", l.Channels, 1); err != nil {
		return err
	}
	if want := len(z.Data) / l.Channels * l.Down * l.Down * 3; len(dst) != want {
		return fmt.Errorf("vae: a picture of %d floats, want %d: %w", len(dst), want, ErrInput)
	}
	r := st.run(e, m.config.decodePlan(z.Height, z.Width, st.tile))
	x := r.start(z.Height, z.Width, l.Channels)
	copy(x, z.Data)
	e.SoftCap(x, 3)
	m.decoder[0].forward(r) // [h, w, C], whole: its norms are over all of it
	rest := m.decoder[1:]
	var err error
	if max(z.Height, z.Width) <= st.tile || len(rest) == 0 {
		if err = through(ctx, rest, r); err == nil {
			copy(dst, r.x())
		}
	} else {
		whole := Map{Data: grow(&st.in, len(r.x())), Height: z.Height, Width: z.Width}
		copy(whole.Data, r.x())
		err = apart{in: whole, out: dst, inChannels: r.channels, outChannels: 3, step: 1, up: l.Down, tile: st.tile, margin: m.config.decodeMargin()}.
			run(r, func() error { return through(ctx, rest, r) })
	}
	for i, v := range dst {
		dst[i] = 2*v - 1
	}
	return err
}

// through runs the levels on the image.
func through(ctx context.Context, levels []tinyLevel, r *run) error {
	for i := range levels {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		levels[i].forward(r)
	}
	return nil
}

// Encode is Autoencoder's. Noise changes nothing: there is no deviation.
func (m *Tiny) Encode(ctx context.Context, e *tensor.Exec, st *State, dst []float32, picture Map, _ []float32) error {
	if m.encoder == nil {
		return errNoEncoder
	}
	l := m.Latents()
	if err := picture.check("picture", 3, l.Down); err != nil {
		return err
	}
	h, w := picture.Height/l.Down, picture.Width/l.Down
	if len(dst) != h*w*l.Channels {
		return fmt.Errorf("vae: latents of %d floats, want %d: %w", len(dst), h*w*l.Channels, ErrInput)
	}
	r := st.run(e, m.config.encodePlan(h, w, st.tile))
	last := len(m.encoder) - 1
	first := func() error { // all but the smallest level
		for i, v := range r.x() {
			r.x()[i] = (v + 1) / 2
		}
		return through(ctx, m.encoder[:last], r)
	}
	var err error
	if max(h, w) <= st.tile || last == 0 {
		copy(r.start(picture.Height, picture.Width, 3), picture.Data)
		err = first()
	} else {
		channels := m.config.EncoderChannels[0]
		whole := grow(&st.in, 4*h*w*channels)
		err = apart{in: picture, out: whole, inChannels: 3, outChannels: channels, step: l.Down, up: 2, tile: st.tile, margin: m.config.encodeMargin()}.
			run(r, first)
		copy(r.start(2*h, 2*w, channels), whole)
	}
	if err == nil {
		err = through(ctx, m.encoder[last:], r)
	}
	copy(dst, r.x())
	return err
}

// decodeMargin returns how many latents away a pixel is seen by what follows the decoder's
// smallest level.
func (c *TinyConfig) decodeMargin() int {
	reach := 1 // of the last convolution
	for i := len(c.DecoderBlocks) - 1; i > 0; i-- {
		reach = (reach + 3*c.DecoderBlocks[i] + 1 + 1) / 2
	}
	return reach
}

// encodeMargin is the same of what comes before the encoder's smallest level.
func (c *TinyConfig) encodeMargin() int {
	reach := 0
	for i := len(c.EncoderBlocks) - 2; i > 0; i-- {
		reach = 2*(reach+3*c.EncoderBlocks[i]) + 1
	}
	reach += 3*c.EncoderBlocks[0] + 1
	down := 1 << (len(c.EncoderBlocks) - 1)
	return (reach + down - 1) / down
}

package vae

import "slices"

// plan counts how large the buffers of a run get, by going through its steps.
type plan struct {
	sizes    [3]int // floats
	order    [3]int // where the run has the buffers
	pixels   int
	channels int
}

func newPlan(pixels, channels int) plan {
	p := plan{order: [3]int{0, 1, 2}}
	p.start(pixels, channels)
	return p
}

func (p *plan) start(pixels, channels int) {
	p.pixels, p.channels = pixels, channels
	p.need(0, pixels*channels)
}

func (p *plan) need(buffer, n int) {
	i := p.order[buffer]
	p.sizes[i] = max(p.sizes[i], n)
}

func (p *plan) swap() { p.order[0], p.order[1] = p.order[1], p.order[0] }

func (p *plan) floats() int { return p.sizes[0] + p.sizes[1] + p.sizes[2] }

// conv is a convolution.
func (p *plan) conv(pixels, channels int) {
	p.need(1, pixels*channels)
	p.pixels, p.channels = pixels, channels
	p.swap()
}

// resnet is a resnet, and a block of a tiny autoencoder.
func (p *plan) resnet(out int) {
	p.need(1, p.pixels*out)
	p.need(2, p.pixels*out)
	if out != p.channels {
		p.swap()
	}
	p.channels = out
}

func (p *plan) middle(attention bool) {
	p.resnet(p.channels)
	if attention {
		p.need(1, 3*p.pixels*p.channels)
		p.need(2, p.pixels*p.channels)
	}
	p.resnet(p.channels)
}

// decodePlan is that of decoding latents of a height and width, in tiles if need be.
func (c *Config) decodePlan(height, width, tile int) plan {
	p := newPlan(cut(height, tile).size*cut(width, tile).size, c.LatentChannels)
	channels := slices.Clone(c.Channels)
	slices.Reverse(channels)
	p.conv(p.pixels, channels[0])
	p.middle(c.MidBlockAttention)
	for i, out := range channels {
		for range c.Layers + 1 {
			p.resnet(out)
		}
		if i < len(channels)-1 {
			p.conv(4*p.pixels, out)
		}
	}
	return p
}

// encodePlan is that of encoding into latents of a height and width, in tiles if need be.
func (c *Config) encodePlan(height, width, tile int) plan {
	down := c.Latents().Down
	p := newPlan(cut(height, tile).size*cut(width, tile).size*down*down, 3)
	p.conv(p.pixels, c.Channels[0])
	for i, out := range c.Channels {
		for range c.Layers {
			p.resnet(out)
		}
		if i < len(c.Channels)-1 {
			p.conv(p.pixels/4, out)
		}
	}
	p.middle(c.MidBlockAttention)
	p.conv(p.pixels, 2*c.LatentChannels)
	return p
}

// DecodeBytes returns what a state of that tile grows to for latents of a height and
// width. What an Exec keeps for itself comes on top.
func (c *Config) DecodeBytes(height, width, tile int) int64 {
	tile = tileOf(tile)
	p := c.decodePlan(height, width, tile)
	n := p.floats()
	if max(height, width) > tile {
		n += cut(height, tile).size*cut(width, tile).size*c.LatentChannels + p.pixels*3
	}
	return 4 * int64(n)
}

// EncodeBytes is DecodeBytes of encoding.
func (c *Config) EncodeBytes(height, width, tile int) int64 {
	tile = tileOf(tile)
	p := c.encodePlan(height, width, tile)
	n := p.floats() + height*width*2*c.LatentChannels
	if max(height, width) > tile {
		down := c.Latents().Down
		n += p.pixels * (3*down*down + 2*c.LatentChannels)
	}
	return 4 * int64(n)
}

// DecodeBytes is Autoencoder's.
func (m *KL) DecodeBytes(height, width, tile int) int64 {
	return m.config.DecodeBytes(height, width, tile)
}

// EncodeBytes is Autoencoder's.
func (m *KL) EncodeBytes(height, width, tile int) int64 {
	return m.config.EncodeBytes(height, width, tile)
}

// decodePlan is that of decoding latents of a height and width, in tiles if need be.
func (c *TinyConfig) decodePlan(height, width, tile int) plan {
	channels := c.DecoderChannels[0]
	p := newPlan(height*width, c.LatentChannels)
	p.conv(p.pixels, channels)
	p.need(1, poolGroups*p.pixels*channels)
	p.resnet(channels)
	last := len(c.DecoderBlocks) - 1
	if max(height, width) > tile && last > 0 {
		side := tile + 2*c.decodeMargin()
		p.start(min(height, side)*min(width, side), channels)
	}
	for range last {
		p.conv(4*p.pixels, channels)
		p.resnet(channels)
	}
	p.conv(p.pixels, c.OutChannels)
	return p
}

// encodePlan is that of encoding into latents of a height and width, in tiles if need be.
func (c *TinyConfig) encodePlan(height, width, tile int) plan {
	channels, last := c.EncoderChannels[0], len(c.EncoderBlocks)-1
	h, w := height, width
	if max(h, w) > tile && last > 0 {
		side := tile + 2*c.encodeMargin()
		h, w = min(h, side), min(w, side)
	}
	p := newPlan(h*w<<(2*last), 3)
	p.conv(p.pixels, channels)
	p.resnet(channels)
	for i := range last {
		if i == last-1 { // the smallest level is computed whole
			p.start(4*height*width, channels)
		}
		p.conv(p.pixels/4, channels)
		p.resnet(channels)
	}
	p.need(1, poolGroups*p.pixels*channels)
	p.conv(p.pixels, c.LatentChannels)
	return p
}

// DecodeBytes returns what a state of that tile grows to for latents of a height and
// width. What an Exec keeps for itself comes on top.
func (c *TinyConfig) DecodeBytes(height, width, tile int) int64 {
	tile = tileOf(tile)
	p := c.decodePlan(height, width, tile)
	n := p.floats()
	if max(height, width) > tile && len(c.DecoderBlocks) > 1 {
		n += height * width * c.DecoderChannels[0]
	}
	return 4 * int64(n)
}

// EncodeBytes is DecodeBytes of encoding.
func (c *TinyConfig) EncodeBytes(height, width, tile int) int64 {
	tile = tileOf(tile)
	p := c.encodePlan(height, width, tile)
	n := p.floats()
	if max(height, width) > tile && len(c.EncoderBlocks) > 1 {
		n += 4 * height * width * c.EncoderChannels[0]
	}
	return 4 * int64(n)
}

// DecodeBytes is Autoencoder's.
func (m *Tiny) DecodeBytes(height, width, tile int) int64 {
	return m.config.DecodeBytes(height, width, tile)
}

// EncodeBytes is Autoencoder's.
func (m *Tiny) EncodeBytes(height, width, tile int) int64 {
	return m.config.EncodeBytes(height, width, tile)
}

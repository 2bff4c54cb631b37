package tensor

// pack lays out the weights, which are row after row as in files, in the conv's type.
func (c *Conv) pack(a *Arena, weight Matrix) {
	if c.depthwise() {
		c.f32 = make([]float32, c.taps*c.config.Out)
		c.packDepthwise(weight)
		return
	}
	if c.config.Transposed { // its rows are not those of the product
		weight = weight.floats()
	}
	size := c.groupBytes()
	groups := c.config.Groups * c.padded / groupRows
	memory := a.alloc(groups * size)
	switch {
	case c.dtype == F32:
		c.f32 = cast[float32](memory)
	case c.dtype == I8 || c.paired():
		c.dots = memory
	default:
		c.u16 = cast[uint16](memory)
	}
	rows := rowReader{weight, detect().level}
	inParallel(groups, func(part span) {
		values := make([]float32, c.k*groupRows)
		row := make([]float32, weight.Cols)
		for g := part.lo; g < part.hi; g++ {
			c.values(values, row, rows, g)
			c.packGroup(memory[g*size:][:size], values)
		}
	})
}

// floats returns the matrix in F32.
func (m Matrix) floats() Matrix {
	data := make([]float32, m.Rows*m.Cols)
	for r := range m.Rows {
		m.Row(data[r*m.Cols:][:m.Cols], r)
	}
	return FromFloat32s(m.Rows, m.Cols, data)
}

// paired reports whether the weights are pairs of BF16.
func (c *Conv) paired() bool { return c.dtype == BF16 && c.direct() }

// pairStep is the number of BF16 that the columns of a tap are filled up to a multiple of.
const pairStep = 32

// pairDepth returns the columns of a tap of paired weights.
func (c *Conv) pairDepth() int { return roundUp(c.config.In, pairStep) }

// groupBytes returns the memory of 16 output channels.
func (c *Conv) groupBytes() int {
	switch {
	case c.dtype == I8:
		l := newByteLayout(c.config.In, c.taps)
		return l.size
	case c.paired():
		return 2 * groupRows * c.taps * c.pairDepth()
	}
	return groupRows * c.k * c.dtype.Size()
}

// values writes the weights of group number g of 16 output channels, [taps, In, 16].
func (c *Conv) values(dst, row []float32, weight rowReader, g int) {
	z := &c.config
	elements, in, out := z.Kernel[0]*z.Kernel[1], z.In/z.Groups, z.Out/z.Groups
	perGroup := c.padded / groupRows
	group, first := g/perGroup, g%perGroup*groupRows
	clear(dst)
	for o := range min(groupRows, out-first) {
		stride, from := elements, row // of input channels
		if z.Transposed {
			stride, from = out*elements, weight.f32[group*in*out*elements+(first+o)*elements:]
		} else {
			weight.read(row, group*out+first+o)
		}
		for _, p := range c.phases {
			for t, tap := range p.taps {
				to := dst[(p.first+t)*in*groupRows+o:]
				for _, element := range tap.elements {
					for i := range in {
						to[i*groupRows] += from[i*stride+element]
					}
				}
			}
		}
	}
}

// packGroup writes 16 output channels, values [taps, In, 16], to a group of zeros.
func (c *Conv) packGroup(dst []byte, values []float32) {
	switch {
	case c.dtype == F32:
		copy(cast[float32](dst), values)
	case c.dtype == I8:
		l := newByteLayout(c.config.In, c.taps)
		l.pack(dst, values)
	case c.paired():
		in, depth := c.config.In, c.pairDepth()
		padded := make([]float32, depth*groupRows)
		for tap := range c.taps {
			copy(padded, values[tap*in*groupRows:][:in*groupRows])
			pairValues(cast[uint16](dst)[tap*depth*groupRows:], padded)
		}
	default:
		out := cast[uint16](dst)
		for i, v := range values {
			if c.dtype == F16 {
				out[i] = floatToHalf(v)
			} else {
				out[i] = floatToBFloat(v)
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
				for _, element := range tap.elements {
					c.f32[(p.first+t)*weight.Rows+o] += row[element]
				}
			}
		}
	}
}

package upscale

import (
	"context"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// Factors of ESRGAN.
const (
	residualScale = 0.2
	leakySlope    = 0.2
)

// rrdb is RRDBNet: blocks of three dense blocks each, residual in residual, at the size of
// the source, and then doublings.
type rrdb struct {
	info     Info
	first    nn.Conv2d
	blocks   [][3]dense
	body     nn.Conv2d
	ups      []nn.Conv2d
	hr, last nn.Conv2d

	residual    []float32 // [Features], residualScale
	leak        []float32 // [Features], leakySlope
	growthLeaks []float32 // [Growth], leakySlope
}

// dense is a block in which every layer reads what all before it have made.
type dense struct{ layers [5]nn.Conv2d }

func loadRRDB(l *loader, s *weights.Store, info Info) *rrdb {
	f, names := info.Features, &info.names
	m := &rrdb{
		info: info, first: l.conv(fine(s.Sub(names.first)), 3*info.shuffle*info.shuffle, f, 1),
		residual: constant(residualScale, f), leak: constant(leakySlope, f), growthLeaks: constant(leakySlope, info.Growth),
	}
	for i := range info.Layers {
		var b [3]dense
		for part := range b {
			for k := range b[part].layers {
				out := info.Growth
				if k == 4 {
					out = f
				}
				b[part].layers[k] = l.conv(s.Sub(names.dense(i, part+1, k+1)), f+k*info.Growth, out, 1)
			}
		}
		m.blocks = append(m.blocks, b)
	}
	m.body = l.conv(s.Sub(names.body), f, f, 1)
	for _, name := range names.ups {
		m.ups = append(m.ups, l.conv(s.Sub(name), f, f, 2))
	}
	m.hr, m.last = l.conv(s.Sub(names.hr), f, f, 1), l.conv(fine(s.Sub(names.last)), f, 3, 1)
	return m
}

func (m *rrdb) forward(ctx context.Context, e *tensor.Exec, st *state, y []float32, x tile) error {
	f, side := m.info.Features, m.info.shuffle
	h, w := x.height/side, x.width/side
	floats := h * w * f
	shallow, deep := st.features[0][:floats], st.features[1][:floats]
	channels := st.channels[:len(x.data)]
	unshuffle(channels, x, side)
	m.first.Forward(e, tensor.Convolution{Y: shallow, X: channels, Height: h, Width: w})
	copy(deep, shallow)
	for i := range m.blocks {
		inner := st.features[2][:floats]
		copy(inner, deep)
		for part := range m.blocks[i] {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			m.dense(e, st, &m.blocks[i][part], tile{inner, h, w})
		}
		e.AddGated(deep, inner, m.residual)
	}
	m.body.Forward(e, tensor.Convolution{Y: shallow, X: deep, Height: h, Width: w, Residual: shallow})

	from := shallow
	for i := range m.ups {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		to := st.large[i%2][:4*len(from)]
		m.ups[i].Forward(e, tensor.Convolution{Y: to, X: from, Height: h, Width: w})
		e.PReLU(to, m.leak)
		from, h, w = to, 2*h, 2*w
	}
	to := st.large[len(m.ups)%2][:len(from)]
	m.hr.Forward(e, tensor.Convolution{Y: to, X: from, Height: h, Width: w})
	e.PReLU(to, m.leak)
	m.last.Forward(e, tensor.Convolution{Y: y, X: to, Height: h, Width: w})
	return nil
}

// dense adds to x what a dense block makes of it.
func (m *rrdb) dense(e *tensor.Exec, st *state, b *dense, x tile) {
	pixels := x.height * x.width
	grown := st.growth[:pixels*m.info.Growth]
	from := x.data
	for k := range 4 {
		b.layers[k].Forward(e, tensor.Convolution{Y: grown, X: from, Height: x.height, Width: x.width})
		e.PReLU(grown, m.growthLeaks)
		to := st.joined[k%2][:len(from)+len(grown)]
		e.Concat(to, from, grown, pixels)
		from = to
	}
	y := st.features[3][:len(x.data)]
	b.layers[4].Forward(e, tensor.Convolution{Y: y, X: from, Height: x.height, Width: x.width})
	e.AddGated(x.data, y, m.residual)
}

package upscale

import (
	"context"
	"strconv"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// compact is SRVGGNetCompact: convolutions one after another at the size of the source,
// whose last channels are the pixels that the network adds to the enlarged picture.
type compact struct {
	info   Info
	convs  []nn.Conv2d
	slopes [][]float32 // of the PReLU after each but the last
}

func loadCompact(l *loader, s *weights.Store, info Info) *compact {
	m := &compact{info: info}
	in, body := 3, s.Sub("body")
	for i := range info.Layers + 1 {
		from := body
		if i == 0 {
			from = fine(body)
		}
		m.convs = append(m.convs, l.conv(from.Sub(strconv.Itoa(2*i)), in, info.Features, 1))
		m.slopes = append(m.slopes, l.slopes(body.Sub(strconv.Itoa(2*i+1)), info.Features))
		in = info.Features
	}
	last := fine(body).Sub(strconv.Itoa(2*info.Layers + 2))
	m.convs = append(m.convs, l.conv(last, in, 3*info.Scale*info.Scale, 1))
	return m
}

func (m *compact) forward(ctx context.Context, e *tensor.Exec, st *state, y []float32, x tile) error {
	pixels, from := x.height*x.width, x.data
	for i, slope := range m.slopes {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		to := st.features[i%2][:pixels*m.info.Features]
		m.convs[i].Forward(e, tensor.Convolution{Y: to, X: from, Height: x.height, Width: x.width})
		e.PReLU(to, slope)
		from = to
	}
	channels := st.channels[:len(y)]
	m.convs[len(m.slopes)].Forward(e, tensor.Convolution{Y: channels, X: from, Height: x.height, Width: x.width})
	shuffle(y, channels, x, m.info.Scale)
	return nil
}

// Package upscale enlarges pictures by super-resolution networks:
//
//   - RRDBNet, of ESRGAN (Wang et al. 2018) and Real-ESRGAN (Wang et al. 2021), with the
//     tensor names of Real-ESRGAN, of ESRGAN, and of the older ESRGAN that most models of
//     the community have;
//   - SRVGGNetCompact, of Real-ESRGAN.
//
// Architecture, scale and size are read off the names and shapes of the tensors, in
// .safetensors and .pth files. Pictures are computed in tiles that overlap, so that memory
// does not grow with the picture; with an overlap as wide as the network looks, which
// SRVGGNetCompact has by default, the pixels are those of the picture computed whole.
//
// Pictures are float32 RGB in 0..1, channels last; alpha is the caller's.
package upscale

import (
	"context"
	"errors"
	"fmt"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// ErrUnsupported is wrapped by errors about weights of another network than this package
// computes.
var ErrUnsupported = errors.New("unsupported upscaler")

// Model is a network, loaded.
type Model struct {
	info  Info
	net   network
	bytes int64
}

// network computes a tile.
type network interface {
	// forward computes y [h·scale, w·scale, 3] from x [h, w, 3]. It returns ctx's cause when
	// ctx ends.
	forward(ctx context.Context, e *tensor.Exec, st *state, y []float32, x tile) error
}

// tile is a part of a picture.
type tile struct {
	data          []float32 // [height, width, 3]
	height, width int
}

// Load loads a network. The error wraps ErrUnsupported if the tensors are none that this
// package knows, and weights.ErrMissing or weights.ErrShape if one of them does not fit.
func Load(s *weights.Store) (*Model, error) {
	info, err := Describe(s)
	if err != nil {
		return nil, err
	}
	s = info.root(s)
	l := loader{}
	m := &Model{info: info}
	if info.Architecture == SRVGGNetCompact {
		m.net = loadCompact(&l, s, info)
	} else {
		m.net = loadRRDB(&l, s, info)
	}
	m.bytes = l.bytes
	return m, l.err
}

// Info returns what the network is.
func (m *Model) Info() Info { return m.info }

// Scale returns the factor of width and height.
func (m *Model) Scale() int { return m.info.Scale }

// Bytes returns the memory of the weights.
func (m *Model) Bytes() int64 { return m.bytes }

// Options are how a picture is computed. The zero value is good.
type Options struct {
	Tile    int // side of what is computed at once, in source pixels without overlap; 0 is as much as about 256 MiB hold
	Overlap int // width of what a tile sees of its neighbours, in source pixels; 0 is Info.Overlap

	// Progress, if not nil, is called after each tile on the caller's goroutine.
	Progress func(done, total int)
}

// Picture is RGB in 0..1.
type Picture struct {
	Pixels        []float32 // [Height, Width, 3]
	Height, Width int
}

// Limits of what is computed.
const (
	maxSide     = 1 << 20   // pixels
	tileBytes   = 256 << 20 // activations of a tile
	minTile     = 32        // pixels
	rrdbOverlap = 16        // pixels of features: what lies further away hardly counts
)

// Upscale writes the enlarged picture into dst [Height·Scale, Width·Scale, 3], cut to
// 0..1. The error is ctx's cause, or says what is wrong with the sizes.
func (m *Model) Upscale(ctx context.Context, e *tensor.Exec, dst []float32, src Picture, o Options) error {
	g, err := m.info.grid(src.Height, src.Width, o)
	if err != nil {
		return err
	}
	scale := m.info.Scale
	if pixels := src.Height * src.Width * 3; len(src.Pixels) != pixels || len(dst) != pixels*scale*scale {
		return fmt.Errorf("upscale: %d floats to %d, want %d×%d pixels and %d times as many", len(src.Pixels), len(dst), src.Width, src.Height, scale*scale)
	}
	st := m.info.newState(g.pixels())
	x := make([]float32, 3*g.pixels())
	y := make([]float32, len(x)*scale*scale)
	total := g.rows * g.columns
	for i := range total {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c := g.cell(i)
		t := tile{x[:3*c.height()*c.width()], c.height(), c.width()}
		src.cut(t, c)
		out := y[:len(t.data)*scale*scale]
		if err := m.net.forward(ctx, e, st, out, t); err != nil {
			return err
		}
		c.paste(dst, out, src, scale)
		if o.Progress != nil {
			o.Progress(i+1, total)
		}
	}
	return nil
}

// cut copies a cell of the picture, whose last pixels are repeated beyond its sides.
func (p Picture) cut(t tile, c cell) {
	for r := range t.height {
		row := p.Pixels[min(c.top+r, p.Height-1)*p.Width*3:][:p.Width*3]
		line := t.data[r*t.width*3:][:t.width*3]
		n := copy(line, row[c.left*3:])
		for ; n < len(line); n += 3 {
			copy(line[n:], row[len(row)-3:])
		}
	}
}

// paste copies the inner part of a computed cell to where it belongs.
func (c cell) paste(dst, y []float32, p Picture, scale int) {
	from, to := scale*3*(c.innerLeft-c.left), scale*3*(min(c.innerRight, p.Width)-c.left)
	for r := scale * c.innerTop; r < scale*min(c.innerBottom, p.Height); r++ {
		line := y[(r-scale*c.top)*c.width()*scale*3:][from:to]
		out := dst[(r*p.Width+c.innerLeft)*scale*3:][:len(line)]
		for i, v := range line {
			out[i] = min(max(v, 0), 1)
		}
	}
}

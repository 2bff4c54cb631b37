package vae

import "math"

// blended is a computation on an image in overlapping tiles, whose results are blended
// linearly where they overlap. All tiles have the same size, so that none is a sliver with
// norms of its own.
type blended struct {
	in                      Map
	out                     []float32
	inChannels, outChannels int
	step                    int // pixels of the input that belong together, a latent's side
	up                      int // pixels of the result a step
	tile                    int // steps on the side of a tile, at most
}

// run calls f for every tile, with memory for its result.
func (b blended) run(st *State, f func(out []float32, in Map) error) error {
	rows, columns := cut(b.in.Height/b.step, b.tile), cut(b.in.Width/b.step, b.tile)
	width := b.in.Width / b.step * b.up // of the result
	clear(b.out)
	for i := range rows.count {
		for j := range columns.count {
			top, left := rows.start(i), columns.start(j)
			m := Map{Height: rows.size * b.step, Width: columns.size * b.step}
			m.Data = grow(&st.in, m.Height*m.Width*b.inChannels)
			copyWindow(m, b.in, top*b.step, left*b.step, b.inChannels)
			h, w := rows.size*b.up, columns.size*b.up
			out := grow(&st.out, h*w*b.outChannels)
			if err := f(out, m); err != nil {
				return err
			}
			for y := range h {
				vertical := rows.share(i, y, b.up)
				to := b.out[((top*b.up+y)*width+left*b.up)*b.outChannels:]
				for x := range w {
					share := vertical * columns.share(j, x, b.up)
					for c := range b.outChannels {
						to[x*b.outChannels+c] += share * out[(y*w+x)*b.outChannels+c]
					}
				}
			}
		}
	}
	return nil
}

// copyWindow fills to from the pixels of an image from a row and a column on.
func copyWindow(to, from Map, top, left, channels int) {
	n := to.Width * channels
	for y := range to.Height {
		copy(to.Data[y*n:][:n], from.Data[((top+y)*from.Width+left)*channels:])
	}
}

// cuts is an axis of n steps in count tiles of the same size.
type cuts struct{ n, count, size, overlap int }

// cut divides n steps into tiles of at most tile that overlap by a quarter of that.
func cut(n, tile int) cuts {
	if n <= tile {
		return cuts{n: n, count: 1, size: n}
	}
	overlap := tile / 4
	count := (n - overlap + tile - overlap - 1) / (tile - overlap)
	return cuts{n, count, (n + (count-1)*overlap + count - 1) / count, overlap}
}

// start returns the first step of tile i.
func (c cuts) start(i int) int { return min(i*(c.size-c.overlap), c.n-c.size) }

// share returns the part that tile i has in the result at its pixel x, of up pixels a
// step: 1, or less where a neighbour overlaps. The parts of both are 1 in all.
func (c cuts) share(i, x, up int) float32 {
	at := float64(c.start(i)*up+x) + 0.5
	share := 1.0
	if i > 0 {
		share = ramp(at, c.start(i)*up, (c.start(i-1)+c.size)*up)
	}
	if i < c.count-1 {
		share = math.Min(share, 1-ramp(at, c.start(i+1)*up, (c.start(i)+c.size)*up))
	}
	return float32(share)
}

// ramp rises from 0 at from to 1 at to.
func ramp(at float64, from, to int) float64 {
	return math.Min(math.Max((at-float64(from))/float64(to-from), 0), 1)
}

// apart is a computation on an image in tiles, each with a margin around it as wide as
// what reaches into it, so that the result is what it is without tiles.
type apart struct {
	in                      Map
	out                     []float32
	inChannels, outChannels int
	step, up, tile          int // as in blended
	margin                  int // steps
}

// run calls f for every tile, whose result replaces the image.
func (a apart) run(r *run, f func() error) error {
	rows, columns := a.in.Height/a.step, a.in.Width/a.step
	image := r.image
	for top := 0; top < rows; top += a.tile {
		for left := 0; left < columns; left += a.tile {
			y0, x0 := max(top-a.margin, 0), max(left-a.margin, 0)
			y1, x1 := min(top+a.tile+a.margin, rows), min(left+a.tile+a.margin, columns)
			m := Map{Height: (y1 - y0) * a.step, Width: (x1 - x0) * a.step}
			r.image = image
			m.Data = r.start(m.Height, m.Width, a.inChannels)
			copyWindow(m, a.in, y0*a.step, x0*a.step, a.inChannels)
			if err := f(); err != nil {
				return err
			}
			h, w := min(a.tile, rows-top)*a.up, min(a.tile, columns-left)*a.up
			from := Map{Data: r.x(), Height: r.height, Width: r.width}
			inside := Map{Data: a.out[(top*columns*a.up+left)*a.up*a.outChannels:], Height: h, Width: w}
			paste(inside, columns*a.up, from, (top-y0)*a.up, (left-x0)*a.up, a.outChannels)
		}
	}
	return nil
}

// paste fills a window of an image of so many columns from another image, from a row and
// a column of that on.
func paste(to Map, columns int, from Map, top, left, channels int) {
	for y := range to.Height {
		copy(to.Data[y*columns*channels:][:to.Width*channels], from.Data[((top+y)*from.Width+left)*channels:])
	}
}

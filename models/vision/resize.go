package vision

import (
	"fmt"
	"math"
)

// Filter is a way of resampling, with Pillow's numbers of them.
type Filter int

// The filters. All but Nearest take in as many pixels of a larger picture as become one,
// which is what antialiasing is.
const (
	Nearest  Filter = 0
	Lanczos  Filter = 1 // of three lobes
	Bilinear Filter = 2
	Bicubic  Filter = 3 // of a = -1/2
	Box      Filter = 4
)

// kernel returns the filter's weights over distances of pixels, and the distance from
// which on they are 0.
func (f Filter) kernel() (weight func(x float64) float64, support float64) {
	switch f {
	case Lanczos:
		return func(x float64) float64 {
			if x < -3 || x >= 3 {
				return 0
			}
			return sinc(x) * sinc(x/3)
		}, 3
	case Bilinear:
		return func(x float64) float64 { return max(1-math.Abs(x), 0) }, 1
	case Bicubic:
		return cubic, 2
	case Box:
		return func(x float64) float64 {
			if x > -0.5 && x <= 0.5 {
				return 1
			}
			return 0
		}, 0.5
	}
	panic(fmt.Sprintf("vision: no filter %d", f))
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(x*math.Pi) / (x * math.Pi)
}

// cubic is Keys' kernel (1981).
func cubic(x float64) float64 {
	const a = -0.5
	switch x = math.Abs(x); {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}

// Resize returns a picture in another size. It is Pillow's Image.resize: rows first, then
// columns, in fixed point, rounded to 8 bits after each. It panics for a size or filter
// that is none.
func Resize(p RGB, width, height int, f Filter) RGB {
	if min(p.Width, p.Height, width, height) <= 0 || len(p.Pix) != 3*p.Width*p.Height {
		panic(fmt.Sprintf("vision: resize of %d bytes, %d×%d, to %d×%d", len(p.Pix), p.Width, p.Height, width, height))
	}
	if f == Nearest {
		return nearest(p, width, height)
	}
	if width != p.Width {
		p = resizeRows(p, width, f)
	}
	if height != p.Height {
		p = resizeColumns(p, height, f)
	}
	return p
}

func nearest(p RGB, width, height int) RGB {
	out := NewRGB(width, height)
	columns, rows := sources(p.Width, width), sources(p.Height, height)
	to := out.Pix
	for _, y := range rows {
		for _, x := range columns {
			copy(to[:3], p.Pix[3*(y*p.Width+x):])
			to = to[3:]
		}
	}
	return out
}

// sources returns which of in pixels each of out is taken from.
func sources(in, out int) []int {
	from := make([]int, out)
	scale := float64(in) / float64(out)
	at := scale * 0.5
	for i := range from {
		from[i] = min(int(at), in-1)
		at += scale
	}
	return from
}

// taps is what makes a pixel of the result along an axis.
type taps struct {
	first   int
	weights []int32 // in units of 1<<precision
}

const precision = 32 - 8 - 2 // bits

// filter returns the taps of out pixels of in.
func filter(in, out int, f Filter) []taps {
	kernel, support := f.kernel()
	scale := float64(in) / float64(out)
	stretch := max(scale, 1)
	support *= stretch
	all := make([]taps, out)
	var weights []float64
	for i := range all {
		centre := (float64(i) + 0.5) * scale
		first := max(int(centre-support+0.5), 0)
		last := min(int(centre+support+0.5), in)
		weights = weights[:0]
		sum := 0.0
		for x := first; x < last; x++ {
			w := kernel((float64(x) - centre + 0.5) * (1 / stretch))
			weights = append(weights, w)
			sum += w
		}
		t := taps{first: first, weights: make([]int32, len(weights))}
		for j, w := range weights {
			if sum != 0 {
				w /= sum
			}
			t.weights[j] = int32(math.Copysign(math.Floor(math.Abs(w)*(1<<precision)+0.5), w))
		}
		all[i] = t
	}
	return all
}

// half is what rounds a sum of taps.
const half = 1 << (precision - 1)

// byteOf returns a sum of taps as a byte.
func byteOf(sum int32) uint8 { return uint8(min(max(sum>>precision, 0), 255)) }

func resizeRows(p RGB, width int, f Filter) RGB {
	out := NewRGB(width, p.Height)
	columns := filter(p.Width, width, f)
	to := out.Pix
	for y := range p.Height {
		row := p.Pix[3*y*p.Width:][:3*p.Width]
		for _, t := range columns {
			r, g, b := int32(half), int32(half), int32(half)
			from := row[3*t.first:]
			for _, w := range t.weights {
				r, g, b = r+w*int32(from[0]), g+w*int32(from[1]), b+w*int32(from[2])
				from = from[3:]
			}
			to[0], to[1], to[2] = byteOf(r), byteOf(g), byteOf(b)
			to = to[3:]
		}
	}
	return out
}

func resizeColumns(p RGB, height int, f Filter) RGB {
	out := NewRGB(p.Width, height)
	n := 3 * p.Width
	sums := make([]int32, n)
	for y, t := range filter(p.Height, height, f) {
		for i := range sums {
			sums[i] = half
		}
		for j, w := range t.weights {
			for i, v := range p.Pix[(t.first+j)*n:][:n] {
				sums[i] += w * int32(v)
			}
		}
		for i, s := range sums {
			out.Pix[y*n+i] = byteOf(s)
		}
	}
	return out
}

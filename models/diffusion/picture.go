package diffusion

import (
	"image"
	"math"

	"helicon/models/vision"
)

// floats returns the colours of a picture in 0..1, [H, W, 3].
func floats(p vision.RGB) []float32 {
	x := make([]float32, len(p.Pix))
	for i, v := range p.Pix {
		x[i] = float32(v) / 255
	}
	return x
}

// signed maps 0..1 to -1..1, in place.
func signed(x []float32) []float32 {
	for i, v := range x {
		x[i] = 2*v - 1
	}
	return x
}

// unsigned maps -1..1 to 0..1, in place, and cuts off what is beyond.
func unsigned(x []float32) []float32 {
	for i, v := range x {
		x[i] = min(max(v/2+0.5, 0), 1)
	}
	return x
}

// binarized returns 1 where a mask is rather white and 0 elsewhere, [H, W].
func binarized(p vision.RGB) []float32 {
	x := make([]float32, len(p.Pix)/3)
	for i := range x {
		r, g, b := uint32(p.Pix[3*i]), uint32(p.Pix[3*i+1]), uint32(p.Pix[3*i+2])
		if luma := (19595*r + 38470*g + 7471*b + 1<<15) >> 16; luma >= 128 { // ITU-R 601, as Pillow's
			x[i] = 1
		}
	}
	return x
}

// paint returns a picture of colours in 0..1, [H, W, 3]. What is no number is black.
func paint(x []float32, width, height int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		for c := range 3 {
			if v := x[3*i+c]; v > 0 {
				m.Pix[4*i+c] = uint8(math.RoundToEven(float64(min(v, 1)) * 255))
			}
		}
		m.Pix[4*i+3] = 255
	}
	return m
}

// feather is the width of the border, in pixels on either side, over which a filled-in
// part passes into the rest.
const feather = 4

// paste puts back what a mask keeps of a picture in -1..1 into a result in 0..1, both
// [H, W, 3]: the VAE has changed that, too. Near the border of the mask it blends.
func paste(result, picture, mask []float32, width, height int) {
	soft := blur(mask, width, height)
	for i, share := range soft {
		for c := range 3 {
			at := 3*i + c
			kept := picture[at]/2 + 0.5
			result[at] = kept + share*(result[at]-kept)
		}
	}
}

// blur returns the mean of a mask [H, W] over squares of 2·feather+1 pixels, which end
// where the mask does.
func blur(mask []float32, width, height int) []float32 {
	rows, out := make([]float32, len(mask)), make([]float32, len(mask))
	for y := range height {
		smooth(rows[y*width:], mask[y*width:], width, 1)
	}
	for x := range width {
		smooth(out[x:], rows[x:], height, width)
	}
	return out
}

// smooth writes the running means of n elements that are stride apart.
func smooth(to, from []float32, n, stride int) {
	for i := range n {
		low, high := max(i-feather, 0), min(i+feather, n-1)
		sum := float32(0)
		for k := low; k <= high; k++ {
			sum += from[k*stride]
		}
		to[i*stride] = sum / float32(high-low+1)
	}
}

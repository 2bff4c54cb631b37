package image

import (
	"image"
	"image/color"

	"github.com/disintegration/imaging"

	"helicon/generators/media"
)

// repaint is a picture of which a part is made anew.
type repaint struct {
	canvas  *image.NRGBA // the picture, extended; what is new has the colours of the edge
	mask    *image.Gray  // of its size: white is made anew
	feather int          // pixels within the mask in which old and new merge
}

// newRepaint prepares a picture and its mask, which may be nil where the input says so.
func newRepaint(in *input, p, mask *image.NRGBA) (*repaint, error) {
	if mask != nil && mask.Rect != p.Rect {
		return nil, invalid("/input/mask", "it is %d × %d pixels, and the picture %d × %d: they have to be of the same size",
			mask.Rect.Dx(), mask.Rect.Dy(), p.Rect.Dx(), p.Rect.Dy())
	}
	extension := pad{}
	if in.Pad != nil {
		extension = *in.Pad
	}
	if mask == nil && in.MaskMode == byTransparent {
		mask = p
	}
	if mask == nil && extension == (pad{}) {
		return nil, invalid("/input/mask", "required, but missing: nothing says what is to be made anew")
	}
	width, height := p.Rect.Dx()+extension.Left+extension.Right, p.Rect.Dy()+extension.Top+extension.Bottom
	if max(width, height) > media.MaxSide || width*height > media.MaxPixels {
		return nil, invalid("/input/pad", "the extended picture would be %d × %d pixels, which is too large", width, height)
	}
	r := &repaint{
		canvas: image.NewNRGBA(image.Rect(0, 0, width, height)), mask: image.NewGray(image.Rect(0, 0, width, height)),
		feather: whole(in.Feather, 4),
	}
	anew := false
	for y := range height {
		from := min(max(y-extension.Top, 0), p.Rect.Dy()-1)
		for x := range width {
			at := image.Pt(min(max(x-extension.Left, 0), p.Rect.Dx()-1), from)
			copy(r.canvas.Pix[r.canvas.PixOffset(x, y):][:4], p.Pix[p.PixOffset(at.X, at.Y):][:4])
			m := uint8(255)
			if at == image.Pt(x-extension.Left, y-extension.Top) { // within the picture
				m = marked(mask, at, in.MaskMode)
			}
			r.mask.Pix[r.mask.PixOffset(x, y)] = m
			anew = anew || m >= 128
		}
	}
	if !anew {
		return nil, invalid("/input/mask", "it marks nothing: nothing would be made anew")
	}
	return r, nil
}

// marked is how far the mask wants a pixel to be made anew: 255 is wholly.
func marked(mask *image.NRGBA, at image.Point, mode string) uint8 {
	if mask == nil {
		return 0
	}
	c := mask.NRGBAAt(at.X, at.Y)
	if mode == byTransparent {
		return 255 - c.A
	}
	light := color.GrayModel.Convert(color.NRGBA{c.R, c.G, c.B, 255}).(color.Gray).Y
	return uint8(uint32(light) * uint32(c.A) / 255)
}

// merge lays what was made under the mask over the canvas. Outside of the mask the pixels
// are the canvas's own.
func (r *repaint) merge(made *image.NRGBA) *image.NRGBA {
	size := r.canvas.Rect.Size()
	if made.Rect.Size() != size {
		made = imaging.Resize(made, size.X, size.Y, imaging.Lanczos)
	}
	weight := r.weights()
	out := image.NewNRGBA(r.canvas.Rect)
	for i := 0; i < len(out.Pix); i += 4 {
		old, fresh := r.canvas.Pix[i:i+4:i+4], made.Pix[i:i+4:i+4]
		w := uint32(weight[i/4])
		// Colours count by their alpha: what is transparent has none.
		a, b := uint32(old[3])*(255-w), 255*w
		if w == 0 || a+b == 0 {
			copy(out.Pix[i:], old)
			continue
		}
		for c := range 3 {
			out.Pix[i+c] = uint8((uint32(old[c])*a + uint32(fresh[c])*b + (a+b)/2) / (a + b))
		}
		out.Pix[i+3] = uint8((a + b + 127) / 255)
	}
	return out
}

// weights is how much of the new there is in each pixel: the mask, falling off towards its
// border within itself.
func (r *repaint) weights() []uint8 {
	weight := append([]uint8(nil), r.mask.Pix...)
	if r.feather == 0 {
		return weight
	}
	blurred := imaging.Blur(r.mask, float64(r.feather)/2) // 1/2 at a straight border
	for i := range weight {
		inner := max(0, 2*int(blurred.Pix[4*i])-255)
		weight[i] = uint8(min(int(weight[i]), inner))
	}
	return weight
}

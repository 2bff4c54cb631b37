// Package vision prepares pictures for networks that see, and has the network that keeps
// unsafe pictures from being shown.
//
// The references are transformers' image processors on Pillow's resampling, whose numbers
// are reproduced to the last bit, and diffusers' StableDiffusionSafetyChecker. The vision
// transformer itself is in package clip.
package vision

import (
	"errors"
	"image"
	"image/color"
)

// Errors that callers tell apart.
var (
	// ErrConfig is wrapped by every error about a configuration that has no meaning.
	ErrConfig = errors.New("malformed configuration")
	// ErrUnsupported is wrapped by every error about a configuration that asks for
	// something that the package does not compute.
	ErrUnsupported = errors.New("not supported")
	// ErrImage is wrapped by every error about a picture of an unsuitable size.
	ErrImage = errors.New("unsuitable picture")
)

// RGB is a picture of 8 bits a channel.
type RGB struct {
	Pix           []uint8 // [Height, Width, 3]
	Width, Height int
}

// NewRGB returns an empty picture.
func NewRGB(width, height int) RGB {
	return RGB{Pix: make([]uint8, 3*width*height), Width: width, Height: height}
}

// FromImage returns the colours of a picture. Transparency is dropped, as by Pillow's
// convert("RGB"): the colour of a pixel is what it has when it is opaque.
func FromImage(m image.Image) RGB {
	b := m.Bounds()
	p := NewRGB(b.Dx(), b.Dy())
	to := p.Pix
	switch m := m.(type) {
	case *image.NRGBA:
		for y := range p.Height {
			row := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):]
			for x := range p.Width {
				copy(to[:3], row[4*x:])
				to = to[3:]
			}
		}
	default:
		for y := range p.Height {
			for x := range p.Width {
				c := color.NRGBAModel.Convert(m.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
				to[0], to[1], to[2] = c.R, c.G, c.B
				to = to[3:]
			}
		}
	}
	return p
}

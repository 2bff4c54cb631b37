package image

import (
	"context"
	"encoding/hex"
	"fmt"
	"image"
	"image/color"
	"math"

	"github.com/disintegration/imaging"

	"helicon/generators/media"
	"helicon/queue"
)

// operation is one adjustment, of which op says the kind and the rest the values.
type operation struct {
	Op         string   `json:"op"`
	X          *float64 `json:"x,omitempty"`
	Y          *float64 `json:"y,omitempty"`
	Width      *float64 `json:"width,omitempty"`
	Height     *float64 `json:"height,omitempty"`
	Fit        string   `json:"fit,omitempty"`
	Degrees    *float64 `json:"degrees,omitempty"`
	Background string   `json:"background,omitempty"`
	Axis       string   `json:"axis,omitempty"`
	Amount     *float64 `json:"amount,omitempty"`
	Sigma      *float64 `json:"sigma,omitempty"`
}

// adjust does image.adjust. What the file said of how the picture was made stays.
func (s *studio) adjust(ctx context.Context) (*queue.Result, error) {
	from, err := s.source(ctx)
	if err != nil {
		return nil, err
	}
	p := from.NRGBA
	for i, o := range s.input.Operations {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if p, err = o.apply(p); err != nil {
			return nil, at(fmt.Sprintf("/input/operations/%d", i), err)
		}
		s.out.Progress(i+1, len(s.input.Operations))
	}
	return s.finish(ctx, p, s.descent(from))
}

// descent is what the file of a picture says that was worked over: how the first one was
// made, and by what it was changed.
func (s *studio) descent(from *picture) media.Meta {
	meta := media.Meta{Parameters: from.about.Meta.Parameters, Origin: from.about.Meta.Origin, Record: s.record(s.input, s.job.Seed)}
	if meta.Origin == media.Unknown {
		meta.Origin = media.Enhanced
	}
	return meta
}

// apply returns the adjusted picture. The error is a *queue.Problem.
func (o operation) apply(p *image.NRGBA) (*image.NRGBA, error) {
	amount, sigma := value(o.Amount, 0), value(o.Sigma, 0)
	switch o.Op {
	case "crop":
		return o.crop(p)
	case "resize":
		return o.resize(p)
	case "rotate":
		return o.rotate(p)
	case "flip":
		if o.Axis == "horizontal" {
			return imaging.FlipH(p), nil
		}
		return imaging.FlipV(p), nil
	case "brightness":
		return imaging.AdjustBrightness(p, amount), nil
	case "contrast":
		return imaging.AdjustContrast(p, amount), nil
	case "saturation":
		return imaging.AdjustSaturation(p, amount), nil
	case "hue":
		return turnHue(p, value(o.Degrees, 0)), nil
	case "gamma":
		return imaging.AdjustGamma(p, amount), nil
	case "sharpen":
		return imaging.Sharpen(p, sigma), nil
	case "blur":
		return imaging.Blur(p, sigma), nil
	case "grayscale":
		return imaging.Grayscale(p), nil
	case "invert":
		return imaging.Invert(p), nil
	}
	return nil, queue.Problemf("invalid_input", "There is no operation %q.", o.Op)
}

func (o operation) crop(p *image.NRGBA) (*image.NRGBA, error) {
	x, y := whole(o.X, 0), whole(o.Y, 0)
	part := image.Rect(x, y, x+whole(o.Width, 0), y+whole(o.Height, 0))
	if !part.In(p.Rect) {
		return nil, queue.Problemf("invalid_input", "The part to be cut out, %v, is not within the picture, which is %d × %d pixels.", part, p.Rect.Dx(), p.Rect.Dy())
	}
	return imaging.Crop(p, part), nil
}

func (o operation) resize(p *image.NRGBA) (*image.NRGBA, error) {
	width, height := value(o.Width, 0), value(o.Height, 0)
	own := struct{ w, h float64 }{float64(p.Rect.Dx()), float64(p.Rect.Dy())}
	switch {
	case width == 0 && height == 0:
		return nil, queue.Problemf("invalid_input", "Width or height is required.")
	case width == 0:
		width = own.w * height / own.h
	case height == 0:
		height = own.h * width / own.w
	case o.Fit == "contain":
		scale := min(width/own.w, height/own.h)
		width, height = own.w*scale, own.h*scale
	case o.Fit == "cover": // the part of the picture that has the new proportions
		part := imaging.CropCenter(p, int(math.Round(min(own.w, own.h*width/height))), int(math.Round(min(own.h, own.w*height/width))))
		return resize(part, width, height)
	}
	return resize(p, width, height)
}

// resize interpolates by Lanczos's kernel to a size that is rounded to whole pixels.
func resize(p *image.NRGBA, width, height float64) (*image.NRGBA, error) {
	if err := checkSize(width, height); err != nil {
		return nil, err
	}
	return imaging.Resize(p, max(1, int(math.Round(width))), max(1, int(math.Round(height))), imaging.Lanczos), nil
}

// checkSize refuses results that are larger than pictures may be.
func checkSize(width, height float64) error {
	if max(width, height) > media.MaxSide || width*height > media.MaxPixels {
		return queue.Problemf("image_too_large", "The picture would be %.0f × %.0f pixels; at most %d a side and %d million in all are made.", width, height, media.MaxSide, media.MaxPixels/1_000_000)
	}
	return nil
}

func (o operation) rotate(p *image.NRGBA) (*image.NRGBA, error) {
	degrees := value(o.Degrees, 0)
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	w, h := float64(p.Rect.Dx()), float64(p.Rect.Dy())
	if err := checkSize(w*math.Abs(cos)+h*math.Abs(sin), w*math.Abs(sin)+h*math.Abs(cos)); err != nil {
		return nil, err
	}
	background := color.NRGBA{}
	if o.Background != "" {
		c, err := hex.DecodeString(o.Background[1:])
		if err != nil || len(c) < 3 {
			return nil, queue.Problemf("invalid_input", "The background %q is no colour.", o.Background)
		}
		background = color.NRGBA{c[0], c[1], c[2], 255}
		if len(c) == 4 {
			background.A = c[3]
		}
	}
	return imaging.Rotate(p, degrees, background), nil
}

// turnHue turns colours by degrees about the grey axis: a rotation in the plane of chroma
// of YIQ, which keeps the lightness.
func turnHue(p *image.NRGBA, degrees float64) *image.NRGBA {
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	return imaging.AdjustFunc(p, func(c color.NRGBA) color.NRGBA {
		r, g, b := float64(c.R), float64(c.G), float64(c.B)
		y := 0.299*r + 0.587*g + 0.114*b
		i := 0.595716*r - 0.274453*g - 0.321263*b
		q := 0.211456*r - 0.522591*g + 0.311135*b
		i, q = i*cos-q*sin, i*sin+q*cos
		return color.NRGBA{clamp(y + 0.9563*i + 0.6210*q), clamp(y - 0.2721*i - 0.6474*q), clamp(y - 1.1070*i + 1.7046*q), c.A}
	})
}

func clamp(v float64) uint8 { return uint8(max(0, min(255, math.Round(v)))) }

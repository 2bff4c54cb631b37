package media

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"

	"github.com/HugoSmits86/nativewebp"
)

// EncodeOptions say how a picture is written. The zero value is a PNG without metadata.
type EncodeOptions struct {
	Format  Format // PNG, JPEG or WebP; empty is PNG
	Quality int    // of JPEG, 1 to 100; 0 is DefaultQuality. PNG and WebP lose nothing
	Meta    Meta
}

// DefaultQuality is that of JPEG.
const DefaultQuality = 90

// maxWebP is the largest side of a WebP picture, pixels.
const maxWebP = 1 << 14

// Encode writes a picture with its metadata. JPEG has no alpha: it is laid over white. A
// *queue.Problem says that the format cannot hold the picture.
func Encode(w io.Writer, p *image.NRGBA, o EncodeOptions) error {
	var encoded bytes.Buffer
	var write func(io.Writer, []byte) error
	var err error
	switch o.Format {
	case PNG, "":
		write = o.Meta.writePNG
		err = png.Encode(&encoded, p)
	case JPEG:
		write = o.Meta.writeJPEG
		quality := o.Quality
		if quality == 0 {
			quality = DefaultQuality
		}
		// The encoder is fastest on RGBA, which an opaque picture is as well.
		flat := Flatten(p, color.NRGBA{255, 255, 255, 255})
		opaque := &image.RGBA{Pix: flat.Pix, Stride: flat.Stride, Rect: flat.Rect}
		err = jpeg.Encode(&encoded, opaque, &jpeg.Options{Quality: quality})
	case WebP:
		if max(p.Rect.Dx(), p.Rect.Dy()) > maxWebP {
			return unwritable("A WebP picture has at most %d pixels a side; this one is %d × %d.", maxWebP, p.Rect.Dx(), p.Rect.Dy())
		}
		write = o.Meta.writeWebP
		err = nativewebp.Encode(&encoded, p, nil)
	default:
		return fmt.Errorf("media: no encoder for %q", o.Format)
	}
	if err != nil {
		return fmt.Errorf("media: encode %s: %w", o.Format, err)
	}
	return write(w, encoded.Bytes())
}

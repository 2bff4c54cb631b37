package media

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"github.com/disintegration/imaging"
	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"

	"helicon/queue"
)

// codec reads one format.
type codec struct {
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
	// look fills in what the metadata of a file say, as far as it can be read: what is
	// damaged in them is passed over, for the picture is what counts.
	look func(data []byte, about *Info)
}

// codecFor returns the codec of a format that sniff has told.
func codecFor(f Format) codec {
	switch f {
	case PNG:
		return codec{png.DecodeConfig, png.Decode, lookPNG}
	case JPEG:
		return codec{jpeg.DecodeConfig, jpeg.Decode, lookJPEG}
	case WebP:
		return codec{webp.DecodeConfig, webp.Decode, lookWebP}
	case GIF:
		return codec{gif.DecodeConfig, gif.Decode, lookGIF}
	case BMP:
		return codec{bmp.DecodeConfig, bmp.Decode, func([]byte, *Info) {}}
	}
	return codec{tiff.DecodeConfig, tiff.Decode, func(data []byte, about *Info) { about.readEXIF(data) }}
}

// Inspect reads the header and the metadata of a picture's file. The error is a
// *queue.Problem: the file is none, is damaged, is larger than the limits, or moves.
func Inspect(data []byte) (*Info, error) {
	_, about, err := inspect(data)
	return about, err
}

func inspect(data []byte) (c codec, about *Info, err error) {
	if len(data) > MaxFile {
		return c, nil, queue.Problemf(codeTooLarge, "The picture's file has %d bytes; at most %d are read.", len(data), MaxFile)
	}
	format, err := sniff(data)
	if err != nil {
		return c, nil, err
	}
	c = codecFor(format)
	about = &Info{Format: format, orientation: 1}
	defer guard(about, &err)
	c.look(data, about)
	if about.animated {
		return c, nil, unreadable("The picture moves: it has several frames. Save the one that you mean as a picture of its own.")
	}
	config, err := c.config(bytes.NewReader(data))
	if err != nil {
		return c, nil, damaged(about, err)
	}
	about.Width, about.Height = config.Width, config.Height
	about.bytesPerPixel += depth(config.ColorModel)
	if err := about.checkSize(); err != nil {
		return c, nil, err
	}
	if about.orientation >= 5 { // on its side
		about.Width, about.Height = about.Height, about.Width
	}
	return c, about, nil
}

// checkSize refuses what would take too much memory, before it is taken.
func (i *Info) checkSize() error {
	w, h := int64(i.Width), int64(i.Height)
	switch {
	case w < 1 || h < 1:
		return unreadable("The picture has no pixels: it is %d × %d.", w, h)
	case w > MaxSide || h > MaxSide || w*h > MaxPixels:
		return queue.Problemf(codeTooLarge, "The picture is %d × %d pixels; at most %d a side and %d million in all are read. Make it smaller first.", w, h, MaxSide, MaxPixels/1_000_000)
	case w*h*int64(i.bytesPerPixel+4) > MaxMemory:
		return queue.Problemf(codeTooLarge, "The picture, %d × %d pixels, would take %d MB to read; at most %d are given to one. Make it smaller first.", w, h, w*h*int64(i.bytesPerPixel+4)>>20, MaxMemory>>20)
	}
	return nil
}

// depth is how many bytes a pixel of a decoded picture takes.
func depth(m color.Model) int {
	switch m {
	case color.GrayModel, color.AlphaModel:
		return 1
	case color.Gray16Model, color.Alpha16Model:
		return 2
	case color.YCbCrModel:
		return 3
	case color.RGBA64Model, color.NRGBA64Model:
		return 8
	}
	if _, ok := m.(color.Palette); ok {
		return 1
	}
	return 4
}

// Decode reads a picture whole. The errors are those of Inspect, and that the file is cut
// short or damaged behind its header.
func Decode(data []byte) (picture *image.NRGBA, about *Info, err error) {
	c, about, err := inspect(data)
	if err != nil {
		return nil, nil, err
	}
	defer guard(about, &err)
	decoded, err := c.decode(bytes.NewReader(data))
	if err != nil {
		return nil, nil, damaged(about, err)
	}
	if about.Format == GIF { // whose frame need not fill the screen
		screen := image.Rect(0, 0, about.Width, about.Height)
		if decoded.Bounds() != screen {
			return imaging.Paste(image.NewNRGBA(screen), decoded, decoded.Bounds().Min), about, nil
		}
	}
	return upright(imaging.Clone(decoded), about.orientation), about, nil
}

// guard turns a panic of a decoder, which are other people's and read hostile files, into
// an error.
func guard(about *Info, err *error) {
	if v := recover(); v != nil {
		*err = damaged(about, fmt.Errorf("%v", v))
	}
}

// damaged tells why a file could not be decoded.
func damaged(about *Info, err error) *queue.Problem {
	name := map[Format]string{PNG: "PNG", JPEG: "JPEG", WebP: "WebP", GIF: "GIF", BMP: "BMP", TIFF: "TIFF"}[about.Format]
	var jpegUnsupported jpeg.UnsupportedError
	var pngUnsupported png.UnsupportedError
	var tiffUnsupported tiff.UnsupportedError
	switch {
	case about.cut, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return unreadable("The %s file is cut short: it ends before the picture does.", name)
	case errors.As(err, &jpegUnsupported), errors.As(err, &pngUnsupported), errors.As(err, &tiffUnsupported), errors.Is(err, bmp.ErrUnsupported):
		return unreadable("The %s file uses a variant of the format that is not read here (%v); save it as an ordinary PNG or JPEG.", name, err)
	}
	return unreadable("The %s file is damaged: %v.", name, err)
}

// upright applies an EXIF orientation.
func upright(p *image.NRGBA, orientation int) *image.NRGBA {
	switch orientation {
	case 2:
		return imaging.FlipH(p)
	case 3:
		return imaging.Rotate180(p)
	case 4:
		return imaging.FlipV(p)
	case 5:
		return imaging.Transpose(p)
	case 6:
		return imaging.Rotate270(p)
	case 7:
		return imaging.Transverse(p)
	case 8:
		return imaging.Rotate90(p)
	}
	return p
}

// Flatten lays a picture, whose bounds begin at the origin, over an opaque colour. An
// opaque picture is returned as it is.
func Flatten(p *image.NRGBA, over color.NRGBA) *image.NRGBA {
	if p.Opaque() {
		return p
	}
	out := image.NewNRGBA(image.Rect(0, 0, p.Bounds().Dx(), p.Bounds().Dy()))
	ground := [3]uint32{uint32(over.R), uint32(over.G), uint32(over.B)}
	for y := range p.Bounds().Dy() {
		from := p.Pix[y*p.Stride:][:4*p.Bounds().Dx()]
		to := out.Pix[y*out.Stride:]
		for x := 0; x < len(from); x += 4 {
			a := uint32(from[x+3])
			for c := range 3 {
				to[x+c] = uint8((uint32(from[x+c])*a + ground[c]*(255-a) + 127) / 255)
			}
			to[x+3] = 255
		}
	}
	return out
}

// lookGIF counts frames: a second one makes the picture move.
func lookGIF(data []byte, about *Info) {
	if len(data) < 13 {
		return
	}
	at := 13 + colourTable(data[10])
	for frames := 0; at < len(data); {
		switch data[at] {
		case 0x21: // an extension: label, then blocks
			at = skipBlocks(data, at+2)
		case 0x2c: // a frame: descriptor, table, code size, then blocks
			if frames++; frames > 1 {
				about.animated = true
				return
			}
			if at+10 > len(data) {
				return
			}
			at = skipBlocks(data, at+10+colourTable(data[at+9])+1)
		default: // the end, or damage
			return
		}
	}
}

// colourTable is how many bytes the table takes that the flags announce.
func colourTable(flags byte) int {
	if flags&0x80 == 0 {
		return 0
	}
	return 3 << (flags&7 + 1)
}

// skipBlocks returns where a sequence of blocks ends, each with its length before it.
func skipBlocks(data []byte, at int) int {
	for at < len(data) && data[at] != 0 {
		at += int(data[at]) + 1
	}
	return at + 1
}

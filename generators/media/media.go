// Package media reads and writes the bytes of pictures: every common format in, PNG, JPEG
// and WebP out, within limits that are checked by the header before pixels are decoded,
// and with what a picture was made by in the places where other programs look for it.
//
// Pixels are sRGB with straight alpha, 8 bits a channel (image.NRGBA), upright: the EXIF
// orientation is applied, CMYK converted as the standard library does, 16 bits are cut to
// 8, palettes and grey expanded, and alpha kept. Colour profiles are not applied.
//
// Formats: PNG (W3C, third edition), JPEG (ITU T.81), EXIF 2.32 (CIPA DC-008), WebP
// (RFC 9649), GIF89a, BMP and TIFF 6.0. Pictures that move are refused.
package media

import (
	"bytes"
	"encoding/binary"

	"helicon/queue"
)

// Limits on the pictures that are read.
const (
	MaxFile   = 128 << 20 // bytes of a file
	MaxSide   = 1 << 15   // pixels
	MaxPixels = 1 << 26   // of one picture: 67 megapixels

	// MaxMemory is what decoding a picture takes at most, bytes, the pixels that it returns
	// included and the file not.
	MaxMemory = 640 << 20
)

// Format is a format of pictures, by its usual file extension.
type Format string

// The formats. PNG, JPEG and WebP can be written too.
const (
	PNG  Format = "png"
	JPEG Format = "jpeg"
	WebP Format = "webp"
	GIF  Format = "gif"
	BMP  Format = "bmp"
	TIFF Format = "tiff"
)

// MediaType returns the format's media type.
func (f Format) MediaType() string { return "image/" + string(f) }

// Extension returns the extension that files of the format usually have, with its dot.
func (f Format) Extension() string {
	if f == JPEG {
		return ".jpg"
	}
	return "." + string(f)
}

// Info is what the header and the metadata of a file say.
type Info struct {
	Format        Format
	Width, Height int  // pixels, as the picture is shown: upright
	Meta          Meta // what it was made by
	orientation   int  // of EXIF, 1 to 8
	animated      bool
	cut           bool // the file's end is missing
	bytesPerPixel int  // that decoding takes beside the result
}

// codes of the problems that this package tells.
const (
	codeUnreadable = "image_unreadable"
	codeTooLarge   = "image_too_large"
	codeUnwritable = "image_unwritable"
)

func unwritable(format string, args ...any) *queue.Problem {
	return queue.Problemf(codeUnwritable, format, args...)
}

func unreadable(format string, args ...any) *queue.Problem {
	return queue.Problemf(codeUnreadable, format, args...)
}

// sniff tells a format by the first bytes of a file.
func sniff(data []byte) (Format, error) {
	has := func(offset int, magic string) bool {
		return len(data) >= offset+len(magic) && string(data[offset:offset+len(magic)]) == magic
	}
	switch {
	case has(0, pngMagic):
		return PNG, nil
	case has(0, "\xff\xd8\xff"):
		return JPEG, nil
	case has(0, "RIFF") && has(8, "WEBP"):
		return WebP, nil
	case has(0, "GIF87a"), has(0, "GIF89a"):
		return GIF, nil
	case has(0, "BM"):
		return BMP, nil
	case has(0, "II*\x00"), has(0, "MM\x00*"):
		return TIFF, nil
	case len(data) == 0:
		return "", unreadable("The picture's file is empty.")
	}
	if name := foreign(data); name != "" {
		return "", unreadable("The file is %s, which is not read here; save it as PNG or JPEG.", name)
	}
	return "", unreadable("The file is no picture in PNG, JPEG, WebP, GIF, BMP or TIFF.")
}

// foreign names formats that people try and that are not read, or "".
func foreign(data []byte) string {
	head := data[:min(len(data), 512)]
	switch {
	case len(head) >= 12 && string(head[4:8]) == "ftyp":
		switch string(head[8:12]) {
		case "avif", "avis":
			return "an AVIF picture"
		case "heic", "heix", "mif1", "msf1", "heim", "heis":
			return "a HEIC picture"
		}
		return "a video"
	case bytes.HasPrefix(head, []byte("\xff\x0a")), bytes.HasPrefix(head, []byte("\x00\x00\x00\x0cJXL ")):
		return "a JPEG XL picture"
	case bytes.HasPrefix(head, []byte("8BPS")):
		return "a Photoshop file"
	case bytes.HasPrefix(head, []byte("%PDF")):
		return "a PDF"
	case bytes.Contains(head, []byte("<svg")):
		return "an SVG drawing"
	}
	return ""
}

// be reads big-endian numbers; the caller has checked that they are there.
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

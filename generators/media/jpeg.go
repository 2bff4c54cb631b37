package media

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Identifiers of the application segments of JPEG.
const (
	exifID = "Exif\x00\x00"
	xmpID  = "http://ns.adobe.com/xap/1.0/\x00"
)

// maxSegment is how many bytes a segment of JPEG takes with its length.
const maxSegment = 1<<16 - 1

// lookJPEG walks the segments before the picture's data.
func lookJPEG(data []byte, about *Info) {
	for data = data[2:]; len(data) >= 4 && data[0] == 0xff; {
		marker := data[1]
		if marker == 0xff { // a fill byte
			data = data[1:]
			continue
		}
		length := int(binary.BigEndian.Uint16(data[2:]))
		if length < 2 || length+2 > len(data) || marker == 0xda {
			return
		}
		body := data[4 : 2+length]
		switch {
		case marker == 0xe1 && bytes.HasPrefix(body, []byte(exifID)):
			about.readEXIF(body)
		case marker == 0xe1 && bytes.HasPrefix(body, []byte(xmpID)):
			about.Meta.readXMP(body[len(xmpID):])
		case marker == 0xc2 && len(body) >= 6: // progressive: all coefficients are kept, 4 bytes each
			about.bytesPerPixel = 4 * min(int(body[5]), 4)
		}
		data = data[2+length:]
	}
}

// writeJPEG writes an encoded JPEG with the metadata in segments behind its start. The
// parameters are left out where they do not fit beside the record, which says the same.
func (m *Meta) writeJPEG(w io.Writer, encoded []byte) error {
	out := bytes.NewBuffer(encoded[:2:2])
	if m.Parameters != "" || m.Record != nil {
		block, err := m.exif()
		if err != nil {
			return err
		}
		if len(exifID)+len(block)+2 > maxSegment && m.Record != nil {
			if block, err = (&Meta{Record: m.Record}).exif(); err != nil {
				return err
			}
		}
		if err := writeSegment(out, exifID, block); err != nil {
			return err
		}
	}
	if m.Origin != Unknown {
		packet, err := m.xmp()
		if err != nil {
			return err
		}
		if err := writeSegment(out, xmpID, packet); err != nil {
			return err
		}
	}
	out.Write(encoded[2:])
	_, err := w.Write(out.Bytes())
	return err
}

func writeSegment(out *bytes.Buffer, id string, body []byte) error {
	length := 2 + len(id) + len(body)
	if length > maxSegment {
		return errMetaTooLarge
	}
	out.Write([]byte{0xff, 0xe1, byte(length >> 8), byte(length)})
	out.WriteString(id)
	out.Write(body)
	return nil
}

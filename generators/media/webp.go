package media

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Flags of WebP's chunk VP8X.
const (
	webpAnimation = 1 << 1
	webpXMP       = 1 << 2
	webpEXIF      = 1 << 3
	webpAlpha     = 1 << 4
)

// lookWebP walks the chunks of a file.
func lookWebP(data []byte, about *Info) {
	for data = data[12:]; len(data) >= 8; {
		length := uint64(binary.LittleEndian.Uint32(data[4:]))
		if length+8 > uint64(len(data)) {
			about.cut = true
			return
		}
		body := data[8 : 8+length]
		switch string(data[:4]) {
		case "VP8X":
			about.animated = len(body) > 0 && body[0]&webpAnimation != 0
		case "EXIF":
			about.readEXIF(body)
		case "XMP ":
			about.Meta.readXMP(body)
		}
		data = data[min(8+length+length&1, uint64(len(data))):]
	}
}

// writeWebP writes an encoded WebP of one chunk VP8L as one of the extended format with
// the metadata in chunks behind the picture.
func (m *Meta) writeWebP(w io.Writer, encoded []byte) error {
	type chunk struct {
		id   string
		body []byte
	}
	picture := encoded[20 : 20+binary.LittleEndian.Uint32(encoded[16:])]
	// VP8L's header: a signature byte, 14 bits of width - 1, 14 of height - 1, one for alpha.
	header := binary.LittleEndian.Uint32(picture[1:])
	width, height, flags := header&0x3fff, header>>14&0x3fff, byte(0)
	if header>>28&1 == 1 {
		flags |= webpAlpha
	}
	chunks := []chunk{{"VP8X", nil}, {"VP8L", picture}}
	if m.Parameters != "" || m.Record != nil {
		block, err := m.exif()
		if err != nil {
			return err
		}
		flags |= webpEXIF
		chunks = append(chunks, chunk{"EXIF", block})
	}
	if m.Origin != Unknown {
		packet, err := m.xmp()
		if err != nil {
			return err
		}
		flags |= webpXMP
		chunks = append(chunks, chunk{"XMP ", packet})
	}
	chunks[0].body = []byte{flags, 0, 0, 0, byte(width), byte(width >> 8), 0, byte(height), byte(height >> 8), 0}
	out := bytes.NewBuffer([]byte("RIFF\x00\x00\x00\x00WEBP"))
	for _, c := range chunks {
		out.WriteString(c.id)
		out.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(c.body))))
		out.Write(c.body)
		if len(c.body)%2 == 1 {
			out.WriteByte(0)
		}
	}
	binary.LittleEndian.PutUint32(out.Bytes()[4:], uint32(out.Len()-8))
	_, err := w.Write(out.Bytes())
	return err
}

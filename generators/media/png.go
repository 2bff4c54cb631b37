package media

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf8"
)

const pngMagic = "\x89PNG\r\n\x1a\n"

// Keywords of PNG's text chunks.
const (
	keyParameters = "parameters" // of AUTOMATIC1111
	keyRecord     = "helicon"    // our JSON
	keyXMP        = "XML:com.adobe.xmp"
)

// lookPNG walks the chunks of a file up to its end or to damage.
func lookPNG(data []byte, about *Info) {
	about.cut = true
	for data = data[len(pngMagic):]; len(data) >= 12; {
		length := uint64(be32(data))
		if length+12 > uint64(len(data)) {
			return
		}
		kind, body := string(data[4:8]), data[8:8+length]
		switch kind {
		case "acTL": // of an APNG: the number of frames comes first
			about.animated = len(body) >= 4 && be32(body) > 1
		case "eXIf":
			about.readEXIF(body)
		case "tEXt", "zTXt", "iTXt":
			about.Meta.pngText(kind, body)
		case "IEND":
			about.cut = false
			return
		}
		data = data[12+length:]
	}
}

// pngText takes in a text chunk.
func (m *Meta) pngText(kind string, body []byte) {
	key, rest, ok := bytes.Cut(body, []byte{0})
	if !ok {
		return
	}
	var text []byte
	switch kind {
	case "tEXt":
		text = latin1(rest)
	case "zTXt":
		if len(rest) == 0 {
			return
		}
		text = latin1(inflate(rest[1:]))
	case "iTXt":
		if len(rest) < 2 {
			return
		}
		compressed := rest[0] == 1
		_, rest, _ = bytes.Cut(rest[2:], []byte{0}) // the language
		_, rest, _ = bytes.Cut(rest, []byte{0})     // the keyword in it
		if compressed {
			rest = inflate(rest)
		}
		text = rest
	}
	switch string(key) {
	case keyParameters:
		m.setParameters(string(text))
	case keyRecord:
		m.setRecord(text)
	case keyXMP:
		m.readXMP(text)
	}
}

// latin1 makes UTF-8 of ISO 8859-1. Programs write UTF-8 into such chunks as well.
func latin1(text []byte) []byte {
	if len(text) > maxText || utf8.Valid(text) {
		return text
	}
	runes := make([]rune, len(text))
	for i, b := range text {
		runes[i] = rune(b)
	}
	return []byte(string(runes))
}

// inflate decompresses a text, or returns nil if it is damaged or too long.
func inflate(data []byte) []byte {
	z, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(z, maxText+1))
	if err != nil || len(text) > maxText {
		return nil
	}
	return text
}

// pngHeader is how many bytes the signature and the first chunk take, behind which text
// chunks may stand.
const pngHeader = len(pngMagic) + 12 + 13

// writePNG writes an encoded PNG with the metadata in text chunks.
func (m *Meta) writePNG(w io.Writer, encoded []byte) error {
	out := bytes.NewBuffer(encoded[:pngHeader:pngHeader])
	if m.Parameters != "" {
		writeChunk(out, "tEXt", "iTXt", keyParameters, m.Parameters)
	}
	if m.Record != nil {
		record, err := m.Record.encode()
		if err != nil {
			return err
		}
		writeChunk(out, "iTXt", "iTXt", keyRecord, string(record))
	}
	if m.Origin != Unknown {
		packet, err := m.xmp()
		if err != nil {
			return err
		}
		writeChunk(out, "iTXt", "iTXt", keyXMP, string(packet))
	}
	out.Write(encoded[pngHeader:])
	_, err := w.Write(out.Bytes())
	return err
}

// writeChunk writes a text chunk: of the first kind where the text is ASCII, which all
// readers take the same way, else of the second.
func writeChunk(out *bytes.Buffer, ascii, other, key, text string) {
	kind := ascii
	if strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf || r == 0 }) >= 0 {
		kind = other
	}
	body := append([]byte(key), 0)
	if kind == "iTXt" {
		body = append(body, 0, 0, 0, 0) // not compressed, no language, no translated keyword
	}
	body = append(body, text...)
	var head [8]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(body)))
	copy(head[4:], kind)
	sum := crc32.NewIEEE()
	sum.Write(head[4:])
	sum.Write(body)
	out.Write(head[:])
	out.Write(body)
	out.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
}

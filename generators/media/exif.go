package media

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf16"
)

// Tags of EXIF that are read or written.
const (
	tagOrientation = 0x0112
	tagSoftware    = 0x0131
	tagXMP         = 0x02bc
	tagExifIFD     = 0x8769
	tagMakerNote   = 0x927c // our record
	tagUserComment = 0x9286 // the parameters as AUTOMATIC1111 writes them
)

// Types of EXIF's values.
const (
	typeByte      = 1
	typeASCII     = 2
	typeShort     = 3
	typeLong      = 4
	typeUndefined = 7
)

// makerNote begins a maker note of ours.
const makerNote = "Helicon\x00"

// maxEntries bounds the entries of a directory that are read; ours have four.
const maxEntries = 256

// tiffReader reads directories of a TIFF structure, which is what EXIF is.
type tiffReader struct {
	data  []byte
	order binary.ByteOrder
}

// newTIFF returns a reader and the offset of the first directory.
func newTIFF(data []byte) (r tiffReader, first uint32, ok bool) {
	if len(data) < 8 {
		return r, 0, false
	}
	switch string(data[:4]) {
	case "II*\x00":
		r = tiffReader{data, binary.LittleEndian}
	case "MM\x00*":
		r = tiffReader{data, binary.BigEndian}
	default:
		return r, 0, false
	}
	return r, r.order.Uint32(data[4:]), true
}

// directory calls each for the entries of the directory at an offset, with the bytes of
// their values. What lies outside of the data is passed over.
func (r tiffReader) directory(at uint32, each func(tag, kind uint16, value []byte)) {
	if int64(at)+2 > int64(len(r.data)) {
		return
	}
	n := min(int(r.order.Uint16(r.data[at:])), maxEntries)
	entries := r.data[at+2:]
	for i := 0; i < n && len(entries) >= 12; i, entries = i+1, entries[12:] {
		kind := r.order.Uint16(entries[2:])
		size := map[uint16]uint64{typeByte: 1, typeASCII: 1, typeShort: 2, typeLong: 4, typeUndefined: 1}[kind]
		bytes := size * uint64(r.order.Uint32(entries[4:]))
		value := entries[8:12]
		if bytes > 4 {
			from := uint64(r.order.Uint32(value))
			if from+bytes > uint64(len(r.data)) {
				continue
			}
			value = r.data[from:]
		}
		if bytes > 0 {
			each(r.order.Uint16(entries), kind, value[:bytes])
		}
	}
}

// readEXIF takes in orientation and metadata of an EXIF block, with or without the
// identifier that JPEG puts before it.
func (i *Info) readEXIF(data []byte) {
	r, first, ok := newTIFF(bytes.TrimPrefix(data, []byte(exifID)))
	if !ok {
		return
	}
	var second uint32 // where the directory of EXIF is; it is read once
	r.directory(first, func(tag, kind uint16, value []byte) {
		switch {
		case tag == tagOrientation && kind == typeShort:
			if o := int(r.order.Uint16(value)); o >= 1 && o <= 8 {
				i.orientation = o
			}
		case tag == tagXMP:
			i.Meta.readXMP(value)
		case tag == tagExifIFD && kind == typeLong:
			second = r.order.Uint32(value)
		}
	})
	if second != 0 {
		r.directory(second, i.exifEntry)
	}
}

// exifEntry takes in an entry of the EXIF directory.
func (i *Info) exifEntry(tag, _ uint16, value []byte) {
	switch tag {
	case tagUserComment:
		i.Meta.setParameters(userComment(value))
	case tagMakerNote:
		if record, ours := bytes.CutPrefix(value, []byte(makerNote)); ours {
			i.Meta.setRecord(record)
		}
	}
}

// userComment decodes a comment by the code in its first eight bytes. The order of bytes
// of the Unicode one is nowhere laid down: it is the one that makes more Latin letters.
func userComment(value []byte) string {
	if len(value) < 8 {
		return ""
	}
	text := value[8:]
	switch strings.TrimRight(string(value[:8]), "\x00 ") {
	case "UNICODE":
		var highZero, lowZero int
		for i := 0; i+1 < len(text); i += 2 {
			if text[i] == 0 {
				highZero++
			}
			if text[i+1] == 0 {
				lowZero++
			}
		}
		var order binary.ByteOrder = binary.BigEndian
		if lowZero > highZero {
			order = binary.LittleEndian
		}
		units := make([]uint16, len(text)/2)
		for i := range units {
			units[i] = order.Uint16(text[2*i:])
		}
		return string(utf16.Decode(units))
	case "ASCII", "":
		return strings.ToValidUTF8(strings.TrimRight(string(text), "\x00"), "")
	}
	return ""
}

// exifEntryOut is an entry to be written.
type exifEntryOut struct {
	tag, kind uint16
	value     []byte
}

// exif writes what a picture was made by as an EXIF block: big-endian, as piexif, which
// other programs read such comments with, expects of a Unicode one.
func (m *Meta) exif() ([]byte, error) {
	var entries []exifEntryOut
	if m.Record != nil {
		record, err := m.Record.encode()
		if err != nil {
			return nil, err
		}
		entries = append(entries, exifEntryOut{tagMakerNote, typeUndefined, append([]byte(makerNote), record...)})
	}
	if m.Parameters != "" {
		comment := []byte("UNICODE\x00")
		for _, unit := range utf16.Encode([]rune(m.Parameters)) {
			comment = binary.BigEndian.AppendUint16(comment, unit)
		}
		entries = append(entries, exifEntryOut{tagUserComment, typeUndefined, comment})
	}
	const header = 8
	software := exifEntryOut{tagSoftware, typeASCII, []byte("Helicon\x00")}
	top := []exifEntryOut{software, {tagExifIFD, typeLong, nil}}
	second := header + directorySize(top)
	top[1].value = binary.BigEndian.AppendUint32(nil, uint32(second))
	out := append([]byte("MM\x00*"), 0, 0, 0, header)
	out = appendDirectory(out, top)
	return appendDirectory(out, entries), nil
}

// directorySize is how many bytes a directory takes with the values that do not fit into
// its entries. A value of no length yet is one that does.
func directorySize(entries []exifEntryOut) int {
	n := 2 + 12*len(entries) + 4
	for _, e := range entries {
		if len(e.value) > 4 {
			n += len(e.value)
		}
	}
	return n
}

// appendDirectory appends a directory and its values. Entries are sorted by tag.
func appendDirectory(out []byte, entries []exifEntryOut) []byte {
	out = binary.BigEndian.AppendUint16(out, uint16(len(entries)))
	var values []byte
	from := len(out) + 12*len(entries) + 4
	for _, e := range entries {
		out = binary.BigEndian.AppendUint16(out, e.tag)
		out = binary.BigEndian.AppendUint16(out, e.kind)
		count := len(e.value)
		if e.kind == typeLong {
			count /= 4
		}
		out = binary.BigEndian.AppendUint32(out, uint32(count))
		if len(e.value) <= 4 {
			out = append(out, append(bytes.Clone(e.value), 0, 0, 0, 0)[:4]...)
			continue
		}
		out = binary.BigEndian.AppendUint32(out, uint32(from+len(values)))
		values = append(values, e.value...)
	}
	out = binary.BigEndian.AppendUint32(out, 0) // no directory follows
	return append(out, values...)
}

// errMetaTooLarge says that metadata do not fit where the format puts them.
var errMetaTooLarge = errors.New("media: the metadata are larger than the format allows")

// encode writes the record as JSON in which a prompt stays readable.
func (r *Record) encode() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

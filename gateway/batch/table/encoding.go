package table

import (
	"bufio"
	"bytes"
	"io"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"helicon/queue"
)

// Encoding is how the characters of a file are written, by its name in the WHATWG
// encoding standard.
type Encoding string

// The encodings that files are read in.
const (
	UTF8    Encoding = "utf-8"
	UTF16LE Encoding = "utf-16le"
	UTF16BE Encoding = "utf-16be"
	GB18030 Encoding = "gb18030"
)

// marks are the byte order marks that name an encoding.
var marks = []struct {
	mark     string
	encoding Encoding
}{{"\xef\xbb\xbf", UTF8}, {"\xff\xfe", UTF16LE}, {"\xfe\xff", UTF16BE}}

// Detect reads a file to tell its encoding: what a byte order mark names, else UTF-8 if
// all of it is, else GB18030, which every Chinese spreadsheet without a mark is written in.
func Detect(r io.Reader) (Encoding, error) {
	buf := make([]byte, 64<<10)
	kept := 0 // bytes of a character that is not complete yet
	for first := true; ; first = false {
		n, err := io.ReadFull(r, buf[kept:])
		text := buf[:kept+n]
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !end {
			return "", err
		}
		if first {
			for _, m := range marks {
				if bytes.HasPrefix(text, []byte(m.mark)) {
					return m.encoding, nil
				}
			}
		}
		whole := text
		if !end {
			whole = text[:len(text)-incomplete(text)]
		}
		if !utf8.Valid(whole) {
			return GB18030, nil
		}
		if end {
			return UTF8, nil
		}
		kept = copy(buf, text[len(whole):])
	}
}

// incomplete counts the bytes at the end of text that begin a character and do not end it.
func incomplete(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if b := text[len(text)-n]; utf8.RuneStart(b) {
			if b >= utf8.RuneSelf && !utf8.FullRune(text[len(text)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// decoded reads a file as UTF-8, without its byte order mark. What is no character of
// another encoding becomes U+FFFD.
func (e Encoding) decoded(r io.Reader) (io.Reader, error) {
	var decoder encoding.Encoding
	switch e {
	case UTF8: // as it is: bytes that are no characters are looked for in the rows
		text := bufio.NewReader(r)
		if head, _ := text.Peek(len(marks[0].mark)); string(head) == marks[0].mark {
			_, _ = text.Discard(len(head)) // buffered
		}
		return text, nil
	case UTF16LE:
		decoder = unicode.UTF16(unicode.LittleEndian, unicode.UseBOM)
	case UTF16BE:
		decoder = unicode.UTF16(unicode.BigEndian, unicode.UseBOM)
	case GB18030:
		decoder = simplifiedchinese.GB18030
	default:
		return nil, queue.Problemf("invalid_file", "The encoding %q is not known.", e)
	}
	return transform.NewReader(r, decoder.NewDecoder()), nil
}

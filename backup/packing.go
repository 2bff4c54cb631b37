package backup

import (
	"compress/gzip"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Packing is how a file is compressed.
type Packing struct {
	Writer func(io.Writer) (io.WriteCloser, error)
	Reader func(io.Reader) (io.ReadCloser, error)
}

// PackingOf tells how a file is compressed by its name.
func PackingOf(file string) (Packing, error) {
	switch {
	case strings.HasSuffix(file, ".tar.zst"):
		return Packing{
			func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
			func(r io.Reader) (io.ReadCloser, error) {
				unpacked, err := zstd.NewReader(r)
				if err != nil {
					return nil, err
				}
				return unpacked.IOReadCloser(), nil
			},
		}, nil
	case strings.HasSuffix(file, ".tar.gz"), strings.HasSuffix(file, ".tgz"):
		return Packing{
			func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
			func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) },
		}, nil
	case strings.HasSuffix(file, ".tar"):
		return Packing{
			func(w io.Writer) (io.WriteCloser, error) { return unclosed{w}, nil },
			func(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(r), nil },
		}, nil
	}
	return Packing{}, fmt.Errorf("%s: want a name that ends in .tar.zst, .tar.gz or .tar", file)
}

// unclosed leaves closing to others.
type unclosed struct{ io.Writer }

// Close implements io.Closer.
func (unclosed) Close() error { return nil }

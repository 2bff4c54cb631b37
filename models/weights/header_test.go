package weights

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
)

// headFS has files that cannot be read from a byte on.
type headFS struct {
	fstest.MapFS
	readable int64
}

func (h headFS) Open(name string) (fs.File, error) {
	f, err := h.MapFS.Open(name)
	if err != nil {
		return nil, err
	}
	return headFile{f, h.readable}, nil
}

type headFile struct {
	fs.File
	readable int64
}

var errBody = errors.New("data are read")

func (h headFile) ReadAt(data []byte, at int64) (int, error) {
	if at >= h.readable {
		return 0, errBody
	}
	if n := h.readable - at; int64(len(data)) > n { // a buffer may ask for more than it needs
		data = data[:n]
	}
	return h.File.(io.ReaderAt).ReadAt(data, at)
}

func TestReadHeader(t *testing.T) {
	t.Parallel()
	large := gguf(t, []Pair{{"general.name", "large"}},
		bytesOf("a", tensor.F32, []int{64, 64}, make([]byte, 64*64*4)...),
		bytesOf("b", tensor.Q4_0, []int{2, 32}, make([]byte, 36)...))
	for _, tt := range []struct {
		name   string
		data   []byte
		head   int64 // that must suffice
		format Format
		want   string // tensors
		params int64
	}{
		{"m.safetensors", twoTensors, int64(len(twoTensors) - 16), Safetensors, "a.weight F32 8, a.b.ids I64 8", 3},
		{"m.gguf", large, 256, GGUF, "a F32 16384, b Q4_0 36", 64*64 + 64},
		{"m.pt", checkpoint(dict{"x", rebuilt("0", 6, 0, []any{2, 3}, []any{1, 2})}), 1 << 20, PyTorch, "x float32 24", 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fsys := headFS{fstest.MapFS{tt.name: {Data: tt.data}}, tt.head}
			h, err := ReadFileHeader(fsys, tt.name)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, info := range h.Tensors() {
				got = append(got, fmt.Sprint(info.Name, " ", info.Kind, " ", info.Bytes))
				if again, err := h.Lookup(info.Name); err != nil || again.Name != info.Name || !h.Has(info.Name) {
					t.Errorf("lookup of %s: %+v, %v", info.Name, again, err)
				}
			}
			if text := strings.Join(got, ", "); text != tt.want || h.Format != tt.format || len(h.Names()) != len(got) {
				t.Errorf("%s %s, want %s %s", h.Format, text, tt.format, tt.want)
			}
			if h.Parameters() != tt.params || h.Bytes() != int64(len(tt.data)) {
				t.Errorf("%d parameters in %d bytes, want %d in %d", h.Parameters(), h.Bytes(), tt.params, len(tt.data))
			}
			if _, err := h.Lookup("gone"); !errors.Is(err, ErrMissing) || h.Has("gone") {
				t.Errorf("lookup of nothing: %v", err)
			}
		})
	}
}

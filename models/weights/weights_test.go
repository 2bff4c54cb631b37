package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// file renders a safetensors file from its header and its body.
func file(header string, body ...byte) []byte {
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), []byte(header), body)
}

var twoTensors = file(`{"__metadata__":{"format":"pt"},`+
	`"a.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},`+
	`"a.b.ids":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}}  `,
	0, 0, 128, 63, 0, 0, 0, 192, 7, 0, 0, 0, 0, 0, 0, 0)

func TestStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), twoTensors, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, fsys := range map[string]fs.FS{
		"mapped": os.DirFS(dir),
		"read":   fstest.MapFS{"model.safetensors": {Data: twoTensors}},
		"memory": memoryFS(twoTensors),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(fsys, "model")
			if err != nil {
				t.Fatal(err)
			}
			checkTwoTensors(t, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if _, err := s.Lookup("a.weight"); !errors.Is(err, ErrMissing) {
				t.Errorf("lookup after close: %v, want ErrMissing", err)
			}
		})
	}
}

func checkTwoTensors(t *testing.T, s *Store) {
	t.Helper()
	if s.Bytes() != int64(len(twoTensors)) {
		t.Errorf("%d bytes, want %d", s.Bytes(), len(twoTensors))
	}
	a := s.Sub("a")
	if got, want := a.Names(), []string{"b.ids", "weight"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if !a.Has("weight") || a.Has("a.weight") || s.Has("weight") {
		t.Error("Has does not go by path")
	}
	w, err := a.Tensor("weight", 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := w.Float32s(), []float32{1, -2}; !slices.Equal(got, want) {
		t.Errorf("weight %v, want %v", got, want)
	}
	if m := w.Matrix(); m.Rows != 1 || m.Cols != 2 {
		t.Errorf("matrix [%d, %d], want [1, 2]", m.Rows, m.Cols)
	}
	ids, err := a.Sub("b").Lookup("ids")
	if err != nil {
		t.Fatal(err)
	}
	if got := ids.Ints(); !slices.Equal(got, []int{7}) {
		t.Errorf("ids %v, want [7]", got)
	}
	for _, bad := range []struct {
		name  string
		shape []int
		want  error
	}{
		{"weight", []int{2, 1}, ErrShape},
		{"weight", []int{2}, ErrShape},
		{"b.ids", []int{1}, ErrShape},
		{"bias", []int{2}, ErrMissing},
	} {
		_, err := a.Tensor(bad.name, bad.shape...)
		if !errors.Is(err, bad.want) || !strings.Contains(err.Error(), "model.safetensors") || !strings.Contains(err.Error(), `"a.`+bad.name) {
			t.Errorf("tensor %s %v: %v, want %v with file and tensor", bad.name, bad.shape, err, bad.want)
		}
	}
}

// memoryFS is one file, model.safetensors, whose bytes can be had in place.
type memoryFS []byte

func (m memoryFS) Open(name string) (fs.File, error) {
	f, err := fstest.MapFS{"model.safetensors": {Data: m}}.Open(name)
	if err != nil {
		return nil, err
	}
	return memoryFile{f, m}, nil
}

type memoryFile struct {
	fs.File
	data []byte
}

func (m memoryFile) Bytes() []byte { return m.data }

func TestBrokenFiles(t *testing.T) {
	t.Parallel()
	one := func(entry string, body ...byte) []byte { return file(`{"t":`+entry+`}`, body...) }
	four := []byte{1, 2, 3, 4}
	for _, tt := range []struct {
		name string
		data []byte
		want string // part of the message
	}{
		{"empty", nil, "too few"},
		{"seven bytes", make([]byte, 7), "too few"},
		{"header beyond the file", append(binary.LittleEndian.AppendUint64(nil, 100), '{', '}'), "header of 100 bytes"},
		{"huge header", append(binary.LittleEndian.AppendUint64(nil, 1<<63), '{', '}'), "limit"},
		{"no object", file(`[]`), "does not begin"},
		{"leading space", file(` {}`), "does not begin"},
		{"empty header", file(``), "does not begin"},
		{"cut JSON", file(`{"t":{"dtype":`), "EOF"},
		{"data after the object", file(`{} {}`), "more data"},
		{"metadata of numbers", file(`{"__metadata__":{"a":1}}`), "string"},
		{"duplicate tensor", file(`{"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, four...), `duplicate key "t"`},
		{"duplicate field", one(`{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}`, four...), `duplicate key "dtype"`},
		{"unknown field", one(`{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1}`, four...), "unknown field"},
		{"unknown type", one(`{"dtype":"F4","shape":[4],"data_offsets":[0,4]}`, four...), `type "F4"`},
		{"type is a number", one(`{"dtype":4,"shape":[4],"data_offsets":[0,4]}`, four...), "string"},
		{"no type", one(`{"shape":[4],"data_offsets":[0,4]}`, four...), "must be given"},
		{"no shape", one(`{"dtype":"U8","data_offsets":[0,4]}`, four...), "must be given"},
		{"no offsets", one(`{"dtype":"U8","shape":[4]}`, four...), "must be given"},
		{"one offset", one(`{"dtype":"U8","shape":[4],"data_offsets":[0]}`, four...), "must be given"},
		{"three offsets", one(`{"dtype":"U8","shape":[4],"data_offsets":[0,4,4]}`, four...), "more than 2"},
		{"negative size", one(`{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}`, four...), "-4 is no size"},
		{"fraction", one(`{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}`, four...), "4.0 is no size"},
		{"negative offset", one(`{"dtype":"U8","shape":[4],"data_offsets":[-4,0]}`, four...), "-4 is no size"},
		{"size is text", one(`{"dtype":"U8","shape":["4"],"data_offsets":[0,4]}`, four...), "number"},
		{"overflowing product", one(`{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}`), "offsets"},
		{"overflowing bytes", one(`{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}`), "offsets"},
		{"too many axes", one(`{"dtype":"U8","shape":[` + strings.Repeat("1,", 99) + `1],"data_offsets":[0,1]}`), "more than 16"},
		{"shape against offsets", one(`{"dtype":"F32","shape":[2],"data_offsets":[0,4]}`, four...), "offsets"},
		{"offsets reversed", one(`{"dtype":"U8","shape":[0],"data_offsets":[4,0]}`, four...), "offsets"},
		{"truncated", one(`{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`, four...), "ends at byte 8 of 4"},
		{"oversized", one(`{"dtype":"U8","shape":[3],"data_offsets":[0,3]}`, four...), "end at byte 3 of 4"},
		{"hole at the start", one(`{"dtype":"U8","shape":[3],"data_offsets":[1,4]}`, four...), "hole"},
		{"hole", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}`, four...), `"b": begins at byte 2 after a hole`},
		{"overlap", file(`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}`, four...), `"b": begins at byte 2 inside`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := OpenFile(fstest.MapFS{"x.safetensors": {Data: tt.data}}, "x.safetensors")
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "x.safetensors") {
				t.Errorf("error %v, want ErrFormat with %q and the file", err, tt.want)
			}
		})
	}
}

func TestShards(t *testing.T) {
	t.Parallel()
	a := file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1)
	b := file(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2)
	both := file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"c":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 3)
	for _, tt := range []struct {
		name  string
		index string
		want  error
	}{
		{"good", `{"metadata":{"total_size":2},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`, nil},
		{"missing shard", `{"weight_map":{"a":"3.safetensors"}}`, fs.ErrNotExist},
		{"tensor not in its shard", `{"weight_map":{"a":"1.safetensors","c":"2.safetensors"}}`, ErrMissing},
		{"tensor in two shards", `{"weight_map":{"a":"1.safetensors","c":"both.safetensors"}}`, ErrFormat},
		{"other folder", `{"weight_map":{"a":"../1.safetensors"}}`, ErrFormat},
		{"sub folder", `{"weight_map":{"a":"x/1.safetensors"}}`, ErrFormat},
		{"other kind of file", `{"weight_map":{"a":"1.bin"}}`, ErrFormat},
		{"duplicate tensor", `{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}`, ErrFormat},
		{"no map", `{"metadata":{}}`, ErrFormat},
		{"map of numbers", `{"weight_map":{"a":1}}`, ErrFormat},
		{"no JSON", `weights`, ErrFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(fstest.MapFS{
				"model.safetensors.index.json": {Data: []byte(tt.index)},
				"1.safetensors":                {Data: a}, "2.safetensors": {Data: b}, "both.safetensors": {Data: both},
			}, "model")
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil && !slices.Equal(s.Names(), []string{"a", "b"}) {
				t.Errorf("names %q", s.Names())
			}
		})
	}
	t.Run("nothing there", func(t *testing.T) {
		t.Parallel()
		if _, err := Open(fstest.MapFS{}, "model"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want fs.ErrNotExist", err)
		}
	})
}

// FuzzSafetensorsHeader checks that whatever parses is sound: tensors lie side by
// side in the file and have the size that type and shape say.
func FuzzSafetensorsHeader(f *testing.F) {
	f.Add(`{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}`, 8)
	f.Add(`{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}`, 2)
	f.Add(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}`, 0)
	f.Fuzz(func(t *testing.T, header string, body int) {
		if body < 0 || body > 1<<16 {
			return
		}
		data := file(header, make([]byte, body)...)
		_, tensors, err := parseSafetensors(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v does not wrap ErrFormat", err)
			}
			return
		}
		total := 0
		for _, x := range tensors {
			n := x.DType.Size()
			for _, d := range x.Shape {
				n *= d
			}
			if int64(n) != x.Bytes || x.begin+x.Bytes > int64(len(data)) {
				t.Errorf("tensor %q: %v %v over %d bytes", x.Name, x.DType, x.Shape, x.Bytes)
			}
			total += n
		}
		if total != body {
			t.Errorf("%d bytes of tensors in a body of %d", total, body)
		}
	})
}

// FuzzIndex checks that an index leads to files beside it only.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":2},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../1.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{}, "x":[[[{}]]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := parseIndex(data, "model.safetensors.index.json")
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v does not wrap ErrFormat", err)
			}
			return
		}
		for _, file := range files {
			if strings.ContainsAny(file.Name, `/`) || !fs.ValidPath(file.Name) || len(file.Tensors) == 0 {
				t.Errorf("file %q with %d tensors", file.Name, len(file.Tensors))
			}
		}
	})
}

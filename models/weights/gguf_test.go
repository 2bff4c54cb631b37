package weights

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
)

// allKinds has a key of every kind of value.
var allKinds = []Pair{
	{"general.architecture", "llama"},
	{"u8", uint8(200)}, {"i8", int8(-100)}, {"u16", uint16(60000)}, {"i16", int16(-30000)},
	{"u32", uint32(4e9)}, {"i32", int32(-2e9)}, {"u64", uint64(math.MaxUint64)}, {"i64", int64(math.MinInt64)},
	{"f32", float32(0.1)}, {"f64", 0.1}, {"yes", true}, {"no", false}, {"empty", ""},
	{"u8s", []uint8{1, 255}}, {"i8s", []int8{-1}}, {"u16s", []uint16{1, 2}}, {"i16s", []int16{-1, 2}},
	{"u32s", []uint32{1, 2, 3}}, {"i32s", []int32{-1, 2, 3}}, {"u64s", []uint64{5}}, {"i64s", []int64{-5}},
	{"f32s", []float32{0.5, float32(math.Inf(1))}}, {"f64s", []float64{0.25}}, {"bools", []bool{true, false}},
	{"strings", []string{"a", "", "ж"}}, {"none", []int32{}},
	{"nested", []any{[]int32{1}, []string{"x", "y"}, []any{[]bool{true}}}},
}

// bytesOf is a source of data that are there.
func bytesOf(name string, d tensor.DType, shape []int, data ...byte) Source {
	return Source{Name: name, DType: d, Shape: shape, Write: func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}}
}

// ramp returns n different bytes.
func ramp(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i*7 + 1)
	}
	return data
}

func gguf(t testing.TB, pairs []Pair, tensors ...Source) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := EncodeGGUF(context.Background(), &out, pairs, tensors); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestGGUFRoundTrip(t *testing.T) {
	t.Parallel()
	tensors := []Source{
		bytesOf("token_embd.weight", tensor.F32, []int{2, 3}, ramp(24)...),
		bytesOf("blk.0.q.weight", tensor.Q8_0, []int{3, 64}, ramp(3*2*34)...),
		bytesOf("blk.0.k.weight", tensor.Q6_K, []int{1, 256}, ramp(210)...),
		bytesOf("scalar", tensor.F16, nil, 1, 2),
		bytesOf("cube", tensor.BF16, []int{2, 1, 3, 5}, ramp(60)...),
		bytesOf("nothing", tensor.I8, []int{0}),
	}
	for _, alignment := range []uint32{0, 1, 8, 256} {
		t.Run(fmt.Sprint("alignment ", alignment), func(t *testing.T) {
			t.Parallel()
			pairs := slices.Clone(allKinds)
			if alignment > 0 {
				pairs = append(pairs, Pair{"general.alignment", alignment})
			}
			name := filepath.Join(t.TempDir(), "m.gguf")
			if err := WriteGGUF(t.Context(), name, pairs, tensors); err != nil {
				t.Fatal(err)
			}
			s, err := OpenFile(os.DirFS(filepath.Dir(name)), "m.gguf")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := s.Metadata().Pairs(); !reflect.DeepEqual(got, pairs) {
				t.Errorf("metadata %v, want %v", got, pairs)
			}
			checkSources(t, s, tensors)
			s.Evict()
			checkSources(t, s, tensors)
		})
	}
}

func checkSources(t *testing.T, s *Store, want []Source) {
	t.Helper()
	if len(s.Names()) != len(want) {
		t.Errorf("names %q", s.Names())
	}
	for _, w := range want {
		var data bytes.Buffer
		if err := w.Write(&data); err != nil {
			t.Fatal(err)
		}
		got, err := s.Lookup(w.Name)
		if err != nil {
			t.Fatal(err)
		}
		if got.DType != w.DType || !slices.Equal(got.Shape, w.Shape) || !bytes.Equal(got.Data, data.Bytes()) {
			t.Errorf("%s: %v %v %v, want %v %v %v", w.Name, got.DType, got.Shape, got.Data, w.DType, w.Shape, data.Bytes())
		}
		got.Evict()
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	m, err := NewMetadata("m.gguf", allKinds)
	if err != nil {
		t.Fatal(err)
	}
	get := func(value any, err error) any {
		if err != nil {
			return err
		}
		return value
	}
	for _, tt := range []struct {
		key  string
		got  any
		want any
	}{
		{"general.architecture", get(m.String("general.architecture")), "llama"},
		{"u8", get(m.Int("u8")), 200}, {"i8", get(m.Int("i8")), -100},
		{"u16", get(m.Int("u16")), 60000}, {"i16", get(m.Int("i16")), -30000},
		{"u32", get(m.Int("u32")), int(4e9)}, {"i32", get(m.Int("i32")), int(-2e9)},
		{"i64", get(m.Int("i64")), math.MinInt64}, {"u64", get(m.Int("u64")), ErrFormat},
		{"f32", get(m.Int("f32")), ErrFormat}, {"yes", get(m.Int("yes")), ErrFormat}, {"gone", get(m.Int("gone")), ErrNoKey},
		{"f32", get(m.Float("f32")), float64(float32(0.1))}, {"f64", get(m.Float("f64")), 0.1}, {"i8", get(m.Float("i8")), -100.0},
		{"empty", get(m.Float("empty")), ErrFormat}, {"gone", get(m.Float("gone")), ErrNoKey},
		{"yes", get(m.Bool("yes")), true}, {"u8", get(m.Bool("u8")), ErrFormat},
		{"strings", get(m.Strings("strings")), []string{"a", "", "ж"}}, {"i8s", get(m.Strings("i8s")), ErrFormat},
		{"none", get(m.Ints("none")), []int{}}, {"i32s", get(m.Ints("i32s")), []int{-1, 2, 3}},
		{"u64s", get(m.Ints("u64s")), []int{5}}, {"i64s", get(m.Ints("i64s")), []int{-5}},
		{"u8s", get(m.Ints("u8s")), []int{1, 255}}, {"i8s", get(m.Ints("i8s")), []int{-1}},
		{"u16s", get(m.Ints("u16s")), []int{1, 2}}, {"i16s", get(m.Ints("i16s")), []int{-1, 2}},
		{"u32s", get(m.Ints("u32s")), []int{1, 2, 3}}, {"f32s", get(m.Ints("f32s")), ErrFormat},
		{"f32s", get(m.Floats("f32s")), []float32{0.5, float32(math.Inf(1))}}, {"f64s", get(m.Floats("f64s")), []float32{0.25}},
		{"i32s", get(m.Floats("i32s")), []float32{-1, 2, 3}}, {"strings", get(m.Floats("strings")), ErrFormat},
		{"bools", get(m.Bools("bools")), []bool{true, false}}, {"gone", get(m.Bools("gone")), ErrNoKey},
		{"nested", get(m.Ints("nested")), ErrFormat}, {"gone", get(m.Value("gone")), ErrNoKey},
	} {
		if want, ok := tt.want.(error); ok {
			err, _ := tt.got.(error)
			if !errors.Is(err, want) || !strings.Contains(err.Error(), "m.gguf") || !strings.Contains(err.Error(), `"`+tt.key+`"`) {
				t.Errorf("%s: %v, want the error %v with file and key", tt.key, tt.got, want)
			}
			continue
		}
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s: %v (%T), want %v (%T)", tt.key, tt.got, tt.got, tt.want, tt.want)
		}
	}
	if m.Has("gone") || !m.Has("none") {
		t.Error("Has is wrong")
	}
	if big, err := NewMetadata("m", []Pair{{"a", []uint64{1 << 63}}}); err != nil {
		t.Error(err)
	} else if _, err := big.Ints("a"); !errors.Is(err, ErrFormat) {
		t.Errorf("a number beyond an int: %v", err)
	}
}

// rawGGUF puts a file together from parts that need not fit.
type rawGGUF struct{ bytes.Buffer }

func (r *rawGGUF) put(values ...any) *rawGGUF {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			r.put(uint64(len(v)), []byte(v))
		case int:
			r.put(uint32(v))
		default:
			if err := binary.Write(r, binary.LittleEndian, v); err != nil {
				panic(err)
			}
		}
	}
	return r
}

// head begins a file of so many tensors and keys.
func head(version, tensors, keys int) *rawGGUF {
	return new(rawGGUF).put([]byte("GGUF"), version, uint64(tensors), uint64(keys))
}

// sized fills a file up to a size in bytes.
func (r *rawGGUF) sized(n int) []byte {
	return append(r.Bytes(), make([]byte, max(0, n-r.Len()))...)
}

func TestGGUFVersion2(t *testing.T) {
	t.Parallel()
	data := head(2, 1, 1).put("n", 4, 7, "t", 2, uint64(2), uint64(1), 0, uint64(0)).sized(96 + 8)
	s, err := OpenFile(fstest.MapFS{"m.gguf": {Data: data}}, "m.gguf")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Metadata().Int("n"); n != 7 || err != nil {
		t.Errorf("n is %d, %v", n, err)
	}
	if _, err := s.Tensor("t", 1, 2); err != nil {
		t.Error(err)
	}
}

func TestBrokenGGUF(t *testing.T) {
	t.Parallel()
	tensors := func(put ...any) []byte { return head(3, 1, 0).put(put...).sized(4096) }
	value := func(put ...any) []byte { return head(3, 0, 1).put("key").put(put...).sized(4096) }
	const big = uint64(1) << 62
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "values of 1 bytes or more at byte 0, and 0 bytes left"},
		{"other magic", []byte("GGML0000000000000000000000"), `begins with "GGML"`},
		{"version 1", head(1, 0, 0).Bytes(), "version 1"},
		{"version 4", head(4, 0, 0).Bytes(), "version 4"},
		{"big-endian", head(3<<24, 0, 0).Bytes(), "big-endian"},
		{"cut", head(3, 0, 0).Bytes()[:20], "left in the header"},
		{"too many tensors", head(3, 1<<40, 0).sized(4096), "1099511627776 tensors"},
		{"too many keys", head(3, 0, 1<<40).sized(4096), "1099511627776 keys"},
		{"negative counts", head(3, -1, -1).sized(4096), "18446744073709551615 tensors"},
		{"empty key", head(3, 0, 1).put("", 0).sized(4096), "a key at byte 32 has a name of 0 bytes"},
		{"long key", head(3, 0, 1).put(strings.Repeat("k", 1<<16), 0, byte(0)).sized(1 << 17), "a name of 65536 bytes"},
		{"key beyond the file", head(3, 0, 1).put(uint64(5000)).sized(4096), "left in the header"},
		{"duplicate key", head(3, 0, 2).put("key", 0, byte(1), "key", 0, byte(2)).Bytes(), `key "key" occurs twice`},
		{"unknown type", value(13), `key "key": unknown type 13`},
		{"unknown type in an array", value(9, 13, uint64(0)), `key "key": unknown type 13`},
		{"no bool", value(7, byte(2)), `key "key": a bool is 2`},
		{"no bool in an array", value(9, 7, uint64(2), byte(1), byte(9)), `key "key": a bool is 9`},
		{"long string", value(8, big), `key "key": 4611686018427387904 values`},
		{"huge array", value(9, 4, big), `key "key": 4611686018427387904 values`},
		{"huge array of strings", value(9, 8, big), `key "key": 4611686018427387904 values`},
		{"huge array of arrays", value(9, 9, big), `key "key": 4611686018427387904 values`},
		{"deep array", value(9, 9, uint64(1), 9, uint64(1), 9, uint64(1), 9, uint64(1), 9, uint64(1)), "nested more than 4 deep"},
		{"alignment 0", head(3, 0, 1).put("general.alignment", 4, 0).Bytes(), "power of two"},
		{"alignment 24", head(3, 0, 1).put("general.alignment", 4, 24).Bytes(), "power of two"},
		{"alignment of another type", head(3, 0, 1).put("general.alignment", 10, uint64(32)).Bytes(), "uint32"},
		{"unnamed tensor", tensors("", 1, uint64(1), 0, uint64(0)), "a tensor at byte 32"},
		{"five axes", tensors("t", 5, big, big, big, big), `tensor "t": 5 axes, limit 4`},
		{"overflowing product", tensors("t", 2, big, big, 0, uint64(0)), `tensor "t": type F32`},
		{"overflowing bytes", tensors("t", 1, big, 0, uint64(0)), `tensor "t": type F32`},
		{"negative axis", tensors("t", 2, uint64(0), uint64(math.MaxUint64), 0, uint64(0)), `tensor "t": type F32`},
		{"row of half a block", tensors("t", 2, uint64(16), uint64(2), 8, uint64(0)), `tensor "t": type Q8_0, shape [2 16]`},
		{"offset beyond int64", tensors("t", 1, uint64(1), 0, uint64(1)<<63), `tensor "t": type F32`},
		{"unaligned", tensors("t", 1, uint64(1), 0, uint64(8)), `tensor "t": offset 8 is no multiple of 32`},
		{"beyond the file", tensors("t", 1, uint64(1), 0, uint64(4096)), `tensor "t": 4 bytes from byte 4096`},
		{"too long", tensors("t", 1, uint64(1024), 0, uint64(0)), `tensor "t": 4096 bytes from byte 0`},
		{"offset overflow", tensors("t", 1, uint64(1), 0, uint64(math.MaxInt64&^31)), `tensor "t": 4 bytes from`},
		{"unknown type beyond the file", tensors("t", 1, uint64(1), 99, uint64(8192)), `tensor "t": 0 bytes from byte 8192`},
		{"duplicate tensor", head(3, 2, 0).put("t", 1, uint64(1), 0, uint64(0), "t", 1, uint64(1), 0, uint64(32)).sized(4096), `tensor "t" is in`},
		{"overlap", head(3, 2, 0).put("a", 1, uint64(10), 0, uint64(0), "b", 1, uint64(1), 0, uint64(32)).sized(4096), `tensor "b": begins inside of "a"`},
		{"no data", head(3, 1, 0).put("t", 1, uint64(0), 0, uint64(0)).Bytes(), `tensor "t": 0 bytes`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fsys := fstest.MapFS{"x.gguf": {Data: tt.data}}
			_, err := OpenFile(fsys, "x.gguf")
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "x.gguf") {
				t.Errorf("error %v, want ErrFormat with %q and the file", err, tt.want)
			}
			if _, header := ReadFileHeader(fsys, "x.gguf"); header == nil || header.Error() != err.Error() {
				t.Errorf("ReadFileHeader: %v", header)
			}
		})
	}
}

func TestGGUFUnsupportedTypes(t *testing.T) {
	t.Parallel()
	data := head(3, 3, 0).
		put("fine", 1, uint64(2), 0, uint64(0)).
		put("iq", 2, uint64(256), uint64(1), 16, uint64(32)).
		put("new", 1, uint64(5), 99, uint64(128)).sized(4096)
	s, err := OpenFile(fstest.MapFS{"m.gguf": {Data: data}}, "m.gguf")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tensor("fine", 2); err != nil {
		t.Error(err)
	}
	for name, kind := range map[string]string{"iq": "IQ2_XXS", "new": "number 99"} {
		info, err := s.Header().Lookup(name)
		if err != nil || info.Kind != kind || info.DType != 0 {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
		if _, err := s.Lookup(name); !errors.Is(err, ErrShape) || !strings.Contains(err.Error(), kind) || !strings.Contains(err.Error(), "m.gguf") {
			t.Errorf("lookup of %s: %v", name, err)
		}
	}
	if got := len(s.Header().Tensors()); got != 3 {
		t.Errorf("%d tensors", got)
	}
}

// TestGGUFTypes checks that package tensor and the table agree on what a block is.
func TestGGUFTypes(t *testing.T) {
	t.Parallel()
	for number, entry := range ggufTypes {
		if entry.dtype == 0 {
			continue
		}
		elements, bytes := entry.dtype.Block()
		if uint64(elements) != entry.block || uint64(bytes) != entry.bytes || entry.dtype.String() != entry.name {
			t.Errorf("type %d: %+v, but tensor has %v of %d elements in %d bytes", number, entry, entry.dtype, elements, bytes)
		}
	}
}

func TestSplitGGUF(t *testing.T) {
	t.Parallel()
	part := func(i, n, total int, name string) *fstest.MapFile {
		return &fstest.MapFile{Data: gguf(t, []Pair{
			{"split.no", uint16(i)}, {"split.count", uint16(n)}, {"split.tensors.count", int32(total)}, {"file", name},
		}, bytesOf(name, tensor.I8, []int{3}, ramp(3)...))}
	}
	good := fstest.MapFS{
		"m-00001-of-00003.gguf": part(0, 3, 3, "a"), "m-00002-of-00003.gguf": part(1, 3, 3, "b"), "m-00003-of-00003.gguf": part(2, 3, 3, "c"),
	}
	with := func(name string, file *fstest.MapFile) fstest.MapFS {
		fsys := fstest.MapFS{}
		for n, f := range good {
			fsys[n] = f
		}
		if fsys[name] = file; file == nil {
			delete(fsys, name)
		}
		return fsys
	}
	for _, tt := range []struct {
		name, file string
		fsys       fstest.MapFS
		want       error
		text       string
	}{
		{"good", "m-00001-of-00003.gguf", good, nil, ""},
		{"not the first", "m-00002-of-00003.gguf", good, ErrFormat, "m-00002-of-00003.gguf is not the first of the 3 files"},
		{"missing", "m-00001-of-00003.gguf", with("m-00003-of-00003.gguf", nil), fs.ErrNotExist, "m-00003-of-00003.gguf"},
		{"other number", "m-00001-of-00003.gguf", with("m-00002-of-00003.gguf", part(2, 3, 3, "b")), ErrFormat, `m-00002-of-00003.gguf: key "split.no" is 2, want 1`},
		{"other count", "m-00001-of-00003.gguf", with("m-00002-of-00003.gguf", part(1, 4, 3, "b")), ErrFormat, `m-00002-of-00003.gguf: key "split.count" is 4, want 3`},
		{"no part", "m-00001-of-00003.gguf", with("m-00002-of-00003.gguf", &fstest.MapFile{Data: gguf(t, nil)}), ErrNoKey, `m-00002-of-00003.gguf: key "split.no"`},
		{"tensor twice", "m-00001-of-00003.gguf", with("m-00002-of-00003.gguf", part(1, 3, 3, "a")), ErrFormat, `tensor "a" is in m-00001-of-00003.gguf too`},
		{"other number of tensors", "m-00001-of-00003.gguf", with("m-00001-of-00003.gguf", part(0, 3, 4, "a")), ErrFormat, `key "split.tensors.count" is 4`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := OpenFile(tt.fsys, tt.file)
			if !errors.Is(err, tt.want) || tt.want != nil && !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want %v with %q", err, tt.want, tt.text)
			}
			if err != nil {
				return
			}
			if name, err := s.Metadata().String("file"); name != "a" || err != nil {
				t.Errorf("metadata of %q, %v", name, err)
			}
			if got := s.Names(); !slices.Equal(got, []string{"a", "b", "c"}) {
				t.Errorf("names %q", got)
			}
			if h := s.Header(); h.Parameters() != 9 || len(h.Files) != 3 || h.Bytes() != s.Bytes() {
				t.Errorf("header %+v", h)
			}
		})
	}
}

func TestFindFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		there string // files, of which those of *.index.json list a-1.bin
		base  string
		want  string
		err   error
	}{
		{"safetensors first", "model.safetensors model.gguf pytorch_model.bin", "model", "model.safetensors", nil},
		{"the base's GGUF", "model.gguf other.gguf", "model", "model.gguf", nil},
		{"the only GGUF", "Llama-Q4_K_M.gguf mmproj-Llama.gguf README.md", "model", "Llama-Q4_K_M.gguf", nil},
		{"two GGUF", "a.gguf b.gguf", "model", "", ErrFormat},
		{"split GGUF", "m-00001-of-00002.gguf m-00002-of-00002.gguf", "model", "m-00001-of-00002.gguf m-00002-of-00002.gguf", nil},
		{"split GGUF cut short", "m-00001-of-00002.gguf", "model", "", fs.ErrNotExist},
		{"GGUF before PyTorch", "m.gguf pytorch_model.bin", "model", "m.gguf", nil},
		{"PyTorch", "pytorch_model.bin", "model", "pytorch_model.bin", nil},
		{"PyTorch by base", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model", "unet/diffusion_pytorch_model.bin", nil},
		{"PyTorch in files", "pytorch_model.bin.index.json a-1.bin", "model", "a-1.bin", nil},
		{"PyTorch in files of a folder", "x/pytorch_model.bin.index.json x/a-1.bin", "x/model", "x/a-1.bin", nil},
		{"PyTorch by another ending", "model.ckpt README.md", "model", "model.ckpt", nil},
		{"missing shard", "pytorch_model.bin.index.json", "model", "", fs.ErrNotExist},
		{"nothing", "README.md", "model", "", fs.ErrNotExist},
		{"no folder", "README.md", "x/model", "", fs.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fsys := fstest.MapFS{}
			for name := range strings.FieldsSeq(tt.there) {
				fsys[name] = &fstest.MapFile{Data: []byte(`{"weight_map": {"t": "a-1.bin"}}`)}
			}
			files, err := Files(fsys, tt.base)
			var names []string
			for _, f := range files {
				names = append(names, f.Name)
			}
			if got := strings.Join(names, " "); !errors.Is(err, tt.err) || err == nil && got != tt.want {
				t.Errorf("files %q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestWriteGGUFRefuses(t *testing.T) {
	t.Parallel()
	fine := bytesOf("t", tensor.I8, []int{2}, 1, 2)
	broken := errors.New("no source")
	gone, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	one := func(s Source) []Source { return []Source{s} }
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		pairs   []Pair
		tensors []Source
		want    error
	}{
		{"key twice", t.Context(), []Pair{{"a", true}, {"a", true}}, nil, ErrFormat},
		{"no key", t.Context(), []Pair{{"", true}}, nil, ErrFormat},
		{"int", t.Context(), []Pair{{"a", 1}}, nil, ErrFormat},
		{"nil", t.Context(), []Pair{{"a", nil}}, nil, ErrFormat},
		{"array of scalars", t.Context(), []Pair{{"a", []any{1}}}, nil, ErrFormat},
		{"deep array", t.Context(), []Pair{{"a", []any{[]any{[]any{[]any{[]bool{true}}}}}}}, nil, ErrFormat},
		{"alignment", t.Context(), []Pair{{"general.alignment", uint32(3)}}, nil, ErrFormat},
		{"no name", t.Context(), nil, one(bytesOf("", tensor.I8, []int{1}, 1)), ErrFormat},
		{"long name", t.Context(), nil, one(bytesOf(strings.Repeat("n", 128), tensor.I8, []int{1}, 1)), ErrFormat},
		{"name twice", t.Context(), nil, []Source{fine, fine}, ErrFormat},
		{"no such type", t.Context(), nil, one(bytesOf("t", tensor.U8, []int{1}, 1)), ErrShape},
		{"no type", t.Context(), nil, one(bytesOf("t", 0, []int{1}, 1)), ErrShape},
		{"half a block", t.Context(), nil, one(bytesOf("t", tensor.Q8_0, []int{2, 16}, ramp(34)...)), ErrShape},
		{"negative", t.Context(), nil, one(bytesOf("t", tensor.I8, []int{-1})), ErrShape},
		{"five axes", t.Context(), nil, one(bytesOf("t", tensor.I8, []int{1, 1, 1, 1, 1}, 1)), ErrShape},
		{"too little", t.Context(), nil, one(bytesOf("t", tensor.I8, []int{2}, 1)), ErrShape},
		{"too much", t.Context(), nil, one(bytesOf("t", tensor.I8, []int{2}, 1, 2, 3)), ErrShape},
		{"broken source", t.Context(), nil, one(Source{"t", tensor.I8, []int{2}, func(io.Writer) error { return broken }}), broken},
		{"cancelled", gone, nil, one(fine), broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := filepath.Join(t.TempDir(), "m.gguf")
			if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := WriteGGUF(tt.ctx, name, tt.pairs, tt.tensors); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			left, err := os.ReadDir(filepath.Dir(name))
			if old, _ := os.ReadFile(name); err != nil || len(left) != 1 || string(old) != "old" {
				t.Errorf("left behind %v, %v, %q", left, err, old)
			}
		})
	}
	if err := WriteGGUF(t.Context(), filepath.Join(t.TempDir(), "gone", "m.gguf"), nil, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into no folder: %v", err)
	}
}

// FuzzGGUF checks that whatever parses is sound, and is read back as it is when it is
// written again.
func FuzzGGUF(f *testing.F) {
	f.Add(gguf(f, allKinds, bytesOf("a", tensor.F32, []int{2, 3}, ramp(24)...), bytesOf("b", tensor.Q8_0, []int{2, 32}, ramp(68)...)))
	f.Add(gguf(f, []Pair{{"general.alignment", uint32(1)}}, bytesOf("a", tensor.I8, nil, 1), bytesOf("b", tensor.F16, []int{0})))
	f.Add(head(2, 1, 1).put("n", 4, 7, "t", 2, uint64(256), uint64(1), 16, uint64(0)).sized(256))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := OpenFile(fstest.MapFS{"m.gguf": {Data: data}}, "m.gguf")
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v does not wrap ErrFormat", err)
			}
			return
		}
		var sources []Source
		for _, info := range s.Header().Tensors() {
			x, err := s.Lookup(info.Name)
			if err != nil {
				if info.DType != 0 {
					t.Errorf("tensor %q: %v", info.Name, err)
				}
				continue
			}
			if int64(len(x.Data)) != info.Bytes || info.Bytes != info.DType.Bytes(int(info.Len())) {
				t.Errorf("tensor %q: %v %v over %d bytes", x.Name, x.DType, x.Shape, len(x.Data))
			}
			if len(x.Name) <= maxGGUFName {
				sources = append(sources, bytesOf(x.Name, x.DType, x.Shape, x.Data...))
			}
		}
		again := gguf(t, s.Metadata().Pairs(), sources...)
		copied, err := OpenFile(fstest.MapFS{"m.gguf": {Data: again}}, "m.gguf")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(copied.Metadata().Pairs()), fmt.Sprint(s.Metadata().Pairs()); got != want {
			t.Errorf("metadata %s, want %s", got, want)
		}
		checkSources(t, copied, sources)
	})
}

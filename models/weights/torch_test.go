package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
)

// pickler writes pickles. An int is a number, a string a text, a slice a tuple; the
// others are the types below.
type pickler struct {
	bytes.Buffer
	legacy bool // references have a sixth field
}

type (
	list   []any
	dict   []any // keys and values in turn
	called struct {
		name string
		args []any
	}
	named string   // a global
	typed struct { // a storage
		kind, key string
		length    int
	}
	raw string // instructions as they are
)

// rebuilt is a tensor of float32, with its strides.
func rebuilt(key string, length, offset int, shape, strides []any) called {
	return called{"torch._utils _rebuild_tensor_v2", []any{typed{"FloatStorage", key, length}, offset, shape, strides, false, called{"collections OrderedDict", nil}}}
}

func (p *pickler) put(value any) {
	switch v := value.(type) {
	case nil:
		p.WriteByte('N')
	case bool:
		p.WriteByte(map[bool]byte{true: 0x88, false: 0x89}[v])
	case int:
		switch {
		case v >= 0 && v < 256:
			p.Write([]byte{'K', byte(v)})
		case v == int(int32(v)):
			p.Write(binary.LittleEndian.AppendUint32([]byte{'J'}, uint32(v)))
		default:
			p.Write(binary.LittleEndian.AppendUint64([]byte{0x8a, 8}, uint64(v)))
		}
	case float64:
		p.Write(binary.BigEndian.AppendUint64([]byte{'G'}, math.Float64bits(v)))
	case string:
		p.Write(binary.LittleEndian.AppendUint32([]byte{'X'}, uint32(len(v))))
		p.WriteString(v)
	case raw:
		p.WriteString(string(v))
	case named:
		p.WriteString("c" + strings.Replace(string(v), " ", "\n", 1) + "\n")
	case []any:
		p.WriteByte('(')
		p.all(v)
		p.WriteByte('t')
	case list:
		p.WriteString("](")
		p.all(v)
		p.WriteByte('e')
	case dict:
		p.WriteString("}(")
		p.all(v)
		p.WriteByte('u')
	case called:
		p.put(named(v.name))
		p.put(v.args)
		p.WriteByte('R')
	case typed:
		id := []any{"storage", named("torch " + v.kind), v.key, "cpu", v.length}
		if p.legacy {
			id = append(id, nil)
		}
		p.put(id)
		p.WriteByte('Q')
	default:
		panic(fmt.Sprintf("no pickle of %T", v))
	}
}

func (p *pickler) all(values []any) {
	for _, v := range values {
		p.put(v)
	}
}

func (p *pickler) dump(values ...any) []byte {
	for _, v := range values {
		p.WriteString("\x80\x02")
		p.put(v)
		p.WriteByte('.')
	}
	return p.Bytes()
}

// archive writes a zip archive of names and contents in turn.
func archive(method uint16, files ...any) []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		w, err := z.CreateHeader(&zip.FileHeader{Name: files[i].(string), Method: method})
		if err != nil {
			panic(err)
		}
		if _, err := w.Write(files[i+1].([]byte)); err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// checkpoint is an archive of an object, with storage 0 of the floats 0 to 5.
func checkpoint(object any) []byte {
	return archive(zip.Store, "m/data.pkl", new(pickler).dump(object), "m/data/0", floats(6), "m/version", []byte("3\n"))
}

// legacy is the same in the form before PyTorch 1.6.
func legacy(object any) []byte {
	p := &pickler{legacy: true}
	p.WriteString(legacyMagic + ".")
	p.dump(1001, dict{"protocol_version", 1001, "little_endian", true}, object, list{"0"})
	return append(binary.LittleEndian.AppendUint64(p.Bytes(), 6), floats(6)...)
}

// floats returns the numbers from 0 to n-1.
func floats(n int) (data []byte) {
	for i := range n {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(i)))
	}
	return data
}

func TestTorch(t *testing.T) {
	t.Parallel()
	square := rebuilt("0", 6, 0, []any{2, 3}, []any{3, 1})
	state := []any{
		"whole", square,
		"turned", rebuilt("0", 6, 0, []any{3, 2}, []any{1, 3}),
		"row", rebuilt("0", 6, 3, []any{3}, []any{1}),
		"column", rebuilt("0", 6, 1, []any{2}, []any{3}),
		"scalar", rebuilt("0", 6, 4, []any{}, []any{}),
		"spread", rebuilt("0", 6, 2, []any{2, 2}, []any{0, 1}),
		"none", rebuilt("0", 6, 0, []any{0, 7}, []any{7, 1}),
		"parameter", called{"torch._utils _rebuild_parameter", []any{square, true, called{"collections OrderedDict", nil}}},
		"bytes", called{"torch._utils _rebuild_tensor_v3", []any{typed{"UntypedStorage", "1", 8}, 1, []any{2}, []any{1}, false, nil, named("torch float16"), nil}},
		"block", dict{"inner", square, 7, square},
		"list", list{1.5, []any{square}},
	}
	want := map[string]string{
		"whole": "[2 3] [0 1 2 3 4 5]", "turned": "[3 2] [0 3 1 4 2 5]", "row": "[3] [3 4 5]", "column": "[2] [1 4]",
		"scalar": "[] [4]", "spread": "[2 2] [2 3 2 3]", "none": "[0 7] []", "parameter": "[2 3] [0 1 2 3 4 5]",
		"bytes": "[2] [1 2]", "block.inner": "[2 3] [0 1 2 3 4 5]", "list.1.0": "[2 3] [0 1 2 3 4 5]",
	}
	ordered := called{"collections OrderedDict", nil}
	var p pickler
	p.put(ordered)
	p.WriteByte('(')
	p.all(state)
	p.put(raw("u"))
	p.put(dict{"_metadata", ordered}) // what a state dictionary carries along
	p.put(raw("b"))
	halves := []byte{0, 0, 0, 0x3c, 0, 0x40, 0, 0}
	for name, object := range map[string]any{
		"dictionary":         dict(state),
		"ordered dictionary": raw(p.String()),
		"nested":             dict{"state_dict", dict(state), "optimizer", dict{"x", square}, "epoch", 3, "date", called{"numpy.core.multiarray scalar", []any{1}}},
		"model":              dict{"model", dict(state), "lr", 0.1, "shape", called{"torch Size", []any{[]any{1}}}, "none", nil, "large", int(math.MaxInt64), "less", -5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := archive(zip.Store, "m/data.pkl", new(pickler).dump(object), "m/byteorder", []byte("little"), "m/data/0", floats(6), "m/data/1", halves)
			s, err := OpenFile(fstest.MapFS{"m.pt": {Data: data}}, "m.pt")
			if err != nil {
				t.Fatal(err)
			}
			if s.Header().Format != PyTorch || len(s.Names()) != len(want) {
				t.Errorf("%s with %q", s.Header().Format, s.Names())
			}
			for name, want := range want {
				x, err := s.Lookup(name)
				if err != nil {
					t.Error(err)
				} else if got := fmt.Sprint(x.Shape, x.Float32s()); got != want {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
			}
		})
	}
}

func TestTorchLegacy(t *testing.T) {
	t.Parallel()
	data := legacy(dict{"a", rebuilt("0", 6, 0, []any{3, 2}, []any{1, 3})})
	s, err := OpenFile(fstest.MapFS{"m.bin": {Data: data}}, "m.bin")
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Tensor("a", 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Float32s(); !slices.Equal(got, []float32{0, 3, 1, 4, 2, 5}) {
		t.Errorf("%v", got)
	}
}

func TestTorchElements(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]tensor.DType{
		"FloatStorage": tensor.F32, "HalfStorage": tensor.F16, "BFloat16Storage": tensor.BF16, "DoubleStorage": tensor.F64,
		"LongStorage": tensor.I64, "IntStorage": tensor.I32, "ShortStorage": tensor.I16, "CharStorage": tensor.I8,
		"ByteStorage": tensor.U8, "BoolStorage": tensor.Bool, "cuda.HalfStorage": tensor.F16, "ComplexFloatStorage": 0,
	} {
		x := called{"torch._utils _rebuild_tensor_v2", []any{typed{kind, "0", 2}, 0, []any{2}, []any{1}}}
		s, err := OpenFile(fstest.MapFS{"m.pt": {Data: checkpoint(dict{"x", x})}}, "m.pt")
		if err != nil {
			t.Fatal(err)
		}
		info, err := s.Header().Lookup("x")
		if err != nil || info.DType != want {
			t.Errorf("%s: %+v, %v", kind, info, err)
		}
		if _, err := s.Lookup("x"); want == 0 && (!errors.Is(err, ErrShape) || !strings.Contains(err.Error(), "complex64")) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestTorchShards(t *testing.T) {
	t.Parallel()
	x := rebuilt("0", 6, 0, []any{6}, []any{1})
	fsys := fstest.MapFS{
		"pytorch_model.bin.index.json": {Data: []byte(`{"weight_map":{"a":"pytorch_model-1.bin","b":"pytorch_model-2.bin"}}`)},
		"pytorch_model-1.bin":          {Data: checkpoint(dict{"a", x})},
		"pytorch_model-2.bin":          {Data: legacy(dict{"b", x})},
	}
	s, err := Open(fsys, "model")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Names(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("names %q", got)
	}
	h, err := ReadHeader(fsys, "model")
	if err != nil || h.Parameters() != 12 || h.Bytes() != s.Bytes() {
		t.Errorf("header %+v, %v", h, err)
	}
	delete(fsys, "pytorch_model-2.bin")
	if _, err := Open(fsys, "model"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a shard: %v", err)
	}
}

func TestBrokenTorch(t *testing.T) {
	t.Parallel()
	fine := rebuilt("0", 6, 0, []any{6}, []any{1})
	pickle := func(instructions string) []byte { return checkpoint(raw(instructions)) }
	view := func(length, offset int, shape, strides []any) []byte {
		return checkpoint(dict{"x", rebuilt("0", length, offset, shape, strides)})
	}
	id := func(id ...any) []byte {
		var p pickler
		p.put(id)
		return pickle(p.String() + "Q")
	}
	deep := any(fine)
	for range 40 {
		deep = dict{"x", deep}
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, `begins with ""`},
		{"other", []byte("hello"), `begins with "hello"`},
		{"cut archive", checkpoint(dict{"x", fine})[:100], "zip"},
		{"no pickle", archive(zip.Store, "m/data/0", floats(6)), "no data.pkl"},
		{"compressed", archive(zip.Deflate, "m/data.pkl", new(pickler).dump(dict{"x", fine})), "m/data.pkl is compressed"},
		{"no storage", archive(zip.Store, "m/data.pkl", new(pickler).dump(dict{"x", fine})), "no m/data/0"},
		{"short storage", archive(zip.Store, "m/data.pkl", new(pickler).dump(dict{"x", fine}), "m/data/0", floats(5)), "m/data/0 has 20 bytes, want 6 of float32"},
		{"big-endian", archive(zip.Store, "m/data.pkl", new(pickler).dump(1), "m/byteorder", []byte("big")), `byte order "big"`},
		{"command", checkpoint(called{"os system", []any{"true"}}), `global "os.system" is not one`},
		{"command by protocol 4", pickle("\x8c\x02os\x8c\x06system\x93"), `global "os.system" is not one`},
		{"builtin", checkpoint(called{"builtins eval", []any{"1"}}), `global "builtins.eval" is not one`},
		{"attribute", checkpoint(named("torch load")), `global "torch.load" is not one`},
		{"module", checkpoint(named("collections OrderedDict.__class__")), `global "collections.OrderedDict.__class__"`},
		{"long name", checkpoint(named("a " + strings.Repeat("b", 300))), "a name of more than 256 bytes"},
		{"call of a type", checkpoint(called{"torch FloatStorage", nil}), `global "torch.FloatStorage" is called`},
		{"call of a number", pickle("K\x01)R"), "1 is called with a tuple"},
		{"call without a tuple", pickle("ccollections\nOrderedDict\nNR"), "is called with None"},
		{"instance", pickle("(cos\nsystem\no"), `global "os.system"`},
		{"unknown instruction", pickle("i"), "instruction 0x69"},
		{"text instruction", pickle("I1\n"), "instruction 0x49"},
		{"later protocol", pickle("\x80\x06"), "protocol 6"},
		{"empty stack", pickle("0"), "fewer than 1"},
		{"nothing to store", pickle("q\x00"), "has no object"},
		{"not stored", pickle("h\x07"), "object 7"},
		{"no group", pickle("K\x01t"), "no start"},
		{"odd group", pickle("}(K\x01u"), "1 objects for a dictionary"},
		{"group for a list", pickle("](K\x01K\x02u"), "2 objects for a list"},
		{"group for a number", pickle("K\x01(K\x01e"), "1 is no list"},
		{"long text", pickle("X\xff\xff\xff\xff"), "values of 1 bytes"},
		{"no end", archive(zip.Store, "m/data.pkl", []byte("\x80\x02K\x01")), "0 bytes left"},
		{"global without a name", pickle("K\x01K\x02\x93"), "without a name"},
		{"tensor with a state", pickle(string(bytes.TrimSuffix(new(pickler).dump(fine), []byte("."))) + "}b"), "state of its own"},
		{"no tensors", checkpoint(dict{"x", 1}), "no tensors"},
		{"deep", checkpoint(deep), "nested more than 32"},
		{"tensor twice", checkpoint(dict{"x", fine, "x", fine}), `tensor "x" is in`},
		{"dictionary of numbers", checkpoint(called{"collections OrderedDict", []any{list{1}}}), "1 is no key"},
		{"no reference", pickle("NQ"), "no storage"},
		{"other reference", id("module", 1, 2, 3, 4), "no storage"},
		{"legacy view", id("storage", named("torch FloatStorage"), "0", "cpu", 6, []any{"1", 0, 6}), "no storage"},
		{"storage of no type", id("storage", named("torch Size"), "0", "cpu", 6), "of type torch.Size"},
		{"negative storage", id("storage", named("torch FloatStorage"), "0", "cpu", -6), "with -6 elements"},
		{"huge storage", id("storage", named("torch FloatStorage"), "0", "cpu", math.MaxInt), "elements"},
		{"storage of two types", checkpoint(list{typed{"FloatStorage", "0", 6}, typed{"HalfStorage", "0", 6}}), `storage "0" is of 6 float32 and of 6 float16`},
		{"view beyond", view(6, 0, []any{7}, []any{1}), "shape [7]"},
		{"offset beyond", view(6, 1, []any{6}, []any{1}), "from element 1"},
		{"stride beyond", view(6, 0, []any{2, 2}, []any{6, 1}), "strides [6 1]"},
		{"scalar beyond", view(6, 6, []any{}, []any{}), "from element 6"},
		{"negative offset", view(6, -1, []any{1}, []any{1}), "-1 is no offset"},
		{"negative stride", view(6, 5, []any{6}, []any{-1}), "-1 is no size"},
		{"huge strides", view(6, 0, []any{2, 2, 1}, []any{math.MaxInt, math.MaxInt, math.MaxInt}), "strides"},
		{"overflowing shape", view(6, 0, []any{math.MaxInt, 0, math.MaxInt}, []any{0, 0, 0}), ""},
		{"spread without end", view(6, 0, []any{1 << 40, 1 << 20}, []any{0, 0}), "of a storage of 6 elements"},
		{"strides of another number", view(6, 0, []any{2}, []any{}), "shape [2] has strides []"},
		{"shape of texts", view(6, 0, []any{"a"}, []any{1}), `"a" is no size`},
		{"tensor of nothing", checkpoint(called{"torch._utils _rebuild_tensor_v2", nil}), "0 arguments"},
		{"tensor of a number", checkpoint(called{"torch._utils _rebuild_tensor_v2", []any{1, 2, 3, 4}}), "1 is no storage"},
		{"parameter of nothing", checkpoint(called{"torch._utils _rebuild_parameter", nil}), "no argument"},
		{"legacy without storages", new(pickler).dump(raw(legacyMagic[2:]), 1001, dict{}, dict{"x", fine}), "left in the header"},
		{"legacy of another version", new(pickler).dump(raw(legacyMagic[2:]), 1000), "version 1000"},
		{"legacy big-endian", new(pickler).dump(raw(legacyMagic[2:]), 1001, dict{"little_endian", false}, 1, list{}), "big-endian"},
		{"legacy cut", legacy(dict{"x", fine})[:150], "left in the header"},
		{"legacy short storage", legacy(dict{"x", fine})[:len(legacy(dict{"x", fine}))-1], `storage "0" ends beyond the file`},
		{"legacy storage not listed", legacy(dict{"x", rebuilt("1", 6, 0, []any{6}, []any{1})}), `storage "0" is not used`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := OpenFile(fstest.MapFS{"x.pt": {Data: tt.data}}, "x.pt")
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "x.pt") {
				t.Errorf("error %v, want ErrFormat with %q and the file", err, tt.want)
			}
		})
	}
}

// TestPickleBombs checks that small files that stand for much are refused in good time.
func TestPickleBombs(t *testing.T) {
	t.Parallel()
	shared := "}q\x00" + string(new(pickler).dump(rebuilt("0", 6, 0, []any{6}, []any{1}))[2:]) // an object under 0
	shared = strings.TrimSuffix(shared, ".") + "0"
	for range 30 { // each holds the one before twice
		shared += "}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00uq\x00"
	}
	tuples := ")q\x00"
	for range 60 {
		tuples += "0h\x00h\x00\x86q\x00"
	}
	asTuple := strings.TrimSuffix(string(new(pickler).dump(rebuilt("0", 6, 0, []any{6}, []any{1}))), ".")[2:]
	// A dictionary is made of a long list time and again.
	pairs := "ccollections\nOrderedDict\nq\x010NN\x86q\x000](" + strings.Repeat("h\x00", 100_000) + "e\x85q\x02"
	itself := "}q\x00X\x01\x00\x00\x00ah\x00s"
	for name, instructions := range map[string]string{
		"shared":       shared,
		"itself":       itself,
		"tuples":       tuples,
		"tuple named":  tuples + strings.Replace(asTuple, "K\x00", "h\x00", 1),
		"instructions": strings.Repeat("N0", maxPickleSteps),
		"copies":       pairs + strings.Repeat("h\x01h\x02R0", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := OpenFile(fstest.MapFS{"x.pt": {Data: checkpoint(raw(instructions))}}, "x.pt")
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "more than") && !strings.Contains(err.Error(), "a tuple is no offset") {
				t.Errorf("error %v, want that it is too much", err)
			}
		})
	}
}

// FuzzPickle checks that whatever pickle and archive parse lead to sound tensors.
func FuzzPickle(f *testing.F) {
	x := rebuilt("0", 6, 0, []any{3, 2}, []any{1, 3})
	object := dict{"state_dict", dict{"a", x, "b", called{"torch._utils _rebuild_parameter", []any{x, true}}}, "l", list{1.5, -7, true, nil, named("torch float16")}}
	f.Add(new(pickler).dump(object), true)
	f.Add(legacy(object), false)
	f.Add(checkpoint(object), false)
	f.Add([]byte("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05torch\x8c\x04Size\x93\x94)\x81."), true)
	f.Fuzz(func(t *testing.T, data []byte, pickle bool) {
		if pickle {
			data = archive(zip.Store, "m/data.pkl", data, "m/data/0", floats(6), "m/data/1", floats(2))
		}
		s, err := OpenFile(fstest.MapFS{"m.pt": {Data: data}}, "m.pt")
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v does not wrap ErrFormat", err)
			}
			return
		}
		for _, info := range s.Header().Tensors() {
			x, err := s.Lookup(info.Name)
			if err != nil {
				if info.DType != 0 {
					t.Errorf("tensor %q: %v", info.Name, err)
				}
				continue
			}
			if int64(len(x.Data)) != info.Bytes || len(x.Data) != x.Len()*x.DType.Size() {
				t.Errorf("tensor %q: %v %v over %d bytes", x.Name, x.DType, x.Shape, len(x.Data))
			}
		}
	})
}

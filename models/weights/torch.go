package weights

import (
	"archive/zip"
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"helicon/models/tensor"
)

// Limits of a PyTorch checkpoint.
const (
	maxTorchDims    = 16
	maxTorchDepth   = 32      // of dictionaries in dictionaries
	maxTorchTensors = 1 << 18 // in one file
	maxTorchName    = 1 << 10 // bytes of a tensor's name
	maxTorchVisits  = 1 << 22 // values looked at for tensors
)

// legacyMagic is what checkpoints before PyTorch 1.6 begin with: a pickled number.
const legacyMagic = "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"

// element is a type of elements.
type element struct {
	name  string
	dtype tensor.DType // 0 if package tensor does not know the type
	bytes int64
}

// elements has the types by the names that storages have for them.
var elements = map[string]element{
	"Float": {"float32", tensor.F32, 4}, "Half": {"float16", tensor.F16, 2}, "BFloat16": {"bfloat16", tensor.BF16, 2},
	"Double": {"float64", tensor.F64, 8}, "Long": {"int64", tensor.I64, 8}, "Int": {"int32", tensor.I32, 4},
	"Short": {"int16", tensor.I16, 2}, "Char": {"int8", tensor.I8, 1}, "Byte": {"uint8", tensor.U8, 1},
	"Bool": {"bool", tensor.Bool, 1}, "Untyped": {"uint8", tensor.U8, 1},
	"ComplexFloat": {"complex64", 0, 8}, "ComplexDouble": {"complex128", 0, 16},
	"QInt8": {"qint8", 0, 1}, "QUInt8": {"quint8", 0, 1}, "QInt32": {"qint32", 0, 4},
}

// newElements has the types that have no storage of their own.
var newElements = map[string]element{
	"uint16": {"uint16", tensor.U16, 2}, "uint32": {"uint32", tensor.U32, 4}, "uint64": {"uint64", tensor.U64, 8},
	"float8_e4m3fn": {"float8_e4m3fn", 0, 1}, "float8_e5m2": {"float8_e5m2", 0, 1},
}

// elementOf returns the type that a global stands for: torch.FloatStorage, with
// whatever device, or torch.float32.
func elementOf(g global) (element, bool) {
	name, ok := strings.CutPrefix(string(g), "torch.")
	if !ok {
		return element{}, false
	}
	if kind, isStorage := strings.CutSuffix(name, "Storage"); isStorage {
		kind = strings.TrimPrefix(strings.TrimPrefix(kind, "cuda."), "storage.")
		e, ok := elements[kind]
		return e, ok
	}
	for _, e := range elements {
		if e.name == name {
			return e, true
		}
	}
	e, ok := newElements[name]
	return e, ok
}

// constructors has what may be called.
var constructors = map[global]func(pickleTuple) (any, error){
	"collections.OrderedDict":                    newDict,
	"torch._utils._rebuild_tensor":               newView,
	"torch._utils._rebuild_tensor_v2":            newView,
	"torch._utils._rebuild_tensor_v3":            newTypedView,
	"torch._utils._rebuild_parameter":            firstArgument,
	"torch._utils._rebuild_parameter_with_state": firstArgument,
	"torch.Size": firstArgument,
}

// ignoredGlobals has what may be called or named beside weights, to no effect.
var ignoredGlobals = map[global]bool{
	"numpy.core.multiarray.scalar": true, "numpy._core.multiarray.scalar": true, "numpy.dtype": true,
	"_codecs.encode": true, "builtins.set": true, "__builtin__.set": true, "builtins.complex": true,
	"torch.device": true, "torch.storage.TypedStorage": true, "torch.storage._TypedStorage": true,
}

// storage is an array of bytes that tensors are views of.
type storage struct {
	element
	key    string
	length int64 // in elements
	begin  int64 // in bytes from the start of the file
}

// view is a tensor.
type view struct {
	*storage
	element element // which a storage of bytes does not know
	offset  int64   // in elements
	shape   []int
	strides []int // in elements
}

// persistent makes the storage that a tuple names: ("storage", type, key, device,
// length), and nothing or nil after it.
func (u *unpickler) persistent(id any) any {
	t, _ := id.(pickleTuple)
	if len(t) != 5 && (len(t) != 6 || t[5] != nil) || t[0] != any("storage") {
		u.fail("a reference that is no storage")
		return nil
	}
	g, _ := t[1].(global)
	e, ok := elementOf(g)
	key, isText := t[2].(string)
	length, isNumber := t[4].(int64)
	if !ok || !isText || !isNumber || length < 0 || length > math.MaxInt/e.bytes {
		u.fail("storage %s of type %s with %s elements", describe(t[2]), describe(t[1]), describe(t[4]))
		return nil
	}
	if before := u.storages[key]; before != nil {
		if before.element != e || before.length != length {
			u.fail("storage %q is of %d %s and of %d %s", key, before.length, before.name, length, e.name)
		}
		return before
	}
	s := &storage{element: e, key: key, length: length}
	u.storages[key] = s
	return s
}

// newView makes a tensor of (storage, offset, shape, strides, …).
func newView(args pickleTuple) (any, error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("it has %d arguments", len(args))
	}
	s, ok := args[0].(*storage)
	if !ok {
		return nil, fmt.Errorf("%s is no storage", describe(args[0]))
	}
	offset, ok := args[1].(int64)
	v := &view{storage: s, element: s.element, offset: offset}
	if !ok || offset < 0 {
		return nil, fmt.Errorf("%s is no offset", describe(args[1]))
	}
	var err error
	if v.shape, err = sizes(args[2]); err != nil {
		return nil, err
	}
	if v.strides, err = sizes(args[3]); err != nil {
		return nil, err
	}
	return v, v.check()
}

// newTypedView makes a tensor of (storage, offset, shape, strides, ., ., type, …).
func newTypedView(args pickleTuple) (any, error) {
	if len(args) < 7 {
		return nil, fmt.Errorf("it has %d arguments", len(args))
	}
	s, ok := args[0].(*storage)
	g, _ := args[6].(global)
	e, isElement := elementOf(g)
	if !ok || !isElement {
		return nil, fmt.Errorf("%s of type %s is no storage", describe(args[0]), describe(args[6]))
	}
	whole := *s
	whole.element, whole.length = e, s.length*s.bytes/e.bytes
	made, err := newView(append(pickleTuple{&whole}, args[1:]...))
	if err != nil {
		return nil, err
	}
	v := made.(*view)
	v.storage = s
	return v, nil
}

// sizes takes the whole numbers of a tuple.
func sizes(value any) ([]int, error) {
	t, ok := value.(pickleTuple)
	if !ok || len(t) > maxTorchDims {
		return nil, fmt.Errorf("%s is no tuple of at most %d sizes", describe(value), maxTorchDims)
	}
	list := make([]int, len(t))
	for i, v := range t {
		n, ok := v.(int64)
		if !ok || n < 0 || n > math.MaxInt {
			return nil, fmt.Errorf("%s is no size", describe(v))
		}
		list[i] = int(n)
	}
	return list, nil
}

// check verifies that a view lies in its storage, and that it has no more elements, so
// that a copy of it is of a size that the file answers for.
func (v *view) check() error {
	if len(v.shape) != len(v.strides) {
		return fmt.Errorf("shape %v has strides %v", v.shape, v.strides)
	}
	n, ok := product(convert[uint64](v.shape), 1)
	if !ok || n > uint64(v.length) {
		return fmt.Errorf("shape %v of a storage of %d elements", v.shape, v.length)
	}
	if n == 0 {
		return nil
	}
	left := v.length - 1 - v.offset // elements after the first
	for i, stride := range v.strides {
		if steps := int64(v.shape[i] - 1); steps > 0 {
			if left < 0 || int64(stride) > left/steps {
				left = -1
				break
			}
			left -= steps * int64(stride)
		}
	}
	if left < 0 {
		return fmt.Errorf("shape %v with strides %v from element %d of a storage of %d", v.shape, v.strides, v.offset, v.length)
	}
	return nil
}

// contiguous reports whether the elements lie as their order says.
func (v *view) contiguous() bool {
	next := 1
	for i := len(v.shape) - 1; i >= 0; i-- {
		if v.shape[i] != 1 && v.strides[i] != next {
			return false
		}
		next *= v.shape[i]
	}
	return true
}

// entry describes the tensor under a name.
func (v *view) entry(name string) entry {
	e := entry{Info: Info{Name: name, DType: v.element.dtype, Kind: v.element.name, Shape: v.shape}}
	e.Bytes = e.Len() * v.element.bytes
	if e.Bytes == 0 {
		return e // an empty tensor may lie anywhere
	}
	e.begin = v.begin + v.offset*v.element.bytes
	if !v.contiguous() {
		e.strides = v.strides
	}
	return e
}

// gatherView copies the elements of a view into row-major order.
func gatherView(data []byte, e entry) []byte {
	out := make([]byte, 0, e.Bytes)
	size := e.DType.Size()
	var walk func(at, axis int)
	walk = func(at, axis int) {
		if axis == len(e.Shape) {
			out = append(out, data[at:at+size]...)
			return
		}
		for range e.Shape[axis] {
			walk(at, axis+1)
			at += e.strides[axis] * size
		}
	}
	walk(int(e.begin), 0)
	return out
}

// parseTorch reads what a checkpoint of torch.save says of its tensors: the archives
// of PyTorch 1.6 and later, and what came before them. An error names the tensor where
// there is one to name; the caller adds the file.
func parseTorch(r io.ReaderAt, size int64) ([]Pair, []entry, error) {
	head := make([]byte, min(size, int64(len(legacyMagic))))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	var root any
	var err error
	switch {
	case strings.HasPrefix(string(head), "PK"):
		root, err = readArchive(r, size)
	case string(head) == legacyMagic:
		root, err = readLegacy(r, size)
	default:
		err = fmt.Errorf("it begins with %q, and is no checkpoint of torch.save: %w", head, ErrFormat)
	}
	if err != nil {
		return nil, nil, err
	}
	entries, err := collect(root)
	return nil, entries, err
}

func newUnpickler(r io.Reader, size int64) *unpickler {
	return &unpickler{
		cursor:   &cursor{r: bufio.NewReader(r), end: min(size, maxPickle)},
		storages: map[string]*storage{},
	}
}

// readArchive reads the pickle in a zip archive and finds its storages, which are files
// in the archive.
func readArchive(r io.ReaderAt, size int64) (any, error) {
	archive, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", err, ErrFormat)
	}
	files := map[string]*zip.File{}
	dir := "" // of the pickle: a path that ends in a slash
	for _, f := range archive.File {
		files[f.Name] = f
		if before, base := path.Split(f.Name); base == "data.pkl" {
			dir = before
		}
	}
	if order := files[dir+"byteorder"]; order != nil {
		if text, err := readSmall(r, order, size); err != nil || text != "little" {
			return nil, fmt.Errorf("byte order %q, want little: %w", text, errors.Join(err, ErrFormat))
		}
	}
	pickle, length, err := stored(files[dir+"data.pkl"], dir+"data.pkl", size)
	if err != nil {
		return nil, err
	}
	u := newUnpickler(io.NewSectionReader(r, pickle, length), length)
	root := u.load()
	if u.err != nil {
		return nil, fmt.Errorf("pickle: %w", u.err)
	}
	for _, s := range u.storages {
		name := dir + "data/" + s.key
		begin, length, err := stored(files[name], name, size)
		if err != nil {
			return nil, err
		}
		if length < s.length*s.bytes {
			return nil, fmt.Errorf("%s has %d bytes, want %d of %s: %w", name, length, s.length, s.name, ErrFormat)
		}
		s.begin = begin
	}
	return root, nil
}

// stored returns where in the archive a file lies, which must not be compressed.
func stored(f *zip.File, name string, size int64) (begin, length int64, err error) {
	if f == nil {
		return 0, 0, fmt.Errorf("the archive has no %s: %w", name, ErrFormat)
	}
	if f.Method != zip.Store || f.Flags&1 != 0 || f.CompressedSize64 != f.UncompressedSize64 {
		return 0, 0, fmt.Errorf("%s is compressed or encrypted, which torch.save never does: %w", name, ErrFormat)
	}
	begin, err = f.DataOffset()
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %v: %w", name, err, ErrFormat)
	}
	if begin > size || f.UncompressedSize64 > uint64(size-begin) {
		return 0, 0, fmt.Errorf("%s ends beyond the file: %w", name, ErrFormat)
	}
	return begin, int64(f.UncompressedSize64), nil
}

// readSmall returns what a file of a few bytes in the archive says.
func readSmall(r io.ReaderAt, f *zip.File, size int64) (string, error) {
	begin, length, err := stored(f, f.Name, size)
	if err != nil {
		return "", err
	}
	data := make([]byte, min(length, 16))
	_, err = r.ReadAt(data, begin)
	return string(data), err
}

// readLegacy reads a file of PyTorch before 1.6: pickles of a number, of a version, of
// the system and of the object, one of the keys of the storages, and these in turn, each
// behind its length.
func readLegacy(r io.ReaderAt, size int64) (any, error) {
	u := newUnpickler(io.NewSectionReader(r, 0, size), size)
	u.load() // a number of 80 bits
	if version := u.load(); u.err == nil && version != any(int64(1001)) {
		u.fail("version %s, want 1001", describe(version))
	}
	if system, ok := u.load().(*pickleDict); ok && system.get("little_endian") == any(false) {
		u.fail("it is a big-endian file: only little-endian ones can be read")
	}
	root := u.load()
	keys, _ := u.load().(*pickleList)
	if u.err != nil {
		return nil, fmt.Errorf("pickle: %w", u.err)
	}
	if keys == nil {
		return nil, fmt.Errorf("no list of storages: %w", ErrFormat)
	}
	at, found := u.at, map[string]bool{}
	for _, k := range keys.items {
		key, _ := k.(string)
		s := u.storages[key]
		if s == nil || found[key] {
			return nil, fmt.Errorf("storage %q is not used or listed twice: %w", key, ErrFormat)
		}
		found[key] = true
		s.begin = at + 8
		if length := s.length * s.bytes; s.begin > size || length > size-s.begin {
			return nil, fmt.Errorf("storage %q ends beyond the file: %w", key, ErrFormat)
		}
		at = s.begin + s.length*s.bytes
	}
	if len(found) != len(u.storages) {
		return nil, fmt.Errorf("%d storages, but %d are listed: %w", len(u.storages), len(found), ErrFormat)
	}
	return root, nil
}

// get returns the value of a key, or nil.
func (d *pickleDict) get(key string) any {
	if i := slices.Index(d.keys, any(key)); i >= 0 {
		return d.values[i]
	}
	return nil
}

// collect returns the tensors of a checkpoint: those of its state dictionary, if it has
// one among other things, under the path of the keys that lead to them.
func collect(root any) ([]entry, error) {
	if dict, ok := root.(*pickleDict); ok {
		for _, key := range []string{"state_dict", "model_state_dict", "model"} {
			if state, ok := dict.get(key).(*pickleDict); ok {
				root = state
				break
			}
		}
	}
	c := collector{}
	if err := c.visit("", root, 0); err != nil {
		return nil, err
	}
	if len(c.entries) == 0 {
		return nil, fmt.Errorf("it has no tensors: %w", ErrFormat)
	}
	return c.entries, nil
}

type collector struct {
	entries []entry
	visits  int
}

// visit takes in the tensors of a value that a path leads to.
func (c *collector) visit(name string, value any, depth int) error {
	if c.visits++; c.visits > maxTorchVisits || len(c.entries) > maxTorchTensors {
		return fmt.Errorf("more than %d tensors or %d values: %w", maxTorchTensors, maxTorchVisits, ErrFormat)
	}
	if depth > maxTorchDepth || len(name) > maxTorchName {
		return fmt.Errorf("values are nested more than %d deep or under names of more than %d bytes: %w", maxTorchDepth, maxTorchName, ErrFormat)
	}
	switch value := value.(type) {
	case *view:
		c.entries = append(c.entries, value.entry(name))
	case *pickleDict:
		for i, key := range value.keys {
			if key, ok := key.(string); ok {
				if err := c.visit(join(name, key), value.values[i], depth+1); err != nil {
					return err
				}
			}
		}
	case *pickleList:
		return c.visitList(name, value.items, depth)
	case pickleTuple:
		return c.visitList(name, value, depth)
	}
	return nil
}

func (c *collector) visitList(name string, items []any, depth int) error {
	for i, item := range items {
		if err := c.visit(join(name, strconv.Itoa(i)), item, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

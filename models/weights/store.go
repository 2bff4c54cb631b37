package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"helicon/models/tensor"
)

// Errors that callers tell apart.
var (
	// ErrFormat is wrapped by every error about a file that breaks its format.
	ErrFormat = errors.New("malformed weights")
	// ErrUnsafe is wrapped, beside ErrFormat, by the error about a pickle that wants
	// anything done but have tensors read.
	ErrUnsafe = fmt.Errorf("unsafe to load: %w", ErrFormat)
	// ErrMissing is wrapped when a tensor is not in the store.
	ErrMissing = errors.New("no such tensor")
	// ErrShape is wrapped when a tensor has another shape or type than its user needs.
	ErrShape = errors.New("unsuitable tensor")
)

// Tensor is a view of a tensor in a file.
type Tensor struct {
	Name  string // in full
	DType tensor.DType
	Shape []int
	Data  []byte // little-endian, row-major; read-only, valid until the store is closed

	mapped []byte // Data, if they lie in a mapped file: no other memory may be evicted
}

// Len returns the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Matrix returns a tensor of two axes for use by kernels, sharing its memory. It
// panics for any other tensor, and for one of a type that kernels do not compute with.
func (t Tensor) Matrix() tensor.Matrix {
	if len(t.Shape) != 2 {
		panic(fmt.Sprintf("weights: tensor %q of shape %v is no matrix", t.Name, t.Shape))
	}
	return tensor.NewMatrix(t.DType, t.Shape[0], t.Shape[1], t.Data)
}

// Float32s returns the elements: exactly for F32, F16 and BF16, and as the type defines
// them for a quantised tensor. They may share the tensor's memory and must not be
// written. It panics for other types.
func (t Tensor) Float32s() []float32 {
	if !t.DType.Quantised() {
		return tensor.Float32s(t.DType, t.Data)
	}
	out := make([]float32, t.Len())
	tensor.Dequantize(out, t.DType, t.Data)
	return out
}

// Ints returns the elements of an I64, I32, U8 or BOOL tensor. It panics for other types.
func (t Tensor) Ints() []int {
	out := make([]int, t.Len())
	for i := range out {
		switch t.DType {
		case tensor.I64:
			out[i] = int(binary.LittleEndian.Uint64(t.Data[8*i:]))
		case tensor.I32:
			out[i] = int(int32(binary.LittleEndian.Uint32(t.Data[4*i:])))
		case tensor.U8, tensor.Bool:
			out[i] = int(t.Data[i])
		default:
			panic(fmt.Sprintf("weights: tensor %q of type %v is not read as integers", t.Name, t.DType))
		}
	}
	return out
}

// Evict gives the memory pages of a tensor in a mapped file back to the system, as
// after its data have been copied. They are read again when the data are touched. It
// does nothing for data that are not mapped, and on systems other than Linux.
func (t Tensor) Evict() {
	if t.mapped != nil {
		evict(t.mapped)
	}
}

// Store is a set of named tensors, or the part of it under a path. It may be read
// by any number of goroutines.
type Store struct {
	*bundle
	prefix  string // "" or ending in "."
	packing Packing
}

// Packing says how the layers that are loaded from a store keep their weights.
type Packing struct {
	On      bool          // laid out for the kernels, in memory of Arena
	Arena   *tensor.Arena // nil is the collector's heap
	Compute tensor.DType  // what the weights are converted to; 0 is as they are stored
}

// bundle is the files of a store.
type bundle struct {
	header *Header
	files  []contents // of header.Files
	open   bool

	base  *Store // of a view, nil otherwise
	views map[string]View
}

// OpenFile opens one file by its name, in the format that its ending stands for, or all
// the files of a split GGUF model, by the name of the first.
func OpenFile(fsys fs.FS, name string) (*Store, error) {
	files, err := filesOf(fsys, name)
	if err != nil {
		return nil, err
	}
	return open(fsys, files)
}

// Open opens a model's weights, in whatever format they are: see Files. The error wraps
// fs.ErrNotExist if there are none.
func Open(fsys fs.FS, base string) (*Store, error) {
	files, err := Files(fsys, base)
	if err != nil {
		return nil, err
	}
	return open(fsys, files)
}

func open(fsys fs.FS, files []File) (*Store, error) {
	b := &bundle{header: newHeader(files), open: true}
	for i := range files {
		if err := b.add(fsys, i); err != nil {
			return nil, errors.Join(err, b.release())
		}
	}
	if err := b.header.complete(); err != nil {
		return nil, errors.Join(err, b.release())
	}
	return &Store{bundle: b}, nil
}

// add opens file i and takes in its tensors.
func (b *bundle) add(fsys fs.FS, i int) error {
	file := &b.header.Files[i]
	c, err := openContents(fsys, file.Name)
	if err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	b.files = append(b.files, c)
	file.Size = int64(len(c.data))
	return b.header.add(i, bytes.NewReader(c.data))
}

func (b *bundle) release() error {
	var errs []error
	for _, c := range b.files {
		if c.unmap != nil {
			errs = append(errs, c.unmap())
		}
	}
	b.files, b.open = nil, false
	return errors.Join(errs...)
}

// Close releases the files of the whole store. Its tensors must not be used any more.
func (s *Store) Close() error {
	if s.base != nil {
		return s.base.Close()
	}
	return s.release()
}

// Evict is Tensor.Evict for all of the whole store.
func (s *Store) Evict() {
	if s.base != nil {
		s.base.Evict()
	}
	for _, c := range s.files {
		if c.unmap != nil {
			evict(c.data)
		}
	}
}

// Header describes the whole store.
func (s *Store) Header() *Header { return s.header }

// Metadata returns what the first file says beside its tensors.
func (s *Store) Metadata() Metadata { return s.header.Metadata }

// Bytes returns the size of the files of the whole store.
func (s *Store) Bytes() int64 { return s.header.Bytes() }

// Sub returns the part of the store under a path of one or more names.
func (s *Store) Sub(path string) *Store {
	return &Store{bundle: s.bundle, prefix: s.prefix + path + ".", packing: s.packing}
}

// Packed returns the same part of the store, whose layers are laid out for the kernels in
// memory of a and computed in d: tensor.F32, tensor.F16, tensor.BF16, tensor.I8, or 0 for
// the type that the weights are stored in. It panics for another type.
func (s *Store) Packed(a *tensor.Arena, d tensor.DType) *Store {
	if d != 0 && !d.Float() && d != tensor.I8 {
		panic(fmt.Sprintf("weights: no layers compute in %v", d))
	}
	return &Store{bundle: s.bundle, prefix: s.prefix, packing: Packing{On: true, Arena: a, Compute: d}}
}

// Packing returns how layers are to keep the weights that they load.
func (s *Store) Packing() Packing { return s.packing }

// Has reports whether the store has the tensor.
func (s *Store) Has(name string) bool { return s.header.Has(s.prefix + name) }

// Names returns the names under the store's path, sorted.
func (s *Store) Names() []string {
	var names []string
	for name := range s.header.entries {
		if rest, ok := strings.CutPrefix(name, s.prefix); ok {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	return names
}

// Lookup returns a tensor of any shape. The error wraps ErrMissing if there is none of
// that name or the store is closed, and ErrShape if its type is one that package tensor
// does not know.
func (s *Store) Lookup(name string) (Tensor, error) {
	e, ok := s.header.entries[s.prefix+name]
	if ok && s.base != nil {
		return s.lookup(e.Name)
	}
	if !ok || !s.open {
		return Tensor{}, fmt.Errorf("weights: %s: tensor %q: %w", s.header.origin, s.prefix+name, ErrMissing)
	}
	if e.DType == 0 {
		return Tensor{}, s.header.unfit(e, "type %s is not supported", e.Kind)
	}
	c := s.files[e.file]
	t := Tensor{Name: e.Name, DType: e.DType, Shape: e.Shape}
	if e.strides != nil {
		t.Data = gatherView(c.data, e)
		return t, nil
	}
	t.Data = c.data[e.begin : e.begin+e.Bytes : e.begin+e.Bytes]
	if c.unmap != nil {
		t.mapped = t.Data
	}
	return t, nil
}

// Tensor returns a tensor of numbers that kernels compute with. The error wraps
// ErrMissing if there is none of that name, and ErrShape if its shape or type is another.
func (s *Store) Tensor(name string, shape ...int) (Tensor, error) {
	t, err := s.Lookup(name)
	if err != nil {
		return t, err
	}
	e := s.header.entries[t.Name]
	if !slices.Equal(t.Shape, shape) {
		return t, s.header.unfit(e, "shape %v, want %v", t.Shape, shape)
	}
	if !t.DType.Float() && !t.DType.Quantised() {
		return t, s.header.unfit(e, "type %v, want F32, F16, BF16 or a quantised type", t.DType)
	}
	return t, nil
}

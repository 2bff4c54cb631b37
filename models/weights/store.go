package weights

import (
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

	file string // for errors
}

// Len returns the number of elements.
func (t Tensor) Len() int { return len(t.Data) / t.DType.Size() }

// Matrix returns a tensor of two axes for use by kernels, sharing its memory. It
// panics for any other tensor, and for one that does not hold F32, F16 or BF16.
func (t Tensor) Matrix() tensor.Matrix {
	if len(t.Shape) != 2 {
		panic(fmt.Sprintf("weights: tensor %q of shape %v is no matrix", t.Name, t.Shape))
	}
	return tensor.NewMatrix(t.DType, t.Shape[0], t.Shape[1], t.Data)
}

// Float32s returns the elements, converted exactly. They may share the tensor's
// memory and must not be written. It panics unless the type is F32, F16 or BF16.
func (t Tensor) Float32s() []float32 { return tensor.Float32s(t.DType, t.Data) }

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

// Store is a set of named tensors, or the part of it under a path. It may be read
// by any number of goroutines.
type Store struct {
	*bundle
	prefix string // "" or ending in "."
}

// bundle is the files of a store.
type bundle struct {
	origin  string // for errors
	tensors map[string]Tensor
	bytes   int64
	close   []func() error
}

// OpenFile opens one safetensors file.
func OpenFile(fsys fs.FS, name string) (*Store, error) {
	b := &bundle{origin: name, tensors: map[string]Tensor{}}
	if err := b.add(fsys, name, nil); err != nil {
		return nil, errors.Join(err, b.release())
	}
	return &Store{bundle: b}, nil
}

// Open opens a model's weights: base.safetensors if it exists, else the shards that
// base.safetensors.index.json lists. The error wraps fs.ErrNotExist if there is neither.
func Open(fsys fs.FS, base string) (*Store, error) {
	files, err := Files(fsys, base)
	if err != nil {
		return nil, err
	}
	b := &bundle{origin: base + ".safetensors", tensors: map[string]Tensor{}}
	for _, f := range files {
		if err := b.add(fsys, f.Name, f.Tensors); err != nil {
			return nil, errors.Join(err, b.release())
		}
	}
	return &Store{bundle: b}, nil
}

// add opens a file and takes in its tensors, among which those of want must be.
func (b *bundle) add(fsys fs.FS, name string, want []string) error {
	data, unmap, err := contents(fsys, name)
	if err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	b.close = append(b.close, unmap)
	tensors, err := parse(data)
	if err != nil {
		return fmt.Errorf("weights: %s: %w", name, err)
	}
	for _, t := range want {
		if _, ok := tensors[t]; !ok {
			return fmt.Errorf("weights: %s: tensor %q of the index: %w", name, t, ErrMissing)
		}
	}
	for key, t := range tensors {
		if other, twice := b.tensors[key]; twice {
			return fmt.Errorf("weights: %s: tensor %q is in %s too: %w", name, key, other.file, ErrFormat)
		}
		t.file = name
		b.tensors[key] = t
	}
	b.bytes += int64(len(data))
	return nil
}

func (b *bundle) release() error {
	var errs []error
	for _, f := range b.close {
		errs = append(errs, f())
	}
	b.close, b.tensors = nil, nil
	return errors.Join(errs...)
}

// Close releases the files of the whole store. Its tensors must not be used any more.
func (s *Store) Close() error { return s.release() }

// Bytes returns the size of the files of the whole store.
func (s *Store) Bytes() int64 { return s.bytes }

// Sub returns the part of the store under a path of one or more names.
func (s *Store) Sub(path string) *Store {
	return &Store{bundle: s.bundle, prefix: s.prefix + path + "."}
}

// Has reports whether the store has the tensor.
func (s *Store) Has(name string) bool {
	_, ok := s.tensors[s.prefix+name]
	return ok
}

// Names returns the names under the store's path, sorted.
func (s *Store) Names() []string {
	var names []string
	for name := range s.tensors {
		if rest, ok := strings.CutPrefix(name, s.prefix); ok {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	return names
}

// Lookup returns a tensor of any shape and type. The error wraps ErrMissing if
// there is none of that name.
func (s *Store) Lookup(name string) (Tensor, error) {
	t, ok := s.tensors[s.prefix+name]
	if !ok {
		return Tensor{}, fmt.Errorf("weights: %s: tensor %q: %w", s.origin, s.prefix+name, ErrMissing)
	}
	return t, nil
}

// Tensor returns a tensor of F32, F16 or BF16. The error wraps ErrMissing if there
// is none of that name, and ErrShape if its shape or type is another.
func (s *Store) Tensor(name string, shape ...int) (Tensor, error) {
	t, err := s.Lookup(name)
	if err != nil {
		return t, err
	}
	if !slices.Equal(t.Shape, shape) {
		return t, fmt.Errorf("weights: %s: tensor %q: shape %v, want %v: %w", t.file, t.Name, t.Shape, shape, ErrShape)
	}
	if !t.DType.Float() {
		return t, fmt.Errorf("weights: %s: tensor %q: type %v, want F32, F16 or BF16: %w", t.file, t.Name, t.DType, ErrShape)
	}
	return t, nil
}

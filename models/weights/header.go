package weights

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"helicon/models/tensor"
)

// maxHeader is the size in bytes that the part of a file before its tensors may have:
// the limit of the reference implementation of safetensors.
const maxHeader = 100_000_000

// Info describes a tensor.
type Info struct {
	Name  string
	DType tensor.DType // 0 if the type is not one that package tensor knows
	Kind  string       // the type by the name that the format has for it
	Shape []int        // row-major, also for GGUF, which lists axes the other way round
	Bytes int64        // of its data
}

// Len returns the number of elements.
func (i Info) Len() int64 {
	n := int64(1)
	for _, d := range i.Shape {
		n *= int64(d)
	}
	return n
}

// entry is a tensor and where it lies.
type entry struct {
	Info
	file    int   // in Header.Files
	begin   int64 // of the data, in bytes from the start of the file
	strides []int // in elements, of a view that is not row-major; nil for all others
}

// Header is what the files of a model say of its tensors, without their data.
type Header struct {
	Format   Format
	Files    []File
	Metadata Metadata // of the first file

	origin  string // for errors
	entries map[string]entry
}

// ReadHeader reads the headers of the files that Open would open, and no data: what a
// model has and takes can be known before it is loaded. The errors are those of Open.
func ReadHeader(fsys fs.FS, base string) (*Header, error) {
	files, err := Files(fsys, base)
	if err != nil {
		return nil, err
	}
	return readHeader(fsys, files)
}

// ReadFileHeader is ReadHeader for the files that OpenFile would open.
func ReadFileHeader(fsys fs.FS, name string) (*Header, error) {
	files, err := filesOf(fsys, name)
	if err != nil {
		return nil, err
	}
	return readHeader(fsys, files)
}

func readHeader(fsys fs.FS, files []File) (*Header, error) {
	h := newHeader(files)
	for i, f := range files {
		if err := readOne(fsys, f, func(r io.ReaderAt) error { return h.add(i, r) }); err != nil {
			return nil, err
		}
	}
	if err := h.complete(); err != nil {
		return nil, err
	}
	return h, nil
}

// readOne opens a file for add.
func readOne(fsys fs.FS, file File, add func(io.ReaderAt) error) error {
	f, err := fsys.Open(file.Name)
	if err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	defer f.Close()
	if r, ok := f.(io.ReaderAt); ok {
		return add(r)
	}
	data, err := readFile(f, file.Size)
	if err != nil {
		return fmt.Errorf("weights: %s: %w", file.Name, err)
	}
	return add(bytes.NewReader(data))
}

// newHeader returns the header of files that are still to be added.
func newHeader(files []File) *Header {
	return &Header{Format: FormatOf(files[0].Name), Files: files, origin: files[0].Name, entries: map[string]entry{}}
}

// add takes in the tensors of file i, among which those that the index lists must be.
func (h *Header) add(i int, r io.ReaderAt) error {
	file := h.Files[i]
	pairs, entries, err := parserOf(h.Format)(r, file.Size)
	if err != nil {
		return fmt.Errorf("weights: %s: %w", file.Name, err)
	}
	metadata, err := NewMetadata(file.Name, pairs)
	if err != nil {
		return err
	}
	if i == 0 {
		h.Metadata = metadata
	}
	if h.Format == GGUF && len(h.Files) > 1 {
		if err := checkPart(metadata, i, len(h.Files)); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if other, twice := h.entries[e.Name]; twice {
			return fmt.Errorf("weights: %s: tensor %q is in %s too: %w", file.Name, e.Name, h.Files[other.file].Name, ErrFormat)
		}
		e.file = i
		h.entries[e.Name] = e
	}
	for _, name := range file.Tensors {
		if e, ok := h.entries[name]; !ok || e.file != i {
			return fmt.Errorf("weights: %s: tensor %q of the index: %w", file.Name, name, ErrMissing)
		}
	}
	return nil
}

// complete checks what can be known only when all files have been added.
func (h *Header) complete() error {
	const key = "split.tensors.count"
	if h.Format != GGUF || len(h.Files) == 1 || !h.Metadata.Has(key) {
		return nil
	}
	n, err := h.Metadata.Int(key)
	if err == nil && n != len(h.entries) {
		err = fmt.Errorf("weights: %s: key %q is %d, but its %d files have %d tensors: %w", h.origin, key, n, len(h.Files), len(h.entries), ErrFormat)
	}
	return err
}

// Names returns the names of the tensors, sorted.
func (h *Header) Names() []string { return slices.Sorted(maps.Keys(h.entries)) }

// Tensors describes the tensors, in the order of their data.
func (h *Header) Tensors() []Info {
	entries := slices.SortedFunc(maps.Values(h.entries), func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.begin, b.begin), cmp.Compare(a.Name, b.Name))
	})
	list := make([]Info, len(entries))
	for i, e := range entries {
		list[i] = e.Info
	}
	return list
}

// Has reports whether there is the tensor.
func (h *Header) Has(name string) bool {
	_, ok := h.entries[name]
	return ok
}

// Lookup describes a tensor. The error wraps ErrMissing if there is none of that name.
func (h *Header) Lookup(name string) (Info, error) {
	e, ok := h.entries[name]
	if !ok {
		return Info{}, fmt.Errorf("weights: %s: tensor %q: %w", h.origin, name, ErrMissing)
	}
	return e.Info, nil
}

// Parameters returns the number of elements of all tensors.
func (h *Header) Parameters() int64 {
	n := int64(0)
	for _, e := range h.entries {
		n += e.Len()
	}
	return n
}

// Bytes returns the size of the files.
func (h *Header) Bytes() int64 {
	n := int64(0)
	for _, f := range h.Files {
		n += f.Size
	}
	return n
}

// unfit is the error for a tensor that its user cannot take.
func (h *Header) unfit(e entry, format string, args ...any) error {
	return fmt.Errorf("weights: %s: tensor %q: %s: %w", h.Files[e.file].Name, e.Name, fmt.Sprintf(format, args...), ErrShape)
}

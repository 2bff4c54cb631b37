package weights

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"helicon/models/tensor"
)

// maxGGUFName is the length in bytes of the longest name of a tensor that other engines read:
// those for pictures. llama.cpp's is 63, which no name of a language model comes near.
const maxGGUFName = 127

// Source is a tensor to be written.
type Source struct {
	Name  string
	DType tensor.DType
	Shape []int // row-major; of a quantised type, whole blocks a row
	// Write writes the data, little-endian and row-major. It is called once, when the
	// tensors before have been written.
	Write func(w io.Writer) error
}

// Bytes returns the size of the data. The error wraps ErrShape if the type is not one
// of GGUF or the shape not one of it.
func (s Source) Bytes() (int64, error) {
	number, err := ggufNumber(s.DType)
	if err != nil {
		return 0, fmt.Errorf("weights: tensor %q: %w", s.Name, err)
	}
	shape := make([]uint64, len(s.Shape))
	for i, n := range s.Shape {
		shape[i] = uint64(n) // a negative size becomes one that is too large
	}
	size, ok := ggufTypes[number].size(shape)
	if !ok || len(shape) > maxGGUFDims {
		return 0, fmt.Errorf("weights: tensor %q: no %v of shape %v: %w", s.Name, s.DType, s.Shape, ErrShape)
	}
	return size, nil
}

// ggufNumber returns the number of a type.
func ggufNumber(d tensor.DType) (uint32, error) {
	for i, t := range ggufTypes {
		if t.dtype == d && d != 0 {
			return uint32(i), nil
		}
	}
	return 0, fmt.Errorf("GGUF has no type %v: %w", d, ErrShape)
}

// WriteGGUF writes a GGUF file of version 3 that takes the place of the file of that
// name, if there is one, when it is complete; else it leaves nothing behind. Memory is
// needed for the metadata and for what the sources take.
//
// general.alignment among the pairs is heeded. The error wraps ErrFormat for a key that
// occurs twice or a value that is none of those that Pair lists, ErrShape for tensors
// that GGUF cannot hold, context.Cause if ctx ends, and the error of a source.
func WriteGGUF(ctx context.Context, name string, pairs []Pair, tensors []Source) (err error) {
	part := name + "." + rand.Text() + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	if err := EncodeGGUF(ctx, f, pairs, tensors); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	if err := os.Rename(part, name); err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	return nil
}

// EncodeGGUF writes what WriteGGUF writes, to w. The errors are the same.
func EncodeGGUF(ctx context.Context, w io.Writer, pairs []Pair, tensors []Source) error {
	alignment, err := checkPairs(pairs)
	if err != nil {
		return err
	}
	e := &encoder{w: bufio.NewWriterSize(w, 1<<20)}
	e.raw([]byte(ggufMagic))
	e.number(uint32(ggufVersion), uint64(len(tensors)), uint64(len(pairs)))
	for _, p := range pairs {
		e.text(p.Key)
		if !e.value(p.Value) {
			return fmt.Errorf("weights: key %q: a value of type %T cannot be written: %w", p.Key, p.Value, ErrFormat)
		}
	}
	sizes, err := e.directory(tensors, alignment)
	if err != nil {
		return err
	}
	for i, t := range tensors {
		e.pad(alignment)
		if err := e.data(ctx, t, sizes[i]); err != nil {
			return fmt.Errorf("weights: tensor %q: %w", t.Name, err)
		}
	}
	e.pad(alignment)
	return errors.Join(e.err, e.w.Flush())
}

// checkPairs verifies the keys and returns the alignment.
func checkPairs(pairs []Pair) (int64, error) {
	m, err := NewMetadata("GGUF", pairs)
	if err != nil {
		return 0, err
	}
	for _, p := range pairs {
		if len(p.Key) == 0 || len(p.Key) > maxGGUFKey {
			return 0, fmt.Errorf("weights: key %q of %d bytes, want 1 to %d: %w", p.Key, len(p.Key), maxGGUFKey, ErrFormat)
		}
	}
	c := &cursor{}
	alignment := c.alignment(m.pairs)
	if c.err != nil {
		return 0, fmt.Errorf("weights: %w", c.err)
	}
	return alignment, nil
}

// encoder writes a file from its start. It keeps the first error of its writer and
// writes nothing after it.
type encoder struct {
	w   *bufio.Writer
	at  int64
	err error
}

// directory writes what the header says of the tensors and returns their sizes.
func (e *encoder) directory(tensors []Source, alignment int64) ([]int64, error) {
	sizes := make([]int64, len(tensors))
	seen := make(map[string]bool, len(tensors))
	offset := int64(0)
	for i, t := range tensors {
		if len(t.Name) == 0 || len(t.Name) > maxGGUFName || seen[t.Name] {
			return nil, fmt.Errorf("weights: tensor %q: a name must be unique and have 1 to %d bytes: %w", t.Name, maxGGUFName, ErrFormat)
		}
		seen[t.Name] = true
		var err error
		if sizes[i], err = t.Bytes(); err != nil {
			return nil, err
		}
		number, err := ggufNumber(t.DType)
		if err != nil {
			return nil, err
		}
		e.text(t.Name)
		e.number(uint32(len(t.Shape)))
		for _, n := range slices.Backward(t.Shape) {
			e.number(uint64(n))
		}
		e.number(number, uint64(offset))
		offset += padded(sizes[i], alignment)
	}
	return sizes, nil
}

// data writes a tensor, which must be of the size that the header states.
func (e *encoder) data(ctx context.Context, t Source, size int64) error {
	left := size
	err := t.Write(writerFunc(func(data []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if int64(len(data)) > left {
			return 0, fmt.Errorf("its source writes more than the %d bytes of its shape: %w", size, ErrShape)
		}
		left -= int64(len(data))
		e.raw(data)
		return len(data), e.err
	}))
	if err == nil && left > 0 {
		err = fmt.Errorf("its source wrote %d bytes too few of %d: %w", left, size, ErrShape)
	}
	return err
}

type writerFunc func(data []byte) (int, error)

func (f writerFunc) Write(data []byte) (int, error) { return f(data) }

// pad writes zeros up to the next multiple of the alignment.
func (e *encoder) pad(alignment int64) {
	e.raw(make([]byte, padded(e.at, alignment)-e.at))
}

func (e *encoder) raw(data []byte) {
	if e.err == nil {
		var n int
		n, e.err = e.w.Write(data)
		e.at += int64(n)
	}
}

// number writes values of fixed size, or slices of them.
func (e *encoder) number(values ...any) {
	for _, v := range values {
		data, err := binary.Append(nil, binary.LittleEndian, v)
		if err != nil && e.err == nil {
			e.err = err
		}
		e.raw(data)
	}
}

func (e *encoder) text(s string) {
	e.number(uint64(len(s)))
	e.raw([]byte(s))
}

// value writes the type of a value and the value, and returns false if it has none of
// the types that Pair lists.
func (e *encoder) value(value any) bool {
	if s, ok := value.(string); ok {
		e.number(kindString)
		e.text(s)
		return true
	}
	if kind, n := kindOf(value); n == isScalar {
		e.number(kind, value)
		return true
	}
	e.number(kindArray)
	return e.array(value, 1)
}

// array writes the type of the elements of a slice, their number, and themselves.
func (e *encoder) array(value any, depth int) bool {
	switch list := value.(type) {
	case []string:
		e.number(kindString, uint64(len(list)))
		for _, s := range list {
			e.text(s)
		}
		return true
	case []any:
		e.number(kindArray, uint64(len(list)))
		for _, v := range list {
			if depth == maxGGUFDepth || !e.array(v, depth+1) {
				return false
			}
		}
		return true
	}
	kind, n := kindOf(value)
	if n >= 0 {
		e.number(kind, uint64(n), value)
	}
	return n >= 0
}

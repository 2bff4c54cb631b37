package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"

	"helicon/models/tensor"
)

// Limits of a header. The first is the reference implementation's.
const (
	maxHeader = 100_000_000 // bytes
	maxDims   = 16
)

// parse returns the tensors of a safetensors file, which share data's memory. An
// error names the tensor where there is one to name; the caller adds the file.
func parse(data []byte) (map[string]Tensor, error) {
	if len(data) < 8 {
		return nil, fmt.Errorf("%d bytes are too few for a safetensors file: %w", len(data), ErrFormat)
	}
	size := binary.LittleEndian.Uint64(data)
	if size > maxHeader || size > uint64(len(data)-8) {
		return nil, fmt.Errorf("header of %d bytes in a file of %d, limit %d: %w", size, len(data), maxHeader, ErrFormat)
	}
	header, body := data[8:8+size], data[8+size:]
	entries, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	tensors := make(map[string]Tensor, len(entries))
	for _, e := range entries {
		if e.end > uint64(len(body)) {
			return nil, fmt.Errorf("tensor %q: ends at byte %d of %d: %w", e.name, e.end, len(body), ErrFormat)
		}
		tensors[e.name] = Tensor{Name: e.name, DType: e.dtype, Shape: e.shape, Data: body[e.begin:e.end:e.end]}
	}
	return tensors, checkLayout(entries, uint64(len(body)))
}

// entry is one tensor of a header.
type entry struct {
	name       string
	dtype      tensor.DType
	shape      []int
	begin, end uint64 // in the bytes after the header
}

// checkLayout verifies that the tensors fill the body without overlap or hole.
func checkLayout(entries []entry, body uint64) error {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	var at uint64
	for _, e := range entries {
		switch {
		case e.begin < at:
			return fmt.Errorf("tensor %q: begins at byte %d inside the one before, which ends at %d: %w", e.name, e.begin, at, ErrFormat)
		case e.begin > at:
			return fmt.Errorf("tensor %q: begins at byte %d after a hole from %d: %w", e.name, e.begin, at, ErrFormat)
		}
		at = e.end
	}
	if at != body {
		return fmt.Errorf("tensors end at byte %d of %d: %w", at, body, ErrFormat)
	}
	return nil
}

// parseHeader reads the JSON object of a header token by token: the standard
// decoder would let the last of two equal keys win.
func parseHeader(header []byte) ([]entry, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, fmt.Errorf("header does not begin with '{': %w", ErrFormat)
	}
	r := newReader(header)
	var entries []entry
	err := r.object(func(name string) error {
		if name == "__metadata__" {
			return r.object(func(string) error { _, err := r.text(); return err })
		}
		e, err := r.entry(name)
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return entries, r.end()
}

// reader takes JSON apart strictly: it knows what must come next.
type reader struct {
	*json.Decoder
}

func newReader(data []byte) reader {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return reader{d}
}

// end checks that nothing but space follows.
func (r reader) end() error {
	if _, err := r.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("more data after the JSON object: %w", ErrFormat)
	}
	return nil
}

// next returns the next token. The errors of the decoder become ErrFormat.
func (r reader) next() (json.Token, error) {
	t, err := r.Token()
	if err != nil {
		return nil, fmt.Errorf("%v: %w", err, ErrFormat)
	}
	return t, nil
}

func (r reader) delim(want json.Delim) error {
	t, err := r.next()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("%v where %v must be: %w", t, want, ErrFormat)
	}
	return nil
}

func (r reader) text() (string, error) {
	t, err := r.next()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("%v where a string must be: %w", t, ErrFormat)
	}
	return s, nil
}

// object calls field for each key, which must read the key's value.
func (r reader) object(field func(key string) error) error {
	if err := r.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for r.More() {
		key, err := r.text()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("duplicate key %q: %w", key, ErrFormat)
		}
		seen[key] = true
		if err := field(key); err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
	return r.delim('}')
}

// integers reads an array of at most limit non-negative whole numbers.
func (r reader) integers(limit int) ([]uint64, error) {
	if err := r.delim('['); err != nil {
		return nil, err
	}
	list := []uint64{}
	for r.More() {
		t, err := r.next()
		if err != nil {
			return nil, err
		}
		number, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%v where a number must be: %w", t, ErrFormat)
		}
		n, err := strconv.ParseUint(number.String(), 10, 63)
		if err != nil {
			return nil, fmt.Errorf("%v is no size: %w", number, ErrFormat)
		}
		if len(list) == limit {
			return nil, fmt.Errorf("more than %d numbers: %w", limit, ErrFormat)
		}
		list = append(list, n)
	}
	return list, r.delim(']')
}

// entry reads {"dtype": …, "shape": […], "data_offsets": [begin, end]}.
func (r reader) entry(name string) (entry, error) {
	e := entry{name: name}
	var shape, offsets []uint64
	err := r.object(func(key string) (err error) {
		switch key {
		case "dtype":
			var text string
			if text, err = r.text(); err != nil {
				return err
			}
			var ok bool
			if e.dtype, ok = tensor.ParseDType(text); !ok {
				err = fmt.Errorf("type %q is not supported: %w", text, ErrFormat)
			}
		case "shape":
			shape, err = r.integers(maxDims)
		case "data_offsets":
			offsets, err = r.integers(2)
		default:
			err = fmt.Errorf("unknown field: %w", ErrFormat)
		}
		return err
	})
	if err != nil {
		return e, err
	}
	if e.dtype == 0 || shape == nil || len(offsets) != 2 {
		return e, fmt.Errorf("dtype, shape and two data_offsets must be given: %w", ErrFormat)
	}
	e.begin, e.end = offsets[0], offsets[1]
	size, ok := byteSize(shape, e.dtype)
	if !ok || e.begin > e.end || e.end-e.begin != size {
		return e, fmt.Errorf("offsets %v for %v %v: %w", offsets, e.dtype, shape, ErrFormat)
	}
	e.shape = make([]int, len(shape))
	for i, n := range shape {
		e.shape[i] = int(n)
	}
	return e, nil
}

// byteSize returns the bytes of a tensor, and false if they are more than an int holds.
func byteSize(shape []uint64, d tensor.DType) (uint64, bool) {
	const limit = 1<<(bits.UintSize-1) - 1
	size := uint64(d.Size())
	for _, n := range shape {
		high, low := bits.Mul64(size, n)
		if high != 0 || low > limit || n > limit {
			return 0, false
		}
		size = low
	}
	return size, true
}

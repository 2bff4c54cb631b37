package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"helicon/models/tensor"
)

// maxDims is the number of axes that a tensor of a safetensors file may have.
const maxDims = 16

// parseSafetensors reads the header of a safetensors file. An error names the tensor
// where there is one to name; the caller adds the file.
func parseSafetensors(r io.ReaderAt, size int64) ([]Pair, []entry, error) {
	if size < 8 {
		return nil, nil, fmt.Errorf("%d bytes are too few for a safetensors file: %w", size, ErrFormat)
	}
	var head [8]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return nil, nil, err
	}
	length := binary.LittleEndian.Uint64(head[:])
	if length > maxHeader || length > uint64(size-8) {
		return nil, nil, fmt.Errorf("header of %d bytes in a file of %d, limit %d: %w", length, size, maxHeader, ErrFormat)
	}
	header := make([]byte, length)
	if _, err := r.ReadAt(header, 8); err != nil && length > 0 {
		return nil, nil, err
	}
	pairs, entries, err := parseHeader(header)
	if err != nil {
		return nil, nil, err
	}
	return pairs, entries, placeEntries(entries, 8+int64(length), size)
}

// placeEntries moves the tensors behind the header and checks that they fill the rest
// of the file without overlap or hole.
func placeEntries(entries []entry, header, size int64) error {
	body := size - header
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.Bytes, b.Bytes))
	})
	at := int64(0)
	for i := range entries {
		e := &entries[i]
		switch {
		case e.begin > body || e.Bytes > body-e.begin:
			return fmt.Errorf("tensor %q: ends at byte %d of %d: %w", e.Name, e.begin+e.Bytes, body, ErrFormat)
		case e.begin < at:
			return fmt.Errorf("tensor %q: begins at byte %d inside the one before, which ends at %d: %w", e.Name, e.begin, at, ErrFormat)
		case e.begin > at:
			return fmt.Errorf("tensor %q: begins at byte %d after a hole from %d: %w", e.Name, e.begin, at, ErrFormat)
		}
		at = e.begin + e.Bytes
		e.begin += header
	}
	if at != body {
		return fmt.Errorf("tensors end at byte %d of %d: %w", at, body, ErrFormat)
	}
	return nil
}

// parseHeader reads the JSON object of a header token by token: the standard
// decoder would let the last of two equal keys win.
func parseHeader(header []byte) ([]Pair, []entry, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, fmt.Errorf("header does not begin with '{': %w", ErrFormat)
	}
	r := newReader(header)
	var pairs []Pair
	var entries []entry
	err := r.object(func(name string) error {
		if name == "__metadata__" {
			return r.object(func(key string) error {
				value, err := r.text()
				pairs = append(pairs, Pair{key, value})
				return err
			})
		}
		e, err := r.entry(name)
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	return pairs, entries, r.end()
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

// entry reads {"dtype": …, "shape": […], "data_offsets": [begin, end]}. Its begin is
// relative to the end of the header.
func (r reader) entry(name string) (entry, error) {
	e := entry{Info: Info{Name: name}}
	var shape, offsets []uint64
	err := r.object(func(key string) (err error) {
		switch key {
		case "dtype":
			e.Kind, err = r.text()
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
	if e.Kind == "" || shape == nil || len(offsets) != 2 {
		return e, fmt.Errorf("dtype, shape and two data_offsets must be given: %w", ErrFormat)
	}
	var ok bool
	if e.DType, ok = tensor.ParseDType(e.Kind); !ok || e.DType.Size() == 0 {
		return e, fmt.Errorf("type %q is not supported: %w", e.Kind, ErrFormat)
	}
	size, ok := product(shape, uint64(e.DType.Size()))
	if !ok || offsets[0] > offsets[1] || offsets[1]-offsets[0] != size {
		return e, fmt.Errorf("offsets %v for %v %v: %w", offsets, e.DType, shape, ErrFormat)
	}
	e.begin, e.Bytes, e.Shape = int64(offsets[0]), int64(size), convert[int](shape)
	return e, nil
}

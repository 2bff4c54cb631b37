package weights

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"helicon/models/tensor"
)

// Limits of GGUF. A header as a whole is bounded by maxHeader.
const (
	maxGGUFDims  = 4
	maxGGUFKey   = 1<<16 - 1 // bytes of a key or of a tensor's name
	maxGGUFDepth = 4         // of arrays in arrays
)

const (
	ggufMagic        = "GGUF"
	ggufVersion      = 3
	ggufAlignment    = 32 // if the file does not state it
	ggufAlignmentKey = "general.alignment"
)

// ggufType is a type of tensors: so many elements of a row share a block of bytes.
type ggufType struct {
	name         string
	block, bytes uint64
	dtype        tensor.DType // 0 if package tensor does not know the type
}

// ggufTypes has the types under their numbers. Those without a name are not in use any more.
var ggufTypes = [...]ggufType{
	0: {"F32", 1, 4, tensor.F32}, 1: {"F16", 1, 2, tensor.F16},
	2: {"Q4_0", 32, 18, tensor.Q4_0}, 3: {"Q4_1", 32, 20, tensor.Q4_1},
	6: {"Q5_0", 32, 22, tensor.Q5_0}, 7: {"Q5_1", 32, 24, tensor.Q5_1},
	8: {"Q8_0", 32, 34, tensor.Q8_0}, 9: {"Q8_1", 32, 36, 0},
	10: {"Q2_K", 256, 84, 0}, 11: {"Q3_K", 256, 110, 0}, 12: {"Q4_K", 256, 144, tensor.Q4_K},
	13: {"Q5_K", 256, 176, tensor.Q5_K}, 14: {"Q6_K", 256, 210, tensor.Q6_K}, 15: {"Q8_K", 256, 292, 0},
	16: {"IQ2_XXS", 256, 66, 0}, 17: {"IQ2_XS", 256, 74, 0}, 18: {"IQ3_XXS", 256, 98, 0},
	19: {"IQ1_S", 256, 50, 0}, 20: {"IQ4_NL", 32, 18, 0}, 21: {"IQ3_S", 256, 110, 0},
	22: {"IQ2_S", 256, 82, 0}, 23: {"IQ4_XS", 256, 136, 0},
	24: {"I8", 1, 1, tensor.I8}, 25: {"I16", 1, 2, tensor.I16}, 26: {"I32", 1, 4, tensor.I32},
	27: {"I64", 1, 8, tensor.I64}, 28: {"F64", 1, 8, tensor.F64}, 29: {"IQ1_M", 256, 56, 0},
	30: {"BF16", 1, 2, tensor.BF16}, 34: {"TQ1_0", 256, 54, 0}, 35: {"TQ2_0", 256, 66, 0},
	39: {"MXFP4", 32, 17, 0}, 40: {"NVFP4", 64, 36, 0}, 41: {"Q1_0", 128, 18, 0},
}

// parseGGUF reads the header of a GGUF file of version 2 or 3. An error names the key
// or the tensor where there is one to name; the caller adds the file.
func parseGGUF(r io.ReaderAt, size int64) ([]Pair, []entry, error) {
	c := &cursor{r: bufio.NewReader(io.NewSectionReader(r, 0, size)), end: min(size, maxHeader)}
	tensors, pairs := c.ggufHead()
	metadata := make([]Pair, 0, min(pairs, 1024))
	for i := uint64(0); i < pairs && c.err == nil; i++ {
		metadata = append(metadata, c.pair())
	}
	alignment := c.alignment(metadata)
	entries := make([]entry, 0, min(tensors, 1024))
	for i := uint64(0); i < tensors && c.err == nil; i++ {
		entries = append(entries, c.tensor())
	}
	if c.err != nil {
		return nil, nil, c.err
	}
	return metadata, entries, placeTensors(entries, c.at, size, alignment)
}

// ggufHead reads what a file begins with.
func (c *cursor) ggufHead() (tensors, pairs uint64) {
	if magic := c.take(4); c.err == nil && string(magic) != ggufMagic {
		c.fail("it begins with %q, not with %q", magic, ggufMagic)
	}
	switch v := c.uint32(); {
	case c.err != nil:
	case v&0xffff == 0:
		c.fail("it is a big-endian file: only little-endian ones can be read")
	case v != 2 && v != 3:
		c.fail("version %d is none of 2 and 3", v)
	}
	tensors, pairs = c.uint64(), c.uint64()
	// The least that a tensor or a pair takes are its empty name, its type and its
	// offset, or its value.
	if left := c.left(); c.err == nil && (tensors > left/24 || pairs > left/13) {
		c.fail("%d tensors and %d keys in a header of at most %d bytes", tensors, pairs, left)
	}
	return tensors, pairs
}

// pair reads a key and its value.
func (c *cursor) pair() Pair {
	key := c.name("key")
	p := Pair{Key: key, Value: c.value(valueKind(c.uint32()))}
	if c.err != nil && key != "" {
		c.err = fmt.Errorf("key %q: %w", key, c.err)
	}
	return p
}

// value reads a value of a kind.
func (c *cursor) value(kind valueKind) any {
	if plain, ok := plainKinds[kind]; ok {
		return plain.read(c)
	}
	switch kind {
	case kindBool:
		if list := c.bools(1); len(list) == 1 {
			return list[0]
		}
	case kindString:
		return c.text()
	case kindArray:
		return c.array(valueKind(c.uint32()), c.uint64(), 1)
	default:
		c.fail("unknown type %d", kind)
	}
	return nil
}

// array reads n values of a kind, in arrays so many deep.
func (c *cursor) array(kind valueKind, n uint64, depth int) any {
	if plain, ok := plainKinds[kind]; ok {
		return plain.readList(c, n)
	}
	switch kind {
	case kindBool:
		return c.bools(n)
	case kindString:
		return c.texts(n)
	case kindArray:
		return c.arrays(n, depth)
	default:
		c.fail("unknown type %d in an array", kind)
		return nil
	}
}

func (c *cursor) bools(n uint64) []bool {
	raw := c.take(n)
	list := make([]bool, len(raw))
	for i, b := range raw {
		if b > 1 {
			c.fail("a bool is %d", b)
			return nil
		}
		list[i] = b == 1
	}
	return list
}

func (c *cursor) texts(n uint64) []string {
	if !c.holds(n, 8) {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		if list[i] = c.text(); c.err != nil {
			return nil
		}
	}
	return list
}

func (c *cursor) arrays(n uint64, depth int) []any {
	if depth == maxGGUFDepth {
		c.fail("arrays are nested more than %d deep", maxGGUFDepth)
	}
	if !c.holds(n, 12) {
		return nil
	}
	list := make([]any, n)
	for i := range list {
		if list[i] = c.array(valueKind(c.uint32()), c.uint64(), depth+1); c.err != nil {
			return nil
		}
	}
	return list
}

// alignment returns what offsets of tensors are multiples of.
func (c *cursor) alignment(metadata []Pair) int64 {
	for _, p := range metadata {
		if p.Key != ggufAlignmentKey || c.err != nil {
			continue
		}
		n, ok := p.Value.(uint32)
		if !ok || bits.OnesCount32(n) != 1 {
			c.fail("key %q is no uint32 that is a power of two", p.Key)
			return 1
		}
		return int64(n)
	}
	return ggufAlignment
}

// tensor reads what the header says of a tensor. Its begin is relative.
func (c *cursor) tensor() entry {
	name := c.name("tensor")
	e := c.unnamed()
	e.Name = name
	if c.err != nil && name != "" {
		c.err = fmt.Errorf("tensor %q: %w", name, c.err)
	}
	return e
}

func (c *cursor) unnamed() (e entry) {
	axes := c.uint32()
	if axes > maxGGUFDims {
		c.fail("%d axes, limit %d", axes, maxGGUFDims)
		return e
	}
	shape := make([]uint64, axes)
	for i := range shape {
		shape[len(shape)-1-i] = c.uint64()
	}
	number, offset := c.uint32(), c.uint64()
	if c.err != nil {
		return e
	}
	t := ggufType{name: fmt.Sprintf("number %d", number)} // of a size that is not known
	if number < uint32(len(ggufTypes)) && ggufTypes[number].name != "" {
		t = ggufTypes[number]
	}
	size, ok := t.size(shape)
	if !ok || offset > math.MaxInt64 {
		c.fail("type %s, shape %v, offset %d", t.name, shape, offset)
		return e
	}
	e.Kind, e.DType, e.Shape = t.name, t.dtype, convert[int](shape)
	e.Bytes, e.begin = size, int64(offset)
	return e
}

// size returns the bytes of a tensor, and false if its rows are no whole blocks or
// its elements or bytes more than an int counts.
func (t ggufType) size(shape []uint64) (int64, bool) {
	n, ok := product(shape, 1)
	if !ok || t.block == 0 {
		return 0, ok
	}
	if t.block > 1 && (len(shape) == 0 || shape[len(shape)-1]%t.block != 0) {
		return 0, false
	}
	n, ok = product([]uint64{n / t.block}, t.bytes)
	return int64(n), ok
}

// product returns the factors' product, and false if it, or one of them, is more than
// an int holds.
func product(factors []uint64, n uint64) (uint64, bool) {
	for _, f := range factors {
		high, low := bits.Mul64(n, f)
		if high != 0 || low > math.MaxInt || f > math.MaxInt {
			return 0, false
		}
		n = low
	}
	return n, true
}

// placeTensors turns offsets into places in the file and checks that tensors lie in it
// and do not overlap. The data begin at the next multiple of the alignment.
func placeTensors(entries []entry, header, size, alignment int64) error {
	start := padded(header, alignment)
	for i := range entries {
		e := &entries[i]
		if e.begin%alignment != 0 {
			return fmt.Errorf("tensor %q: offset %d is no multiple of %d: %w", e.Name, e.begin, alignment, ErrFormat)
		}
		if e.begin > size-start || e.Bytes > size-start-e.begin {
			return fmt.Errorf("tensor %q: %d bytes from byte %d of the data end beyond the file of %d bytes: %w", e.Name, e.Bytes, e.begin, size, ErrFormat)
		}
		e.begin += start
	}
	sorted := slices.SortedFunc(slices.Values(entries), func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.Bytes, b.Bytes))
	})
	for i := 1; i < len(sorted); i++ {
		if before, e := sorted[i-1], sorted[i]; e.begin < before.begin+before.Bytes {
			return fmt.Errorf("tensor %q: begins inside of %q: %w", e.Name, before.Name, ErrFormat)
		}
	}
	return nil
}

// padded returns n rounded up to a multiple of the alignment.
func padded(n, alignment int64) int64 { return (n + alignment - 1) / alignment * alignment }

// checkPart verifies the keys of one of the files that a model is split into.
func checkPart(m Metadata, i, n int) error {
	for _, want := range []struct {
		key   string
		value int
	}{{"split.no", i}, {"split.count", n}} {
		got, err := m.Int(want.key)
		if err == nil && got != want.value {
			err = fmt.Errorf("weights: %s: key %q is %d, want %d: %w", m.origin, want.key, got, want.value, ErrFormat)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cursor reads a header from its start. It keeps the first error and gives zeros and
// nothing after it.
type cursor struct {
	r       *bufio.Reader
	at, end int64 // of what has been read, and of what may be
	err     error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format+": %w", append(args, ErrFormat)...)
	}
}

// left returns how many bytes may still be read.
func (c *cursor) left() uint64 { return uint64(c.end - c.at) }

// holds reports whether n elements of at least so many bytes can still follow.
func (c *cursor) holds(n, bytes uint64) bool {
	if c.err == nil && n > c.left()/bytes {
		c.fail("%d values of %d bytes or more at byte %d, and %d bytes left in the header", n, bytes, c.at, c.left())
	}
	return c.err == nil
}

// take reads n bytes, which are valid until the next ones are read.
func (c *cursor) take(n uint64) []byte {
	if !c.holds(n, 1) {
		return nil
	}
	var data []byte
	var err error
	if n <= uint64(c.r.Size()) {
		data, err = c.r.Peek(int(n))
		if err == nil {
			_, err = c.r.Discard(int(n))
		}
	} else {
		data = make([]byte, n)
		_, err = io.ReadFull(c.r, data)
	}
	if err != nil {
		c.readFailed(err)
		return nil
	}
	c.at += int64(n)
	return data
}

// readFailed keeps an error of the file itself: that it is shorter than it said is a
// matter of its format.
func (c *cursor) readFailed(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.fail("it ends within the header, at byte %d", c.at)
		return
	}
	c.err = err
}

func (c *cursor) uint32() uint32 {
	if raw := c.take(4); c.err == nil {
		return binary.LittleEndian.Uint32(raw)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if raw := c.take(8); c.err == nil {
		return binary.LittleEndian.Uint64(raw)
	}
	return 0
}

func (c *cursor) text() string { return string(c.take(c.uint64())) }

// name reads the name of a key or a tensor.
func (c *cursor) name(what string) string {
	n := c.uint64()
	if n == 0 || n > maxGGUFKey {
		c.fail("a %s at byte %d has a name of %d bytes, want 1 to %d", what, c.at, n, maxGGUFKey)
		return ""
	}
	return string(c.take(n))
}

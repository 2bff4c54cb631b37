package tensor

import (
	"fmt"
	"math"
	"unsafe"
)

// DType is the type of a stored element, little-endian.
type DType uint8

// The element types that weight files carry. Kernels compute with F32, F16 and
// BF16; the others occur as buffers and as reference data.
const (
	F32 DType = iota + 1
	F16
	BF16
	F64
	I64
	I32
	I16
	I8
	U64
	U32
	U16
	U8
	Bool
)

var dtypes = [...]struct {
	name string
	size int
}{
	F32: {"F32", 4}, F16: {"F16", 2}, BF16: {"BF16", 2}, F64: {"F64", 8},
	I64: {"I64", 8}, I32: {"I32", 4}, I16: {"I16", 2}, I8: {"I8", 1},
	U64: {"U64", 8}, U32: {"U32", 4}, U16: {"U16", 2}, U8: {"U8", 1},
	Bool: {"BOOL", 1},
}

// ParseDType returns the type that safetensors calls name, and whether it is known.
func ParseDType(name string) (DType, bool) {
	for d, t := range dtypes {
		if t.name == name && t.size > 0 {
			return DType(d), true
		}
	}
	return 0, false
}

// String returns the name that safetensors uses.
func (d DType) String() string {
	if d == 0 || int(d) >= len(dtypes) {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Size returns the bytes of one element, 0 for an unknown type.
func (d DType) Size() int {
	if int(d) >= len(dtypes) {
		return 0
	}
	return dtypes[d].size
}

// Float reports whether kernels can compute with the type.
func (d DType) Float() bool { return d == F32 || d == F16 || d == BF16 }

// Float32s returns the elements of little-endian data as float32, converted
// exactly. F32 data that is aligned is returned in place and must not be written.
// It panics if d is not F32, F16 or BF16.
func Float32s(d DType, data []byte) []float32 {
	if d == F32 {
		return view[float32](data)
	}
	out := make([]float32, len(data)/2)
	widen(out, d, view[uint16](data))
	return out
}

// widen converts F16 or BF16 elements into float32, exactly.
func widen(dst []float32, d DType, src []uint16) {
	dst = dst[:len(src)]
	switch d {
	case BF16:
		for i, b := range src {
			dst[i] = math.Float32frombits(uint32(b) << 16)
		}
	case F16:
		for i, b := range src {
			dst[i] = halfToFloat(b)
		}
	default:
		panic(fmt.Sprintf("tensor: no float32 values in %v", d))
	}
}

// halfToFloat converts an IEEE 754 half. The exponent is moved by a
// multiplication, which is exact for subnormal halves too.
func halfToFloat(h uint16) float32 {
	magnitude := uint32(h&0x7fff) << 13
	sign := uint32(h&0x8000) << 16
	if h&0x7c00 == 0x7c00 { // infinity or NaN
		return math.Float32frombits(sign | 0x7f800000 | magnitude)
	}
	f := math.Float32frombits(magnitude) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(f))
}

// view reads little-endian data as elements of T: in place where the machine is
// little-endian and the data aligned, as both nearly always are, else as a copy.
func view[T float32 | uint16](data []byte) []T {
	size := int(unsafe.Sizeof(*new(T)))
	n := len(data) / size
	if n == 0 {
		return nil
	}
	p := unsafe.Pointer(unsafe.SliceData(data))
	if littleEndian() && uintptr(p)%uintptr(size) == 0 {
		return unsafe.Slice((*T)(p), n)
	}
	out := make([]T, n)
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(out))), n*size)
	copy(raw, data)
	if !littleEndian() {
		for i := 0; i < len(raw); i += size {
			for a, b := i, i+size-1; a < b; a, b = a+1, b-1 {
				raw[a], raw[b] = raw[b], raw[a]
			}
		}
	}
	return out
}

func littleEndian() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 1
}

package tensor

import (
	"fmt"
	"math"
	"unsafe"
)

// DType is the type of stored elements, little-endian: a plain type, every element
// by itself, or one of GGML's block types, in which a fixed number of elements of a
// row share their scales.
type DType uint8

// The types that weight files carry. Kernels compute with F32, F16, BF16 and the
// block types; the others occur as buffers and as reference data. Weights can also be
// packed as I8, to be multiplied by activations that are rounded to bytes, but no file
// has them so.
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
	Q8_0 // 32 × 8 bits and a scale
	Q4_0 // 32 × 4 bits and a scale
	Q4_1 // 32 × 4 bits, a scale and an offset
	Q5_0 // 32 × 5 bits and a scale
	Q5_1 // 32 × 5 bits, a scale and an offset
	Q4_K // 256 × 4 bits; a scale and an offset of 6 bits for each 32
	Q5_K // 256 × 5 bits; a scale and an offset of 6 bits for each 32
	Q6_K // 256 × 6 bits; a scale of 8 bits for each 16
)

var dtypes = [...]struct {
	name     string
	elements int // in a block, 1 for plain types
	bytes    int // of a block
}{
	F32: {"F32", 1, 4}, F16: {"F16", 1, 2}, BF16: {"BF16", 1, 2}, F64: {"F64", 1, 8},
	I64: {"I64", 1, 8}, I32: {"I32", 1, 4}, I16: {"I16", 1, 2}, I8: {"I8", 1, 1},
	U64: {"U64", 1, 8}, U32: {"U32", 1, 4}, U16: {"U16", 1, 2}, U8: {"U8", 1, 1},
	Bool: {"BOOL", 1, 1},
	Q8_0: {"Q8_0", 32, 34}, Q4_0: {"Q4_0", 32, 18}, Q4_1: {"Q4_1", 32, 20},
	Q5_0: {"Q5_0", 32, 22}, Q5_1: {"Q5_1", 32, 24},
	Q4_K: {"Q4_K", 256, 144}, Q5_K: {"Q5_K", 256, 176}, Q6_K: {"Q6_K", 256, 210},
}

// ParseDType returns the plain type that safetensors calls name, and whether there
// is one.
func ParseDType(name string) (DType, bool) {
	for d, t := range dtypes {
		if t.name == name && t.elements == 1 {
			return DType(d), true
		}
	}
	return 0, false
}

// String returns the name that safetensors uses for plain types and GGML for others.
func (d DType) String() string {
	if d == 0 || int(d) >= len(dtypes) {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Size returns the bytes of one element of a plain type, 0 for any other: of those,
// only whole blocks have a size.
func (d DType) Size() int {
	if elements, bytes := d.Block(); elements == 1 {
		return bytes
	}
	return 0
}

// Block returns the number of elements that are stored together, 1 for plain types,
// and the bytes that they take; 0 and 0 for an unknown type. A row of a matrix is a
// whole number of blocks.
func (d DType) Block() (elements, bytes int) {
	if int(d) >= len(dtypes) {
		return 0, 0
	}
	return dtypes[d].elements, dtypes[d].bytes
}

// Bytes returns the size of n elements. It panics if they are no whole number of
// blocks, or the type is unknown.
func (d DType) Bytes(n int) int64 {
	elements, bytes := d.Block()
	if elements == 0 || n < 0 || n%elements != 0 {
		panic(fmt.Sprintf("tensor: %d elements of %v, which come in blocks of %d", n, d, elements))
	}
	return int64(n/elements) * int64(bytes)
}

// Quantised reports whether d is one of GGML's block types.
func (d DType) Quantised() bool { return d >= Q8_0 && d <= Q6_K }

// Float reports whether the type is plain and one that kernels compute with.
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

// floatToHalf rounds to the nearest IEEE 754 half, ties to even; what is too large
// becomes infinity.
func floatToHalf(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	switch magnitude := bits & 0x7fffffff; {
	case magnitude > 0x7f800000: // NaN
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // rounds to 65536 or more
		return sign | 0x7c00
	case magnitude < 0x38800000: // subnormal: a multiple of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(magnitude))*0x1p24))
	default:
		magnitude += 0xfff + magnitude>>13&1
		return sign | uint16((magnitude-0x38000000)>>13)
	}
}

// floatToBFloat rounds to the nearest bfloat16, ties to even.
func floatToBFloat(f float32) uint16 {
	bits := math.Float32bits(f)
	if f != f {
		return uint16(bits>>16) | 0x40 // stays a NaN
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
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

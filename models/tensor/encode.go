package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Encode writes src as little-endian elements of type d, which kernels compute with:
// the nearest F32, F16 or BF16, ties to even, or as Quantize does. It panics for other
// types, or if dst has another size.
func Encode(dst []byte, d DType, src []float32) {
	if d.Quantised() {
		Quantize(dst, d, src)
		return
	}
	if !d.Float() || len(dst) != len(src)*d.Size() {
		panic(fmt.Sprintf("tensor: encode %d elements as %v in %d bytes", len(src), d, len(dst)))
	}
	for i, v := range src {
		switch d {
		case F32:
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		case F16:
			binary.LittleEndian.PutUint16(dst[2*i:], floatToHalf(v))
		case BF16:
			binary.LittleEndian.PutUint16(dst[2*i:], floatToBFloat(v))
		}
	}
}

package bench

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"helicon/models/tensor"
)

// patternElements is how many random elements there are before they repeat: a whole
// number of blocks of every type.
const patternElements = 1 << 16

// pattern returns random weights of a type, about as large as trained ones are.
func pattern(d tensor.DType) []byte {
	values := randomFloats(patternElements)
	data := make([]byte, d.Bytes(patternElements))
	switch {
	case d.Quantised():
		tensor.Quantize(data, d, values)
	case d == tensor.F32:
		for i, v := range values {
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
		}
	case d == tensor.BF16:
		for i, v := range values {
			binary.LittleEndian.PutUint16(data[2*i:], uint16(math.Float32bits(v)>>16))
		}
	case d == tensor.F16:
		for i, v := range values {
			binary.LittleEndian.PutUint16(data[2*i:], half(v))
		}
	}
	return data
}

// randomFloats returns values of mean 0 and deviation 0.018, every one of which is
// exact in all plain types: whole numbers of steps.
func randomFloats(n int) []float32 {
	const steps, step = 127, 0x1p-12
	random := rand.New(rand.NewPCG(1, 2))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(random.IntN(2*steps+1)-steps) * step
	}
	return values
}

// half converts a value that is exact as a normal half, or 0.
func half(v float32) uint16 {
	if v == 0 {
		return 0
	}
	bits := math.Float32bits(v)
	const rebias = (127 - 15) << 10
	return uint16(bits>>16&0x8000) | uint16(bits>>13&0x3ffff-rebias)
}

// fill repeats a pattern.
func fill(data, pattern []byte) {
	for len(data) > 0 {
		data = data[copy(data, pattern):]
	}
}

package bench

import (
	"math/rand/v2"

	"helicon/models/tensor"
)

// patternElements is how many random elements there are before they repeat: a whole
// number of blocks of every type.
const patternElements = 1 << 16

// pattern returns random weights of a type, about as large as trained ones are.
func pattern(d tensor.DType) []byte {
	data := make([]byte, d.Bytes(patternElements))
	tensor.Encode(data, d, randomFloats(patternElements))
	return data
}

// randomFloats returns values of mean 0 and deviation 0.02, always the same ones.
func randomFloats(n int) []float32 {
	random := rand.New(rand.NewPCG(1, 2))
	values := make([]float32, n)
	for i := range values {
		values[i] = 0.02 * float32(random.NormFloat64())
	}
	return values
}

// fill repeats a pattern.
func fill(data, pattern []byte) {
	for len(data) > 0 {
		data = data[copy(data, pattern):]
	}
}

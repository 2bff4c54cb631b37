package tensor

import "fmt"

// kernelSet has the kernels of one set of features.
type kernelSet struct {
	packed [len(dtypes)]kernel // by the type of the weights
	bytes  *byteKernel         // for I8, of convolutions too
	tiles  kernel              // for BF16 in whole tiles of columns, or nil
}

func newKernelSet(f features) kernelSet {
	var s kernelSet
	if f.tiles {
		s.tiles = newTileKernel()
	}
	for d := range s.packed {
		switch d := DType(d); {
		case d.Float():
			s.packed[d] = newFloatKernel(d, f)
		case d.Quantised():
			s.packed[d] = newQuantKernel(d, f)
		case d == I8:
			s.bytes = newByteKernel(f)
			s.packed[d] = s.bytes
		}
	}
	return s
}

// tileColumns is the number of BF16 in a row of a tile of AMX.
const tileColumns = 32

// kernel returns what multiplies the packed matrix.
func (e *Exec) kernel(m Matrix) kernel {
	if e.kernels.tiles != nil && m.DType == BF16 && m.Cols%tileColumns == 0 {
		return e.kernels.tiles
	}
	k := e.kernels.packed[m.DType]
	if k == nil {
		panic(fmt.Sprintf("tensor: no kernel for %v", m.DType))
	}
	return k
}

package tensor

import "fmt"

// kernelSet has the kernels of one set of features.
type kernelSet struct {
	plain  kernel              // for matrices that are not packed
	packed [len(dtypes)]kernel // for those that are, by type
	tiles  kernel              // for BF16 in whole tiles of columns, or nil
}

func newKernelSet(f features) kernelSet {
	s := kernelSet{plain: plainKernel(f.level)}
	if f.tiles {
		s.tiles = newTileKernel()
	}
	for d := range s.packed {
		switch d := DType(d); {
		case d.Float():
			s.packed[d] = newFloatKernel(d, f)
		case d.Quantised():
			s.packed[d] = newQuantKernel(d, f)
		}
	}
	return s
}

// tileColumns is the number of BF16 in a row of a tile of AMX.
const tileColumns = 32

// kernel returns what multiplies the matrix.
func (e *Exec) kernel(m Matrix) kernel {
	if !m.Packed() {
		if m.DType.Quantised() {
			panic(fmt.Sprintf("tensor: a matrix of %v multiplies when it is packed", m.DType))
		}
		return e.kernels.plain
	}
	if e.kernels.tiles != nil && m.DType == BF16 && m.Cols%tileColumns == 0 {
		return e.kernels.tiles
	}
	k := e.kernels.packed[m.DType]
	if k == nil {
		panic(fmt.Sprintf("tensor: no kernel for %v", m.DType))
	}
	return k
}

// plainKernel multiplies float matrices as they lie in files, by dot products. It is
// the level that it uses.
type plainKernel Level

func (plainKernel) form() form    { return nil }
func (plainKernel) width(int) int { return 2 }

func (k plainKernel) multiply(p piece) {
	q, o := &p.Product, p.operand
	lo, hi := p.groups.lo*groupRows, min(p.groups.hi*groupRows, q.W.Rows)
	first, _ := o.strip(p.strips.lo)
	last, _ := o.strip(p.strips.hi - 1)
	tokens := last.hi - first.lo
	y := q.Y[first.lo*q.W.Rows+lo:]
	multiply(Level(k), y, o.x[first.lo*o.cols:], q.W.Slice(lo, hi), shape{tokens: tokens, yStride: q.W.Rows, xStride: o.cols})
	if q.Bias == nil {
		return
	}
	for t := range tokens {
		add(y[t*q.W.Rows:][:hi-lo], q.Bias[lo:hi])
	}
}

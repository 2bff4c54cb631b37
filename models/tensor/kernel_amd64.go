//go:build !purego

package tensor

import "unsafe"

// The assembly keeps a vector of sums for each output, the sum of lane j taken over
// every k ≡ j in ascending order by fused multiplication and addition; lanes are
// added up in a fixed tree, and the columns beyond a multiple of 16 after that. This
// holds for every shape of tile, so that the bits do not depend on the shape.

const (
	quad        = 4  // weight rows in a tile
	columnStep  = 16 // columns that the kernels take at a time
	tokensAVX2  = 2  // activation rows in a tile
	tokensWide  = 4
	blockTokens = 32 // activation rows that pass a block of weights before the next do: they stay in L2
)

// tile is one call of a kernel: y[t][r] = Σ_k x[t][k]·w[r][k] for four rows r and as
// many tokens as the kernel is made for. Strides are in bytes; n is a multiple of 16.
type tile struct {
	y       *float32
	yStride int
	x       *float32
	xStride int
	w       unsafe.Pointer
	wStride int
	n       int
}

//go:noescape
func dots1x4AVX512F32(t *tile)

//go:noescape
func dots1x4AVX512F16(t *tile)

//go:noescape
func dots1x4AVX512BF16(t *tile)

//go:noescape
func dots4x4AVX512F32(t *tile)

//go:noescape
func dots4x4AVX512F16(t *tile)

//go:noescape
func dots4x4AVX512BF16(t *tile)

//go:noescape
func dots1x4AVX2F32(t *tile)

//go:noescape
func dots1x4AVX2F16(t *tile)

//go:noescape
func dots1x4AVX2BF16(t *tile)

//go:noescape
func dots2x4AVX2F32(t *tile)

//go:noescape
func dots2x4AVX2F16(t *tile)

//go:noescape
func dots2x4AVX2BF16(t *tile)

// addWeightedAVX512 adds to the first columns of y those of rows rows of x weighted
// by p. columns is a multiple of 16, stride the bytes from row to row.
//
//go:noescape
func addWeightedAVX512(y, p, x *float32, columns, rows, stride int)

//go:noescape
func addWeightedAVX2(y, p, x *float32, columns, rows, stride int)

// dots runs the kernel for one token.
func (t *tile) dots(l Level, d DType) {
	if l == AVX512 {
		switch d {
		case F32:
			dots1x4AVX512F32(t)
		case F16:
			dots1x4AVX512F16(t)
		default:
			dots1x4AVX512BF16(t)
		}
		return
	}
	switch d {
	case F32:
		dots1x4AVX2F32(t)
	case F16:
		dots1x4AVX2F16(t)
	default:
		dots1x4AVX2BF16(t)
	}
}

// manyDots runs the kernel for several tokens.
func (t *tile) manyDots(l Level, d DType) {
	if l == AVX512 {
		switch d {
		case F32:
			dots4x4AVX512F32(t)
		case F16:
			dots4x4AVX512F16(t)
		default:
			dots4x4AVX512BF16(t)
		}
		return
	}
	switch d {
	case F32:
		dots2x4AVX2F32(t)
	case F16:
		dots2x4AVX2F16(t)
	default:
		dots2x4AVX2BF16(t)
	}
}

// multiply computes y[t][r] = Σ_k x[t][k]·w[r][k].
func multiply(l Level, y, x []float32, w Matrix, s shape) {
	if l == Generic {
		multiplyGeneric(y, x, w, s)
		return
	}
	if s.tokens == 0 || w.Rows == 0 {
		return
	}
	// The assembly does not check: these are the last elements it touches.
	_, _ = y[(s.tokens-1)*s.yStride+w.Rows-1], x[(s.tokens-1)*s.xStride+w.Cols-1]

	n := w.Cols &^ (columnStep - 1)
	for t := 0; t < s.tokens; t += blockTokens {
		block := shape{tokens: min(blockTokens, s.tokens-t), yStride: s.yStride, xStride: s.xStride}
		multiplyBlock(l, y[t*s.yStride:], x[t*s.xStride:], w, block, n)
	}
	if n < w.Cols {
		multiplyTail(y, x, w, s, n)
	}
}

// multiplyBlock sums over the first n columns.
func multiplyBlock(l Level, y, x []float32, w Matrix, s shape, n int) {
	step := tokensAVX2
	if l == AVX512 {
		step = tokensWide
	}
	size := w.DType.Size()
	var sums [quad]float32
	t := tile{yStride: 4 * s.yStride, xStride: 4 * s.xStride, wStride: w.Cols * size, n: n}
	r := 0
	for ; r+quad <= w.Rows; r += quad {
		t.w = w.row(r)
		i := 0
		for ; i+step <= s.tokens; i += step {
			t.y, t.x = &y[i*s.yStride+r], &x[i*s.xStride]
			t.manyDots(l, w.DType)
		}
		for ; i < s.tokens; i++ {
			t.y, t.x = &y[i*s.yStride+r], &x[i*s.xStride]
			t.dots(l, w.DType)
		}
	}
	// The rows that make no tile: each is taken four times, and one sum kept.
	t.wStride = 0
	for ; r < w.Rows; r++ {
		t.w = w.row(r)
		for i := range s.tokens {
			t.y, t.x = &sums[0], &x[i*s.xStride]
			t.dots(l, w.DType)
			y[i*s.yStride+r] = sums[0]
		}
	}
}

// multiplyTail adds the columns from n on.
func multiplyTail(y, x []float32, w Matrix, s shape, n int) {
	var tail [columnStep]float32
	for r := range w.Rows {
		row := tail[:w.Cols-n]
		if at := r*w.Cols + n; w.DType == F32 {
			copy(row, w.f32[at:])
		} else {
			widen(row, w.DType, w.u16[at:at+len(row)])
		}
		for t := range s.tokens {
			sum := y[t*s.yStride+r]
			for k, a := range x[t*s.xStride+n:][:len(row)] {
				sum += a * row[k]
			}
			y[t*s.yStride+r] = sum
		}
	}
}

// row returns the address of row r.
func (m *Matrix) row(r int) unsafe.Pointer {
	if m.DType == F32 {
		return unsafe.Pointer(&m.f32[r*m.Cols])
	}
	return unsafe.Pointer(&m.u16[r*m.Cols])
}

// addWeighted adds to y the rows of x, each as long as y, weighted by p.
func addWeighted(l Level, y, p, x []float32) {
	columns := len(y) &^ (columnStep - 1)
	if l == Generic || columns == 0 || len(p) == 0 {
		addWeightedGeneric(y, p, x)
		return
	}
	d := len(y)
	_ = x[len(p)*d-1]
	if l == AVX512 {
		addWeightedAVX512(&y[0], &p[0], &x[0], columns, len(p), 4*d)
	} else {
		addWeightedAVX2(&y[0], &p[0], &x[0], columns, len(p), 4*d)
	}
	for k := columns; k < d; k++ {
		sum := y[k]
		for i, a := range p {
			sum += a * x[i*d+k]
		}
		y[k] = sum
	}
}

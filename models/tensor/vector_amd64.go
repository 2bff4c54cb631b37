//go:build !purego

package tensor

import "unsafe"

//go:noescape
func activateAVX512(y, x, up *float32, n, f int)

//go:noescape
func activateAVX2(y, x, up *float32, n, f int)

//go:noescape
func softCapAVX512(x *float32, n int, limit float32)

//go:noescape
func softCapAVX2(x *float32, n int, limit float32)

//go:noescape
func axpyAVX512(y, x *float32, n int, w float32)

//go:noescape
func axpyAVX2(y, x *float32, n int, w float32)

//go:noescape
func scaleAVX512(y, x *float32, n int, w float32)

//go:noescape
func scaleAVX2(y, x *float32, n int, w float32)

//go:noescape
func momentsAVX512(x *float32, n int, c float32) (sum, squares float32)

//go:noescape
func momentsAVX2(x *float32, n int, c float32) (sum, squares float32)

//go:noescape
func affineAVX512(y, x, w, b *float32, n int, mean, scale float32)

//go:noescape
func affineAVX2(y, x, w, b *float32, n int, mean, scale float32)

//go:noescape
func addHadamardAVX512(y, x, w *float32, n int)

//go:noescape
func addHadamardAVX2(y, x, w *float32, n int)

//go:noescape
func widenF16AVX512(y *float32, x *uint16, n int)

//go:noescape
func widenF16AVX2(y *float32, x *uint16, n int)

//go:noescape
func widenBF16AVX512(y *float32, x *uint16, n int)

//go:noescape
func widenBF16AVX2(y *float32, x *uint16, n int)

//go:noescape
func columnMomentsAVX512(sum, squares, x, c *float32, n int)

//go:noescape
func columnMomentsAVX2(sum, squares, x, c *float32, n int)

//go:noescape
func ropeAVX512(x, y, cos, sin *float32, n int)

//go:noescape
func ropeAVX2(x, y, cos, sin *float32, n int)

//go:noescape
func maximumAVX512(x *float32, n int) (top float32)

//go:noescape
func maximumAVX2(x *float32, n int) (top float32)

//go:noescape
func expSumAVX512(x *float32, n int, c float32) (sum float32)

//go:noescape
func expSumAVX2(x *float32, n int, c float32) (sum float32)

//go:noescape
func tileTopsAVX512(top, p *float32, rows, cols int)

//go:noescape
func tileTopsAVX2(top, p *float32, rows, cols int)

//go:noescape
func tileWeightsAVX512(sum, p, top *float32, rows, cols int)

//go:noescape
func tileWeightsAVX2(sum, p, top *float32, rows, cols int)

func activate(l Level, f Activation, y, x, up []float32) {
	y = y[:len(x)] // the assembly does not check
	switch {
	case l < AVX2 || len(x) == 0:
		activateGeneric(f, y, x, up)
	case l >= AVX512:
		activateAVX512(&y[0], &x[0], unsafe.SliceData(up), len(x), int(f))
	default:
		activateAVX2(&y[0], &x[0], unsafe.SliceData(up), len(x), int(f))
	}
}

func softCap(l Level, x []float32, limit float32) {
	switch {
	case l < AVX2 || len(x) == 0:
		softCapGeneric(x, limit)
	case l >= AVX512:
		softCapAVX512(&x[0], len(x), limit)
	default:
		softCapAVX2(&x[0], len(x), limit)
	}
}

func axpy(l Level, y, x []float32, w float32) {
	y = y[:len(x)] // the assembly does not check
	switch {
	case l < AVX2 || len(x) == 0:
		axpyGeneric(y, x, w)
	case l >= AVX512:
		axpyAVX512(&y[0], &x[0], len(x), w)
	default:
		axpyAVX2(&y[0], &x[0], len(x), w)
	}
}

func scale(l Level, y, x []float32, w float32) {
	y = y[:len(x)] // the assembly does not check
	switch {
	case l < AVX2 || len(x) == 0:
		scaleGeneric(y, x, w)
	case l >= AVX512:
		scaleAVX512(&y[0], &x[0], len(x), w)
	default:
		scaleAVX2(&y[0], &x[0], len(x), w)
	}
}

func rotate(l Level, x, y, cos, sin []float32) {
	y, cos, sin = y[:len(x)], cos[:len(x)], sin[:len(x)] // the assembly does not check
	switch {
	case l < AVX2 || len(x) == 0:
		rotateGeneric(x, y, cos, sin)
	case l >= AVX512:
		ropeAVX512(&x[0], &y[0], &cos[0], &sin[0], len(x))
	default:
		ropeAVX2(&x[0], &y[0], &cos[0], &sin[0], len(x))
	}
}

func maximum(l Level, x []float32) float32 {
	switch {
	case l < AVX2 || len(x) == 0:
		return maximumGeneric(x)
	case l >= AVX512:
		return maximumAVX512(&x[0], len(x))
	default:
		return maximumAVX2(&x[0], len(x))
	}
}

func expSum(l Level, x []float32, c float32) float32 {
	switch {
	case l < AVX2 || len(x) == 0:
		return expSumGeneric(x, c)
	case l >= AVX512:
		return expSumAVX512(&x[0], len(x), c)
	default:
		return expSumAVX2(&x[0], len(x), c)
	}
}

func tileTops(l Level, top, p []float32, cols int) {
	p = p[:len(top)*tileKeys] // the assembly does not check
	switch {
	case l < AVX2 || len(top) == 0:
		tileTopsGeneric(top, p, cols)
	case l >= AVX512:
		tileTopsAVX512(&top[0], &p[0], len(top), cols)
	default:
		tileTopsAVX2(&top[0], &p[0], len(top), cols)
	}
}

func tileWeights(l Level, sum, p, top []float32, cols int) {
	sum, p = sum[:len(top)], p[:len(top)*tileKeys] // the assembly does not check
	switch {
	case l < AVX2 || len(top) == 0:
		tileWeightsGeneric(sum, p, top, cols)
	case l >= AVX512:
		tileWeightsAVX512(&sum[0], &p[0], &top[0], len(top), cols)
	default:
		tileWeightsAVX2(&sum[0], &p[0], &top[0], len(top), cols)
	}
}

// moments returns Σ(x-c) and Σ(x-c)².
func moments(l Level, x []float32, c float32) (sum, squares float64) {
	var s, q float32
	switch {
	case l < AVX2 || len(x) == 0:
		return momentsGeneric(x, c)
	case l >= AVX512:
		s, q = momentsAVX512(&x[0], len(x), c)
	default:
		s, q = momentsAVX2(&x[0], len(x), c)
	}
	return float64(s), float64(q)
}

func (f *affine) apply(l Level, y, x []float32) {
	y, w := y[:len(x)], f.w[:len(x)] // the assembly does not check
	if f.b != nil {
		_ = f.b[:len(x)]
	}
	switch {
	case l < AVX2 || len(x) == 0:
		f.applyGeneric(y, x)
	case l >= AVX512:
		affineAVX512(&y[0], &x[0], &w[0], unsafe.SliceData(f.b), len(x), f.mean, f.scale)
	default:
		affineAVX2(&y[0], &x[0], &w[0], unsafe.SliceData(f.b), len(x), f.mean, f.scale)
	}
}

func (s *columns) add(l Level, x []float32) {
	sum, squares, c := s.sum[:len(x)], s.squares[:len(x)], s.c[:len(x)] // the assembly does not check
	switch {
	case l < AVX2 || len(x) == 0:
		s.addGeneric(x)
	case l >= AVX512:
		columnMomentsAVX512(&sum[0], &squares[0], &x[0], &c[0], len(x))
	default:
		columnMomentsAVX2(&sum[0], &squares[0], &x[0], &c[0], len(x))
	}
}

// addHadamard computes y += w·x, the three of them vectors.
func addHadamard(l Level, y, x, w []float32) {
	y, w = y[:len(x)], w[:len(x)] // the assembly does not check
	switch {
	case l < AVX2 || len(x) == 0:
		addHadamardGeneric(y, x, w)
	case l >= AVX512:
		addHadamardAVX512(&y[0], &x[0], &w[0], len(x))
	default:
		addHadamardAVX2(&y[0], &x[0], &w[0], len(x))
	}
}

// widenPanel writes the first len(y) numbers of x, F16 or BF16, as float32. len(y) is a
// multiple of 16.
func widenPanel(l Level, y []float32, d DType, x []uint16) {
	x = x[:len(y)] // the assembly does not check
	switch {
	case l < AVX2 || len(x) == 0:
		widen(y, d, x)
	case l >= AVX512 && d == F16:
		widenF16AVX512(&y[0], &x[0], len(y))
	case l >= AVX512:
		widenBF16AVX512(&y[0], &x[0], len(y))
	case d == F16:
		widenF16AVX2(&y[0], &x[0], len(y))
	default:
		widenBF16AVX2(&y[0], &x[0], len(y))
	}
}

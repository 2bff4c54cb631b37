//go:build !purego

package tensor

import "unsafe"

//go:noescape
func multiplyF32AVX512(t *floatTile)

//go:noescape
func multiplyF16AVX512(t *floatTile)

//go:noescape
func multiplyBF16AVX512(t *floatTile)

//go:noescape
func multiplyPairsAVX512(t *floatTile)

//go:noescape
func multiplyF32AVX2(t *floatTile)

//go:noescape
func multiplyF16AVX2(t *floatTile)

//go:noescape
func multiplyBF16AVX2(t *floatTile)

// roundRowAVX512 rounds 16·n values to BF16 and writes them in blocks of eight,
// stride bytes apart.
//
//go:noescape
func roundRowAVX512(dst unsafe.Pointer, x *float32, n, stride int)

// spreadRowAVX2 writes 8·n values in blocks of four, stride bytes apart.
//
//go:noescape
func spreadRowAVX2(dst unsafe.Pointer, x *float32, n, stride int)

// spreadStripAVX512 writes 16·n columns of eight rows, stride bytes apart, as
// [4·n][8][4].
//
//go:noescape
func spreadStripAVX512(dst unsafe.Pointer, x *float32, n, stride int)

// run multiplies with the instructions of the kernel's level.
func (k *floatKernel) run(t *floatTile) {
	switch {
	case k.pairs:
		multiplyPairsAVX512(t)
	case k.level == AVX512 && k.dtype == F32:
		multiplyF32AVX512(t)
	case k.level == AVX512 && k.dtype == F16:
		multiplyF16AVX512(t)
	case k.level == AVX512:
		multiplyBF16AVX512(t)
	case k.level == AVX2 && k.dtype == F32:
		multiplyF32AVX2(t)
	case k.level == AVX2 && k.dtype == F16:
		multiplyF16AVX2(t)
	case k.level == AVX2:
		multiplyBF16AVX2(t)
	default:
		t.generic(k.dtype, false)
	}
}

// roundRow is roundRowGeneric where AVX512-BF16 is known to be there.
func roundRow(dst []uint16, x []float32, stride int) {
	pairs := len(x) / 16
	if pairs > 0 {
		_ = dst[(2*pairs-1)*stride+7]
		roundRowAVX512(unsafe.Pointer(&dst[0]), &x[0], pairs, 2*stride)
	}
	if rest := x[16*pairs:]; len(rest) > 0 {
		roundRowGeneric(dst[2*pairs*stride:], rest, stride)
	}
}

// spreadStrip writes the first columns of a strip and returns how many: all but the last
// few where there is a kernel for strips of its height.
func spreadStrip(l Level, dst, x []float32, cols, tokens int) int {
	blocks := cols / 16
	if l < AVX512 || tokens != maxStrip || blocks == 0 {
		return 0
	}
	_, _ = dst[16*blocks*maxStrip-1], x[maxStrip*cols-1]
	spreadStripAVX512(unsafe.Pointer(&dst[0]), &x[0], blocks, 4*cols)
	return 16 * blocks
}

// spreadRow is spreadRowGeneric with the instructions of a level.
func spreadRow(l Level, dst, x []float32, stride int) {
	pairs := len(x) / 8
	if l < AVX2 {
		pairs = 0
	}
	if pairs > 0 {
		_ = dst[(2*pairs-1)*stride+3]
		spreadRowAVX2(unsafe.Pointer(&dst[0]), &x[0], pairs, 4*stride)
	}
	if rest := x[8*pairs:]; len(rest) > 0 {
		spreadRowGeneric(dst[2*pairs*stride:], rest, stride)
	}
}

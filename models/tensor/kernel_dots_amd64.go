//go:build !purego

package tensor

import "golang.org/x/sys/cpu"

//go:noescape
func dotBytesAVX512(c *dotCall)

//go:noescape
func dotBytesAVX2(c *dotCall)

//go:noescape
func dotBytesAMX(c *dotCall)

//go:noescape
func dotPairsAVX512(c *dotCall)

//go:noescape
func dotPairsAMX(c *dotCall)

// magnitudeAVX2 returns the bits of the largest magnitude of n floats, a multiple of 16.
//
//go:noescape
func magnitudeAVX2(x *float32, n int) uint32

// roundBytesAVX2 rounds n floats, a multiple of 32, times inverse to bytes, of which it
// turns the bits of flip.
//
//go:noescape
func roundBytesAVX2(dst *byte, x *float32, n int, inverse float32, flip uint32)

// widenPairsAVX2 converts n times 16 pairs of BF16 to twice 16 float32.
//
//go:noescape
func widenPairsAVX2(dst *float32, src *uint16, n int)

func widenPairs(l Level, dst []float32, src []uint16) {
	n := len(src) / (2 * groupRows)
	if l < AVX2 || n == 0 {
		widenPairsGeneric(dst, src)
		return
	}
	_ = dst[2*n*groupRows-1]
	widenPairsAVX2(&dst[0], &src[0], n)
}

// multiply multiplies pairs of BF16 with the instructions of the machine.
func (k pairKernel) multiply(c *dotCall) {
	if k.tiles {
		dotPairsAMX(c)
	} else {
		dotPairsAVX512(c)
	}
}

// pairsFast reports whether AVX512-BF16 is faster than float32: on processors that have
// AMX it is slower.
func pairsFast() bool { return !cpu.X86.HasAMXTile }

// finishCall is what finishAVX512 and finishAVX2 read. Strides are in bytes.
type finishCall struct {
	y           *float32
	yRow        int // of residual too
	sums        *float32
	residual    *float32 // or nil
	scale, bias *float32
	rows        int
	vectors     int // of 64 bytes, 1 or 2
	floor       float32
}

//go:noescape
func finishAVX512(c *finishCall)

//go:noescape
func finishAVX2(c *finishCall)

func magnitude(l Level, x []float32) uint32 {
	n := len(x) &^ 15
	if l < AVX2 || n == 0 {
		return magnitudeGeneric(x)
	}
	return max(magnitudeAVX2(&x[0], n), magnitudeGeneric(x[n:]))
}

func (f byteRows) round(dst []byte, x []float32, inverse float32) {
	n := len(x) &^ 31
	if f.level < AVX2 || n == 0 {
		f.roundGeneric(dst, x, inverse)
		return
	}
	var flip uint32
	if f.offset {
		flip = 0x80808080
	}
	_ = dst[n-1]
	roundBytesAVX2(&dst[0], &x[0], n, inverse, flip)
	f.roundGeneric(dst[n:], x[n:], inverse)
}

// run multiplies with the instructions of the kernel's level.
func (k *byteKernel) run(c *dotCall) {
	switch {
	case k.tiles:
		dotBytesAMX(c)
	case k.takes.level >= AVX512:
		dotBytesAVX512(c)
	case k.takes.level == AVX2:
		dotBytesAVX2(c)
	default:
		c.genericBytes()
	}
}

// run computes with the instructions of a level.
func (c *finishing) run(l Level) {
	vectors := c.n / groupRows
	if l < AVX2 {
		vectors = 0
	}
	if vectors > 0 && c.rows > 0 {
		_, _ = c.y[(c.rows-1)*c.yRow+c.n-1], c.sums[(c.rows-1)*dotColumns+c.n-1]
		f := finishCall{
			y: &c.y[0], yRow: 4 * c.yRow, sums: &c.sums[0], scale: &c.scale[0], bias: &c.bias[0], rows: c.rows, vectors: vectors, floor: c.floor,
		}
		if c.residual != nil {
			_ = c.residual[(c.rows-1)*c.yRow+c.n-1]
			f.residual = &c.residual[0]
		}
		if l >= AVX512 {
			finishAVX512(&f)
		} else {
			finishAVX2(&f)
		}
	}
	if vectors*groupRows < c.n {
		c.generic(vectors * groupRows)
	}
}

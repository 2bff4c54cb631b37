//go:build !purego

package tensor

import "unsafe"

//go:noescape
func peakF32AVX512(n int)

//go:noescape
func peakInt8AVX512(n int)

//go:noescape
func peakBF16AVX512(n int)

//go:noescape
func peakBF16Tiles(c *tileConfig, n int)

//go:noescape
func peakF32AVX2(n int)

//go:noescape
func peakInt8AVX2(n int)

//go:noescape
func peakReadAVX512(p *byte, n int)

//go:noescape
func peakReadAVX2(p *byte, n int)

// loops returns the loops for what kernels may use.
func (f features) loops() peakLoops {
	switch f.level {
	case AVX512:
		l := peakLoops{
			f32:  peakLoop{peakF32AVX512, 16 * 16 * 2},
			int8: peakLoop{peakInt8AVX512, 16 * 64 * 2},
			read: func(b []byte) { peakReadAVX512(unsafe.SliceData(b), len(b)) },
		}
		if f.tiles {
			shapes := newTileConfig(tileTokens)
			l.bf16 = peakLoop{func(n int) { peakBF16Tiles(&shapes, n) }, 4 * 16 * 16 * 32 * 2}
		} else if f.bf16 {
			l.bf16 = peakLoop{peakBF16AVX512, 16 * 32 * 2}
		}
		return l
	case AVX2:
		return peakLoops{
			f32:  peakLoop{peakF32AVX2, 12 * 8 * 2},
			int8: peakLoop{peakInt8AVX2, 6 * 32 * 2},
			read: func(b []byte) { peakReadAVX2(unsafe.SliceData(b), len(b)) },
		}
	}
	return genericLoops
}

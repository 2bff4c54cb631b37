package tensor

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Quantize converts src, a whole number of blocks, to type d. The result does not
// depend on the machine. Levels are the nearest ones; for the K types, scales and
// offsets are those of the least weighted square error among some candidates, as in
// GGML's reference quantisers without an importance matrix. An element that is not
// finite, or a scale beyond the largest half (65504), leaves the elements of its block
// undefined. It panics if d is not a block type or dst has another size.
//
// For finite data whose scales are no subnormal halves (not below 2^-14), an element
// is off by at most, for the largest magnitude a and the range r of its block,
//
//	Q8_0 a/254    Q5_0 a/16    Q4_0 a/8    Q5_1 r/62    Q4_1 r/30
//
// and 2^-11·(a+r) for the rounding of the halves: half a step, or a whole one of Q5_0
// and Q4_0, which have no level for the extreme of the other sign. For the K types
// the root of the weighted mean square error over a group is bounded. Q4_K and Q5_K,
// weights |x| + rms(x), r with 0 included: r/(2·top) + top·step/2 + offset/2, which
// is half a level, and half a unit of both factors. Q6_K, weights x²: a/32 + 16·step.
func Quantize(dst []byte, d DType, src []float32) {
	checkBlocks("quantize", d, len(src), len(dst))
	n, size := d.Block()
	var b block
	for len(src) > 0 {
		b.quantize(d, src[:n])
		b.encode(d, dst[:size])
		dst, src = dst[size:], src[n:]
	}
}

// quantize chooses scales and levels for the elements of one block.
func (b *block) quantize(d DType, src []float32) {
	t := &blockTypes[d]
	b.steps[0], b.offsets[0], b.offset = 1, 0, 0
	switch d {
	case Q8_0:
		step := float32(math.Abs(float64(extreme(src)))) / 127
		b.step = floatToHalf(step)
		inv := inverse(step)
		for i, x := range src {
			b.levels[i] = level(float32(math.Round(float64(x*inv)))+128, t.top)
		}
	case Q4_0, Q5_0: // the extreme gets level 0, whatever its sign
		step := extreme(src) / float32(-t.zero)
		b.step = floatToHalf(step)
		inv := inverse(step)
		for i, x := range src {
			b.levels[i] = level(float32(x*inv)+float32(t.zero)+0.5, t.top)
		}
	case Q4_1, Q5_1:
		lo, hi := bounds(src)
		step := (hi - lo) / float32(t.top)
		b.step, b.offset, b.offsets[0] = floatToHalf(step), floatToHalf(lo), 1
		inv := inverse(step)
		for i, x := range src {
			b.levels[i] = level(float32((x-lo)*inv)+0.5, t.top)
		}
	case Q4_K, Q5_K:
		b.quantizeAffine(t, src)
	case Q6_K:
		b.quantizeSymmetric(t, src)
	default:
		panic(fmt.Sprintf("tensor: %v is not a block type", d))
	}
}

// quantizeAffine chooses a scale and an offset for each group, rounds both to six
// bits, and takes the levels that are nearest then.
func (b *block) quantizeAffine(t *blockType, src []float32) {
	var scales, offsets [maxGroups]float32
	var topScale, topOffset float32
	groups := len(src) / t.group
	for g := range groups {
		scales[g], offsets[g] = fitAffine(src[g*t.group:][:t.group], t.top)
		topScale, topOffset = max(topScale, scales[g]), max(topOffset, offsets[g])
	}
	const factors = 63
	b.step, b.offset = floatToHalf(topScale/factors), floatToHalf(topOffset/factors)
	invScale, invOffset := inverse(topScale/factors), inverse(topOffset/factors)
	step, offset := halfToFloat(b.step), halfToFloat(b.offset)
	for g := range groups {
		s := level(float32(scales[g]*invScale)+0.5, factors)
		o := level(float32(offsets[g]*invOffset)+0.5, factors)
		b.steps[g], b.offsets[g] = int8(s), -int8(o)
		inv, shift := inverse(step*float32(s)), offset*float32(o)
		for i, x := range src[g*t.group:][:t.group] {
			b.levels[g*t.group+i] = level(float32((x+shift)*inv)+0.5, t.top)
		}
	}
}

// fitAffine returns scale and offset, neither negative, that make scale·level - offset
// the best fit of x by levels 0 to top.
func fitAffine(x []float32, top int) (scale, offset float32) {
	var sx, sw, squares float64
	for _, v := range x {
		squares += float64(v) * float64(v)
	}
	rms := math.Sqrt(squares / float64(len(x)))
	weight := func(v float32) float64 { return rms + math.Abs(float64(v)) }
	for _, v := range x {
		sw += weight(v)
		sx += float64(weight(v) * float64(v))
	}
	lo, hi := bounds(x)
	lo = min(lo, 0)
	if !(hi > lo) {
		return 0, -lo
	}
	most := math.Inf(-1)
	for c := -10; c <= 10; c++ {
		inv := (float32(top) + float32(c)/10) / (hi - lo)
		var sl, sll, sxl float64
		for _, v := range x {
			l := float64(level(float32((v-lo)*inv)+0.5, top))
			wl := weight(v) * l
			sl += wl
			sll += float64(wl * l)
			sxl += float64(wl * float64(v))
		}
		// The least squares for these levels; an offset below 0 is replaced by 0.
		det := float64(sw*sll) - float64(sl*sl)
		if !(det > 0) {
			continue
		}
		a := (float64(sw*sxl) - float64(sl*sx)) / det
		m := (float64(sll*sx) - float64(sl*sxl)) / det
		if m > 0 {
			a, m = sxl/sll, 0
		}
		// What the fit explains of Σw·x²: the error is the rest.
		if explained := float64(a*sxl) + float64(m*sx); explained > most {
			most, scale, offset = explained, float32(a), float32(-m)
		}
	}
	return scale, offset
}

// quantizeSymmetric chooses a scale for each group, rounds it to eight bits, and
// takes the levels that are nearest then.
func (b *block) quantizeSymmetric(t *blockType, src []float32) {
	var scales [maxGroups]float32
	groups := len(src) / t.group
	for g := range groups {
		scales[g] = fitSymmetric(src[g*t.group:][:t.group], t.zero)
	}
	unit := extreme(scales[:groups]) / -128
	b.step = floatToHalf(unit)
	step, inv := halfToFloat(b.step), inverse(unit)
	for g := range groups {
		s := int(level(float32(scales[g]*inv)+128.5, 255)) - 128
		b.steps[g], b.offsets[g] = int8(s), 0
		invGroup := inverse(step * float32(s))
		for i, x := range src[g*t.group:][:t.group] {
			b.levels[g*t.group+i] = level(float32(x*invGroup)+float32(t.zero)+0.5, t.top)
		}
	}
}

// fitSymmetric returns the scale that makes scale·level the best fit of x by levels
// -zero to zero-1. It is negative where the extreme of x is positive.
func fitSymmetric(x []float32, zero int) (scale float32) {
	peak := extreme(x)
	if peak == 0 {
		return 0
	}
	most := math.Inf(-1)
	for c := -9; c <= 9; c++ {
		inv := -(float32(zero) + float32(c)/10) / peak
		var sll, sxl float64
		for _, v := range x {
			l := float64(int(level(float32(v*inv)+float32(zero)+0.5, 2*zero-1)) - zero)
			wxl := float64(v) * float64(v) * l
			sxl += float64(wxl * float64(v))
			sll += float64(wxl * l)
		}
		if explained := sxl / sll * sxl; explained > most {
			most, scale = explained, float32(sxl/sll)
		}
	}
	return scale
}

// level returns the integer part of v, within 0 and top; 0 for NaN.
func level(v float32, top int) uint8 {
	switch {
	case v >= float32(top):
		return uint8(top)
	case v > 0:
		return uint8(v)
	}
	return 0
}

// extreme returns the first element of the largest magnitude.
func extreme(x []float32) float32 {
	var peak, magnitude float32
	for _, v := range x {
		if a := max(v, -v); a > magnitude {
			peak, magnitude = v, a
		}
	}
	return peak
}

func bounds(x []float32) (lo, hi float32) {
	lo, hi = x[0], x[0]
	for _, v := range x[1:] {
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}

// inverse returns 1/x, and 0 for 0.
func inverse(x float32) float32 {
	if x == 0 {
		return 0
	}
	return 1 / x
}

// encode writes the block as type d: decode the other way round.
func (b *block) encode(d DType, dst []byte) {
	binary.LittleEndian.PutUint16(dst, b.step)
	switch d {
	case Q8_0:
		for i, l := range b.levels[:blockElements] {
			dst[2+i] = l ^ 0x80
		}
	case Q4_0:
		b.encodeHalves(dst[2:18])
	case Q4_1:
		binary.LittleEndian.PutUint16(dst[2:], b.offset)
		b.encodeHalves(dst[4:20])
	case Q5_0:
		binary.LittleEndian.PutUint32(dst[2:], b.encodeHalves(dst[6:22]))
	case Q5_1:
		binary.LittleEndian.PutUint16(dst[2:], b.offset)
		binary.LittleEndian.PutUint32(dst[4:], b.encodeHalves(dst[8:24]))
	case Q4_K:
		b.encodeScales(dst)
		b.encodePairs(dst[16:144], nil)
	case Q5_K:
		b.encodeScales(dst)
		b.encodePairs(dst[48:176], dst[16:48])
	case Q6_K:
		b.encodeQ6K(dst)
	default:
		panic(fmt.Sprintf("tensor: %v is not a block type", d))
	}
}

// encodeHalves returns the fifth bits.
func (b *block) encodeHalves(dst []byte) (high uint32) {
	for i := range dst[:16] {
		lo, hi := b.levels[i], b.levels[16+i]
		dst[i] = lo&15 | hi<<4
		high |= uint32(lo>>4)<<i | uint32(hi>>4)<<(16+i)
	}
	return high
}

func (b *block) encodeScales(dst []byte) {
	binary.LittleEndian.PutUint16(dst[2:], b.offset)
	s := dst[4:16]
	for g := range 4 {
		lowStep, lowOffset := uint8(b.steps[g]), uint8(-b.offsets[g])
		step, offset := uint8(b.steps[4+g]), uint8(-b.offsets[4+g])
		s[g] = lowStep | step>>4<<6
		s[4+g] = lowOffset | offset>>4<<6
		s[8+g] = step&15 | offset<<4
	}
}

func (b *block) encodePairs(dst, high []byte) {
	clear(high)
	for pair := range 4 {
		low := b.levels[64*pair:][:64]
		out := dst[32*pair:][:32]
		for i := range out {
			out[i] = low[i]&15 | low[32+i]<<4
		}
		for i := range high {
			high[i] |= (low[i]>>4 | low[32+i]>>4<<1) << (2 * pair)
		}
	}
}

func (b *block) encodeQ6K(dst []byte) {
	for h := range 2 {
		levels, low, high := b.levels[128*h:][:128], dst[64*h:][:64], dst[128+32*h:][:32]
		for i := range high {
			low[i] = levels[i]&15 | levels[64+i]<<4
			low[32+i] = levels[32+i]&15 | levels[96+i]<<4
			high[i] = levels[i]>>4 | levels[32+i]>>4<<2 | levels[64+i]>>4<<4 | levels[96+i]>>4<<6
		}
	}
	for g, s := range b.steps {
		dst[192+g] = uint8(s)
	}
	binary.LittleEndian.PutUint16(dst[208:], b.step)
}

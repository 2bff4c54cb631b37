package tensor

import "encoding/binary"

// A packed group of 16 rows of a block type holds the same bits as the blocks, apart
// in planes, for each step of 32 columns:
//
//	levels  Q8_0: [8][16][4] bytes, level 4j+i of row r in [j][r][i], unsigned;
//	        others: [4][16][4] bytes, the low four bits of level 4j+i of row r in those
//	        of [j][r][i], of level 16+4j+i in the high ones;
//	high    5 bits: [16][4] bytes, the fifth bit of level 4j+i in bit j of [r][i];
//	        6 bits: [2][16][4] bytes, two bits of level 16h+4j+i in bits 2j of [h][r][i];
//	scales  16 halves, and 16 halves of offsets if the type has some; of the K types
//	        16 steps, and 16 offsets or the steps of the second 16 columns, as bytes;
//
// and of the K types for each 256 columns supers: 16 halves, and 16 more for offsets.
// All steps of a plane follow one another; the group is filled up to a line of cache.

// quantStep is the number of columns that kernels take at a time.
const quantStep = 32

// quantPlanes are the bytes of each plane: supers for 256 columns, others for a step.
type quantPlanes struct{ levels, high, scales, supers int }

var blockPlanes = [...]quantPlanes{
	Q8_0: {levels: 512, scales: 32},
	Q4_0: {levels: 256, scales: 32},
	Q4_1: {levels: 256, scales: 64},
	Q5_0: {levels: 256, high: 64, scales: 32},
	Q5_1: {levels: 256, high: 64, scales: 64},
	Q4_K: {levels: 256, scales: 32, supers: 64},
	Q5_K: {levels: 256, high: 64, scales: 32, supers: 64},
	Q6_K: {levels: 256, high: 128, scales: 32, supers: 32},
}

// quantLayout says where the planes of a group begin, and its size.
type quantLayout struct {
	quantPlanes
	atHigh, atScales, atSupers int
	size                       int
}

func newQuantLayout(d DType, cols int) quantLayout {
	l := quantLayout{quantPlanes: blockPlanes[d]}
	steps := cols / quantStep
	l.atHigh = l.levels * steps
	l.atScales = l.atHigh + l.high*steps
	l.atSupers = l.atScales + l.scales*steps
	l.size = roundUp(l.atSupers+l.supers*(cols/superElements), alignment)
	if l.supers == 0 {
		l.atSupers = 0 // never past the end
	}
	return l
}

// packBlocks writes up to 16 rows of blocks into a group of zeros.
func packBlocks(dst []byte, d DType, src []byte, cols int) {
	n, size := d.Block()
	l := newQuantLayout(d, cols)
	for r := 0; len(src) > 0; r++ {
		for at := 0; at < cols; at += n {
			l.packBlock(dst, d, src[:size], r, at/quantStep)
			src = src[size:]
		}
	}
}

// packBlock writes a block of row r whose first step is given.
func (l *quantLayout) packBlock(dst []byte, d DType, src []byte, r, step int) {
	levels := dst[l.levels*step+4*r:]
	high := dst[l.atHigh+l.high*step+4*r:]
	scales := dst[l.atScales+l.scales*step:]
	switch d {
	case Q8_0:
		for j := range 8 {
			put32(levels[64*j:], word(src, 2+4*j)^0x80808080)
		}
		copy(scales[2*r:][:2], src)
	case Q4_0, Q4_1, Q5_0, Q5_1:
		at := 2
		copy(scales[2*r:][:2], src)
		if blockTypes[d].affine {
			copy(scales[32+2*r:][:2], src[at:])
			at += 2
		}
		if l.high > 0 {
			put32(high, spreadBits(word(src, at)))
			at += 4
		}
		for j := range 4 {
			put32(levels[64*j:], word(src, at+4*j))
		}
	case Q4_K, Q5_K:
		at := 16
		if d == Q5_K {
			at = 48
		}
		for g := range 8 {
			packNibbles(levels[l.levels*g:], src[at+g/2*32:][:32], g%2)
			if d == Q5_K {
				put32(high[l.high*g:], fifthBits(src[16:48], g))
			}
		}
		l.packScales(dst, d, src, r, step)
	case Q6_K:
		for g := range 8 {
			half, j := g/4, g%4
			packNibbles(levels[l.levels*g:], src[64*half+j%2*32:][:32], j/2)
			for v := range 2 {
				put32(high[l.high*g+64*v:], upperBits(src[128+32*half+16*v:][:16], j))
			}
		}
		l.packScales(dst, d, src, r, step)
	}
}

// packScales writes the factors and supers of a block of a K type.
func (l *quantLayout) packScales(dst []byte, d DType, src []byte, r, step int) {
	supers := dst[l.atSupers+l.supers*(step/8)+2*r:]
	if d == Q6_K {
		for g, s := range src[192:208] {
			dst[l.atScales+l.scales*(step+g/2)+16*(g%2)+r] = s
		}
		copy(supers[:2], src[208:])
		return
	}
	var b block
	b.decodeScales(src)
	for g := range 8 {
		factors := dst[l.atScales+l.scales*(step+g)+r:]
		factors[0], factors[16] = uint8(b.steps[g]), uint8(b.offsets[g])
	}
	copy(supers[:2], src)
	copy(supers[32:34], src[2:])
}

func word(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }

func put32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }

// packNibbles takes the low (0) or high (1) four bits of 32 bytes.
func packNibbles(levels, src []byte, which int) {
	for j := range 4 {
		a, b := word(src, 4*j)>>(4*which), word(src, 16+4*j)>>(4*which)
		put32(levels[64*j:], a&0x0f0f0f0f|b&0x0f0f0f0f<<4)
	}
}

// spreadBits moves bit 4j+i to bit j of byte i.
func spreadBits(v uint32) (spread uint32) {
	for i := range 4 {
		b := v >> i & 0x11111111
		b = (b | b>>3) & 0x03030303
		b = (b | b>>6) & 0x000f000f
		spread |= (b | b>>12) & 0xff << (8 * i)
	}
	return spread
}

// fifthBits takes bit g of byte 4j+i to bit j of byte i.
func fifthBits(src []byte, g int) (spread uint32) {
	for j := range 8 {
		spread |= word(src, 4*j) >> g & 0x01010101 << j
	}
	return spread
}

// upperBits takes bits 2g of byte 4j+i to bits 2j of byte i.
func upperBits(src []byte, g int) (spread uint32) {
	for j := range 4 {
		spread |= word(src, 4*j) >> (2 * g) & 0x03030303 << (2 * j)
	}
	return spread
}

// stepLevels are the levels of a step of a packed group: [8][16][4], level 4j+i of row
// r in [j][r][i].
type stepLevels [8 * groupRows * 4]uint8

// unpackLevels reads the levels of a step from a group.
func (l *quantLayout) unpackLevels(dst *stepLevels, group []byte, step int) {
	src := group[l.levels*step:][:l.levels]
	if l.levels == len(dst) {
		copy(dst[:], src)
		return
	}
	high := group[l.atHigh+l.high*step:][:l.high]
	const half = len(dst) / 2
	for i, b := range src[:half] {
		dst[i], dst[half+i] = b&15, b>>4
	}
	switch l.high {
	case 64:
		for at := range dst {
			dst[at] |= high[at%64] >> (at / 64) & 1 << 4
		}
	case 128:
		for at := range dst {
			dst[at] |= high[at/half*64+at%64] >> (at / 64 % 4 * 2) & 3 << 4
		}
	}
}

// stepScales are the scales of the 16 rows of a group in a step, those of the second
// 16 columns if they differ, and offsets. All are exact in float32.
type stepScales struct{ first, second, offset [groupRows]float32 }

// unpackScales reads the scales of a step from a group.
func (l *quantLayout) unpackScales(dst *stepScales, d DType, group []byte, step int) {
	for r := range groupRows {
		dst.first[r], dst.second[r], dst.offset[r] = l.rowScales(d, group, step, r)
	}
}

// rowScales reads the scales of row r in a step: of the first and the second 16
// columns, and the offset.
func (l *quantLayout) rowScales(d DType, group []byte, step, r int) (first, second, offset float32) {
	src := group[l.atScales+l.scales*step:][:l.scales]
	affine := blockTypes[d].affine
	if l.supers == 0 {
		first = halfToFloat(half(src, 2*r))
		if affine {
			offset = halfToFloat(half(src, 32+2*r))
		}
		return first, first, offset
	}
	supers := group[l.atSupers+l.supers*(step*quantStep/superElements):][:l.supers]
	scale := halfToFloat(half(supers, 2*r))
	first = scale * float32(int8(src[r]))
	if affine {
		return first, first, halfToFloat(half(supers, 32+2*r)) * float32(int8(src[16+r]))
	}
	return first, scale * float32(int8(src[16+r])), 0
}

// rowLevels reads the levels of row r in a step.
func (l *quantLayout) rowLevels(dst *[quantStep]uint8, group []byte, step, r int) {
	src := group[l.levels*step+4*r:]
	if l.levels == len(stepLevels{}) {
		for j := 0; j < quantStep; j += 4 {
			copy(dst[j:j+4], src[16*j:])
		}
		return
	}
	for k := range quantStep / 2 {
		b := src[k/4*64+k%4]
		dst[k], dst[quantStep/2+k] = b&15, b>>4
	}
	high := group[l.atHigh+l.high*step+4*r:]
	switch l.high {
	case 64:
		for k := range dst {
			dst[k] |= high[k%4] >> (k / 4) & 1 << 4
		}
	case 128:
		for k := range dst {
			dst[k] |= high[k/16*64+k%4] >> (k / 4 % 4 * 2) & 3 << 4
		}
	}
}

// unpackBlocks writes row r of a packed group into dst, as Dequantize would.
func unpackBlocks(dst []float32, d DType, group []byte, r int) {
	l := newQuantLayout(d, len(dst))
	zero, affine := blockTypes[d].zero, blockTypes[d].affine
	var levels [quantStep]uint8
	for step := range len(dst) / quantStep {
		l.rowLevels(&levels, group, step, r)
		first, second, offset := l.rowScales(d, group, step, r)
		for k, level := range levels {
			scale := first
			if k >= quantStep/2 {
				scale = second
			}
			v := scale * float32(int(level)-zero)
			if affine {
				v += offset
			}
			dst[step*quantStep+k] = v
		}
	}
}

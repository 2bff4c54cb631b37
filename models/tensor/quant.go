package tensor

import (
	"encoding/binary"
	"fmt"
)

// GGML's block types, as ggml-common.h and ggml-quants.c define them. Every one of
// them comes to the same: an element is
//
//	(step·steps[g])·(level - zero) + offset·offsets[g]
//
// of an unsigned level, a zero point that the type fixes, and integers for the group
// g of 16 or 32 elements that it lies in; step and offset are halves. Types without
// sub-scales have steps of 1, types without offsets have offsets of 0. In float32
// each product is exact, so that an element is rounded at most once.

const (
	blockElements = 32  // of the simple types
	superElements = 256 // of the K types
	groupElements = 16  // the smallest group with a scale of its own
	maxGroups     = superElements / groupElements
)

// block is one decoded block of any type.
type block struct {
	step, offset uint16 // halves
	levels       [superElements]uint8
	steps        [maxGroups]int8
	offsets      [maxGroups]int8
}

// blockType is what the types differ in.
type blockType struct {
	zero  int // the level that stands for 0
	top   int // the largest level
	group int // elements that share steps[g] and offsets[g]

	affine bool // has offsets
}

var blockTypes = [...]blockType{
	Q8_0: {zero: 128, top: 255, group: 32},
	Q4_0: {zero: 8, top: 15, group: 32},
	Q4_1: {top: 15, group: 32, affine: true},
	Q5_0: {zero: 16, top: 31, group: 32},
	Q5_1: {top: 31, group: 32, affine: true},
	Q4_K: {top: 15, group: 32, affine: true},
	Q5_K: {top: 31, group: 32, affine: true},
	Q6_K: {zero: 32, top: 63, group: 16},
}

// Dequantize converts len(dst) elements, a whole number of blocks, from type d. The
// element is what GGML's reference computes, bit for bit. Scales that are infinite or
// NaN give such elements. It panics if d is not a block type or src has another size.
func Dequantize(dst []float32, d DType, src []byte) {
	checkBlocks("dequantize", d, len(dst), len(src))
	n, size := d.Block()
	var b block
	for len(dst) > 0 {
		b.decode(d, src[:size])
		b.floats(dst[:n], d)
		dst, src = dst[n:], src[size:]
	}
}

func checkBlocks(verb string, d DType, elements, bytes int) {
	n, size := d.Block()
	if !d.Quantised() || elements%n != 0 || bytes != elements/n*size {
		panic(fmt.Sprintf("tensor: cannot %s %d elements and %d bytes of %v", verb, elements, bytes, d))
	}
}

// floats computes the elements.
func (b *block) floats(dst []float32, d DType) {
	t := &blockTypes[d]
	step, offset := halfToFloat(b.step), halfToFloat(b.offset)
	for at := 0; at < len(dst); at += t.group {
		g := at / t.group
		scale := step * float32(b.steps[g])
		out, levels := dst[at:at+t.group], b.levels[at:at+t.group]
		if !t.affine {
			for i, l := range levels {
				out[i] = scale * float32(int(l)-t.zero)
			}
			continue
		}
		shift := offset * float32(b.offsets[g])
		for i, l := range levels {
			out[i] = scale*float32(int(l)-t.zero) + shift
		}
	}
}

// decode reads one block of type d.
func (b *block) decode(d DType, src []byte) {
	b.steps[0], b.offsets[0], b.offset = 1, 0, 0
	switch d {
	case Q8_0:
		b.step = half(src, 0)
		for i, q := range src[2:34] {
			b.levels[i] = q ^ 0x80
		}
	case Q4_0:
		b.step = half(src, 0)
		b.decodeHalves(src[2:18], 0)
	case Q4_1:
		b.step, b.offset, b.offsets[0] = half(src, 0), half(src, 2), 1
		b.decodeHalves(src[4:20], 0)
	case Q5_0:
		b.step = half(src, 0)
		b.decodeHalves(src[6:22], binary.LittleEndian.Uint32(src[2:]))
	case Q5_1:
		b.step, b.offset, b.offsets[0] = half(src, 0), half(src, 2), 1
		b.decodeHalves(src[8:24], binary.LittleEndian.Uint32(src[4:]))
	case Q4_K:
		b.decodeScales(src)
		b.decodePairs(src[16:144], nil)
	case Q5_K:
		b.decodeScales(src)
		b.decodePairs(src[48:176], src[16:48])
	case Q6_K:
		b.decodeQ6K(src)
	default:
		panic(fmt.Sprintf("tensor: %v is not a block type", d))
	}
}

func half(src []byte, at int) uint16 { return binary.LittleEndian.Uint16(src[at:]) }

// decodeHalves reads 32 levels: element i in the low four bits of byte i, element
// 16+i in the high ones, and the fifth bit of element i in bit i of high.
func (b *block) decodeHalves(src []byte, high uint32) {
	for i, q := range src[:16] {
		b.levels[i] = q&15 | uint8(high>>i&1)<<4
		b.levels[16+i] = q>>4 | uint8(high>>(16+i)&1)<<4
	}
}

// decodeScales reads the head of Q4_K and Q5_K: two halves, the second subtracted,
// and eight pairs of 6-bit factors in 12 bytes. Of groups 0 to 3 the factors are the
// low six bits of bytes g and 4+g; of groups 4 to 7 their low four bits lie in byte
// 4+g and their upper two on top of the bytes of group g-4.
func (b *block) decodeScales(src []byte) {
	b.step, b.offset = half(src, 0), half(src, 2)
	s := src[4:16]
	for g := range 4 {
		b.steps[g] = int8(s[g] & 63)
		b.offsets[g] = -int8(s[4+g] & 63)
		b.steps[4+g] = int8(s[8+g]&15 | s[g]>>6<<4)
		b.offsets[4+g] = -int8(s[8+g]>>4 | s[4+g]>>6<<4)
	}
}

// decodePairs reads 256 levels: 32 bytes hold two groups, one in the low and one in
// the high four bits; the fifth bit of element i of group g is bit g of high[i].
func (b *block) decodePairs(src, high []byte) {
	for pair := range 4 {
		low := b.levels[64*pair:][:64]
		for i, q := range src[32*pair:][:32] {
			low[i], low[32+i] = q&15, q>>4
		}
		if high != nil {
			for i, h := range high[:32] {
				h >>= 2 * pair
				low[i] |= h & 1 << 4
				low[32+i] |= h >> 1 & 1 << 4
			}
		}
	}
}

// decodeQ6K reads 128 bytes of low four bits, 64 of upper two, 16 scales and a half.
// Of each 128 elements, element 32j+i has its low bits in byte 32(j mod 2)+i, in
// the upper four of them from j = 2 on, and its upper bits in bits 2j of byte i.
func (b *block) decodeQ6K(src []byte) {
	b.step = half(src, 208)
	for g, s := range src[192:208] {
		b.steps[g] = int8(s)
		b.offsets[g] = 0
	}
	for h := range 2 {
		levels, low, high := b.levels[128*h:][:128], src[64*h:][:64], src[128+32*h:][:32]
		for i, q := range high {
			levels[i] = low[i]&15 | q&3<<4
			levels[32+i] = low[32+i]&15 | q>>2&3<<4
			levels[64+i] = low[i]>>4 | q>>4&3<<4
			levels[96+i] = low[32+i]>>4 | q>>6<<4
		}
	}
}

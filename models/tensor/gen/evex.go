package main

import (
	"fmt"
	"strings"
)

// evex is an EVEX instruction that the Go assembler does not know, in the notation
// of Intel's manual: EVEX.<length>.<prefix>.<table>.W<w> <opcode> /r.
type evex struct {
	name   string
	prefix byte // pp: 0 none, 1 66, 2 F3, 3 F2
	table  byte // mmm: 1 0F, 2 0F38, 3 0F3A
	w      byte
	opcode byte
}

// The instructions of AVX512-BF16.
var (
	// VDPBF16PS adds to each float32 of dst the two products of a pair of BF16.
	vdpbf16ps = evex{name: "VDPBF16PS", prefix: 2, table: 2, opcode: 0x52}
	// VCVTNEPS2BF16 rounds float32 to BF16, to nearest and even.
	vcvtneps2bf16 = evex{name: "VCVTNEPS2BF16", prefix: 2, table: 2, opcode: 0x72}
)

// encode writes the instruction with operands in Go's order: source is a vec or a
// mem, which with broadcast is one 32-bit element for all lanes; second is the
// other source, or vec{} for an instruction of two operands. The vector
// length is length's.
func (a *asm) encode(i evex, source any, broadcast bool, second, dst vec, length byte) {
	p1 := byte(0xf0) | i.table // R X B R' inverted
	p2 := i.w<<7 | 0x04 | i.prefix | byte(^second.n&15)<<3
	p3 := byte(strings.IndexByte("XYZ", length))<<5 | byte(^second.n>>4&1)<<3
	set := func(inverted byte, on bool) {
		if on {
			p1 &^= inverted
		}
	}
	set(0x80, dst.n&8 != 0)
	set(0x10, dst.n&16 != 0)
	var tail []byte
	modReg := byte(dst.n&7) << 3
	switch s := source.(type) {
	case vec:
		set(0x20, s.n&8 != 0)
		set(0x40, s.n&16 != 0)
		tail = []byte{0xc0 | modReg | byte(s.n&7)}
	case mem:
		size := vec{kind: length}.bytes()
		if broadcast {
			p3 |= 0x10
			size = 4
		}
		set(0x20, s.base.number()&8 != 0)
		set(0x40, s.index != "" && s.index.number()&8 != 0)
		tail = s.encode(modReg, size)
	default:
		panic(fmt.Sprintf("%s of %T", i.name, source))
	}
	code := append([]byte{0x62, p1, p2, p3, i.opcode}, tail...)
	var text []string
	for _, b := range code {
		text = append(text, fmt.Sprintf("BYTE $0x%02x", b))
	}
	operands := fmt.Sprint(source)
	if second != (vec{}) {
		operands += ", " + second.String()
	}
	a.line("\t%s // %s %s, %v", strings.Join(text, "; "), i.name, operands, dst)
}

// encode returns ModRM, SIB and displacement. A displacement that is a multiple of
// the operand's size fits in a byte if the quotient does.
func (m mem) encode(modReg byte, size int) []byte {
	base := byte(m.base.number() & 7)
	var sib []byte
	rm := base
	if m.index != "" || base == 4 {
		index, scale := byte(4), byte(0)
		if m.index != "" {
			index = byte(m.index.number() & 7)
			scale = byte(strings.IndexByte("1248", '0'+byte(m.scale))) // 1, 2, 4, 8 as 0 to 3
		}
		rm, sib = 4, []byte{scale<<6 | index<<3 | base}
	}
	switch {
	case m.disp == 0 && base != 5:
		return append([]byte{modReg | rm}, sib...)
	case m.disp%size == 0 && m.disp/size >= -128 && m.disp/size < 128:
		return append(append([]byte{0x40 | modReg | rm}, sib...), byte(m.disp/size))
	}
	d := uint32(m.disp)
	return append(append([]byte{0x80 | modReg | rm}, sib...), byte(d), byte(d>>8), byte(d>>16), byte(d>>24))
}

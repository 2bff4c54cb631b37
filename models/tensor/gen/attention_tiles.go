package main

import "math"

// attentionKernels emits what attention in tiles of AMX does between the products: the
// operands in the order of tiles, the weights of a tile of scores, and the results in
// the order of the call. Each works on 16 queries, in the lanes of a vector.
func attentionKernels(a *asm) {
	var interleaved []uint32 // words 0, 16, 1, 17, …
	for i := range uint32(16) {
		interleaved = append(interleaved, i|(16+i)<<16)
	}
	a.constant("interleavedWords", interleaved...)
	powerConstants(a)
	tileQueriesFunction(a)
	tileValuesFunction(a)
	tileResultsFunction(a)
	tileSoftmaxFunction(a)
}

// halfMasks loads K1 and K2 with the lower and upper half of 32 bits.
func (a *asm) halfMasks(argument string, through reg) {
	a.op("MOVQ", argument, through)
	a.op("KMOVW", through, mask(1))
	a.op("SHRL", 16, through)
	a.op("KMOVW", through, mask(2))
}

// vcvtne2ps2bf16 rounds two vectors of float32 to BF16: the second operand's are the
// upper half of the result.
var vcvtne2ps2bf16 = evex{name: "VCVTNE2PS2BF16", prefix: 3, table: 2, opcode: 0x72}

// tileQueriesFunction emits dst[i][r] = the pair x[r][2i], x[r][2i+1] in BF16, for 16
// rows of up to 32 columns, which mask has.
func tileQueriesFunction(a *asm) {
	a.function("tileQueriesAVX512", "(dst *byte, x *float32, stride, mask int)", 32)
	a.arguments([]string{"dst", "x", "stride"}, DI, SI, R8)
	a.halfMasks("mask+24(FP)", AX)
	for r := range 16 {
		a.op("VMOVUPS.Z", at(SI, 0), mask(1), z(16))
		a.op("VMOVUPS.Z", at(SI, 64), mask(2), z(17))
		a.encode(vcvtne2ps2bf16, z(16), false, z(17), z(r), 'Z')
		a.op("ADDQ", R8, SI)
	}
	a.transpose()
	for r := range 16 {
		a.op("VMOVUPS", z(r), at(DI, 64*r))
	}
	a.ret()
}

// tileValuesFunction emits dst[r][i] = the pair x[2i][r], x[2i+1][r] in BF16, for 32
// rows of up to 16 columns, which mask has.
func tileValuesFunction(a *asm) {
	a.function("tileValuesAVX512", "(dst *byte, x *float32, stride, mask int)", 32)
	a.arguments([]string{"dst", "x", "stride"}, DI, SI, R8)
	a.halfMasks("mask+24(FP)", AX)
	a.op("VMOVDQU64", "·interleavedWords(SB)", z(18))
	for r := range 16 {
		a.op("VMOVUPS.Z", at(SI, 0), mask(1), z(16))
		a.op("VMOVUPS.Z", mem{base: SI, index: R8, scale: 1}, mask(1), z(17))
		a.encode(vcvtne2ps2bf16, z(16), false, z(17), z(r), 'Z')
		a.op("VPERMW", z(r), z(18), z(r))
		a.op("LEAQ", mem{base: SI, index: R8, scale: 2}, SI)
	}
	a.transpose()
	for r := range 16 {
		a.op("VMOVUPS", z(r), at(DI, 64*r))
	}
	a.ret()
}

// tileResultsFunction emits out[i][r] = x[r][i]·share[i] for 16 columns and up to 16 rows,
// which mask has.
func tileResultsFunction(a *asm) {
	a.function("tileResultsAVX512", "(out *float32, stride int, x, share *float32, mask int)", 40)
	a.arguments([]string{"out", "stride", "x", "share"}, DI, R8, SI, DX)
	a.halfMasks("mask+32(FP)", AX)
	a.op("VMOVUPS", at(DX, 0), z(16))
	for r := range 16 {
		a.op("VMULPS", at(SI, 64*r), z(16), z(r))
	}
	a.transpose()
	for r := range 16 {
		a.op("VMOVUPS", z(r), mask(1), at(DI, 0))
		a.op("ADDQ", R8, DI)
	}
	a.ret()
}

// transpose exchanges the rows and columns of the 16 by 16 words in Z0 to Z15.
func (a *asm) transpose() {
	for r := 0; r < 16; r += 2 {
		a.op("VUNPCKLPS", z(r+1), z(r), z(16+r))
		a.op("VUNPCKHPS", z(r+1), z(r), z(17+r))
	}
	for r := 0; r < 16; r += 4 {
		for i := range 2 {
			a.op("VUNPCKLPD", z(18+r+i), z(16+r+i), z(r+2*i))
			a.op("VUNPCKHPD", z(18+r+i), z(16+r+i), z(r+2*i+1))
		}
	}
	for r := 0; r < 16; r += 8 {
		for i := range 4 {
			a.op("VSHUFF32X4", 0x88, z(r+4+i), z(r+i), z(16+r+i))
			a.op("VSHUFF32X4", 0xdd, z(r+4+i), z(r+i), z(20+r+i))
		}
	}
	for i := range 8 {
		a.op("VSHUFF32X4", 0x88, z(24+i), z(16+i), z(i))
		a.op("VSHUFF32X4", 0xdd, z(24+i), z(16+i), z(8+i))
	}
}

// The constants of powers of two: 2ˣ for 0 ≤ x < 1 within 2⁻¹³, and half of the last
// place of a BF16 more, so that cutting off the lower half of the bits rounds.
const (
	powerCube   word = "PowerCube"
	powerSquare word = "PowerSquare"
	powerSlope  word = "PowerSlope"
	powerOne    word = "PowerOne"
	powerLowest word = "PowerLowest"
	powerUpper  word = "PowerUpper" // the upper half of a word
)

// tileSoftmaxFunction emits, for scores [keys][16] as powers of two and keys a multiple
// of 32, what is left of the softmax but for dividing by its sum:
//
//	top' = max(top, ⌈largest score⌉); x = x·2^(top-top'); p = BF16(2^(score-top'))
//
// with p in pairs of keys, [keys/2][16][2], and x of some rows of 16. A power of two for
// a factor keeps x exact. Scores more than 126 below the top count as so much.
func tileSoftmaxFunction(a *asm) {
	const (
		top, before, base, lowest = 16, 17, 18, 19 // registers
		change                    = 20
	)
	a.function("tileSoftmaxAVX512", "(p *byte, score *float32, keys int, top, x *float32, rows int)", 48)
	a.arguments([]string{"p", "score", "keys", "top", "x", "rows"}, DI, SI, CX, DX, R8, R9)
	l := lanes{asm: a, kind: 'Z'}.hold([]word{powerCube, powerSquare, powerSlope, powerOne, powerUpper})
	a.op("MOVQ", CX, AX)
	a.op("MOVQ", SI, R10)
	a.op("VMOVUPS", at(SI, 0), z(0))
	for i := 1; i < 4; i++ {
		a.op("VMOVUPS", z(0), z(i))
	}
	tops := a.newLabel("tops")
	a.label(tops)
	for i := range 8 {
		a.op("VMAXPS", at(R10, 64*i), z(i%4), z(i%4))
	}
	a.op("ADDQ", 512, R10)
	a.op("SUBQ", 8, AX)
	a.op("JNZ", tops)
	a.op("VMAXPS", z(1), z(0), z(0))
	a.op("VMAXPS", z(3), z(2), z(2))
	a.op("VMAXPS", z(2), z(0), z(0))
	a.op("VRNDSCALEPS", 2, z(0), z(0)) // up
	a.op("VMOVUPS", at(DX, 0), z(before))
	a.op("VMAXPS", z(0), z(before), z(top))
	a.op("VMOVUPS", z(top), at(DX, 0))
	same, scaled := a.newLabel("same"), a.newLabel("scaled")
	a.op("VCMPPS", 0, z(top), z(before), mask(2))
	a.op("KORTESTW", mask(2), mask(2))
	a.op("JCS", same) // in all lanes
	a.op("VSUBPS", z(top), z(before), z(change))
	a.op("VBROADCASTSS", one, z(0))
	a.op("VSCALEFPS", z(change), z(0), z(change))
	a.label(scaled)
	a.op("VMULPS", at(R8, 0), z(change), z(0))
	a.op("VMOVUPS", z(0), at(R8, 0))
	a.op("ADDQ", 64, R8)
	a.op("DECQ", R9)
	a.op("JNZ", scaled)
	a.label(same)
	a.op("VBROADCASTSS", rounding, z(base))
	a.op("VSUBPS", z(top), z(base), z(base))
	a.op("VBROADCASTSS", powerLowest, z(lowest))
	a.op("VADDPS", z(top), z(lowest), z(lowest))
	a.op("SHRQ", 2, CX)
	a.loop(CX, func() {
		for i := range 2 {
			l.powers(at(SI, 128*i), z(base), z(lowest), [4]vec{z(8 * i), z(8*i + 1), z(8*i + 2), z(8*i + 3)})
			l.powers(at(SI, 128*i+64), z(base), z(lowest), [4]vec{z(8*i + 4), z(8*i + 5), z(8*i + 6), z(8*i + 7)})
			a.op("VPSRLD", 16, z(8*i), z(8*i))
			a.op("VPTERNLOGD", 0xf8, l.c(powerUpper), z(8*i+4), z(8*i)) // even | odd & upper
			a.op("VMOVUPS", z(8*i), at(DI, 64*i))
		}
		a.op("ADDQ", 256, SI)
		a.op("ADDQ", 128, DI)
	})
	a.ret()
}

// powers sets v[0] to 2^(score - top), as words whose upper half is BF16. base is
// 1.5·2²³ - top: what is added to it has no fraction, and its last bits are the exponent.
func (l lanes) powers(score mem, base, lowest vec, v [4]vec) {
	power, x, whole, sum := v[0], v[1], v[2], v[3]
	l.op("VMAXPS", score, lowest, x) // a NaN stays
	l.op("VADDPS.RD_SAE", base, x, sum)
	l.op("VSUBPS", base, sum, whole)
	l.op("VSUBPS", whole, x, x)
	l.op("VMOVUPS", l.c(powerCube), power)
	for _, c := range []word{powerSquare, powerSlope, powerOne} {
		l.op("VFMADD213PS", l.c(c), x, power)
	}
	l.op("VPSLLD", 23, sum, sum)
	l.op("VPADDD", sum, power, power)
}

// powerConstants declares what the weights of attention are made with.
func powerConstants(a *asm) {
	for _, c := range []struct {
		name word
		bits uint32
	}{
		{powerCube, math.Float32bits(0.07802452)}, {powerSquare, math.Float32bits(0.22606716)},
		{powerSlope, math.Float32bits(0.69583354)}, {powerOne, math.Float32bits(0.99992522 + 0x1p-8)},
		{powerLowest, math.Float32bits(-126)}, {powerUpper, 0xffff0000},
	} {
		a.constant("const"+string(c.name), c.bits)
	}
}

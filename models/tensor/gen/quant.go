package main

import "fmt"

// quantKind is a product kernel for one block type: how 32 columns of 16 rows become
// levels and scales. The layout is described in quant_pack.go.
type quantKind struct {
	name   string
	bytes  bool // levels are bytes, not four bits with more apart
	high   int  // more bits
	affine bool // has offsets
	super  bool // factors of 8 bits and scales of 256 columns, not a scale of 32
	halves bool // a factor for each 16 columns
}

var quantKinds = []quantKind{
	{name: "Q8_0", bytes: true},
	{name: "Q4_0"},
	{name: "Q4_1", affine: true},
	{name: "Q5_0", high: 1},
	{name: "Q5_1", high: 1, affine: true},
	{name: "Q4_K", affine: true, super: true},
	{name: "Q5_K", high: 1, affine: true, super: true},
	{name: "Q6_K", high: 2, super: true, halves: true},
}

// Fields of quantTile.
const (
	quantY = 8 * iota
	quantYStride
	quantBias
	quantSums
	quantX
	quantLevels
	quantHigh
	quantScales
	quantSupers
	quantNext
	quantSteps
	quantTokens
	quantScratch
)

// A record of activations: 32 bytes, and four words.
const (
	recordScale  = 32 // 1.5·2^23 of the record's power of two
	recordStart  = 36 // what sums of all columns, or of the first 16, begin with
	recordSecond = 40 // what sums of the second 16 begin with
	recordSum    = 44 // the sum of the activations
	recordBytes  = 48
)

// Registers of the product kernels: BX is the tile, SI a record, DI the sums of a
// token, DX, R10, R11 and R12 levels, high bits, scales and supers of a step, R9 the
// distance of the second group, R13 the steps left, R8 those before the next supers,
// CX the tokens left.

// stepsPerSuper is the number of steps of 32 columns that share supers.
const stepsPerSuper = 8

// quantKernels writes the products of packed block types.
func quantKernels(a *asm) {
	a.constant("lowNibbles", repeat(0x0f0f0f0f, 8)...)
	a.constant("fifthBits", repeat(0x10101010, 8)...)
	a.constant("upperBits", repeat(0x30303030, 8)...)
	a.constant("signBits", repeat(0x80808080, 8)...)
	a.constant("absolute", repeat(0x7fffffff, 8)...)
	a.constant("onesOf16", repeat(0x00010001, 8)...)
	a.constant("packedOrder", 0, 4, 1, 5, 2, 6, 3, 7)
	for _, k := range quantKinds {
		quantWide{k, a}.function()
	}
	for _, k := range quantKinds {
		quantNarrow{k, a}.function()
	}
	quantizeRow(a)
}

// levelBytes, highBytes, scaleBytes and superBytes are what a group of 16 rows has for
// 32 columns, and supers for 256.
func (k quantKind) levelBytes() int {
	if k.bytes {
		return 512
	}
	return 256
}

func (k quantKind) highBytes() int { return 64 * k.high }

func (k quantKind) scaleBytes() int {
	if k.affine && !k.super {
		return 64
	}
	return 32
}

func (k quantKind) superBytes() int {
	if k.affine {
		return 64
	}
	return 32
}

// subs returns the number of sums that a step makes for an output.
func (k quantKind) subs() int {
	if k.halves {
		return 2
	}
	return 1
}

// start returns where in a record the start of sum s is.
func (k quantKind) start(s int) int { return recordStart + 4*s }

// levelsMask returns the constant that selects the upper bits of a level.
func (k quantKind) highMask() string {
	if k.high == 2 {
		return "·upperBits(SB)"
	}
	return "·fifthBits(SB)"
}

// highShift returns how far to the left the upper bits of quad j are to be moved, and
// which vector of the plane they are in.
func (k quantKind) highShift(j int) (left, vector int) {
	if k.high == 2 {
		return 4 - 2*(j%4), j / 4
	}
	return 4 - j, 0
}

// begin loads the registers of a product kernel.
func (k quantKind) begin(a *asm, name string) {
	a.function(name, "(t *quantTile)", 8)
	a.op("MOVQ", "t+0(FP)", BX)
	a.op("MOVQ", at(BX, quantX), SI)
	a.op("MOVQ", at(BX, quantLevels), DX)
	a.op("MOVQ", at(BX, quantHigh), R10)
	a.op("MOVQ", at(BX, quantScales), R11)
	a.op("MOVQ", at(BX, quantSupers), R12)
	a.op("MOVQ", at(BX, quantNext), R9)
	a.op("MOVQ", at(BX, quantSteps), R13)
}

// steps writes the loop over all columns, 32 at a time.
func (k quantKind) steps(a *asm, body func()) {
	top := a.newLabel("step")
	if k.super {
		a.op("MOVQ", stepsPerSuper, R8)
	}
	a.label(top)
	body()
	a.op("ADDQ", k.levelBytes(), DX)
	if k.high > 0 {
		a.op("ADDQ", k.highBytes(), R10)
	}
	a.op("ADDQ", k.scaleBytes(), R11)
	if k.super {
		same := a.newLabel("same")
		a.op("DECQ", R8)
		a.op("JNZ", same)
		a.op("MOVQ", stepsPerSuper, R8)
		a.op("ADDQ", k.superBytes(), R12)
		a.label(same)
	}
	a.op("DECQ", R13)
	a.op("JNZ", top)
}

// tokens writes the loops over the tokens of a step, first many at a time and then
// one by one.
func tokensLoop(a *asm, many int, sumBytes int, body func(tokens int)) {
	a.op("MOVQ", at(BX, quantSums), DI)
	a.op("MOVQ", at(BX, quantTokens), CX)
	for _, n := range []int{many, 1} {
		top, done := a.newLabel("tokens"), a.newLabel("done")
		a.op("CMPQ", CX, n)
		a.op("JLT", done)
		a.label(top)
		body(n)
		a.op("ADDQ", n*recordBytes, SI)
		a.op("ADDQ", n*sumBytes, DI)
		a.op("SUBQ", n, CX)
		a.op("CMPQ", CX, n)
		a.op("JGE", top)
		a.label(done)
	}
}

// ends writes what is before and after the steps: every token's sums begin with the
// bias, and go to y at last. vectors are the registers of a token.
func begins(a *asm, vectors []vec) {
	size := vectors[0].bytes()
	a.op("MOVQ", at(BX, quantBias), AX)
	for i, v := range vectors {
		a.op("VMOVUPS", at(AX, i*size), v)
	}
	a.op("MOVQ", at(BX, quantSums), DI)
	a.op("MOVQ", at(BX, quantTokens), CX)
	a.loop(CX, func() {
		for i, v := range vectors {
			a.op("VMOVUPS", v, at(DI, i*size))
		}
		a.op("ADDQ", size*len(vectors), DI)
	})
}

func ends(a *asm, vectors []vec) {
	size := vectors[0].bytes()
	a.op("MOVQ", at(BX, quantSums), DI)
	a.op("MOVQ", at(BX, quantTokens), CX)
	a.op("MOVQ", at(BX, quantY), AX)
	a.op("MOVQ", at(BX, quantYStride), R8)
	a.loop(CX, func() {
		for i, v := range vectors {
			a.op("VMOVUPS", at(DI, i*size), v)
			a.op("VMOVUPS", v, at(AX, i*size))
		}
		a.op("ADDQ", size*len(vectors), DI)
		a.op("ADDQ", R8, AX)
	})
	a.ret()
}

// quantWide writes the kernels of AVX-512: two groups of rows, whose levels of a step
// stay in registers Z0 to Z15 while the tokens pass, four at a time.
type quantWide struct {
	quantKind
	*asm
}

const (
	wideGroups = 2
	wideTokens = 4
)

func (q quantWide) level(group, quad int) vec { return z(8*group + quad) }
func (q quantWide) sum(token, group int) vec  { return z(16 + wideGroups*token + group) }
func (q quantWide) activation(token int) vec  { return z(24 + token%2) }
func (q quantWide) scale(group, sub int) vec  { return z(26 + group + wideGroups*sub) }
func (q quantWide) offset(group int) vec      { return z(28 + group) }
func (q quantWide) group(base reg, disp, g int) mem {
	m := at(base, disp)
	if g > 0 {
		m.index, m.scale = R9, 1
	}
	return m
}

const (
	wideNibbles = 30 // masks
	wideHigh    = 31
)

func (q quantWide) function() {
	q.begin(q.asm, "multiply"+q.name+"AVX512")
	if !q.bytes {
		q.op("VPBROADCASTD", "·lowNibbles(SB)", z(wideNibbles))
	}
	if q.high > 0 {
		q.op("VPBROADCASTD", q.highMask(), z(wideHigh))
	}
	begins(q.asm, []vec{z(0), z(1)})
	q.steps(q.asm, func() {
		for g := range wideGroups {
			q.decodeLevels(g)
		}
		for g := range wideGroups {
			q.decodeScales(g)
		}
		tokensLoop(q.asm, wideTokens, 64*wideGroups, func(tokens int) {
			for s := range q.subs() {
				q.multiply(tokens, s)
			}
		})
	})
	ends(q.asm, []vec{z(0), z(1)})
}

// decodeLevels brings the levels of a group into registers.
func (q quantWide) decodeLevels(g int) {
	if q.bytes {
		for j := range 8 {
			q.op("VMOVDQU64", q.group(DX, 64*j, g), q.level(g, j))
		}
		return
	}
	for j := range 4 {
		low, high := q.level(g, j), q.level(g, j+4)
		q.op("VMOVDQU64", q.group(DX, 64*j, g), high)
		q.op("VPANDD", z(wideNibbles), high, low)
		q.op("VPSRLD", 4, high, high)
		q.op("VPANDD", z(wideNibbles), high, high)
	}
	for v := range q.high {
		q.op("VMOVDQU64", q.group(R10, 64*v, g), z(16+v))
	}
	if q.high == 0 {
		return
	}
	for j := range 8 {
		left, v := q.highShift(j)
		bits := z(16 + v)
		if left != 0 {
			bits = z(18 + j%4)
			q.op(shift(left), max(left, -left), z(16+v), bits)
		}
		q.op("VPTERNLOGD", 0xf8, z(wideHigh), bits, q.level(g, j)) // level |= bits & mask
	}
}

// shift returns the instruction that moves to the left, or to the right if left is
// negative.
func shift(left int) string {
	if left < 0 {
		return "VPSRLD"
	}
	return "VPSLLD"
}

// decodeScales brings the scales of a group, and its offsets, into registers.
func (q quantWide) decodeScales(g int) {
	if !q.super {
		q.op("VCVTPH2PS", q.group(R11, 0, g), q.scale(g, 0))
		if q.affine {
			q.op("VCVTPH2PS", q.group(R11, 32, g), q.offset(g))
		}
		return
	}
	factor := func(disp, superDisp int, dst vec) {
		q.op("VPMOVSXBD", q.group(R11, disp, g), dst)
		q.op("VCVTDQ2PS", dst, dst)
		q.op("VCVTPH2PS", q.group(R12, superDisp, g), z(16))
		q.op("VMULPS", z(16), dst, dst)
	}
	factor(0, 0, q.scale(g, 0))
	if q.halves {
		factor(16, 0, q.scale(g, 1))
	}
	if q.affine {
		factor(16, 32, q.offset(g))
	}
}

// multiply adds to the sums of some tokens the products of a step, or of its half s.
func (q quantWide) multiply(tokens, s int) {
	for t := range tokens {
		q.op("VPBROADCASTD", at(SI, recordBytes*t+q.start(s)), q.sum(t, 0))
		q.op("VMOVDQA64", q.sum(t, 0), q.sum(t, 1))
	}
	quads := 8 / q.subs()
	for j := s * quads; j < (s+1)*quads; j++ {
		for t := range tokens {
			q.op("VPBROADCASTD", at(SI, recordBytes*t+4*j), q.activation(t))
			for g := range wideGroups {
				q.op("VPDPBUSD", q.activation(t), q.level(g, j), q.sum(t, g))
			}
		}
	}
	for t := range tokens {
		for g := range wideGroups {
			sum, total := q.sum(t, g), at(DI, 64*(wideGroups*t+g))
			q.op("VSUBPS.BCST", at(SI, recordBytes*t+recordScale), sum, sum)
			q.op("VFMADD213PS", total, q.scale(g, s), sum)
			if q.affine {
				q.op("VFMADD231PS.BCST", at(SI, recordBytes*t+recordSum), q.offset(g), sum)
			}
			q.op("VMOVUPS", sum, total)
		}
	}
}

// quantNarrow writes the kernels of AVX2: one group, whose levels of a step lie in
// scratch memory while the tokens pass, two at a time. Products of Q8_0 take the signs
// of the levels to the activations, so that pairs of products fit in 16 bits; their
// levels are magnitudes there, followed by the signed levels.
type quantNarrow struct {
	quantKind
	*asm
}

const narrowTokens = 2

func (q quantNarrow) sum(token, half int) vec { return y(2*token + half) }
func (q quantNarrow) scale(half, sub int) vec { return y(4 + half + 2*sub) }
func (q quantNarrow) offset(half int) vec     { return y(6 + half) }

func (q quantNarrow) function() {
	q.begin(q.asm, "multiply"+q.name+"AVX2")
	q.op("MOVQ", at(BX, quantScratch), R15)
	q.op("VMOVDQU", "·onesOf16(SB)", y(8))
	begins(q.asm, []vec{y(0), y(1)})
	q.steps(q.asm, func() {
		for half := range 2 {
			q.decodeLevels(half)
		}
		for half := range 2 {
			q.decodeScales(half)
		}
		tokensLoop(q.asm, narrowTokens, 64, func(tokens int) {
			for s := range q.subs() {
				q.multiply(tokens, s)
			}
		})
	})
	ends(q.asm, []vec{y(0), y(1)})
}

// decodeLevels writes the levels of eight rows to the scratch memory.
func (q quantNarrow) decodeLevels(half int) {
	if q.bytes {
		q.op("VMOVDQU", "·signBits(SB)", y(0))
		for j := range 8 {
			q.op("VPXOR", at(DX, 64*j+32*half), y(0), y(1))
			q.op("VMOVDQU", y(1), at(R15, 512+64*j+32*half))
			q.op("VPABSB", y(1), y(1))
			q.op("VMOVDQU", y(1), at(R15, 64*j+32*half))
		}
		return
	}
	q.op("VMOVDQU", "·lowNibbles(SB)", y(0))
	if q.high > 0 {
		q.op("VMOVDQU", q.highMask(), y(1))
	}
	for v := range q.high {
		q.op("VMOVDQU", at(R10, 64*v+32*half), y(2+v))
	}
	for j := range 8 {
		q.op("VMOVDQU", at(DX, 64*(j%4)+32*half), y(4))
		if j >= 4 {
			q.op("VPSRLD", 4, y(4), y(4))
		}
		q.op("VPAND", y(0), y(4), y(4))
		if q.high > 0 {
			left, v := q.highShift(j)
			bits := y(2 + v)
			if left != 0 {
				q.op(shift(left), max(left, -left), bits, y(5))
				bits = y(5)
			}
			q.op("VPAND", y(1), bits, y(5))
			q.op("VPOR", y(5), y(4), y(4))
		}
		q.op("VMOVDQU", y(4), at(R15, 64*j+32*half))
	}
}

func (q quantNarrow) decodeScales(half int) {
	if !q.super {
		q.op("VCVTPH2PS", at(R11, 16*half), q.scale(half, 0))
		if q.affine {
			q.op("VCVTPH2PS", at(R11, 32+16*half), q.offset(half))
		}
		return
	}
	factor := func(disp, superDisp int, dst vec) {
		q.op("VPMOVSXBD", at(R11, disp+8*half), dst)
		q.op("VCVTDQ2PS", dst, dst)
		q.op("VCVTPH2PS", at(R12, superDisp+16*half), y(0))
		q.op("VMULPS", y(0), dst, dst)
	}
	factor(0, 0, q.scale(half, 0))
	if q.halves {
		factor(16, 0, q.scale(half, 1))
	}
	if q.affine {
		factor(16, 32, q.offset(half))
	}
}

func (q quantNarrow) multiply(tokens, s int) {
	start := q.start(s)
	if q.bytes {
		start = recordScale // levels are signed: there is no zero point to take off
	}
	for t := range tokens {
		q.op("VPBROADCASTD", at(SI, recordBytes*t+start), q.sum(t, 0))
		q.op("VMOVDQA", q.sum(t, 0), q.sum(t, 1))
	}
	quads := 8 / q.subs()
	for j := s * quads; j < (s+1)*quads; j++ {
		for t := range tokens {
			q.op("VPBROADCASTD", at(SI, recordBytes*t+4*j), y(9+t))
		}
		for half := range 2 {
			disp := 64*j + 32*half
			q.op("VMOVDQU", at(R15, disp), y(11))
			for t := range tokens {
				x, product := y(9+t), y(12+2*half+t)
				if q.bytes {
					q.op("VPSIGNB", at(R15, 512+disp), x, product)
					x = product
				}
				q.op("VPMADDUBSW", x, y(11), product)
				q.op("VPMADDWD", y(8), product, product)
				q.op("VPADDD", product, q.sum(t, half), q.sum(t, half))
			}
		}
	}
	for t := range tokens {
		q.op("VBROADCASTSS", at(SI, recordBytes*t+recordScale), y(9))
		if q.affine {
			q.op("VBROADCASTSS", at(SI, recordBytes*t+recordSum), y(10))
		}
		for half := range 2 {
			sum, total := q.sum(t, half), at(DI, 64*t+32*half)
			q.op("VSUBPS", y(9), sum, sum)
			q.op("VFMADD213PS", total, q.scale(half, s), sum)
			if q.affine {
				q.op("VFMADD231PS", y(10), q.offset(half), sum)
			}
			q.op("VMOVUPS", sum, total)
		}
	}
}

// quantizeRow writes quantizeRowAVX2, which makes records of a row of activations.
func quantizeRow(a *asm) {
	const (
		lowest  = 33  // exponents of the largest magnitude, see quantizeGeneric
		highest = 229 //
		nan     = 0x7fc00000
	)
	a.function("quantizeRowAVX2", "(dst *byte, x *float32, records, stride, zero, second int)", 48)
	for i, r := range []reg{DI, SI, CX, DX, R10, R11} {
		a.op("MOVQ", fmt.Sprintf("%s+%d(FP)", []string{"dst", "x", "records", "stride", "zero", "second"}[i], 8*i), r)
	}
	a.op("VMOVDQU", "·absolute(SB)", y(15))
	a.op("VMOVDQU", "·signBits(SB)", y(14))
	a.op("VMOVDQU", "·packedOrder(SB)", y(13))
	a.op("VPXOR", y(12), y(12), y(12))
	poison, next := a.newLabel("poison"), a.newLabel("next")
	a.loop(CX, func() {
		for i := range 4 {
			a.op("VMOVUPS", at(SI, 32*i), y(i))
			a.op("VPAND", y(15), y(i), y(4+i))
		}
		a.op("VPMAXUD", y(5), y(4), y(4))
		a.op("VPMAXUD", y(7), y(6), y(6))
		a.op("VPMAXUD", y(6), y(4), y(4))
		a.op("VEXTRACTI128", 1, y(4), x(5))
		a.op("VPMAXUD", x(5), x(4), x(4))
		a.op("VPSHUFD", 0x4e, x(4), x(5))
		a.op("VPMAXUD", x(5), x(4), x(4))
		a.op("VPSHUFD", 0xb1, x(4), x(5))
		a.op("VPMAXUD", x(5), x(4), x(4))
		a.op("VMOVD", x(4), AX)
		a.op("ADDL", 0x1ffff, AX)
		a.op("SHRL", 23, AX)
		a.op("CMPL", AX, highest)
		a.op("JHI", poison)
		a.op("MOVL", lowest, R8)
		a.op("CMPL", AX, R8)
		a.op("CMOVLCS", R8, AX)
		a.op("MOVL", 260, R8)
		a.op("SUBL", AX, R8)
		a.op("SHLL", 23, R8)
		a.op("VMOVD", R8, x(4))
		a.op("VPBROADCASTD", x(4), y(4))
		for i := range 4 {
			a.op("VMULPS", y(4), y(i), y(i))
			a.op("VCVTPS2DQ", y(i), y(i))
		}
		a.op("VPACKSSDW", y(1), y(0), y(0))
		a.op("VPACKSSDW", y(3), y(2), y(2))
		a.op("VPACKSSWB", y(2), y(0), y(0))
		a.op("VPERMD", y(0), y(13), y(0))
		a.op("VMOVDQU", y(0), at(DI, 0))
		// The sums of the halves: bytes with the sign bit turned are 128 larger.
		a.op("VPXOR", y(14), y(0), y(0))
		a.op("VPSADBW", y(12), y(0), y(0))
		a.op("VPSHUFD", 0x4e, y(0), y(1))
		a.op("VPADDD", y(1), y(0), y(0))
		a.op("VEXTRACTI128", 1, y(0), x(1))
		a.op("VMOVD", x(0), R8)
		a.op("VMOVD", x(1), R9)
		a.op("SUBL", 16*128, R8)
		a.op("SUBL", 16*128, R9)
		// The sum of all, scaled.
		a.op("MOVL", R8, R12)
		a.op("ADDL", R9, R12)
		a.op("VCVTSI2SSL", R12, x(12), x(2))
		a.op("LEAL", at(AX, -6), R12)
		a.op("SHLL", 23, R12)
		a.op("VMOVD", R12, x(3))
		a.op("VMULSS", x(3), x(2), x(2))
		a.op("VMOVSS", x(2), at(DI, recordSum))
		a.op("ADDL", 17, AX)
		a.op("SHLL", 23, AX)
		a.op("ORL", 0x400000, AX)
		a.op("MOVL", AX, at(DI, recordScale))
		a.op("IMULL", R10, R8)
		a.op("MOVL", R9, R12)
		a.op("IMULL", R10, R12)
		a.op("IMULL", R11, R9)
		a.op("MOVL", AX, R13)
		a.op("SUBL", R8, AX)
		a.op("SUBL", R9, AX)
		a.op("MOVL", AX, at(DI, recordStart))
		a.op("SUBL", R12, R13)
		a.op("MOVL", R13, at(DI, recordSecond))
		a.label(next)
		a.op("ADDQ", 128, SI)
		a.op("ADDQ", DX, DI)
	})
	a.ret()
	a.label(poison)
	a.op("VMOVDQU", y(12), at(DI, 0))
	for _, word := range []int{recordScale, recordStart, recordSecond, recordSum} {
		a.op("MOVL", nan, at(DI, word))
	}
	a.op("JMP", next)
}

package main

import "fmt"

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
	a.op("VMOVDQU", "·maskMagnitude(SB)", y(15))
	a.op("VMOVDQU", "·maskSign(SB)", y(14))
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
		finishRecord(a)
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

// finishRecord writes the words of a record, whose bytes are in Y0 and whose exponent
// is in AX: the power of two is 2^(AX-133).
func finishRecord(a *asm) {
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
}

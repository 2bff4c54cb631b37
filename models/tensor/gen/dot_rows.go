package main

// magnitude writes magnitudeAVX2.
func magnitude(a *asm) {
	a.function("magnitudeAVX2", "(x *float32, n int) uint32", 20)
	a.op("MOVQ", "x+0(FP)", SI)
	a.op("MOVQ", "n+8(FP)", CX)
	a.op("SHRQ", 4, CX)
	a.op("VMOVDQU", "·maskMagnitude(SB)", y(15))
	a.zero(y(0), y(1))
	a.loop(CX, func() {
		for i := range 2 {
			a.op("VPAND", at(SI, 32*i), y(15), y(2+i))
			a.op("VPMAXUD", y(2+i), y(i), y(i))
		}
		a.op("ADDQ", 64, SI)
	})
	a.op("VPMAXUD", y(1), y(0), y(0))
	a.op("VEXTRACTI128", 1, y(0), x(1))
	a.op("VPMAXUD", x(1), x(0), x(0))
	a.op("VPSHUFD", 0x4e, x(0), x(1))
	a.op("VPMAXUD", x(1), x(0), x(0))
	a.op("VPSHUFD", 0xb1, x(0), x(1))
	a.op("VPMAXUD", x(1), x(0), x(0))
	a.op("VMOVD", x(0), AX)
	a.op("MOVL", AX, "ret+16(FP)")
	a.ret()
}

// roundBytes writes roundBytesAVX2.
func roundBytes(a *asm) {
	a.function("roundBytesAVX2", "(dst *byte, x *float32, n int, inverse float32, flip uint32)", 32)
	a.op("MOVQ", "dst+0(FP)", DI)
	a.op("MOVQ", "x+8(FP)", SI)
	a.op("MOVQ", "n+16(FP)", CX)
	a.op("VBROADCASTSS", "inverse+24(FP)", y(14))
	a.op("MOVL", "flip+28(FP)", AX)
	a.op("VMOVD", AX, x(15))
	a.op("VPBROADCASTD", x(15), y(15))
	a.op("VMOVDQU", "·packedOrder(SB)", y(13))
	a.op("SHRQ", 5, CX)
	a.loop(CX, func() {
		for i := range 4 {
			a.op("VMULPS", at(SI, 32*i), y(14), y(i))
			a.op("VCVTPS2DQ", y(i), y(i))
		}
		a.op("VPACKSSDW", y(1), y(0), y(0))
		a.op("VPACKSSDW", y(3), y(2), y(2))
		a.op("VPACKSSWB", y(2), y(0), y(0))
		a.op("VPERMD", y(0), y(13), y(0))
		a.op("VPXOR", y(15), y(0), y(0))
		a.op("VMOVDQU", y(0), at(DI, 0))
		a.op("ADDQ", 128, SI)
		a.op("ADDQ", 32, DI)
	})
	a.ret()
}

// widenPairs writes widenPairsAVX2.
func widenPairs(a *asm) {
	a.function("widenPairsAVX2", "(dst *float32, src *uint16, n int)", 24)
	a.op("MOVQ", "dst+0(FP)", DI)
	a.op("MOVQ", "src+8(FP)", SI)
	a.op("MOVQ", "n+16(FP)", CX)
	a.op("VMOVDQU", "·upperHalves(SB)", y(15))
	a.loop(CX, func() {
		for i := range 2 {
			a.op("VMOVDQU", at(SI, 32*i), y(i))
			a.op("VPSLLD", 16, y(i), y(2+i))
			a.op("VPAND", y(15), y(i), y(i))
			a.op("VMOVDQU", y(2+i), at(DI, 32*i))
			a.op("VMOVDQU", y(i), at(DI, 64+32*i))
		}
		a.op("ADDQ", 64, SI)
		a.op("ADDQ", 128, DI)
	})
	a.ret()
}

// finishRows writes y = max(sums·scale + bias [+ residual], floor) for rows of one or two times 64
// bytes; sums are 128 bytes apart. See finishCall.
func finishRows(a *asm, name string, kind byte) {
	const outY, outRow, sums, residual, scale, bias, rows, vectors = DI, R8, SI, BX, R9, R10, CX, AX
	a.function(name, "(c *finishCall)", 8)
	a.load("c", DX, outY, outRow, sums, residual, scale, bias, rows, vectors)
	size := vec{kind: kind}.bytes()
	a.op("VBROADCASTSS", at(DX, 64), vec{kind, 7})
	two, done := a.newLabel("two"), a.newLabel("done")
	emit := func(n int) { // of 64 bytes
		perRow := n * 64 / size
		v := func(i int) vec { return vec{kind, i} }
		for i := range perRow {
			a.op("VMOVUPS", at(scale, i*size), v(8+i))
			a.op("VMOVUPS", at(bias, i*size), v(12+i))
		}
		with := a.newLabel("residual")
		body := func(add bool) {
			a.loop(rows, func() {
				for i := range perRow {
					a.op("VMOVUPS", at(sums, i*size), v(i))
					a.op("VFMADD213PS", v(12+i), v(8+i), v(i))
					if add {
						a.op("VADDPS", at(residual, i*size), v(i), v(i))
					}
					a.op("VMAXPS", v(i), v(7), v(i)) // a NaN stays
					a.op("VMOVUPS", v(i), at(outY, i*size))
				}
				if add {
					a.op("ADDQ", outRow, residual)
				}
				a.op("ADDQ", outRow, outY)
				a.op("ADDQ", 128, sums)
			})
		}
		a.op("TESTQ", residual, residual)
		a.op("JNE", with)
		body(false)
		a.op("JMP", done)
		a.label(with)
		body(true)
		a.op("JMP", done)
	}
	a.op("CMPQ", vectors, 2)
	a.op("JEQ", two)
	emit(1)
	a.label(two)
	emit(2)
	a.label(done)
	a.ret()
}

package main

// tileFloats is the length of a row of a tile of scores, package tensor's tileKeys.
const tileFloats = 128

// tileFunctions emits what attention does with the rows of a tile of scores between
// the products: their largest, and their weights with the sum of each row. Only the
// first cols of a row count, a multiple of 16.
func tileFunctions(a *asm, level string, kind byte) {
	l := lanes{asm: a, kind: kind}
	// rows writes a loop over rows, and in each over vectors, which are at R8.
	rows := func(before, each, after func()) {
		a.loop(BX, func() {
			before()
			a.op("MOVQ", SI, R8)
			a.op("MOVQ", AX, CX)
			top := a.newLabel("vector")
			a.label(top)
			each()
			a.op("ADDQ", l.size(), R8)
			a.op("SUBQ", l.size()/4, CX)
			a.op("JNZ", top)
			after()
			a.op("ADDQ", 4*tileFloats, SI)
			a.op("ADDQ", 4, DI)
		})
	}

	a.comment("A NaN may be lost here: its weight is one too.")
	a.function("tileTops"+level, "(top, p *float32, rows, cols int)", 32)
	a.arguments([]string{"top", "p", "rows", "cols"}, DI, SI, BX, AX)
	rows(func() {
		a.op("VMOVUPS", minusInf, l.v(0))
	}, func() {
		a.op("VMAXPS", at(R8, 0), l.v(0), l.v(0))
	}, func() {
		l.fold("VMAXPS", l.v(0), l.v(3))
		a.op("VMOVSS", x(0), at(DI, 0))
	})
	a.ret()

	a.function("tileWeights"+level, "(sum, p, top *float32, rows, cols int)", 40)
	a.arguments([]string{"sum", "p", "top", "rows", "cols"}, DI, SI, DX, BX, AX)
	l = l.hold(expWords)
	rows(func() {
		a.op("VBROADCASTSS", at(DX, 0), l.v(5))
		a.zero(l.v(6))
	}, func() {
		a.op("VMOVUPS", at(R8, 0), l.v(0))
		a.op("VSUBPS", l.v(5), l.v(0), l.v(0))
		l.expOfNegative(l.v(0), l.v(1), l.v(2), l.v(3))
		a.op("VADDPS", l.v(0), l.v(6), l.v(6))
		a.op("VMOVUPS", l.v(0), at(R8, 0))
	}, func() {
		l.fold("VADDPS", l.v(6), l.v(0))
		a.op("VMOVSS", x(6), at(DI, 0))
		a.op("ADDQ", 4, DX)
	})
	a.ret()
}

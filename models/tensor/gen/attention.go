package main

// tileFloats is the length of a row of a tile of scores, package tensor's tileKeys.
const tileFloats = 64

// tileFunctions emits what attention does with the rows of a tile of scores between
// the products: their largest, and their weights with the sum of each row.
func tileFunctions(a *asm, level string, kind byte) {
	l := lanes{asm: a, kind: kind}
	vectors := 4 * tileFloats / l.size()

	a.function("tileTops"+level, "(top, p *float32, rows int)", 24)
	a.arguments([]string{"top", "p", "rows"}, DI, SI, BX)
	a.loop(BX, func() {
		a.op("VMOVUPS", at(SI, 0), l.v(0))
		a.zero(l.v(1))
		l.keepNaN(l.v(0), l.v(3), l.v(1))
		for i := 1; i < vectors; i++ {
			a.op("VMOVUPS", at(SI, i*l.size()), l.v(2))
			a.op("VMAXPS", l.v(2), l.v(0), l.v(0))
			l.keepNaN(l.v(2), l.v(3), l.v(1))
		}
		l.fold("VMAXPS", l.v(0), l.v(3))
		l.fold("VADDPS", l.v(1), l.v(3))
		a.op("VADDSS", x(1), x(0), x(0))
		a.op("VMOVSS", x(0), at(DI, 0))
		a.op("ADDQ", 4*tileFloats, SI)
		a.op("ADDQ", 4, DI)
	})
	a.ret()

	a.function("tileWeights"+level, "(sum, p, top *float32, rows int)", 32)
	a.arguments([]string{"sum", "p", "top", "rows"}, DI, SI, DX, BX)
	a.loop(BX, func() {
		a.op("VBROADCASTSS", at(DX, 0), l.v(5))
		a.zero(l.v(6))
		for i := range vectors {
			a.op("VMOVUPS", at(SI, i*l.size()), l.v(0))
			a.op("VSUBPS", l.v(5), l.v(0), l.v(0))
			l.exp(l.v(0), l.v(1), l.v(2), l.v(3))
			a.op("VADDPS", l.v(0), l.v(6), l.v(6))
			a.op("VMOVUPS", l.v(0), at(SI, i*l.size()))
		}
		l.fold("VADDPS", l.v(6), l.v(0))
		a.op("VMOVSS", x(6), at(DI, 0))
		a.op("ADDQ", 4*tileFloats, SI)
		a.op("ADDQ", 4, DI)
		a.op("ADDQ", 4, DX)
	})
	a.ret()
}

package main

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
	q.op("VMOVDQU", "·onesInt16(SB)", y(8))
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
		q.op("VMOVDQU", "·maskSign(SB)", y(0))
		for j := range 8 {
			q.op("VPXOR", at(DX, 64*j+32*half), y(0), y(1))
			q.op("VMOVDQU", y(1), at(R15, 512+64*j+32*half))
			q.op("VPABSB", y(1), y(1))
			q.op("VMOVDQU", y(1), at(R15, 64*j+32*half))
		}
		return
	}
	q.op("VMOVDQU", "·maskNibbles(SB)", y(0))
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

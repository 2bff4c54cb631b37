package main

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

// wideAhead is how far ahead, in bytes, levels are asked for: the memory is not done
// with one group when the next begins.
const wideAhead = 2048

const (
	wideNibbles = 30 // masks
	wideHigh    = 31
)

func (q quantWide) function() {
	q.begin(q.asm, "multiply"+q.name+"AVX512")
	q.masks()
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

// masks brings the constants into registers.
func (q quantWide) masks() {
	if !q.bytes {
		q.op("VPBROADCASTD", "·maskNibbles(SB)", z(wideNibbles))
	}
	if q.high > 0 {
		q.op("VPBROADCASTD", q.highMask(), z(wideHigh))
	}
}

// decodeLevels brings the levels of a group into registers, and asks for later ones.
func (q quantWide) decodeLevels(g int) {
	q.fetchLevels(g)
	q.unpackLevels(g)
}

// fetchLevels asks for later levels of a group.
func (q quantWide) fetchLevels(g int) {
	for j := range q.levelBytes() / 64 {
		q.op("PREFETCHT0", q.group(DX, wideAhead+64*j, g))
	}
}

// unpackLevels brings the levels of a group into registers.
func (q quantWide) unpackLevels(g int) {
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
	q.addSums(tokens, s)
}

// addSums converts and scales sums of integers and adds them to those in memory.
func (q quantWide) addSums(tokens, s int) {
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

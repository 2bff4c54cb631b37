package main

import "fmt"

// quantTiles writes the kernels of AMX: as those of AVX-512, but the sums of integers
// are made by the tiles, for 16 tokens at a time and then for those left. They go
// through memory, and are asked for only when those of the next step are on their way.
type quantTiles struct{ quantWide }

// Tiles: 0 and 1 are sums of two groups and 4 activations of 16 tokens, 2, 3 and 5 the
// same of those left, 6 and 7 levels. The scratch memory has levels and then, for odd
// and even steps, sums [token][group][16].
const (
	tileTokens   = 16
	tileSumsRow  = 64 * wideGroups
	tileSums     = 512 * wideGroups
	tileSumsStep = 64 * tileSumsRow
)

func (q quantTiles) function() {
	q.begin(q.asm, "multiply"+q.name+"AMX")
	q.op("MOVQ", at(BX, quantShapes), AX)
	q.configure()
	q.masks()
	begins(q.asm, []vec{z(0), z(1)})
	first := q.newLabel("first")
	q.steps(q.asm, func() {
		if !q.bytes {
			q.op("MOVQ", at(BX, quantScratch), R15)
			for g := range wideGroups {
				q.decodeLevels(g)
				for j := range 8 {
					q.op("VMOVDQU64", q.level(g, j), at(R15, 512*g+64*j))
				}
			}
		}
		q.sums()
		q.op("CMPQ", R13, at(BX, quantSteps))
		q.op("JEQ", first)
		q.previous()
		q.label(first)
		for g := range wideGroups {
			q.decodeScales(g)
		}
		q.op("IMUL3Q", recordBytes, at(BX, quantTokens), CX)
		q.op("ADDQ", CX, SI)
	})
	q.release()
	q.previous()
	ends(q.asm, []vec{z(0), z(1)})
}

// scratch brings the address of the sums of this step (0) or the one before (1) into
// R15: the number of steps left tells them apart.
func (q quantTiles) scratch(before int) {
	q.op("MOVQ", R13, R15)
	q.op("ANDQ", 1, R15)
	if before == 1 {
		q.op("XORQ", 1, R15)
	}
	q.op("IMUL3Q", tileSumsStep, R15, R15)
	q.op("ADDQ", at(BX, quantScratch), R15)
}

// previous adds the sums of the step before.
func (q quantTiles) previous() {
	q.op("IMUL3Q", recordBytes, at(BX, quantTokens), CX)
	q.op("SUBQ", CX, SI)
	q.scratch(1)
	tokensLoop(q.asm, wideTokens, 64*wideGroups, func(tokens int) {
		q.rescale(tokens)
		q.op("ADDQ", tileSumsRow*tokens, R15)
	})
}

// sums writes the sums of integers of a step to the scratch memory.
func (q quantTiles) sums() {
	q.op("MOVQ", 64, AX)
	q.op("MOVQ", DX, R15)
	if !q.bytes {
		q.op("MOVQ", at(BX, quantScratch), R15)
	}
	q.tileLoad(R15, AX, 6)
	if q.bytes {
		q.op("ADDQ", R9, R15)
	} else {
		q.op("ADDQ", 512, R15)
	}
	q.tileLoad(R15, AX, 7)
	q.op("MOVQ", SI, DI)
	q.scratch(0)
	q.op("ADDQ", tileSums, R15)
	q.op("MOVQ", at(BX, quantTokens), CX)
	top, left, done := q.newLabel("tiles"), q.newLabel("left"), q.newLabel("done")
	q.op("SUBQ", tileTokens, CX)
	q.op("JLT", left)
	q.label(top)
	q.tokenSums(0, 4)
	q.op("ADDQ", tileTokens*recordBytes, DI)
	q.op("ADDQ", tileTokens*tileSumsRow-64, R15)
	q.op("SUBQ", tileTokens, CX)
	q.op("JGE", top)
	q.label(left)
	q.op("CMPQ", CX, -tileTokens)
	q.op("JEQ", done)
	q.tokenSums(2, 5)
	q.label(done)
}

// tokenSums writes the sums of a tile of tokens.
func (q quantTiles) tokenSums(sum, activations tile) {
	q.op("MOVQ", recordBytes, AX)
	q.tileLoad(DI, AX, activations)
	for g := range tile(wideGroups) {
		q.tileZero(sum + g)
		q.tileMultiplyBytes(6+g, activations, sum+g)
	}
	q.op("MOVQ", tileSumsRow, AX)
	q.tileStore(sum, R15, AX)
	q.op("ADDQ", 64, R15)
	q.tileStore(sum+1, R15, AX)
}

// rescale adds the sums of some tokens.
func (q quantTiles) rescale(tokens int) {
	for t := range tokens {
		q.op("VPBROADCASTD", at(SI, recordBytes*t+q.start(0)), q.activation(t))
		for g := range wideGroups {
			q.op("VPADDD", at(R15, tileSums+tileSumsRow*t+64*g), q.activation(t), q.sum(t, g))
		}
	}
	q.addSums(tokens, 0)
}

// tileMultiplyBytes adds to c the products of the signed bytes of x with the unsigned
// ones in w, four columns at a time.
func (a *asm) tileMultiplyBytes(w, x, c tile) {
	a.vex(fmt.Sprintf("TDPBSUD %v, %v, %v", w, x, c), 2, w, 0x5e, [2]bool{}, 0xc0|byte(c)<<3|byte(x))
}

package main

import "fmt"

// quantTiles writes the kernels of AMX: as those of AVX-512, but the sums of integers
// are made by the tiles, for 16 tokens at a time. They go through memory. While a tile
// of a step is being made, vectors add what it was made of in the step before: the two
// take as long as one another, and neither waits.
type quantTiles struct{ quantWide }

// Tiles: 0 and 1 are sums of two groups, 4 activations, 6 and 7 levels. The scratch
// memory has levels and then sums [token][group][16]. CX is the distance of the records
// of a step to those of the one before, negative; R15 is where a tile's sums lie.
const (
	tileTokens  = 16
	tileSumsRow = 64 * wideGroups
	tileSums    = 512 * wideGroups
)

func (q quantTiles) function() {
	q.begin(q.asm, "multiply"+q.name+"AMX")
	q.op("MOVQ", at(BX, quantShapes), AX)
	q.configure()
	q.masks()
	begins(q.asm, []vec{z(0), z(1)})
	q.op("IMUL3Q", -recordBytes, at(BX, quantTokens), CX)
	q.steps(q.asm, func() {
		q.loadLevels()
		q.tokens(true)
		for g := range wideGroups {
			q.decodeScales(g)
		}
		q.op("SUBQ", CX, at(BX, quantX))
	})
	q.release()
	q.tokens(false)
	ends(q.asm, []vec{z(0), z(1)})
}

// loadLevels brings the levels of a step into tiles.
func (q quantTiles) loadLevels() {
	q.op("MOVQ", 64, AX)
	if q.bytes {
		for g := range wideGroups {
			q.fetchLevels(g)
		}
		q.tileLoad(DX, AX, 6)
		q.op("LEAQ", mem{base: DX, index: R9, scale: 1}, R15)
		q.tileLoad(R15, AX, 7)
		return
	}
	q.op("MOVQ", at(BX, quantScratch), R15)
	for g := range wideGroups {
		q.decodeLevels(g)
		for j := range 8 {
			q.op("VMOVDQU64", q.level(g, j), at(R15, 512*g+64*j))
		}
	}
	q.tileLoad(R15, AX, 6)
	q.op("ADDQ", 512, R15)
	q.tileLoad(R15, AX, 7)
}

// tokens writes the loop over tiles of tokens: the sums of a step, unless the last was
// the last one, and the sums of the step before, if there was one.
func (q quantTiles) tokens(sums bool) {
	q.op("MOVQ", at(BX, quantX), SI)
	q.op("MOVQ", at(BX, quantSums), DI)
	q.op("MOVQ", at(BX, quantScratch), R15)
	q.op("ADDQ", tileSums, R15)
	q.op("MOVQ", at(BX, quantTokens), AX)
	q.op("MOVQ", AX, at(BX, quantLeft))
	top, added := q.newLabel("tiles"), q.newLabel("added")
	q.label(top)
	if sums {
		q.op("MOVQ", recordBytes, AX)
		q.tileLoad(SI, AX, 4)
		for g := range tile(wideGroups) {
			q.tileZero(g)
			q.tileMultiplyBytes(6+g, 4, g)
		}
		q.op("CMPQ", R13, at(BX, quantSteps))
		q.op("JEQ", added)
	}
	for first := 0; first < tileTokens; first += wideTokens {
		if first > 0 {
			q.op("CMPQ", at(BX, quantLeft), first)
			q.op("JLE", added)
		}
		q.add(first)
	}
	q.label(added)
	if sums {
		q.op("MOVQ", tileSumsRow, AX)
		q.tileStore(0, R15, AX)
		q.op("ADDQ", 64, R15)
		q.tileStore(1, R15, AX)
		q.op("SUBQ", 64, R15)
	}
	q.op("ADDQ", tileTokens*tileSumsRow, R15)
	q.op("ADDQ", tileTokens*recordBytes, SI)
	q.op("ADDQ", tileTokens*tileSumsRow, DI)
	q.op("SUBQ", tileTokens, at(BX, quantLeft))
	q.op("JG", top)
}

// add adds the sums of the step before of some tokens of the tile, from the first on.
func (q quantTiles) add(first int) {
	record := func(token, word int) mem {
		return mem{base: SI, disp: recordBytes*token + word, index: CX, scale: 1}
	}
	for t := range wideTokens {
		q.op("VPBROADCASTD", record(first+t, q.start(0)), z(2*t))
		q.op("VBROADCASTSS", record(first+t, recordScale), z(2*t+1))
		for g := range wideGroups {
			q.op("VPADDD", at(R15, tileSumsRow*(first+t)+64*g), z(2*t), q.sum(t, g))
		}
		if q.affine {
			q.op("VBROADCASTSS", record(first+t, recordSum), z(8+t))
		}
	}
	for t := range wideTokens {
		for g := range wideGroups {
			sum, total := q.sum(t, g), at(DI, tileSumsRow*(first+t)+64*g)
			q.op("VSUBPS", z(2*t+1), sum, sum)
			q.op("VFMADD213PS", total, q.scale(g, 0), sum)
			if q.affine {
				q.op("VFMADD231PS", z(8+t), q.offset(g), sum)
			}
			q.op("VMOVUPS", sum, total)
		}
	}
}

// tileMultiplyBytes adds to c the products of the signed bytes of x with the unsigned
// ones in w, four columns at a time.
func (a *asm) tileMultiplyBytes(w, x, c tile) {
	a.vex(fmt.Sprintf("TDPBSUD %v, %v, %v", w, x, c), 2, w, 0x5e, [2]bool{}, 0xc0|byte(c)<<3|byte(x))
}

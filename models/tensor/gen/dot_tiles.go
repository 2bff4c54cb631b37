package main

import "fmt"

// wholeTiles writes the shapes of eight whole tiles.
func wholeTiles(a *asm) {
	words := make([]uint32, 16)
	words[0] = 1
	for i := 4; i < 8; i++ {
		words[i] = 64<<16 | 64
	}
	words[12], words[13] = 0x10101010, 0x10101010
	a.constant("wholeTiles", words...)
}

// dotTiles writes a kernel of AMX: 32 rows at a time. Tiles 0 to 3 are sums, 4 and 5
// activations, 6 and 7 weights. Sums of bytes go through memory; they are rescaled when
// the products of the next 32 rows are on their way.
func dotTiles(a *asm, name string, bytes bool) {
	a.function(name, "(c *dotCall)", 8)
	a.load("c", dotCall, dotSums, dotSumsRow, dotX, dotXRow, dotW, dotWNext, dotSteps, dotRows)
	a.op("XORL", R15, R15)
	a.op("CMPQ", at(dotCall, fieldDotAdd), 0)
	a.op("SETNE", "R15")
	a.op("NEGQ", R15)
	a.op("KMOVQ", R15, mask(1))
	a.op("MOVQ", AX, R15) // rows left
	a.op("LEAQ", "·wholeTiles(SB)", AX)
	a.configure()
	a.op("MOVQ", R15, AX)
	t := dotTilesCode{a, bytes}
	top, done := a.newLabel("rows"), a.newLabel("done")
	if bytes {
		a.op("MOVQ", at(dotCall, fieldDotScratch), R15)
		t.products(func() {
			for i := range 4 {
				a.tileZero(tile(i))
			}
		})
		t.keep()
		a.label(top)
		a.op("SUBQ", 32, dotRows)
		a.op("JLE", done)
		t.nextX()
		t.products(func() {
			for i := range 4 {
				a.tileZero(tile(i))
			}
		})
		t.rescale()
		t.keep()
		a.op("JMP", top)
		a.label(done)
		a.release()
		t.nextX()
		t.rescale()
		a.ret()
		return
	}
	a.label(top)
	t.products(func() {
		fresh, begin := a.newLabel("fresh"), a.newLabel("begin")
		a.op("CMPQ", at(dotCall, fieldDotAdd), 0)
		a.op("JEQ", fresh)
		t.places(func(i tile, to reg) { a.tileLoad(to, dotSumsRow, i) })
		a.op("JMP", begin)
		a.label(fresh)
		for i := range 4 {
			a.tileZero(tile(i))
		}
		a.label(begin)
	})
	t.places(func(i tile, to reg) { a.tileStore(i, to, dotSumsRow) })
	t.nextX()
	a.op("MOVQ", dotSumsRow, R11)
	a.op("SHLQ", 5, R11)
	a.op("ADDQ", R11, dotSums)
	a.op("SUBQ", 32, dotRows)
	a.op("JGT", top)
	a.release()
	a.ret()
}

type dotTilesCode struct {
	*asm
	bytes bool // else pairs of BF16
}

// products writes the sums over all steps of 64 bytes.
func (t dotTilesCode) products(begin func()) {
	multiply := t.tileMultiply
	if t.bytes {
		multiply = t.tileMultiplySigned
	}
	begin()
	t.op("MOVQ", dotX, R11)
	t.op("MOVQ", dotXRow, R12)
	t.op("SHLQ", 4, R12)
	t.op("ADDQ", dotX, R12)
	t.op("MOVQ", dotW, CX)
	t.op("LEAQ", mem{base: dotW, index: dotWNext, scale: 1}, DX)
	t.op("MOVQ", AX, "X15")
	t.op("MOVQ", "c+0(FP)", R13)
	t.op("MOVQ", at(R13, fieldDotSteps), R13)
	t.op("SHRQ", 4, R13)
	t.op("MOVQ", 64, AX)
	t.loop(R13, func() {
		t.tileLoad(R11, dotXRow, 4)
		t.tileLoad(CX, AX, 6)
		multiply(6, 4, 0)
		t.tileLoad(DX, AX, 7)
		multiply(7, 4, 1)
		t.tileLoad(R12, dotXRow, 5)
		multiply(6, 5, 2)
		multiply(7, 5, 3)
		t.op("ADDQ", 64, R11)
		t.op("ADDQ", 64, R12)
		t.op("ADDQ", 1024, CX)
		t.op("ADDQ", 1024, DX)
	})
	t.op("MOVQ", "X15", AX)
	t.op("MOVQ", "c+0(FP)", dotCall)
}

// places calls f with the tiles of sums and where they belong.
func (t dotTilesCode) places(f func(i tile, to reg)) {
	t.op("MOVQ", dotSums, R11)
	f(0, R11)
	t.op("ADDQ", 64, R11)
	f(1, R11)
	t.op("MOVQ", dotSumsRow, R12)
	t.op("SHLQ", 4, R12)
	t.op("ADDQ", R12, R11)
	f(3, R11)
	t.op("SUBQ", 64, R11)
	f(2, R11)
}

// nextX goes on to the next 32 rows of activations.
func (t dotTilesCode) nextX() {
	t.op("MOVQ", dotXRow, R11)
	t.op("SHLQ", 5, R11)
	t.op("ADDQ", R11, dotX)
}

// keep writes the sums of integers to the scratch memory, [32][2][16].
func (t dotTilesCode) keep() {
	t.op("MOVQ", R15, R11)
	t.op("MOVQ", 128, R12)
	for i, disp := range []int{0, 64, 2048 - 64, 64} {
		if disp > 0 {
			t.op("ADDQ", disp, R11)
		}
		t.tileStore(tile(i), R11, R12)
	}
	// The other half is for the next.
	t.op("MOVQ", at(dotCall, fieldDotScratch), R11)
	t.op("LEAQ", mem{base: R11, disp: 4096, index: R11, scale: 1}, R11)
	t.op("SUBQ", R15, R11)
	t.op("MOVQ", R11, R15)
}

// rescale adds the sums that were kept last to those in memory: dotX is at the rows after
// them, and the half of the scratch memory in R15 the other one.
func (t dotTilesCode) rescale() {
	t.op("MOVQ", at(dotCall, fieldDotScratch), R11)
	t.op("LEAQ", mem{base: R11, disp: 4096, index: R11, scale: 1}, R11)
	t.op("SUBQ", R15, R11)
	t.op("MOVQ", dotXRow, R12)
	t.op("SHLQ", 5, R12)
	t.op("NEGQ", R12)
	t.op("ADDQ", dotX, R12)
	t.op("ADDQ", at(dotCall, fieldDotScale), R12)
	t.op("MOVQ", 16, R13)
	t.loop(R13, func() {
		for i := range 2 {
			v := 6 * i
			x, sums := at(R12, 0), at(dotSums, 0)
			if i > 0 {
				x.index, x.scale, sums.index, sums.scale = dotXRow, 1, dotSumsRow, 1
			}
			t.op("VBROADCASTSS", x, z(v))
			for g := range 2 {
				t.op("VCVTDQ2PS", at(R11, 128*i+64*g), z(v+1+g))
				t.op("VMOVUPS.Z", sums.plus(64*g), mask(1), z(v+3+g))
				t.op("VFMADD231PS", z(v), z(v+1+g), z(v+3+g))
				t.op("VMOVUPS", z(v+3+g), sums.plus(64*g))
			}
		}
		t.op("ADDQ", 256, R11)
		t.op("LEAQ", mem{base: R12, index: dotXRow, scale: 2}, R12)
		t.op("LEAQ", mem{base: dotSums, index: dotSumsRow, scale: 2}, dotSums)
	})
}

// tileMultiplySigned adds to c the products of the signed bytes of x and w.
func (a *asm) tileMultiplySigned(w, x, c tile) {
	a.vex(fmt.Sprintf("TDPBSSD %v, %v, %v", w, x, c), 3, w, 0x5e, [2]bool{}, 0xc0|byte(c)<<3|byte(x))
}

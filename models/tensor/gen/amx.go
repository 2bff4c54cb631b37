package main

import "fmt"

// tile is a register of AMX: up to 16 rows of 64 bytes.
type tile int

func (t tile) String() string { return fmt.Sprintf("TMM%d", int(t)) }

// vex writes an instruction of AMX, which the Go assembler does not know: the
// VEX-encoded one with the given prefix (0 none, 1 66, 2 F3, 3 F2) and opcode in table
// 0F38, the second source in vvvv, and the bytes that follow the opcode.
func (a *asm) vex(text string, prefix byte, second tile, opcode byte, high [2]bool, tail ...byte) {
	p1 := byte(0xe2) // R X B inverted, table 0F38
	if high[0] {
		p1 &^= 0x20 // base
	}
	if high[1] {
		p1 &^= 0x40 // index
	}
	code := append([]byte{0xc4, p1, byte(^int(second)&15)<<3 | prefix, opcode}, tail...)
	line := ""
	for i, b := range code {
		if i > 0 {
			line += "; "
		}
		line += fmt.Sprintf("BYTE $0x%02x", b)
	}
	a.line("\t%s // %s", line, text)
}

// configure loads the shapes of the tiles from the 64 bytes at AX and clears all.
func (a *asm) configure() { a.vex("LDTILECFG (AX)", 0, 0, 0x49, [2]bool{}, 0x00) }

// release gives the tiles back, so that a switch of threads need not save them.
func (a *asm) release() { a.vex("TILERELEASE", 0, 0, 0x49, [2]bool{}, 0xc0) }

// tileZero clears a tile.
func (a *asm) tileZero(t tile) {
	a.vex(fmt.Sprintf("TILEZERO %v", t), 3, 0, 0x49, [2]bool{}, 0xc0|byte(t)<<3)
}

// tileLoad reads the rows of a tile from base, stride bytes apart.
func (a *asm) tileLoad(base, stride reg, t tile) {
	a.tileMove(fmt.Sprintf("TILELOADD (%s)(%s*1), %v", base, stride, t), 3, base, stride, t)
}

// tileStore writes the rows of a tile to base, stride bytes apart.
func (a *asm) tileStore(t tile, base, stride reg) {
	a.tileMove(fmt.Sprintf("TILESTORED %v, (%s)(%s*1)", t, base, stride), 2, base, stride, t)
}

func (a *asm) tileMove(text string, prefix byte, base, stride reg, t tile) {
	b, s := base.number(), stride.number()
	if b&7 == 5 {
		panic("a tile at BP or R13 needs a displacement")
	}
	a.vex(text, prefix, 0, 0x4b, [2]bool{b&8 != 0, s&8 != 0}, 0x04|byte(t)<<3, byte(s&7)<<3|byte(b&7))
}

// tileMultiply adds to c the products of the BF16 rows of x with the pairs of columns
// in w.
func (a *asm) tileMultiply(w, x, c tile) {
	a.vex(fmt.Sprintf("TDPBF16PS %v, %v, %v", w, x, c), 2, w, 0x5c, [2]bool{}, 0xc0|byte(c)<<3|byte(x))
}

// tileKernels emits the kernels of AMX for BF16. Each takes a block of tokens and some
// groups of 16 weight rows, in tiles of 32 columns:
//
//	y[t][r] = Σ_k x[t][k]·w[r][k] [+ y[t][r]]
//
// for 1 to 16 tokens, whose shape the configuration has, and 4 or 1 groups, or for 17
// to 32 tokens and 2 or 1 groups. The order of the sums is that of TDPBF16PS, the same
// in all.
func tileKernels(a *asm) {
	for _, groups := range []int{4, 1} {
		tileFewTokens(a, groups)
	}
	for _, groups := range []int{2, 1} {
		tileManyTokens(a, groups)
	}
}

// The registers of the tile kernels. The fields of the call are in this order.
const (
	tileConfig = AX // then the distance of the rows of w, 64
	tileX      = SI
	tileXNext  = R11 // the 17th token on
	tileXRow   = R8
	tileY      = DI
	tileYNext  = R12
	tileYRow   = R9
	tileW      = BX // of the first group
	tileWNext  = R10
	tileSteps  = DX
	tileAdd    = R13 // whether to add to what Y holds
	tileCall   = CX
)

// tileBegin loads the fields of a call and what the tiles of sums begin with. place
// calls its argument for each tile of sums, with the address of its part of Y.
func tileBegin(a *asm, name string, place func(move func(t tile, at reg))) {
	a.function(name, "(c *tileCall)", 8)
	a.load("c", tileCall, tileConfig, tileX, tileXRow, tileY, tileYRow, tileW, tileWNext, tileSteps, tileAdd)
	a.configure()
	begin := a.newLabel("begin")
	a.op("TESTQ", tileAdd, tileAdd)
	a.op("JZ", begin)
	place(func(t tile, at reg) { a.tileLoad(at, tileYRow, t) })
	a.label(begin)
	a.op("MOVQ", 64, AX)
}

// tileFewTokens keeps a tile of sums for each group.
func tileFewTokens(a *asm, groups int) {
	place := func(move func(t tile, at reg)) {
		a.op("MOVQ", tileY, tileCall)
		for i := range groups {
			move(tile(i), tileCall)
			a.op("ADDQ", 64, tileCall)
		}
	}
	tileBegin(a, fmt.Sprintf("tiles16x%d", groups), place)
	weights := []reg{tileW, CX, R11, R12}[:groups]
	for i := 1; i < groups; i++ {
		a.op("LEAQ", mem{base: weights[i-1], index: tileWNext, scale: 1}, weights[i])
	}
	a.loop(tileSteps, func() {
		a.tileLoad(tileX, tileXRow, 4)
		for i, w := range weights {
			t := tile(5 + i%3)
			a.tileLoad(w, AX, t)
			a.tileMultiply(t, 4, tile(i))
		}
		a.op("ADDQ", 64, tileX)
		for _, w := range weights {
			a.op("ADDQ", 1024, w)
		}
	})
	place(func(t tile, at reg) { a.tileStore(t, at, tileYRow) })
	a.release()
	a.op("RET")
}

// tileManyTokens keeps two tiles of sums for each group, of the first 16 tokens and of
// those after. Loads stand between products, which hide them only there.
func tileManyTokens(a *asm, groups int) {
	place := func(move func(t tile, at reg)) {
		a.op("MOVQ", tileY, tileCall)
		a.op("MOVQ", tileYRow, tileYNext)
		a.op("SHLQ", 4, tileYNext)
		a.op("ADDQ", tileY, tileYNext)
		for i := range groups {
			move(tile(i), tileCall)
			move(tile(i+2), tileYNext)
			a.op("ADDQ", 64, tileCall)
			a.op("ADDQ", 64, tileYNext)
		}
	}
	tileBegin(a, fmt.Sprintf("tiles32x%d", groups), place)
	a.op("MOVQ", tileXRow, tileXNext)
	a.op("SHLQ", 4, tileXNext)
	a.op("ADDQ", tileX, tileXNext)
	a.op("ADDQ", tileW, tileWNext)
	a.loop(tileSteps, func() {
		a.tileLoad(tileX, tileXRow, 4)
		a.tileLoad(tileW, AX, 6)
		a.tileMultiply(6, 4, 0)
		if groups == 2 {
			a.tileLoad(tileWNext, AX, 7)
			a.tileMultiply(7, 4, 1)
		}
		a.tileLoad(tileXNext, tileXRow, 5)
		a.tileMultiply(6, 5, 2)
		if groups == 2 {
			a.tileMultiply(7, 5, 3)
			a.op("ADDQ", 1024, tileWNext)
		}
		a.op("ADDQ", 64, tileX)
		a.op("ADDQ", 64, tileXNext)
		a.op("ADDQ", 1024, tileW)
	})
	place(func(t tile, at reg) { a.tileStore(t, at, tileYRow) })
	a.release()
	a.op("RET")
}

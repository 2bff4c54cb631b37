package main

import (
	"fmt"
	"strings"
)

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

// tileStream is tileLoad without keeping what it reads in the first cache.
func (a *asm) tileStream(base, stride reg, t tile) {
	a.tileMove(fmt.Sprintf("TILELOADDT1 (%s)(%s*1), %v", base, stride, t), 1, base, stride, t)
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

// tileKernels emits the products of AMX for BF16, of operands in tiles that lie one
// after another: for row tiles i and one or two column tiles j,
//
//	c[i][j] = start[i][j] + Σ_s a[i][s]·b[j][s]
//
// where a tile of a is up to 16 rows of 32 columns, and one of b is [16][16][2], pairs
// of columns of 16 rows. The order of the sums is that of TDPBF16PS, the same in both.
func tileKernels(a *asm) {
	for _, columns := range []int{2, 1} {
		tileProduct{a, columns}.function()
	}
	roundTiles(a)
}

// roundTiles emits the row tiles of some rows of float32, [steps][rows][32] in BF16.
func roundTiles(a *asm) {
	a.function("roundTilesAVX512", "(dst *byte, x *float32, stride, rows, steps int)", 40)
	a.arguments([]string{"dst", "x", "stride", "rows", "steps"}, DI, SI, R8, R9, CX)
	a.loop(CX, func() {
		a.op("MOVQ", R9, BX)
		a.op("MOVQ", SI, AX)
		a.loop(BX, func() {
			a.op("VMOVUPS", at(AX, 0), z(0))
			a.op("VMOVUPS", at(AX, 64), z(1))
			a.encode(vcvtne2ps2bf16, z(0), false, z(1), z(2), 'Z')
			a.op("VMOVUPS", z(2), at(DI, 0))
			a.op("ADDQ", R8, AX)
			a.op("ADDQ", 64, DI)
		})
		a.op("ADDQ", 128, SI)
	})
	a.ret()
}

// tileProduct writes the kernel for so many column tiles, which takes two row tiles at
// a time: tiles 0 to 3 are their sums, 4 and 5 row tiles, 6 and 7 column tiles.
type tileProduct struct {
	*asm
	columns int
}

// Fields of tileCall.
const (
	tileConfig = 8 * iota
	tileA
	tileANext
	tileAStep
	tileB
	tileBNext
	tileC
	tileCRow
	tileCNext
	tileCColumn
	tileStart
	tileStartRow
	tileStartNext
	tileStartColumn
	tileSteps
	tileRows
	tileAhead
	tileClaim
	tileANow // where the next row tiles are: the kernel's own
	tileCNow
	tileStartNow
)

// Registers of the kernel: DX is the call, SI and R11 row tiles, BX and R10 column
// tiles, R8 the distance of steps of a, CX the steps left, R12 column tiles of the next
// call and R13 their distance, R15 64, the length of a tile's row; AX, DI and R9 are for
// the moment.

func (t tileProduct) function() {
	t.asm.function(fmt.Sprintf("tilesBF16x%d", t.columns), "(c *tileCall)", 8)
	t.op("MOVQ", "c+0(FP)", DX)
	t.op("MOVQ", at(DX, tileConfig), AX)
	t.configure()
	t.op("MOVQ", 64, R15)
	t.op("MOVQ", at(DX, tileAStep), R8)
	for i, field := range []int{tileA, tileC, tileStart} {
		t.op("MOVQ", at(DX, field), AX)
		t.op("MOVQ", AX, at(DX, tileANow+8*i))
	}
	t.op("MOVQ", at(DX, tileB), R12)
	t.op("ADDQ", at(DX, tileAhead), R12)
	t.op("MOVQ", at(DX, tileBNext), R13)
	pairs, last, done := t.newLabel("pairs"), t.newLabel("last"), t.newLabel("done")
	t.label(pairs)
	t.op("CMPQ", at(DX, tileRows), 2)
	t.op("JLT", last)
	t.block(2)
	t.op("SUBQ", 2, at(DX, tileRows))
	t.op("JMP", pairs)
	t.label(last)
	t.op("CMPQ", at(DX, tileRows), 0)
	t.op("JEQ", done)
	t.block(1)
	t.label(done)
	t.release()
	t.op("RET")
}

// block writes the sums of so many row tiles and goes on to the next ones.
func (t tileProduct) block(rows int) {
	t.sums(rows, tileStart, tileStartNow, t.tileLoad)
	t.op("MOVQ", at(DX, tileANow), SI)
	t.op("MOVQ", at(DX, tileB), BX)
	t.op("MOVQ", at(DX, tileSteps), CX)
	if rows == 2 {
		t.op("MOVQ", at(DX, tileANext), R11)
		t.op("LEAQ", mem{base: SI, index: R11, scale: 2}, AX)
		t.op("MOVQ", AX, at(DX, tileANow))
		t.op("ADDQ", SI, R11)
	}
	if t.columns == 2 {
		t.op("MOVQ", BX, R10)
		t.op("ADDQ", at(DX, tileBNext), R10)
	}
	t.claim(rows)
	t.loop(CX, func() { t.step(rows) })
	t.sums(rows, tileC, tileCNow, func(base, stride reg, sum tile) { t.tileStore(sum, base, stride) })
}

// step writes the products of a step. Loads stand between products, which hide them.
// Row tiles come from the second cache, past the first one, which has the column tiles.
func (t tileProduct) step(rows int) {
	t.tileStream(SI, R15, 4)
	t.tileLoad(BX, R15, 6)
	t.tileMultiply(6, 4, 0)
	if t.columns == 2 {
		t.tileLoad(R10, R15, 7)
		t.tileMultiply(7, 4, 1)
		t.op("ADDQ", 1024, R10)
	}
	if rows == 2 {
		t.tileStream(R11, R15, 5)
		t.tileMultiply(6, 5, 2)
		t.op("ADDQ", R8, R11)
	}
	if rows == 2 && t.columns == 2 {
		t.tileMultiply(7, 5, 3)
	}
	t.fetch(rows)
	t.op("ADDQ", R8, SI)
	t.op("ADDQ", 1024, BX)
}

// fetch asks for column tiles: those of the next call, a few lines in a step, as they
// are needed only when all row tiles have passed, or those of the steps that follow if
// there is but one row tile.
func (t tileProduct) fetch(rows int) {
	const lines = 4
	if rows == 1 {
		for i := range 16 {
			t.op("PREFETCHT0", at(BX, 2048+64*i))
			if t.columns == 2 {
				t.op("PREFETCHT0", at(R10, 1024+64*i)) // it is a step further on
			}
		}
		return
	}
	for i := range lines {
		t.op("PREFETCHT1", at(R12, 64*i))
		if t.columns == 2 {
			t.op("PREFETCHT1", mem{base: R12, disp: 64 * i, index: R13, scale: 1})
		}
	}
	t.op("ADDQ", 64*lines, R12)
}

// claim asks for the lines that the sums will be written to.
func (t tileProduct) claim(rows int) {
	unclaimed := t.newLabel("unclaimed")
	t.op("CMPQ", at(DX, tileClaim), 0)
	t.op("JEQ", unclaimed)
	t.op("MOVQ", at(DX, tileCNow), DI)
	t.op("MOVQ", at(DX, tileCRow), R9)
	for range 16 * rows {
		t.prefetchWrite(DI, 0)
		if t.columns == 2 {
			t.prefetchWrite(DI, 64)
		}
		t.op("ADDQ", R9, DI)
	}
	t.label(unclaimed)
}

// prefetchWrite asks for a line to be written to; the Go assembler has no name for it.
func (a *asm) prefetchWrite(base reg, disp int) {
	modReg := byte(1 << 3)
	var text []string
	for _, b := range append([]byte{0x0f, 0x0d}, at(base, disp).encode(modReg, 1)...) {
		text = append(text, fmt.Sprintf("BYTE $0x%02x", b))
	}
	a.line("\t%s // PREFETCHW %v", strings.Join(text, "; "), at(base, disp))
}

// sums moves the sums of so many row tiles from or to where they are now, in memory that
// the fields from the given one on describe, and takes that to the next ones.
func (t tileProduct) sums(rows, field, now int, move func(base, stride reg, sum tile)) {
	t.op("MOVQ", at(DX, field+tileCRow-tileC), R9)
	t.op("MOVQ", at(DX, now), DI)
	for i := range rows {
		t.op("MOVQ", DI, AX)
		for j := range t.columns {
			if j > 0 {
				t.op("ADDQ", at(DX, field+tileCColumn-tileC), AX)
			}
			move(AX, R9, tile(2*i+j))
		}
		t.op("ADDQ", at(DX, field+tileCNext-tileC), DI)
	}
	t.op("MOVQ", DI, at(DX, now))
}

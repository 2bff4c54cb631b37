package main

// dotKernels emits the dot kernels: some rows of activations, which lie xRow bytes apart,
// by two groups of 16 weight rows. See dotCall.
func dotKernels(a *asm) {
	wholeTiles(a)
	a.constant("dotOnes", repeat(0x00010001, 8)...)
	dotFunction(a, "dotBytesAVX512", dotTile{asm: a, bytes: true})
	dotFunction(a, "dotPairsAVX512", dotTile{asm: a})
	dotBytesAVX2(a)
	dotTiles(a, "dotBytesAMX", true)
	dotTiles(a, "dotPairsAMX", false)
	magnitude(a)
	roundBytes(a)
	widenPairs(a)
	finishRows(a, "finishAVX512", 'Z')
	finishRows(a, "finishAVX2", 'Y')
}

// The registers of a dot kernel, first those of the fields of a call in their order. Rows
// are addressed from four bases, each the first of three rows.
const (
	dotSums    = DI
	dotSumsRow = R8
	dotX       = SI
	dotXRow    = R9
	dotW       = BX
	dotWNext   = R10
	dotSteps   = CX
	dotRows    = AX
	dotCall    = DX

	dotThird = R11 // rows 3, 6 and 9
	dotSixth = R12
	dotNinth = R13
	dotNow   = R15 // rows of sums, and other addresses
)

// Fields of dotCall that have no register.
const (
	fieldDotW       = 32
	fieldDotSteps   = 48
	fieldDotAdd     = 64
	fieldDotStarts  = 72
	fieldDotScale   = 80
	fieldDotScratch = 88
)

// dotMost is the number of rows that are taken together.
const dotMost = 12

// dotFunction emits the kernel for vectors of AVX-512: full tiles of rows in a loop, then
// one of those left.
func dotFunction(a *asm, name string, t dotTile) {
	a.function(name, "(c *dotCall)", 8)
	a.load("c", dotCall, dotSums, dotSumsRow, dotX, dotXRow, dotW, dotWNext, dotSteps, dotRows)
	a.op("XORL", R15, R15)
	a.op("CMPQ", at(dotCall, fieldDotAdd), 0)
	a.op("SETNE", "R15")
	a.op("NEGQ", R15)
	a.op("KMOVQ", R15, mask(1))
	top, rest, done := a.newLabel("rows"), a.newLabel("rest"), a.newLabel("done")
	a.label(top)
	a.op("CMPQ", dotRows, dotMost)
	a.op("JLT", rest)
	t.rows = dotMost
	t.emit()
	a.op("LEAQ", mem{base: dotSumsRow, index: dotSumsRow, scale: 2}, dotNow)
	a.op("LEAQ", mem{base: dotSums, index: dotNow, scale: 4}, dotSums)
	a.op("LEAQ", mem{base: dotXRow, index: dotXRow, scale: 2}, dotNow)
	a.op("LEAQ", mem{base: dotX, index: dotNow, scale: 4}, dotX)
	a.op("SUBQ", dotMost, dotRows)
	a.op("JMP", top)
	a.label(rest)
	for r := 1; r < dotMost; r++ {
		next := a.newLabel("next")
		a.op("CMPQ", dotRows, r)
		a.op("JNE", next)
		t.rows = r
		t.emit()
		a.op("JMP", done)
		a.label(next)
	}
	a.label(done)
	a.ret()
}

// dotTile is the code for so many rows and two groups.
type dotTile struct {
	*asm
	bytes bool // the weights: else pairs of BF16
	rows  int
}

func (t dotTile) sum(row, group int) vec { return z(2*row + group) }

// bases returns the registers that rows are addressed from.
func (t dotTile) bases() []reg { return []reg{dotX, dotThird, dotSixth, dotNinth}[:(t.rows+2)/3] }

// row returns the memory of a row.
func (t dotTile) row(r, disp int) mem {
	m := at(t.bases()[r/3], disp)
	if r%3 > 0 {
		m.index, m.scale = dotXRow, r%3
	}
	return m
}

// emit writes the tile; dotX and dotW are what they were then.
func (t dotTile) emit() {
	if t.bytes {
		t.op("MOVQ", at(dotCall, fieldDotStarts), dotNow)
		t.op("VMOVDQU32", at(dotNow, 0), t.sum(0, 0))
		t.op("VMOVDQU32", mem{base: dotNow, index: dotWNext, scale: 1}, t.sum(0, 1))
		for r := 1; r < t.rows; r++ {
			t.op("VMOVDQA32", t.sum(0, 0), t.sum(r, 0))
			t.op("VMOVDQA32", t.sum(0, 1), t.sum(r, 1))
		}
	} else {
		t.eachSum(func(r, g int, sums mem) { t.op("VMOVUPS.Z", sums, mask(1), t.sum(r, g)) })
	}
	for i, b := range t.bases()[1:] {
		t.op("LEAQ", mem{base: t.bases()[i], index: dotXRow, scale: 2}, b)
		t.op("ADDQ", dotXRow, b)
	}
	t.op("MOVQ", at(dotCall, fieldDotSteps), dotSteps)
	t.op("SHRQ", 2, dotSteps) // runs have a multiple of 16 steps
	t.loop(dotSteps, func() {
		for k := range 4 {
			t.step(k)
		}
		for _, b := range t.bases() {
			t.op("ADDQ", 16, b)
		}
		t.op("ADDQ", 256, dotW)
	})
	if t.bytes {
		t.rescale()
	} else {
		t.eachSum(func(r, g int, sums mem) { t.op("VMOVUPS", t.sum(r, g), sums) })
	}
	t.op("MOVQ", at(dotCall, fieldDotSteps), dotSteps)
	t.op("SHLQ", 2, dotSteps)
	t.op("SUBQ", dotSteps, dotX)
	t.op("MOVQ", at(dotCall, fieldDotW), dotW)
}

// eachSum calls f with every sum and its place in memory.
func (t dotTile) eachSum(f func(row, group int, sums mem)) {
	t.op("MOVQ", dotSums, dotNow)
	for r := range t.rows {
		if r > 0 {
			t.op("ADDQ", dotSumsRow, dotNow)
		}
		for g := range 2 {
			f(r, g, at(dotNow, 64*g))
		}
	}
}

// step adds the products of the k-th of the steps that follow.
func (t dotTile) step(k int) {
	t.op("VMOVUPS", at(dotW, 64*k), z(24))
	t.op("VMOVUPS", mem{base: dotW, disp: 64 * k, index: dotWNext, scale: 1}, z(25))
	for r := range t.rows {
		value := z(26 + r%6)
		t.op("VPBROADCASTD", t.row(r, 4*k), value)
		for g := range 2 {
			if t.bytes {
				t.op("VPDPBUSD", z(24+g), value, t.sum(r, g))
			} else {
				t.encode(vdpbf16ps, z(24+g), false, value, t.sum(r, g), 'Z')
			}
		}
	}
}

// rescale adds the sums of integers, times the scales of their rows, to those in memory.
func (t dotTile) rescale() {
	t.op("MOVQ", at(dotCall, fieldDotSteps), dotSteps)
	t.op("SHLQ", 2, dotSteps)
	t.op("MOVQ", at(dotCall, fieldDotScale), dotNow)
	t.op("SUBQ", dotSteps, dotNow)
	for _, b := range t.bases() {
		t.op("ADDQ", dotNow, b)
	}
	t.eachSum(func(r, g int, sums mem) {
		scale, total := z(24), z(26+(2*r+g)%6)
		if g == 0 {
			t.op("VBROADCASTSS", t.row(r, 0), scale)
		}
		t.op("VCVTDQ2PS", t.sum(r, g), t.sum(r, g))
		t.op("VMOVUPS.Z", sums, mask(1), total)
		t.op("VFMADD231PS", scale, t.sum(r, g), total)
		t.op("VMOVUPS", total, sums)
	})
	t.op("MOVQ", at(dotCall, fieldDotScale), dotNow)
	t.op("SUBQ", dotSteps, dotNow)
	t.op("SUBQ", dotNow, dotX)
}

// dotBytesAVX2 takes two rows together. The sign of an activation goes to the weight, so
// that the sum of two products, at most 2·127², fits in 16 bits.
func dotBytesAVX2(a *asm) {
	a.function("dotBytesAVX2", "(c *dotCall)", 8)
	a.load("c", dotCall, dotSums, dotSumsRow, dotX, dotXRow, dotW, dotWNext, dotSteps, dotRows)
	a.op("VMOVDQU", "·dotOnes(SB)", y(15))
	top, one, done := a.newLabel("rows"), a.newLabel("one"), a.newLabel("done")
	a.label(top)
	a.op("CMPQ", dotRows, 2)
	a.op("JLT", one)
	dotPair(a, 2)
	a.op("LEAQ", mem{base: dotSums, index: dotSumsRow, scale: 2}, dotSums)
	a.op("LEAQ", mem{base: dotX, index: dotXRow, scale: 2}, dotX)
	a.op("SUBQ", 2, dotRows)
	a.op("JMP", top)
	a.label(one)
	a.op("TESTQ", dotRows, dotRows)
	a.op("JEQ", done)
	dotPair(a, 1)
	a.label(done)
	a.ret()
}

func dotPair(a *asm, rows int) {
	sum := func(r, v int) vec { return y(4*r + v) }
	for r := range rows {
		for v := range 4 {
			a.zero(sum(r, v))
		}
	}
	a.op("MOVQ", at(dotCall, fieldDotSteps), dotSteps)
	a.op("MOVQ", at(dotCall, fieldDotW), dotW)
	a.op("MOVQ", dotX, dotThird)
	a.loop(dotSteps, func() {
		for r := range rows {
			from := at(dotThird, 0)
			if r > 0 {
				from.index, from.scale = dotXRow, 1
			}
			a.op("VPBROADCASTD", from, y(8+2*r))
			a.op("VPABSB", y(8+2*r), y(9+2*r))
		}
		for v := range 4 {
			from := at(dotW, v%2*32)
			if v >= 2 {
				from.index, from.scale = dotWNext, 1
			}
			a.op("VMOVDQU", from, y(12))
			for r := range rows {
				product := y(13 + r)
				a.op("VPSIGNB", y(8+2*r), y(12), product)
				a.op("VPMADDUBSW", product, y(9+2*r), product)
				a.op("VPMADDWD", y(15), product, product)
				a.op("VPADDD", product, sum(r, v), sum(r, v))
			}
		}
		a.op("ADDQ", 4, dotThird)
		a.op("ADDQ", 64, dotW)
	})
	a.op("MOVQ", at(dotCall, fieldDotScale), dotThird)
	a.op("ADDQ", dotX, dotThird)
	first, stored := a.newLabel("first"), a.newLabel("stored")
	store := func(add bool) {
		a.op("MOVQ", dotSums, dotNow)
		for r := range rows {
			from := at(dotThird, 0)
			if r > 0 {
				from.index, from.scale = dotXRow, 1
				a.op("ADDQ", dotSumsRow, dotNow)
			}
			a.op("VBROADCASTSS", from, y(8))
			for v := range 4 {
				a.op("VCVTDQ2PS", sum(r, v), y(9))
				if add {
					a.op("VMOVUPS", at(dotNow, 32*v), y(10))
				} else {
					a.zero(y(10))
				}
				a.op("VFMADD231PS", y(8), y(9), y(10))
				a.op("VMOVUPS", y(10), at(dotNow, 32*v))
			}
		}
	}
	a.op("CMPQ", at(dotCall, fieldDotAdd), 0)
	a.op("JEQ", first)
	store(true)
	a.op("JMP", stored)
	a.label(first)
	store(false)
	a.label(stored)
}

package main

// floatKind is a product kernel: how weights become operands of a multiplication.
type floatKind struct {
	name   string
	vector byte // Z or Y
	bytes  int  // of a group's weights in a step of 16 bytes of activations
}

// The kinds of each level. Pairs are BF16 on both sides.
var (
	floatKindsAVX512 = []floatKind{{"F32", 'Z', 256}, {"F16", 'Z', 128}, {"BF16", 'Z', 128}, {"Pairs", 'Z', 256}}
	floatKindsAVX2   = []floatKind{{"F32", 'Y', 256}, {"F16", 'Y', 128}, {"BF16", 'Y', 128}}
)

// The groups of 16 rows that are taken together with 1, 2, … tokens: as many as the
// registers have room for, and no more streams of weights than memory serves well.
var (
	groupsAVX512 = []int{4, 4, 4, 4, 4, 4, 3, 3}
	groupsAVX2   = []int{4, 2, 2, 1, 1, 1}
)

// Fields of floatTile.
const (
	fieldY = 8 * iota
	fieldYStride
	fieldStart
	fieldStartStride
	fieldStartGroup
	fieldX
	fieldW
	fieldWStride
	fieldSteps
	fieldGroups
	fieldTokens
)

// Registers of the product kernels: BX is the tile, R10 the groups left, DI, SI and DX
// the first group's y, start and w, R9 the stride of w with multiples in R11, R12 and
// R15, R13 x, CX the steps left; AX and R8 are for the moment.

// floatKernels writes the products of packed float matrices.
func floatKernels(a *asm) {
	a.constant("upperHalves", repeat(0xffff0000, 8)...)
	for _, k := range floatKindsAVX512 {
		k.function(a, "multiply"+k.name+"AVX512", groupsAVX512)
	}
	for _, k := range floatKindsAVX2 {
		k.function(a, "multiply"+k.name+"AVX2", groupsAVX2)
	}
	roundRow(a)
	spreadRow(a)
	spreadStrip(a)
}

func repeat(word uint32, n int) []uint32 {
	words := make([]uint32, n)
	for i := range words {
		words[i] = word
	}
	return words
}

// function writes the kernel for all numbers of tokens up to len(groups).
func (k floatKind) function(a *asm, name string, groups []int) {
	a.function(name, "(t *floatTile)", 8)
	a.op("MOVQ", "t+0(FP)", BX)
	a.op("MOVQ", at(BX, fieldTokens), AX)
	a.op("MOVQ", at(BX, fieldGroups), R10)
	a.op("MOVQ", at(BX, fieldY), DI)
	a.op("MOVQ", at(BX, fieldStart), SI)
	a.op("MOVQ", at(BX, fieldW), DX)
	a.op("MOVQ", at(BX, fieldWStride), R9)
	a.op("LEAQ", mem{base: R9, index: R9, scale: 2}, R11)
	a.op("LEAQ", mem{base: R9, index: R9, scale: 4}, R12)
	a.op("LEAQ", mem{base: R11, index: R9, scale: 4}, R15)
	if k.name == "BF16" && k.vector == 'Z' {
		a.op("VPBROADCASTD", "·upperHalves(SB)", z(31))
	}
	var labels []string
	for i := range groups {
		labels = append(labels, a.newLabel("tokens"))
		a.op("CMPQ", AX, i+1)
		a.op("JEQ", labels[i])
	}
	a.op("RET")
	for i, n := range groups {
		a.label(labels[i])
		k.strip(a, i+1, n)
	}
}

// strip writes the loop over groups, as many together as can be and then one by one.
func (k floatKind) strip(a *asm, tokens, together int) {
	top, rest, done := a.newLabel("together"), a.newLabel("rest"), a.newLabel("done")
	a.label(top)
	a.op("CMPQ", R10, together)
	a.op("JLT", rest)
	floatTile{k, a, tokens, together}.emit()
	a.op("JMP", top)
	a.label(rest)
	if together > 1 {
		a.op("TESTQ", R10, R10)
		a.op("JEQ", done)
		floatTile{k, a, tokens, 1}.emit()
		a.op("JMP", rest)
		a.label(done)
	}
	a.ret()
}

// floatTile is the code for so many tokens and groups.
type floatTile struct {
	floatKind
	*asm
	tokens, groups int
}

// vectors returns the number of vectors that the rows of all groups make.
func (t floatTile) vectors() int { return t.groups * 64 / t.reg(0).bytes() }

func (t floatTile) reg(n int) vec { return vec{t.vector, n} }

// sum returns the register of a token's sums of vector v.
func (t floatTile) sum(token, v int) vec { return t.reg(token*t.vectors() + v) }

// spare returns a register that holds no sums.
func (t floatTile) spare(i int) vec { return t.reg(t.tokens*t.vectors() + i) }

// spares returns how many there are.
func (t floatTile) spares() int {
	all := 16
	if t.vector == 'Z' {
		all = 31 // the last is the mask of kind BF16
	}
	return all - t.tokens*t.vectors()
}

// emit writes the sums over all steps, and goes on to the next groups.
func (t floatTile) emit() {
	t.loadSums()
	t.op("MOVQ", at(BX, fieldX), R13)
	t.op("MOVQ", at(BX, fieldSteps), CX)
	t.loop(CX, func() {
		for k := range 4 {
			t.multiply(k)
		}
		t.op("ADDQ", 16*t.tokens, R13)
		t.op("ADDQ", t.bytes, DX)
	})
	t.storeSums()
	t.op("SUBQ", t.groups, R10)
	t.op("IMUL3Q", t.groups, R9, AX)
	t.op("ADDQ", AX, DX)
	t.op("MOVQ", at(BX, fieldSteps), AX)
	t.op("IMUL3Q", -t.bytes, AX, AX)
	t.op("ADDQ", AX, DX) // back to the first step
}

// loadSums takes the sums from where they begin, and has the next ones fetched meanwhile:
// they often wait further away than the weights.
func (t floatTile) loadSums() {
	t.op("MOVQ", at(BX, fieldStartStride), R8)
	size := t.reg(0).bytes()
	for g := range t.groups {
		t.op("MOVQ", SI, R13)
		for token := range t.tokens {
			if token > 0 {
				t.op("ADDQ", R8, R13)
			}
			for part := range 64 / size {
				t.op("VMOVUPS", at(R13, part*size), t.sum(token, g*64/size+part))
			}
			t.op("PREFETCHT0", at(R13, 64*t.groups))
		}
		t.op("ADDQ", at(BX, fieldStartGroup), SI)
	}
}

// storeSums writes the sums to y.
func (t floatTile) storeSums() {
	t.op("MOVQ", at(BX, fieldYStride), R8)
	t.op("MOVQ", DI, R13)
	for token := range t.tokens {
		if token > 0 {
			t.op("ADDQ", R8, R13)
		}
		for v := range t.vectors() {
			t.op("VMOVUPS", t.sum(token, v), at(R13, v*t.reg(0).bytes()))
		}
	}
	t.op("ADDQ", 64*t.groups, DI)
}

// weight returns where the weights of vector v lie for element k of a step.
func (t floatTile) weight(k, v int) mem {
	perGroup := 64 / t.reg(0).bytes()
	size := t.bytes / 4 / perGroup // of one vector's weights
	disp := (k*perGroup + v%perGroup) * size
	if t.name == "BF16" { // two elements of a row lie together
		disp = (k/2*perGroup + v%perGroup) * 2 * size
	}
	m := at(DX, disp)
	switch v / perGroup {
	case 1, 2, 4:
		m.index, m.scale = R9, v/perGroup
	case 3, 6:
		m.index, m.scale = R11, v/perGroup/3
	case 5:
		m.index, m.scale = R12, 1
	case 7:
		m.index, m.scale = R15, 1
	}
	return m
}

// loadWeight brings the weights of vector v into a register.
func (t floatTile) loadWeight(k, v int, dst vec) {
	memory := t.weight(k, v)
	switch {
	case t.name == "F16":
		t.op("VCVTPH2PS", memory, dst)
	case t.name != "BF16":
		t.op("VMOVUPS", memory, dst)
	case t.vector == 'Z' && k%2 == 0:
		t.op("VPSLLD", 16, memory, dst)
	case t.vector == 'Z':
		t.op("VPANDD", memory, z(31), dst)
	case k%2 == 0:
		t.op("VMOVDQU", memory, dst)
		t.op("VPSLLD", 16, dst, dst)
	default:
		t.op("VMOVDQU", memory, dst)
		t.op("VPAND", "·upperHalves(SB)", dst, dst)
	}
}

// multiply writes the products of element k of a step. What there is less of, tokens
// or vectors of weights, is loaded first and stays while the other passes.
func (t floatTile) multiply(k int) {
	activation := func(token int, dst vec) {
		t.op("VBROADCASTSS", at(R13, 16*token+4*k), dst)
	}
	weight := func(v int, dst vec) { t.loadWeight(k, v, dst) }
	stay, pass := t.tokens, t.vectors()
	loadStay, loadPass := activation, weight
	if stay > pass {
		stay, pass, loadStay, loadPass = pass, stay, weight, activation
	}
	for i := range stay {
		loadStay(i, t.spare(i))
	}
	free := t.spares() - stay
	for i := range pass {
		passing := t.spare(stay + i%free)
		loadPass(i, passing)
		for j := range stay {
			if t.tokens > t.vectors() {
				t.multiplyAdd(t.spare(j), passing, t.sum(i, j))
			} else {
				t.multiplyAdd(passing, t.spare(j), t.sum(j, i))
			}
		}
	}
}

func (t floatTile) multiplyAdd(weight, activation, sum vec) {
	if t.name == "Pairs" {
		t.encode(vdpbf16ps, weight, false, activation, sum, t.vector)
		return
	}
	t.op("VFMADD231PS", weight, activation, sum)
}

// roundRow writes roundRowAVX512, which rounds 16 float32 at a time to BF16, into two
// blocks of eight that lie stride bytes apart.
func roundRow(a *asm) {
	a.rowArguments("roundRowAVX512")
	a.loop(CX, func() {
		a.encode(vcvtneps2bf16, at(SI, 0), false, vec{}, y(0), 'Z')
		a.op("VMOVDQU", x(0), at(DI, 0))
		a.op("VEXTRACTI128", 1, y(0), mem{base: DI, index: R8, scale: 1})
		a.op("LEAQ", mem{base: DI, index: R8, scale: 2}, DI)
		a.op("ADDQ", 64, SI)
	})
	a.ret()
}

// spreadRow writes spreadRowAVX2, which copies eight float32 at a time into two blocks
// of four that lie stride bytes apart.
func spreadRow(a *asm) {
	a.rowArguments("spreadRowAVX2")
	a.loop(CX, func() {
		a.op("VMOVUPS", at(SI, 0), y(0))
		a.op("VMOVUPS", x(0), at(DI, 0))
		a.op("VEXTRACTF128", 1, y(0), mem{base: DI, index: R8, scale: 1})
		a.op("LEAQ", mem{base: DI, index: R8, scale: 2}, DI)
		a.op("ADDQ", 32, SI)
	})
	a.ret()
}

// spreadStrip writes spreadStripAVX512, which copies 16 columns at a time of eight rows,
// stride bytes apart, in blocks of four: [4][8][4]. Of each four rows it exchanges the
// quarters of vectors as the rows and columns of a matrix.
func spreadStrip(a *asm) {
	a.rowArguments("spreadStripAVX512")
	a.op("LEAQ", mem{base: R8, index: R8, scale: 2}, R9)
	a.loop(CX, func() {
		a.op("LEAQ", mem{base: SI, index: R8, scale: 4}, R10)
		for i, rows := range []reg{SI, R10} {
			for r, m := range []mem{at(rows, 0), {base: rows, index: R8, scale: 1}, {base: rows, index: R8, scale: 2}, {base: rows, index: R9, scale: 1}} {
				a.op("VMOVUPS", m, z(r))
			}
			for half, quarters := range []int{0x44, 0xee} {
				a.op("VSHUFF32X4", quarters, z(1), z(0), z(4+half))
				a.op("VSHUFF32X4", quarters, z(3), z(2), z(6+half))
				a.op("VSHUFF32X4", 0x88, z(6+half), z(4+half), z(8))
				a.op("VSHUFF32X4", 0xdd, z(6+half), z(4+half), z(9))
				a.op("VMOVUPS", z(8), at(DI, 256*half+64*i))
				a.op("VMOVUPS", z(9), at(DI, 256*half+128+64*i))
			}
		}
		a.op("ADDQ", 512, DI)
		a.op("ADDQ", 64, SI)
	})
	a.ret()
}

// rowArguments begins a function that writes a row in blocks of 16 bytes: DI where, SI
// the row, CX how often, R8 the stride of blocks.
func (a *asm) rowArguments(name string) {
	a.function(name, "(dst unsafe.Pointer, x *float32, n, stride int)", 32)
	a.op("MOVQ", "dst+0(FP)", DI)
	a.op("MOVQ", "x+8(FP)", SI)
	a.op("MOVQ", "n+16(FP)", CX)
	a.op("MOVQ", "stride+24(FP)", R8)
}

package main

// quantKind is a product kernel for one block type: how 32 columns of 16 rows become
// levels and scales. The layout is described in quant_pack.go.
type quantKind struct {
	name   string
	bytes  bool // levels are bytes, not four bits with more apart
	high   int  // more bits
	affine bool // has offsets
	super  bool // factors of 8 bits and scales of 256 columns, not a scale of 32
	halves bool // a factor for each 16 columns
}

var quantKinds = []quantKind{
	{name: "Q8_0", bytes: true},
	{name: "Q4_0"},
	{name: "Q4_1", affine: true},
	{name: "Q5_0", high: 1},
	{name: "Q5_1", high: 1, affine: true},
	{name: "Q4_K", affine: true, super: true},
	{name: "Q5_K", high: 1, affine: true, super: true},
	{name: "Q6_K", high: 2, super: true, halves: true},
}

// Fields of quantTile.
const (
	quantY = 8 * iota
	quantYStride
	quantBias
	quantSums
	quantX
	quantLevels
	quantHigh
	quantScales
	quantSupers
	quantNext
	quantSteps
	quantTokens
	quantScratch
	quantShapes
	quantNone
	quantLeft
)

// A record of activations: 32 bytes, and four words.
const (
	recordScale  = 32 // 1.5·2^23 of the record's power of two
	recordStart  = 36 // what sums of all columns, or of the first 16, begin with
	recordSecond = 40 // what sums of the second 16 begin with
	recordSum    = 44 // the sum of the activations
	recordBytes  = 48
)

// Registers of the product kernels: BX is the tile, SI a record, DI the sums of a
// token, DX, R10, R11 and R12 levels, high bits, scales and supers of a step, R9 the
// distance of the second group, R13 the steps left, R8 those before the next supers,
// CX the tokens left.

// stepsPerSuper is the number of steps of 32 columns that share supers.
const stepsPerSuper = 8

// quantKernels writes the products of packed block types.
func quantKernels(a *asm) {
	a.constant("maskNibbles", repeat(0x0f0f0f0f, 8)...)
	a.constant("maskFifth", repeat(0x10101010, 8)...)
	a.constant("maskUpper", repeat(0x30303030, 8)...)
	a.constant("maskSign", repeat(0x80808080, 8)...)
	a.constant("maskMagnitude", repeat(0x7fffffff, 8)...)
	a.constant("onesInt16", repeat(0x00010001, 8)...)
	a.constant("packedOrder", 0, 4, 1, 5, 2, 6, 3, 7)
	for _, k := range quantKinds {
		quantWide{k, a}.function()
	}
	for _, k := range quantKinds {
		if !k.halves { // there would be twice the sums to fetch: vectors are faster
			quantTiles{quantWide{k, a}}.function()
		}
	}
	for _, k := range quantKinds {
		quantNarrow{k, a}.function()
	}
	quantizeRow(a)
}

// levelBytes, highBytes, scaleBytes and superBytes are what a group of 16 rows has for
// 32 columns, and supers for 256.
func (k quantKind) levelBytes() int {
	if k.bytes {
		return 512
	}
	return 256
}

func (k quantKind) highBytes() int { return 64 * k.high }

func (k quantKind) scaleBytes() int {
	if k.affine && !k.super {
		return 64
	}
	return 32
}

func (k quantKind) superBytes() int {
	if k.affine {
		return 64
	}
	return 32
}

// subs returns the number of sums that a step makes for an output.
func (k quantKind) subs() int {
	if k.halves {
		return 2
	}
	return 1
}

// start returns where in a record the start of sum s is. Types with offsets have no
// zero point to take off.
func (k quantKind) start(s int) int {
	if k.affine {
		return recordScale
	}
	return recordStart + 4*s
}

// levelsMask returns the constant that selects the upper bits of a level.
func (k quantKind) highMask() string {
	if k.high == 2 {
		return "·maskUpper(SB)"
	}
	return "·maskFifth(SB)"
}

// highShift returns how far to the left the upper bits of quad j are to be moved, and
// which vector of the plane they are in.
func (k quantKind) highShift(j int) (left, vector int) {
	if k.high == 2 {
		return 4 - 2*(j%4), j / 4
	}
	return 4 - j, 0
}

// begin loads the registers of a product kernel.
func (k quantKind) begin(a *asm, name string) {
	a.function(name, "(t *quantTile)", 8)
	a.op("MOVQ", "t+0(FP)", BX)
	a.op("MOVQ", at(BX, quantX), SI)
	a.op("MOVQ", at(BX, quantLevels), DX)
	a.op("MOVQ", at(BX, quantHigh), R10)
	a.op("MOVQ", at(BX, quantScales), R11)
	a.op("MOVQ", at(BX, quantSupers), R12)
	a.op("MOVQ", at(BX, quantNext), R9)
	a.op("MOVQ", at(BX, quantSteps), R13)
}

// steps writes the loop over all columns, 32 at a time.
func (k quantKind) steps(a *asm, body func()) {
	top := a.newLabel("step")
	if k.super {
		a.op("MOVQ", stepsPerSuper, R8)
	}
	a.label(top)
	body()
	a.op("ADDQ", k.levelBytes(), DX)
	if k.high > 0 {
		a.op("ADDQ", k.highBytes(), R10)
	}
	a.op("ADDQ", k.scaleBytes(), R11)
	if k.super {
		same := a.newLabel("same")
		a.op("DECQ", R8)
		a.op("JNZ", same)
		a.op("MOVQ", stepsPerSuper, R8)
		a.op("ADDQ", k.superBytes(), R12)
		a.label(same)
	}
	a.op("DECQ", R13)
	a.op("JNZ", top)
}

// tokens writes the loops over the tokens of a step, first many at a time and then
// one by one.
func tokensLoop(a *asm, many int, sumBytes int, body func(tokens int)) {
	a.op("MOVQ", at(BX, quantSums), DI)
	a.op("MOVQ", at(BX, quantTokens), CX)
	for _, n := range []int{many, 1} {
		top, done := a.newLabel("tokens"), a.newLabel("done")
		a.op("CMPQ", CX, n)
		a.op("JLT", done)
		a.label(top)
		body(n)
		a.op("ADDQ", n*recordBytes, SI)
		a.op("ADDQ", n*sumBytes, DI)
		a.op("SUBQ", n, CX)
		a.op("CMPQ", CX, n)
		a.op("JGE", top)
		a.label(done)
	}
}

// ends writes what is before and after the steps: every token's sums begin with the
// bias, and go to y at last. vectors are the registers of a token.
func begins(a *asm, vectors []vec) {
	size := vectors[0].bytes()
	a.op("MOVQ", at(BX, quantBias), AX)
	for i, v := range vectors {
		a.op("VMOVUPS", at(AX, i*size), v)
	}
	a.op("MOVQ", at(BX, quantSums), DI)
	a.op("MOVQ", at(BX, quantTokens), CX)
	a.loop(CX, func() {
		for i, v := range vectors {
			a.op("VMOVUPS", v, at(DI, i*size))
		}
		a.op("ADDQ", size*len(vectors), DI)
	})
}

func ends(a *asm, vectors []vec) {
	size := vectors[0].bytes()
	a.op("MOVQ", at(BX, quantSums), DI)
	a.op("MOVQ", at(BX, quantTokens), CX)
	a.op("MOVQ", at(BX, quantY), AX)
	a.op("MOVQ", at(BX, quantYStride), R8)
	a.loop(CX, func() {
		for i, v := range vectors {
			a.op("VMOVUPS", at(DI, i*size), v)
			a.op("VMOVUPS", v, at(AX, i*size))
		}
		a.op("ADDQ", size*len(vectors), DI)
		a.op("ADDQ", R8, AX)
	})
	a.ret()
}

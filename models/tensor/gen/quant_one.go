package main

// quantOne writes the kernels of AVX-512 for a single token, which wait for nothing but
// memory: a group of rows at a time, so that each thread reads one run of it, whose sums
// stay in a register. They use the registers of quantWide for its first group; R9 is the
// distance of the group that comes next, DI and CX those of the levels to be fetched, in
// this group and across the end of it.
type quantOne struct{ quantWide }

// Fields of quantRun.
const (
	oneY = 8 * iota
	oneBias
	oneX
	oneLevels
	oneHigh
	oneScales
	oneSupers
	oneNext
	oneSteps
)

// oneAhead is how many steps ahead levels are asked for. They come to the second cache:
// the first one waits for few lines at a time, which must not all be far away.
const oneAhead = 16

const (
	oneSum   = 23 // registers: of integers
	oneTotal = 24 // of the products
)

// quantOneKernels writes the products of packed block types with one token.
func quantOneKernels(a *asm) {
	for _, k := range quantKinds {
		quantOne{quantWide{k, a}}.function()
	}
}

func (q quantOne) function() {
	q.asm.function("multiply"+q.name+"One", "(t *quantRun)", 8)
	q.load("t", BX, "", AX, SI, DX, R10, R11, R12, R9, R13)
	q.masks()
	q.op("VMOVUPS", at(AX, 0), z(oneTotal))
	ahead := oneAhead * q.levelBytes()
	q.op("MOVQ", ahead, DI)
	q.op("IMUL3Q", q.levelBytes(), R13, CX)
	q.op("NEGQ", CX)
	q.op("LEAQ", mem{base: R9, disp: ahead, index: CX, scale: 1}, CX)
	q.steps(q.asm, func() {
		q.fetch()
		q.unpackLevels(0)
		q.decodeScales(0)
		for s := range q.subs() {
			q.multiplyAdd(s)
		}
		q.op("ADDQ", recordBytes, SI)
	})
	q.op("MOVQ", at(BX, oneY), AX)
	q.op("VMOVUPS", z(oneTotal), at(AX, 0))
	q.ret()
}

// fetch asks for levels some steps ahead, and for the rest of the next group, which is
// little, a whole group ahead.
func (q quantOne) fetch() {
	q.op("CMPQ", R13, oneAhead)
	q.op("CMOVQLE", CX, DI)
	for j := range q.levelBytes() / 64 {
		q.op("PREFETCHT1", mem{base: DX, disp: 64 * j, index: DI, scale: 1})
	}
	for v := range q.high {
		q.op("PREFETCHT1", mem{base: R10, disp: 64 * v, index: R9, scale: 1})
	}
	q.op("PREFETCHT1", mem{base: R11, index: R9, scale: 1})
	if q.super {
		q.op("PREFETCHT1", mem{base: R12, index: R9, scale: 1})
	}
}

// multiplyAdd adds the products of a step, or of its half s.
func (q quantOne) multiplyAdd(s int) {
	sum := z(oneSum)
	q.op("VPBROADCASTD", at(SI, q.start(s)), sum)
	quads := 8 / q.subs()
	for j := s * quads; j < (s+1)*quads; j++ {
		q.op("VPDPBUSD.BCST", at(SI, 4*j), q.level(0, j), sum)
	}
	q.op("VSUBPS.BCST", at(SI, recordScale), sum, sum)
	q.op("VFMADD231PS", q.scale(0, s), sum, z(oneTotal))
	if q.affine {
		q.op("VFMADD231PS.BCST", at(SI, recordSum), q.offset(0), z(oneTotal))
	}
}

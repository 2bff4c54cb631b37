package main

import "math"

// lanes writes one step of a loop over floats: a whole vector, or the masked rest of
// one, whose mask is K1 or Y15.
type lanes struct {
	*asm
	kind   byte // Y or Z
	masked bool
	held   map[word]vec // constants in registers
}

// hold loads constants into registers, from 31 down, for the steps that follow. Memory
// serves as well for vectors of 32 bytes, which lie within a line of the cache.
func (l lanes) hold(lists ...[]word) lanes {
	if l.kind == 'Y' {
		return l
	}
	l.held = map[word]vec{}
	for _, list := range lists {
		for _, w := range list {
			if _, ok := l.held[w]; !ok {
				l.held[w] = l.v(31 - len(l.held))
				l.op("VBROADCASTSS", w, l.held[w])
			}
		}
	}
	return l
}

// c is a constant as an operand.
func (l lanes) c(w word) any {
	if v, ok := l.held[w]; ok {
		return v
	}
	return w
}

// v returns a vector register of the step's size.
func (l lanes) v(n int) vec { return vec{l.kind, n} }

func (l lanes) size() int { return l.v(0).bytes() }

var restMask = y(15)

// load reads the floats at m; what is masked is 0.
func (l lanes) load(m mem, to vec) {
	switch {
	case !l.masked:
		l.op("VMOVUPS", m, to)
	case l.kind == 'Z':
		l.op("VMOVUPS.Z", m, mask(1), to)
	default:
		l.op("VMASKMOVPS", m, restMask, to)
	}
}

// loadOr reads the floats at m; what is masked is the constant. It uses spare.
func (l lanes) loadOr(m mem, to, spare vec, otherwise word) {
	switch {
	case !l.masked:
		l.op("VMOVUPS", m, to)
	case l.kind == 'Z':
		l.op("VMOVUPS", l.c(otherwise), to)
		l.op("VMOVUPS", m, mask(1), to)
	default:
		l.op("VMASKMOVPS", m, restMask, spare)
		l.op("VMOVUPS", l.c(otherwise), to)
		l.op("VBLENDVPS", restMask, spare, to, to)
	}
}

// store writes what is not masked.
func (l lanes) store(from vec, m mem) {
	switch {
	case !l.masked:
		l.op("VMOVUPS", from, m)
	case l.kind == 'Z':
		l.op("VMOVUPS", from, mask(1), m)
	default:
		l.op("VMASKMOVPS", from, restMask, m)
	}
}

// each writes a loop over n floats, which the step finds at pointers: it is called for
// a whole vector and for the rest. n and CX are changed.
func (l lanes) each(n reg, pointers []reg, step func(l lanes)) {
	a := l.asm
	top, rest, done := a.newLabel("loop"), a.newLabel("rest"), a.newLabel("done")
	floats := l.size() / 4
	a.op("SUBQ", floats, n)
	a.op("JLT", rest)
	a.label(top)
	step(l)
	for _, p := range pointers {
		a.op("ADDQ", l.size(), p)
	}
	a.op("SUBQ", floats, n)
	a.op("JGE", top)
	a.label(rest)
	a.op("ADDQ", floats, n)
	a.op("JZ", done)
	if l.kind == 'Z' {
		a.op("MOVL", 1, CX)
		a.op("SHLXL", n, CX, CX)
		a.op("DECL", CX)
		a.op("KMOVW", CX, mask(1))
	} else {
		a.op("LEAQ", "·restMasks(SB)", CX)
		a.op("SHLQ", 2, n)
		a.op("SUBQ", n, CX)
		a.op("VMOVUPS", at(CX, 32), restMask)
	}
	l.masked = true
	step(l)
	a.label(done)
}

// word is a constant in memory, once for every lane.
type word string

func (w word) String() string { return "·const" + string(w) + "(SB)" }

// The constants of the vector functions.
const (
	one      word = "One"
	half     word = "Half"
	two      word = "Two"
	minusInf word = "MinusInf"
	signBit  word = "SignBit"

	expMax  word = "ExpMax"
	expMin  word = "ExpMin"
	log2e   word = "Log2e"
	ln2Hi   word = "Ln2Hi"
	ln2Lo   word = "Ln2Lo"
	bias127 word = "Bias127"

	rounding word = "Rounding" // 1.5·2²³, after which there are no fractions
)

// The polynomials, highest power first.
var (
	expPoly  = []word{"Exp5", "Exp4", "Exp3", "Exp2", "Exp1", "Exp0"}
	expWords = append([]word{expMin, expMax, log2e, ln2Hi, ln2Lo, rounding, one}, expPoly...)
	tanhPoly = []word{"Tanh4", "Tanh3", "Tanh2", "Tanh1", "Tanh0"}
	erfOver  = []word{"ErfP6", "ErfP5", "ErfP4", "ErfP3", "ErfP2", "ErfP1", "ErfP0"}
	erfUnder = []word{"ErfQ4", "ErfQ3", "ErfQ2", "ErfQ1", "ErfQ0"}
)

// vectorConstants declares what the vector functions read.
func vectorConstants(a *asm) {
	declare := func(w word, bits uint32) {
		words := make([]uint32, 16)
		for i := range words {
			words[i] = bits
		}
		a.constant("const"+string(w), words...)
	}
	for _, c := range []struct {
		name  word
		value float32
	}{
		{one, 1}, {half, 0.5}, {two, 2}, {minusInf, float32(math.Inf(-1))},
		{expMax, 89}, {expMin, -87.33654}, {log2e, math.Log2E}, {ln2Hi, 0.693359375}, {ln2Lo, -2.12194440e-4},
		{quickGELU, 1.702}, {geluCube, 0.044715}, {geluScale, float32(2 * math.Sqrt(2/math.Pi))}, {sqrtHalf, float32(math.Sqrt(0.5))},
		{rounding, 3 << 22}, {tanhSmall, 0.625}, {erfMax, 4}, {erfMin, -4},
	} {
		declare(c.name, math.Float32bits(c.value))
	}
	for _, p := range []struct {
		names  []word
		values []float32
	}{
		{expPoly, []float32{1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1}},
		{tanhPoly, []float32{-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1}},
		{erfOver, []float32{-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02}},
		{erfUnder, []float32{-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02}},
	} {
		for i, name := range p.names {
			declare(name, math.Float32bits(p.values[i]))
		}
	}
	declare(signBit, 1<<31)
	declare(bias127, 127)
	rest := make([]uint32, 16)
	for i := range 8 {
		rest[i] = 0xffffffff
	}
	a.constant("restMasks", rest...)
}

// polynomial sets to to the value at x of the polynomial of those coefficients.
func (l lanes) polynomial(coefficients []word, x, to vec) {
	l.op("VMOVUPS", l.c(coefficients[0]), to)
	for _, c := range coefficients[1:] {
		l.op("VFMADD213PS", l.c(c), x, to)
	}
}

// exp replaces x by eˣ as the Go function exp computes it, but for rounding. It uses
// three spare registers and K2.
func (l lanes) exp(x, n, p, q vec) {
	l.op("VMOVUPS", l.c(expMax), n)
	l.op("VMINPS", x, n, x) // beyond the largest number; a NaN stays
	l.expOfNegative(x, n, p, q)
}

// expOfNegative is exp for numbers that are not above expMax.
func (l lanes) expOfNegative(x, n, p, q vec) {
	if l.kind == 'Z' {
		l.op("VCMPPS", 5, l.c(expMin), x, mask(2))
	} else {
		l.op("VCMPPS", 5, l.c(expMin), x, q)
	}
	l.op("VMOVUPS", l.c(rounding), n)
	l.op("VFMADD231PS", l.c(log2e), x, n)
	l.op("VSUBPS", l.c(rounding), n, n)
	l.op("VFNMADD231PS", l.c(ln2Hi), n, x)
	l.op("VFNMADD231PS", l.c(ln2Lo), n, x)
	l.polynomial(expPoly, x, p)
	l.op("VFMADD213PS", l.c(one), x, p) // (p·x + 1)·x + 1 = p·x² + x + 1
	l.op("VFMADD213PS", l.c(one), x, p)
	if l.kind == 'Z' {
		l.op("VSCALEFPS.Z", n, p, mask(2), x)
		return
	}
	// 2ⁿ in two factors, for 2¹²⁸ is not a float32.
	l.op("VCVTPS2DQ", n, n)
	l.op("VPSRAD", 1, n, x)
	l.op("VPSUBD", x, n, n)
	for _, part := range []vec{x, n} {
		l.op("VPADDD", l.c(bias127), part, part)
		l.op("VPSLLD", 23, part, part)
		l.op("VMULPS", part, p, p)
	}
	l.op("VANDPS", q, p, x)
}

// fold leaves in lane 0 what op makes of all lanes of v. It uses spare.
func (l lanes) fold(op string, v, spare vec) {
	if v.kind == 'Z' {
		l.op("VEXTRACTF64X4", 1, v, spare.as('Y'))
		l.op(op, spare.as('Y'), v.as('Y'), v.as('Y'))
	}
	l.op("VEXTRACTF128", 1, v.as('Y'), spare.as('X'))
	l.op(op, spare.as('X'), v.as('X'), v.as('X'))
	l.op("VPERMILPS", 0x4e, v.as('X'), spare.as('X'))
	l.op(op, spare.as('X'), v.as('X'), v.as('X'))
	l.op("VPERMILPS", 0xb1, v.as('X'), spare.as('X'))
	l.op(op, spare.as('X'), v.as('X'), v.as('X'))
}

package main

import "fmt"

// The constants of activations.
const (
	quickGELU word = "QuickGELU" // x·σ(1.702x)
	geluCube  word = "GELUCube"
	geluScale word = "GELUScale"
	sqrtHalf  word = "SqrtHalf"
	tanhSmall word = "TanhSmall"
	erfMax    word = "ErfMax"
	erfMin    word = "ErfMin"
)

// vectorKernels emits, for both levels, the functions over rows of floats.
func vectorKernels(a *asm) {
	vectorConstants(a)
	for _, l := range []struct {
		name string
		kind byte
	}{{"AVX512", 'Z'}, {"AVX2", 'Y'}} {
		activateFunction(a, "activate"+l.name, l.kind)
		softCapFunction(a, "softCap"+l.name, l.kind)
		addFunctions(a, l.name, l.kind)
		normFunctions(a, l.name, l.kind)
		addHadamardFunction(a, "addHadamard"+l.name, l.kind)
		widenFunctions(a, l.name, l.kind)
		columnsFunction(a, "columnMoments"+l.name, l.kind)
		ropeFunction(a, "rope"+l.name, l.kind)
		softmaxFunctions(a, l.name, l.kind)
		tileFunctions(a, l.name, l.kind)
	}
}

// arguments writes moves of a function's arguments of 8 bytes.
func (a *asm) arguments(names []string, registers ...reg) {
	for i, r := range registers {
		a.op("MOVQ", argument(names[i], 8*i), r)
	}
}

// argument is the argument of that name, offset bytes from the first.
func argument(name string, offset int) string { return fmt.Sprintf("%s+%d(FP)", name, offset) }

// activateFunction emits y = f(x), or f(x)·up if up is not nil.
func activateFunction(a *asm, name string, kind byte) {
	a.function(name, "(y, x, up *float32, n, f int)", 40)
	a.arguments([]string{"y", "x", "up", "n", "f"}, DI, SI, DX, BX, AX)
	kinds := []struct {
		label string
		words []word
		apply func(l lanes)
	}{
		{"silu", sigmoidWords, func(l lanes) { l.op("VMOVUPS", l.v(0), l.v(1)); l.sigmoid() }},
		{"gelu", append(append([]word{sqrtHalf, half, erfMax, erfMin}, erfOver...), erfUnder...), lanes.gelu},
		{"geluTanh", append([]word{geluCube, geluScale}, sigmoidWords...), func(l lanes) {
			l.op("VMULPS", l.v(0), l.v(0), l.v(1))
			l.op("VMULPS", l.c(geluCube), l.v(1), l.v(1))
			l.op("VFMADD213PS", l.v(0), l.v(0), l.v(1)) // x + cx³
			l.op("VMULPS", l.c(geluScale), l.v(1), l.v(1))
			l.sigmoid()
		}},
		{"quickGELU", append([]word{quickGELU}, sigmoidWords...), func(l lanes) { l.op("VMULPS", l.c(quickGELU), l.v(0), l.v(1)); l.sigmoid() }},
		{"relu", nil, func(l lanes) {
			l.zero(l.v(1))
			l.op("VMAXPS", l.v(0), l.v(1), l.v(0)) // a NaN stays
		}},
		{"none", nil, func(lanes) {}},
	}
	for i, k := range kinds {
		a.op("CMPQ", AX, i+1)
		a.op("JEQ", k.label)
	}
	a.op("RET")
	for _, k := range kinds {
		a.label(k.label)
		held := lanes{asm: a, kind: kind}.hold(k.words)
		a.op("TESTQ", DX, DX)
		a.op("JNZ", k.label+"Gate")
		held.each(BX, []reg{DI, SI}, func(l lanes) {
			l.load(at(SI, 0), l.v(0))
			k.apply(l)
			l.store(l.v(0), at(DI, 0))
		})
		a.ret()
		a.label(k.label + "Gate")
		held.each(BX, []reg{DI, SI, DX}, func(l lanes) {
			l.load(at(SI, 0), l.v(0))
			k.apply(l)
			l.load(at(DX, 0), l.v(1))
			l.op("VMULPS", l.v(1), l.v(0), l.v(0))
			l.store(l.v(0), at(DI, 0))
		})
		a.ret()
	}
}

var sigmoidWords = append([]word{signBit}, expWords...)

// sigmoid multiplies register 0 by σ of register 1.
func (l lanes) sigmoid() {
	l.op("VXORPS", l.c(signBit), l.v(1), l.v(1))
	l.exp(l.v(1), l.v(2), l.v(3), l.v(4))
	l.op("VADDPS", l.c(one), l.v(1), l.v(1))
	l.op("VDIVPS", l.v(1), l.v(0), l.v(0))
}

// gelu multiplies register 0, x, by Φ(x) = (1+erf(x/√2))/2, erf by a quotient of
// polynomials between -4 and 4.
func (l lanes) gelu() {
	x, u, square, over, under := l.v(0), l.v(1), l.v(2), l.v(3), l.v(4)
	l.op("VMULPS", l.c(sqrtHalf), x, u)
	l.op("VMOVUPS", l.c(erfMax), square)
	l.op("VMINPS", u, square, u)
	l.op("VMOVUPS", l.c(erfMin), square)
	l.op("VMAXPS", u, square, u)
	l.op("VMULPS", u, u, square)
	l.polynomial(erfOver, square, over)
	l.polynomial(erfUnder, square, under)
	l.op("VMULPS", u, over, over)
	l.op("VDIVPS", under, over, over)
	l.op("VMULPS", l.c(half), x, u)
	l.op("VFMADD213PS", u, u, over) // over·u + u
	l.op("VMOVUPS", over, x)
}

// softCapFunction emits x = limit·tanh(x/limit).
func softCapFunction(a *asm, name string, kind byte) {
	a.function(name, "(x *float32, n int, limit float32)", 20)
	a.arguments([]string{"x", "n"}, DI, BX)
	a.op("VBROADCASTSS", argument("limit", 16), vec{kind, 5})
	lanes{asm: a, kind: kind}.hold(expWords, tanhPoly, []word{two, signBit, tanhSmall}).each(BX, []reg{DI}, func(l lanes) {
		x, limit := l.v(0), l.v(5)
		l.load(at(DI, 0), x)
		l.op("VDIVPS", limit, x, x)
		l.tanh(x)
		l.op("VMULPS", limit, x, x)
		l.store(x, at(DI, 0))
	})
	a.ret()
}

// tanh replaces x: by a polynomial near 0, where 1 - 2/(e²ˣ+1) would cancel. It uses
// registers 1 to 4 and 6 to 7.
func (l lanes) tanh(x vec) {
	far, square, p := l.v(1), l.v(6), l.v(7)
	l.op("VADDPS", x, x, far)
	l.exp(far, l.v(2), l.v(3), l.v(4))
	l.op("VADDPS", l.c(one), far, far)
	l.op("VMOVUPS", l.c(two), p)
	l.op("VDIVPS", far, p, far)
	l.op("VMOVUPS", l.c(one), p)
	l.op("VSUBPS", far, p, far)
	l.op("VMULPS", x, x, square)
	l.polynomial(tanhPoly, square, p)
	l.op("VMULPS", square, p, p)
	l.op("VFMADD213PS", x, x, p) // p·x²·x + x
	l.op("VMOVUPS", l.c(signBit), square)
	l.op("VANDNPS", x, square, square) // |x|
	if l.kind == 'Z' {
		l.op("VCMPPS", 1, l.c(tanhSmall), square, mask(2))
		l.op("VBLENDMPS", p, far, mask(2), x)
	} else {
		l.op("VCMPPS", 1, l.c(tanhSmall), square, square)
		l.op("VBLENDVPS", square, p, far, x)
	}
}

// addFunctions emits y += w·x and x = x·w.
func addFunctions(a *asm, level string, kind byte) {
	a.function("axpy"+level, "(y, x *float32, n int, w float32)", 28)
	a.arguments([]string{"y", "x", "n"}, DI, SI, BX)
	a.op("VBROADCASTSS", argument("w", 24), vec{kind, 5})
	lanes{asm: a, kind: kind}.each(BX, []reg{DI, SI}, func(l lanes) {
		l.load(at(DI, 0), l.v(0))
		l.load(at(SI, 0), l.v(1))
		l.op("VFMADD231PS", l.v(5), l.v(1), l.v(0))
		l.store(l.v(0), at(DI, 0))
	})
	a.ret()
	a.function("scale"+level, "(y, x *float32, n int, w float32)", 28)
	a.arguments([]string{"y", "x", "n"}, DI, SI, BX)
	a.op("VBROADCASTSS", argument("w", 24), vec{kind, 5})
	lanes{asm: a, kind: kind}.each(BX, []reg{DI, SI}, func(l lanes) {
		l.load(at(SI, 0), l.v(0))
		l.op("VMULPS", l.v(5), l.v(0), l.v(0))
		l.store(l.v(0), at(DI, 0))
	})
	a.ret()
}

// addHadamardFunction emits y += w·x, the three of them vectors.
func addHadamardFunction(a *asm, name string, kind byte) {
	a.function(name, "(y, x, w *float32, n int)", 32)
	a.arguments([]string{"y", "x", "w", "n"}, DI, SI, DX, BX)
	lanes{asm: a, kind: kind}.each(BX, []reg{DI, SI, DX}, func(l lanes) {
		l.load(at(DI, 0), l.v(0))
		l.load(at(SI, 0), l.v(1))
		l.load(at(DX, 0), l.v(2))
		l.op("VFMADD231PS", l.v(2), l.v(1), l.v(0))
		l.store(l.v(0), at(DI, 0))
	})
	a.ret()
}

// widenFunctions emits y = x for n numbers of 16 bits, a positive multiple of 16.
func widenFunctions(a *asm, level string, kind byte) {
	wide, narrow := vec{kind, 0}, vec{kind, 0}.bytes()/2
	for _, half := range []string{"F16", "BF16"} {
		a.function("widen"+half+level, "(y *float32, x *uint16, n int)", 24)
		a.arguments([]string{"y", "x", "n"}, DI, SI, BX)
		top := a.newLabel("loop")
		a.label(top)
		if half == "F16" {
			a.op("VCVTPH2PS", at(SI, 0), wide)
		} else {
			a.op("VPMOVZXWD", at(SI, 0), wide)
			a.op("VPSLLD", 16, wide, wide)
		}
		a.op("VMOVUPS", wide, at(DI, 0))
		a.op("ADDQ", narrow, SI)
		a.op("ADDQ", 2*narrow, DI)
		a.op("SUBQ", narrow/2, BX)
		a.op("JNZ", top)
		a.ret()
	}
}

// normFunctions emits the parts of norms: Σ(x-c) and Σ(x-c)², and
// y = (x-mean)·scale·w + b, b only if it is not nil.
func normFunctions(a *asm, level string, kind byte) {
	a.function("moments"+level, "(x *float32, n int, c float32) (sum, squares float32)", 32)
	a.arguments([]string{"x", "n"}, SI, BX)
	a.op("VBROADCASTSS", argument("c", 16), vec{kind, 5})
	all := lanes{asm: a, kind: kind}
	sums := []vec{all.v(1), all.v(2), all.v(6), all.v(7)}
	a.zero(sums...)
	// Two vectors at a time, so that one sum need not wait for the other.
	pair, single := a.newLabel("pair"), a.newLabel("single")
	a.label(pair)
	a.op("CMPQ", BX, all.size()/2)
	a.op("JLT", single)
	for i := range 2 {
		a.op("VMOVUPS", at(SI, i*all.size()), all.v(3+i))
		a.op("VSUBPS", all.v(5), all.v(3+i), all.v(3+i))
		a.op("VADDPS", all.v(3+i), sums[2*i], sums[2*i])
		a.op("VFMADD231PS", all.v(3+i), all.v(3+i), sums[2*i+1])
	}
	a.op("ADDQ", 2*all.size(), SI)
	a.op("SUBQ", all.size()/2, BX)
	a.op("JMP", pair)
	a.label(single)
	lanes{asm: a, kind: kind}.each(BX, []reg{SI}, func(l lanes) {
		x := l.v(3)
		l.load(at(SI, 0), x)
		if l.masked && kind == 'Z' {
			l.op("VSUBPS.Z", l.v(5), x, mask(1), x)
		} else {
			l.op("VSUBPS", l.v(5), x, x)
		}
		if l.masked && kind == 'Y' {
			l.op("VANDPS", restMask, x, x)
		}
		l.op("VADDPS", x, sums[0], sums[0])
		l.op("VFMADD231PS", x, x, sums[1])
	})
	a.op("VADDPS", sums[2], sums[0], sums[0])
	a.op("VADDPS", sums[3], sums[1], sums[1])
	all.fold("VADDPS", sums[0], all.v(3))
	all.fold("VADDPS", sums[1], all.v(3))
	a.op("VMOVSS", sums[0].as('X'), argument("sum", 24))
	a.op("VMOVSS", sums[1].as('X'), argument("squares", 28))
	a.ret()

	a.function("affine"+level, "(y, x, w, b *float32, n int, mean, scale float32)", 48)
	a.arguments([]string{"y", "x", "w", "b", "n"}, DI, SI, DX, R8, BX)
	a.op("VBROADCASTSS", argument("mean", 40), vec{kind, 5})
	a.op("VBROADCASTSS", argument("scale", 44), vec{kind, 6})
	shifted := a.newLabel("shifted")
	scaled := func(l lanes) {
		l.load(at(SI, 0), l.v(0))
		l.load(at(DX, 0), l.v(1))
		l.op("VSUBPS", l.v(5), l.v(0), l.v(0))
		l.op("VMULPS", l.v(6), l.v(0), l.v(0))
	}
	a.op("TESTQ", R8, R8)
	a.op("JNZ", shifted)
	lanes{asm: a, kind: kind}.each(BX, []reg{DI, SI, DX}, func(l lanes) {
		scaled(l)
		l.op("VMULPS", l.v(1), l.v(0), l.v(0))
		l.store(l.v(0), at(DI, 0))
	})
	a.ret()
	a.label(shifted)
	lanes{asm: a, kind: kind}.each(BX, []reg{DI, SI, DX, R8}, func(l lanes) {
		scaled(l)
		l.load(at(R8, 0), l.v(2))
		l.op("VFMADD213PS", l.v(2), l.v(1), l.v(0))
		l.store(l.v(0), at(DI, 0))
	})
	a.ret()
}

// columnsFunction emits sum += x-c and squares += (x-c)² for every column.
func columnsFunction(a *asm, name string, kind byte) {
	a.function(name, "(sum, squares, x, c *float32, n int)", 40)
	a.arguments([]string{"sum", "squares", "x", "c", "n"}, DI, R8, SI, DX, BX)
	lanes{asm: a, kind: kind}.each(BX, []reg{DI, R8, SI, DX}, func(l lanes) {
		l.load(at(SI, 0), l.v(0))
		l.load(at(DX, 0), l.v(1))
		l.op("VSUBPS", l.v(1), l.v(0), l.v(0))
		l.load(at(DI, 0), l.v(2))
		l.load(at(R8, 0), l.v(3))
		l.op("VADDPS", l.v(0), l.v(2), l.v(2))
		l.op("VFMADD231PS", l.v(0), l.v(0), l.v(3))
		l.store(l.v(2), at(DI, 0))
		l.store(l.v(3), at(R8, 0))
	})
	a.ret()
}

// ropeFunction emits the rotation of pairs (x, y) by angles.
func ropeFunction(a *asm, name string, kind byte) {
	a.function(name, "(x, y, cos, sin *float32, n int)", 40)
	a.arguments([]string{"x", "y", "cos", "sin", "n"}, SI, DI, DX, R8, BX)
	lanes{asm: a, kind: kind}.each(BX, []reg{SI, DI, DX, R8}, func(l lanes) {
		x, y, cos, sin, turned := l.v(0), l.v(1), l.v(2), l.v(3), l.v(4)
		l.load(at(SI, 0), x)
		l.load(at(DI, 0), y)
		l.load(at(DX, 0), cos)
		l.load(at(R8, 0), sin)
		l.op("VMULPS", sin, y, turned)
		l.op("VFMSUB231PS", cos, x, turned) // x·cos - y·sin
		l.op("VMULPS", sin, x, x)
		l.op("VFMADD231PS", cos, y, x) // y·cos + x·sin
		l.store(turned, at(SI, 0))
		l.store(x, at(DI, 0))
	})
	a.ret()
}

// softmaxFunctions emits the largest of x, NaN if there is one, and x = exp(x-c) with
// the sum of the results.
func softmaxFunctions(a *asm, level string, kind byte) {
	all := lanes{asm: a, kind: kind}
	a.function("maximum"+level, "(x *float32, n int) (top float32)", 20)
	a.arguments([]string{"x", "n"}, SI, BX)
	a.op("VMOVUPS", minusInf, all.v(0))
	a.zero(all.v(1))
	lanes{asm: a, kind: kind}.each(BX, []reg{SI}, func(l lanes) {
		l.loadOr(at(SI, 0), l.v(2), l.v(3), minusInf)
		l.op("VMAXPS", l.v(2), l.v(0), l.v(0))
		l.keepNaN(l.v(2), l.v(3), l.v(1))
	})
	all.fold("VMAXPS", all.v(0), all.v(3))
	all.fold("VADDPS", all.v(1), all.v(3))
	a.op("VADDSS", x(1), x(0), x(0))
	a.op("VMOVSS", x(0), argument("top", 16))
	a.ret()

	a.function("expSum"+level, "(x *float32, n int, c float32) (sum float32)", 28)
	a.arguments([]string{"x", "n"}, SI, BX)
	a.op("VBROADCASTSS", argument("c", 16), all.v(5))
	a.zero(all.v(6))
	all.hold(expWords).each(BX, []reg{SI}, func(l lanes) {
		l.loadOr(at(SI, 0), l.v(0), l.v(1), minusInf)
		l.op("VSUBPS", l.v(5), l.v(0), l.v(0))
		l.exp(l.v(0), l.v(1), l.v(2), l.v(3))
		l.op("VADDPS", l.v(0), l.v(6), l.v(6))
		l.store(l.v(0), at(SI, 0))
	})
	all.fold("VADDPS", all.v(6), all.v(0))
	a.op("VMOVSS", x(6), argument("sum", 24))
	a.ret()
}

// keepNaN adds to sum a NaN where v is one, and 0 elsewhere. It uses spare and K2.
func (l lanes) keepNaN(v, spare, sum vec) {
	if l.kind == 'Z' {
		l.op("VCMPPS", 3, v, v, mask(2))
		l.op("VADDPS", v, sum, mask(2), sum)
		return
	}
	l.op("VCMPPS", 3, v, v, spare)
	l.op("VANDPS", v, spare, spare)
	l.op("VADDPS", spare, sum, sum)
}

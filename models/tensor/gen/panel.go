package main

import "fmt"

// panelKernels emits the products of panels: for up to 12 rows and 2 panels of 16
// columns (AVX2: 6 rows and 1 panel)
//
//	c[i][j] = Σ_k a[i][k]·b[k][j]
//
// with one accumulator for each sum, added to what c holds if the call says so.
func panelKernels(a *asm) {
	panelFunction(a, "panelsAVX512", 'Z', 12, 2)
	panelFunction(a, "panelsAVX2", 'Y', 6, 1)
}

// The registers of a panel kernel, in the order of the fields of the call. The rows
// of a are addressed from four bases, each the first of three rows.
const (
	panelC      = DI
	panelCRow   = R8
	panelA      = SI
	panelARow   = R9
	panelB      = BX
	panelBNext  = R10 // bytes to the second panel
	panelSteps  = CX
	panelRows   = AX
	panelCount  = DX
	panelAdd    = R11
	panelThird  = R11 // rows 3, 6 and 9 of a, once panelAdd is read
	panelSixth  = R12
	panelNinth  = R13
	panelThrice = R15 // three rows of c
)

// panelFunction emits the function and, in it, a body for every number of rows and
// panels.
func panelFunction(a *asm, name string, kind byte, rows, count int) {
	a.function(name, "(c *panelCall)", 8)
	a.load("c", panelCount, panelC, panelCRow, panelA, panelARow, panelB, panelBNext, panelSteps, panelRows, panelAdd, panelCount)
	a.op("LEAQ", mem{base: panelCRow, index: panelCRow, scale: 2}, panelThrice)
	single := name + "single"
	if count > 1 {
		a.op("CMPQ", panelCount, 1)
		a.op("JEQ", single)
	}
	for n := count; n > 0; n-- {
		if n < count {
			a.label(single)
		}
		for r := rows; r > 1; r-- {
			a.op("CMPQ", panelRows, r)
			a.op("JEQ", fmt.Sprintf("rows%dx%d", r, n))
		}
		for r := 1; r <= rows; r++ {
			panelBody(a, kind, rows, r, n)
		}
	}
}

// panelBody emits the product of so many rows, of tileRows at most, and panels.
func panelBody(a *asm, kind byte, tileRows, rows, count int) {
	a.label(fmt.Sprintf("rows%dx%d", rows, count))
	perPanel := 64 / vec{kind: kind}.bytes() // vectors
	columns := count * perPanel
	sum := func(row, column int) vec { return vec{kind, row*columns + column} }
	weight := func(column int) vec { return vec{kind, rows*columns + column} }
	value := vec{kind, rows*columns + columns}

	// The sums begin at what c holds, or at 0.
	started := fmt.Sprintf("zero%dx%d", rows, count)
	loop := fmt.Sprintf("loop%dx%d", rows, count)
	for i := range rows * columns {
		a.zero(vec{kind, i})
	}
	a.op("TESTQ", panelAdd, panelAdd)
	a.op("JZ", started)
	a.op("MOVQ", panelC, panelSixth)
	panelSums(a, rows, func(row int, c mem) {
		for i := range columns {
			a.op("VMOVUPS", c.plus(i*vec{kind: kind}.bytes()), sum(row, i))
		}
	})
	a.label(started)
	bases := []reg{panelA, panelThird, panelSixth, panelNinth}[:(rows+2)/3]
	for i := 1; i < len(bases); i++ {
		a.op("LEAQ", mem{base: bases[i-1], index: panelARow, scale: 2}, bases[i])
		a.op("ADDQ", panelARow, bases[i])
	}
	step := func(k int) {
		for i := range columns {
			from := at(panelB, 64*k+i%perPanel*vec{kind: kind}.bytes())
			if i >= perPanel {
				from.index, from.scale = panelBNext, 1
			}
			a.op("VMOVUPS", from, weight(i))
		}
		for row := range rows {
			from := at(bases[row/3], 4*k)
			if row%3 > 0 {
				from.index, from.scale = panelARow, row%3
			}
			a.op("VBROADCASTSS", from, value)
			for i := range columns {
				a.op("VFMADD231PS", weight(i), value, sum(row, i))
			}
		}
	}
	advance := func(steps int) {
		for _, b := range bases {
			a.op("ADDQ", 4*steps, b)
		}
		a.op("ADDQ", 64*steps, panelB)
	}
	// Counting takes the place of products in the same units: a full tile takes four
	// steps at a time.
	if rows == tileRows {
		four := loop + "four"
		a.op("SUBQ", 4, panelSteps)
		a.op("JLT", four+"rest")
		a.label(four)
		for k := range 4 {
			step(k)
		}
		advance(4)
		a.op("SUBQ", 4, panelSteps)
		a.op("JGE", four)
		a.label(four + "rest")
		a.op("ADDQ", 4, panelSteps)
		a.op("JZ", loop+"done")
	}
	a.label(loop)
	step(0)
	advance(1)
	a.op("DECQ", panelSteps)
	a.op("JNZ", loop)
	a.label(loop + "done")
	a.op("MOVQ", panelC, panelSixth)
	panelSums(a, rows, func(row int, c mem) {
		for i := range columns {
			a.op("VMOVUPS", sum(row, i), c.plus(i*vec{kind: kind}.bytes()))
		}
	})
	a.ret()
}

// panelSums calls f with the address of each row of c, from panelSixth on.
func panelSums(a *asm, rows int, f func(row int, c mem)) {
	for row := range rows {
		c := mem{base: panelSixth}
		if row%3 > 0 {
			c.index, c.scale = panelCRow, row%3
		}
		if row > 0 && row%3 == 0 {
			a.op("ADDQ", panelThrice, panelSixth)
		}
		f(row, c)
	}
}

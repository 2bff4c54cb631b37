package main

import "fmt"

// panelKernels emits the products of panels: for up to four panels of 16 columns
// (AVX2: one), and as many rows as the registers have room for sums,
//
//	c[i][j] = Σ_k a[i][k]·b[k][j]
//
// with one accumulator for each sum, which begins at what c holds or at 0.
func panelKernels(a *asm) {
	panelFunction(a, "panelsAVX512", 'Z', []int{12, 12, 8, 6})
	panelFunction(a, "panelsAVX2", 'Y', []int{6})
}

// The registers of a panel kernel, first those of the fields of a call in their order.
// The rows of a are addressed from four bases, each the first of three rows.
const (
	panelC     = DI
	panelCRow  = R8
	panelA     = SI
	panelARow  = R9
	panelB     = BX
	panelBNext = R10 // bytes to the next panel
	panelSteps = CX
	panelRows  = AX
	panelAdd   = R11
	panelCount = DX

	panelBThrice = AX  // bytes to the panel after the next two
	panelThird   = R11 // rows 3, 6 and 9 of a
	panelSixth   = R12
	panelNinth   = R13
	panelCThrice = R15 // bytes of three rows of c
	panelCNow    = R12 // rows of c, before and after the sum
)

// panelFunction emits the function and, in it, a body for every number of panels and of
// rows, up to those listed for one panel, two and so on.
func panelFunction(a *asm, name string, kind byte, rows []int) {
	a.function(name, "(c *panelCall)", 8)
	a.load("c", panelCount, panelC, panelCRow, panelA, panelARow, panelB, panelBNext, panelSteps, panelRows, panelAdd, panelCount)
	a.op("LEAQ", mem{base: panelCRow, index: panelCRow, scale: 2}, panelCThrice)
	for n := 1; n < len(rows); n++ {
		a.op("CMPQ", panelCount, n)
		a.op("JEQ", fmt.Sprintf("panels%d", n))
	}
	for n := len(rows); n > 0; n-- {
		a.label(fmt.Sprintf("panels%d", n))
		for r := rows[n-1]; r > 1; r-- {
			a.op("CMPQ", panelRows, r)
			a.op("JEQ", panelTile{rows: r, panels: n}.label(""))
		}
		for r := 1; r <= rows[n-1]; r++ {
			panelTile{asm: a, kind: kind, rows: r, panels: n}.emit(r == rows[n-1])
		}
	}
}

// panelTile is the code for so many rows and panels.
type panelTile struct {
	*asm
	kind         byte
	rows, panels int
}

func (t panelTile) label(hint string) string {
	return fmt.Sprintf("rows%dx%d%s", t.rows, t.panels, hint)
}

func (t panelTile) v(n int) vec { return vec{t.kind, n} }

// columns returns the number of vectors that make a row of all panels.
func (t panelTile) columns() int { return t.panels * t.perPanel() }

func (t panelTile) perPanel() int { return 64 / t.v(0).bytes() }

func (t panelTile) sum(row, column int) vec { return t.v(row*t.columns() + column) }

// bases returns the registers that rows of a are addressed from.
func (t panelTile) bases() []reg {
	return []reg{panelA, panelThird, panelSixth, panelNinth}[:(t.rows+2)/3]
}

// emit writes the tile. Counting takes the place of products in the same units of the
// processor: a full tile takes four steps at a time.
func (t panelTile) emit(full bool) {
	t.asm.label(t.label(""))
	if t.panels > 3 {
		t.op("LEAQ", mem{base: panelBNext, index: panelBNext, scale: 2}, panelBThrice)
	}
	for i := range t.rows * t.columns() {
		t.zero(t.v(i))
	}
	t.op("TESTQ", panelAdd, panelAdd)
	t.op("JZ", t.label("zero"))
	t.sums(func(sum vec, c mem) { t.op("VMOVUPS", c, sum) })
	t.asm.label(t.label("zero"))
	for i, b := range t.bases()[1:] {
		t.op("LEAQ", mem{base: t.bases()[i], index: panelARow, scale: 2}, b)
		t.op("ADDQ", panelARow, b)
	}
	if full {
		t.op("SUBQ", 4, panelSteps)
		t.op("JLT", t.label("rest"))
		t.asm.label(t.label("four"))
		for k := range 4 {
			t.step(k)
		}
		t.advance(4)
		t.op("SUBQ", 4, panelSteps)
		t.op("JGE", t.label("four"))
		t.asm.label(t.label("rest"))
		t.op("ADDQ", 4, panelSteps)
		t.op("JZ", t.label("done"))
	}
	t.asm.label(t.label("one"))
	t.step(0)
	t.advance(1)
	t.op("DECQ", panelSteps)
	t.op("JNZ", t.label("one"))
	t.asm.label(t.label("done"))
	t.sums(func(sum vec, c mem) { t.op("VMOVUPS", sum, c) })
	t.ret()
}

// sums calls f with every sum and its place in c.
func (t panelTile) sums(f func(sum vec, c mem)) {
	t.op("MOVQ", panelC, panelCNow)
	for row := range t.rows {
		c := mem{base: panelCNow}
		if row%3 > 0 {
			c.index, c.scale = panelCRow, row%3
		} else if row > 0 {
			t.op("ADDQ", panelCThrice, panelCNow)
		}
		for i := range t.columns() {
			f(t.sum(row, i), c.plus(i*t.v(0).bytes()))
		}
	}
}

// step adds the products of the k-th of the steps that follow.
func (t panelTile) step(k int) {
	weight, value := t.rows*t.columns(), t.v((t.rows+1)*t.columns())
	for i := range t.columns() {
		from := at(panelB, 64*k+i%t.perPanel()*t.v(0).bytes())
		switch panel := i / t.perPanel(); panel {
		case 0:
		case 3:
			from.index, from.scale = panelBThrice, 1
		default:
			from.index, from.scale = panelBNext, panel
		}
		t.op("VMOVUPS", from, t.v(weight+i))
	}
	for row := range t.rows {
		from := at(t.bases()[row/3], 4*k)
		if row%3 > 0 {
			from.index, from.scale = panelARow, row%3
		}
		t.op("VBROADCASTSS", from, value)
		for i := range t.columns() {
			t.op("VFMADD231PS", t.v(weight+i), value, t.sum(row, i))
		}
	}
}

// advance moves on by so many steps.
func (t panelTile) advance(steps int) {
	for _, b := range t.bases() {
		t.op("ADDQ", 4*steps, b)
	}
	t.op("ADDQ", 64*steps, panelB)
}

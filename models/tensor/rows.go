package tensor

import "fmt"

// rowTask is an operation on independent rows of cols floats.
type rowTask struct {
	op      func(t *rowTask, lo, hi int) // on rows lo to hi-1
	level   Level
	y, x    []float32
	a, b    []float32
	eps     float32
	cols    int
	rows    int
	perPart int
	act     Activation
	heads   int
	headDim int
	index   []int
	share   int // rows of y that have a row of x in common
}

func (t *rowTask) part(i int) {
	lo := i * t.perPart
	t.op(t, lo, min(lo+t.perPart, t.rows))
}

// runRows runs the operation in parts of about partFloats elements.
func (e *Exec) runRows(t rowTask) {
	const partFloats = 1 << 15
	t.level = e.features.level
	t.perPart = max(1, partFloats/max(1, t.cols))
	e.rows = t
	e.run(&e.rows, (t.rows+t.perPart-1)/t.perPart)
}

func rowsOf(n, cols int, what string) int {
	if cols <= 0 || n%cols != 0 {
		panic(fmt.Sprintf("tensor: %s of %d floats in rows of %d", what, n, cols))
	}
	return n / cols
}

// Add computes y += x.
func (e *Exec) Add(y, x []float32) {
	if len(y) != len(x) {
		panic(fmt.Sprintf("tensor: add of %d floats to %d", len(x), len(y)))
	}
	e.runRows(rowTask{op: addRows, y: y, x: x, rows: len(x), cols: 1})
}

func addRows(t *rowTask, lo, hi int) { axpy(t.level, t.y[lo:hi], t.x[lo:hi], 1) }

// add computes y += x.
func add(y, x []float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] += x[i]
	}
}

// Softmax replaces each row of cols logits by its probabilities. A row of which no
// logit is above -Inf becomes NaN.
func (e *Exec) Softmax(x []float32, cols int) {
	e.runRows(rowTask{op: softmax, x: x, rows: rowsOf(len(x), cols, "softmax"), cols: cols})
}

func softmax(t *rowTask, lo, hi int) {
	for r := lo; r < hi; r++ {
		x := t.x[r*t.cols:][:t.cols]
		sum := expSum(t.level, x, maximum(t.level, x))
		scale(t.level, x, x, 1/sum)
	}
}

// RoPE rotates the pairs (i, i+n) of the first 2n components of every head of x
// [T, heads, headDim] by angles whose cosines and sines are [T, n] (Su et al. 2021,
// in the half-split order of Hugging Face).
func (e *Exec) RoPE(x, cos, sin []float32, heads, headDim int) {
	rows := rowsOf(len(x), heads*headDim, "rope")
	if len(cos) != len(sin) || rows == 0 || len(cos)%rows != 0 || 2*len(cos)/rows > headDim {
		panic(fmt.Sprintf("tensor: rope of [%d, %d, %d] by %d cosines and %d sines", rows, heads, headDim, len(cos), len(sin)))
	}
	e.runRows(rowTask{op: rope, x: x, a: cos, b: sin, rows: rows, cols: heads * headDim, heads: heads, headDim: headDim})
}

func rope(t *rowTask, lo, hi int) {
	n := len(t.a) / t.rows
	for r := lo; r < hi; r++ {
		cos, sin := t.a[r*n:][:n], t.b[r*n:][:n]
		for h := range t.heads {
			head := t.x[r*t.cols+h*t.headDim:]
			rotate(t.level, head[:n], head[n:2*n], cos, sin)
		}
	}
}

// Gather copies rows of x [_, cols]: row i of y is row index[i] of x.
func (e *Exec) Gather(y, x []float32, cols int, index []int) {
	checkIndex(len(y), len(x), cols, index)
	e.runRows(rowTask{op: gatherRows, y: y, x: x, index: index, rows: len(index), cols: cols})
}

func gatherRows(t *rowTask, lo, hi int) {
	for r := lo; r < hi; r++ {
		copy(t.y[r*t.cols:][:t.cols], t.x[t.index[r]*t.cols:])
	}
}

// ScatterAdd adds rows to those of y [_, cols]: row index[i] of y gets row i of x times
// weight[i]. No index may come twice.
func (e *Exec) ScatterAdd(y, x []float32, cols int, index []int, weight []float32) {
	checkIndex(len(x), len(y), cols, index)
	if len(weight) != len(index) {
		panic(fmt.Sprintf("tensor: %d rows with %d weights", len(index), len(weight)))
	}
	e.runRows(rowTask{op: scatterAddRows, y: y, x: x, a: weight, index: index, rows: len(index), cols: cols})
}

func scatterAddRows(t *rowTask, lo, hi int) {
	for r := lo; r < hi; r++ {
		axpy(t.level, t.y[t.index[r]*t.cols:][:t.cols], t.x[r*t.cols:][:t.cols], t.a[r])
	}
}

// checkIndex panics unless listed floats are the rows that index names among all.
func checkIndex(listed, all, cols int, index []int) {
	rows := rowsOf(all, cols, "table")
	if listed != len(index)*cols {
		panic(fmt.Sprintf("tensor: %d rows of %d in %d floats", len(index), cols, listed))
	}
	for _, r := range index {
		if r < 0 || r >= rows {
			panic(fmt.Sprintf("tensor: row %d of %d", r, rows))
		}
	}
}

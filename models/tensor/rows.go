package tensor

import (
	"fmt"
	"math"
)

// rowTask is an operation on independent rows of cols floats.
type rowTask struct {
	op      func(t *rowTask, lo, hi int) // on rows lo to hi-1
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
}

func (t *rowTask) part(i int) {
	lo := i * t.perPart
	t.op(t, lo, min(lo+t.perPart, t.rows))
}

// runRows runs the operation in parts of about partFloats elements.
func (e *Exec) runRows(t rowTask) {
	const partFloats = 1 << 13
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

// RMSNorm computes y = x / √(mean(x²) + eps) · weight for each row of len(weight)
// (Zhang and Sennrich 2019). y may be x.
func (e *Exec) RMSNorm(y, x, weight []float32, eps float32) {
	rows := rowsOf(len(x), len(weight), "norm")
	e.runRows(rowTask{op: rmsNorm, y: y[:len(x)], x: x, a: weight, eps: eps, rows: rows, cols: len(weight)})
}

func rmsNorm(t *rowTask, lo, hi int) {
	for r := lo; r < hi; r++ {
		x, y := t.x[r*t.cols:][:t.cols], t.y[r*t.cols:][:t.cols]
		_, squares := moments(x, 0)
		scale := float32(1 / math.Sqrt(squares/float64(t.cols)+float64(t.eps)))
		for i, w := range t.a {
			y[i] = x[i] * scale * w
		}
	}
}

// LayerNorm computes y = (x - mean) / √(variance + eps) · weight + bias for each
// row of len(weight) (Ba et al. 2016). bias may be nil; y may be x.
func (e *Exec) LayerNorm(y, x, weight, bias []float32, eps float32) {
	rows := rowsOf(len(x), len(weight), "norm")
	if bias != nil && len(bias) != len(weight) {
		panic(fmt.Sprintf("tensor: layer norm with %d weights and %d biases", len(weight), len(bias)))
	}
	e.runRows(rowTask{op: layerNorm, y: y[:len(x)], x: x, a: weight, b: bias, eps: eps, rows: rows, cols: len(weight), heads: 1})
}

// HeadLayerNorm is LayerNorm without bias over each head of x [T, heads, D] for
// itself, with the head's own weights of weight [heads, D]. y may be x.
func (e *Exec) HeadLayerNorm(y, x, weight []float32, heads int, eps float32) {
	dim := rowsOf(len(weight), heads, "norm")
	rowsOf(len(x), len(weight), "norm")
	e.runRows(rowTask{op: layerNorm, y: y[:len(x)], x: x, a: weight, eps: eps, rows: len(x) / dim, cols: dim, heads: heads})
}

func layerNorm(t *rowTask, lo, hi int) {
	n := float64(t.cols)
	for r := lo; r < hi; r++ {
		x, y := t.x[r*t.cols:][:t.cols], t.y[r*t.cols:][:t.cols]
		sum, _ := moments(x, 0)
		mean := float32(sum / n)
		_, squares := moments(x, mean)
		scale := float32(1 / math.Sqrt(squares/n+float64(t.eps)))
		for i, w := range t.a[r%t.heads*t.cols:][:t.cols] {
			y[i] = (x[i] - mean) * scale * w
		}
		if t.b != nil {
			add(y, t.b)
		}
	}
}

// moments returns Σ(x-c) and Σ(x-c)².
func moments(x []float32, c float32) (sum, squares float64) {
	var s, q [4]float64
	i := 0
	for ; i+4 <= len(x); i += 4 {
		v := x[i : i+4 : i+4]
		a, b, d, f := float64(v[0]-c), float64(v[1]-c), float64(v[2]-c), float64(v[3]-c)
		s[0], s[1], s[2], s[3] = s[0]+a, s[1]+b, s[2]+d, s[3]+f
		q[0], q[1], q[2], q[3] = q[0]+a*a, q[1]+b*b, q[2]+d*d, q[3]+f*f
	}
	for ; i < len(x); i++ {
		a := float64(x[i] - c)
		s[0], q[0] = s[0]+a, q[0]+a*a
	}
	return s[0] + s[1] + (s[2] + s[3]), q[0] + q[1] + (q[2] + q[3])
}

// Add computes y += x.
func (e *Exec) Add(y, x []float32) {
	if len(y) != len(x) {
		panic(fmt.Sprintf("tensor: add of %d floats to %d", len(x), len(y)))
	}
	e.runRows(rowTask{op: addRows, y: y, x: x, rows: len(x), cols: 1})
}

func addRows(t *rowTask, lo, hi int) { add(t.y[lo:hi], t.x[lo:hi]) }

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
		top := maximum(x)
		sum := expAll(x, top)
		for i := range x {
			x[i] /= sum
		}
	}
}

func maximum(x []float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		if v > top || v != v {
			top = v
		}
	}
	return top
}

// expAll replaces x by exp(x - c) and returns the sum.
func expAll(x []float32, c float32) float32 {
	var sum float32
	for i, v := range x {
		p := exp(v - c)
		x[i] = p
		sum += p
	}
	return sum
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
			first, second := head[:n], head[n:2*n]
			for i, a := range first {
				b := second[i]
				first[i] = a*cos[i] - b*sin[i]
				second[i] = b*cos[i] + a*sin[i]
			}
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
		y, w := t.y[t.index[r]*t.cols:][:t.cols], t.a[r]
		for i, v := range t.x[r*t.cols:][:t.cols] {
			y[i] += w * v
		}
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

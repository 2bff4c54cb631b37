package tensor

import "fmt"

// AddGated computes y += gate·x for each row of len(gate): the gated residual of
// transformers whose blocks begin as the identity (adaLN-Zero, Peebles and Xie 2022).
func (e *Exec) AddGated(y, x, gate []float32) {
	rows := rowsOf(len(y), len(gate), "gated rows")
	if len(x) != len(y) {
		panic(fmt.Sprintf("tensor: gated add of %d floats to %d", len(x), len(y)))
	}
	e.runRows(rowTask{op: addGated, y: y, x: x, a: gate, rows: rows, cols: len(gate)})
}

func addGated(t *rowTask, lo, hi int) {
	for r := lo; r < hi; r++ {
		addHadamard(t.level, t.y[r*t.cols:][:t.cols], t.x[r*t.cols:][:t.cols], t.a)
	}
}

// RoPEPairs rotates the neighbours (2i, 2i+1) of every head of x [T, heads, headDim] by
// angles whose cosines and sines are [T, headDim/2] (Su et al. 2021, in the order of the
// paper).
func (e *Exec) RoPEPairs(x, cos, sin []float32, heads, headDim int) {
	rows := rowsOf(len(x), heads*headDim, "rope")
	if len(cos) != len(sin) || 2*len(cos) != rows*headDim {
		panic(fmt.Sprintf("tensor: rope of pairs of [%d, %d, %d] by %d cosines and %d sines", rows, heads, headDim, len(cos), len(sin)))
	}
	e.runRows(rowTask{op: ropePairs, x: x, a: cos, b: sin, rows: rows, cols: heads * headDim, heads: heads, headDim: headDim})
}

func ropePairs(t *rowTask, lo, hi int) {
	n := t.headDim / 2
	for r := lo; r < hi; r++ {
		cos, sin := t.a[r*n:][:n], t.b[r*n:][:n]
		for h := range t.heads {
			head := t.x[r*t.cols+h*t.headDim:][:2*n]
			for i, c := range cos {
				s, u, v := sin[i], head[2*i], head[2*i+1]
				head[2*i], head[2*i+1] = u*c-v*s, u*s+v*c
			}
		}
	}
}

// PReLU computes x = max(x, 0) + slope·min(x, 0) for each row of len(slope) (He et al.
// 2015). Slopes that are all the same make a leaky ReLU.
func (e *Exec) PReLU(x, slope []float32) {
	e.runRows(rowTask{op: preluRows, y: x, a: slope, rows: rowsOf(len(x), len(slope), "slopes"), cols: len(slope)})
}

// preluRows computes slope·x + (1-slope)·max(x, 0), a few channels at a time.
func preluRows(t *rowTask, lo, hi int) {
	var above, rest [64]float32
	for c := 0; c < t.cols; c += len(above) {
		n := min(len(above), t.cols-c)
		slope, above, rest := affine{w: t.a[c:][:n], scale: 1}, above[:n], rest[:n]
		for i, s := range slope.w {
			rest[i] = 1 - s
		}
		for r := lo; r < hi; r++ {
			x := t.y[r*t.cols+c:][:n]
			activate(t.level, ReLU, above, x, nil)
			slope.apply(t.level, x, x)
			addHadamard(t.level, x, above, rest)
		}
	}
}

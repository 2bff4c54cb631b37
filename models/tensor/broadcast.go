package tensor

import "fmt"

// AddEach adds to every row of y [B, P, C] the row of its image in x [B, C].
func (e *Exec) AddEach(y, x []float32, channels int) {
	images := rowsOf(len(x), channels, "rows to add")
	rows := rowsOf(len(y), channels, "images")
	if images == 0 || rows%images != 0 {
		panic(fmt.Sprintf("tensor: %d rows to add to %d of %d images", images, rows, images))
	}
	e.runRows(rowTask{op: addEach, y: y, x: x, rows: rows, cols: channels, share: rows / images})
}

func addEach(t *rowTask, lo, hi int) {
	for r := lo; r < hi; r++ {
		axpy(t.level, t.y[r*t.cols:][:t.cols], t.x[r/t.share*t.cols:][:t.cols], 1)
	}
}

// Concat joins the channels of two images: row i of y [P, C+D] is row i of a [P, C] and
// row i of b [P, D]. y may not overlap them.
func (e *Exec) Concat(y, a, b []float32, rows int) {
	if rows <= 0 || len(a)%rows != 0 || len(b)%rows != 0 || len(y) != len(a)+len(b) {
		panic(fmt.Sprintf("tensor: %d and %d floats joined to %d, %d rows each", len(a), len(b), len(y), rows))
	}
	e.runRows(rowTask{op: concatRows, y: y, a: a, b: b, rows: rows, cols: len(y) / rows})
}

func concatRows(t *rowTask, lo, hi int) {
	first, second := len(t.a)/t.rows, len(t.b)/t.rows
	for r := lo; r < hi; r++ {
		y := t.y[r*t.cols:][:t.cols]
		copy(y[:first], t.a[r*first:])
		copy(y[first:], t.b[r*second:])
	}
}

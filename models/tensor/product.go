package tensor

import "fmt"

// Product is one matrix product Y = X·Wᵀ + Bias for activations X given beside it:
// Y is [T, W.Rows]; Bias is [W.Rows] or nil.
type Product struct {
	Y    []float32
	W    Matrix
	Bias []float32
}

// MatMul computes y = x·wᵀ + bias. x is [T, w.Cols], y is [T, w.Rows] and may not
// overlap x; bias is [w.Rows] or nil.
func (e *Exec) MatMul(y, x []float32, w Matrix, bias []float32) {
	e.MatMuls(x, Product{Y: y, W: w, Bias: bias})
}

// maxProducts is how many products one call may join: query, key and value.
const maxProducts = 3

// inlineWork is the number of multiplications below which waking another thread
// costs more than it saves.
const inlineWork = 1 << 16

// MatMuls computes up to three products of the same x in one go, which saves
// meeting points between threads. All weights have the same Cols.
func (e *Exec) MatMuls(x []float32, products ...Product) {
	p := &e.product
	if len(products) == 0 || len(products) > maxProducts {
		panic(fmt.Sprintf("tensor: %d products in one call", len(products)))
	}
	cols := products[0].W.Cols
	if cols == 0 || len(x)%cols != 0 {
		panic(fmt.Sprintf("tensor: %d activations do not divide into rows of %d", len(x), cols))
	}
	p.x, p.tokens, p.count, p.blocks = x, len(x)/cols, len(products), 0
	work := 0
	for i, q := range products {
		if q.W.Cols != cols || len(q.Y) != p.tokens*q.W.Rows || (q.Bias != nil && len(q.Bias) != q.W.Rows) {
			panic(fmt.Sprintf("tensor: product of [%d, %d] and [%d, %d]ᵀ into %d floats with %d biases",
				p.tokens, cols, q.W.Rows, q.W.Cols, len(q.Y), len(q.Bias)))
		}
		p.products[i] = q
		p.blocks += (q.W.Rows + blockRows - 1) / blockRows
		work += p.tokens * cols * q.W.Rows
	}
	if work < inlineWork {
		for i := range p.blocks {
			p.part(i)
		}
	} else {
		e.run(p, p.blocks)
	}
}

// productTask is a call of MatMuls. A part is a block of output columns.
type productTask struct {
	x        []float32
	tokens   int
	count    int
	blocks   int
	products [maxProducts]Product
}

// blockRows is the number of weight rows that make one part.
const blockRows = 32

func (p *productTask) part(block int) {
	for i := range p.count {
		q := &p.products[i]
		n := (q.W.Rows + blockRows - 1) / blockRows
		if block < n {
			lo := block * blockRows
			hi := min(lo+blockRows, q.W.Rows)
			multiply(q.Y[lo:], p.x, q.W.Slice(lo, hi), shape{tokens: p.tokens, yStride: q.W.Rows, xStride: q.W.Cols})
			if q.Bias != nil {
				addBias(q, p.tokens, lo, hi)
			}
			return
		}
		block -= n
	}
}

func addBias(q *Product, tokens, lo, hi int) {
	bias := q.Bias[lo:hi]
	for t := range tokens {
		y := q.Y[t*q.W.Rows+lo:]
		for i, b := range bias {
			y[i] += b
		}
	}
}

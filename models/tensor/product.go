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
//
// Weights of a block type multiply activations that are rounded, off by less than
// 1/127 of the largest magnitude a among each 32 of them: y differs from the product
// of the dequantised weights by less than Σ_k |w_k|·a_k/127 and the roundings to
// float32. It is the same, bit for bit, at every level.
func (e *Exec) MatMul(y, x []float32, w Matrix, bias []float32) {
	e.MatMuls(x, Product{Y: y, W: w, Bias: bias})
}

// maxProducts is how many products one call may join: query, key and value.
const maxProducts = 3

// inlineWork is the number of multiplications below which waking another thread
// costs more than it saves.
const inlineWork = 1 << 16

// MatMuls computes up to three products of the same x in one go, which prepares x
// once and saves meeting points between threads. All weights have the same Cols.
func (e *Exec) MatMuls(x []float32, products ...Product) {
	if len(products) == 0 || len(products) > maxProducts {
		panic(fmt.Sprintf("tensor: %d products in one call", len(products)))
	}
	cols := products[0].W.Cols
	if cols == 0 || len(x)%cols != 0 {
		panic(fmt.Sprintf("tensor: %d activations do not divide into rows of %d", len(x), cols))
	}
	tokens := len(x) / cols
	work := 0
	for i := range products {
		q := &products[i]
		if q.W.Cols != cols || len(q.Y) != tokens*q.W.Rows || (q.Bias != nil && len(q.Bias) != q.W.Rows) {
			panic(fmt.Sprintf("tensor: product of [%d, %d] and [%d, %d]ᵀ into %d floats with %d biases",
				tokens, cols, q.W.Rows, q.W.Cols, len(q.Y), len(q.Bias)))
		}
		work += tokens * cols * q.W.Rows
	}
	if work == 0 {
		return
	}
	threads := e.pool.Threads()
	if work < inlineWork {
		threads = 1
	}
	e.prepare.begin(x, cols, tokens)
	t := &e.product
	t.count = len(products)
	for i, q := range products {
		q.W = e.prepare.weights(i, q.W)
		k := e.kernel(q.W)
		t.factors[i] = factor{
			Product: q, kernel: k, operand: e.prepare.operand(k.form()), groups: ceilDiv(q.W.Rows, groupRows),
		}
	}
	t.divide(threads)
	e.runOn(threads, &e.prepare, e.prepare.parts())
	e.runOn(threads, t, len(t.pieces))
	clear(t.factors[:]) // an idle Exec keeps no weights alive
	e.prepare.end()
}

// runOn runs the task on the caller alone if threads is 1.
func (e *Exec) runOn(threads int, t task, parts int) {
	if threads > 1 {
		e.run(t, parts)
		return
	}
	for i := range parts {
		t.part(i)
	}
}

// form is how activations enter a kernel: laid out in strips of a few tokens, and
// rounded or quantised. Forms are comparable, and the products of a call that have
// the same form share the prepared activations. A form must not depend on the number
// of tokens or on their neighbours in any bit of a token's sum.
type form interface {
	// height returns the most tokens in a strip.
	height() int
	// bytes returns the memory of one prepared token, a multiple of 4.
	bytes(cols int) int
	// prepare writes a strip of tokens rows of x into dst of tokens·bytes(cols) bytes.
	prepare(dst []byte, x []float32, cols, tokens int)
}

// kernel multiplies weights of one type and layout on one set of instructions.
// Matrices divide into groups of groupRows rows.
type kernel interface {
	// form returns what the kernel takes.
	form() form
	// width returns the number of groups that go best together with so many tokens.
	width(tokens int) int
	// multiply computes the outputs of the piece.
	multiply(p piece)
}

// piece is a part of a product: some groups of rows by some strips of tokens.
type piece struct {
	*factor
	groups span
	strips span
}

// span is a range lo to hi-1.
type span struct{ lo, hi int }

// factor is one product of a call.
type factor struct {
	Product
	kernel  kernel
	operand *operand
	groups  int // of rows
}

// productTask is a call of MatMuls. A part is a piece of one of the products.
type productTask struct {
	count   int
	factors [maxProducts]factor
	pieces  []piece
}

func (t *productTask) part(i int) {
	p := &t.pieces[i]
	p.kernel.multiply(*p)
}

// divide cuts the products into pieces, which decides nothing that shows in the result.
func (t *productTask) divide(threads int) {
	t.pieces = t.pieces[:0]
	once := threads > 1 // all weights are read once, and by many threads
	for i := range t.count {
		once = once && t.factors[i].operand.strips == 1
	}
	if once {
		t.divideOnce(threads)
		return
	}
	for i := range t.count {
		t.divideEvenly(&t.factors[i], threads)
	}
}

// divideOnce cuts products whose weights are read once: into long runs of groups, which
// memory delivers best, and then ever shorter ones, so that all threads end together.
func (t *productTask) divideOnce(threads int) {
	left := 0
	for i := range t.count {
		left += t.factors[i].groups
	}
	for i := range t.count {
		f := &t.factors[i]
		width := f.kernel.width(f.operand.tokens)
		for g := 0; g < f.groups; {
			run := 3 * left / (4 * threads)
			n := min(max(run-run%width, width), f.groups-g)
			t.pieces = append(t.pieces, piece{f, span{g, g + n}, span{0, 1}})
			g, left = g+n, left-n
		}
	}
}

// divideEvenly cuts a product into pieces of as many groups as the kernel takes together,
// or some times as many, and no more tokens than stay in the cache next to the processor:
// first large ones and then ever smaller ones, so that all threads end together. Pieces
// that share weights follow one another.
func (t *productTask) divideEvenly(f *factor, threads int) {
	const (
		maxTokens = 256 // in a piece
		maxGroups = 24  // in a piece: a multiple of all that kernels take together
	)
	tokens, strips := f.operand.tokens, f.operand.strips
	across := ceilDiv(tokens, maxTokens) // pieces that share weights
	perStrips := ceilDiv(strips, across)
	width := f.kernel.width(ceilDiv(tokens, strips))
	for g := 0; g < f.groups; {
		perGroups := maxGroups
		if threads > 1 {
			perGroups = min(maxGroups, roundUp(ceilDiv((f.groups-g)*across, 2*threads), width))
		}
		for s := 0; s < strips; s += perStrips {
			t.pieces = append(t.pieces, piece{f, span{g, min(g+perGroups, f.groups)}, span{s, min(s+perStrips, strips)}})
		}
		g += perGroups
	}
}

// operand is activations prepared in one form: strips of tokens, one after another.
type operand struct {
	form         form
	x            []float32 // as they were given
	cols, tokens int
	strips       int
	data         []byte
}

// strip returns the tokens of strip i and its memory. Strips are as equal as can be, and
// never higher than the form's height.
func (o *operand) strip(i int) (tokens span, data []byte) {
	tokens = span{i * o.tokens / o.strips, (i + 1) * o.tokens / o.strips}
	size := o.form.bytes(o.cols)
	return tokens, o.data[tokens.lo*size : tokens.hi*size]
}

// prepareTask prepares what a call of MatMuls needs: the activations in all forms that
// its kernels take, and weights that are not packed. A part is one strip of one operand
// or some groups of one matrix. The memory is kept from call to call.
type prepareTask struct {
	x            []float32
	cols, tokens int
	count        int // of operands
	operands     [maxProducts]operand
	loose        [maxProducts]looseWeights
}

// looseWeights are packed for one call.
type looseWeights struct {
	from, to Matrix
	memory   []byte
}

// looseGroups is the number of groups that make a part.
const looseGroups = 8

func (l *looseWeights) parts() int { return ceilDiv(l.from.groups(), looseGroups) }

// begin takes new activations and forgets the operands.
func (p *prepareTask) begin(x []float32, cols, tokens int) {
	p.x, p.cols, p.tokens, p.count = x, cols, tokens, 0
}

// end lets go of what belongs to the caller.
func (p *prepareTask) end() {
	p.x = nil
	for i := range p.operands {
		p.operands[i].x = nil
		p.loose[i].from, p.loose[i].to = Matrix{}, Matrix{}
	}
}

// weights returns the weights of product i laid out for the kernels, as they will be
// once the task has run.
func (p *prepareTask) weights(i int, w Matrix) Matrix {
	if w.Packed() {
		return w
	}
	l := &p.loose[i]
	size := int(w.PackedBytes())
	if size > len(l.memory) {
		l.memory = alignedBytes(size)
	}
	l.from, l.to = w, Matrix{DType: w.DType, Rows: w.Rows, Cols: w.Cols, packed: l.memory[:size]}
	return l.to
}

// operand returns the activations in the form, as they will be once the task has run.
func (p *prepareTask) operand(f form) *operand {
	for i := range p.count {
		if p.operands[i].form == f {
			return &p.operands[i]
		}
	}
	o := &p.operands[p.count]
	p.count++
	// Tiles read whole ones of tokens, whatever the rows beyond the last hold.
	if size := roundUp(p.tokens, dotTileRows)*f.bytes(p.cols) + quantTokens*recordBytes; size > len(o.data) {
		o.data = alignedBytes(size)
	}
	o.form, o.x, o.cols, o.tokens, o.strips = f, p.x, p.cols, p.tokens, ceilDiv(p.tokens, f.height())
	return o
}

func (p *prepareTask) parts() int {
	n := 0
	for i := range p.count {
		n += p.operands[i].strips
	}
	for i := range p.loose {
		n += p.loose[i].parts()
	}
	return n
}

func (p *prepareTask) part(i int) {
	for n := range p.count {
		o := &p.operands[n]
		if i >= o.strips {
			i -= o.strips
			continue
		}
		tokens, data := o.strip(i)
		o.form.prepare(data, o.x[tokens.lo*o.cols:tokens.hi*o.cols], o.cols, tokens.hi-tokens.lo)
		return
	}
	for n := range p.loose {
		l := &p.loose[n]
		if parts := l.parts(); i >= parts {
			i -= parts
			continue
		}
		groups := span{i * looseGroups, min((i+1)*looseGroups, l.from.groups())}
		size := l.from.groupBytes()
		clear(l.to.packed[groups.lo*size : groups.hi*size])
		l.from.packGroups(l.to.packed, groups)
		return
	}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

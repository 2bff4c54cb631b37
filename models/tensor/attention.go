package tensor

import (
	"math"
	"sync/atomic"
)

// Attention is computed in tiles of rows × keys with a running maximum (Milakov and
// Gimelshein 2018; Dao et al. 2022), so that no row of scores is ever kept whole. A row
// is one query of one head; the heads that share keys make rows of one tile. Tiles begin
// at multiples of tileKeys, counted from the sequence's start, and a row takes them in
// ascending order whoever its neighbours are, so that its result has the same bits in
// every batch.
const (
	tileKeys   = 128 // keys scored at a time
	attendRows = 48  // rows of a part
)

// biases is what is added to scores: that of head h, query n of a span and key s is
// data[h*head+n*row+s].
type biases struct {
	data      []float32
	head, row int
}

// attention is a call of PagedAttention or Attention.
type attention struct {
	out, q []float32 // [T, heads, HeadDim]
	kv     KVPages
	spans  []Span
	level  Level
	heads  int
	window int
	scale  float32
	limit  float32 // of SoftCap, or 0
	keys   int     // every query sees so many keys; 0: those up to its own position
	bias   biases
}

// attendTask computes attention. A part takes blocks of rows from a queue: it stands
// for a thread, and has its own scratch.
type attendTask struct {
	attention
	blockRows int // at most attendRows
	blocks    int64
	next      atomic.Int64
	stop      *atomic.Bool    // of the job
	scratch   []attendScratch // a part
}

// attendScratch is the state of a block of rows.
type attendScratch struct {
	q        []float32           // [rows, D], scaled
	sums     []float32           // [rows, padded D], of values weighted so far
	p        []float32           // [rows, tileKeys], scores and then weights
	top      [attendRows]float32 // the largest score so far
	total    [attendRows]float32 // of the weights so far
	tops     [attendRows]float32 // of a tile
	tileSums [attendRows]float32
}

func (t *attendTask) run(e *Exec) {
	group := t.heads / t.kv.Heads
	rows, work := 0, 0
	for _, s := range t.spans {
		rows += s.Rows * t.heads
		work += s.Rows * t.heads * t.kv.HeadDim * max(s.Start+s.Rows, t.keys)
	}
	threads := e.pool.Threads()
	if work < inlineWork {
		threads = 1
	}
	// Heads that share keys are worth keeping together, unless threads would idle.
	t.blockRows = min(attendRows, max(1, (rows+threads-1)/threads))
	t.blocks = 0
	for _, s := range t.spans {
		t.blocks += int64(t.kv.Heads * ((s.Rows*group + t.blockRows - 1) / t.blockRows))
	}
	threads = int(min(int64(threads), t.blocks))
	for len(t.scratch) < threads {
		t.scratch = append(t.scratch, attendScratch{p: make([]float32, attendRows*tileKeys)})
	}
	for i := range t.scratch[:threads] {
		s := &t.scratch[i]
		s.q, s.sums = grown(s.q, attendRows*t.kv.HeadDim), grown(s.sums, attendRows*t.kv.paddedDim())
	}
	t.next.Store(0)
	t.stop = &e.job.stop
	if threads == 1 {
		t.part(0)
	} else {
		e.run(t, threads)
	}
}

// grown returns a slice of n floats, in the memory of x if there is room.
func grown(x []float32, n int) []float32 {
	if cap(x) < n {
		return make([]float32, n)
	}
	return x[:n]
}

func (t *attendTask) part(i int) {
	for {
		block := t.next.Add(1) - 1
		if block >= t.blocks || t.stop.Load() {
			return
		}
		t.block(&t.scratch[i], int(block))
	}
}

// rowBlock is rows lo to hi-1 of the queries of a span that share head kv: row r is
// query r/group of head kv*group + r%group.
type rowBlock struct {
	span       Span
	token      int // the span's first row of Q
	kv, lo, hi int
	group      int
}

// find returns block number i.
func (t *attendTask) find(i int) rowBlock {
	b := rowBlock{group: t.heads / t.kv.Heads}
	for _, s := range t.spans {
		rows := s.Rows * b.group
		n := (rows + t.blockRows - 1) / t.blockRows
		if i < n*t.kv.Heads {
			b.span, b.kv = s, i/n // blocks of the same keys follow one another
			b.lo = i % n * t.blockRows
			b.hi = min(b.lo+t.blockRows, rows)
			return b
		}
		i -= n * t.kv.Heads
		b.token += s.Rows
	}
	panic("tensor: attention has no such block")
}

// at returns where row r of the block lies in Q.
func (t *attendTask) at(b *rowBlock, r int) int {
	return ((b.token+r/b.group)*t.heads + b.kv*b.group + r%b.group) * t.kv.HeadDim
}

// sees returns the keys that query n of the span sees: lo to hi-1.
func (t *attendTask) sees(s *Span, n int) (lo, hi int) {
	hi = s.Start + n + 1
	if t.window > 0 {
		lo = max(0, hi-t.window)
	}
	if t.keys > 0 {
		hi = t.keys
	}
	return lo, hi
}

func (t *attendTask) block(s *attendScratch, i int) {
	b := t.find(i)
	rows, d, padded := b.hi-b.lo, t.kv.HeadDim, t.kv.paddedDim()
	for r := range rows {
		q := t.q[t.at(&b, b.lo+r):][:d]
		scale(t.level, s.q[r*d:], q, t.scale)
		s.top[r], s.total[r] = float32(math.Inf(-1)), 0
	}
	clear(s.sums[:rows*padded])
	first, _ := t.sees(&b.span, b.lo/b.group)
	_, last := t.sees(&b.span, (b.hi-1)/b.group)
	for key := first &^ (tileKeys - 1); key < last; key += tileKeys {
		w := keyRange{from: max(first, key) - key, to: min(last, key+tileKeys) - key}
		t.scores(s, &b, key, w)
		t.weigh(s, &b, key, w)
		t.gatherValues(s, &b, key, w)
	}
	for r := range rows {
		out := t.out[t.at(&b, b.lo+r):][:d]
		share := 1 / s.total[r]
		if s.total[r] == 0 { // it sees nothing
			share = 0
		}
		scale(t.level, out, s.sums[r*padded:][:d], share)
	}
}

// keyRange is the keys of a tile that some row of the block sees, from ≤ key < to.
type keyRange struct{ from, to int }

// page returns where, in K and V, the memory of a head begins that holds a position,
// and the position's place in its page.
func (t *attendTask) page(b *rowBlock, position int) (at, slot int) {
	page := int(b.span.Pages[position/t.kv.PageTokens])
	return page*t.kv.PageFloats() + b.kv*t.kv.headFloats(), position % t.kv.PageTokens
}

// scores computes q·k for the tile that begins at key.
func (t *attendTask) scores(s *attendScratch, b *rowBlock, key int, w keyRange) {
	d := t.kv.HeadDim
	for from := w.from &^ (panelWidth - 1); from < w.to; {
		at, slot := t.page(b, key+from)
		n := min(t.kv.PageTokens-slot, roundUp(w.to-from, panelWidth))
		p := panels{
			c: s.p[from:], cStride: tileKeys, a: s.q, aStride: d,
			b: t.kv.K[at+slot*d:], bStride: d * panelWidth,
			rows: b.hi - b.lo, cols: n, n: d,
		}
		p.multiply(t.level)
		from += n
	}
}

// weigh turns the scores of a tile into weights, after scaling what was summed so far
// to the new maximum.
func (t *attendTask) weigh(s *attendScratch, b *rowBlock, key int, w keyRange) {
	rows, padded, cols := b.hi-b.lo, t.kv.paddedDim(), roundUp(w.to, panelWidth)
	_, nearest := t.sees(&b.span, b.lo/b.group)
	farthest, _ := t.sees(&b.span, (b.hi-1)/b.group)
	if t.limit > 0 || t.bias.data != nil || key < farthest || key+cols > nearest {
		for r := range rows {
			t.finish(s.p[r*tileKeys:][:cols], b, b.lo+r, key)
		}
	}
	tops, sums := s.tops[:rows], s.tileSums[:rows]
	tileTops(t.level, tops, s.p, cols)
	for r, top := range tops {
		top = max(top, s.top[r])
		tops[r] = top
		switch {
		case top > s.top[r]:
			shrink := exp(s.top[r] - top)
			s.total[r] *= shrink
			scale(t.level, s.sums[r*padded:], s.sums[r*padded:][:padded], shrink)
			s.top[r] = top
		case math.IsInf(float64(top), -1): // all masked so far: the weights are 0
			tops[r] = 0
		default:
			s.top[r] = top // which may be NaN
		}
	}
	tileWeights(t.level, sums, s.p, tops, cols)
	for r, sum := range sums {
		s.total[r] += sum
	}
}

// finish does what is left to be done for a row of scores of the tile that begins at
// key: those that row r does not see become -Inf.
func (t *attendTask) finish(p []float32, b *rowBlock, r, key int) {
	n, minusInf := r/b.group, float32(math.Inf(-1))
	lo, hi := t.sees(&b.span, n)
	lo, hi = min(max(lo-key, 0), len(p)), max(min(hi-key, len(p)), 0)
	if t.limit > 0 && lo < hi {
		softCap(t.level, p[lo:hi], t.limit)
	}
	if t.bias.data != nil && lo < hi {
		head := b.kv*b.group + r%b.group
		axpy(t.level, p[lo:hi], t.bias.data[head*t.bias.head+n*t.bias.row+key+lo:][:hi-lo], 1)
	}
	for i := range p[:lo] {
		p[i] = minusInf
	}
	for i := range p[hi:] {
		p[hi+i] = minusInf
	}
}

// gatherValues adds the tile's values by their weights.
func (t *attendTask) gatherValues(s *attendScratch, b *rowBlock, key int, w keyRange) {
	padded := t.kv.paddedDim()
	for from := w.from; from < w.to; {
		at, slot := t.page(b, key+from)
		n := min(t.kv.PageTokens-slot, w.to-from)
		p := panels{
			c: s.sums, cStride: padded, a: s.p[from:], aStride: tileKeys,
			b: t.kv.V[at+slot*panelWidth:], bStride: t.kv.PageTokens * panelWidth,
			rows: b.hi - b.lo, cols: padded, n: n, add: true,
		}
		p.multiply(t.level)
		from += n
	}
}

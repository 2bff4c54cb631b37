//go:build !purego

package tensor

import "unsafe"

// The tiles of AMX multiply BF16 an order of magnitude faster than vectors do. One
// instruction takes 16 tokens, 16 weight rows and 32 columns; its order of sums is its
// own, so a product with BF16 weights takes the tiles for any number of tokens, or
// not at all.

const (
	tileTokens = 16   // rows of a tile of activations or sums
	tileBytes  = 1024 // of a whole tile
)

// tileConfig is the shapes of the eight tiles, as LDTILECFG reads them.
type tileConfig struct {
	palette  uint8
	_        [15]uint8 // where an interrupted load resumes, and reserved bytes
	rowBytes [16]uint16
	rows     [16]uint8
}

// newTileConfig has the shapes for row tiles of 1 to 16 rows: tiles 0 to 3 are sums, 4
// and 5 row tiles, 6 and 7 column tiles.
func newTileConfig(rows int) tileConfig {
	c := tileConfig{palette: 1}
	for i := range 8 {
		c.rowBytes[i], c.rows[i] = 64, uint8(rows)
	}
	c.rows[6], c.rows[7] = 16, 16
	return c
}

// tileCall is one call of a kernel. Distances are in bytes. The assembly knows the fields
// in this order.
type tileCall struct {
	config   *tileConfig
	a        *byte // row tiles of BF16 [rows][32]
	aNext    int   // from row tile to row tile
	aStep    int   // from step to step, of 32 columns
	b        *byte // column tiles of BF16 [16][16][2]; the steps follow one another
	bNext    int   // from column tile to column tile
	c, start tileSums
	steps    int
	rows     int    // row tiles
	ahead    int    // from b to what the next call has there; memory need not reach so far
	claim    int    // not 0: c is not in the cache
	_        [3]int // the kernel's own: where it is in a, c and start, at last behind them
}

// run multiplies with one or two column tiles.
func (c *tileCall) run(columns int) {
	if columns == 2 {
		tilesBF16x2(c)
	} else {
		tilesBF16x1(c)
	}
}

// tileSums is where the sums of tiles lie. Distances may be 0 where they begin.
type tileSums struct {
	at     *float32
	row    int // from row to row
	next   int // from row tile to row tile
	column int // from column tile to column tile
}

//go:noescape
func tilesBF16x2(c *tileCall)

//go:noescape
func tilesBF16x1(c *tileCall)

// tileKernel multiplies packed BF16 matrices of a whole number of tiles of columns.
type tileKernel struct{}

func newTileKernel() kernel { return tileKernel{} }

func (tileKernel) form() form { return tileStrips{} }

func (tileKernel) width(int) int { return tileGroups }

const (
	tileGroups = 2   // groups of weight rows taken together
	tileStrip  = 128 // tokens in a strip

	// tileDepth is the most steps summed before the next ones: so many of two groups of
	// weights stay in the first cache while a strip passes.
	tileDepth = 20

	tileResident = 1 << 20 // bytes of activations that stay in the second cache
)

// multiply lets some strips pass two groups of weights after another.
func (tileKernel) multiply(p piece) {
	var partial [tileStrip*tileGroups*groupRows + alignment/4]float32
	t := tileStripProduct{piece: &p, partial: onLine(&partial[0])}
	run := max(1, tileResident/(tileStrip*tileStrips{}.bytes(p.W.Cols)))
	for lo := p.strips.lo; lo < p.strips.hi; lo += run {
		for g := p.groups.lo; g < p.groups.hi; g += tileGroups {
			t.group, t.columns = g, min(tileGroups, p.groups.hi-g)
			for s := lo; s < min(lo+run, p.strips.hi); s++ {
				t.multiply(s)
			}
		}
	}
}

// tileStripProduct is the product of a strip and one or two groups. Where the sums of
// some steps wait for those of the next, and where Y has no room for all rows of the
// last group, they lie beside Y, [tokens][2][16].
type tileStripProduct struct {
	*piece
	group, columns int
	partial        *float32
}

func (t *tileStripProduct) multiply(strip int) {
	tokens, x := t.operand.strip(strip)
	rows, first, steps := t.W.Rows, t.group*groupRows, t.W.Cols/tileColumns
	n, whole := tokens.hi-tokens.lo, rows-first >= t.columns*groupRows
	beside := tileSums{t.partial, 4 * tileGroups * groupRows, 4 * tileTokens * tileGroups * groupRows, 4 * groupRows}
	var none [groupRows]float32
	from := tileSums{at: &none[0]}
	var bias [tileGroups * groupRows]float32
	if t.Bias != nil {
		copy(bias[:], t.Bias[first:])
		from = tileSums{at: &bias[0], column: 4 * groupRows}
	}
	depth := steps // of a run of steps: all of them where weights are not used again
	if n > 2*tileTokens {
		depth = ceilDiv(steps, ceilDiv(steps, tileDepth))
	}
	for at := 0; at < steps; at += depth {
		to := beside
		last := at+depth >= steps
		if last && whole {
			to = tileSums{&t.Y[tokens.lo*rows+first], 4 * rows, 4 * rows * tileTokens, 4 * groupRows}
		}
		t.steps(x, n, span{at, min(at+depth, steps)}, from, to)
		from = beside
	}
	if whole {
		return
	}
	sums := unsafe.Slice(t.partial, n*tileGroups*groupRows)
	for i := range n {
		copy(t.Y[(tokens.lo+i)*rows+first:(tokens.lo+i+1)*rows], sums[i*tileGroups*groupRows:])
	}
}

// steps adds up some steps of n tokens: whole tiles of them, and one of those left.
func (t *tileStripProduct) steps(x []byte, n int, steps span, from, to tileSums) {
	size, rowBytes := t.W.groupBytes(), tileStrips{}.bytes(t.W.Cols)
	b := &t.W.packed[t.group*size+steps.lo*tileBytes]
	c := tileCall{b: b, bNext: size, steps: steps.hi - steps.lo, start: from, c: to}
	c.ahead = c.steps * tileBytes
	if steps.hi*tileColumns == t.W.Cols { // the next groups
		c.ahead = tileGroups*size - steps.lo*tileBytes
	}
	if to.at != t.partial {
		c.claim = 1
	}
	whole, left := n/tileTokens, n%tileTokens
	if whole > 0 {
		config := newTileConfig(tileTokens)
		call := c
		call.config, call.rows = &config, whole
		call.a, call.aNext, call.aStep = &x[steps.lo*tileBytes], tileTokens*rowBytes, tileBytes
		call.run(t.columns)
	}
	if left > 0 {
		config := newTileConfig(left)
		c.config, c.rows = &config, 1
		step := left * 2 * tileColumns
		c.a, c.aStep = &x[whole*tileTokens*rowBytes+steps.lo*step], step
		c.c.at, c.start.at = after(to.at, whole*to.next), after(from.at, whole*from.next)
		c.run(t.columns)
	}
}

// tileStrips are activations rounded to BF16 in tiles of 16 tokens, the last of those
// left, and 32 columns, [tokens/16][cols/32][16][32].
type tileStrips struct{}

func (tileStrips) height() int        { return tileStrip }
func (tileStrips) bytes(cols int) int { return 2 * cols }

func (s tileStrips) prepare(dst []byte, x []float32, cols, tokens int) {
	for t := 0; t < tokens; t += tileTokens {
		rows := min(tileTokens, tokens-t)
		roundTilesAVX512(&dst[t*s.bytes(cols)], &x[t*cols], 4*cols, rows, cols/tileColumns)
	}
}

// roundTilesAVX512 rounds rows of x, stride bytes apart, to BF16 in row tiles,
// [steps][rows][32].
//
//go:noescape
func roundTilesAVX512(dst *byte, x *float32, stride, rows, steps int)

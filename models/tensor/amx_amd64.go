//go:build !purego

package tensor

import "unsafe"

// The tiles of AMX multiply BF16 an order of magnitude faster than vectors do. One
// instruction takes 16 tokens, 16 weight rows and 32 columns; its order of sums is its
// own, so a product with BF16 weights takes the tiles for any number of tokens, or
// not at all.

const (
	tileTokens = 16 // rows of a tile of activations or sums
	tileGroups = 4  // groups of weight rows in a call for few tokens
)

// tileConfig is the shapes of the eight tiles, as LDTILECFG reads them.
type tileConfig struct {
	palette  uint8
	_        [15]uint8 // where an interrupted load resumes, and reserved bytes
	rowBytes [16]uint16
	rows     [16]uint8
}

// tileConfigFor has the shapes for 1 to 32 tokens: tiles 0 to 3 are sums, 4 and 5
// activations, the rest weights; up to 16 tokens tile 5 is weights too.
func tileConfigFor(tokens int) tileConfig {
	c := tileConfig{palette: 1}
	for i := range 8 {
		c.rowBytes[i], c.rows[i] = 64, 16
	}
	first := uint8(min(tokens, tileTokens))
	c.rows[0], c.rows[1], c.rows[4] = first, first, first
	if second := uint8(max(0, tokens-tileTokens)); second > 0 {
		c.rows[2], c.rows[3], c.rows[5] = second, second, second
	} else {
		c.rows[2], c.rows[3] = first, first
	}
	return c
}

// tileCall is one call of a kernel. The assembly reads the fields in this order.
type tileCall struct {
	config  *tileConfig
	x       *uint16 // BF16 [tokens, 32·steps]
	xStride int     // bytes from token to token
	y       *float32
	yStride int     // bytes from token to token
	w       *uint16 // groups of BF16 [16·steps, 16, 2]
	wStride int     // bytes from group to group
	steps   int
	add     int // not 0: to what y holds
}

//go:noescape
func tiles16x4(c *tileCall)

//go:noescape
func tiles16x1(c *tileCall)

//go:noescape
func tiles32x2(c *tileCall)

//go:noescape
func tiles32x1(c *tileCall)

// run takes the first of groups groups with a kernel for so many tokens and returns
// how many it took.
func (c *tileCall) run(tokens, groups int) int {
	switch {
	case tokens > tileTokens && groups >= 2:
		tiles32x2(c)
		return 2
	case tokens > tileTokens:
		tiles32x1(c)
		return 1
	case groups >= tileGroups:
		tiles16x4(c)
		return tileGroups
	}
	tiles16x1(c)
	return 1
}

// tileKernel multiplies packed BF16 matrices of a whole number of tiles of columns.
type tileKernel struct{}

func newTileKernel() kernel { return tileKernel{} }

func (tileKernel) form() form { return tileStrips{} }

func (tileKernel) width(int) int { return tileGroups }

// multiply lets the strips pass a few groups of weights while those are in the cache.
func (k tileKernel) multiply(p piece) {
	var config tileConfig
	shaped := 0 // tokens that config is for
	var sums [2 * tileTokens * groupRows]float32
	rows, size, whole := p.W.Rows, p.W.groupBytes(), min(p.groups.hi, p.W.Rows/groupRows)
	c := tileCall{config: &config, xStride: tileStrips{}.bytes(p.W.Cols), yStride: 4 * rows, wStride: size, steps: p.W.Cols / tileColumns}
	for g := p.groups.lo; g < whole; {
		n := 0
		for s := p.strips.lo; s < p.strips.hi; s++ {
			tokens, x := p.operand.strip(s)
			if n := tokens.hi - tokens.lo; n != shaped {
				config, shaped = tileConfigFor(n), n
			}
			c.x, c.w = (*uint16)(unsafe.Pointer(&x[0])), (*uint16)(unsafe.Pointer(&p.W.packed[g*size]))
			y := p.Y[tokens.lo*rows+g*groupRows : tokens.hi*rows]
			c.y = &y[0]
			n = c.run(tokens.hi-tokens.lo, whole-g)
			addRowsBias(y, rows, p.Bias, span{g * groupRows, (g + n) * groupRows})
		}
		g += n
	}
	if whole == p.groups.hi {
		return
	}
	at := whole * groupRows
	c.w, c.y, c.yStride = (*uint16)(unsafe.Pointer(&p.W.packed[whole*size])), &sums[0], 4*groupRows
	for s := p.strips.lo; s < p.strips.hi; s++ { // Y has no room for all rows of the last group
		tokens, x := p.operand.strip(s)
		config = tileConfigFor(tokens.hi - tokens.lo)
		c.x = (*uint16)(unsafe.Pointer(&x[0]))
		c.run(tokens.hi-tokens.lo, 1)
		y := p.Y[tokens.lo*rows : tokens.hi*rows]
		for t := range tokens.hi - tokens.lo {
			copy(y[t*rows+at:(t+1)*rows], sums[t*groupRows:])
		}
		addRowsBias(y[at:], rows, p.Bias, span{at, rows})
	}
}

// addRowsBias adds the biases of some outputs to y, whose rows begin with the first of
// them and are stride apart.
func addRowsBias(y []float32, stride int, bias []float32, outputs span) {
	if bias == nil {
		return
	}
	bias = bias[outputs.lo:outputs.hi]
	for ; len(y) >= len(bias); y = y[min(stride, len(y)):] {
		add(y[:len(bias)], bias)
	}
}

// tileStrips are activations rounded to BF16, [tokens, cols] and a line of the cache
// between tokens, lest those of a tile have the same place in the cache.
type tileStrips struct{}

func (tileStrips) height() int        { return 2 * tileTokens }
func (tileStrips) bytes(cols int) int { return 2*cols + alignment }

func (s tileStrips) prepare(dst []byte, x []float32, cols, tokens int) {
	for t := range tokens {
		roundRow(cast[uint16](dst[t*s.bytes(cols):][:2*cols]), x[t*cols:][:cols], 8)
	}
}

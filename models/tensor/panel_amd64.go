//go:build !purego

package tensor

// panelCall is one call of a panel kernel. Strides are in bytes. The fields are in the order that the kernels know.
type panelCall struct {
	c      *float32
	cRow   int
	a      *float32
	aRow   int
	b      *float32
	bNext  int // from a panel to the next
	n      int // at least 1
	rows   int
	add    int // 1: to what c holds
	panels int
}

// The rows that the kernels take with one panel, two and so on.
var (
	panelRowsAVX512 = [...]int{12, 12, 8, 6}
	panelRowsAVX2   = [...]int{6}
)

//go:noescape
func panelsAVX512(c *panelCall)

//go:noescape
func panelsAVX2(c *panelCall)

// multiply computes the product with the instructions of a level.
func (p *panels) multiply(l Level) {
	if p.rows == 0 || p.cols == 0 {
		return
	}
	p.check()
	if l < AVX2 || p.n == 0 {
		p.multiplyGeneric()
		return
	}
	tileRows := panelRowsAVX2[:]
	if l >= AVX512 {
		tileRows = panelRowsAVX512[:]
	}
	c := panelCall{cRow: 4 * p.cStride, aRow: 4 * p.aStride, bNext: 4 * p.bStride, n: p.n}
	if p.add {
		c.add = 1
	}
	for j := 0; j < p.cols/panelWidth; j += c.panels {
		c.panels = min(len(tileRows), p.cols/panelWidth-j)
		c.b = &p.b[j*p.bStride]
		step := tileRows[c.panels-1]
		for i := 0; i < p.rows; i += step {
			c.rows = min(step, p.rows-i)
			c.c, c.a = &p.c[i*p.cStride+j*panelWidth], &p.a[i*p.aStride]
			if l >= AVX512 {
				panelsAVX512(&c)
			} else {
				panelsAVX2(&c)
			}
		}
	}
}

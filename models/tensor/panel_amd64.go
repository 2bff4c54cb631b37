//go:build !purego

package tensor

// panelCall is one call of a panel kernel: up to panelTileRows rows and two panels (one
// with AVX2). Strides are in bytes. The fields are in the order that the kernels know.
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
	tileRows, tilePanels := 6, 1
	if l >= AVX512 {
		tileRows, tilePanels = 12, 2
	}
	c := panelCall{cRow: 4 * p.cStride, aRow: 4 * p.aStride, bNext: 4 * p.bStride, n: p.n}
	if p.add {
		c.add = 1
	}
	for j := 0; j < p.cols/panelWidth; j += tilePanels {
		c.panels = min(tilePanels, p.cols/panelWidth-j)
		c.b = &p.b[j*p.bStride]
		for i := 0; i < p.rows; i += tileRows {
			c.rows = min(tileRows, p.rows-i)
			c.c, c.a = &p.c[i*p.cStride+j*panelWidth], &p.a[i*p.aStride]
			if l >= AVX512 {
				panelsAVX512(&c)
			} else {
				panelsAVX2(&c)
			}
		}
	}
}

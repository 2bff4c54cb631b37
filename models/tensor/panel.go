package tensor

// panelWidth is the number of columns that lie side by side in a panel: what one
// vector of AVX-512 holds, and two of AVX2.
const panelWidth = 16

// panels is a product over panels: c[i][j] = Σ_k a[i][k]·b[k][j], where b lies in
// panels of 16 columns, [cols/16, n, 16]. Attention and convolution are made of it.
//
// Each sum is taken by one accumulator in ascending k, whatever the shape of the call,
// and so may be cut over k into calls that add: the bits are the same.
type panels struct {
	c       []float32 // row i starts at i*cStride
	cStride int
	a       []float32 // row i starts at i*aStride
	aStride int
	b       []float32 // panel j starts at j*bStride
	bStride int
	rows    int
	cols    int  // a multiple of 16
	n       int  // length of a sum
	add     bool // to what c holds
}

// check panics unless every element that the product touches is there. Assembly
// relies on it.
func (p *panels) check() {
	if p.rows == 0 || p.cols == 0 {
		return
	}
	_ = p.c[(p.rows-1)*p.cStride+p.cols-1]
	if p.n > 0 {
		_ = p.a[(p.rows-1)*p.aStride+p.n-1]
		_ = p.b[(p.cols/panelWidth-1)*p.bStride+p.n*panelWidth-1]
	}
}

// multiplyGeneric is the specification, and what runs where there is no assembly.
func (p *panels) multiplyGeneric() {
	for j := range p.cols / panelWidth {
		b := p.b[j*p.bStride:][:p.n*panelWidth]
		for i := range p.rows {
			c := p.c[i*p.cStride+j*panelWidth:][:panelWidth]
			if !p.add {
				clear(c)
			}
			panelRow((*[panelWidth]float32)(c), p.a[i*p.aStride:][:p.n], b)
		}
	}
}

// panelRow adds to c the rows of b weighted by a.
func panelRow(c *[panelWidth]float32, a, b []float32) {
	for len(a) > 0 && len(b) >= panelWidth {
		w, row := a[0], (*[panelWidth]float32)(b)
		for l := range c {
			c[l] += w * row[l]
		}
		a, b = a[1:], b[panelWidth:]
	}
}

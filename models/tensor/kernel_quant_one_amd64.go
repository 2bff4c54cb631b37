//go:build !purego

package tensor

//go:noescape
func multiplyQ8_0One(t *quantRun)

//go:noescape
func multiplyQ4_0One(t *quantRun)

//go:noescape
func multiplyQ4_1One(t *quantRun)

//go:noescape
func multiplyQ5_0One(t *quantRun)

//go:noescape
func multiplyQ5_1One(t *quantRun)

//go:noescape
func multiplyQ4_KOne(t *quantRun)

//go:noescape
func multiplyQ5_KOne(t *quantRun)

//go:noescape
func multiplyQ6_KOne(t *quantRun)

// quantRun is one call of a kernel for a single token: a group of rows.
type quantRun struct {
	y    *float32
	bias *float32
	x    *byte // records

	levels, high, scales, supers *byte // planes of the group

	next  int // bytes to the group that comes next and is fetched meanwhile, or 0
	steps int // of 32 columns
}

// multiplyOne computes the outputs of the piece if it is of a single token and there are
// kernels for that.
func (k *quantKernel) multiplyOne(p piece) bool {
	if p.operand.tokens > 1 || k.level < AVX512 {
		return false
	}
	var none [groupRows]float32
	l := newQuantLayout(k.dtype, p.W.Cols)
	t := quantRun{x: &p.operand.data[0], steps: p.W.Cols / quantStep, next: l.size}
	for g := p.groups.lo; g < p.groups.hi; g++ {
		t.levels = &p.W.packed[g*l.size]
		t.high, t.scales, t.supers = after(t.levels, l.atHigh), after(t.levels, l.atScales), after(t.levels, l.atSupers)
		if g+1 == p.groups.hi {
			t.next = 0
		}
		row := g * groupRows
		if row+groupRows > p.W.Rows { // beside Y
			var y, bias [groupRows]float32
			if p.Bias != nil {
				copy(bias[:], p.Bias[row:])
			}
			t.y, t.bias = &y[0], &bias[0]
			k.runOne(&t)
			copy(p.Y[row:], y[:])
			break
		}
		t.y, t.bias = &p.Y[row], &none[0]
		if p.Bias != nil {
			t.bias = &p.Bias[row]
		}
		k.runOne(&t)
	}
	return true
}

func (k *quantKernel) runOne(t *quantRun) {
	switch k.dtype {
	case Q8_0:
		multiplyQ8_0One(t)
	case Q4_0:
		multiplyQ4_0One(t)
	case Q4_1:
		multiplyQ4_1One(t)
	case Q5_0:
		multiplyQ5_0One(t)
	case Q5_1:
		multiplyQ5_1One(t)
	case Q4_K:
		multiplyQ4_KOne(t)
	case Q5_K:
		multiplyQ5_KOne(t)
	case Q6_K:
		multiplyQ6_KOne(t)
	}
}

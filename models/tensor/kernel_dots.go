package tensor

import (
	"math"
	"unsafe"
)

// A dot kernel multiplies some rows of prepared activations, a pixel or token each, with
// two groups of 16 weight rows over one run of columns, and adds what comes out to sums
// of float32. Convolutions call it for every tap and run, products for every run.
//
// There are two kinds: bytes, for weights of type I8, and pairs of BF16.

// The number of rows whose sums are kept at a time, a multiple of what all kernels take
// together: with two groups they stay in the cache next to the processor, where those of
// bytes leave room for sums of integers.
const (
	dotRows  = 192
	byteTall = 96
)

const (
	dotGroups   = 2
	dotColumns  = dotGroups * groupRows
	dotTileRows = 32 // rows that the tiles of AMX take: others are computed beside them
)

// dotCall is one call of a dot kernel. The assembly reads the fields in this order.
type dotCall struct {
	sums    *float32
	sumsRow int   // bytes from row to row
	x       *byte // the run of the first row
	xRow    int   // bytes from row to row
	w       *byte // the run of the first group
	wNext   int   // bytes to the second group; 0 if there is none: its sums mean nothing then
	steps   int   // of 4 bytes of a row
	rows    int   // AMX computes multiples of dotTileRows
	add     int   // 1: to what sums hold
	starts  *int32
	scale   int   // bytes from the run of a row to its scale
	scratch *byte // of dotScratch bytes, for AMX
}

// dotScratch is the memory of two tiles' sums.
const dotScratch = 2 * dotTileRows * dotColumns * 4

// Weights of type I8 are signed bytes with a scale for each row: the product is
//
//	y_r = bias_r + scale_r·Σ_j s_j·Σ_k q_k·w_rk
//
// over runs j of columns, up to byteRun of them, whose activations share the scale s_j =
// max|x|/127 and are rounded to q = x/s_j. The inner sum is exact; it becomes a float32
// without rounding and is added by a fused multiplication to that of the runs before. It
// is the same, bit for bit, at every level. An activation is off by at most s_j/2; those
// of a run in which one is infinite or no number make all outputs NaN, and those of a run
// whose largest is below 2^-100 count as 0.

const (
	byteRun  = 320 // at most: sums stay below 2^24, and few channels suffer from a large one
	byteStep = 64  // columns are filled up with zeros to a multiple of them
)

// byteLayout is how a packed matrix of I8, or a convolution of so many taps, is laid out:
// for every group [taps, depth/4, 16, 4] weights, [taps, runs, 16] starts, which are -128
// times the sum of the weights of the run, and [16] scales.
type byteLayout struct {
	cols, taps int
	depth      int // columns of a tap with what they are filled up by
	run, runs  int // columns of a run, and runs of a tap; the last may be shorter
	size       int // bytes of a group
}

func newByteLayout(cols, taps int) byteLayout {
	l := byteLayout{cols: cols, taps: taps, depth: roundUp(cols, byteStep)}
	l.run = roundUp(ceilDiv(cols, ceilDiv(cols, byteRun)), byteStep)
	l.runs = ceilDiv(cols, l.run)
	l.size = taps*l.depth*groupRows + 4*groupRows*(taps*l.runs+1)
	return l
}

// starts returns where the starts of a tap's runs are in a group.
func (l *byteLayout) starts(tap int) int {
	return l.taps*l.depth*groupRows + 4*groupRows*tap*l.runs
}

// scales returns where the scales are in a group.
func (l *byteLayout) scales() int { return l.starts(l.taps) }

// pack writes a group of zeros: values is [taps, cols, 16].
func (l *byteLayout) pack(dst []byte, values []float32) {
	var top, inverse [groupRows]float32
	for i, v := range values {
		top[i%groupRows] = max(top[i%groupRows], float32(math.Abs(float64(v))))
	}
	scales := cast[float32](dst[l.scales():l.size])
	for r, m := range top {
		scales[r], inverse[r] = byteScale(m)
	}
	starts := cast[int32](dst[l.starts(0):l.scales()])
	for tap := range l.taps {
		for k := range l.cols {
			row := values[(tap*l.cols+k)*groupRows:][:groupRows]
			out := dst[(tap*l.depth+k&^3)*groupRows+k&3:]
			start := starts[(tap*l.runs+k/l.run)*groupRows:][:groupRows]
			for r, v := range row {
				q := byteOf(v, inverse[r])
				out[4*r] = uint8(q)
				start[r] -= 128 * int32(q)
			}
		}
	}
}

// unpackRow writes row r of a group of a matrix.
func (l *byteLayout) unpackRow(dst []float32, group []byte, r int) {
	scale := cast[float32](group[l.scales():l.size])[r]
	for k := range dst {
		dst[k] = scale * float32(int8(group[k&^3*groupRows+4*r+k&3]))
	}
}

// byteScale returns the scale of values up to a magnitude, and its inverse.
func byteScale(magnitude float32) (scale, inverse float32) {
	const least = 0x1p-100
	switch {
	case magnitude < least:
		return 0, 0
	case magnitude > math.MaxFloat32 || magnitude != magnitude:
		return float32(math.NaN()), 0
	}
	return magnitude / 127, 127 / magnitude
}

func byteOf(v, inverse float32) int8 {
	q := math.RoundToEven(float64(v * inverse))
	if !(q >= -127 && q <= 127) { // no number
		return 0
	}
	return int8(q)
}

// byteRows are activations as bytes, for one set of instructions: a row is depth bytes
// and the scales of its runs.
type byteRows struct {
	level  Level
	offset bool // bytes are 128 more than they stand for, as VNNI multiplies them
}

func newByteRows(f features) byteRows {
	return byteRows{level: f.level, offset: f.level >= AVX512 && !f.tiles}
}

// height is that of a strip of tokens.
func (byteRows) height() int { return byteTall }

func (byteRows) bytes(cols int) int {
	l := newByteLayout(cols, 1)
	return l.depth + roundUp(4*l.runs, alignment)
}

func (f byteRows) prepare(dst []byte, x []float32, cols, tokens int) {
	f.rows(dst[:tokens*f.bytes(cols)], x, cols, cols)
}

// rows fills dst with rows of cols floats, stride apart.
func (f byteRows) rows(dst []byte, x []float32, cols, stride int) {
	l, size := newByteLayout(cols, 1), f.bytes(cols)
	for ; len(dst) > 0; dst, x = dst[size:], x[min(stride, len(x)):] {
		f.row(&l, dst[:size], x[:cols])
	}
}

// row writes one row.
func (f byteRows) row(l *byteLayout, dst []byte, x []float32) {
	scales := cast[float32](dst[l.depth:])
	for j := range l.runs {
		lo, hi := j*l.run, min((j+1)*l.run, len(x))
		scale, inverse := byteScale(math.Float32frombits(magnitude(f.level, x[lo:hi])))
		scales[j] = scale
		f.round(dst[lo:hi], x[lo:hi], inverse)
	}
	clear(dst[len(x):l.depth])
}

// magnitudeGeneric returns the bits of the largest magnitude.
func magnitudeGeneric(x []float32) uint32 {
	var top uint32
	for _, v := range x {
		top = max(top, math.Float32bits(v)&0x7fffffff)
	}
	return top
}

func (f byteRows) roundGeneric(dst []byte, x []float32, inverse float32) {
	var flip uint8
	if f.offset {
		flip = 0x80
	}
	for i, v := range x {
		dst[i] = uint8(byteOf(v, inverse)) ^ flip
	}
}

// byteKernel multiplies packed matrices of I8.
type byteKernel struct {
	takes  byteRows
	asForm form // takes, once for all calls
	tiles  bool
}

func newByteKernel(f features) *byteKernel {
	rows := newByteRows(f)
	return &byteKernel{takes: rows, asForm: rows, tiles: f.tiles}
}

func (k *byteKernel) form() form    { return k.asForm }
func (k *byteKernel) width(int) int { return dotGroups }

func (k *byteKernel) multiply(p piece) {
	l := newByteLayout(p.W.Cols, 1)
	var memory dotMemory
	m := memory.sums()
	f := dotFinish{level: k.takes.level, y: p.Y, yRow: p.W.Rows, act: Identity}
	for g := p.groups.lo; g < p.groups.hi; g += dotGroups {
		groups := min(dotGroups, p.groups.hi-g)
		w := p.W.packed[g*l.size:][:groups*l.size]
		m.scales(&l, w, groups)
		f.outputs = span{g * groupRows, min((g+groups)*groupRows, p.W.Rows)}
		m.biases(p.Bias, nil, f.outputs)
		for s := p.strips.lo; s < p.strips.hi; s++ {
			tokens, x := p.operand.strip(s)
			rows := tokens.hi - tokens.lo
			k.tap(&m, &l, dotTap{x: x, xRow: k.takes.bytes(p.W.Cols), w: w, groups: groups, rows: rows})
			f.rows(&m, 0, tokens.lo, rows)
		}
	}
}

// dotTap is what one tap contributes to some rows.
type dotTap struct {
	x      []byte // from the first row on
	xRow   int
	w      []byte // the groups
	groups int    // 1 or 2
	pair   int    // number of the groups
	rows   int    // dotRows at most
	tap    int    // the first
	taps   int    // that are taken together
	add    bool   // to what there is
}

// tap adds what the tap contributes, run by run.
func (k *byteKernel) tap(m *dotSums, l *byteLayout, t dotTap) {
	c := dotCall{sums: &m.sums[0], sumsRow: 4 * dotColumns, xRow: t.xRow, rows: t.rows, scratch: &m.scratch[0]}
	if t.groups == dotGroups {
		c.wNext = l.size
	}
	if t.add {
		c.add = 1
	}
	for j := range l.runs {
		lo, hi := j*l.run, min((j+1)*l.run, l.depth)
		c.x, c.scale, c.steps = &t.x[lo], l.depth+4*j-lo, (hi-lo)/4
		c.w = &t.w[(t.tap*l.depth+lo)*groupRows]
		c.starts = (*int32)(unsafe.Pointer(&t.w[l.starts(t.tap)+4*groupRows*j]))
		k.run(&c)
		c.add = 1
	}
}

// genericBytes is the specification of the kernels of bytes, and what runs where there is
// no assembly.
func (c *dotCall) genericBytes() {
	for g := range dotGroups {
		if g > 0 && c.wNext == 0 {
			return
		}
		w := unsafe.Slice(after(c.w, g*c.wNext), c.steps*4*groupRows)
		for r := range c.rows {
			x := unsafe.Slice(after(c.x, r*c.xRow), 4*c.steps)
			scale := *(*float32)(unsafe.Pointer(after(c.x, r*c.xRow+c.scale)))
			var total [groupRows]int32
			for k := 0; k < len(x); k += 4 {
				x0, x1, x2, x3 := int32(int8(x[k])), int32(int8(x[k+1])), int32(int8(x[k+2])), int32(int8(x[k+3]))
				quads := (*[4 * groupRows]byte)(w[k*groupRows:])
				for o := range total {
					total[o] += x0*int32(int8(quads[4*o])) + x1*int32(int8(quads[4*o+1])) +
						x2*int32(int8(quads[4*o+2])) + x3*int32(int8(quads[4*o+3]))
				}
			}
			sums := unsafe.Slice(after(c.sums, r*c.sumsRow+4*groupRows*g), groupRows)
			for o, v := range total {
				var sum float32
				if c.add != 0 {
					sum = sums[o]
				}
				sums[o] = fma(float32(v), scale, sum)
			}
		}
	}
}

// dotMemory is room for what dotSums refers to.
type dotMemory [dotBytes + alignment]byte

const dotBytes = 4*dotRows*dotColumns + dotScratch

// dotSums is the state of a call: sums of some rows and two groups, and what the outputs
// are made of them.
type dotSums struct {
	sums    []float32 // [dotRows, dotColumns]
	scratch []byte
	scale   [dotColumns]float32
	bias    [dotColumns]float32
}

// sums returns sums whose memory begins on lines of the cache.
func (m *dotMemory) sums() dotSums {
	p := unsafe.Slice(onLine(&m[0]), dotBytes)
	return dotSums{sums: cast[float32](p[:4*dotRows*dotColumns]), scratch: p[4*dotRows*dotColumns:]}
}

// scales takes the scales of the groups.
func (m *dotSums) scales(l *byteLayout, w []byte, groups int) {
	for g := range groups {
		copy(m.scale[g*groupRows:], cast[float32](w[g*l.size+l.scales():][:4*groupRows]))
	}
}

// biases takes the biases of the outputs, and what is to be added to them, if not nil.
func (m *dotSums) biases(bias, shift []float32, outputs span) {
	clear(m.bias[:])
	if bias != nil {
		copy(m.bias[:], bias[outputs.lo:outputs.hi])
	}
	if shift != nil {
		add(m.bias[:outputs.hi-outputs.lo], shift[outputs.lo:outputs.hi])
	}
}

// dotFinish makes outputs of sums: y = f(sum·scale + bias + residual).
type dotFinish struct {
	level    Level
	y        []float32
	yRow     int // floats
	outputs  span
	act      Activation
	residual []float32 // like y, or nil
}

// rows finishes count rows of sums from the first on, which go to y from row to on.
func (f *dotFinish) rows(m *dotSums, first, to, count int) {
	at := to*f.yRow + f.outputs.lo
	c := finishing{
		y: f.y[at:], yRow: f.yRow, sums: m.sums[first*dotColumns:], scale: &m.scale, bias: &m.bias,
		floor: float32(math.Inf(-1)), rows: count, n: f.outputs.hi - f.outputs.lo,
	}
	if f.residual != nil {
		c.residual = f.residual[at:]
	}
	if f.act == ReLU {
		c.floor = 0
	}
	c.run(f.level)
	if f.act == Identity || f.act == ReLU {
		return
	}
	for r := range count {
		row := c.y[r*f.yRow:][:c.n]
		activate(f.level, f.act, row, row, nil)
	}
}

// finishing is y = max(sums·scale + bias [+ residual], floor) over n columns of some rows.
type finishing struct {
	y           []float32
	yRow        int // floats, of residual too
	sums        []float32
	residual    []float32
	scale, bias *[dotColumns]float32
	floor       float32
	rows, n     int
}

// generic computes the columns from lo on.
func (c *finishing) generic(lo int) {
	for r := range c.rows {
		y, sums := c.y[r*c.yRow:][:c.n], c.sums[r*dotColumns:]
		for i := lo; i < c.n; i++ {
			v := fma(sums[i], c.scale[i], c.bias[i])
			if c.residual != nil {
				v += c.residual[r*c.yRow+i]
			}
			y[i] = max(v, c.floor)
		}
	}
}

package tensor

import (
	"math"
	"unsafe"
)

// The sum of an output begins with the bias and takes the columns in ascending order,
// by one accumulator and fused multiplication and addition; VDPBF16PS takes them in
// pairs. This holds for every way of dividing a product, so that the bits depend on
// the row and the token alone.

// depthBlock is the number of columns summed before the next piece of activations is
// looked at: so many of a piece's weights stay in the second cache while all strips pass.
const depthBlock = 512

// floatKernel multiplies packed F32, F16 and BF16 matrices.
type floatKernel struct {
	dtype DType
	level Level
	takes form
	pairs bool // activations are pairs of BF16
}

func newFloatKernel(d DType, f features) *floatKernel {
	if d == BF16 && f.bf16 {
		return &floatKernel{dtype: d, level: f.level, takes: pairStrips{}, pairs: true}
	}
	return &floatKernel{dtype: d, level: f.level, takes: floatStrips(f.level)}
}

func (k *floatKernel) form() form { return k.takes }

// width returns the number of groups whose sums fit in registers with those of so
// many tokens, as the assembly takes them.
func (k *floatKernel) width(tokens int) int {
	if k.level == AVX512 {
		return [...]int{1: 4, 4, 4, 4, 4, 4, 3, 3}[tokens]
	}
	return [...]int{1: 4, 2, 2, 1, 1, 1}[tokens]
}

// stepColumns returns the columns in 16 bytes of activations.
func (k *floatKernel) stepColumns() int {
	if k.pairs {
		return 8
	}
	return 4
}

// multiply takes the columns in blocks if weights are read again, so that they are still
// in the cache; the sums wait in Y meanwhile.
func (k *floatKernel) multiply(p piece) {
	depth := floatDepth(p.W.Cols)
	block := depth
	if p.strips.hi-p.strips.lo > 1 {
		block = depthBlock
	}
	for at := 0; at < depth; at += block {
		columns := span{at, min(at+block, depth)}
		for strip := p.strips.lo; strip < p.strips.hi; strip++ {
			k.multiplyStrip(p, strip, columns)
		}
	}
}

// floatTile is one call of a kernel: for each of some groups of rows and some tokens,
// y = start + the products of some columns. Strides are in bytes.
type floatTile struct {
	y           *float32 // the first token's first row; the next group follows
	yStride     int      // from token to token
	start       *float32
	startStride int            // from token to token; 0 if all begin with the same
	startGroup  int            // from group to group; 0 if all begin with the same
	x           unsafe.Pointer // a strip, as its form prepares it
	w           unsafe.Pointer
	wStride     int // from group to group
	steps       int // of 16 bytes of activations
	groups      int
	tokens      int
}

// multiplyStrip adds up some columns of a strip. The last group is summed beside Y if Y
// has no room for all of its rows.
func (k *floatKernel) multiplyStrip(p piece, strip int, columns span) {
	groups := p.groups
	tokens, x := p.operand.strip(strip)
	rows, size, step := p.W.Rows, p.W.groupBytes(), k.stepColumns()
	t := floatTile{
		yStride: 4 * rows,
		tokens:  tokens.hi - tokens.lo,
		wStride: size,
		steps:   (columns.hi - columns.lo) / step,
	}
	t.x = unsafe.Pointer(&x[columns.lo/step*16*t.tokens])
	w := p.W.packed[columns.lo*groupRows*k.dtype.Size():]
	y := p.Y[tokens.lo*rows : tokens.hi*rows]
	whole := min(groups.hi, rows/groupRows)
	if n := whole - groups.lo; n > 0 {
		at := groups.lo * groupRows
		t.groups, t.w, t.y = n, unsafe.Pointer(&w[groups.lo*size]), &y[at]
		switch {
		case columns.lo > 0:
			t.start, t.startStride, t.startGroup = t.y, t.yStride, 4*groupRows
		case p.Bias != nil:
			t.start, t.startStride, t.startGroup = &p.Bias[at], 0, 4*groupRows
		default:
			t.start, t.startStride, t.startGroup = &noBias[0], 0, 0
		}
		k.run(&t)
	}
	if whole == groups.hi {
		return
	}
	var sums [maxStrip * groupRows]float32
	at := whole * groupRows
	for i := range t.tokens {
		if columns.lo > 0 {
			copy(sums[i*groupRows:][:groupRows], y[i*rows+at:(i+1)*rows])
		} else if p.Bias != nil {
			copy(sums[i*groupRows:], p.Bias[at:])
		}
	}
	t.groups, t.w, t.y, t.yStride = 1, unsafe.Pointer(&w[whole*size]), &sums[0], 4*groupRows
	t.start, t.startStride = t.y, t.yStride
	k.run(&t)
	for i := range t.tokens {
		copy(y[i*rows+at:(i+1)*rows], sums[i*groupRows:])
	}
}

// noBias is where sums begin without a bias.
var noBias [groupRows]float32

// maxStrip is the most tokens in a strip of any level.
const maxStrip = 8

// stripHeight returns the most tokens whose sums with a few groups fit in the
// registers of a level: few loads for each multiplication, and little power for them.
func stripHeight(l Level) int {
	if l == AVX512 {
		return maxStrip
	}
	return 6
}

// floatStrips are activations in float32, [depth/4][tokens][4], in strips for a level.
type floatStrips Level

func (s floatStrips) height() int      { return stripHeight(Level(s)) }
func (floatStrips) bytes(cols int) int { return 4 * floatDepth(cols) }

func (s floatStrips) prepare(dst []byte, x []float32, cols, tokens int) {
	out := cast[float32](dst)
	done := spreadStrip(Level(s), out, x, cols, tokens)
	if done == cols {
		return
	}
	for t := range tokens {
		spreadRow(Level(s), out[done*tokens+4*t:], x[t*cols+done:(t+1)*cols], 4*tokens)
	}
}

// spreadRowGeneric copies a row into blocks of four, stride apart, an even number of them,
// the last ones filled up with zeros.
func spreadRowGeneric(dst, x []float32, stride int) {
	for at := 0; len(x) > 0; at += 2 * stride {
		var b [8]float32
		x = x[copy(b[:], x):]
		*(*[4]float32)(dst[at:]) = [4]float32(b[:])
		*(*[4]float32)(dst[at+stride:]) = [4]float32(b[4:])
	}
}

// pairStrips are activations rounded to BF16, [depth/8][tokens][8], for VDPBF16PS.
type pairStrips struct{}

func (pairStrips) height() int        { return stripHeight(AVX512) }
func (pairStrips) bytes(cols int) int { return 2 * floatDepth(cols) }

func (pairStrips) prepare(dst []byte, x []float32, cols, tokens int) {
	out := cast[uint16](dst)
	for t := range tokens {
		roundRow(out[8*t:], x[t*cols:][:cols], 8*tokens)
	}
}

// roundRowGeneric rounds a row to BF16 into blocks of eight, stride apart, the last
// one filled up with zeros.
func roundRowGeneric(dst []uint16, x []float32, stride int) {
	for at := 0; len(x) > 0; at += stride {
		var b [8]uint16
		n := min(len(x), len(b))
		for i, v := range x[:n] {
			b[i] = floatToBFloat(v)
		}
		*(*[8]uint16)(dst[at:]) = b
		x = x[n:]
	}
}

// generic is the specification of the kernels, and what runs where there is no
// assembly: here products are rounded before they are added.
func (t *floatTile) generic(d DType, pairs bool) {
	step := 4
	if pairs {
		step = 8
	}
	var x [columnsAtOnce]float32
	var converted [columnsAtOnce * groupRows]float32
	for g := range t.groups {
		for i := range t.tokens {
			copy(t.sums(g, i), unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(t.start), g*t.startGroup+i*t.startStride)), groupRows))
		}
		for at := 0; at < t.steps*step; at += columnsAtOnce {
			n := min(columnsAtOnce, t.steps*step-at)
			w := t.columns(d, g, span{at, at + n}, converted[:])
			for i := range t.tokens {
				t.activations(x[:n], at, i, pairs)
				sums := t.sums(g, i)
				addProducts((*[8]float32)(sums), x[:n], w)
				addProducts((*[8]float32)(sums[8:]), x[:n], w[8:])
			}
		}
	}
}

// columnsAtOnce is the number of columns that the generic kernel converts at a time.
const columnsAtOnce = 64

// sums returns the sums of a group and a token.
func (t *floatTile) sums(group, token int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(t.y), group*groupRows*4+token*t.yStride)), groupRows)
}

// columns returns columns of a group as [n][16] float32, in converted unless they are
// in memory like that.
func (t *floatTile) columns(d DType, group int, columns span, converted []float32) []float32 {
	n := (columns.hi - columns.lo) * groupRows
	p := unsafe.Add(t.w, group*t.wStride+columns.lo*groupRows*d.Size())
	if d == F32 {
		return unsafe.Slice((*float32)(p), n)
	}
	src := unsafe.Slice((*uint16)(p), n)
	if d == F16 {
		widen(converted, F16, src)
		return converted
	}
	for i, v := range src { // [n/2][16][2]
		k := i / (2 * groupRows) * 2
		converted[(k+i&1)*groupRows+i/2%groupRows] = math.Float32frombits(uint32(v) << 16)
	}
	return converted
}

// activations copies columns of a token, from the given one on, out of the strip.
func (t *floatTile) activations(dst []float32, from, token int, pairs bool) {
	if !pairs {
		x := unsafe.Slice((*float32)(t.x), t.steps*t.tokens*4)
		for k := 0; k < len(dst); k += 4 {
			copy(dst[k:k+4], x[(from+k)*t.tokens+token*4:])
		}
		return
	}
	x := unsafe.Slice((*uint16)(t.x), t.steps*t.tokens*8)
	for k := 0; k < len(dst); k += 8 {
		widen(dst[k:], BF16, x[(from+k)*t.tokens+token*8:][:8])
	}
}

// addProducts adds to eight sums the products of x and eight rows of w [len(x)][16].
func addProducts(sums *[8]float32, x, w []float32) {
	s0, s1, s2, s3 := sums[0], sums[1], sums[2], sums[3]
	s4, s5, s6, s7 := sums[4], sums[5], sums[6], sums[7]
	for k, a := range x {
		row := (*[8]float32)(w[k*groupRows:])
		s0 += a * row[0]
		s1 += a * row[1]
		s2 += a * row[2]
		s3 += a * row[3]
		s4 += a * row[4]
		s5 += a * row[5]
		s6 += a * row[6]
		s7 += a * row[7]
	}
	*sums = [8]float32{s0, s1, s2, s3, s4, s5, s6, s7}
}

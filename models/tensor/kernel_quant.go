package tensor

import (
	"math"
	"unsafe"
)

// Products of block types quantise the activations too: 32 of them, from a multiple of
// 32 on, become signed bytes q and a power of two 2^e, the smallest for which none
// exceeds 127. Then for a group g of columns that share a scale, 16 or 32 of them,
//
//	y = bias + Σ_g fma(scale_g, 2^e·Σ_k q_k·(level_k - zero), ·)
//	         [ + fma(offset_g, 2^e·Σ_k q_k, ·) ]
//
// with exact sums of integers, and one rounding to float32 for each fma, in ascending
// order of columns. This is all there is to the definition: every level gives the same
// bits, for any division of a product.
//
// An activation is off by at most 2^(e-1), which is less than 1/127 of the largest
// magnitude of its 32. So the product differs from that of the dequantised weights by
// at most Σ_k 2^(e-1)·|w_k|, and the roundings. Activations of 2^103 or more,
// infinities and NaN make all outputs of their token NaN; where the largest of 32 is
// below 2^-94, what is below 2^-101 counts as 0.
//
// Sums begin not at 0 but at the bits of the float32 1.5·2^(23+e), less what the zero
// point adds: as long as the sum is below 2^22, which it always is, its bits are then
// those of 1.5·2^(23+e) + 2^e·Σ, and a subtraction leaves the sum, converted and scaled.

// recordBytes is the size of 32 quantised activations: 32 bytes and four words.
const recordBytes = 48

// Words of a record.
const (
	recordScale  = 32 // 1.5·2^(23+e)
	recordStart  = 36 // what sums over 32, or over the first 16, begin with
	recordSecond = 40 // what sums over the second 16 begin with
	recordSum    = 44 // 2^e·Σ_k q_k
)

// maxQuantStrip is the number of tokens in a strip: so many pass the levels of a step
// that are in registers.
const maxQuantStrip = 64

// quantForm is activations as records, [cols/32][tokens].
type quantForm struct {
	level        Level
	zero, second int // recordStart has 1.5·2^(23+e) - zero·(sum of the first 16) - second·(sum of the second 16)
}

func newQuantForm(d DType, l Level) quantForm {
	switch zero := blockTypes[d].zero; {
	case d == Q6_K || blockTypes[d].affine: // those without zero take what Q6_K needs
		return quantForm{level: l, zero: blockTypes[Q6_K].zero}
	default:
		return quantForm{level: l, zero: zero, second: zero}
	}
}

func (quantForm) height() int        { return maxQuantStrip }
func (quantForm) bytes(cols int) int { return cols / quantStep * recordBytes }

func (f quantForm) prepare(dst []byte, x []float32, cols, tokens int) {
	for t := range tokens {
		f.quantizeRow(dst[recordBytes*t:], x[t*cols:][:cols], recordBytes*tokens)
	}
}

// quantizeRowGeneric writes the records of a row, stride bytes apart.
func (f quantForm) quantizeRowGeneric(dst []byte, x []float32, stride int) {
	const (
		lowest  = 33  // exponents, biased by 133: e is -100
		highest = 229 // e is 96
	)
	for at := 0; len(x) > 0; at += stride {
		in, record := x[:quantStep], dst[at:][:recordBytes]
		x = x[quantStep:]
		var magnitude uint32
		for _, v := range in {
			magnitude = max(magnitude, math.Float32bits(v)&0x7fffffff)
		}
		// The smallest e for which magnitude is at most 127·2^e = 1.984375·2^(e+6).
		exponent := (magnitude + 0x1ffff) >> 23
		if exponent > highest {
			clear(record[:quantStep])
			for word := recordScale; word < recordBytes; word += 4 {
				put32(record[word:], 0x7fc00000)
			}
			continue
		}
		exponent = max(exponent, lowest)
		inverse := math.Float32frombits((260 - exponent) << 23)
		var sums [2]int32
		for k, v := range in {
			q := int8(math.RoundToEven(float64(v * inverse)))
			record[k] = uint8(q)
			sums[k/16] += int32(q)
		}
		scale := (exponent+17)<<23 | 0x400000
		put32(record[recordScale:], scale)
		put32(record[recordStart:], scale-uint32(int32(f.zero)*sums[0]+int32(f.second)*sums[1]))
		put32(record[recordSecond:], scale-uint32(int32(f.zero)*sums[1]))
		sum := float32(sums[0]+sums[1]) * math.Float32frombits((exponent-6)<<23)
		put32(record[recordSum:], math.Float32bits(sum))
	}
}

// quantKernel multiplies packed matrices of one block type.
type quantKernel struct {
	dtype DType
	level Level
	tiles bool // AMX: without Q6_K, for which vectors are faster
	takes form // a quantForm
}

func newQuantKernel(d DType, f features) *quantKernel {
	return &quantKernel{dtype: d, level: f.level, tiles: f.tiles && d != Q6_K, takes: newQuantForm(d, f.level)}
}

func (k *quantKernel) form() form    { return k.takes }
func (k *quantKernel) width(int) int { return quantGroups }

// quantGroups is the number of groups that a tile has.
const quantGroups = 2

// quantTile is one call of a kernel: two groups of rows, or one, by the tokens of a
// strip.
type quantTile struct {
	y       *float32 // the first token's first row
	yStride int      // bytes from token to token
	bias    *float32 // of all rows
	sums    *float32 // room for those of all tokens and rows
	x       *byte    // a strip of records, in which tiles move it on

	levels, high, scales, supers *byte // planes of the first group

	next    int   // bytes from the first group to the second; 0 if there is none, and its rows repeat those of the first
	steps   int   // of 32 columns
	tokens  int   // at most maxQuantStrip
	scratch *byte // of quantScratch bytes

	shapes *tileShapes // of the tiles of AMX, where they are used

	none *float32 // zeros to begin with where there is no bias

	_ int // the kernel's own: tokens that are left
}

// quantScratch is the memory that kernels need beside the sums: levels of two groups
// and step, and with AMX the sums of two steps for all tokens.
const quantScratch = 2*len(stepLevels{}) + 2*maxQuantStrip*tileRowsQuant*4

// tileShapes is what LDTILECFG reads: the kind of configuration, the bytes of a row of
// each tile and the numbers of rows.
type tileShapes struct {
	palette  uint8
	_        [15]uint8 // where an interrupted load resumes, and reserved bytes
	rowBytes [16]uint16
	rows     [16]uint8
}

// quantTokens is the number of tokens in a tile of AMX.
const quantTokens = 16

// newTileShapes returns the shapes of the tiles: 0 to 3 are sums, 4 and 5 activations, 6
// and 7 levels. A tile of activations may have more tokens than there are; nothing becomes
// of their sums.
func newTileShapes() tileShapes {
	s := tileShapes{palette: 1}
	for i := range 8 {
		s.rowBytes[i], s.rows[i] = 4*groupRows, quantTokens
	}
	s.rowBytes[4], s.rowBytes[5] = quantStep, quantStep
	s.rows[6], s.rows[7] = quantStep/4, quantStep/4
	return s
}

// fewestTiled is the number of tokens from which tiles are faster than vectors.
const fewestTiled = 8

const tileRowsQuant = quantGroups * groupRows

func (k *quantKernel) multiply(p piece) {
	if !k.multiplyOne(p) {
		k.multiplyStrips(p)
	}
}

func (k *quantKernel) multiplyStrips(p piece) {
	var none [tileRowsQuant]float32
	var sums [maxQuantStrip*tileRowsQuant + alignment/4]float32
	var scratch [quantScratch + alignment]byte
	shapes := newTileShapes()
	l := newQuantLayout(k.dtype, p.W.Cols)
	t := quantTile{sums: onLine(&sums[0]), scratch: onLine(&scratch[0]), steps: p.W.Cols / quantStep, none: &none[0]}
	for s := p.strips.lo; s < p.strips.hi; s++ {
		tokens, x := p.operand.strip(s)
		t.x, t.tokens = &x[0], tokens.hi-tokens.lo
		t.shapes = nil
		if k.tiles && t.tokens >= fewestTiled {
			t.shapes = &shapes
		}
		for g := p.groups.lo; g < p.groups.hi; g += quantGroups {
			group := p.W.packed[g*l.size:]
			t.levels = &group[0]
			t.high, t.scales, t.supers = after(t.levels, l.atHigh), after(t.levels, l.atScales), after(t.levels, l.atSupers)
			t.next = 0
			if g+1 < p.groups.hi {
				t.next = l.size
			}
			k.multiplyTile(t, p, g*groupRows, tokens.lo)
		}
	}
}

// second returns the tile with the second group as its first, and only one.
func (t quantTile) second() quantTile {
	t.levels, t.high, t.scales, t.supers = after(t.levels, t.next), after(t.high, t.next), after(t.scales, t.next), after(t.supers, t.next)
	t.y, t.bias, t.next = after(t.y, 4*groupRows), after(t.bias, 4*groupRows), 0
	return t
}

// onLine returns the first address from p on that is on a line of the cache.
func onLine[T any](p *T) *T {
	return after(p, int(-uintptr(unsafe.Pointer(p))%alignment))
}

// after returns the address so many bytes further on.
func after[T any](p *T, bytes int) *T { return (*T)(unsafe.Add(unsafe.Pointer(p), bytes)) }

// multiplyTile computes the tile of the rows and tokens that begin there. If it has
// more rows than there are, or than belong to the piece, it is computed beside Y.
func (k *quantKernel) multiplyTile(t quantTile, p piece, row, token int) {
	rows := p.W.Rows
	n := min(tileRowsQuant, rows-row, p.groups.hi*groupRows-row)
	t.bias = t.none
	if n == tileRowsQuant {
		if p.Bias != nil {
			t.bias = &p.Bias[row]
		}
		t.y, t.yStride = &p.Y[token*rows+row], 4*rows
		k.run(&t)
		return
	}
	var bias [tileRowsQuant]float32
	var y [maxQuantStrip * tileRowsQuant]float32
	if p.Bias != nil {
		copy(bias[:n], p.Bias[row:])
	}
	t.bias, t.y, t.yStride = &bias[0], &y[0], 4*tileRowsQuant
	k.run(&t)
	for i := range t.tokens {
		copy(p.Y[(token+i)*rows+row:][:n], y[i*tileRowsQuant:])
	}
}

// generic is the specification of the kernels, and what runs where there is no
// assembly.
func (t *quantTile) generic(d DType) {
	y := unsafe.Slice(t.y, (t.tokens-1)*t.yStride/4+tileRowsQuant)
	bias := unsafe.Slice(t.bias, tileRowsQuant)
	for g := range quantGroups {
		if g > 0 && t.next == 0 {
			return
		}
		for i := range t.tokens {
			copy(y[i*t.yStride/4+g*groupRows:][:groupRows], bias[g*groupRows:])
		}
		t.genericGroup(d, y[g*groupRows:], g*t.next)
	}
}

// genericGroup adds the products of the group that lies so many bytes from the first.
func (t *quantTile) genericGroup(d DType, y []float32, at int) {
	l := newQuantLayout(d, t.steps*quantStep)
	group := unsafe.Slice(after(t.levels, at), l.size)
	x := unsafe.Slice(t.x, t.steps*t.tokens*recordBytes)
	affine, halves := blockTypes[d].affine, blockTypes[d].group < quantStep
	var levels stepLevels
	var scales stepScales
	for step := range t.steps {
		l.unpackLevels(&levels, group, step)
		l.unpackScales(&scales, d, group, step)
		for i := range t.tokens {
			record := x[(step*t.tokens+i)*recordBytes:][:recordBytes]
			out := (*[groupRows]float32)(y[i*t.yStride/4:])
			switch {
			case affine:
				addProduct(out, &levels, &scales.first, record, span{0, 8}, recordScale)
				sum := math.Float32frombits(word(record, recordSum))
				for r := range out {
					out[r] = fma(scales.offset[r], sum, out[r])
				}
			case halves:
				addProduct(out, &levels, &scales.first, record, span{0, 4}, recordStart)
				addProduct(out, &levels, &scales.second, record, span{4, 8}, recordSecond)
			default:
				addProduct(out, &levels, &scales.first, record, span{0, 8}, recordStart)
			}
		}
	}
}

// addProduct adds the products of some quads of columns; their sums begin with the
// given word of the record.
func addProduct(y *[groupRows]float32, levels *stepLevels, scales *[groupRows]float32, record []byte, quads span, start int) {
	var sums [groupRows]int32
	for j := quads.lo; j < quads.hi; j++ {
		x0, x1 := int32(int8(record[4*j])), int32(int8(record[4*j+1]))
		x2, x3 := int32(int8(record[4*j+2])), int32(int8(record[4*j+3]))
		w := (*[4 * groupRows]uint8)(levels[j*4*groupRows:])
		for r := range sums {
			sums[r] += x0*int32(w[4*r]) + x1*int32(w[4*r+1]) + x2*int32(w[4*r+2]) + x3*int32(w[4*r+3])
		}
	}
	scale := math.Float32frombits(word(record, recordScale))
	begin := word(record, start)
	for r, sum := range sums {
		y[r] = fma(math.Float32frombits(begin+uint32(sum))-scale, scales[r], y[r])
	}
}

// fma returns x·y + z, rounded once. The product of two float32 is exact in float64;
// the sum is rounded there so that its last bit says whether something was cut off,
// and the rounding to float32 is right (Boldo and Melquiond 2008).
func fma(x, y, z float32) float32 {
	a, b := float64(float64(x)*float64(y)), float64(z)
	sum := a + b
	part := sum - a
	rest := (a - (sum - part)) + (b - part)
	if rest > 0 || rest < 0 {
		if bits := math.Float64bits(sum); bits&1 == 0 {
			if (rest > 0) == (sum > 0) {
				bits++
			} else {
				bits--
			}
			sum = math.Float64frombits(bits)
		}
	}
	return float32(sum)
}

package mp3

// bitWriter gathers bits, the highest first.
type bitWriter struct {
	data []byte
	last uint64 // bits that make no whole byte yet
	n    uint
}

func (b *bitWriter) put(v uint32, n uint) {
	b.last = b.last<<n | uint64(v)&(1<<n-1)
	b.n += n
	for b.n >= 8 {
		b.n -= 8
		b.data = append(b.data, byte(b.last>>b.n))
	}
}

func (b *bitWriter) flush() {
	if b.n > 0 {
		b.put(0, 8-b.n)
	}
}

// header writes the 32 bits that begin a frame.
func (e *Writer) header(b *bitWriter, padding uint, joint bool) {
	b.put(0xfff, 12)
	b.put(bit(!e.rate.low), 1) // MPEG-1 or 2
	b.put(1, 2)                // Layer III
	b.put(1, 1)                // no checksum
	b.put(uint32(e.index), 4)
	b.put(uint32(e.rate.index), 2)
	b.put(uint32(padding), 1)
	b.put(0, 1)
	if e.channels == 1 {
		b.put(3, 2)
	} else {
		b.put(1, 2) // joint stereo
	}
	b.put(2*bit(joint), 2)
	b.put(0, 2) // neither copyright nor original
	b.put(0, 2) // no emphasis
}

func bit(v bool) uint32 {
	if v {
		return 1
	}
	return 0
}

// sideBits is the size of the side information.
func (e *Writer) sideBits() int {
	switch {
	case e.rate.low && e.channels == 1:
		return 9 * 8
	case e.rate.low, e.channels == 1:
		return 17 * 8
	}
	return 32 * 8
}

// sideInfo writes how the parts of a frame are coded. All of a frame's data is in it.
func (e *Writer) sideInfo(b *bitWriter) {
	if e.rate.low {
		b.put(0, 8)
		b.put(0, uint(e.channels))
	} else {
		b.put(0, 9)
		b.put(0, uint(7-2*e.channels)) // private: 5 or 3
		b.put(0, uint(4*e.channels))   // no scale factors of the granule before are used again
	}
	for g := range e.granules() {
		for c := range e.channels {
			p := &e.parts[g][c]
			b.put(uint32(e.factorBits(p)+p.bits), 12)
			b.put(uint32(p.big), 9)
			b.put(uint32(p.gain), 8)
			if e.rate.low {
				lengths := e.lowLengths(p)
				b.put(uint32((lengths[0]*5+lengths[1])<<4|lengths[2]<<2|lengths[3]), 9)
			} else {
				b.put(uint32(e.compress(p)), 4)
			}
			b.put(0, 1) // long blocks
			for _, t := range p.tables {
				b.put(uint32(t), 5)
			}
			b.put(uint32(p.counts[0]), 4)
			b.put(uint32(p.counts[1]), 3)
			if !e.rate.low {
				b.put(0, 1) // no preemphasis
			}
			b.put(0, 1) // scale factors in halves of an octave
			b.put(uint32(p.quadBook), 1)
		}
	}
}

// lowRuns are the bands whose scale factors have the same number of bits, in MPEG-2.
var lowRuns = [4][2]int{{0, 6}, {6, 11}, {11, 16}, {16, 21}}

// lowLengths returns the bits of scale factors in each of the runs.
func (e *Writer) lowLengths(p *part) (lengths [4]int) {
	for i, run := range lowRuns {
		lengths[i] = bitsOf(p.factors[run[0]:run[1]])
	}
	return lengths
}

// bitsOf returns how many bits the largest number has.
func bitsOf(numbers []int) int {
	n := 0
	for _, v := range numbers {
		for v>>n > 0 {
			n++
		}
	}
	return n
}

// compress returns the number of the shortest pair of lengths that MPEG-1 has for the scale
// factors.
func (e *Writer) compress(p *part) int {
	low, high := bitsOf(p.factors[:highBands]), bitsOf(p.factors[highBands:])
	best, least := -1, 0
	for i, l := range highLengths {
		bits := l[0]*highBands + l[1]*(scaleBands-highBands)
		if l[0] >= low && l[1] >= high && (best < 0 || bits < least) {
			best, least = i, bits
		}
	}
	return best
}

// factorBits returns the bits of the scale factors.
func (e *Writer) factorBits(p *part) int {
	if e.rate.low {
		n := 0
		for i, l := range e.lowLengths(p) {
			n += l * (lowRuns[i][1] - lowRuns[i][0])
		}
		return n
	}
	l := highLengths[e.compress(p)]
	return l[0]*highBands + l[1]*(scaleBands-highBands)
}

// content writes the scale factors and the values of a part.
func (e *Writer) content(b *bitWriter, p *part) {
	lengths := e.lowLengths(p)
	high := highLengths[0]
	if !e.rate.low {
		high = highLengths[e.compress(p)]
	}
	for i, f := range p.factors {
		n := 0
		switch {
		case e.rate.low:
			for r, run := range lowRuns {
				if i >= run[0] && i < run[1] {
					n = lengths[r]
				}
			}
		case i < highBands:
			n = high[0]
		default:
			n = high[1]
		}
		b.put(uint32(f), uint(n))
	}
	from := 0
	for i, to := range p.regions {
		if n := p.tables[i]; n > 0 {
			e.books[n].pairs(b, p.values[from:to], extra[n])
		}
		from = to
	}
	for i := range p.quads {
		four := p.values[2*p.big+4*i:][:4]
		bits, _ := quadruple(four)
		w := e.books[32+p.quadBook].words[bits]
		b.put(w.bits, uint(w.length))
		for _, v := range four {
			if v != 0 {
				b.put(bit(v < 0), 1)
			}
		}
	}
}

// pairs writes pairs of values.
func (k *book) pairs(b *bitWriter, values []int32, extra int) {
	for i := 0; i < len(values); i += 2 {
		x, y := magnitude(values[i]), magnitude(values[i+1])
		w := k.words[min(x, 15)<<4|min(y, 15)]
		b.put(w.bits, uint(w.length))
		for at, v := range [2]int{x, y} {
			if v >= 15 && extra > 0 {
				b.put(uint32(v-15), uint(extra))
			}
			if v > 0 {
				b.put(bit(values[i+at] < 0), 1)
			}
		}
	}
}

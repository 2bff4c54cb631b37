package mp3

import "math"

// scaleBands is the number of bands with scale factors; the last band has none.
const scaleBands = 21

// part is the spectrum of one channel in one granule, and how it is written.
type part struct {
	lines   [granule]float64
	power   [granule]float64 // |lines|^(3/4)
	allowed [scaleBands + 1]float64

	gain    int // global_gain
	factors [scaleBands]int
	values  [granule]int32
	layout
}

// layout is how quantised values are divided and coded.
type layout struct {
	big      int    // pairs with larger values
	quads    int    // quadruples of -1, 0 and 1 behind them
	regions  [3]int // where they end, in lines
	counts   [2]int // region0_count, region1_count
	tables   [3]int
	quadBook int // 0 or 1: table 32 or 33
	bits     int // of all values
}

// model sets what noise the ear allows in each band: what its own sound and that of its
// neighbours hides, and what is too quiet to be heard at all. It is a coarse model: a fixed
// distance below the energy, which spreads upwards by 8 dB a band and downwards by 18.
func (p *part) model(r *rate) {
	const up, down = 0.158, 0.0158
	var energy [scaleBands + 1]float64
	for b := range energy {
		for _, v := range p.lines[r.bands[b]:r.bands[b+1]] {
			energy[b] += v * v
		}
	}
	spread := energy
	for b := 1; b < len(spread); b++ {
		spread[b] = max(spread[b], up*spread[b-1])
	}
	for b := len(spread) - 2; b >= 0; b-- {
		spread[b] = max(spread[b], down*spread[b+1])
	}
	for b := range p.allowed {
		width := float64(r.bands[b+1] - r.bands[b])
		kilohertz := float64(r.bands[b]+r.bands[b+1]) / 2 * float64(r.hertz) / (2 * granule) / 1000
		distance := max(8, 20-kilohertz) // dB
		p.allowed[b] = max(spread[b]*math.Pow(10, -distance/10), width*quiet(kilohertz))
	}
	for i, v := range p.lines {
		p.power[i] = math.Pow(math.Abs(v), 0.75)
	}
}

// quiet returns the power of the quietest sound that is heard (Terhardt 1979), where the
// loudest that can be written has 96 dB.
func quiet(kilohertz float64) float64 {
	f := max(kilohertz, 0.05)
	db := 3.64*math.Pow(f, -0.8) - 6.5*math.Exp(-0.6*(f-3.3)*(f-3.3)) + 1e-3*f*f*f*f
	return math.Pow(10, (min(db, 60)-96)/10)
}

// demand is about how many bits it would take to keep the noise where it is allowed.
func (p *part) demand(r *rate) float64 {
	sum := 0.0
	for b := range p.allowed {
		for _, v := range p.lines[r.bands[b]:r.bands[b+1]] {
			sum += math.Log2(1 + math.Abs(v)/math.Sqrt(p.allowed[b]/float64(r.bands[b+1]-r.bands[b])))
		}
	}
	return sum
}

// maxRounds bounds how often bands with too much noise are raised.
const maxRounds = 24

// fit quantises the spectrum within a number of bits: as finely as they allow, and then again
// with the bands raised whose noise would be heard (ISO/IEC 11172-3, C.1.5.4).
func (e *Writer) fit(p *part, budget int) {
	p.factors = [scaleBands]int{}
	var best part
	least := math.Inf(1)
	for range maxRounds {
		if !e.fill(p, budget) {
			break
		}
		over, heard := 0.0, [scaleBands]bool{}
		for b := range p.allowed {
			noise := p.noise(b, e.rate)
			if noise <= p.allowed[b] {
				continue
			}
			over += math.Log(noise / p.allowed[b])
			if b < scaleBands {
				heard[b] = true
			}
		}
		if over < least {
			least, best = over, *p
		}
		if over == 0 || !p.raise(heard) {
			break
		}
	}
	*p = best
}

// raise makes the bands finer that are heard; false if there is no more room, or no use.
func (p *part) raise(heard [scaleBands]bool) bool {
	all, any := true, false
	for b, h := range heard {
		all, any = all && h, any || h
		limit := 15
		if b >= highBands {
			limit = 7
		}
		if h && p.factors[b] == limit {
			return false
		}
	}
	if all || !any {
		return false
	}
	for b, h := range heard {
		if h {
			p.factors[b]++
		}
	}
	return true
}

// highBands is the first band whose scale factors have fewer bits.
const highBands = 11

// noise returns the energy that quantising has added to a band.
func (p *part) noise(b int, r *rate) float64 {
	step := math.Pow(2, float64(p.gain-210)/4-p.finer(b))
	sum := 0.0
	for i := r.bands[b]; i < r.bands[b+1]; i++ {
		v := float64(magnitude(p.values[i]))
		d := math.Abs(p.lines[i]) - v*math.Cbrt(v)*step
		sum += d * d
	}
	return sum
}

// finer returns the octaves of amplitude that a band's scale factor raises it by.
func (p *part) finer(b int) float64 {
	if b == scaleBands {
		return 0
	}
	return float64(p.factors[b]) / 2
}

// fill finds the smallest gain with which the part takes no more than the bits; false if
// the scale factors alone are too many.
func (e *Writer) fill(p *part, budget int) bool {
	budget -= e.factorBits(p)
	low, high := 0, 255 // too fine, and coarse enough
	if !e.quantize(p, high) || p.bits > budget {
		return false
	}
	for high-low > 1 {
		middle := (low + high) / 2
		if e.quantize(p, middle) && p.bits <= budget {
			high = middle
		} else {
			low = middle
		}
	}
	return e.quantize(p, high)
}

// quantize sets the values for a gain and how they are coded; false if one is too large.
func (e *Writer) quantize(p *part, gain int) bool {
	p.gain = gain
	for b := range p.allowed {
		scale := math.Pow(2, -0.75*(float64(gain-210)/4-p.finer(b)))
		for i := e.rate.bands[b]; i < e.rate.bands[b+1]; i++ {
			v := p.power[i]*scale + 0.4054
			if v > largestValue {
				return false
			}
			p.values[i] = int32(v)
			if p.lines[i] < 0 {
				p.values[i] = -p.values[i]
			}
		}
	}
	p.layout = e.arrange(&p.values)
	return true
}

// arrange divides values into regions and finds the shortest tables.
func (e *Writer) arrange(values *[granule]int32) layout {
	var l layout
	end := granule
	for end > 0 && values[end-1] == 0 && values[end-2] == 0 {
		end -= 2
	}
	big := end
	for big >= 4 && small(values[big-4:big]) {
		big -= 4
	}
	l.big, l.quads = big/2, (end-big)/4
	lengths := [2]int{}
	for i := range l.quads {
		bits, signs := quadruple(values[big+4*i:][:4])
		for n := range lengths {
			lengths[n] += int(e.books[32+n].words[bits].length) + signs
		}
	}
	if lengths[1] < lengths[0] {
		l.quadBook = 1
	}
	l.bits = lengths[l.quadBook]
	l.divide(e.rate, big)
	from := 0
	for i, to := range l.regions {
		best := -1
		for _, n := range candidates(largestOf(values[from:to])) {
			if bits := e.books[n].pairBits(values[from:to], extra[n]); best < 0 || bits < best {
				best, l.tables[i] = bits, n
			}
		}
		l.bits += max(best, 0)
		from = to
	}
	return l
}

// divide cuts the pairs into three regions: about the first third of the bands, the second,
// and the rest.
func (l *layout) divide(r *rate, big int) {
	bands := 0
	for bands < scaleBands+1 && r.bands[bands] < big {
		bands++
	}
	first := min(max(bands/3, 1), 16)
	second := min(max((bands+1)/3, 1), 8)
	l.counts = [2]int{first - 1, second - 1}
	l.regions = [3]int{min(r.bands[first], big), min(r.bands[min(first+second, scaleBands+1)], big), big}
}

func small(values []int32) bool {
	for _, v := range values {
		if v > 1 || v < -1 {
			return false
		}
	}
	return true
}

// quadruple returns which of four values are not 0, the first in the highest bit, and how
// many.
func quadruple(values []int32) (bits, signs int) {
	for i, v := range values {
		if v != 0 {
			bits |= 8 >> i
			signs++
		}
	}
	return bits, signs
}

func largestOf(values []int32) int {
	largest := 0
	for _, v := range values {
		largest = max(largest, magnitude(v))
	}
	return largest
}

package sound

import (
	"math"
	"slices"
)

// Silent is the loudness of what is too quiet to have one, in LUFS.
const Silent = -70.0

// biquad is a filter of second order (transposed direct form II).
type biquad struct{ b0, b1, b2, a1, a2, s1, s2 float64 }

func (f *biquad) next(x float64) float64 {
	y := f.b0*x + f.s1
	f.s1 = f.b1*x - f.a1*y + f.s2
	f.s2 = f.b2*x - f.a2*y
	return y
}

// kWeighting returns the two filters of BS.1770 for a rate: a shelf for the head, and a
// high-pass. Its tables are for 48 kHz; these are the analogue filters behind them.
func kWeighting(rate int) [2]biquad {
	const (
		shelfHertz, shelfGain, shelfQ = 1681.974450955533, 3.999843853973347, 0.7071752369554196
		passHertz, passQ              = 38.13547087602444, 0.5003270373238773
	)
	k := math.Tan(math.Pi * shelfHertz / float64(rate))
	high := math.Pow(10, shelfGain/20)
	band := math.Pow(high, 0.4996667741545416)
	a0 := 1 + k/shelfQ + k*k
	shelf := biquad{
		b0: (high + band*k/shelfQ + k*k) / a0, b1: 2 * (k*k - high) / a0, b2: (high - band*k/shelfQ + k*k) / a0,
		a1: 2 * (k*k - 1) / a0, a2: (1 - k/shelfQ + k*k) / a0,
	}
	k = math.Tan(math.Pi * passHertz / float64(rate))
	a0 = 1 + k/passQ + k*k
	pass := biquad{b0: 1, b1: -2, b2: 1, a1: 2 * (k*k - 1) / a0, a2: (1 - k/passQ + k*k) / a0}
	return [2]biquad{shelf, pass}
}

// Loudness returns the integrated loudness in LUFS (BS.1770-5): the mean power of blocks of
// 400 ms, each beginning a quarter later, of those that are above -70 LUFS and at most 10 LU
// below the mean of these. A clip that is shorter than a block is one. Silent if there are none.
func (c *Clip) Loudness() float64 {
	blocks := c.blocks()
	audible := func(threshold float64) (mean float64, n int) {
		for _, p := range blocks {
			if loudness(p) > threshold {
				mean += p
				n++
			}
		}
		return mean / float64(max(n, 1)), n
	}
	mean, n := audible(Silent)
	if n == 0 {
		return Silent
	}
	mean, _ = audible(max(Silent, loudness(mean)-10))
	return loudness(mean)
}

func loudness(power float64) float64 { return -0.691 + 10*math.Log10(max(power, 1e-20)) }

// blocks returns the weighted power of the blocks, of all channels together.
func (c *Clip) blocks() []float64 {
	quarter := max(c.Rate/10, 1)
	quarters := make([]float64, (c.Frames()+quarter-1)/quarter)
	for ch := range c.Channels {
		f := kWeighting(c.Rate)
		for i := range c.Frames() {
			y := f[1].next(f[0].next(float64(c.Samples[i*c.Channels+ch])))
			quarters[i/quarter] += y * y / float64(quarter)
		}
	}
	if len(quarters) < 4 {
		sum := 0.0
		for _, p := range quarters {
			sum += p
		}
		frames := float64(c.Frames()) / float64(quarter)
		if frames == 0 {
			return nil
		}
		return []float64{sum / frames}
	}
	blocks := make([]float64, len(quarters)-3)
	for i := range blocks {
		blocks[i] = (quarters[i] + quarters[i+1] + quarters[i+2] + quarters[i+3]) / 4
	}
	return blocks
}

// TruePeak returns the highest magnitude between the samples too, at four times the rate, in
// dBTP: decibels of the largest sample that can be written.
func (c *Clip) TruePeak() float64 {
	peak := c.peak()
	for _, v := range c.peaks(peak) {
		peak = max(peak, v)
	}
	return 20 * math.Log10(max(peak, 1e-10))
}

// peak returns the highest magnitude of a sample.
func (c *Clip) peak() float64 {
	peak := float32(0)
	for _, v := range c.Samples {
		peak = max(peak, v, -v)
	}
	return float64(peak)
}

// peaks returns, for every frame, the highest magnitude at it and before the next. Between
// samples it is looked for only where it can exceed a least value: it never is more than
// three times the highest sample near by.
func (c *Clip) peaks(least float64) []float64 {
	const reach, parts = 12, 4
	var between [parts][2 * reach]float64
	for p := range between {
		for j := range between[p] {
			x := float64(j-reach+1) - float64(p)/parts
			w := x / reach
			between[p][j] = sinc(x) * bessel(kaiser*math.Sqrt(max(0, 1-w*w))) / bessel(kaiser)
		}
	}
	peaks := make([]float64, c.Frames())
	near := 0 // frames yet that are near a high sample
	for i := range peaks {
		for ch := range c.Channels {
			peaks[i] = max(peaks[i], math.Abs(float64(c.Samples[i*c.Channels+ch])))
			if in := i + reach; in < len(peaks) && 3*math.Abs(float64(c.Samples[in*c.Channels+ch])) > least || 3*peaks[i] > least {
				near = 2 * reach
			}
		}
		if near--; near < 0 {
			continue
		}
		for ch := range c.Channels {
			for p := 1; p < parts; p++ {
				sum := 0.0
				for j, w := range between[p] {
					if n := i + j - reach + 1; n >= 0 && n < len(peaks) {
						sum += w * float64(c.Samples[n*c.Channels+ch])
					}
				}
				peaks[i] = max(peaks[i], math.Abs(sum))
			}
		}
	}
	return peaks
}

// Ceiling is the true peak that normalised sound stays below, in dBTP.
const Ceiling = -1.0

// Normalised returns the clip at a loudness in LUFS, its true peaks at most at Ceiling: where
// the gain would lift them above it, it is lowered for some milliseconds around them. Silence
// stays silence.
func (c *Clip) Normalised(target float64) *Clip {
	out := &Clip{Rate: c.Rate, Channels: c.Channels, Samples: slices.Clone(c.Samples)}
	for range 4 { // lowering peaks lowers the loudness a little
		now := out.Loudness()
		if now <= Silent || math.Abs(now-target) < 0.05 && out.TruePeak() <= Ceiling {
			break
		}
		out.amplify(math.Pow(10, (target-now)/20))
		out.limit()
	}
	return out
}

func (c *Clip) amplify(gain float64) {
	for i := range c.Samples {
		c.Samples[i] *= float32(gain)
	}
}

// limit lowers the gain around true peaks above the ceiling: the least gain of a window,
// smoothed over the same, so that it is never higher than the peak in its middle allows.
func (c *Clip) limit() {
	ceiling := math.Pow(10, (Ceiling-0.1)/20)
	half := max(c.Rate/200, 1) // 5 ms
	need := c.peaks(ceiling)
	quiet := true
	for i, p := range need {
		need[i] = 1
		if p > ceiling {
			need[i], quiet = ceiling/p, false
		}
	}
	if quiet {
		return
	}
	least := slidingMin(need, half)
	sum, n := 0.0, 0
	for i := -half; i < len(least); i++ {
		if in := i + half; in < len(least) {
			sum, n = sum+least[in], n+1
		}
		if out := i - half - 1; out >= 0 {
			sum, n = sum-least[out], n-1
		}
		if i < 0 {
			continue
		}
		for ch := range c.Channels {
			c.Samples[i*c.Channels+ch] *= float32(sum / float64(n))
		}
	}
}

// slidingMin returns the least of each value and its neighbours on both sides.
func slidingMin(x []float64, half int) []float64 {
	out := make([]float64, len(x))
	var queue []int // indices, their values ascending
	for i := -half; i < len(x); i++ {
		if in := i + half; in < len(x) {
			for len(queue) > 0 && x[queue[len(queue)-1]] >= x[in] {
				queue = queue[:len(queue)-1]
			}
			queue = append(queue, in)
		}
		if i < 0 {
			continue
		}
		if queue[0] < i-half {
			queue = queue[1:]
		}
		out[i] = x[queue[0]]
	}
	return out
}

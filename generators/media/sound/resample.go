package sound

import "math"

// Resampled returns the clip at another rate, by a windowed sinc (Smith, Digital Audio
// Resampling, 2002) that passes up to nine tenths of the lower of both bands and keeps what
// would alias 90 dB down.
func (c *Clip) Resampled(rate int) *Clip {
	if rate == c.Rate || len(c.Samples) == 0 {
		return &Clip{Rate: rate, Channels: c.Channels, Samples: c.Samples}
	}
	k := newKernel(c.Rate, rate)
	frames := int((int64(c.Frames())*int64(rate) + int64(c.Rate) - 1) / int64(c.Rate))
	out := &Clip{Rate: rate, Channels: c.Channels, Samples: make([]float32, frames*c.Channels)}
	weights := make([]float64, 2*k.reach)
	for i := range frames {
		at := float64(i) * float64(c.Rate) / float64(rate)
		first := int(at) - k.reach + 1
		k.weights(weights, at-math.Floor(at))
		for ch := range c.Channels {
			sum := 0.0
			for j, w := range weights {
				if n := first + j; n >= 0 && n < c.Frames() {
					sum += w * float64(c.Samples[n*c.Channels+ch])
				}
			}
			out.Samples[i*c.Channels+ch] = float32(sum)
		}
	}
	return out
}

// kernel is a low-pass filter as a table over its two flanks.
type kernel struct {
	table []float64 // phases values a sample, from the centre on
	reach int       // samples on each side
}

const (
	phases    = 512
	crossings = 32  // zeros of the sinc on each side
	kaiser    = 9.0 // β of the window
)

func newKernel(from, to int) *kernel {
	cutoff := 0.94 * min(1, float64(to)/float64(from)) // of half of the rate that it comes from
	k := &kernel{reach: int(math.Ceil(crossings / cutoff))}
	k.table = make([]float64, k.reach*phases+2)
	sum := 0.0
	for i := range k.reach*phases + 1 {
		x := float64(i) / phases
		w := x / float64(k.reach)
		k.table[i] = cutoff * sinc(cutoff*x) * bessel(kaiser*math.Sqrt(max(0, 1-w*w))) / bessel(kaiser)
		if i%phases == 0 {
			sum += k.table[i] * map[bool]float64{true: 1, false: 2}[i == 0]
		}
	}
	for i := range k.table {
		k.table[i] /= sum // silence's neighbour, a constant, stays what it is
	}
	return k
}

// weights sets those of the samples around a place that is so far behind one of them.
func (k *kernel) weights(w []float64, behind float64) {
	for j := range w {
		x := math.Abs(float64(j-k.reach+1)-behind) * phases
		i := int(x)
		if i >= k.reach*phases {
			w[j] = 0
			continue
		}
		w[j] = k.table[i] + (x-float64(i))*(k.table[i+1]-k.table[i])
	}
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// bessel is the modified Bessel function of the first kind, of order 0.
func bessel(x float64) float64 {
	sum, term := 1.0, 1.0
	for n := 1.0; term > 1e-12*sum; n++ {
		term *= x * x / (4 * n * n)
		sum += term
	}
	return sum
}

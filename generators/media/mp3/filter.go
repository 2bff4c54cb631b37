package mp3

import "math"

const (
	subbands = 32
	slots    = 18               // samples of a subband in a granule
	granule  = subbands * slots // samples, and lines of its spectrum
	taps     = 512              // of the polyphase filterbank
	depth    = taps / (2 * subbands)
)

// filterbank is the hybrid of a polyphase filterbank and an MDCT (ISO/IEC 11172-3, C.1.3 and
// C.1.5.3.3) of one channel, with what it remembers.
type filterbank struct {
	history  [taps]float64
	previous [subbands][slots]float64 // of the granule before, by subband
}

// waves are the constants of the filterbank.
type waves struct {
	analysis [taps]float64 // the window C
	matrix   [subbands][2 * subbands]float64
	mdct     [slots][2 * slots]float64 // with its window
	cs, ca   [8]float64                // of the butterflies against aliasing
}

func newWaves() *waves {
	w := new(waves)
	for i := range w.analysis {
		v := float64(window[min(i, taps-i)])
		if i > taps/2 && i%64 != 0 {
			v = -v
		}
		w.analysis[i] = v / 65536 / subbands
	}
	for k := range w.matrix {
		for i := range w.matrix[k] {
			w.matrix[k][i] = math.Cos(float64((2*k+1)*(i-16)) * math.Pi / 64)
		}
	}
	for m := range w.mdct {
		for k := range w.mdct[m] {
			sine := math.Sin(math.Pi / 36 * (float64(k) + 0.5))
			w.mdct[m][k] = sine * math.Cos(math.Pi/72*float64((2*k+1+18)*(2*m+1))) / 9
		}
	}
	for i, c := range [8]float64{-0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037} {
		w.cs[i] = 1 / math.Sqrt(1+c*c)
		w.ca[i] = c / math.Sqrt(1+c*c)
	}
	return w
}

// transform returns the spectrum of the next granule of samples, -1 to 1.
func (f *filterbank) transform(w *waves, x *[granule]float64, y *[granule]float64) {
	var now [subbands][slots]float64
	for t := range slots {
		f.split(w, x[t*subbands:][:subbands], t, &now)
	}
	var lines [2 * slots]float64
	for b := range subbands {
		copy(lines[:slots], f.previous[b][:])
		copy(lines[slots:], now[b][:])
		for m := range slots {
			sum := 0.0
			for k, v := range lines {
				sum += w.mdct[m][k] * v
			}
			y[b*slots+m] = sum
		}
	}
	f.previous = now
	for b := range subbands - 1 {
		for i := range w.cs {
			low, high := b*slots+slots-1-i, (b+1)*slots+i
			u, v := y[low], y[high]
			y[low] = u*w.cs[i] + v*w.ca[i]
			y[high] = v*w.cs[i] - u*w.ca[i]
		}
	}
}

// split moves 32 samples into the history and takes a sample of each subband out of it. Of
// odd subbands the spectrum is upside down, which the sign of every other sample mends.
func (f *filterbank) split(w *waves, x []float64, t int, to *[subbands][slots]float64) {
	copy(f.history[subbands:], f.history[:taps-subbands])
	for i, v := range x {
		f.history[subbands-1-i] = v
	}
	var folded [2 * subbands]float64
	for i := range folded {
		for j := range depth {
			folded[i] += w.analysis[i+64*j] * f.history[i+64*j]
		}
	}
	for b := range subbands {
		sum := 0.0
		for i, v := range folded {
			sum += w.matrix[b][i] * v
		}
		if b%2 == 1 && t%2 == 1 {
			sum = -sum
		}
		to[b][t] = sum
	}
}

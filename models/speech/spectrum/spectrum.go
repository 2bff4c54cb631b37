// Package spectrum turns sound into spectrograms: the short-time Fourier transform, and the
// bands of the mel scale as networks were trained on them. Axes: T frames, F bins, M bands.
package spectrum

import (
	"math"
	"math/cmplx"
)

// STFT is a short-time Fourier transform of real samples.
type STFT struct {
	Size int // samples of a frame
	Hop  int // samples from frame to frame

	window  []float64
	factors []int        // of Size
	twiddle []complex128 // e^(-2πi·k/Size)
}

// NewSTFT returns the transform of frames under a periodic Hann window. size and hop are at
// least 1.
func NewSTFT(size, hop int) *STFT {
	s := &STFT{Size: size, Hop: hop, window: make([]float64, size), twiddle: make([]complex128, size)}
	for i := range s.window {
		s.window[i] = 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(size))
		s.twiddle[i] = cmplx.Rect(1, -2*math.Pi*float64(i)/float64(size))
	}
	n := size
	for p := 2; n > 1; p++ {
		for n%p == 0 {
			s.factors = append(s.factors, p)
			n /= p
		}
	}
	return s
}

// Bins returns F, the number of frequencies from 0 to half of the rate.
func (s *STFT) Bins() int { return s.Size/2 + 1 }

// Frames returns the number of frames of n samples: one around every multiple of Hop up to n.
func (s *STFT) Frames(n int) int { return n/s.Hop + 1 }

// Power returns |X|² [frames, F] of the first so many frames, each centred on its place; the
// sound is mirrored at both ends.
func (s *STFT) Power(samples []float32, frames int) []float64 {
	bins := s.Bins()
	out := make([]float64, frames*bins)
	frame, spectrum := make([]complex128, s.Size), make([]complex128, s.Size)
	for t := range frames {
		for i := range frame {
			frame[i] = complex(float64(mirrored(samples, t*s.Hop+i-s.Size/2))*s.window[i], 0)
		}
		s.transform(spectrum, frame, 1, s.factors)
		for f := range bins {
			re, im := real(spectrum[f]), imag(spectrum[f])
			out[t*bins+f] = re*re + im*im
		}
	}
	return out
}

// mirrored returns sample i of a sound that goes back at its ends, without repeating them.
func mirrored(x []float32, i int) float32 {
	if len(x) == 0 {
		return 0
	}
	if len(x) == 1 {
		return x[0]
	}
	period := 2 * (len(x) - 1)
	i = ((i % period) + period) % period
	return x[min(i, period-i)]
}

// transform writes the discrete Fourier transform of every stride-th of x to y (Cooley and
// Tukey 1965), one factor of the length after another.
func (s *STFT) transform(y, x []complex128, stride int, factors []int) {
	n := len(y)
	if n == 1 {
		y[0] = x[0]
		return
	}
	p := factors[0]
	m := n / p
	for q := range p {
		s.transform(y[q*m:][:m], x[q*stride:], stride*p, factors[1:])
	}
	parts := make([]complex128, p)
	step := s.Size / n
	for k := range m {
		for q := range p {
			parts[q] = y[q*m+k]
		}
		for r := range p {
			sum := parts[0]
			for q := 1; q < p; q++ {
				sum += parts[q] * s.twiddle[(q*(k+r*m)*step)%s.Size]
			}
			y[k+r*m] = sum
		}
	}
}

// Scale is a scale of pitch.
type Scale struct {
	ToMel, FromMel func(float64) float64
}

// Slaney is linear to 1000 Hz and logarithmic above (Slaney, Auditory Toolbox, 1998); it is
// librosa's.
func Slaney() Scale {
	const (
		linear = 200. / 3 // Hz a mel
		corner = 1000 / linear
	)
	step := math.Log(6.4) / 27
	return Scale{
		ToMel: func(f float64) float64 {
			if f < 1000 {
				return f / linear
			}
			return corner + math.Log(f/1000)/step
		},
		FromMel: func(m float64) float64 {
			if m < corner {
				return m * linear
			}
			return 1000 * math.Exp(step*(m-corner))
		},
	}
}

// MelFilters returns triangular bands [M, F], of an area of 1 each, between two frequencies, for
// frames of size samples.
func MelFilters(scale Scale, rate, size, bands int, low, high float64) []float64 {
	bins := size/2 + 1
	edges := make([]float64, bands+2)
	a, b := scale.ToMel(low), scale.ToMel(high)
	for i := range edges {
		edges[i] = scale.FromMel(a + (b-a)*float64(i)/float64(bands+1))
	}
	filters := make([]float64, bands*bins)
	for m := range bands {
		left, centre, right := edges[m], edges[m+1], edges[m+2]
		for f := range bins {
			hertz := float64(f) * float64(rate) / float64(size)
			rise, fall := (hertz-left)/(centre-left), (right-hertz)/(right-centre)
			filters[m*bins+f] = max(0, min(rise, fall)) * 2 / (right - left)
		}
	}
	return filters
}

// Bands returns power [T, F] in bands [T, M].
func Bands(power, filters []float64, bins int) []float64 {
	frames, bands := len(power)/bins, len(filters)/bins
	out := make([]float64, frames*bands)
	for m := range bands {
		filter := filters[m*bins:][:bins]
		first, last := 0, bins
		for first < bins && filter[first] == 0 {
			first++
		}
		for last > first && filter[last-1] == 0 {
			last--
		}
		for t := range frames {
			sum := 0.0
			for f := first; f < last; f++ {
				sum += filter[f] * power[t*bins+f]
			}
			out[t*bands+m] = sum
		}
	}
	return out
}

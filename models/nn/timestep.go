package nn

import (
	"fmt"
	"math"
)

// Timesteps is the sinusoidal embedding of diffusion times (Ho et al. 2020, after
// Vaswani et al. 2017), with the settings that Hugging Face configurations have for it.
type Timesteps struct {
	Channels  int     // C, of the embedding; an odd one ends in a zero
	Flip      bool    // flip_sin_to_cos: cosines come before sines
	FreqShift float64 // downscale_freq_shift, taken off the number of frequencies; below C/2
	Scale     float64 // factor of the angles; 0 is 1
	MaxPeriod float64 // the longest period / 2π; 0 is 10000
}

// Forward writes the embeddings of times t [B] into y [B, C]: sin(t·f_i) and cos(t·f_i)
// of the frequencies f_i = MaxPeriod^(-i/(C/2-FreqShift)).
func (s Timesteps) Forward(y, t []float32) {
	if len(y) != len(t)*s.Channels {
		panic(fmt.Sprintf("nn: %d times in %d floats of %d channels each", len(t), len(y), s.Channels))
	}
	half, scale, period := s.Channels/2, s.Scale, s.MaxPeriod
	if scale == 0 {
		scale = 1
	}
	if period == 0 {
		period = 10000
	}
	for b, time := range t {
		row := y[b*s.Channels:][:s.Channels]
		sines, cosines := row[:half], row[half:]
		if s.Flip {
			sines, cosines = cosines, sines
		}
		for i := range half {
			f := math.Exp(-math.Log(period) * float64(i) / (float64(half) - s.FreqShift))
			sin, cos := math.Sincos(scale * float64(time) * f)
			sines[i], cosines[i] = float32(sin), float32(cos)
		}
		if s.Channels%2 == 1 {
			row[s.Channels-1] = 0
		}
	}
}

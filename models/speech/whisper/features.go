package whisper

import (
	"math"

	"helicon/models/speech/spectrum"
)

// listener makes what the network sees of sound.
type listener struct {
	stft    *spectrum.STFT
	filters []float64
	mels    int
}

func newListener(mels int) *listener {
	return &listener{
		stft: spectrum.NewSTFT(frame, hop), mels: mels,
		filters: spectrum.MelFilters(spectrum.Slaney(), Rate, frame, mels, 0, Rate/2),
	}
}

// features returns the log-mel spectrogram [frames, Mels] of samples at 16 kHz, which are
// filled up by silence or cut: the logarithm to base 10 of the power in bands, no more than 8
// below the highest, plus 4, divided by 4.
func (l *listener) features(samples []float32, frames int) []float32 {
	whole := make([]float32, frames*hop)
	copy(whole, samples)
	bands := spectrum.Bands(l.stft.Power(whole, frames), l.filters, l.stft.Bins())
	highest := math.Inf(-1)
	for i, v := range bands {
		bands[i] = math.Log10(max(v, 1e-10))
		highest = max(highest, bands[i])
	}
	out := make([]float32, len(bands))
	for i, v := range bands {
		out[i] = float32((max(v, highest-8) + 4) / 4)
	}
	return out
}

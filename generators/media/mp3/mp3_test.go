package mp3

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	gomp3 "github.com/hajimehoshi/go-mp3"
)

// encode returns samples as a stream.
func encode(t testing.TB, c Config, samples []float32) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, c)
	if err != nil {
		t.Fatal(err)
	}
	// In pieces of odd sizes, as they come.
	for at := 0; at < len(samples); {
		n := min(1+at%1777*c.Channels, len(samples)-at)
		if err := w.Write(samples[at : at+n]); err != nil {
			t.Fatal(err)
		}
		at += n
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// decode returns a stream as another's decoder hears it, without the delay: always two channels.
func decode(t testing.TB, stream []byte, rate int) [][2]float64 {
	t.Helper()
	d, err := gomp3.NewDecoder(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	if d.SampleRate() != rate {
		t.Errorf("%d samples a second, want %d", d.SampleRate(), rate)
	}
	raw, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	heard := make([][2]float64, len(raw)/4)
	for i := range heard {
		for c := range heard[i] {
			heard[i][c] = float64(int16(binary.LittleEndian.Uint16(raw[4*i+2*c:]))) / 32768
		}
	}
	if len(heard) < delay {
		t.Fatalf("%d samples, fewer than the delay", len(heard))
	}
	return heard[delay:]
}

// ratio returns signal to noise in dB.
func ratio(want []float32, heard [][2]float64, channel, channels int) float64 {
	signal, noise := 0.0, 1e-12
	for i := 0; i < len(want)/channels; i++ {
		v := float64(want[i*channels+channel])
		signal += v * v
		noise += (v - heard[i][channel]) * (v - heard[i][channel])
	}
	return 10 * math.Log10(signal/noise)
}

// tones is a chord with a slow swell.
func tones(rate, channels, seconds int) []float32 {
	x := make([]float32, rate*channels*seconds)
	for i := range x {
		at, c := float64(i/channels)/float64(rate), float64(i%channels)
		for k, hertz := range []float64{220, 277.2, 329.6, 1760 + 400*c} {
			x[i] += float32(0.15 / float64(1+k) * math.Sin(2*math.Pi*hertz*at+c) * (1 + 0.5*math.Sin(3*at)))
		}
	}
	return x
}

func TestHeardByAnother(t *testing.T) {
	t.Parallel()
	for _, rate := range Rates() {
		for channels := 1; channels <= 2; channels++ {
			t.Run(fmt.Sprintf("%d/%d", rate, channels), func(t *testing.T) {
				t.Parallel()
				x := tones(rate, channels, 2)
				stream := encode(t, Config{Rate: rate, Channels: channels}, x)
				heard := decode(t, stream, rate)
				if len(heard) < len(x)/channels {
					t.Fatalf("%d samples of %d came back", len(heard), len(x)/channels)
				}
				for c := range channels {
					r := ratio(x, heard, c, channels)
					t.Logf("channel %d: %.1f dB, %d bytes", c, r, len(stream))
					if r < 20 {
						t.Errorf("channel %d: noise %.1f dB below", c, r)
					}
				}
			})
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{{}, {Rate: 44100}, {Rate: 44101, Channels: 1}, {Rate: 44100, Channels: 3}, {Rate: 44100, Channels: 1, Bitrate: 33}, {Rate: 16000, Channels: 1, Bitrate: 320}} {
		if _, err := NewWriter(io.Discard, c); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestExtremes encodes what no microphone delivers.
func TestExtremes(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for name, at := range map[string]func(i int) float32{
		"silence":  func(int) float32 { return 0 },
		"no sound": func(int) float32 { return float32(math.NaN()) },
		"infinity": func(i int) float32 { return float32(math.Inf(1 - 2*(i/7%2))) },
		"square":   func(i int) float32 { return float32(1 - 2*(i/50%2)) },
		"noise":    func(int) float32 { return float32(random.Float64()*2 - 1) },
		"click":    func(i int) float32 { return map[bool]float32{true: 1}[i == 5000] },
		"faint":    func(i int) float32 { return float32(i%2) * 1e-30 },
	} {
		for _, c := range []Config{{Rate: 44100, Channels: 2, Bitrate: 32}, {Rate: 16000, Channels: 1, Bitrate: 8}, {Rate: 48000, Channels: 1, Bitrate: 320}} {
			x := make([]float32, c.Rate*c.Channels/2)
			for i := range x {
				x[i] = at(i)
			}
			if heard := decode(t, encode(t, c, x), c.Rate); len(heard) < len(x)/c.Channels {
				t.Errorf("%s, %+v: %d samples of %d came back", name, c, len(heard), len(x)/c.Channels)
			}
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	x := tones(22050, 1, 10)
	for b.Loop() {
		encode(b, Config{Rate: 22050, Channels: 1}, x)
	}
	b.ReportMetric(10*float64(b.N)/b.Elapsed().Seconds(), "x-real-time")
}

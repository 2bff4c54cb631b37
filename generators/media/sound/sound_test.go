package sound

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"helicon/queue"
)

// sine returns a tone of an amplitude in decibels of full scale.
func sine(rate, channels int, seconds, hertz, db float64) *Clip {
	c := &Clip{Rate: rate, Channels: channels, Samples: make([]float32, int(float64(rate)*seconds)*channels)}
	for i := range c.Samples {
		at := float64(i/channels) / float64(rate)
		c.Samples[i] = float32(math.Pow(10, db/20) * math.Sin(2*math.Pi*hertz*at+0.3*float64(i%channels)))
	}
	return c
}

func decode(t testing.TB, data []byte) *Clip {
	t.Helper()
	c, err := Decode(t.Context(), bytes.NewReader(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func encode(t testing.TB, f Format, c *Clip) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Encode(&b, f, c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// difference returns the largest between the samples of two clips of one shape.
func difference(t testing.TB, a, b *Clip) float64 {
	t.Helper()
	if a.Rate != b.Rate || a.Channels != b.Channels || len(a.Samples) != len(b.Samples) {
		t.Fatalf("%d Hz, %d channels, %d samples; want %d, %d, %d", a.Rate, a.Channels, len(a.Samples), b.Rate, b.Channels, len(b.Samples))
	}
	worst := 0.0
	for i, v := range a.Samples {
		worst = max(worst, math.Abs(float64(v-b.Samples[i])))
	}
	return worst
}

// TestRoundTrip writes and reads what loses nothing but the rounding to 16 bits.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, f := range []Format{WAV, FLAC} {
		for _, channels := range []int{1, 2} {
			for _, rate := range []int{8000, 22050, 44100, 96000} {
				c := sine(rate, channels, 0.37, 440, -3)
				if d := difference(t, decode(t, encode(t, f, c)), c); d > 0.5/32768 {
					t.Errorf("%s of %d Hz, %d channels: off by %v", f, rate, channels, d)
				}
			}
		}
	}
	if flac, wav := encode(t, FLAC, sine(44100, 1, 1, 440, -3)), encode(t, WAV, sine(44100, 1, 1, 440, -3)); len(flac) > len(wav)*3/4 {
		t.Errorf("FLAC of %d bytes, WAV of %d", len(flac), len(wav))
	}
}

// TestMP3 reads what the project's own encoder writes; package mp3 has the encoder's tests.
func TestMP3(t *testing.T) {
	t.Parallel()
	c := sine(8000, 1, 1, 440, -6) // no rate of MP3
	got := decode(t, encode(t, MP3, c))
	if got.Rate != 16000 || got.Channels != 1 || got.Duration() < time.Second {
		t.Errorf("%d Hz, %d channels, %v", got.Rate, got.Channels, got.Duration())
	}
	if db := 20 * math.Log10(rms(got.Part(200*time.Millisecond, 800*time.Millisecond))/rms(c)); math.Abs(db) > 0.2 {
		t.Errorf("%.2f dB louder", db)
	}
}

func rms(c *Clip) float64 {
	sum := 0.0
	for _, v := range c.Samples {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum / float64(len(c.Samples)))
}

// wave returns a WAV file of samples that are bytes already.
func wave(kind, channels, bits uint16, data []byte) []byte {
	h := waveHead(48000, int(channels), int64(len(data)))
	le := binary.LittleEndian
	le.PutUint16(h[20:], kind)
	le.PutUint16(h[34:], bits)
	return append(h, data...)
}

func TestWaveKinds(t *testing.T) {
	t.Parallel()
	float := func(v float32) []byte { return binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)) }
	for name, c := range map[string]struct {
		file []byte
		want []float32
	}{
		"8 bits":   {wave(wavePCM, 1, 8, []byte{0, 128, 192}), []float32{-1, 0, 0.5}},
		"12 bits":  {wave(wavePCM, 1, 12, []byte{0, 64}), []float32{0.5}},
		"16 bits":  {wave(wavePCM, 1, 16, []byte{0, 0x80, 0, 64}), []float32{-1, 0.5}},
		"24 bits":  {wave(wavePCM, 1, 24, []byte{0, 0, 0x80, 0, 0, 64}), []float32{-1, 0.5}},
		"32 bits":  {wave(wavePCM, 1, 32, []byte{0, 0, 0, 0x80, 0, 0, 0, 64}), []float32{-1, 0.5}},
		"float":    {wave(waveFloat, 1, 32, append(float(0.25), float(float32(math.NaN()))...)), []float32{0.25, 0}},
		"double":   {wave(waveFloat, 1, 64, binary.LittleEndian.AppendUint64(nil, math.Float64bits(-0.5))), []float32{-0.5}},
		"A-law":    {wave(waveALaw, 1, 8, []byte{0xd5, 0x55, 0xaa}), []float32{8. / 32768, -8. / 32768, 32256. / 32768}},
		"µ-law":    {wave(waveMuLaw, 1, 8, []byte{0xff, 0x80, 0x00}), []float32{0, 32124. / 32768, -32124. / 32768}},
		"cut":      {wave(wavePCM, 2, 16, []byte{0, 64, 0, 64, 0, 64, 0})[:44+7], []float32{0.5, 0.5}},
		"5.1":      {wave(wavePCM, 6, 8, []byte{192, 128, 128, 128, 128, 128}), []float32{0.5, 0}},
		"a stream": {append(waveHead(48000, 1, -1), 0, 64), []float32{0.5}},
	} {
		got := decode(t, c.file)
		if !slices.Equal(got.Samples, c.want) {
			t.Errorf("%s: %v, want %v", name, got.Samples, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	good := wave(wavePCM, 1, 16, make([]byte, 100))
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	for name, file := range map[string][]byte{
		"nothing":         nil,
		"text":            []byte("this is no sound at all"),
		"no samples":      good[:44],
		"half a header":   good[:20],
		"no channels":     change(22, 0, 0),
		"many channels":   change(22, 255, 255),
		"no rate":         change(24, 0, 0, 0, 0),
		"a huge rate":     change(24, 255, 255, 255, 255),
		"a strange kind":  change(20, 2),
		"a huge fmt":      change(16, 255, 255, 255, 127),
		"MP3 of nothing":  []byte("ID3\x04\x00\x00\x00\x00\x00\x00"),
		"FLAC of nothing": []byte("fLaC\x80\x00\x00\x22"),
	} {
		var problem *queue.Problem
		if c, err := Decode(t.Context(), bytes.NewReader(file), nil); !errors.As(err, &problem) || problem.Detail == "" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// TestVectors reads the streams that a decoder of MP3 is tested with, some of them broken.
func TestVectors(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "..", "..", "shared", "data", "media", "mp3-vectors", "vectors")
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) == 0 {
		t.Skipf("no data: %s", dir)
	}
	read := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // a folder
		}
		if Sniff(data) != MP3 && !strings.HasSuffix(file, ".bit") && !strings.HasSuffix(file, ".mp3") {
			continue
		}
		c, err := Decode(t.Context(), bytes.NewReader(data), nil)
		var problem *queue.Problem
		switch {
		case err == nil:
			read++
		case !errors.As(err, &problem):
			t.Errorf("%s: %v", filepath.Base(file), err)
		default:
			t.Logf("%s: %s", filepath.Base(file), problem.Detail)
		}
		_ = c
	}
	t.Logf("%d streams read of %d files", read, len(files))
}

// TestResampled moves a tone to other rates, and finds it there and nothing else.
func TestResampled(t *testing.T) {
	t.Parallel()
	for _, from := range []int{8000, 22050, 44100, 48000} {
		for _, to := range []int{8000, 16000, 22050, 24000, 44100, 48000} {
			if from == to {
				continue
			}
			hertz := 0.3 * float64(min(from, to))
			got, want := sine(from, 1, 1, hertz, -3).Resampled(to), sine(to, 1, 1, hertz, -3)
			middle := func(c *Clip) *Clip { return c.Part(100*time.Millisecond, 900*time.Millisecond) }
			if d := difference(t, middle(got), middle(want)); d > 2e-4 {
				t.Errorf("%d to %d: off by %.2g", from, to, d)
			}
		}
	}
	// What the lower rate cannot have vanishes.
	if left := rms(sine(48000, 1, 1, 10000, 0).Resampled(16000).Part(100*time.Millisecond, 900*time.Millisecond)); left > 3e-5 {
		t.Errorf("aliases %.0f dB below", 20*math.Log10(left))
	}
}

// TestLoudness measures signals of EBU Tech 3341.
func TestLoudness(t *testing.T) {
	t.Parallel()
	join := func(clips ...*Clip) *Clip {
		all := &Clip{Rate: clips[0].Rate, Channels: clips[0].Channels}
		for _, c := range clips {
			all.Samples = append(all.Samples, c.Samples...)
		}
		return all
	}
	tone := func(seconds, db float64) *Clip {
		c := sine(48000, 1, seconds, 1000, db)
		return c.Stereo()
	}
	for name, c := range map[string]struct {
		clip *Clip
		want float64
	}{
		"1":          {tone(20, -23), -23},
		"2":          {tone(20, -33), -33},
		"3":          {join(tone(10, -36), tone(60, -23), tone(10, -36)), -23},
		"4":          {join(tone(10, -72), tone(10, -36), tone(60, -23), tone(10, -36), tone(10, -72)), -23},
		"5":          {join(tone(20, -26), tone(20.1, -20), tone(20, -26)), -23},
		"44.1 kHz":   {sine(44100, 1, 5, 997, -20).Stereo(), -20},
		"16 kHz":     {sine(16000, 1, 5, 997, -20).Stereo(), -20},
		"one side":   {sine(48000, 1, 5, 997, -20), -23},
		"short":      {tone(0.2, -23), -23},
		"silence":    {&Clip{Rate: 48000, Channels: 1, Samples: make([]float32, 96000)}, Silent},
		"no samples": {&Clip{Rate: 48000, Channels: 1}, Silent},
	} {
		if got := c.clip.Loudness(); math.Abs(got-c.want) > 0.15 {
			t.Errorf("%s: %.2f LUFS, want %v", name, got, c.want)
		}
	}
	// Tech 3341, signal 15: the samples of a quarter of the rate meet no peak.
	quarter := &Clip{Rate: 48000, Channels: 1, Samples: make([]float32, 4800)}
	for i := range quarter.Samples {
		quarter.Samples[i] = float32(0.5 * math.Sin(math.Pi/2*float64(i)+math.Pi/4))
	}
	if got := quarter.Part(20*time.Millisecond, 80*time.Millisecond).TruePeak(); math.Abs(got+6) > 0.5 {
		t.Errorf("true peak %.2f dBTP, want -6", got)
	}
}

// TestNormalised brings sound with high peaks to a loudness.
func TestNormalised(t *testing.T) {
	t.Parallel()
	c := sine(24000, 1, 4, 300, -30)
	for i := range c.Samples { // bursts over a quiet tone
		if i/2400%10 == 3 {
			c.Samples[i] *= 12
		}
	}
	got := c.Normalised(-16)
	if l, p := got.Loudness(), got.TruePeak(); math.Abs(l+16) > 0.5 || p > Ceiling {
		t.Errorf("%.2f LUFS, %.2f dBTP", l, p)
	}
	silence := &Clip{Rate: 24000, Channels: 2, Samples: make([]float32, 48000)}
	if got := silence.Normalised(-16); !slices.Equal(got.Samples, silence.Samples) {
		t.Error("silence is heard")
	}
	if c.Samples[0] == got.Samples[1] || &c.Samples[0] == &got.Samples[0] {
		t.Error("the clip itself was changed")
	}
}

func TestShape(t *testing.T) {
	t.Parallel()
	c := &Clip{Rate: 1000, Channels: 2, Samples: make([]float32, 4000)}
	for i := 1000; i < 3000; i++ {
		c.Samples[i] = 0.5
	}
	if got := c.Trimmed(40, 100*time.Millisecond); got.Duration() != 1200*time.Millisecond || got.Samples[199] != 0 || got.Samples[200] != 0.5 {
		t.Errorf("%v long", got.Duration())
	}
	if got := c.Part(500*time.Millisecond, time.Hour); got.Duration() != 1500*time.Millisecond {
		t.Errorf("a part of %v", got.Duration())
	}
	c.Fade(time.Second, 250*time.Millisecond)
	if c.Samples[1000] >= 0.5 || c.Samples[2000] != 0.5 || c.Samples[0] != 0 {
		t.Errorf("faded to %v, %v", c.Samples[1000], c.Samples[2000])
	}
	quiet := &Clip{Rate: 1000, Channels: 1, Samples: make([]float32, 10)}
	if got := quiet.Trimmed(40, 0); got.Frames() != 10 {
		t.Errorf("silence of %d samples", got.Frames())
	}
	if got := c.Mono().Stereo(); got.Channels != 2 || got.Frames() != c.Frames() {
		t.Errorf("%d channels, %d frames", got.Channels, got.Frames())
	}
}

// TestFFmpeg writes and reads what only the program knows.
func TestFFmpeg(t *testing.T) {
	t.Parallel()
	tool := FindFFmpeg()
	if tool == nil {
		t.Skip("no ffmpeg is installed")
	}
	for _, f := range []Format{Opus, AAC} {
		var b bytes.Buffer
		if err := tool.Encode(t.Context(), &b, f, sine(48000, 1, 1, 440, -6)); err != nil {
			t.Fatal(err)
		}
		c, err := Decode(t.Context(), &b, tool)
		if err != nil || c.Duration() < 900*time.Millisecond || math.Abs(20*math.Log10(rms(c))+9) > 1 {
			t.Errorf("%s: %v, %v", f, c, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	c := sine(8000, 2, 0.05, 440, -6)
	for _, format := range []Format{WAV, FLAC, MP3} {
		f.Add(encode(f, format, c))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Decode(t.Context(), bytes.NewReader(data), nil)
		var problem *queue.Problem
		if err != nil && !errors.As(err, &problem) {
			t.Errorf("error %v is no problem", err)
		}
		if err == nil && (got.Rate < MinRate || got.Channels < 1 || got.Channels > 2 || len(got.Samples)%got.Channels != 0) {
			t.Errorf("%d Hz, %d channels, %d samples", got.Rate, got.Channels, len(got.Samples))
		}
	})
}

func BenchmarkLoudness(b *testing.B) {
	c := sine(48000, 2, 10, 440, -20)
	for b.Loop() {
		c.Loudness()
		c.TruePeak()
	}
	b.ReportMetric(10*float64(b.N)/b.Elapsed().Seconds(), "x-real-time")
}

// Package sound reads and writes the bytes of sound: WAV, MP3 and FLAC, and with ffmpeg
// whatever it knows, within limits that hold while samples are decoded; and it shapes what
// was read: channels, rate, loudness, silence, fades.
//
// Samples are float32 of -1 to 1. Formats: RIFF WAVE (Microsoft, 1994 and 2007, with 64 bits
// as of EBU Tech 3306), MPEG Layer III, FLAC (RFC 9639). Loudness is that of EBU R 128 and
// ITU-R BS.1770-5.
package sound

import (
	"time"

	"helicon/queue"
)

// Clip is sound in memory.
type Clip struct {
	Rate     int       // samples of a channel a second
	Channels int       // 1 or 2
	Samples  []float32 // interleaved
}

// Frames returns the number of samples of a channel.
func (c *Clip) Frames() int { return len(c.Samples) / c.Channels }

// Duration returns how long the clip plays.
func (c *Clip) Duration() time.Duration {
	return time.Duration(float64(c.Frames()) / float64(c.Rate) * float64(time.Second))
}

// Limits on the sound that is read.
const (
	MaxFile     = 1 << 30       // bytes of a file
	MinRate     = 1000          // samples a second
	MaxRate     = 384000        // samples a second
	MaxChannels = 8             // of a file; more than two are mixed down
	MaxDuration = 4 * time.Hour // of a file
	MaxSamples  = 1 << 28       // kept of a file, of all channels: 1 GiB of memory
)

// Format is a format of sound, by its usual file extension.
type Format string

// The formats. Opus and AAC are written, and others read, where ffmpeg is installed.
const (
	WAV  Format = "wav"
	MP3  Format = "mp3"
	FLAC Format = "flac"
	Opus Format = "opus"
	AAC  Format = "aac"
	PCM  Format = "pcm" // 16 bits, little-endian, without a header
)

// MediaType returns the format's media type.
func (f Format) MediaType() string {
	switch f {
	case MP3:
		return "audio/mpeg"
	case Opus:
		return "audio/ogg"
	case PCM:
		return "audio/pcm"
	}
	return "audio/" + string(f)
}

// codes of the problems that this package tells.
const (
	codeUnreadable = "sound_unreadable"
	codeTooLarge   = "sound_too_large"
	codeUnwritable = "sound_unwritable"
)

func unreadable(format string, args ...any) *queue.Problem {
	return queue.Problemf(codeUnreadable, format, args...)
}

// checkHeader refuses what a header says that is out of the limits.
func checkHeader(rate, channels int) *queue.Problem {
	switch {
	case rate < MinRate || rate > MaxRate:
		return unreadable("The sound has %d samples a second; %d to %d are read.", rate, MinRate, MaxRate)
	case channels < 1 || channels > MaxChannels:
		return unreadable("The sound has %d channels; 1 to %d are read.", channels, MaxChannels)
	}
	return nil
}

// builder gathers the samples of a file within the limits, mixed down to two channels.
type builder struct {
	clip     Clip
	channels int // of the file
	limit    int // samples to keep
}

func newBuilder(rate, channels int) (*builder, *queue.Problem) {
	if p := checkHeader(rate, channels); p != nil {
		return nil, p
	}
	kept := min(channels, 2)
	limit := min(MaxSamples, int(MaxDuration.Seconds())*rate*kept)
	return &builder{clip: Clip{Rate: rate, Channels: kept}, channels: channels, limit: limit}, nil
}

// add takes frames of samples of all channels.
func (b *builder) add(samples []float32) *queue.Problem {
	frames := len(samples) / b.channels
	if len(b.clip.Samples)+frames*b.clip.Channels > b.limit {
		return queue.Problemf(codeTooLarge, "The sound is longer than %v, or than %d samples.", MaxDuration, MaxSamples)
	}
	if b.channels <= 2 {
		b.clip.Samples = append(b.clip.Samples, samples[:frames*b.channels]...)
		return nil
	}
	for i := range frames {
		left, right := mixDown(samples[i*b.channels:][:b.channels])
		b.clip.Samples = append(b.clip.Samples, left, right)
	}
	return nil
}

// mixDown makes two channels of more, in the order of WAVE: left, right, centre, low
// frequencies, and pairs at the back and the sides (ITU-R BS.775).
func mixDown(frame []float32) (left, right float32) {
	const half = 0.70710678
	left, right = frame[0], frame[1]
	switch len(frame) {
	case 3:
		return left + half*frame[2], right + half*frame[2]
	case 4: // two at the back
		return left + half*frame[2], right + half*frame[3]
	case 5:
		return left + half*(frame[2]+frame[3]), right + half*(frame[2]+frame[4])
	}
	left, right = left+half*frame[2], right+half*frame[2]
	for i := 4; i+1 < len(frame); i += 2 {
		left, right = left+half*frame[i], right+half*frame[i+1]
	}
	if len(frame)%2 == 1 {
		last := half * frame[len(frame)-1]
		left, right = left+last, right+last
	}
	return left, right
}

// Mono returns the clip with one channel: the mean of its own.
func (c *Clip) Mono() *Clip {
	if c.Channels == 1 {
		return c
	}
	out := &Clip{Rate: c.Rate, Channels: 1, Samples: make([]float32, c.Frames())}
	for i := range out.Samples {
		out.Samples[i] = (c.Samples[2*i] + c.Samples[2*i+1]) / 2
	}
	return out
}

// Stereo returns the clip with two channels: the same twice, if it has one.
func (c *Clip) Stereo() *Clip {
	if c.Channels == 2 {
		return c
	}
	out := &Clip{Rate: c.Rate, Channels: 2, Samples: make([]float32, 2*len(c.Samples))}
	for i, v := range c.Samples {
		out.Samples[2*i], out.Samples[2*i+1] = v, v
	}
	return out
}

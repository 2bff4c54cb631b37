package sound

import (
	"fmt"
	"io"
	"slices"

	"github.com/mewkiz/flac"
	"github.com/mewkiz/flac/frame"
	"github.com/mewkiz/flac/meta"

	"helicon/generators/media/mp3"
	"helicon/queue"
)

// Encoder writes sound as it comes.
type Encoder interface {
	// Write takes interleaved samples of the clip's channels.
	Write(samples []float32) error
	// Close writes what is left; it does not close what is written to.
	Close() error
}

// Written lists the formats that are written without ffmpeg.
func Written() []Format { return []Format{MP3, WAV, FLAC, PCM} }

// NewEncoder returns an encoder of sound of a rate and one or two channels. frames is how
// many will be written, fewer than 0 if that is not known: a WAV file then says that it has
// no end, which programs understand. The error is a *queue.Problem if the format has no such
// sound.
func NewEncoder(w io.Writer, f Format, rate, channels int, frames int64) (Encoder, error) {
	if channels != 1 && channels != 2 {
		return nil, queue.Problemf(codeUnwritable, "Sound of %d channels cannot be written; 1 and 2 can.", channels)
	}
	switch f {
	case PCM:
		return &pcmEncoder{w: w}, nil
	case WAV:
		size := int64(-1)
		if frames >= 0 {
			size = frames * 2 * int64(channels)
		}
		if _, err := w.Write(waveHead(rate, channels, size)); err != nil {
			return nil, fmt.Errorf("sound: %w", err)
		}
		return &pcmEncoder{w: w}, nil
	case FLAC:
		return newFLACEncoder(w, rate, channels)
	case MP3:
		if !slices.Contains(mp3.Rates(), rate) {
			return nil, queue.Problemf(codeUnwritable, "MP3 has no %d samples a second; it has %v.", rate, mp3.Rates())
		}
		e, err := mp3.NewWriter(w, mp3.Config{Rate: rate, Channels: channels})
		if err != nil {
			return nil, fmt.Errorf("sound: %w", err)
		}
		return e, nil
	}
	return nil, queue.Problemf(codeUnwritable, "Sound cannot be written as %q here; %v can, and opus and aac where ffmpeg is installed.", f, Written())
}

// Encode writes a clip. A rate that the format does not have is changed to the next higher
// that it has, or the highest.
func Encode(w io.Writer, f Format, c *Clip) error {
	if f == MP3 {
		c = c.forMP3()
	}
	e, err := NewEncoder(w, f, c.Rate, c.Channels, int64(c.Frames()))
	if err != nil {
		return err
	}
	if err := e.Write(c.Samples); err != nil {
		return err
	}
	return e.Close()
}

func (c *Clip) forMP3() *Clip {
	known := mp3.Rates()
	for _, r := range known {
		if r >= c.Rate {
			return c.Resampled(r)
		}
	}
	return c.Resampled(known[len(known)-1])
}

// pcmEncoder writes 16 bits a sample.
type pcmEncoder struct {
	w      io.Writer
	buffer []byte
}

// Write writes samples.
func (e *pcmEncoder) Write(samples []float32) error {
	e.buffer = appendPCM(e.buffer[:0], samples)
	if _, err := e.w.Write(e.buffer); err != nil {
		return fmt.Errorf("sound: %w", err)
	}
	return nil
}

// Close has nothing left to write.
func (e *pcmEncoder) Close() error { return nil }

// flacBlock is the number of frames that are compressed together.
const flacBlock = 4096

type flacEncoder struct {
	e        *flac.Encoder
	rate     int
	channels int
	pending  []float32
}

func newFLACEncoder(w io.Writer, rate, channels int) (*flacEncoder, error) {
	e, err := flac.NewEncoder(onlyWriter{w}, &meta.StreamInfo{
		BlockSizeMin: 16, BlockSizeMax: flacBlock, SampleRate: uint32(rate), NChannels: uint8(channels), BitsPerSample: 16,
	})
	if err != nil {
		return nil, fmt.Errorf("sound: FLAC: %w", err)
	}
	return &flacEncoder{e: e, rate: rate, channels: channels}, nil
}

// onlyWriter hides that a writer can seek or be closed.
type onlyWriter struct{ io.Writer }

// Write compresses whole blocks.
func (e *flacEncoder) Write(samples []float32) error {
	e.pending = append(e.pending, samples...)
	size := flacBlock * e.channels
	for len(e.pending) >= size {
		if err := e.block(e.pending[:size]); err != nil {
			return err
		}
		e.pending = append(e.pending[:0], e.pending[size:]...)
	}
	return nil
}

// block writes one block with the prediction that leaves the least.
func (e *flacEncoder) block(samples []float32) error {
	n := len(samples) / e.channels
	f := &frame.Frame{Header: frame.Header{
		HasFixedBlockSize: false, BlockSize: uint16(n), SampleRate: uint32(e.rate),
		Channels: frame.ChannelsMono, BitsPerSample: 16,
	}}
	if e.channels == 2 {
		f.Channels = frame.ChannelsLR
	}
	for c := range e.channels {
		s := &frame.Subframe{SubHeader: frame.SubHeader{Pred: frame.PredVerbatim}, NSamples: n, Samples: make([]int32, n)}
		for i := range s.Samples {
			s.Samples[i] = int32(pcm16(samples[i*e.channels+c]))
		}
		f.Subframes = append(f.Subframes, s)
	}
	if err := e.e.WriteFrame(f); err != nil {
		return fmt.Errorf("sound: FLAC: %w", err)
	}
	return nil
}

// Close writes the last block, which may be shorter.
func (e *flacEncoder) Close() error {
	if len(e.pending) > 0 {
		// A block that is not the last has 16 frames at least; a shorter last one is allowed.
		if err := e.block(e.pending); err != nil {
			return err
		}
	}
	if err := e.e.Close(); err != nil {
		return fmt.Errorf("sound: FLAC: %w", err)
	}
	return nil
}

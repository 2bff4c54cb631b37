package sound

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hajimehoshi/go-mp3"
	"github.com/mewkiz/flac"

	"helicon/queue"
)

// Sniff tells the format of a file by how it begins; "" is one that only ffmpeg may know.
func Sniff(head []byte) Format {
	switch {
	case len(head) >= 12 && (bytes.HasPrefix(head, []byte("RIFF")) || bytes.HasPrefix(head, []byte("RF64"))) && string(head[8:12]) == "WAVE":
		return WAV
	case bytes.HasPrefix(head, []byte("fLaC")):
		return FLAC
	case bytes.HasPrefix(head, []byte("ID3")), len(head) >= 2 && head[0] == 0xff && head[1]&0xe6 == 0xe2:
		return MP3 // Layer III: not AAC, whose layer bits are 0
	}
	return ""
}

// Decode reads a file of sound. Formats that are not read here are given to ffmpeg, if there
// is one. The error is a *queue.Problem if the file is at fault: it is none, is damaged, or
// is larger than the limits; or the cause of ctx's end.
func Decode(ctx context.Context, r io.Reader, tool *FFmpeg) (*Clip, error) {
	in := bufio.NewReaderSize(&fileReader{r: r, ctx: ctx}, 64<<10)
	head, err := in.Peek(16)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("sound: %w", err)
	}
	var clip *Clip
	switch Sniff(head) {
	case WAV:
		clip, err = decodeWAV(in)
	case FLAC:
		clip, err = guarded(in, decodeFLAC)
	case MP3:
		clip, err = guarded(in, decodeMP3)
	default:
		if tool == nil {
			return nil, unreadable("The file is none of the formats of sound that are read: WAV, MP3 and FLAC, and others where ffmpeg is installed.")
		}
		clip, err = tool.decode(ctx, in)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err == nil && len(clip.Samples) == 0 {
		return nil, unreadable("The file has no sound in it.")
	}
	return clip, err
}

// fileReader bounds what is read of a file, and ends with ctx.
type fileReader struct {
	r   io.Reader
	ctx context.Context
	n   int64
}

func (f *fileReader) Read(p []byte) (int, error) {
	if f.ctx.Err() != nil {
		return 0, context.Cause(f.ctx)
	}
	if f.n > MaxFile {
		return 0, queue.Problemf(codeTooLarge, "The file of sound has more than %d bytes.", int64(MaxFile))
	}
	n, err := f.r.Read(p)
	f.n += int64(n)
	return n, err
}

// guarded decodes foreign bytes with a library that may panic over them.
func guarded(r io.Reader, decode func(io.Reader) (*Clip, error)) (clip *Clip, err error) {
	defer func() {
		if v := recover(); v != nil {
			clip, err = nil, unreadable("The file of sound is damaged: %v.", v)
		}
	}()
	return decode(r)
}

// damaged is the answer to a library's error, unless it is one of ours that it hands on.
func damaged(err error) error {
	var problem *queue.Problem
	if errors.As(err, &problem) {
		return problem
	}
	return unreadable("The file of sound is damaged: %v.", err)
}

// decodeMP3 reads Layer III. go-mp3 gives two channels always, equal ones for one. What
// follows damage is left out, if anything came before it.
func decodeMP3(r io.Reader) (*Clip, error) {
	d, err := mp3.NewDecoder(r)
	if err != nil {
		return nil, damaged(err)
	}
	b, problem := newBuilder(d.SampleRate(), 2)
	if problem != nil {
		return nil, problem
	}
	var raw [4 * 4096]byte
	var samples [2 * 4096]float32
	for {
		n, err := io.ReadFull(d, raw[:])
		n -= n % 4
		for i := 0; i < n; i += 2 {
			samples[i/2] = float32(int16(binary.LittleEndian.Uint16(raw[i:]))) / (1 << 15)
		}
		if problem := b.add(samples[:n/2]); problem != nil {
			return nil, problem
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil && len(b.clip.Samples) == 0 {
			return nil, damaged(err)
		}
		if err != nil {
			break
		}
	}
	return b.clip.folded(), nil
}

// folded returns one channel if both are the same.
func (c *Clip) folded() *Clip {
	for i := 0; i < len(c.Samples); i += 2 {
		if c.Samples[i] != c.Samples[i+1] {
			return c
		}
	}
	return c.Mono()
}

func decodeFLAC(r io.Reader) (*Clip, error) {
	stream, err := flac.New(r)
	if err != nil {
		return nil, damaged(err)
	}
	info := stream.Info
	b, problem := newBuilder(int(info.SampleRate), int(info.NChannels))
	if problem != nil {
		return nil, problem
	}
	var samples []float32
	for {
		frame, err := stream.ParseNext()
		if errors.Is(err, io.EOF) {
			return &b.clip, nil
		}
		if err != nil {
			return nil, damaged(err)
		}
		if len(frame.Subframes) != b.channels || frame.BitsPerSample < 4 || frame.BitsPerSample > 32 {
			return nil, unreadable("The FLAC file is damaged: a frame of %d channels and %d bits among those of %d.", len(frame.Subframes), frame.BitsPerSample, b.channels)
		}
		samples = samples[:0]
		scale := 1 / float32(int64(1)<<(frame.BitsPerSample-1))
		for i := range int(frame.BlockSize) {
			for _, s := range frame.Subframes {
				samples = append(samples, float32(s.Samples[i])*scale)
			}
		}
		if problem := b.add(samples); problem != nil {
			return nil, problem
		}
	}
}

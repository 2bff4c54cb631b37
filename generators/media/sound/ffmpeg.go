package sound

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"strings"

	"helicon/queue"
)

// FFmpeg is the program of that name, for formats that are not read or written here.
type FFmpeg struct{ path string }

// FindFFmpeg returns the program that lies on the search path, nil if there is none.
func FindFFmpeg() *FFmpeg {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		return nil
	}
	return &FFmpeg{path}
}

// maxComplaint bounds what is kept of what the program says, in bytes.
const maxComplaint = 4 << 10

// run starts the program, which may use nothing but its pipes: no file and no address that a
// file names.
func (f *FFmpeg) run(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	args = append([]string{"-hide_banner", "-loglevel", "error", "-nostdin", "-protocol_whitelist", "pipe"}, args...)
	cmd := exec.CommandContext(ctx, f.path, args...)
	var said tail
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit):
		return unreadable("ffmpeg cannot work on the sound: %s", strings.TrimSpace(said.String()))
	case err != nil:
		return fmt.Errorf("sound: ffmpeg: %w", err)
	}
	return nil
}

// tail keeps the beginning of what is written to it.
type tail struct{ bytes.Buffer }

// Write takes all and keeps a part.
func (t *tail) Write(p []byte) (int, error) {
	t.Buffer.Write(p[:min(len(p), max(0, maxComplaint-t.Len()))])
	return len(p), nil
}

// decode has a file made into samples. Two channels at 48 kHz: what the program knows of the
// file's own is not asked for.
func (f *FFmpeg) decode(ctx context.Context, r io.Reader) (*Clip, error) {
	b, problem := newBuilder(48000, 2)
	if problem != nil {
		return nil, problem
	}
	sink := &floatSink{b: b}
	err := f.run(ctx, r, sink, "-i", "pipe:0", "-vn", "-map", "0:a:0", "-f", "f32le", "-ac", "2", "-ar", "48000", "pipe:1")
	if sink.problem != nil {
		return nil, sink.problem
	}
	if err != nil {
		return nil, err
	}
	return b.clip.folded(), nil
}

// floatSink takes samples as bytes.
type floatSink struct {
	b       *builder
	rest    []byte
	problem *queue.Problem
}

// Write takes the frames that are whole.
func (s *floatSink) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	n := len(s.rest) - len(s.rest)%8
	samples := make([]float32, n/4)
	for i := range samples {
		samples[i] = finite(math.Float32frombits(binary.LittleEndian.Uint32(s.rest[4*i:])))
	}
	s.rest = append(s.rest[:0], s.rest[n:]...)
	if s.problem = s.b.add(samples); s.problem != nil {
		return 0, s.problem
	}
	return len(p), nil
}

// Encode writes a clip in a format that only the program knows.
func (f *FFmpeg) Encode(ctx context.Context, w io.Writer, to Format, c *Clip) error {
	var args []string
	switch to {
	case Opus:
		args = []string{"-c:a", "libopus", "-f", "ogg"}
	case AAC:
		args = []string{"-c:a", "aac", "-f", "adts"}
	default:
		return queue.Problemf(codeUnwritable, "Sound cannot be written as %q.", to)
	}
	in := io.MultiReader(bytes.NewReader(waveHead(c.Rate, c.Channels, 2*int64(len(c.Samples)))), bytes.NewReader(appendPCM(nil, c.Samples)))
	return f.run(ctx, in, w, append(append([]string{"-f", "wav", "-i", "pipe:0"}, args...), "pipe:1")...)
}

// Package mp3 encodes sound as MPEG-1 and MPEG-2 Audio Layer III (ISO/IEC 11172-3 and
// 13818-3) at constant bit rates: long blocks, a coarse model of hearing, middle and side
// channels where they are shorter. Every frame stands for itself, so that a stream can be
// cut and joined at any frame.
package mp3

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// ErrConfig is wrapped by errors about settings that the format does not have.
var ErrConfig = errors.New("not a setting of MP3")

// Config says what is written.
type Config struct {
	Rate     int // samples a second: 16000, 22050, 24000, 32000, 44100 or 48000
	Channels int // 1 or 2
	Bitrate  int // kbit/s; 0 is 64 a channel to 24000 samples a second and 96 above
}

// Rates lists the sampling rates that a stream can have, in Hz.
func Rates() []int {
	var list []int
	for _, r := range rates {
		list = append(list, r.hertz)
	}
	slices.Sort(list)
	return list
}

// Writer encodes samples as they come.
type Writer struct {
	w        io.Writer
	rate     *rate
	channels int
	bitrate  int  // kbit/s
	index    uint // of the bit rate

	waves   *waves
	books   [34]*book
	banks   [2]filterbank
	pending []float32 // samples of a frame that is not full
	rest    int       // bytes of frames owed, in 1/rate
	parts   [2][2]part
}

// NewWriter returns a Writer to w. The error wraps ErrConfig.
func NewWriter(w io.Writer, c Config) (*Writer, error) {
	at := slices.IndexFunc(rates[:], func(r rate) bool { return r.hertz == c.Rate })
	if at < 0 {
		return nil, fmt.Errorf("mp3: %d samples a second, want one of %v: %w", c.Rate, Rates(), ErrConfig)
	}
	if c.Channels != 1 && c.Channels != 2 {
		return nil, fmt.Errorf("mp3: %d channels, want 1 or 2: %w", c.Channels, ErrConfig)
	}
	r := &rates[at]
	known := highBitrates[1:]
	if r.low {
		known = lowBitrates[1:]
	}
	if c.Bitrate == 0 {
		c.Bitrate = 96 * c.Channels
		if r.low {
			c.Bitrate = min(64*c.Channels, 128)
		}
	}
	index := slices.Index(known, c.Bitrate)
	if index < 0 {
		return nil, fmt.Errorf("mp3: %d kbit/s, want one of %v: %w", c.Bitrate, known, ErrConfig)
	}
	return &Writer{
		w: w, rate: r, channels: c.Channels, bitrate: c.Bitrate, index: uint(index + 1),
		waves: newWaves(), books: newBooks(),
	}, nil
}

// granules returns how many a frame has.
func (e *Writer) granules() int {
	if e.rate.low {
		return 1
	}
	return 2
}

// Write encodes samples, interleaved, of -1 to 1: what is beyond is clipped, and what is no
// number is silence.
func (e *Writer) Write(samples []float32) error {
	size := e.granules() * granule * e.channels
	for len(samples) > 0 {
		n := min(size-len(e.pending), len(samples))
		e.pending = append(e.pending, samples[:n]...)
		samples = samples[n:]
		if len(e.pending) < size {
			break
		}
		if err := e.frame(); err != nil {
			return err
		}
		e.pending = e.pending[:0]
	}
	return nil
}

// delay is the number of samples by which what a decoder puts out comes late: by the
// polyphase filterbanks of both sides, and by the MDCT.
const delay = taps - subbands + 1 + granule

// Close encodes what is left, and silence until a decoder has put everything out.
func (e *Writer) Close() error {
	size := e.granules() * granule * e.channels
	n := delay*e.channels + len(e.pending)
	return e.Write(make([]float32, (n+size-1)/size*size-len(e.pending)))
}

// frame writes a frame of the pending samples.
func (e *Writer) frame() error {
	joint := e.analyse()
	// The frames' sizes differ by a byte so that their mean is the bit rate.
	size, unit := 72*1000*e.granules()*e.bitrate, e.rate.hertz
	e.rest += size
	bytes := e.rest / unit
	e.rest -= bytes * unit
	padding := uint(bytes - size/unit)
	room := bytes*8 - 32 - e.sideBits()

	demand, total := [2][2]float64{}, 0.0
	for g := range e.granules() {
		for c := range e.channels {
			demand[g][c] = e.parts[g][c].demand(e.rate) + 1
			total += demand[g][c]
		}
	}
	for g := range e.granules() {
		for c := range e.channels {
			p := &e.parts[g][c]
			e.fit(p, min(int(float64(room)*demand[g][c]/total), maxPart))
			room -= e.factorBits(p) + p.bits
			total -= demand[g][c]
		}
	}
	b := &bitWriter{data: make([]byte, 0, bytes)}
	e.header(b, padding, joint)
	e.sideInfo(b)
	for g := range e.granules() {
		for c := range e.channels {
			e.content(b, &e.parts[g][c])
		}
	}
	b.flush()
	frame := append(b.data, make([]byte, bytes-len(b.data))...)
	if _, err := e.w.Write(frame); err != nil {
		return fmt.Errorf("mp3: %w", err)
	}
	return nil
}

// maxPart is the most bits that the side information can tell of a part.
const maxPart = 1<<12 - 1

// analyse computes the spectra of the pending samples, and reports whether they are those of
// middle and side.
func (e *Writer) analyse() (joint bool) {
	var x, y [granule]float64
	for g := range e.granules() {
		for c := range e.channels {
			for i := range x {
				v := float64(e.pending[(g*granule+i)*e.channels+c])
				if math.IsNaN(v) {
					v = 0
				}
				x[i] = min(max(v, -1), 1)
			}
			e.banks[c].transform(e.waves, &x, &y)
			e.parts[g][c].lines = y
		}
	}
	if e.channels == 2 {
		joint = e.alike()
	}
	for g := range e.granules() {
		if joint {
			left, right := &e.parts[g][0].lines, &e.parts[g][1].lines
			for i := range left {
				left[i], right[i] = (left[i]+right[i])*math.Sqrt2/2, (left[i]-right[i])*math.Sqrt2/2
			}
		}
		for c := range e.channels {
			e.parts[g][c].model(e.rate)
		}
	}
	return joint
}

// alike reports whether the side channel of a frame has far less energy than the middle.
func (e *Writer) alike() bool {
	middle, side := 0.0, 0.0
	for g := range e.granules() {
		for i, l := range e.parts[g][0].lines {
			r := e.parts[g][1].lines[i]
			middle += (l + r) * (l + r)
			side += (l - r) * (l - r)
		}
	}
	return side < 0.2*middle
}

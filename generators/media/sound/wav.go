package sound

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"

	"helicon/queue"
)

// Kinds of samples, wFormatTag of a WAVE file.
const (
	wavePCM        = 1
	waveFloat      = 3
	waveALaw       = 6
	waveMuLaw      = 7
	waveExtensible = 0xfffe
)

// waveHeader is the fmt chunk.
type waveHeader struct {
	Kind      uint16
	Channels  uint16
	Rate      uint32
	BytesRate uint32
	Block     uint16
	Bits      uint16
}

// decodeWAV reads RIFF, RIFX's bytes in the other order excepted, and RF64. What follows a
// file that ends early is taken as far as it goes; a data chunk may claim any size.
func decodeWAV(r io.Reader) (*Clip, error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, unreadable("The WAV file ends in its header.")
	}
	var header *waveHeader
	for {
		var chunk [8]byte
		if _, err := io.ReadFull(r, chunk[:]); err != nil {
			return nil, unreadable("The WAV file has no samples.")
		}
		size := int64(binary.LittleEndian.Uint32(chunk[4:]))
		switch string(chunk[:4]) {
		case "fmt ":
			var err error
			if header, err = readWaveHeader(r, size); err != nil {
				return nil, err
			}
		case "data":
			if header == nil {
				return nil, unreadable("The WAV file's samples come before what they are.")
			}
			if size == 0xffffffff || size == 0 && string(head[:4]) == "RF64" {
				size = math.MaxInt64 // told elsewhere, or written by a program that could not know
			}
			return header.samples(io.LimitReader(r, size))
		default:
			if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil {
				return nil, unreadable("The WAV file has no samples.")
			}
		}
	}
}

func readWaveHeader(r io.Reader, size int64) (*waveHeader, error) {
	const least, most = 16, 1 << 10
	if size < least || size > most {
		return nil, unreadable("The WAV file's fmt chunk has %d bytes; want %d to %d.", size, least, most)
	}
	data := make([]byte, size+size%2)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, unreadable("The WAV file ends in its header.")
	}
	h := new(waveHeader)
	if err := binary.Read(bytes.NewReader(data), binary.LittleEndian, h); err != nil {
		return nil, unreadable("The WAV file's header cannot be read: %v.", err)
	}
	if h.Kind == waveExtensible && len(data) >= 26 {
		h.Kind = binary.LittleEndian.Uint16(data[24:]) // the first bytes of SubFormat
	}
	return h, nil
}

// reader returns how one sample is read, of a number of bytes.
func (h *waveHeader) reader() (bytes int, read func([]byte) float32) {
	le := binary.LittleEndian
	switch {
	case h.Kind == wavePCM && h.Bits == 8:
		return 1, func(b []byte) float32 { return (float32(b[0]) - 128) / 128 }
	case h.Kind == wavePCM && h.Bits > 8 && h.Bits <= 16:
		return 2, func(b []byte) float32 { return float32(int16(le.Uint16(b))) / (1 << 15) }
	case h.Kind == wavePCM && h.Bits > 16 && h.Bits <= 24:
		return 3, func(b []byte) float32 {
			return float32(int32(uint32(b[0])<<8|uint32(b[1])<<16|uint32(b[2])<<24)>>8) / (1 << 23)
		}
	case h.Kind == wavePCM && h.Bits > 24 && h.Bits <= 32:
		return 4, func(b []byte) float32 { return float32(int32(le.Uint32(b))) / (1 << 31) }
	case h.Kind == waveFloat && h.Bits == 32:
		return 4, func(b []byte) float32 { return finite(math.Float32frombits(le.Uint32(b))) }
	case h.Kind == waveFloat && h.Bits == 64:
		return 8, func(b []byte) float32 { return finite(float32(math.Float64frombits(le.Uint64(b)))) }
	case h.Kind == waveALaw && h.Bits == 8:
		return 1, func(b []byte) float32 { return aLaw(b[0]) }
	case h.Kind == waveMuLaw && h.Bits == 8:
		return 1, func(b []byte) float32 { return muLaw(b[0]) }
	}
	return 0, nil
}

// finite is silence in the place of what is no number.
func finite(v float32) float32 {
	if v != v || math.IsInf(float64(v), 0) {
		return 0
	}
	return v
}

// aLaw and muLaw expand 8 bits of telephony (ITU-T G.711).
func aLaw(b byte) float32 {
	b ^= 0x55
	mantissa, exponent := int(b&15)<<4+8, int(b>>4&7)
	if exponent > 0 {
		mantissa = (mantissa + 0x100) << (exponent - 1)
	}
	if b&0x80 == 0 {
		mantissa = -mantissa
	}
	return float32(mantissa) / (1 << 15)
}

func muLaw(b byte) float32 {
	const bias = 0x84
	b = ^b
	v := (int(b&15)<<3+bias)<<(b>>4&7) - bias
	if b&0x80 != 0 {
		v = -v
	}
	return float32(v) / (1 << 15)
}

func (h *waveHeader) samples(r io.Reader) (*Clip, error) {
	bytes, read := h.reader()
	if read == nil {
		return nil, unreadable("The WAV file's samples are of kind %d with %d bits; PCM of 8 to 32 bits, float of 32 and 64, A-law and µ-law are read.", h.Kind, h.Bits)
	}
	if h.Rate > math.MaxInt32 {
		h.Rate = math.MaxInt32
	}
	b, problem := newBuilder(int(h.Rate), int(h.Channels))
	if problem != nil {
		return nil, problem
	}
	frame := bytes * int(h.Channels)
	buffer, samples := make([]byte, 4096*frame), make([]float32, 4096*int(h.Channels))
	for {
		n, err := io.ReadFull(r, buffer)
		n -= n % frame
		for i := 0; i < n; i += bytes {
			samples[i/bytes] = read(buffer[i:])
		}
		if problem := b.add(samples[:n/bytes]); problem != nil {
			return nil, problem
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &b.clip, nil
		}
		if err != nil {
			return nil, queue.Problemf(codeUnreadable, "The sound could not be read: %v.", err)
		}
	}
}

// waveHead returns the header of a WAV file with 16 bits a sample, of so many bytes of them;
// fewer than 0 is a stream whose length nobody knows.
func waveHead(rate, channels int, bytes int64) []byte {
	size, riff := uint32(0xffffffff), uint32(0xffffffff)
	if bytes >= 0 && bytes < 0xffffffff-36 {
		size, riff = uint32(bytes), uint32(bytes)+36
	}
	le := binary.LittleEndian
	h := le.AppendUint32([]byte("RIFF"), riff)
	h = le.AppendUint32(append(h, "WAVEfmt "...), 16)
	h = le.AppendUint16(h, wavePCM)
	h = le.AppendUint16(h, uint16(channels))
	h = le.AppendUint32(h, uint32(rate))
	h = le.AppendUint32(h, uint32(2*channels*rate))
	h = le.AppendUint16(h, uint16(2*channels))
	h = le.AppendUint16(h, 16)
	return le.AppendUint32(append(h, "data"...), size)
}

// appendPCM appends samples of 16 bits, rounded; what is beyond -1 to 1 is clipped.
func appendPCM(b []byte, samples []float32) []byte {
	for _, v := range samples {
		b = binary.LittleEndian.AppendUint16(b, uint16(pcm16(v)))
	}
	return b
}

func pcm16(v float32) int16 {
	return int16(min(max(math.RoundToEven(float64(finite(v))*32768), math.MinInt16), math.MaxInt16))
}

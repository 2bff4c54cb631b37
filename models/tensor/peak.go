package tensor

import (
	"context"
	"encoding/binary"
	"time"
)

// Peaks are the highest rates that a pool's threads reach together with the
// instructions of its level: what the speed of a kernel is to be compared with. A
// multiplication and the addition of its product are two operations.
type Peaks struct {
	Threads int
	F32     float64 // GFLOP/s of float32
	BF16    float64 // GFLOP/s of BF16 products summed in float32; 0 if there is no instruction for them
	Int8    float64 // Gop/s of products of bytes summed in 32 bits
	Read    float64 // GB/s read from memory in order
}

// Effort of Pool.Peaks. The memory is more than processors have of cache for two
// cores, and is read in pieces that keep all threads busy to the end.
const (
	peakTime   = 300 * time.Millisecond // for each figure
	peakMemory = 512 << 20              // bytes
	peakPiece  = 1 << 20                // bytes
	peakRounds = 1 << 14                // of a loop in one part of a run
)

// Peaks measures, for a second or two and with 512 MiB of memory. Each figure is the
// best of many short runs, which others' work on the machine disturbs least. It stops
// when ctx ends, with the context's cause.
func (p *Pool) Peaks(ctx context.Context) (Peaks, error) {
	return p.peaks(ctx, peakTime, peakMemory)
}

func (p *Pool) peaks(ctx context.Context, each time.Duration, memory int) (Peaks, error) {
	m, l := meter{ctx: ctx, exec: NewExec(p), each: each}, p.uses().loops()
	peaks := Peaks{Threads: p.Threads(), F32: m.operations(l.f32), BF16: m.operations(l.bf16), Int8: m.operations(l.int8)}
	if ctx.Err() == nil {
		peaks.Read = m.reading(l.read, memory)
	}
	if ctx.Err() != nil {
		return Peaks{}, context.Cause(ctx)
	}
	return peaks, nil
}

// peakLoops are the loops of one level.
type peakLoops struct {
	f32, bf16, int8 peakLoop
	read            func([]byte) // reads it all; the length is a multiple of 512
}

// peakLoop does nothing but multiply and add.
type peakLoop struct {
	run        func(rounds int) // nil if there is no such instruction
	operations int              // of one round
}

// meter measures for one call of Peaks.
type meter struct {
	ctx  context.Context
	exec *Exec
	each time.Duration
}

// operations returns the rate of a loop in 1e9/s.
func (m *meter) operations(l peakLoop) float64 {
	if l.run == nil {
		return 0
	}
	parts := 128 * m.exec.pool.Threads()
	return m.best(eachPart(func(int) { l.run(peakRounds) }), parts, float64(l.operations)*peakRounds)
}

// reading returns the rate of reading so many bytes in 1e9/s.
func (m *meter) reading(read func([]byte), size int) float64 {
	memory := make([]byte, size)
	piece := func(i int) []byte { return memory[i*peakPiece:][:peakPiece] }
	parts := size / peakPiece
	m.exec.run(eachPart(func(i int) { // a page that was never written is not in memory
		for b := piece(i); len(b) > 0; b = b[512:] {
			b[0] = 1
		}
	}), parts)
	return m.best(eachPart(func(i int) { read(piece(i)) }), parts, peakPiece)
}

// best runs t again and again and returns the best rate, in 1e9/s, of a task that does
// so much in each part.
func (m *meter) best(t task, parts int, work float64) float64 {
	var best float64
	for begin := time.Now(); m.ctx.Err() == nil && (best == 0 || time.Since(begin) < m.each); {
		start := time.Now()
		m.exec.run(t, parts)
		best = max(best, work*float64(parts)/float64(time.Since(start).Nanoseconds()))
	}
	return best
}

// eachPart is a task that calls a function.
type eachPart func(i int)

func (f eachPart) part(i int) { f(i) }

// genericLoops is what Go does without assembly.
var genericLoops = peakLoops{
	f32:  peakLoop{func(n int) { _ = multiplyAdd[float32](n) }, 2 * 8},
	int8: peakLoop{func(n int) { _ = multiplyAdd[int32](n) }, 2 * 8},
	read: func(b []byte) { readWords(b) },
}

// multiplyAdd does n rounds of eight multiplications and additions.
//
//go:noinline
func multiplyAdd[T int32 | float32](n int) T {
	a, b, c, d := T(n&1), T(n&2), T(n&4), T(n&8) // not known to the compiler
	var x, y, s0, s1, s2, s3, s4, s5, s6, s7 T
	for range n {
		s0 += x * a
		s1 += x * b
		s2 += x * c
		s3 += x * d
		s4 += y * a
		s5 += y * b
		s6 += y * c
		s7 += y * d
		x, y = y, s0
	}
	return s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7
}

// readWords reads b eight words at a time.
//
//go:noinline
func readWords(b []byte) uint64 {
	var s0, s1, s2, s3 uint64
	for ; len(b) >= 64; b = b[64:] {
		s0 ^= binary.LittleEndian.Uint64(b) ^ binary.LittleEndian.Uint64(b[32:])
		s1 ^= binary.LittleEndian.Uint64(b[8:]) ^ binary.LittleEndian.Uint64(b[40:])
		s2 ^= binary.LittleEndian.Uint64(b[16:]) ^ binary.LittleEndian.Uint64(b[48:])
		s3 ^= binary.LittleEndian.Uint64(b[24:]) ^ binary.LittleEndian.Uint64(b[56:])
	}
	return s0 ^ s1 ^ s2 ^ s3
}

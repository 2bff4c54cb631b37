// Package bench measures how fast the engine is on this machine: matrix products,
// attention, convolution and whole language models, each beside the rate that the
// machine itself reaches (tensor.Peaks), measured in the same run.
//
// The data is random but the work is not: shapes, types and code are those of real
// models. Times are of whole operations, with all conversion of activations and all
// distribution among threads in them.
package bench

import (
	"context"
	"slices"
	"time"

	"helicon/models/tensor"
)

// Result is one measurement. Rates are those of the best repetition, which others'
// work on the machine disturbed least.
type Result struct {
	Case        string  `json:"case"`
	Type        string  `json:"type"` // of the weights, as tensor.DType names it
	Repetitions int     `json:"repetitions"`
	Best        float64 `json:"best_ms"`   // milliseconds
	Median      float64 `json:"median_ms"` // milliseconds

	// Tokens is what one repetition reads or writes; 0 where there are none.
	Tokens int     `json:"tokens,omitempty"`
	Rate   float64 `json:"tokens_per_second,omitempty"`

	Gops float64 `json:"gops"` // 1e9 multiplications and additions a second
	GBs  float64 `json:"gbs"`  // 1e9 bytes of weights, or of keys and values, a second

	// Peak says what Fraction is a fraction of.
	Peak     Peak    `json:"peak"`
	Fraction float64 `json:"fraction"`
}

// Peak is one of the rates of a machine that an operation can be bound by.
type Peak string

// The peaks, of tensor.Peaks.
const (
	F32  Peak = "f32"
	BF16 Peak = "bf16"
	Int8 Peak = "int8"
	Read Peak = "read"
)

// Bench measures on the threads of a pool.
type Bench struct {
	pool  *tensor.Pool
	peaks tensor.Peaks
	time  time.Duration
}

// New measures the machine's peaks, which takes a second or two. Each measurement of
// the Bench is repeated for so long, and three times at least. The error is the cause of
// ctx's end.
func New(ctx context.Context, pool *tensor.Pool, each time.Duration) (*Bench, error) {
	peaks, err := pool.Peaks(ctx)
	if err != nil {
		return nil, err
	}
	return &Bench{pool: pool, peaks: peaks, time: each}, nil
}

// Peaks returns the machine's peaks.
func (b *Bench) Peaks() tensor.Peaks { return b.peaks }

// work is what one repetition of an operation does.
type work struct {
	name       string
	dtype      tensor.DType
	operations float64
	bytes      float64
	tokens     int
	peak       Peak
}

const (
	minRepetitions = 3
	maxRepetitions = 10_000
)

// measure runs an operation, which must stop when ctx ends, again and again.
func (b *Bench) measure(ctx context.Context, w work, run func(ctx context.Context) error) (Result, error) {
	if err := run(ctx); err != nil { // touches the memory and wakes the threads
		return Result{}, err
	}
	var times []time.Duration
	for begin := time.Now(); len(times) < minRepetitions || time.Since(begin) < b.time && len(times) < maxRepetitions; {
		if ctx.Err() != nil {
			return Result{}, context.Cause(ctx)
		}
		start := time.Now()
		if err := run(ctx); err != nil {
			return Result{}, err
		}
		times = append(times, max(time.Since(start), 1))
	}
	slices.Sort(times)
	return b.result(w, times), nil
}

// result makes the figures of sorted times.
func (b *Bench) result(w work, times []time.Duration) Result {
	best, seconds := times[0], times[0].Seconds()
	r := Result{
		Case: w.name, Type: w.dtype.String(), Repetitions: len(times),
		Best: milliseconds(best), Median: milliseconds(times[len(times)/2]),
		Tokens: w.tokens, Rate: float64(w.tokens) / seconds,
		Gops: w.operations / seconds / 1e9, GBs: w.bytes / seconds / 1e9, Peak: w.peak,
	}
	switch w.peak {
	case F32:
		r.Fraction = r.Gops / b.peaks.F32
	case BF16:
		r.Fraction = r.Gops / b.peaks.BF16
	case Int8:
		r.Fraction = r.Gops / b.peaks.Int8
	case Read:
		r.Fraction = r.GBs / b.peaks.Read
	}
	return r
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// multiplying returns the peak that products with weights of a type are bound by when
// there are many activations for each weight.
func (b *Bench) multiplying(d tensor.DType) Peak {
	switch {
	case d.Quantised() || d == tensor.I8:
		return Int8
	case d == tensor.BF16 && b.peaks.BF16 > 0:
		return BF16
	}
	return F32
}

// Types returns the types of weights that are measured.
func Types() []tensor.DType {
	return []tensor.DType{
		tensor.F32, tensor.F16, tensor.BF16,
		tensor.Q8_0, tensor.Q4_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K,
	}
}

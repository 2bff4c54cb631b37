package tensor

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
)

func TestPeaks(t *testing.T) {
	for name, p := range map[string]*Pool{"caller alone": nil, "two threads": pool(t, 2)} {
		t.Run(name, func(t *testing.T) {
			got, err := p.peaks(t.Context(), time.Millisecond, 4<<20)
			if err != nil {
				t.Fatal(err)
			}
			if got.Threads != p.Threads() {
				t.Errorf("threads: got %d, want %d", got.Threads, p.Threads())
			}
			for figure, v := range map[string]float64{"F32": got.F32, "Int8": got.Int8, "Read": got.Read} {
				if !(v > 0) || math.IsInf(v, 0) {
					t.Errorf("%s: got %v", figure, v)
				}
			}
			if !(got.BF16 >= 0) || math.IsInf(got.BF16, 0) {
				t.Errorf("BF16: got %v", got.BF16)
			}
		})
	}
}

// TestGenericPeaks runs the loops that the machine's own level may leave out.
func TestGenericPeaks(t *testing.T) {
	t.Parallel()
	m := meter{ctx: t.Context(), exec: NewExec(nil), each: time.Millisecond}
	for name, v := range map[string]float64{
		"f32": m.operations(genericLoops.f32), "int8": m.operations(genericLoops.int8), "read": m.reading(genericLoops.read, 1<<20),
	} {
		if !(v > 0) || math.IsInf(v, 0) {
			t.Errorf("%s: got %v", name, v)
		}
	}
}

func TestPeaksStop(t *testing.T) {
	t.Parallel()
	why := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	stop(why)
	if _, err := (*Pool)(nil).Peaks(ctx); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
}

// BenchmarkPeaks prints the machine's peaks on two threads.
func BenchmarkPeaks(b *testing.B) {
	p := pool(b, 2)
	for b.Loop() {
		peaks, err := p.Peaks(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(peaks.F32, "f32-GFLOP/s")
		b.ReportMetric(peaks.BF16, "bf16-GFLOP/s")
		b.ReportMetric(peaks.Int8, "int8-Gop/s")
		b.ReportMetric(peaks.Read, "read-GB/s")
	}
}

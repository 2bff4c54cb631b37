package spectrum

import (
	"math"
	"math/cmplx"
	"testing"
)

// TestPower compares the transform with its definition, for lengths of many kinds.
func TestPower(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2, 3, 8, 15, 17, 25, 100, 400} {
		s := NewSTFT(size, max(size/3, 1))
		x := make([]float32, 3*size+5)
		for i := range x {
			x[i] = float32(math.Sin(0.7*float64(i)) + 0.3*math.Cos(2.1*float64(i*i%17)))
		}
		frames := s.Frames(len(x))
		got := s.Power(x, frames)
		if len(got) != frames*s.Bins() {
			t.Fatalf("%d: %d numbers, want %d·%d", size, len(got), frames, s.Bins())
		}
		for _, f := range []int{0, 1, frames - 1} {
			for k := range s.Bins() {
				sum := complex(0, 0)
				for i := range size {
					w := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(size))
					v := mirrored(x, f*s.Hop+i-size/2)
					sum += complex(w*float64(v), 0) * cmplx.Rect(1, -2*math.Pi*float64(k*i)/float64(size))
				}
				want := real(sum)*real(sum) + imag(sum)*imag(sum)
				if math.Abs(got[f*s.Bins()+k]-want) > 1e-9*float64(size*size) {
					t.Errorf("%d: frame %d, bin %d: %v, want %v", size, f, k, got[f*s.Bins()+k], want)
				}
			}
		}
	}
}

func TestMirrored(t *testing.T) {
	t.Parallel()
	x := []float32{1, 2, 3}
	for i, want := range map[int]float32{-3: 2, -2: 3, -1: 2, 0: 1, 2: 3, 3: 2, 4: 1, 5: 2, 100: 1, -100: 1} {
		if got := mirrored(x, i); got != want {
			t.Errorf("%d: %v, want %v", i, got, want)
		}
	}
	if mirrored(nil, 3) != 0 || mirrored(x[:1], -7) != 1 {
		t.Error("of nothing, or of one")
	}
}

// TestMel checks that the scale leads there and back, and that a band of white noise has its
// mean, whatever its width.
func TestMel(t *testing.T) {
	t.Parallel()
	s := Slaney()
	for _, f := range []float64{0, 100, 999, 1000, 1001, 8000} {
		if got := s.FromMel(s.ToMel(f)); math.Abs(got-f) > 1e-9*max(f, 1) {
			t.Errorf("%v Hz becomes %v", f, got)
		}
	}
	const size, bands = 4096, 20
	filters := MelFilters(s, 16000, size, bands, 0, 8000)
	flat := make([]float64, size/2+1)
	for i := range flat {
		flat[i] = 3
	}
	for m, v := range Bands(flat, filters, size/2+1) {
		if want := 3 * float64(size) / 16000; math.Abs(v-want) > 0.02*want {
			t.Errorf("band %d: %v, want %v", m, v, want)
		}
	}
}

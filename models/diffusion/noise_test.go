package diffusion

import (
	"math"
	"slices"
	"testing"
)

// TestPhilox compares with the known answers of the Random123 distribution.
func TestPhilox(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		counter [4]uint32
		key     uint64
		want    [4]uint32
	}{
		{[4]uint32{}, 0, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0)}, ^uint64(0), [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := philox(tt.counter, tt.key); got != tt.want {
			t.Errorf("philox(%x, %x) = %x, want %x", tt.counter, tt.key, got, tt.want)
		}
	}
}

func TestSeededNoise(t *testing.T) {
	t.Parallel()
	const n = 100_000
	x := make([]float32, n)
	seededNoise(7)(startStream, x)
	var sum, squares, fourth float64
	for _, v := range x {
		f := float64(v)
		sum, squares, fourth = sum+f, squares+f*f, fourth+f*f*f*f
	}
	if mean := sum / n; math.Abs(mean) > 0.02 {
		t.Errorf("mean %v", mean)
	}
	if variance := squares / n; math.Abs(variance-1) > 0.02 {
		t.Errorf("variance %v", variance)
	}
	if kurtosis := fourth / n; math.Abs(kurtosis-3) > 0.2 {
		t.Errorf("fourth moment %v", kurtosis)
	}
	part := make([]float32, 99)
	seededNoise(7)(startStream, part)
	if !slices.Equal(part, x[:99]) {
		t.Error("noise depends on how much is asked for")
	}
	for _, other := range []func(){
		func() { seededNoise(8)(startStream, part) },
		func() { seededNoise(7)(samplerStream, part) },
	} {
		other()
		if slices.Equal(part, x[:99]) {
			t.Error("two streams are equal")
		}
	}
}

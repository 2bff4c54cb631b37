//go:build !purego

package tensor

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestTileKernels(t *testing.T) {
	if !detectTiles() {
		t.Skip("the machine has no AMX for BF16")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	number := func() uint16 { return uint16(math.Float32bits(rng.Float32()-0.5) >> 16) }
	value := func(b uint16) float64 { return float64(math.Float32frombits(uint32(b) << 16)) }
	for _, tokens := range []int{1, 2, 15, 16, 17, 31, 32} {
		for _, groups := range []int{1, 2, 3, 4, 5, 7} {
			for _, steps := range []int{1, 2, 5} {
				k := steps * tileColumns
				x, w := make([]uint16, tokens*(k+8)), make([]uint16, groups*16*k)
				for i := range x {
					x[i] = number()
				}
				for i := range w {
					w[i] = number()
				}
				stride := groups*16 + 3
				y := make([]float32, tokens*stride)
				config := tileConfigFor(tokens)
				for g := 0; g < groups; {
					c := tileCall{&config, &x[0], 2 * (k + 8), &y[g*16], 4 * stride, &w[g*16*k], 32 * k, steps, 0}
					g += c.run(tokens, groups-g)
				}
				for i := range tokens {
					for r := range groups * 16 {
						var want float64
						for j := range k {
							want += value(x[i*(k+8)+j]) * value(w[r/16*16*k+j/2*32+r%16*2+j%2])
						}
						if got := float64(y[i*stride+r]); math.Abs(got-want) > 1e-5 {
							t.Fatalf("%d tokens, %d groups, %d columns: y[%d][%d] = %v, want %v", tokens, groups, k, i, r, got, want)
						}
					}
				}
			}
		}
	}
}

//go:build !purego

package tensor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// TestTileProducts compares the kernels with sums in double precision, from any start.
func TestTileProducts(t *testing.T) {
	t.Parallel()
	if !detectTiles() {
		t.Skip("the machine has no AMX for BF16")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []uint16 {
		x := make([]uint16, n)
		for i := range x {
			x[i] = floatToBFloat(rng.Float32() - 0.5)
		}
		return x
	}
	value := func(b uint16) float64 { return float64(math.Float32frombits(uint32(b) << 16)) }
	for _, height := range []int{1, 7, 16} {
		for rows := 1; rows <= 5; rows++ {
			for columns := 1; columns <= 2; columns++ {
				for _, steps := range []int{1, 2, 5} {
					name := fmt.Sprintf("%d row tiles of %d, %d column tiles, %d steps", rows, height, columns, steps)
					a, b := random(rows*steps*height*32), random(columns*steps*512)
					start, c := normal(1, 16*columns), make([]float32, rows*height*40)
					config := newTileConfig(height)
					call := tileCall{
						config: &config, steps: steps, rows: rows, claim: columns - 1,
						a: bytesOf(a), aNext: steps * height * 64, aStep: height * 64, b: bytesOf(b), bNext: steps * tileBytes,
						c: tileSums{&c[0], 4 * 40, 4 * 40 * height, 64}, start: tileSums{at: &start[0], column: 64},
					}
					call.run(columns)
					for i, got := range c {
						row, column := i/40, i%40
						var want float64
						if column < 16*columns {
							want = float64(start[column])
							for k := range steps * 32 {
								x := a[(row/height*steps+k/32)*height*32+row%height*32+k%32]
								w := b[column/16*steps*512+k/2*32+column%16*2+k%2]
								want += value(x) * value(w)
							}
						}
						if math.Abs(float64(got)-want) > 1e-5 {
							t.Fatalf("%s: row %d, column %d is %v, want %v", name, row, column, got, want)
						}
					}
				}
			}
		}
	}
}

func bytesOf(x []uint16) *byte { return (*byte)(unsafe.Pointer(unsafe.SliceData(x))) }

// TestRoundTiles compares with rounding one by one.
func TestRoundTiles(t *testing.T) {
	t.Parallel()
	if !detectTiles() {
		t.Skip("the machine has no AMX for BF16")
	}
	for tokens := 1; tokens <= 35; tokens += 1 + tokens%5 {
		for _, cols := range []int{32, 96, 160} {
			x := normal(1, tokens*cols)
			got := cast[uint16](alignedBytes(tokens * tileStrips{}.bytes(cols)))
			tileStrips{}.prepare(unsafe.Slice(bytesOf(got), 2*len(got)), x, cols, tokens)
			for i, v := range x {
				token, col := i/cols, i%cols
				first := token &^ 15
				height := min(16, tokens-first)
				at := first*cols + col/32*height*32 + (token-first)*32 + col%32
				if got[at] != floatToBFloat(v) {
					t.Fatalf("%d tokens: token %d, column %d is %#x, want %#x", tokens, token, col, got[at], floatToBFloat(v))
				}
			}
		}
	}
}

//go:build !purego

package tensor

import (
	"fmt"
	"math"
	"testing"
)

// TestTileOperands compares what lays out operands of attention with doing it one by one.
func TestTileOperands(t *testing.T) {
	t.Parallel()
	if !detectTiles() {
		t.Skip("the machine has no AMX for BF16")
	}
	const stride = 41
	x := normal(1, 32*stride)
	tile := alignedBytes(tileBytes)
	words := cast[uint16](tile)
	at := func(row, column, columns int) uint16 {
		if column >= columns {
			return 0
		}
		return floatToBFloat(x[row*stride+column])
	}
	for columns := 1; columns <= 32; columns++ {
		tileQueries(tile, x, stride, columns)
		for i, got := range words {
			if want := at(i/2%16, i/32*2+i%2, columns); got != want {
				t.Fatalf("queries of %d columns: word %d is %#x, want %#x", columns, i, got, want)
			}
		}
		if columns > 16 {
			continue
		}
		tileValues(tile, x, stride, columns)
		for i, got := range words {
			if want := at(i%32, i/32, columns); got != want {
				t.Fatalf("values of %d columns: word %d is %#x, want %#x", columns, i, got, want)
			}
		}
		out, share := make([]float32, 16*stride), [queriesAbreast]float32(normal(2, queriesAbreast))
		tileResults(out, stride, x, &share, columns)
		for i, got := range out {
			var want float32
			if r, c := i/stride, i%stride; c < columns {
				want = x[c*16+r] * share[r]
			}
			if got != want {
				t.Fatalf("results of %d columns: %d is %v, want %v", columns, i, got, want)
			}
		}
	}
}

// TestTileSoftmax compares with powers of two in double precision.
func TestTileSoftmax(t *testing.T) {
	t.Parallel()
	if !detectTiles() {
		t.Skip("the machine has no AMX for BF16")
	}
	for _, keys := range []int{32, 64, 256} {
		for _, size := range []float32{0, 0.01, 3, 300} {
			const rows = 5
			scores, top, sums := normal(1, 16*keys), normal(2, 16), normal(3, 16*rows)
			for i := range scores {
				scores[i] *= size
			}
			top[3], top[4] = float32(math.Inf(-1)), 1000
			for i := range 16 {
				top[i] = float32(math.Ceil(float64(top[i])))
			}
			before, sumsBefore := append([]float32(nil), top...), append([]float32(nil), sums...)
			p := alignedBytes(2 * len(scores))
			tileSoftmax(p, scores, top, sums, rows)
			name := fmt.Sprintf("%d keys, scores of %v", keys, size)
			for q := range 16 {
				want := float64(before[q])
				for k := range keys {
					want = math.Max(want, math.Ceil(float64(scores[k*16+q])))
				}
				if float64(top[q]) != want {
					t.Fatalf("%s: top %d is %v, want %v", name, q, top[q], want)
				}
				for r := range rows {
					got, want := sums[r*16+q], sumsBefore[r*16+q]*float32(math.Exp2(float64(before[q]-top[q])))
					if got != want {
						t.Fatalf("%s: sum %d of query %d is %v, want %v", name, r, q, got, want)
					}
				}
				for k := range keys {
					got := float64(math.Float32frombits(uint32(cast[uint16](p)[k/2*32+2*q+k%2]) << 16))
					want := math.Exp2(math.Max(float64(scores[k*16+q]-top[q]), -126))
					if math.Abs(got-want) > want*0x1.1p-8 {
						t.Fatalf("%s: weight of key %d for query %d is %v, want %v", name, k, q, got, want)
					}
				}
			}
		}
	}
}

package tensor

import (
	"fmt"
	"testing"
)

// TestQuantisedOneToken compares products with single tokens at all levels: whole and
// broken groups of rows, fewer columns than are fetched ahead and more, with and without
// a bias.
func TestQuantisedOneToken(t *testing.T) {
	t.Parallel()
	for _, d := range blockDTypes {
		n, _ := d.Block()
		for _, rows := range []int{1, 16, 47, 400} {
			for _, cols := range []int{n, 1024} {
				plain, values := randomQuantised(uint64(rows), d, rows, cols)
				w, x := plain.Pack(nil), activations(uint64(rows), cols)
				for _, bias := range [][]float32{nil, normal(3, rows)} {
					want := make([]float32, rows)
					execAt(t, Config{Threads: 1, Level: Generic}).MatMul(want, x, w, bias)
					checkQuantised(t, fmt.Sprintf("%v [%d, %d]", d, rows, cols), want, x, values, bias, cols)
					for _, l := range levelsOf() {
						got := make([]float32, rows)
						execAt(t, Config{Threads: 3, Level: l}).MatMul(got, x, w, bias)
						same(t, fmt.Sprintf("%v of %v [%d, %d]", l, d, rows, cols), got, want)
					}
				}
			}
		}
	}
}

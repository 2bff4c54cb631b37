package tensor

import (
	"fmt"
	"testing"
)

// BenchmarkImageRows measures the operations between the products of a U-Net and a decoder in
// bytes read and written a second, on two threads.
func BenchmarkImageRows(b *testing.B) {
	for _, z := range []struct{ pixels, channels int }{{64 * 64, 320}, {16 * 16, 1280}, {256 * 256, 128}} {
		n := z.pixels * z.channels
		x, y, w := normal(1, n), normal(2, n), normal(3, z.channels)
		e := execAt(b, Config{Threads: 2, Level: benchLevel(b)})
		for name, op := range map[string]struct {
			run   func()
			bytes int
		}{
			"group norm and SiLU": {func() {
				e.GroupNorm(GroupNorm{Y: y, X: x, Weight: w, Bias: w, Groups: 32, Eps: 1e-5, Activation: SiLU})
			}, 12 * n},
			"group norm": {func() {
				e.GroupNorm(GroupNorm{Y: y, X: x, Weight: w, Bias: w, Groups: 32, Eps: 1e-5})
			}, 12 * n},
			"layer norm":   {func() { e.LayerNorm(y, x, w, w, 1e-5) }, 8 * n},
			"add":          {func() { e.Add(y, x) }, 12 * n},
			"gate by GELU": {func() { e.Gate(GELU, y, x) }, 12 * n},
			"copy":         {func() { copy(y, x) }, 8 * n},
		} {
			b.Run(fmt.Sprintf("%s/%dx%d", name, z.pixels, z.channels), func(b *testing.B) {
				seconds := best(b, op.run)
				b.ReportMetric(float64(op.bytes)/seconds/1e9, "GB/s")
			})
		}
	}
}

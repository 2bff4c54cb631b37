//go:build !purego

package tensor

import (
	"fmt"
	"math"
	"testing"
)

// eachLevel runs f with every level that this machine has.
func eachLevel(f func(l Level)) {
	for l := Generic; l <= BestLevel(); l++ {
		f(l)
	}
}

// TestKernels compares the assembly with its Go twin over odd sizes and misaligned
// starts, and the shapes of call with one another bit for bit.
func TestKernels(t *testing.T) {
	eachLevel(func(l Level) {
		for _, d := range []DType{F32, F16, BF16} {
			for cols := 1; cols <= 67; cols++ {
				rows, tokens := 1+cols%11, 1+cols%9
				data, values := encode(d, normal(uint64(cols), rows*cols))
				data = append(make([]byte, d.Size(), d.Size()+len(data)), data...)[d.Size():]
				w := NewMatrix(d, rows, cols, data)
				x := normal(2, 1+tokens*cols)[1:]
				z := shape{tokens: tokens, yStride: rows, xStride: cols}
				name := fmt.Sprintf("%v %v [%d, %d]·[%d, %d]ᵀ", l, d, tokens, cols, rows, cols)

				want, got := make([]float32, tokens*rows), make([]float32, tokens*rows)
				multiplyGeneric(want, x, w, z)
				multiply(l, got, x, w, z)
				for i := range got {
					var size float64 // of the terms
					for k := range cols {
						size += math.Abs(float64(x[i/rows*cols+k]) * float64(values[i%rows*cols+k]))
					}
					if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= 1e-6*size) {
						t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], want[i])
					}
				}
				alone := make([]float32, len(got))
				for i := range tokens {
					z.tokens = 1
					multiply(l, alone[i*rows:], x[i*cols:], w, z)
				}
				same(t, name+" token by token", alone, got)
			}
		}
	})
}

// TestKernelsOnStrangeValues checks that NaN, infinities and denormals take the
// same way through every implementation, wherever they stand.
func TestKernelsOnStrangeValues(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	const tiny = 0x1p-24 // the smallest half
	eachLevel(func(l Level) {
		for _, d := range []DType{F32, F16, BF16} {
			for at := range 35 {
				const rows, cols, tokens = 5, 35, 5
				values := make([]float32, rows*cols)
				values[at], values[cols+at], values[2*cols+at], values[3*cols+at] = nan, inf, -inf, tiny
				var data []byte
				if d == F16 {
					data = make([]byte, 2*len(values))
					for i, half := range []uint16{0x7e00, 0x7c00, 0xfc00, 0x0001} {
						data[2*(i*cols+at)], data[2*(i*cols+at)+1] = byte(half), byte(half>>8)
					}
				} else {
					data, _ = encode(d, values)
				}
				x := make([]float32, tokens*cols)
				for i := range tokens {
					x[i*cols+at] = 0x1p-120
				}
				y := make([]float32, tokens*rows)
				multiply(l, y, x, NewMatrix(d, rows, cols, data), shape{tokens: tokens, yStride: rows, xStride: cols})
				for i := range tokens {
					r := y[i*rows:][:rows]
					if r[0] == r[0] || r[1] != inf || r[2] != -inf || r[3] != tiny*0x1p-120 || r[4] != 0 {
						t.Fatalf("%v %v at %d, token %d: %v", l, d, at, i, r)
					}
				}
			}
		}
	})
}

func TestAddWeightedKernels(t *testing.T) {
	eachLevel(func(l Level) {
		for d := 1; d <= 150; d++ {
			rows := d % 10
			p, x := normal(1, rows+1)[1:], normal(2, rows*d+1)[1:]
			got, want := normal(3, d), normal(3, d)
			addWeighted(l, got, p, x)
			addWeightedGeneric(want, p, x)
			for i := range want {
				if diff := math.Abs(float64(got[i]) - float64(want[i])); !(diff <= 3e-6) {
					t.Fatalf("%v: %d rows of %d: element %d is %v, want %v", l, rows, d, i, got[i], want[i])
				}
			}
		}
	})
}

// BenchmarkKernels compares the implementations on one thread.
func BenchmarkKernels(b *testing.B) {
	eachLevel(func(l Level) {
		for _, tokens := range []int{1, 64} {
			for _, d := range []DType{F32, F16, BF16} {
				b.Run(fmt.Sprintf("%v/%dx736x320/%v", l, tokens, d), func(b *testing.B) {
					const rows, cols = 736, 320
					w, _ := randomMatrix(1, d, rows, cols)
					x, y := normal(2, tokens*cols), make([]float32, tokens*rows)
					for b.Loop() {
						multiply(l, y, x, w, shape{tokens: tokens, yStride: rows, xStride: cols})
					}
					flops := 2 * float64(tokens) * rows * cols * float64(b.N)
					b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
		b.Run(fmt.Sprintf("%v/addWeighted 64x64", l), func(b *testing.B) {
			y, p, x := normal(1, 64), normal(2, 64), normal(3, 64*64)
			for b.Loop() {
				addWeighted(l, y, p, x)
			}
		})
	})
}

package tensor

import (
	"fmt"
	"math"
	"os"
	"testing"
	"time"
)

// BenchmarkMatMul measures products of packed weights on two threads, the preparation of
// activations included: type/tokens×rows×columns.
func BenchmarkMatMul(b *testing.B) {
	shapes := []struct{ tokens, rows, cols int }{
		{1024, 1024, 1024}, {77, 3072, 768}, {77, 768, 3072}, {16, 4096, 1024}, {16, 1024, 4096}, {512, 2048, 5632},
		{1, 320, 320}, {1, 2048, 2048}, {1, 16384, 8192}, {4, 16384, 8192}, {16, 16384, 8192},
	}
	for _, exact := range []bool{false, true} {
		for _, d := range []DType{F32, F16, BF16} {
			if exact && d != BF16 {
				continue
			}
			for _, z := range shapes {
				name := d.String()
				if exact {
					name += "exact"
				}
				b.Run(fmt.Sprintf("%s/%dx%dx%d", name, z.tokens, z.rows, z.cols), func(b *testing.B) {
					e := execAt(b, Config{Threads: 2, Exact: exact, Level: benchLevel(b)})
					w := sparseMatrix(d, z.rows, z.cols)
					x, y := normal(2, z.tokens*z.cols), make([]float32, z.tokens*z.rows)
					seconds := best(b, func() { e.MatMul(y, x, w, nil) })
					b.ReportMetric(2*float64(z.tokens*z.rows*z.cols)/seconds/1e9, "GFLOP/s")
					b.ReportMetric(float64(w.Bytes())/seconds/1e9, "GB/s")
				})
			}
		}
	}
}

// best runs f as a benchmark does and returns the seconds of its fastest run, which
// others' work on the machine disturbs least.
func best(b *testing.B, f func()) float64 {
	least := math.Inf(1)
	for b.Loop() {
		start := time.Now()
		f()
		least = min(least, time.Since(start).Seconds())
	}
	return least
}

// benchLevel returns the level that the environment names, as the program would.
func benchLevel(b *testing.B) Level {
	l, err := ParseLevel(os.Getenv("HELICON_CPU"))
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// sparseMatrix returns a packed matrix with few elements other than 0, made quickly.
func sparseMatrix(d DType, rows, cols int) Matrix {
	m := NewMatrix(d, rows, cols, make([]byte, rows*cols*d.Size())).Pack(new(Arena))
	for i := 0; i < len(m.packed); i += 4096 {
		m.packed[i+3] = 0x3c
	}
	return m
}

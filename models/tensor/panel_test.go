package tensor

import (
	"fmt"
	"testing"
)

// eachMachineLevel calls f with every level that the machine has.
func eachMachineLevel(f func(l Level)) {
	for l := Generic; l <= BestLevel(); l++ {
		f(l)
	}
}

// TestPanels compares every level with a sum in double precision over odd sizes, and
// bit for bit between ways of cutting the rows and the sum.
func TestPanels(t *testing.T) {
	t.Parallel()
	eachMachineLevel(func(l Level) {
		for n := range 40 {
			rows, cols := 1+n*7%29, panelWidth*(1+n%5)
			p := panels{
				cStride: cols + n%3, aStride: n + n%4, bStride: n*panelWidth + n%7,
				rows: rows, cols: cols, n: n, add: n%2 == 0,
			}
			p.a = normal(1, rows*p.aStride+1)[1:]
			p.b = normal(2, cols/panelWidth*p.bStride+1)[1:]
			p.c = normal(3, rows*p.cStride)
			before := append([]float32(nil), p.c...)
			p.multiply(l)
			name := fmt.Sprintf("%v %d rows %d columns of %d", l, rows, cols, n)
			for i := range rows {
				for j := range p.cStride {
					at := i*p.cStride + j
					if j >= cols {
						same(t, name+" between rows", p.c[at:at+1], before[at:at+1])
						continue
					}
					var want float64
					if p.add {
						want = float64(before[at])
					}
					for k := range n {
						want += float64(p.a[i*p.aStride+k]) * float64(p.b[j/panelWidth*p.bStride+k*panelWidth+j%panelWidth])
					}
					near(t, fmt.Sprintf("%s: %d, %d", name, i, j), p.c[at:at+1], []float64{want}, 1e-5)
				}
			}
			whole := append([]float32(nil), p.c...)
			copy(p.c, before)
			for i := range rows { // row by row, the sum in two calls
				q := p
				q.a, q.c, q.rows, q.n = p.a[i*p.aStride:], p.c[i*p.cStride:], 1, n/2
				q.multiply(l)
				q.a, q.b, q.n, q.add = q.a[n/2:], p.b[n/2*panelWidth:], n-n/2, true
				q.multiply(l)
			}
			if n > 0 {
				same(t, name+" in pieces", p.c, whole)
			}
		}
	})
}

func BenchmarkPanels(b *testing.B) {
	eachMachineLevel(func(l Level) {
		for _, z := range []struct{ rows, cols, n int }{{48, 64, 64}, {48, 64, 128}, {96, 320, 256}, {8, 64, 64}, {1, 64, 64}} {
			b.Run(fmt.Sprintf("%v/%dx%dx%d", l, z.rows, z.cols, z.n), func(b *testing.B) {
				p := panels{rows: z.rows, cols: z.cols, n: z.n, cStride: z.cols, aStride: z.n, bStride: z.n * panelWidth, add: true}
				p.a, p.b, p.c = normal(1, z.rows*z.n), normal(2, z.n*z.cols), make([]float32, z.rows*z.cols)
				for b.Loop() {
					p.multiply(l)
				}
				flops(b, 2*float64(z.rows)*float64(z.cols)*float64(z.n))
			})
		}
	})
}

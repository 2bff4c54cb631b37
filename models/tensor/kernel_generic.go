package tensor

// This is the specification of the kernels, and what runs where there is no assembly.
// The sum of a product is taken in ascending k by one accumulator an output; what
// runs side by side is eight outputs. Every way of calling gives the same bits.

// shape says how rows of activations lie in memory: row t of x starts at t*xStride,
// row t of y at t*yStride.
type shape struct{ tokens, yStride, xStride int }

const (
	tileRows = 8   // weight rows in one tile, each with its accumulator
	tileCols = 256 // weight columns converted at a time
)

// multiplyGeneric computes y[t][r] = Σ_k x[t][k]·w[r][k].
func multiplyGeneric(y, x []float32, w Matrix, s shape) {
	var scratch [tileRows * tileCols]float32
	for r := 0; r < w.Rows; r += tileRows {
		n := min(tileRows, w.Rows-r)
		for k := 0; k < w.Cols; k += tileCols {
			m := min(tileCols, w.Cols-k)
			tile, stride := scratch[:], tileCols
			if w.DType == F32 {
				tile, stride = w.f32[r*w.Cols+k:], w.Cols
			} else {
				for i := range n {
					at := (r+i)*w.Cols + k
					widen(scratch[i*tileCols:], w.DType, w.u16[at:at+m])
				}
			}
			for t := range s.tokens {
				out := y[t*s.yStride+r:][:n]
				if k == 0 {
					clear(out)
				}
				in := x[t*s.xStride+k:][:m]
				if n == tileRows {
					dot8(out, in, tile, stride)
				} else {
					dotFew(out, in, tile, stride)
				}
			}
		}
	}
}

// dot8 adds to y[i] the dot product of x and row i of w, for eight rows.
func dot8(y, x, w []float32, stride int) {
	n := len(x)
	w0, w1 := w[0:][:n], w[stride:][:n]
	w2, w3 := w[2*stride:][:n], w[3*stride:][:n]
	w4, w5 := w[4*stride:][:n], w[5*stride:][:n]
	w6, w7 := w[6*stride:][:n], w[7*stride:][:n]
	y = y[:tileRows]
	s0, s1, s2, s3 := y[0], y[1], y[2], y[3]
	s4, s5, s6, s7 := y[4], y[5], y[6], y[7]
	for k, a := range x {
		s0 += a * w0[k]
		s1 += a * w1[k]
		s2 += a * w2[k]
		s3 += a * w3[k]
		s4 += a * w4[k]
		s5 += a * w5[k]
		s6 += a * w6[k]
		s7 += a * w7[k]
	}
	y[0], y[1], y[2], y[3] = s0, s1, s2, s3
	y[4], y[5], y[6], y[7] = s4, s5, s6, s7
}

// dotFew is dot8 for the rows that are left over.
func dotFew(y, x, w []float32, stride int) {
	for i, sum := range y {
		row := w[i*stride:][:len(x)]
		for k, a := range x {
			sum += a * row[k]
		}
		y[i] = sum
	}
}

// addWeightedGeneric adds to y the rows of x, each as long as y, weighted by p.
func addWeightedGeneric(y, p, x []float32) {
	d := len(y)
	i := 0
	for ; i+4 <= len(p); i += 4 {
		a, b, c, e := p[i], p[i+1], p[i+2], p[i+3]
		x0, x1 := x[i*d:][:d], x[(i+1)*d:][:d]
		x2, x3 := x[(i+2)*d:][:d], x[(i+3)*d:][:d]
		for k := range y {
			y[k] = (((y[k] + a*x0[k]) + b*x1[k]) + c*x2[k]) + e*x3[k]
		}
	}
	for ; i < len(p); i++ {
		row := x[i*d:][:d]
		for k, v := range row {
			y[k] += p[i] * v
		}
	}
}

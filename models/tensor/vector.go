package tensor

import (
	"fmt"
	"math"
)

// This is the specification of the kernels over rows of floats, and what runs where
// there is no assembly. The assembly differs in rounding and in the order of sums.

// activateGeneric computes y = f(x), or f(x)·up if up is not nil. y may be x.
func activateGeneric(f Activation, y, x, up []float32) {
	y = y[:len(x)]
	switch f {
	case SiLU:
		for i, v := range x {
			y[i] = v / (1 + exp(-v))
		}
	case QuickGELU:
		for i, v := range x {
			y[i] = v / (1 + exp(-1.702*v))
		}
	case GELU:
		for i, v := range x {
			y[i] = float32(0.5 * float64(v) * (1 + math.Erf(float64(v)/math.Sqrt2)))
		}
	case GELUTanh: // 0.5(1+tanh u) = σ(2u)
		for i, v := range x {
			u := 2 * float32(math.Sqrt(2/math.Pi)) * (v + 0.044715*v*v*v)
			y[i] = v / (1 + exp(-u))
		}
	case ReLU:
		for i, v := range x {
			y[i] = max(v, 0)
		}
	case Identity:
		copy(y, x)
	default:
		panic(fmt.Sprintf("tensor: unknown activation %d", f))
	}
	for i, v := range up {
		y[i] *= v
	}
}

// softCapGeneric computes x = limit·tanh(x/limit).
func softCapGeneric(x []float32, limit float32) {
	for i, v := range x {
		x[i] = limit * tanh(v/limit)
	}
}

// axpyGeneric computes y += w·x.
func axpyGeneric(y, x []float32, w float32) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += w * v
	}
}

// addHadamardGeneric computes y += w·x, the three of them vectors.
func addHadamardGeneric(y, x, w []float32) {
	y, w = y[:len(x)], w[:len(x)]
	for i, v := range x {
		y[i] += w[i] * v
	}
}

// scaleGeneric computes y = x·w.
func scaleGeneric(y, x []float32, w float32) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] = v * w
	}
}

// momentsGeneric returns Σ(x-c) and Σ(x-c)².
func momentsGeneric(x []float32, c float32) (sum, squares float64) {
	var s, q [4]float64
	i := 0
	for ; i+4 <= len(x); i += 4 {
		v := x[i : i+4 : i+4]
		a, b, d, f := float64(v[0]-c), float64(v[1]-c), float64(v[2]-c), float64(v[3]-c)
		s[0], s[1], s[2], s[3] = s[0]+a, s[1]+b, s[2]+d, s[3]+f
		q[0], q[1], q[2], q[3] = q[0]+a*a, q[1]+b*b, q[2]+d*d, q[3]+f*f
	}
	for ; i < len(x); i++ {
		a := float64(x[i] - c)
		s[0], q[0] = s[0]+a, q[0]+a*a
	}
	return s[0] + s[1] + (s[2] + s[3]), q[0] + q[1] + (q[2] + q[3])
}

// affine is y = (x-mean)·scale·w + b, b only if it is not nil.
type affine struct {
	w, b        []float32
	mean, scale float32
}

func (f *affine) applyGeneric(y, x []float32) {
	y, w := y[:len(x)], f.w[:len(x)]
	for i, v := range x {
		y[i] = (v - f.mean) * f.scale * w[i]
	}
	for i, b := range f.b {
		y[i] += b
	}
}

// columns is sums over rows, one of each column, of x-c and of its square.
type columns struct{ sum, squares, c []float32 }

func (s *columns) addGeneric(x []float32) {
	sum, squares, c := s.sum[:len(x)], s.squares[:len(x)], s.c[:len(x)]
	for i, v := range x {
		d := v - c[i]
		sum[i] += d
		squares[i] += d * d
	}
}

// rotateGeneric turns the pairs (x, y) by angles.
func rotateGeneric(x, y, cos, sin []float32) {
	y, cos, sin = y[:len(x)], cos[:len(x)], sin[:len(x)]
	for i, a := range x {
		b := y[i]
		x[i] = a*cos[i] - b*sin[i]
		y[i] = b*cos[i] + a*sin[i]
	}
}

// maximumGeneric returns the largest of x, or a NaN if there is one.
func maximumGeneric(x []float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		top = max(top, v)
	}
	return top
}

// expSumGeneric replaces x by exp(x - c) and returns the sum.
func expSumGeneric(x []float32, c float32) float32 {
	var sum float32
	for i, v := range x {
		p := exp(v - c)
		x[i] = p
		sum += p
	}
	return sum
}

// tileTopsGeneric writes the largest of the first cols of each row of p
// [len(top), tileKeys]. A NaN may be lost: its weight is one too.
func tileTopsGeneric(top, p []float32, cols int) {
	for r := range top {
		top[r] = maximumGeneric(p[r*tileKeys:][:cols])
	}
}

// tileWeightsGeneric replaces the first cols of each row of p [len(top), tileKeys] by
// exp(p - top) and writes their sum.
func tileWeightsGeneric(sum, p, top []float32, cols int) {
	for r, c := range top {
		sum[r] = expSumGeneric(p[r*tileKeys:][:cols], c)
	}
}

// tanh returns the hyperbolic tangent to within a few units in the last place: by a
// polynomial near 0, where 1 - 2/(e²ˣ+1) would cancel (Cephes tanhf).
func tanh(x float32) float32 {
	if !(x > -0.625 && x < 0.625) {
		return 1 - 2/(exp(2*x)+1)
	}
	z := x * x
	p := float32(-5.70498872745e-3)
	p = p*z + 2.06390887954e-2
	p = p*z - 5.37397155531e-2
	p = p*z + 1.33314422036e-1
	p = p*z - 3.33332819422e-1
	return p*z*x + x
}

// exp returns eˣ to within two units in the last place. The argument is split as
// x = n·ln2 + r with |r| ≤ ln2/2 and eʳ taken from a polynomial (Cephes expf).
func exp(x float32) float32 {
	const (
		log2e = 1.44269504088896341
		ln2Hi = 0.693359375 // n·ln2Hi is exact
		ln2Lo = -2.12194440e-4
	)
	switch {
	case x > 88.72283:
		return float32(math.Inf(1))
	case x < -87.33654: // below the smallest normal number
		return 0
	case x != x:
		return x
	}
	n := int32(x*log2e + 127.5) // rounds, and biases the exponent
	f := float32(n - 127)
	r := x - f*ln2Hi - f*ln2Lo
	p := float32(1.9875691500e-4)
	p = p*r + 1.3981999507e-3
	p = p*r + 8.3334519073e-3
	p = p*r + 4.1665795894e-2
	p = p*r + 1.6666665459e-1
	p = p*r + 5.0000001201e-1
	p = p*r*r + r + 1
	if n > 254 { // 2¹²⁸ is not a float32, but the product is
		return p * 2 * math.Float32frombits(254<<23)
	}
	return p * math.Float32frombits(uint32(n)<<23)
}

package tensor

import (
	"fmt"
	"math"
)

// Activation is an elementwise function.
type Activation uint8

// The activations that networks name in their configuration.
const (
	SiLU      Activation = iota + 1 // x·σ(x)
	GELU                            // x·Φ(x), by the error function (Hendrycks and Gimpel 2016)
	GELUTanh                        // its approximation by tanh
	QuickGELU                       // its approximation x·σ(1.702x)
	ReLU                            // max(x, 0)
)

// ParseActivation returns the activation that Hugging Face configurations call
// name, and whether it is known.
func ParseActivation(name string) (Activation, bool) {
	switch name {
	case "silu", "swish":
		return SiLU, true
	case "gelu":
		return GELU, true
	case "gelu_new", "gelu_pytorch_tanh", "gelu_fast":
		return GELUTanh, true
	case "quick_gelu":
		return QuickGELU, true
	case "relu":
		return ReLU, true
	}
	return 0, false
}

// Activate computes x = f(x).
func (e *Exec) Activate(f Activation, x []float32) {
	e.runRows(rowTask{op: activateRows, y: x, act: f, rows: len(x), cols: 1})
}

// Gate computes gate = f(gate)·up, the middle of a gated MLP (Shazeer 2020).
func (e *Exec) Gate(f Activation, gate, up []float32) {
	if len(gate) != len(up) {
		panic(fmt.Sprintf("tensor: gate of %d floats over %d", len(gate), len(up)))
	}
	e.runRows(rowTask{op: gateRows, y: gate, x: up, act: f, rows: len(gate), cols: 1})
}

func activateRows(t *rowTask, lo, hi int) { activate(t.act, t.y[lo:hi]) }

func gateRows(t *rowTask, lo, hi int) {
	y, x := t.y[lo:hi], t.x[lo:hi]
	activate(t.act, y)
	for i, v := range x {
		y[i] *= v
	}
}

func activate(f Activation, x []float32) {
	switch f {
	case SiLU:
		for i, v := range x {
			x[i] = v / (1 + exp(-v))
		}
	case QuickGELU:
		for i, v := range x {
			x[i] = v / (1 + exp(-1.702*v))
		}
	case GELU:
		for i, v := range x {
			x[i] = float32(0.5 * float64(v) * (1 + math.Erf(float64(v)/math.Sqrt2)))
		}
	case GELUTanh: // 0.5(1+tanh u) = σ(2u)
		for i, v := range x {
			u := 2 * float32(math.Sqrt(2/math.Pi)) * (v + 0.044715*v*v*v)
			x[i] = v / (1 + exp(-u))
		}
	case ReLU:
		for i, v := range x {
			x[i] = max(v, 0)
		}
	default:
		panic(fmt.Sprintf("tensor: unknown activation %d", f))
	}
}

// SoftCap computes x = limit·tanh(x/limit), which leaves small values as they are and
// none beyond ±limit (Gemma 2, 2024).
func (e *Exec) SoftCap(x []float32, limit float32) {
	e.runRows(rowTask{op: softCapRows, y: x, eps: limit, rows: len(x), cols: 1})
}

func softCapRows(t *rowTask, lo, hi int) { softCap(t.y[lo:hi], t.eps) }

func softCap(x []float32, limit float32) {
	for i, v := range x {
		x[i] = limit * tanh(v/limit)
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

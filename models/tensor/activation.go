package tensor

import "fmt"

// Activation is an elementwise function.
type Activation uint8

// The activations that networks name in their configuration.
const (
	SiLU      Activation = iota + 1 // x·σ(x)
	GELU                            // x·Φ(x), by the error function (Hendrycks and Gimpel 2016)
	GELUTanh                        // its approximation by tanh
	QuickGELU                       // its approximation x·σ(1.702x)
	ReLU                            // max(x, 0)
	Identity                        // x
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
	f.check()
	e.runRows(rowTask{op: activateRows, y: x, act: f, rows: len(x), cols: 1})
}

// Gate computes gate = f(gate)·up, the middle of a gated MLP (Shazeer 2020).
func (e *Exec) Gate(f Activation, gate, up []float32) {
	f.check()
	if len(gate) != len(up) {
		panic(fmt.Sprintf("tensor: gate of %d floats over %d", len(gate), len(up)))
	}
	e.runRows(rowTask{op: gateRows, y: gate, x: up, act: f, rows: len(gate), cols: 1})
}

func activateRows(t *rowTask, lo, hi int) {
	activate(t.level, t.act, t.y[lo:hi], t.y[lo:hi], nil)
}

func gateRows(t *rowTask, lo, hi int) {
	activate(t.level, t.act, t.y[lo:hi], t.y[lo:hi], t.x[lo:hi])
}

// check panics unless f is an activation.
func (f Activation) check() {
	if f < SiLU || f > Identity {
		panic(fmt.Sprintf("tensor: unknown activation %d", f))
	}
}

// SoftCap computes x = limit·tanh(x/limit), which leaves small values as they are and
// none beyond ±limit (Gemma 2, 2024).
func (e *Exec) SoftCap(x []float32, limit float32) {
	e.runRows(rowTask{op: softCapRows, y: x, eps: limit, rows: len(x), cols: 1})
}

func softCapRows(t *rowTask, lo, hi int) { softCap(t.level, t.y[lo:hi], t.eps) }

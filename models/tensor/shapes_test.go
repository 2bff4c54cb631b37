package tensor

import "testing"

func TestShapesPanic(t *testing.T) {
	t.Parallel()
	e := NewExec(nil)
	x := make([]float32, 12)
	w := FromFloat32s(2, 4, make([]float32, 8))
	for name, f := range map[string]func(){
		"no products":     func() { e.MatMuls(x) },
		"result too long": func() { e.MatMul(x, x, w, nil) },
		"rows do not fit": func() { e.MatMul(x[:2], x[:5], w, nil) },
		"bias":            func() { e.MatMul(x[:2], x[:4], w, x[:3]) },
		"matrix bytes":    func() { NewMatrix(F16, 2, 2, make([]byte, 7)) },
		"matrix type":     func() { NewMatrix(I64, 1, 1, make([]byte, 8)) },
		"matrix floats":   func() { FromFloat32s(2, 2, x) },
		"slice":           func() { w.Slice(1, 3) },
		"row":             func() { w.Row(x[:4], 2) },
		"norm":            func() { e.RMSNorm(x, x, x[:5], 0) },
		"norm bias":       func() { e.LayerNorm(x, x, x[:4], x[:3], 0) },
		"add":             func() { e.Add(x, x[1:]) },
		"gate":            func() { e.Gate(SiLU, x, x[1:]) },
		"activation":      func() { e.Activate(0, x) },
		"softmax":         func() { e.Softmax(x, 0) },
		"rope":            func() { e.RoPE(x, x[:6], x[:6], 1, 3) },
		"head norm":       func() { e.HeadLayerNorm(x, x, x[:6], 4, 0) },
		"gather":          func() { e.Gather(x[:6], x, 3, []int{1, 4}) },
		"gather size":     func() { e.Gather(x[:4], x, 3, []int{1, 2}) },
		"scatter":         func() { e.ScatterAdd(x, x[:3], 3, []int{-1}, x[:1]) },
		"scatter weights": func() { e.ScatterAdd(x, x[:3], 3, []int{1}, nil) },
		"matrix gather":   func() { w.Gather([]int{2}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

package tensor

import (
	"fmt"
	"math"
	"testing"
)

// TestAttention compares with the softmax written out in double precision, and bit
// for bit between threads and between ways of cutting the queries.
func TestAttention(t *testing.T) {
	t.Parallel()
	one, two := NewExec(nil), NewExec(pool(t, 2))
	for _, z := range []struct {
		tokens, start, heads, kvHeads, dim, window int
		limit                                      float32
		biased                                     bool
	}{
		{1, 0, 1, 1, 4, 0, 0, false}, {1, 200, 8, 2, 40, 0, 0, false}, {70, 0, 4, 2, 16, 0, 0, false}, {33, 100, 6, 6, 24, 0, 0, false},
		{40, 90, 4, 1, 16, 8, 0, false}, {130, 0, 2, 2, 16, 65, 0, false}, {5, 64, 2, 1, 300, 0, 0, false}, {3, 0, 3, 3, 7, 1, 0, false},
		{40, 90, 4, 2, 16, 0, 0.7, false}, {1, 100, 2, 2, 16, 70, 2, false}, {40, 90, 4, 2, 16, 0, 0, true}, {3, 130, 3, 1, 16, 66, 1, true},
	} {
		name := fmt.Sprintf("%+v", z)
		capacity := z.start + z.tokens + 3
		q := normal(1, z.tokens*z.heads*z.dim)
		k, v := normal(2, z.kvHeads*capacity*z.dim), normal(3, z.kvHeads*capacity*z.dim)
		a := Attention{
			Out: make([]float32, len(q)), Q: q, K: k, V: v, Start: z.start,
			Heads: z.heads, KVHeads: z.kvHeads, HeadDim: z.dim, Capacity: capacity,
			Window: z.window, Scale: float32(1 / math.Sqrt(float64(z.dim))), Cap: z.limit,
		}
		if z.biased {
			a.KeyBias = normal(4, z.heads*capacity)
		}
		one.Attention(a)
		near(t, name, a.Out, naiveAttention(a), 3e-6)

		b := a
		b.Out = append([]float32(nil), q...)
		b.Q = b.Out
		two.Attention(b)
		same(t, name+" on two threads, in place", b.Out, a.Out)
		row := z.heads * z.dim
		for i := range z.tokens {
			b.Q, b.Out, b.Start = q[i*row:][:row], b.Out[:row], z.start+i
			one.Attention(b)
			same(t, fmt.Sprintf("%s query %d alone", name, i), b.Out, a.Out[i*row:][:row])
		}
	}
}

func naiveAttention(a Attention) []float64 {
	out := make([]float64, len(a.Q))
	for i := 0; i < len(a.Q); i += a.HeadDim {
		token, head := i/a.HeadDim/a.Heads, i/a.HeadDim%a.Heads
		first := head * a.KVHeads / a.Heads * a.Capacity
		from, to := 0, a.Start+token
		if a.Window > 0 {
			from = max(0, to-a.Window+1)
		}
		var total float64
		for s := from; s <= to; s++ {
			var score float64
			for d := range a.HeadDim {
				score += float64(a.Q[i+d]) * float64(a.K[(first+s)*a.HeadDim+d])
			}
			score *= float64(a.Scale)
			if a.Cap > 0 {
				score = float64(a.Cap) * math.Tanh(score/float64(a.Cap))
			}
			if a.KeyBias != nil {
				score += float64(a.KeyBias[head*a.Capacity+s])
			}
			p := math.Exp(score)
			total += p
			for d := range a.HeadDim {
				out[i+d] += p * float64(a.V[(first+s)*a.HeadDim+d])
			}
		}
		for d := range a.HeadDim {
			out[i+d] /= total
		}
	}
	return out
}

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
		"key bias": func() {
			e.Attention(Attention{Out: x, Q: x, K: x, V: x, Heads: 3, KVHeads: 3, HeadDim: 4, Capacity: 1, KeyBias: x[:2]})
		},
		"attention": func() {
			e.Attention(Attention{Out: x, Q: x, K: x, V: x, Heads: 3, KVHeads: 2, HeadDim: 4, Capacity: 3})
		},
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

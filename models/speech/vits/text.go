package vits

import (
	"fmt"
	"math"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// textEncoder is a transformer whose positions are told from one another by what is near
// (Shaw, Uszkoreit and Vaswani 2018).
type textEncoder struct {
	config  Config
	tokens  nn.Embedding
	layers  []textLayer
	project nn.Conv2d
}

type textLayer struct {
	q, k, v, out       nn.Linear
	nearKeys, nearVals []float32 // [2·Window+1, D], or nil
	norm, last         nn.LayerNorm
	up, down           nn.Conv2d
}

func loadText(s *weights.Store, c Config) (t textEncoder, err error) {
	t.config = c
	if t.tokens, err = nn.LoadEmbedding(s.Sub("embed_tokens"), c.Vocab, c.Hidden); err != nil {
		return t, err
	}
	for i := range c.Layers {
		l, err := loadTextLayer(s.Sub(fmt.Sprintf("encoder.layers.%d", i)), c)
		if err != nil {
			return t, err
		}
		t.layers = append(t.layers, l)
	}
	t.project, err = nn.LoadConv2d(s.Sub("project"), nn.Sequence(c.Hidden, 2*c.Flow, 1, 1), true)
	return t, err
}

func loadTextLayer(s *weights.Store, c Config) (l textLayer, err error) {
	for _, p := range []struct {
		to   *nn.Linear
		name string
	}{{&l.q, "q_proj"}, {&l.k, "k_proj"}, {&l.v, "v_proj"}, {&l.out, "out_proj"}} {
		if *p.to, err = nn.LoadLinear(s.Sub("attention."+p.name), c.Hidden, c.Hidden, s.Has("attention."+p.name+".bias")); err != nil {
			return l, err
		}
	}
	if c.Window > 0 {
		for _, p := range []struct {
			to   *[]float32
			name string
		}{{&l.nearKeys, "attention.emb_rel_k"}, {&l.nearVals, "attention.emb_rel_v"}} {
			t, err := s.Tensor(p.name, 1, 2*c.Window+1, c.Hidden/c.Heads)
			if err != nil {
				return l, err
			}
			*p.to = append([]float32(nil), t.Float32s()...)
		}
	}
	if l.norm, err = nn.LoadLayerNorm(s.Sub("layer_norm"), c.Hidden, c.NormEps); err != nil {
		return l, err
	}
	if l.last, err = nn.LoadLayerNorm(s.Sub("final_layer_norm"), c.Hidden, c.NormEps); err != nil {
		return l, err
	}
	if l.up, err = nn.LoadConv2d(s.Sub("feed_forward.conv_1"), nn.Sequence(c.Hidden, c.FFN, c.Kernel, 1), true); err != nil {
		return l, err
	}
	l.down, err = nn.LoadConv2d(s.Sub("feed_forward.conv_2"), nn.Sequence(c.FFN, c.Hidden, c.Kernel, 1), true)
	return l, err
}

// forward returns the states [N, Hidden] of ids, and [N, 2·Flow]: the mean of the latents and
// the logarithm of their deviation.
func (t *textEncoder) forward(e *tensor.Exec, ids []int) (hidden, stats []float32) {
	n, c := len(ids), t.config
	x := make([]float32, n*c.Hidden)
	t.tokens.Forward(x, ids)
	scale := float32(math.Sqrt(float64(c.Hidden)))
	for i := range x {
		x[i] *= scale
	}
	a, wide := make([]float32, len(x)), make([]float32, n*c.FFN)
	for i := range t.layers {
		l := &t.layers[i]
		l.attend(e, a, x, c)
		e.Add(x, a)
		l.norm.Forward(e, x, x)
		l.up.Forward(e, tensor.Convolution{Y: wide, X: x, Height: 1, Width: n, Activation: tensor.ReLU})
		l.down.Forward(e, tensor.Convolution{Y: a, X: wide, Height: 1, Width: n})
		e.Add(x, a)
		l.last.Forward(e, x, x)
	}
	stats = make([]float32, n*2*c.Flow)
	t.project.Forward(e, tensor.Convolution{Y: stats, X: x, Height: 1, Width: n})
	return x, stats
}

// attend writes to y what every position of x [N, Hidden] reads from all, and what the
// distance of those that are near adds to scores and values.
func (l *textLayer) attend(e *tensor.Exec, y, x []float32, c Config) {
	n, d := len(x)/c.Hidden, c.Hidden/c.Heads
	q, k, v := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))
	l.q.Forward(e, q, x)
	l.k.Forward(e, k, x)
	l.v.Forward(e, v, x)
	scale := 1 / float32(math.Sqrt(float64(d)))
	mixed := make([]float32, len(x))
	hq, hk, hv := make([]float32, n*d), make([]float32, n*d), make([]float32, d*n)
	scores, out := make([]float32, n*n), make([]float32, n*d)
	for h := range c.Heads {
		for i := range n {
			for j := range d {
				at := i*c.Hidden + h*d + j
				hq[i*d+j], hk[i*d+j], hv[j*n+i] = q[at]*scale, k[at], v[at]
			}
		}
		e.MatMul(scores, hq, tensor.FromFloat32s(n, d, hk), nil)
		l.near(n, func(i, j int, at int) { scores[i*n+j] += dot(hq[i*d:][:d], l.nearKeys[at*d:][:d]) }, c)
		e.Softmax(scores, n)
		e.MatMul(out, scores, tensor.FromFloat32s(d, n, hv), nil)
		l.near(n, func(i, j int, at int) {
			p := scores[i*n+j]
			for m, u := range l.nearVals[at*d:][:d] {
				out[i*d+m] += p * u
			}
		}, c)
		for i := range n {
			copy(mixed[i*c.Hidden+h*d:][:d], out[i*d:][:d])
		}
	}
	l.out.Forward(e, y, mixed)
}

// near calls f for the pairs of positions whose distance has a vector, and its number.
func (l *textLayer) near(n int, f func(i, j, at int), c Config) {
	if c.Window == 0 {
		return
	}
	for i := range n {
		for j := max(0, i-c.Window); j < min(n, i+c.Window+1); j++ {
			f(i, j, j-i+c.Window)
		}
	}
}

func dot(a, b []float32) float32 {
	sum := float32(0)
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

package lm

import (
	"cmp"
	"math"
	"slices"

	"helicon/models/nn"
	"helicon/models/tensor"
)

// naiveLogits is the decoder written out in double precision, without a cache and
// without blocks: the logits after ids.
func naiveLogits(m *Model, ids []int) []float32 {
	c, n := &m.config, &m.net
	x := make([][]float64, len(ids))
	for t, id := range ids {
		x[t] = row(n.embed.Weight, id)
		if n.embed.Scale != 0 {
			scale(x[t], float64(n.embed.Scale))
		}
		if n.widen.Weight.Rows > 0 {
			x[t] = naiveLinear(n.widen, x[t])
		}
		if n.positions.Weight.Rows > 0 {
			plus(x[t], row(n.positions.Weight, t))
		}
		x[t] = naiveNorm(n.embedNorm, x[t])
	}
	for i := range n.layers {
		naiveBlock(m, i, x)
	}
	h := naiveNorm(n.norm, x[len(x)-1])
	if n.narrow.Weight.Rows > 0 {
		h = naiveLinear(n.narrow, h)
	}
	logits := make([]float32, c.Vocab)
	for i, v := range naiveLinear(n.head, h) {
		logits[i] = float32(naiveCap(v, c.LogitCap))
	}
	return logits
}

// naiveBlock replaces the states x of all positions.
func naiveBlock(m *Model, i int, x [][]float64) {
	l := &m.net.layers[i]
	read := make([][]float64, len(x))
	for t := range x {
		read[t] = naiveNorm(l.attentionNorms.before, x[t])
	}
	for t, h := range naiveAttention(m, i, read) {
		entered := slices.Clone(x[t])
		plus(x[t], naiveNorm(l.attentionNorms.after, h))
		x[t] = naiveNorm(l.attentionNorms.sum, x[t])
		if !l.parallel {
			entered = x[t]
		}
		h = naiveMLP(l.mlp, naiveNorm(l.mlpNorms.before, entered))
		plus(x[t], naiveNorm(l.mlpNorms.after, h))
		x[t] = naiveNorm(l.mlpNorms.sum, x[t])
	}
}

func naiveAttention(m *Model, i int, x [][]float64) [][]float64 {
	c, l := &m.config, &m.net.layers[i]
	var q, k, v [][][]float64 // [T][heads][D]
	for t := range x {
		q = append(q, naiveHeads(m, l, naiveLinear(l.q, x[t]), l.qNorm, t, len(x)))
		k = append(k, naiveHeads(m, l, naiveLinear(l.k, x[t]), l.kNorm, t, len(x)))
		v = append(v, slices.Collect(slices.Chunk(naiveLinear(l.v, x[t]), c.HeadDim)))
	}
	out := make([][]float64, len(x))
	for t := range x {
		var heads []float64
		for h := range c.Heads {
			g := h * c.KVHeads / c.Heads
			bias := make([]float32, len(x))
			if c.KeyBias != nil {
				c.KeyBias(bias, h)
			}
			sum, total := make([]float64, c.HeadDim), 0.0
			for s := range t + 1 {
				if l.window > 0 && t-s >= l.window {
					continue
				}
				p := math.Exp(naiveCap(dot(q[t][h], k[s][g])*float64(l.scale), c.ScoreCap) + float64(bias[s]))
				total += p
				for d := range sum {
					sum[d] += p * v[s][g][d]
				}
			}
			heads = append(heads, scale(sum, 1/total)...)
		}
		out[t] = naiveLinear(l.o, heads)
	}
	return out
}

// naiveHeads cuts x into heads, normalises and turns them.
func naiveHeads(m *Model, l *layer, x []float64, n nn.Norm, position, length int) [][]float64 {
	heads := slices.Collect(slices.Chunk(x, m.config.HeadDim))
	for h := range heads {
		norm := n
		if each, ok := n.(nn.HeadLayerNorm); ok {
			d := m.config.HeadDim
			norm = nn.LayerNorm{Weight: each.Weight[h*d : (h+1)*d], Eps: each.Eps}
		}
		heads[h] = naiveNorm(norm, heads[h])
		if len(m.config.Rotations) == 0 {
			continue
		}
		r := m.config.Rotations[l.rope]
		half := r.Half()
		cos, sin := make([]float32, half), make([]float32, half)
		r.Angles(cos, sin, position, length)
		for i := range half {
			a, b, c, s := heads[h][i], heads[h][half+i], float64(cos[i]), float64(sin[i])
			heads[h][i], heads[h][half+i] = a*c-b*s, b*c+a*s
		}
	}
	return heads
}

func naiveMLP(f feedForward, x []float64) []float64 {
	if f, ok := f.(*mlp); ok {
		up := naiveLinear(f.up, x)
		if !f.gated {
			return naiveLinear(f.down, naiveActivation(f.activation, up))
		}
		gate := naiveActivation(f.activation, naiveLinear(f.gate, x))
		for i := range up {
			up[i] *= gate[i]
		}
		return naiveLinear(f.down, up)
	}
	m := f.(*mixture)
	p := naiveLinear(m.router, x)
	total := 0.0
	for i := range p {
		p[i] = math.Exp(p[i])
		total += p[i]
	}
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(p[b], p[a]) })
	order = order[:m.used]
	if m.normalise {
		total = 0
		for _, i := range order {
			total += p[i]
		}
	}
	out := make([]float64, len(x))
	for _, i := range order {
		plus(out, scale(naiveMLP(&m.experts[i], x), p[i]/total))
	}
	return out
}

func naiveActivation(f tensor.Activation, x []float64) []float64 {
	for i, v := range x {
		switch f {
		case tensor.SiLU:
			x[i] = v / (1 + math.Exp(-v))
		case tensor.GELU:
			x[i] = 0.5 * v * (1 + math.Erf(v/math.Sqrt2))
		case tensor.GELUTanh:
			x[i] = 0.5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
		case tensor.ReLU:
			x[i] = max(v, 0)
		default:
			panic("no such activation")
		}
	}
	return x
}

func naiveNorm(n nn.Norm, x []float64) []float64 {
	var weight, bias []float32
	var mean, eps float64
	switch n := n.(type) {
	case nil:
		return slices.Clone(x)
	case nn.RMSNorm:
		weight, eps = n.Weight, float64(n.Eps)
	case nn.LayerNorm:
		weight, bias, eps = n.Weight, n.Bias, float64(n.Eps)
		for _, v := range x {
			mean += v / float64(len(x))
		}
	default:
		panic("no such norm")
	}
	var variance float64
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x))
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = (v - mean) / math.Sqrt(variance+eps) * float64(weight[i])
		if bias != nil {
			y[i] += float64(bias[i])
		}
	}
	return y
}

func naiveLinear(l nn.Linear, x []float64) []float64 {
	y := make([]float64, l.Weight.Rows)
	for i := range y {
		y[i] = dot(row(l.Weight, i), x)
		if l.Bias != nil {
			y[i] += float64(l.Bias[i])
		}
	}
	return y
}

func naiveCap(v, limit float64) float64 {
	if limit == 0 {
		return v
	}
	return limit * math.Tanh(v/limit)
}

func row(w tensor.Matrix, i int) []float64 {
	narrow, wide := make([]float32, w.Cols), make([]float64, w.Cols)
	w.Row(narrow, i)
	for i, v := range narrow {
		wide[i] = float64(v)
	}
	return wide
}

func dot(a, b []float64) (sum float64) {
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

func plus(y, x []float64) {
	for i, v := range x {
		y[i] += v
	}
}

func scale(x []float64, f float64) []float64 {
	for i := range x {
		x[i] *= f
	}
	return x
}

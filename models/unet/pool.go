package unet

import (
	"math"

	"helicon/models/nn"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// textPool makes one vector of a text and adds it to the time: attention of the tokens'
// mean over itself and the tokens (diffusers' TextTimeEmbedding, as in DeepFloyd IF).
type textPool struct {
	norm    nn.LayerNorm
	first   nn.Embedding // of one row: added to the mean
	q, k, v nn.Linear
	heads   int
	proj    nn.Linear
	last    nn.LayerNorm
}

func (l *loader) textPool(s *weights.Store) textPool {
	c := l.c.ContextDim()
	pool := s.Sub("pool")
	p := textPool{norm: l.layerNorm(s.Sub("norm1"), c), heads: l.c.AddedHeads}
	p.first.Weight = read(l, func() (nn.Linear, error) {
		row, err := pool.View(map[string]weights.View{"weight": {Name: "positional_embedding"}})
		if err != nil {
			return nn.Linear{}, err
		}
		return nn.LoadLinear(row, 1, c, false)
	}).Weight
	p.q, p.k, p.v = l.linear(pool.Sub("q_proj"), c, c, true), l.linear(pool.Sub("k_proj"), c, c, true), l.linear(pool.Sub("v_proj"), c, c, true)
	p.proj, p.last = l.linear(s.Sub("proj"), l.c.timeDim(), c, true), l.layerNorm(s.Sub("norm2"), l.c.timeDim())
	return p
}

// add adds the vectors of a context [B, S, C] to s.added [B, D].
func (p *textPool) add(e *tensor.Exec, s *State, context []float32) {
	c := p.proj.Weight.Cols
	tokens := len(context) / s.Batch // floats of a text
	rows := make([]float32, len(context))
	p.norm.Forward(e, rows, context)

	// x [B, 1+S, C]: the mean of a text before its tokens, first [B, C] the mean alone.
	x, first := make([]float32, 0, len(context)+s.Batch*c), make([]float32, 0, s.Batch*c)
	mean, position := make([]float32, c), make([]float32, c)
	p.first.Forward(position, []int{0})
	for b := range s.Batch {
		text := rows[b*tokens:][:tokens]
		for i := range mean {
			sum := 0.0
			for at := i; at < len(text); at += c {
				sum += float64(text[at])
			}
			mean[i] = float32(sum*float64(c)/float64(tokens)) + position[i]
		}
		first = append(first, mean...)
		x = append(append(x, mean...), text...)
	}

	q, k, v := make([]float32, len(first)), make([]float32, len(x)), make([]float32, len(x))
	p.q.Forward(e, q, first)
	p.k.Forward(e, k, x)
	p.v.Forward(e, v, x)
	d := c / p.heads
	e.Attention(tensor.Attention{
		Out: first, Q: q, K: k, V: v, Batch: s.Batch, Heads: p.heads, KVHeads: p.heads, HeadDim: d,
		Scale: float32(1 / math.Sqrt(float64(d))),
	})
	y, z := make([]float32, len(s.added)), make([]float32, len(s.added))
	p.proj.Forward(e, y, first)
	p.last.Forward(e, z, y)
	s.seen("add_embedding", -1, z)
	e.Add(s.added, z)
}

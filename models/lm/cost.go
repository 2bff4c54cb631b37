package lm

import (
	"helicon/models/nn"
	"helicon/models/tensor"
)

// Cost is what one token has to do with a model's matrices on its way through the
// network. The row of the embedding, norms, biases and attention do not count.
type Cost struct {
	Bytes      int64        // of the matrices that are read, as their file type has them
	Operations int64        // multiplications and additions with them
	Logits     int64        // those of Operations that make logits, which not all tokens need
	DType      tensor.DType // of most of Bytes
}

// Cost returns what a token costs. Of a mixture, the experts that it uses count.
func (m *Model) Cost() Cost {
	var c Cost
	types := map[tensor.DType]int64{}
	add := func(l *nn.Linear, used, of int) {
		w := l.Weight
		if w.Rows == 0 {
			return
		}
		bytes := w.DType.Bytes(w.Cols) * int64(w.Rows) * int64(used) / int64(of)
		c.Bytes += bytes
		c.Operations += 2 * int64(w.Rows) * int64(w.Cols) * int64(used) / int64(of)
		types[w.DType] += bytes
		if types[w.DType] > types[c.DType] {
			c.DType = w.DType
		}
	}
	n := &m.net
	add(&n.widen, 1, 1)
	for i := range n.layers {
		l := &n.layers[i]
		for _, matrix := range []*nn.Linear{&l.q, &l.k, &l.v, &l.o} {
			add(matrix, 1, 1)
		}
		x, sparse := l.mlp.(*mixture)
		if !sparse {
			for _, matrix := range l.mlp.linears() {
				add(matrix, 1, 1)
			}
			continue
		}
		add(&x.router, 1, 1)
		for e := range x.experts {
			for _, matrix := range x.experts[e].linears() {
				add(matrix, x.used, len(x.experts))
			}
		}
	}
	before := c.Operations
	add(&n.narrow, 1, 1)
	add(&n.head, 1, 1)
	c.Logits = c.Operations - before
	return c
}

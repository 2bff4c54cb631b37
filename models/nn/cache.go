package nn

import "fmt"

// KVCache keeps the keys and values of one sequence for every layer. All memory is
// allocated when it is made.
type KVCache struct {
	layers, heads, capacity, dim int
	data                         []float32 // [layers, 2, heads, capacity, dim]
}

// NewKVCache returns a cache of so many positions.
func NewKVCache(layers, heads, capacity, dim int) *KVCache {
	return &KVCache{
		layers: layers, heads: heads, capacity: capacity, dim: dim,
		data: make([]float32, 2*layers*heads*capacity*dim),
	}
}

// Layer returns the keys and the values of a layer, each [heads, capacity, dim].
func (c *KVCache) Layer(i int) (k, v []float32) {
	n := c.heads * c.capacity * c.dim
	layer := c.data[2*i*n:][:2*n]
	return layer[:n:n], layer[n:]
}

// Put stores the keys and values k, v [T, heads, dim] of positions from start on.
func (c *KVCache) Put(layer, start int, k, v []float32) {
	row := c.heads * c.dim
	tokens := len(k) / row
	if len(k) != len(v) || len(k)%row != 0 || start < 0 || start+tokens > c.capacity {
		panic(fmt.Sprintf("nn: %d keys and %d values [%d, %d] at %d of %d", len(k), len(v), c.heads, c.dim, start, c.capacity))
	}
	keys, values := c.Layer(layer)
	for t := range tokens {
		for h := range c.heads {
			from, to := t*row+h*c.dim, (h*c.capacity+start+t)*c.dim
			copy(keys[to:][:c.dim], k[from:])
			copy(values[to:][:c.dim], v[from:])
		}
	}
}

// Capacity returns the number of positions.
func (c *KVCache) Capacity() int { return c.capacity }

// Bytes returns the memory of the cache.
func (c *KVCache) Bytes() int64 { return 4 * int64(len(c.data)) }

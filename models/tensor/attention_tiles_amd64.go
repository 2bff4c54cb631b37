//go:build !purego

package tensor

import (
	"math"
	"sync/atomic"
)

// Attention in BF16 takes the tiles of AMX for both products: for up to 32 queries of a
// head and 256 keys at a time come the scores, their softmax with a running maximum and
// the weighted values. All of it has queries side by side, so that a vector holds one
// key, or one component, of 16 queries and nothing is ever summed up across a vector.
//
// Scores are exponents of two, and the maximum is rounded up to a whole one. What a
// query's weights add up to, rounded to BF16 as they are, is one more component of its
// result: that for which all values are 1.
const (
	queriesAbreast = 16                 // in a vector
	queriesOfPart  = 2 * queriesAbreast // of a head
	keysOfChunk    = 256                // whose scores are in memory at a time
	keysOfStep     = tileColumns        // of a product with values
	keysOfPacking  = 4 * keysOfChunk    // of a head, prepared in one part
	maxTileHead    = 256                // components of a head
	bfloatOne      = 0x3f80
)

// tileAttendTask is a call of Attention in BF16. A part takes blocks of queries from a
// queue: it stands for a thread, and has its own scratch.
type tileAttendTask struct {
	Attention
	queries, keys int // of a member of the batch
	headSteps     int // of 32 components
	valueTiles    int // of 16 components
	keySteps      int // of 32 keys

	k, v    []byte // of all heads, see keyBytes
	blocks  int    // of the queries of a head
	next    atomic.Int64
	stop    *atomic.Bool // of the job
	scratch []tileAttendScratch
}

// keyBytes and valueBytes are the sizes of a head of keys, in tiles [2·keySteps][headSteps]
// of [16 keys][32 components], and of values, [valueTiles][keySteps] of [16 components][32 keys].
func (t *tileAttendTask) keyBytes() int   { return 2 * t.keySteps * t.headSteps * tileBytes }
func (t *tileAttendTask) valueBytes() int { return t.valueTiles * t.keySteps * tileBytes }

// tileAttendScratch is the state of a block of queries, in runs of 16 of them.
type tileAttendScratch struct {
	q      []byte    // BF16 [2][headSteps][16 pairs of components][16 queries][2]
	scores []float32 // [2][keysOfChunk][16]
	p      []byte    // BF16 [2][keysOfChunk/2][16][2], the weights
	sums   []float32 // [2][16·valueTiles][16]
	top    []float32 // [2][16]
}

// attendTiles computes the call in BF16 if it is one that can be.
func (e *Exec) attendTiles(a Attention, queries, keys int) bool {
	if !a.BF16 || !e.features.tiles || a.Causal || a.Cap != 0 || a.Bias != nil || a.HeadDim > maxTileHead {
		return false
	}
	t := &e.attendTile
	t.Attention, t.queries, t.keys = a, queries, keys
	t.Batch = max(a.Batch, 1)
	t.headSteps, t.valueTiles = ceilDiv(a.HeadDim, tileColumns), a.HeadDim/tileTokens+1
	t.keySteps, t.blocks = ceilDiv(keys, keysOfStep), ceilDiv(queries, queriesOfPart)
	heads := t.Batch * a.KVHeads
	t.k, t.v = grownBytes(t.k, heads*t.keyBytes()), grownBytes(t.v, heads*t.valueBytes())
	threads := min(e.pool.Threads(), t.Batch*a.Heads*t.blocks)
	if queries*keys*a.HeadDim*a.Heads*t.Batch < inlineWork {
		threads = 1
	}
	for len(t.scratch) < threads {
		t.scratch = append(t.scratch, tileAttendScratch{
			scores: cast[float32](alignedBytes(4 * queriesOfPart * keysOfChunk)),
			p:      alignedBytes(2 * queriesOfPart * keysOfChunk),
			top:    make([]float32, queriesOfPart),
		})
	}
	for i := range t.scratch[:threads] {
		s := &t.scratch[i]
		s.q = grownBytes(s.q, 2*t.headSteps*tileBytes)
		if n := 2 * t.valueTiles * tileBytes / 4; len(s.sums) < n {
			s.sums = cast[float32](alignedBytes(4 * n))
		}
	}
	e.runOn(threads, (*tilePackTask)(t), heads*ceilDiv(keys, keysOfPacking))
	t.next.Store(0)
	t.stop = &e.job.stop
	e.runOn(threads, t, threads)
	t.Attention = Attention{} // an idle Exec keeps nothing of the caller's
	return true
}

// grownBytes returns n bytes on a line of the cache, in the memory of b if there is room.
func grownBytes(b []byte, n int) []byte {
	if len(b) < n {
		return alignedBytes(n)
	}
	return b
}

// tilePackTask lays out keys and values. A part is some keys of a head.
type tilePackTask tileAttendTask

func (p *tilePackTask) part(i int) {
	t := (*tileAttendTask)(p)
	runs := ceilDiv(t.keys, keysOfPacking)
	head, lo := i/runs, i%runs*keysOfPacking
	hi := min(lo+keysOfPacking, t.keys)
	stride := t.KVHeads * t.HeadDim
	first := (head/t.KVHeads*t.keys*t.KVHeads + head%t.KVHeads) * t.HeadDim // of the head's first key
	k, v := t.k[head*t.keyBytes():][:t.keyBytes()], t.v[head*t.valueBytes():][:t.valueBytes()]
	for key := lo; key < hi; key += keysOfStep {
		n := min(keysOfStep, hi-key)
		t.packKeys(k, t.K[first+key*stride:], key, n)
		t.packValues(v, t.V[first+key*stride:], key, n)
	}
}

// packKeys lays out n keys from the given one on, scaled, and fills up the step with zeros.
func (t *tileAttendTask) packKeys(dst []byte, x []float32, key, n int) {
	var row [maxTileHead]float32
	perTile := t.headSteps * tileBytes
	if n < keysOfStep {
		clear(dst[key/tileTokens*perTile:][:2*perTile])
	}
	for i := range n {
		scale(AVX512, row[:t.HeadDim], x[i*t.KVHeads*t.HeadDim:][:t.HeadDim], t.Scale*math.Log2E)
		tiles := cast[uint16](dst[(key+i)/tileTokens*perTile:][:perTile])
		for s := range t.headSteps {
			roundRow(tiles[s*tileBytes/2+(key+i)%tileTokens*tileColumns:], row[s*tileColumns:][:tileColumns], 8)
		}
	}
}

// packValues lays out the values of n keys from the given one on, with a component that
// is 1, and fills up the step with zeros.
func (t *tileAttendTask) packValues(dst []byte, x []float32, key, n int) {
	var padded [keysOfStep * tileTokens]float32
	stride := t.KVHeads * t.HeadDim
	for j := range t.valueTiles {
		tile := dst[(j*t.keySteps+key/keysOfStep)*tileBytes:][:tileBytes]
		components := min(tileTokens, t.HeadDim-j*tileTokens)
		switch {
		case components == 0:
			clear(tile)
		case n == keysOfStep:
			tileValues(tile, x[j*tileTokens:], stride, components)
		default:
			clear(padded[:])
			for i := range n {
				copy(padded[i*tileTokens:], x[i*stride+j*tileTokens:][:components])
			}
			tileValues(tile, padded[:], tileTokens, components)
		}
		if components < tileTokens {
			ones := cast[uint16](tile)[components*keysOfStep:][:keysOfStep]
			clear(ones)
			for i := range n {
				ones[i] = bfloatOne
			}
		}
	}
}

func (t *tileAttendTask) part(i int) {
	heads := t.Batch * t.Heads
	for {
		block := int(t.next.Add(1) - 1)
		if block >= heads*t.blocks || t.stop.Load() {
			return
		}
		t.block(&t.scratch[i], block/t.blocks, block%t.blocks*queriesOfPart)
	}
}

// block computes some queries of a head from the given one on.
func (t *tileAttendTask) block(s *tileAttendScratch, head, query int) {
	member, h := head/t.Heads, head%t.Heads
	kv := member*t.KVHeads + h*t.KVHeads/t.Heads
	k, v := t.k[kv*t.keyBytes():][:t.keyBytes()], t.v[kv*t.valueBytes():][:t.valueBytes()]
	n := min(queriesOfPart, t.queries-query)
	runs := ceilDiv(n, queriesAbreast)
	first := ((member*t.queries+query)*t.Heads + h) * t.HeadDim
	t.packQueries(s.q, t.Q[first:], n)
	clear(s.sums)
	for i := range s.top {
		s.top[i] = float32(math.Inf(-1))
	}
	for key := 0; key < t.keys; key += keysOfChunk {
		t.chunk(s, k, v, span{key, min(key+keysOfChunk, t.keys)}, runs)
	}
	t.results(s, t.Out[first:], n)
}

// chunk adds what some keys give to some runs of queries.
func (t *tileAttendTask) chunk(s *tileAttendScratch, k, v []byte, keys span, runs int) {
	var none [queriesAbreast]float32
	config := newTileConfig(tileTokens)
	const scoreFloats = keysOfChunk * queriesAbreast // of a run
	n, steps := keys.hi-keys.lo, ceilDiv(keys.hi-keys.lo, keysOfStep)
	c := tileCall{
		config: &config, steps: t.headSteps, rows: ceilDiv(n, tileTokens),
		a: &k[keys.lo/tileTokens*t.headSteps*tileBytes], aNext: t.headSteps * tileBytes, aStep: tileBytes,
		b: &s.q[0], bNext: t.headSteps * tileBytes,
		c: tileSums{&s.scores[0], 4 * queriesAbreast, tileBytes, 4 * scoreFloats}, start: tileSums{at: &none[0]},
	}
	c.run(runs)
	for r := range runs {
		scores := s.scores[r*scoreFloats:][:steps*keysOfStep*queriesAbreast]
		for i := n * queriesAbreast; i < len(scores); i++ {
			scores[i] = float32(math.Inf(-1))
		}
		sums := s.sums[r*t.valueTiles*tileBytes/4:]
		tileSoftmax(s.p[2*r*scoreFloats:], scores, s.top[r*queriesAbreast:], sums, t.HeadDim+1)
	}
	c = tileCall{
		config: &config, steps: steps, rows: t.valueTiles,
		a: &v[keys.lo/keysOfStep*tileBytes], aNext: t.keySteps * tileBytes, aStep: tileBytes,
		b: &s.p[0], bNext: 2 * scoreFloats,
		c: tileSums{&s.sums[0], 4 * queriesAbreast, tileBytes, t.valueTiles * tileBytes},
	}
	c.start = c.c
	c.run(runs)
}

// packQueries lays out n queries, and fills up the last run with zeros.
func (t *tileAttendTask) packQueries(dst []byte, x []float32, n int) {
	var padded [queriesAbreast * tileColumns]float32
	stride := t.Heads * t.HeadDim
	for at := 0; at < n; at += queriesAbreast {
		for s := range t.headSteps {
			tile := dst[(at/queriesAbreast*t.headSteps+s)*tileBytes:][:tileBytes]
			rows, components := x[at*stride+s*tileColumns:], min(tileColumns, t.HeadDim-s*tileColumns)
			if n-at >= queriesAbreast {
				tileQueries(tile, rows, stride, components)
				continue
			}
			clear(padded[:])
			for i := range n - at {
				copy(padded[i*tileColumns:], rows[i*stride:][:components])
			}
			tileQueries(tile, padded[:], tileColumns, components)
		}
	}
}

// results writes what n queries have come to.
func (t *tileAttendTask) results(s *tileAttendScratch, out []float32, n int) {
	var share [queriesAbreast]float32
	var beside [queriesAbreast * tileTokens]float32
	stride := t.Heads * t.HeadDim
	for at := 0; at < n; at += queriesAbreast {
		sums := s.sums[at/queriesAbreast*t.valueTiles*tileBytes/4:]
		for i := range share {
			share[i] = 1 / sums[t.HeadDim*queriesAbreast+i]
		}
		for d := 0; d < t.HeadDim; d += tileTokens {
			components := min(tileTokens, t.HeadDim-d)
			if n-at >= queriesAbreast {
				tileResults(out[at*stride+d:], stride, sums[d*queriesAbreast:], &share, components)
				continue
			}
			tileResults(beside[:], tileTokens, sums[d*queriesAbreast:], &share, components)
			for i := range n - at {
				copy(out[(at+i)*stride+d:][:components], beside[i*tileTokens:])
			}
		}
	}
}

//go:noescape
func tileQueriesAVX512(dst *byte, x *float32, stride, mask int)

//go:noescape
func tileValuesAVX512(dst *byte, x *float32, stride, mask int)

//go:noescape
func tileResultsAVX512(out *float32, stride int, x, share *float32, mask int)

//go:noescape
func tileSoftmaxAVX512(p *byte, score *float32, keys int, top, x *float32, rows int)

// tileQueries writes 16 rows of x, stride apart, to a tile, BF16 [16 pairs][16 rows][2]:
// the first columns of each, and zeros.
func tileQueries(tile []byte, x []float32, stride, columns int) {
	_, _ = tile[tileBytes-1], x[(tileTokens-1)*stride+columns-1]
	tileQueriesAVX512(&tile[0], &x[0], 4*stride, 1<<columns-1)
}

// tileValues writes 32 rows of x, stride apart, to a tile, BF16 [16 columns][32 rows]: the
// first columns of each, and zeros.
func tileValues(tile []byte, x []float32, stride, columns int) {
	_, _ = tile[tileBytes-1], x[(keysOfStep-1)*stride+columns-1]
	tileValuesAVX512(&tile[0], &x[0], 4*stride, 1<<columns-1)
}

// tileResults writes the first columns of the transpose of x, [16][16], times the share of
// each row, to rows of out, stride apart.
func tileResults(out []float32, stride int, x []float32, share *[queriesAbreast]float32, columns int) {
	_, _ = out[(tileTokens-1)*stride+columns-1], x[tileTokens*tileTokens-1]
	tileResultsAVX512(&out[0], 4*stride, &x[0], &share[0], 1<<columns-1)
}

// tileSoftmax turns scores, [keys][16] exponents of two, into weights p, BF16
// [keys/2][16][2], below the larger of top and the largest of them, which becomes the
// new top; the first rows of sums, [rows][16], are scaled down to it. keys is a multiple
// of 32. Weights are within 2⁻⁸ of the powers, and not below 2⁻¹²⁶.
func tileSoftmax(p []byte, scores, top, sums []float32, rows int) {
	_, _, _ = p[2*len(scores)-1], top[queriesAbreast-1], sums[rows*queriesAbreast-1]
	tileSoftmaxAVX512(&p[0], &scores[0], len(scores)/queriesAbreast, &top[0], &sums[0], rows)
}

package sample

import (
	"math"
	"slices"
)

// repetitionPenalty makes every id once less probable (Keskar et al. 2019).
func repetitionPenalty(logits []float32, ids []int32, penalty float32) {
	for _, id := range ids {
		if logits[id] < 0 {
			logits[id] *= penalty
		} else {
			logits[id] /= penalty
		}
	}
}

// noRepeatNGram forbids the tokens that followed an earlier occurrence of the
// last n-1 tokens of history.
func noRepeatNGram(logits []float32, history []int32, n int) {
	if len(history) < n {
		return
	}
	tail := history[len(history)-(n-1):]
	for i := 0; i+n <= len(history); i++ {
		next := history[i+n-1]
		if slices.Equal(history[i:i+n-1], tail) && next >= 0 && int(next) < len(logits) {
			logits[next] = float32(math.Inf(-1))
		}
	}
}

// candidate is a token that may still be chosen. weight is proportional to
// its probability: exp(logit - largest logit).
type candidate struct {
	weight float64
	logit  float32
	id     int32
}

// before orders candidates from the most to the least probable.
func (c candidate) before(o candidate) bool {
	return c.logit > o.logit || c.logit == o.logit && c.id < o.id
}

// candidates is the set of tokens that may still be chosen. Every filter
// leaves at least one.
type candidates struct {
	list   []candidate
	total  float64 // sum of the weights
	sorted int     // length of the prefix that is sorted and before all others
}

// reset takes all tokens that are not forbidden, with logits divided by
// temperature; weigh must follow.
func (c *candidates) reset(logits []float32, temperature float32) {
	c.list, c.sorted = c.list[:0], 0
	for id, l := range logits {
		if l < -math.MaxFloat32 {
			continue
		}
		l = max(-math.MaxFloat32, min(l/temperature, math.MaxFloat32))
		c.list = append(c.list, candidate{logit: l, id: int32(id)})
	}
}

// resetTop takes the k most probable of all tokens that are not forbidden, in order.
// Few tokens get into the heap of those found so far, of which the last is the first to
// go, so that a pass over the vocabulary is little more than one comparison a token.
func (c *candidates) resetTop(logits []float32, temperature float32, k int) {
	c.list, c.sorted = c.list[:0], 0
	floor := float32(-math.MaxFloat32) // no token with a smaller logit gets in
	for id, l := range logits {
		if l < floor || l == floor && len(c.list) == k {
			continue
		}
		// Until weigh, the weight is the logit before the division.
		x := candidate{float64(l), max(-math.MaxFloat32, min(l/temperature, math.MaxFloat32)), int32(id)}
		switch {
		case len(c.list) < k:
			c.list = append(c.list, x)
			c.up(len(c.list) - 1)
		case x.before(c.list[0]):
			c.list[0] = x
			c.down()
		}
		if len(c.list) == k {
			floor = float32(c.list[0].weight)
		}
	}
	c.sortFirst(len(c.list))
}

// up moves a new candidate to where it belongs in the heap.
func (c *candidates) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !c.list[parent].before(c.list[i]) {
			return
		}
		c.list[i], c.list[parent] = c.list[parent], c.list[i]
		i = parent
	}
}

// down moves the first candidate to where it belongs in the heap.
func (c *candidates) down() {
	for i := 0; ; {
		last := i
		for _, child := range [...]int{2*i + 1, 2*i + 2} {
			if child < len(c.list) && c.list[last].before(c.list[child]) {
				last = child
			}
		}
		if last == i {
			return
		}
		c.list[i], c.list[last] = c.list[last], c.list[i]
		i = last
	}
}

// atLeast drops those whose logit is further below the largest than the logarithm of
// minP, and a little more: those that minP drops without their weights.
func (c *candidates) atLeast(p float64) {
	largest := float32(math.Inf(-1))
	for i := range c.list {
		largest = max(largest, c.list[i].logit)
	}
	lowest := float64(largest) + math.Log(p) - 1e-6
	n := 0
	for _, x := range c.list {
		if float64(x.logit) >= lowest {
			c.list[n] = x
			n++
		}
	}
	c.list = c.list[:n]
	c.sorted = min(c.sorted, n)
}

// weigh computes the weights and their sum.
func (c *candidates) weigh() {
	largest := float32(math.Inf(-1))
	for i := range c.list {
		largest = max(largest, c.list[i].logit)
	}
	for i := range c.list {
		c.list[i].weight = exp(float64(c.list[i].logit) - float64(largest))
	}
	c.sum()
}

// keep shortens the list to its first n candidates.
func (c *candidates) keep(n int) {
	c.list = c.list[:n]
	c.sorted = min(c.sorted, n)
	c.sum()
}

func (c *candidates) sum() {
	c.total = 0
	for i := range c.list {
		c.total += c.list[i].weight
	}
}

// topP keeps the most probable until their mass reaches p.
func (c *candidates) topP(p float64) {
	front := *c
	if c.sorted < len(c.list) {
		c.sorted = 0
		front.list, front.sorted = c.list[:c.narrow(p)], 0
	}
	mass := 0.0
	for i := range front.list {
		if i == front.sorted {
			front.sortFirst(max(64, 4*i))
		}
		if mass += front.list[i].weight; mass >= p*c.total {
			c.sorted = front.sorted
			c.keep(i + 1)
			return
		}
	}
}

// The steps by which narrow tells logits apart.
const (
	steps     = 512
	stepsUnit = 16 // steps per unit of the logit
)

// narrow moves to the front the candidates that topP may keep, found by the mass of
// steps of logits without sorting, and returns their number. All of them are before all
// others.
func (c *candidates) narrow(p float64) int {
	largest := float32(math.Inf(-1))
	for i := range c.list {
		largest = max(largest, c.list[i].logit)
	}
	var mass [steps]float64
	for i := range c.list {
		mass[stepOf(largest, c.list[i].logit)] += c.list[i].weight
	}
	last, sum := 0, mass[0]
	for last < steps-1 && sum < p*c.total*(1+1e-9) { // sums in another order differ in their last bits
		last++
		sum += mass[last]
	}
	n := 0
	for i := range c.list {
		if stepOf(largest, c.list[i].logit) <= last {
			c.list[n], c.list[i] = c.list[i], c.list[n]
			n++
		}
	}
	return n
}

func stepOf(largest, logit float32) int {
	return int(min(stepsUnit*(largest-logit), steps-1))
}

// minP keeps those at least p times as probable as the most probable.
func (c *candidates) minP(p float64) {
	largest := 0.0
	for i := range c.list {
		largest = max(largest, c.list[i].weight)
	}
	n := 0
	for _, x := range c.list {
		if x.weight >= p*largest {
			c.list[n] = x
			n++
		}
	}
	c.keep(n) // a filtered prefix is still sorted
}

// typicalP keeps those whose information content is nearest to the entropy,
// up to a mass of p. The logarithm of the sum of weights is part of both the
// information and the entropy, and cancels.
func (c *candidates) typicalP(p float64) {
	mean := 0.0
	for i := range c.list {
		mean += float64(c.list[i].weight * float64(c.list[i].logit))
	}
	mean /= c.total
	c.sorted = 0
	slices.SortFunc(c.list, func(a, b candidate) int {
		da, db := math.Abs(float64(a.logit)-mean), math.Abs(float64(b.logit)-mean)
		switch {
		case da < db:
			return -1
		case da > db:
			return 1
		}
		return int(a.id - b.id)
	})
	mass := 0.0
	for i := range c.list {
		if mass += c.list[i].weight; mass >= p*c.total {
			c.keep(i + 1)
			return
		}
	}
}

// draw returns the id at u of the cumulated distribution, u in [0, 1).
func (c *candidates) draw(u float64) int {
	left := u * c.total
	for i := range c.list {
		left -= c.list[i].weight
		if left < 0 {
			return int(c.list[i].id)
		}
	}
	return int(c.list[len(c.list)-1].id) // the sum was rounded
}

// sortFirst moves the n first candidates to the front, in order, and leaves
// the others unordered: linear in the list for a small n.
func (c *candidates) sortFirst(n int) {
	n = min(n, len(c.list))
	if n <= c.sorted {
		return
	}
	rest := c.list[c.sorted:]
	selectFirst(rest, n-c.sorted)
	slices.SortFunc(rest[:n-c.sorted], func(a, b candidate) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	c.sorted = n
}

// selectFirst partitions list so that its first n are before all others
// (Hoare's quickselect, with the median of three as pivot).
func selectFirst(list []candidate, n int) {
	lo, hi := 0, len(list)
	for hi-lo > 16 {
		pivot := median(list[lo], list[(lo+hi)/2], list[hi-1])
		i, j := lo, hi-1
		for i <= j {
			for list[i].before(pivot) {
				i++
			}
			for pivot.before(list[j]) {
				j--
			}
			if i <= j {
				list[i], list[j] = list[j], list[i]
				i++
				j--
			}
		}
		switch {
		case n <= j+1:
			hi = j + 1
		case n >= i:
			lo = i
		default:
			return
		}
	}
	slices.SortFunc(list[lo:hi], func(a, b candidate) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
}

func median(a, b, c candidate) candidate {
	if b.before(a) {
		a, b = b, a
	}
	switch {
	case c.before(a):
		return a
	case b.before(c):
		return b
	}
	return c
}

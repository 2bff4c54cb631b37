package lm

import (
	"helicon/models/lm/family"
	"helicon/models/tensor"
)

// PageTokens is the number of positions in a page of a cache, the unit in which
// memory is given to sequences and in which they share what they have in common.
const PageTokens = 32

// pages is the memory of keys and values that sequences share out among themselves
// (Kwon et al. 2023). It grows as it is needed and belongs to one goroutine at a time.
//
// Sequences that hold a page count in refs; one that nobody holds is free, or kept for
// the prefix that it has until its room is needed. Every sequence was promised the most
// that it can hold. As all promises together are no more than limit, and pages that are
// shared take less, there is always a page to take.
type pages struct {
	layers   []tensor.KVPages
	limit    int       // pages
	promised int       // pages, to all sequences
	refs     []int32   // by page
	free     []int32   // pages that hold nothing
	prefixes *prefixes // nil if sequences do not share
}

// newPages returns memory for so many pages, which is not allocated yet.
func newPages(c *family.Config, limit int) *pages {
	p := &pages{limit: limit, layers: make([]tensor.KVPages, c.Layers)}
	for i := range p.layers {
		p.layers[i] = kvPages(c)
	}
	return p
}

// kvPages is a layer's pages, of which there are none.
func kvPages(c *family.Config) tensor.KVPages {
	return tensor.KVPages{PageTokens: PageTokens, Heads: c.KVHeads, HeadDim: c.HeadDim}
}

// pageBytes returns the memory of a page, in all layers.
func pageBytes(c *family.Config) int64 {
	padded := (int64(c.HeadDim) + 15) &^ 15 // as tensor.KVPages has it
	return 2 * 4 * PageTokens * int64(c.Layers) * int64(c.KVHeads) * padded
}

// pagesFor returns how many pages so many tokens take.
func pagesFor(tokens int) int { return (tokens + PageTokens - 1) / PageTokens }

// promise sets n pages aside, if there are so many.
func (p *pages) promise(n int) bool {
	if n > p.limit-p.promised {
		return false
	}
	p.promised += n
	return true
}

// take returns a page, with anything in it, to a sequence that has not got all that it
// was promised.
func (p *pages) take() int32 {
	if len(p.free) == 0 && len(p.refs) < p.limit {
		p.grow(min(p.limit, max(2*len(p.refs), minPages)))
	}
	var page int32
	if n := len(p.free); n > 0 {
		page, p.free = p.free[n-1], p.free[:n-1]
	} else {
		page = p.prefixes.evict()
	}
	p.refs[page] = 1
	return page
}

// minPages is what is allocated at least.
const minPages = 8

// grow allocates memory for n pages in all, one layer after the other, so that not
// much more than that is ever needed.
func (p *pages) grow(n int) {
	have := len(p.refs)
	for i := range p.layers {
		l := &p.layers[i]
		l.K = append(make([]float32, 0, n*l.PageFloats()), l.K...)[:n*l.PageFloats()]
		l.V = append(make([]float32, 0, n*l.PageFloats()), l.V...)[:n*l.PageFloats()]
	}
	p.refs = append(make([]int32, 0, n), p.refs...)[:n]
	p.free = append(make([]int32, 0, n), p.free...)
	for page := n - 1; page >= have; page-- {
		p.free = append(p.free, int32(page))
	}
	if p.prefixes != nil {
		p.prefixes.grow(n)
	}
}

// hold adds a sequence to those that hold a page.
func (p *pages) hold(page int32) {
	if p.refs[page] == 0 {
		p.prefixes.unlink(page)
	}
	p.refs[page]++
}

// release ends the hold of a sequence on a page, which is kept if it has a prefix that
// may come again.
func (p *pages) release(page int32) {
	if p.refs[page]--; p.refs[page] > 0 {
		return
	}
	if p.prefixes != nil && p.prefixes.nodes[page].serial != 0 {
		p.prefixes.link(page)
	} else {
		p.free = append(p.free, page)
	}
}

// copy writes what page from has to page to.
func (p *pages) copy(to, from int32) {
	for i := range p.layers {
		l := &p.layers[i]
		n := l.PageFloats()
		copy(l.K[int(to)*n:][:n], l.K[int(from)*n:])
		copy(l.V[int(to)*n:][:n], l.V[int(from)*n:])
	}
}

// bytes returns the memory that is allocated for keys and values.
func (p *pages) bytes() int64 {
	var floats int
	for i := range p.layers {
		floats += len(p.layers[i].K) + len(p.layers[i].V)
	}
	return 4 * int64(floats)
}

// prefixes finds the pages that begin a text. A page is known by its tokens and by the
// page before it, of which the serial number tells that it is still the same one.
type prefixes struct {
	byHash map[uint64]int32
	nodes  []prefix // by page
	serial uint64   // the last one given
	oldest int32    // of the pages that nobody holds; -1 for none
	newest int32
}

// prefix is what a complete page has.
type prefix struct {
	tokens       [PageTokens]int32
	parent       uint64 // serial of the page before, or the number of the angles
	serial       uint64 // 0 if the page is not to be found
	older, newer int32  // in the list of the pages that nobody holds
}

// firstSerial leaves room for the numbers of angles, which stand for the page before
// the first.
const firstSerial = 1 << 32

func newPrefixes() *prefixes {
	return &prefixes{byHash: map[uint64]int32{}, serial: firstSerial, oldest: -1, newest: -1}
}

// grow makes room for n pages, so that what follows allocates nothing.
func (x *prefixes) grow(n int) {
	x.nodes = append(make([]prefix, 0, n), x.nodes...)[:n]
	larger := make(map[uint64]int32, n)
	for hash, page := range x.byHash {
		larger[hash] = page
	}
	x.byHash = larger
}

// hashPage is FNV-1a over whole numbers. What it finds is compared.
func hashPage(parent uint64, tokens []int) uint64 {
	const prime = 1099511628211
	h := (parent ^ 14695981039346656037) * prime
	for _, id := range tokens {
		h = (h ^ uint64(id)) * prime
	}
	return h
}

// find returns the page that has the tokens after the one with the parent's serial.
func (x *prefixes) find(parent uint64, tokens []int) (page int32, ok bool) {
	page, ok = x.byHash[hashPage(parent, tokens)]
	return page, ok && x.nodes[page].is(parent, tokens)
}

func (n *prefix) is(parent uint64, tokens []int) bool {
	if n.parent != parent || n.serial == 0 {
		return false
	}
	for i, id := range tokens {
		if n.tokens[i] != int32(id) {
			return false
		}
	}
	return true
}

// add makes a page known that find does not find.
func (x *prefixes) add(page int32, parent uint64, tokens []int) {
	hash, n := hashPage(parent, tokens), &x.nodes[page]
	if other, taken := x.byHash[hash]; taken { // a chance in 2⁶⁴: the newer one is found
		x.nodes[other].serial = 0
	}
	x.serial++
	n.parent, n.serial = parent, x.serial
	for i, id := range tokens {
		n.tokens[i] = int32(id)
	}
	x.byHash[hash] = page
}

// forget makes a page unknown whose content changes.
func (x *prefixes) forget(page int32) {
	n := &x.nodes[page]
	if n.serial == 0 {
		return
	}
	var tokens [PageTokens]int
	for i, id := range n.tokens {
		tokens[i] = int(id)
	}
	n.serial = 0
	delete(x.byHash, hashPage(n.parent, tokens[:]))
}

// link puts a page that nobody holds any more at the end of the list.
func (x *prefixes) link(page int32) {
	n := &x.nodes[page]
	n.older, n.newer = x.newest, -1
	if x.newest >= 0 {
		x.nodes[x.newest].newer = page
	} else {
		x.oldest = page
	}
	x.newest = page
}

// unlink takes a page out of the list.
func (x *prefixes) unlink(page int32) {
	n := &x.nodes[page]
	if n.older >= 0 {
		x.nodes[n.older].newer = n.newer
	} else {
		x.oldest = n.newer
	}
	if n.newer >= 0 {
		x.nodes[n.newer].older = n.older
	} else {
		x.newest = n.older
	}
}

// evict returns the page that nobody has held for the longest time, and forgets it.
func (x *prefixes) evict() int32 {
	page := x.oldest
	x.unlink(page)
	x.forget(page)
	return page
}

package lm

import (
	"helicon/models/lm/family"
	"helicon/models/tensor"
)

// sequence is a text and its keys and values. Those of text[:ready] are in the pages,
// the rest is still to be computed.
type sequence struct {
	cache *pages
	text  []int
	table []int32 // pages, -1 for those that are not needed any more
	ready int
	made  angleSet // of the keys
	most  int      // pages that the cache has promised
	known int      // pages at the beginning that can be found by their prefix
}

// angleSet tells which of the rotations of a position a call uses, where they depend
// on the length of the sequence.
type angleSet int

const (
	plainAngles angleSet = iota
	longAngles
	mixedAngles angleSet = -1 // keys of several calls with different ones
	// All others are the length at which dynamic scaling took its base.
)

// anglesOf returns the angles of a call after which a sequence has that length.
func anglesOf(c *family.Config, length int) angleSet {
	for i, r := range c.Rotations {
		if r.Long(length) {
			return longAngles
		}
		if s := c.Ropes[i].Scaling; s != nil && s.Type == "dynamic" && length > c.Ropes[i].Context {
			return angleSet(length)
		}
	}
	return plainAngles
}

// newSequence returns an empty sequence for at most so many tokens in so many pages at
// once, which the cache has promised.
func (p *pages) newSequence(tokens, most int) *sequence {
	return &sequence{cache: p, text: make([]int, 0, tokens), table: make([]int32, 0, pagesFor(tokens)), most: most}
}

// fork returns a sequence that goes on from the same text, for as many tokens. The
// cache has promised it as much.
func (s *sequence) fork() *sequence {
	f := s.cache.newSequence(cap(s.text), s.most)
	f.follow(s)
	f.text = append(f.text, s.text...)
	return f
}

// follow takes over what another sequence has computed of the same text.
func (s *sequence) follow(other *sequence) {
	s.cut(0)
	s.table = append(s.table, other.table...)
	for _, page := range s.table {
		if page >= 0 {
			s.cache.hold(page)
		}
	}
	s.ready, s.made, s.known = other.ready, other.made, other.known
}

// begin says that the tokens to be computed belong to a call after which the sequence
// has the given length. Keys that have other angles are to be made again where the
// rotations ask for it.
func (s *sequence) begin(c *family.Config, length int) {
	angles := anglesOf(c, length)
	switch {
	case s.ready == 0:
		s.made = angles
	case s.made == angles:
	case switches(c):
		s.cut(0)
		s.made = angles
	default:
		s.made = mixedAngles
	}
}

// need makes the next n positions writable.
func (s *sequence) need(n int) {
	if at := s.ready / PageTokens; s.ready%PageTokens > 0 {
		s.own(at)
	}
	for len(s.table) < pagesFor(s.ready+n) {
		s.table = append(s.table, s.cache.take())
	}
}

// own makes sure that nobody else sees what is written to a page.
func (s *sequence) own(at int) {
	page := s.table[at]
	if s.cache.refs[page] > 1 {
		s.table[at] = s.cache.take()
		s.cache.copy(s.table[at], page)
		s.cache.release(page)
	} else if s.cache.prefixes != nil {
		s.cache.prefixes.forget(page)
	}
}

// span is the place of the next n positions.
func (s *sequence) span(n int) tensor.Span {
	return tensor.Span{Rows: n, Start: s.ready, Pages: s.table}
}

// computed says that the keys and values of the next n positions were written.
func (s *sequence) computed(n int) {
	s.ready += n
	s.publish()
}

// publish lets other sequences find the pages that are complete. Of two that have the
// same, one remains.
func (s *sequence) publish() {
	x := s.cache.prefixes
	if x == nil || s.made == mixedAngles {
		return
	}
	for ; (s.known+1)*PageTokens <= s.ready; s.known++ {
		page, tokens := s.table[s.known], s.text[s.known*PageTokens:][:PageTokens]
		parent, ok := s.parent(s.known)
		if page < 0 || !ok {
			return
		}
		if same, ok := x.find(parent, tokens); !ok {
			x.add(page, parent, tokens)
		} else if same != page {
			s.cache.hold(same)
			s.cache.release(page)
			s.table[s.known] = same
		}
	}
}

// parent returns the serial of what is before page i, if it can be found.
func (s *sequence) parent(i int) (serial uint64, ok bool) {
	if i == 0 {
		return uint64(s.made), true
	}
	if page := s.table[i-1]; page >= 0 {
		serial = s.cache.prefixes.nodes[page].serial
	}
	return serial, serial > 0
}

// adopt takes over pages that others have computed of the text, all but its last token
// at most.
func (s *sequence) adopt() {
	x := s.cache.prefixes
	if x == nil || s.known*PageTokens != s.ready || s.made == mixedAngles {
		return
	}
	for s.ready+PageTokens < len(s.text) {
		parent, ok := s.parent(s.known)
		if !ok {
			return
		}
		page, ok := x.find(parent, s.text[s.ready:][:PageTokens])
		if !ok {
			return
		}
		s.cache.hold(page)
		s.table = append(s.table, page)
		s.known++
		s.ready += PageTokens
	}
}

// cut forgets all but the first n tokens that were computed. The text stays.
func (s *sequence) cut(n int) {
	s.ready = min(s.ready, n)
	s.known = min(s.known, s.ready/PageTokens)
	for i := len(s.table) - 1; i >= pagesFor(s.ready); i-- {
		if s.table[i] >= 0 {
			s.cache.release(s.table[i])
		}
	}
	s.table = s.table[:pagesFor(s.ready)]
}

// truncate forgets all but the first n tokens.
func (s *sequence) truncate(n int) {
	s.text = s.text[:n]
	s.cut(n)
}

// forgetBefore gives back the pages before a position that no token sees any more.
func (s *sequence) forgetBefore(position int) {
	for i := position/PageTokens - 1; i >= 0 && s.table[i] >= 0; i-- {
		s.cache.release(s.table[i])
		s.table[i] = -1
	}
}

// close gives back everything, the end first: it is the least likely to be asked for.
func (s *sequence) close() {
	s.truncate(0)
	s.cache.promised -= s.most
	s.most = 0
}

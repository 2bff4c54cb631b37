package subword

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// BPE is byte-pair encoding: a word starts as its characters and the adjacent
// pair of the lowest rank is merged until no pair has a rule.
type BPE struct {
	vocab  *Vocabulary
	merges Merges

	// Options, which may be set before the first use.
	Unk          int32       // the unknown token; -1: characters without an id are dropped
	FuseUnk      bool        // a run of unknown characters is one unknown token
	ByteFallback *[256]int32 // tokens of the bytes of unknown characters; nil: none
	Whole        *Trie       // tokens found in a word before it is cut up; nil: none
	IgnoreMerges bool        // a word of the vocabulary is taken as it is
	Prefix       string      // of a character that does not begin the word ("##")
	Suffix       string      // of the character that ends the word ("</w>")

	ascii   [utf8.RuneSelf]int32 // ids of single ASCII characters, -1 if absent
	scratch sync.Pool            // *bpeScratch
}

// Merges are the rules of a BPE, by pair.
type Merges map[pair]merge

type pair struct{ left, right int32 }

// merge is the rule of a pair: what it becomes, and when.
type merge struct{ rank, id int32 }

// bpeScratch is the working memory of one word.
type bpeScratch struct {
	symbols []symbol
	queue   []candidate
}

// symbol is a node of the linked list of the parts of a word. An id of -1
// marks a symbol that was merged into its left neighbour.
type symbol struct{ id, prev, next int32 }

// candidate is a merge of the symbol at pos with its right neighbour.
type candidate struct{ rank, pos, id int32 }

// NewBPE indexes a vocabulary for merging. Options are set on the result.
func NewBPE(vocab *Vocabulary, merges Merges) *BPE {
	m := &BPE{vocab: vocab, merges: merges, Unk: -1}
	m.scratch.New = func() any { return new(bpeScratch) }
	for c := range m.ascii {
		id, ok := vocab.IDs[string(rune(c))]
		if !ok {
			id = -1
		}
		m.ascii[c] = id
	}
	return m
}

// MergesFromList reads rules in order of rank. With a prefix, the right part
// of a rule is spelled with it and loses it in the result.
func MergesFromList(vocab *Vocabulary, list []MergePair, prefix string) (Merges, error) {
	merges := make(Merges, len(list))
	for rank, parts := range list {
		left, okLeft := vocab.IDs[parts[0]]
		right, okRight := vocab.IDs[parts[1]]
		whole := parts[0] + strings.TrimPrefix(parts[1], prefix)
		id, ok := vocab.IDs[whole]
		if !okLeft || !okRight || !ok {
			return nil, fmt.Errorf("merges[%d]: %q with %q makes %q: a token is not in the vocabulary", rank, parts[0], parts[1], whole)
		}
		merges[pair{left, right}] = merge{rank: int32(rank), id: id}
	}
	return merges, nil
}

// MergesFromVocab derives the rules of vocabularies that have none of their
// own: every token may be made of any two tokens, in order of rank.
func MergesFromVocab(vocab *Vocabulary, rank func(id int32) (r int32, ok bool)) (Merges, error) {
	merges := Merges{}
	for id, token := range vocab.Tokens {
		r, ok := rank(int32(id))
		if !ok {
			continue
		}
		if len(token) > MaxTokenBytes {
			return nil, fmt.Errorf("token %d has %d bytes, at most %d are accepted", id, len(token), MaxTokenBytes)
		}
		for cut := 1; cut < len(token); cut++ {
			left, ok := vocab.IDs[token[:cut]]
			if !ok {
				continue
			}
			if right, ok := vocab.IDs[token[cut:]]; ok {
				merges[pair{left, right}] = merge{rank: r, id: int32(id)}
			}
		}
	}
	return merges, nil
}

// Tokenize appends the ids of word to dst.
func (m *BPE) Tokenize(dst []int32, word string) ([]int32, error) {
	if m.IgnoreMerges {
		if id, ok := m.vocab.IDs[word]; ok {
			return append(dst, id), nil
		}
	}
	s := m.scratch.Get().(*bpeScratch)
	defer m.scratch.Put(s)
	if m.Whole == nil {
		return m.mergeWord(dst, word, s), nil
	}
	start := 0
	for at := 0; at < len(word); {
		id, size := m.Whole.Longest(word[at:])
		if size == 0 {
			at++
			continue
		}
		dst = append(m.mergeWord(dst, word[start:at], s), id)
		at += size
		start = at
	}
	return m.mergeWord(dst, word[start:], s), nil
}

// mergeWord appends the ids of word.
func (m *BPE) mergeWord(dst []int32, word string, s *bpeScratch) []int32 {
	m.start(s, word)
	m.mergeAll(s)
	for i := range s.symbols {
		if id := s.symbols[i].id; id >= 0 {
			dst = append(dst, id)
		}
	}
	return dst
}

// start fills the list with the characters of word.
func (m *BPE) start(s *bpeScratch, word string) {
	s.symbols = s.symbols[:0]
	unknown := false // the character before was unknown
	for i := 0; i < len(word); {
		_, size := utf8.DecodeRuneInString(word[i:])
		id, ok := m.charID(word, i, i+size)
		switch {
		case ok:
			s.add(id)
		case m.ByteFallback != nil:
			for _, b := range []byte(word[i : i+size]) {
				s.add(m.ByteFallback[b])
			}
			ok = true
		case m.Unk >= 0 && !(unknown && m.FuseUnk):
			s.add(m.Unk)
		}
		unknown = !ok
		i += size
	}
	if n := len(s.symbols); n > 0 {
		s.symbols[n-1].next = -1
	}
}

func (s *bpeScratch) add(id int32) {
	n := int32(len(s.symbols))
	s.symbols = append(s.symbols, symbol{id: id, prev: n - 1, next: n + 1})
}

// charID returns the id of the character word[start:end].
func (m *BPE) charID(word string, start, end int) (int32, bool) {
	if m.Prefix == "" && m.Suffix == "" {
		if end == start+1 && word[start] < utf8.RuneSelf {
			id := m.ascii[word[start]]
			return id, id >= 0
		}
		id, ok := m.vocab.IDs[word[start:end]]
		return id, ok
	}
	c := word[start:end]
	if start > 0 {
		c = m.Prefix + c
	}
	if end == len(word) {
		c += m.Suffix
	}
	id, ok := m.vocab.IDs[c]
	return id, ok
}

// mergeAll applies the rules, lowest rank first and leftmost among equals. A
// heap of candidates keeps it at O(n log n) for a word of n characters.
func (m *BPE) mergeAll(s *bpeScratch) {
	s.queue = s.queue[:0]
	for i := range s.symbols {
		m.propose(s, int32(i))
	}
	for len(s.queue) > 0 {
		c := s.pop()
		left := &s.symbols[c.pos]
		if left.id < 0 || left.next < 0 {
			continue
		}
		right := &s.symbols[left.next]
		if rule, ok := m.merges[pair{left.id, right.id}]; !ok || rule.id != c.id || rule.rank != c.rank {
			continue // one of the two has changed since
		}
		left.id = c.id
		right.id = -1
		left.next = right.next
		if left.next >= 0 {
			s.symbols[left.next].prev = c.pos
		}
		m.propose(s, left.prev)
		m.propose(s, c.pos)
	}
}

// propose queues the merge of the symbol at pos with the next one, if there
// is a rule for it.
func (m *BPE) propose(s *bpeScratch, pos int32) {
	if pos < 0 || s.symbols[pos].next < 0 {
		return
	}
	left := s.symbols[pos]
	if rule, ok := m.merges[pair{left.id, s.symbols[left.next].id}]; ok {
		s.push(candidate{rank: rule.rank, pos: pos, id: rule.id})
	}
}

func (c candidate) before(o candidate) bool {
	return c.rank < o.rank || c.rank == o.rank && c.pos < o.pos
}

// push and pop keep queue a binary heap.
func (s *bpeScratch) push(c candidate) {
	s.queue = append(s.queue, c)
	q, i := s.queue, len(s.queue)-1
	for i > 0 {
		parent := (i - 1) / 2
		if !q[i].before(q[parent]) {
			break
		}
		q[i], q[parent] = q[parent], q[i]
		i = parent
	}
}

func (s *bpeScratch) pop() candidate {
	q := s.queue
	top, n := q[0], len(q)-1
	q[0] = q[n]
	q = q[:n]
	s.queue = q
	for i := 0; ; {
		child := 2*i + 1
		if child >= n {
			return top
		}
		if child+1 < n && q[child+1].before(q[child]) {
			child++
		}
		if !q[child].before(q[i]) {
			return top
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
}

// RanksByScore ranks ids by falling score; equal scores have equal ranks.
func RanksByScore(scores []float32) []int32 {
	order := make([]int32, len(scores))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(scores[b], scores[a]) })
	ranks, rank := make([]int32, len(scores)), int32(-1)
	for i, id := range order {
		if i == 0 || scores[id] != scores[order[i-1]] {
			rank++
		}
		ranks[id] = rank
	}
	return ranks
}

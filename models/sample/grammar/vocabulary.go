package grammar

import (
	"bytes"
	"slices"
)

// Vocabulary is the tokens of a model as a trie of their bytes. It is immutable and
// shared by the automata of a model.
type Vocabulary struct {
	size    int
	ends    []int    // tokens that end a text
	spelled [][]byte // by id; nil where a token has no text

	// The nodes of the trie, each before those below it.
	bytes []byte  // that leads to the node
	depth []int32 // bytes from the root, from 1
	skip  []int32 // the first node that is not below it
	last  []int32 // the end of its tokens; they begin where those of the node before end
	ids   []int32
	deep  int // the largest depth
}

// NewVocabulary returns the vocabulary of a model with so many tokens. spelled returns
// the bytes that a token adds to a text; tokens without any, as those that only have a
// meaning, never follow. ends are the tokens that end a text.
func NewVocabulary(size int, spelled func(id int) []byte, ends []int) *Vocabulary {
	v := &Vocabulary{size: size, spelled: make([][]byte, size)}
	for _, id := range ends {
		if id >= 0 && id < size {
			v.ends = append(v.ends, id)
		}
	}
	type token struct {
		id    int32
		bytes []byte
	}
	tokens := make([]token, 0, size)
	for id := range size {
		if slices.Contains(ends, id) {
			continue
		}
		if b := spelled(id); len(b) > 0 {
			tokens = append(tokens, token{int32(id), b})
			v.spelled[id] = b
		}
	}
	slices.SortStableFunc(tokens, func(a, b token) int { return bytes.Compare(a.bytes, b.bytes) })
	var path []int32 // the nodes on the way to the token before
	for i, t := range tokens {
		common := 0
		if i > 0 {
			before := tokens[i-1].bytes
			for common < len(before) && common < len(t.bytes) && before[common] == t.bytes[common] {
				common++
			}
		}
		v.leave(path[common:])
		path = path[:common]
		for _, b := range t.bytes[common:] {
			path = append(path, int32(len(v.bytes)))
			v.bytes = append(v.bytes, b)
			v.depth = append(v.depth, int32(len(path)))
			v.skip = append(v.skip, 0)
			v.last = append(v.last, int32(i))
		}
		v.deep = max(v.deep, len(path))
		v.ids = append(v.ids, t.id)
		v.last[len(v.last)-1] = int32(i + 1)
	}
	v.leave(path)
	return v
}

// leave records that nothing more comes below the nodes.
func (v *Vocabulary) leave(path []int32) {
	for _, node := range path {
		v.skip[node] = int32(len(v.bytes))
	}
}

// words is the length of a set of tokens.
func (v *Vocabulary) words() int { return (v.size + 63) / 64 }

// bytesOf returns what a token adds to a text, nil if it is never allowed.
func (v *Vocabulary) bytesOf(id int) []byte {
	if id < 0 || id >= v.size {
		return nil
	}
	return v.spelled[id]
}

package tokenizer

import (
	"slices"
	"sync"

	"helicon/models/tokenizer/subword"
)

// Bounds of the cache: about 10 MB when full of words of natural language.
const (
	maxCachedWords    = 1 << 16
	maxCachedWordSize = 64 // bytes
)

// wordCache remembers the ids of short words. When it is full it starts anew,
// so that its size is bounded and it follows a change of language.
type wordCache struct {
	mu    sync.RWMutex
	words map[string][]int32
}

func newWordCache() *wordCache { return &wordCache{words: map[string][]int32{}} }

// tokenize appends the ids of word to dst, asking m only for words not seen
// lately.
func (c *wordCache) tokenize(m subword.Model, dst []int32, word string) ([]int32, error) {
	if len(word) > maxCachedWordSize {
		return m.Tokenize(dst, word)
	}
	c.mu.RLock()
	ids, ok := c.words[word]
	c.mu.RUnlock()
	if ok {
		return append(dst, ids...), nil
	}
	n := len(dst)
	dst, err := m.Tokenize(dst, word)
	if err != nil {
		return dst, err
	}
	ids = slices.Clone(dst[n:])
	c.mu.Lock()
	if len(c.words) >= maxCachedWords {
		clear(c.words)
	}
	// The key must not keep the whole text alive that the word is a part of.
	c.words[string([]byte(word))] = ids
	c.mu.Unlock()
	return dst, nil
}

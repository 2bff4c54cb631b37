package subword

import (
	"errors"
	"math"
	"unicode/utf8"
)

// Unigram finds the most probable segmentation of a text under a language
// model of independent tokens, by the Viterbi algorithm (Kudo 2018).
type Unigram struct {
	trie     *Trie
	scores   []float64 // log probability by id
	maxScore float64

	// Options, which may be set before the first use.
	Unk          int32       // the unknown token; -1 if the vocabulary has none
	UnkScore     float64     // log probability of an unknown character
	User         []bool      // by id: tokens that always win over their parts; nil: none
	ByteFallback *[256]int32 // tokens of the bytes of unknown characters; nil: none
	Single       bool        // path scores are rounded to float32, as SentencePiece keeps them
}

// UnkPenalty is how much less probable an unknown character is than the least
// probable token.
const UnkPenalty = 10

// NewUnigram indexes the tokens for which use is true, with their scores by
// id. Options are set on the result.
func NewUnigram(vocab *Vocabulary, scores []float64, use func(id int) bool) *Unigram {
	m := &Unigram{scores: scores, Unk: -1, maxScore: math.Inf(-1)}
	var tokens []string
	var ids []int32
	minScore := math.Inf(1)
	for id, token := range vocab.Tokens {
		if !use(id) {
			continue
		}
		tokens, ids = append(tokens, token), append(ids, int32(id))
		minScore, m.maxScore = min(minScore, scores[id]), max(m.maxScore, scores[id])
	}
	m.UnkScore = minScore - UnkPenalty
	m.trie = NewTrie(tokens, ids)
	return m
}

// node is the best path to a position: its last token and where that starts.
type node struct {
	score float64
	start int32 // -1: not reached
	id    int32
}

// Tokenize appends the ids of text to dst.
func (m *Unigram) Tokenize(dst []int32, text string) ([]int32, error) {
	best := make([]node, len(text)+1)
	for i := range best {
		best[i].start = -1
	}
	best[0] = node{}
	reach := func(start, end int, score float64, id int32) {
		to := &best[end]
		score += best[start].score
		if to.start < 0 || score > to.score {
			if m.Single {
				score = float64(float32(score))
			}
			*to = node{score, int32(start), id}
		}
	}
	for start := 0; start < len(text); {
		_, size := utf8.DecodeRuneInString(text[start:])
		single := false
		for end, n := start, int32(0); end < len(text); {
			var id int32
			if n, id = m.trie.Step(n, text[end]); n == 0 {
				break
			}
			end++
			if id >= 0 {
				reach(start, end, m.score(id, end-start), id)
				single = single || end-start == size
			}
		}
		if !single {
			reach(start, start+size, m.UnkScore, unknownNode)
		}
		start += size
	}
	return m.collect(dst, text, best)
}

// unknownNode marks an unknown character in a path.
const unknownNode = -1

// score is the log probability of a token of size bytes.
func (m *Unigram) score(id int32, size int) float64 {
	if m.User != nil && m.User[id] {
		return float64(size)*m.maxScore - 0.1
	}
	return m.scores[id]
}

// collect appends the ids of the best path, a run of unknown characters as
// one unknown token or as its bytes.
func (m *Unigram) collect(dst []int32, text string, best []node) ([]int32, error) {
	var path []int32 // ends of the nodes, last first
	for end := len(text); end > 0; end = int(best[end].start) {
		path = append(path, int32(end))
	}
	unknown := false
	for i := len(path) - 1; i >= 0; i-- {
		end := path[i]
		n := best[end]
		switch {
		case n.id != unknownNode:
			dst = append(dst, n.id)
		case m.ByteFallback != nil:
			for _, b := range []byte(text[n.start:end]) {
				dst = append(dst, m.ByteFallback[b])
			}
		case m.Unk < 0:
			return dst, errors.New("a character is not in the vocabulary, which has no unknown token")
		case !unknown:
			dst = append(dst, m.Unk)
		}
		unknown = n.id == unknownNode
	}
	return dst, nil
}

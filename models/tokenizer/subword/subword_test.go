package subword

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// randomWord returns a word over a small alphabet, so that much of it merges.
func randomWord(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcd"[r.IntN(4)]
	}
	return string(b)
}

// naiveMerge is BPE by its definition: while there is a rule, apply the one of
// the lowest rank, at its leftmost place.
func naiveMerge(m *BPE, word string) []int32 {
	var ids []int32
	for _, c := range word {
		ids = append(ids, m.vocab.IDs[string(c)])
	}
	for {
		at, best := -1, merge{}
		for i := 0; i+1 < len(ids); i++ {
			if rule, ok := m.merges[pair{ids[i], ids[i+1]}]; ok && (at < 0 || rule.rank < best.rank) {
				at, best = i, rule
			}
		}
		if at < 0 {
			return ids
		}
		ids = slices.Replace(ids, at, at+2, best.id)
	}
}

func TestBPEEqualsNaiveMerging(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		ids := map[string]int32{"a": 0, "b": 1, "c": 2, "d": 3}
		for range 60 {
			token := randomWord(r, 2+r.IntN(4))
			if _, ok := ids[token]; !ok {
				ids[token] = int32(len(ids))
			}
		}
		vocab, err := NewVocabulary(ids)
		if err != nil {
			t.Fatal(err)
		}
		ranks := r.Perm(len(ids))
		merges, err := MergesFromVocab(vocab, func(id int32) (int32, bool) { return int32(ranks[id] / 2), true })
		if err != nil {
			t.Fatal(err)
		}
		m := NewBPE(vocab, merges)
		for range 20 {
			word := randomWord(r, r.IntN(60))
			got, err := m.Tokenize(nil, word)
			if err != nil {
				t.Fatal(err)
			}
			if want := naiveMerge(m, word); !slices.Equal(got, want) {
				t.Fatalf("%q: %v, want %v", word, got, want)
			}
		}
	}
}

func TestTrieLongest(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		tokens, ids := []string{""}, []int32{9999}
		for i := range r.IntN(40) {
			if token := randomWord(r, 1+r.IntN(5)); !slices.Contains(tokens, token) {
				tokens, ids = append(tokens, token), append(ids, int32(i))
			}
		}
		trie := NewTrie(tokens, ids)
		for range 50 {
			s := randomWord(r, r.IntN(8))
			wantID, wantSize := int32(-1), 0
			for i, token := range tokens {
				if len(token) > wantSize && strings.HasPrefix(s, token) {
					wantID, wantSize = ids[i], len(token)
				}
			}
			if id, size := trie.Longest(s); id != wantID || size != wantSize {
				t.Fatalf("%q in %q: %d of %d bytes, want %d of %d", s, tokens, id, size, wantID, wantSize)
			}
		}
	}
}

// Unigram must find the most probable of all segmentations.
func TestUnigramEqualsExhaustiveSearch(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		ids := map[string]int32{"a": 0, "b": 1, "c": 2}
		for range 20 {
			if token := randomWord(r, 2+r.IntN(3)); len(ids) < 24 {
				if _, ok := ids[token]; !ok {
					ids[token] = int32(len(ids))
				}
			}
		}
		vocab, err := NewVocabulary(ids)
		if err != nil {
			t.Fatal(err)
		}
		scores := make([]float64, len(ids))
		for i := range scores {
			scores[i] = -r.Float64() * 8
		}
		m := NewUnigram(vocab, scores, func(int) bool { return true })
		var best func(s string) float64
		best = func(s string) float64 {
			if s == "" {
				return 0
			}
			top := -1e9
			for token, id := range ids {
				if rest, ok := strings.CutPrefix(s, token); ok {
					top = max(top, scores[id]+best(rest))
				}
			}
			return top
		}
		word := strings.ReplaceAll(randomWord(r, 1+r.IntN(9)), "d", "a")
		got, err := m.Tokenize(nil, word)
		if err != nil {
			t.Fatal(err)
		}
		total, text := 0.0, ""
		for _, id := range got {
			total += scores[id]
			text += vocab.Tokens[id]
		}
		if want := best(word); text != word || total < want-1e-9 {
			t.Fatalf("%q: %q with %v, want %v", word, text, total, want)
		}
	}
}

func TestWordPiece(t *testing.T) {
	t.Parallel()
	vocab, err := NewVocabulary(map[string]int32{"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "##é": 4, "é": 5})
	if err != nil {
		t.Fatal(err)
	}
	m := NewWordPiece(vocab, "##", "[UNK]")
	m.MaxRunes = 12
	for word, want := range map[string][]int32{
		"unaffable": {1, 2, 3}, "unx": {0}, "éé": {5, 4}, "un": {1}, strings.Repeat("é", 13): {0},
	} {
		got, err := m.Tokenize(nil, word)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", word, got, err, want)
		}
	}
	m.Unk = -1
	if _, err := m.Tokenize(nil, "x"); err == nil {
		t.Error("a word without an id was accepted")
	}
}

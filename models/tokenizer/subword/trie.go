package subword

import "slices"

// Trie finds the tokens that a text begins with. It is immutable; its nodes
// lie in one slice, the children of a node side by side in order of label.
type Trie struct {
	nodes []trieNode
	root  [256]int32 // child of the root by label, 0 if there is none
}

type trieNode struct {
	first int32 // of its children
	count int16
	label byte
	id    int32 // of the token that ends here, -1 if none does
}

// NewTrie builds a trie of non-empty tokens; ids[i] belongs to tokens[i].
func NewTrie(tokens []string, ids []int32) *Trie {
	order := make([]int32, 0, len(tokens))
	for i, token := range tokens {
		if token != "" {
			order = append(order, int32(i))
		}
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		switch {
		case tokens[a] < tokens[b]:
			return -1
		case tokens[a] > tokens[b]:
			return 1
		}
		return 0
	})
	t := &Trie{nodes: []trieNode{{id: -1}}}
	// span is a node and the sorted tokens below it, which share depth bytes.
	type span struct {
		node       int32
		start, end int
		depth      int
	}
	// Breadth first, so that children are appended side by side.
	for queue := []span{{0, 0, len(order), 0}}; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		for s.start < s.end && len(tokens[order[s.start]]) == s.depth {
			t.nodes[s.node].id = ids[order[s.start]]
			s.start++
		}
		t.nodes[s.node].first = int32(len(t.nodes))
		for start := s.start; start < s.end; {
			label := tokens[order[start]][s.depth]
			end := start + 1
			for end < s.end && tokens[order[end]][s.depth] == label {
				end++
			}
			t.nodes[s.node].count++
			child := int32(len(t.nodes))
			t.nodes = append(t.nodes, trieNode{label: label, id: -1})
			queue = append(queue, span{child, start, end, s.depth + 1})
			if s.node == 0 {
				t.root[label] = child
			}
			start = end
		}
	}
	return t
}

// Step returns the node below n, 0 being the root, with a label, and the id
// of the token that ends there, or -1. The node is 0 if there is none.
func (t *Trie) Step(n int32, label byte) (child, id int32) {
	if n == 0 {
		child = t.root[label]
		return child, t.nodes[child].id
	}
	node := &t.nodes[n]
	lo, end := node.first, node.first+int32(node.count)
	for hi := end; lo < hi; {
		mid := (lo + hi) / 2
		if t.nodes[mid].label < label {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < end && t.nodes[lo].label == label {
		return lo, t.nodes[lo].id
	}
	return 0, -1
}

// Longest returns the id and the length of the longest token that s begins
// with; the length is 0 if there is none.
func (t *Trie) Longest(s string) (id int32, size int) {
	id = -1
	for i, n := 0, int32(0); i < len(s); i++ {
		var found int32
		if n, found = t.Step(n, s[i]); n == 0 {
			break
		}
		if found >= 0 {
			id, size = found, i+1
		}
	}
	return id, size
}

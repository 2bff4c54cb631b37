package family

import "strings"

// Layout says where a file keeps the tensors of a decoder: paths, to which "weight" and
// "bias" belong. A decoder has no layer whose path is empty.
type Layout struct {
	Root      string // path of all but the head; files of the bare network leave it out
	Embed     string // token embedding
	Positions string // table of learned positions
	EmbedNorm string // of what the embedding gives
	Widen     string // from the embedding's width to the blocks'
	Norm      string // of what leaves the last block
	Narrow    string // back to the embedding's width
	Head      string // from the root of the file

	Blocks    string     // paths below are those in a block
	Attention NormLayout // around attention
	MLP       NormLayout // around the MLP

	Q, K, V, O   string // of attention
	QKV          string // in the place of Q, K and V
	Grouped      bool   // QKV has a group's queries, its key and its value in turn
	QNorm, KNorm string // of each head

	Gate, Up, Down string    // without Gate, the MLP is not gated
	GateUp         string    // in the place of Gate and Up
	Router         string    // of the experts
	Experts        string    // has the MLPs 0, 1, …
	Expert         MLPLayout // within each
	Conv1D         bool      // matrices of blocks are stored as [in, out]
	Turned         bool      // rows of Q and K are in the order of interleaved rotation
	Stacked        bool      // experts, and norms of heads, lie in one tensor
}

// NormLayout has the norms of one half of a block.
type NormLayout struct {
	Before string // of what enters
	After  string // of what is added to the residual
	Sum    string // of the sum
}

// MLPLayout has the gated MLP of an expert.
type MLPLayout struct {
	Gate, Up, Down string // below Layout.Experts, or of all experts where Layout.Stacked is set
}

// Gated reports whether the MLP multiplies two projections.
func (l *Layout) Gated() bool { return l.Gate != "" || l.GateUp != "" }

// RootPath returns the path of the embedding in a file that has the tensors that has
// says: the layout's root or, in files of the bare network, less of it or nothing.
func (l *Layout) RootPath(has func(tensor string) bool) string {
	for path := l.Root; path != ""; _, path, _ = strings.Cut(path, ".") {
		if has(path + "." + l.Embed + ".weight") {
			return path
		}
	}
	if has(l.Embed + ".weight") {
		return ""
	}
	return l.Root
}

// Turned lists the rows of heads of dimension dim as a file with interleaved rotation
// (back false) holds them in the order of the halves that nn.Rope rotates, or (back true)
// the other way round.
func Turned(heads, dim int, back bool) []int {
	rows := make([]int, heads*dim)
	for i := range rows {
		head, at := i/dim*dim, i%dim
		from := at%(dim/2)*2 + at/(dim/2)
		if back {
			rows[head+from] = i
		} else {
			rows[i] = head + from
		}
	}
	return rows
}

// GroupedRows lists the rows of query, key and value in a joint matrix where
// Layout.Grouped is set.
func (c *Config) GroupedRows() (q, k, v []int) {
	var rows [3][]int
	for group, at := 0, 0; group < c.KVHeads; group++ {
		for part, n := range []int{c.Heads / c.KVHeads * c.HeadDim, c.HeadDim, c.HeadDim} {
			for range n {
				rows[part] = append(rows[part], at)
				at++
			}
		}
	}
	return rows[0], rows[1], rows[2]
}

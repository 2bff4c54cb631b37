package tensor

import (
	"fmt"
	"testing"
)

// TestProductPieces checks that the pieces of a call cover every group of rows with
// every strip of tokens once, and that they leave no thread without work.
func TestProductPieces(t *testing.T) {
	t.Parallel()
	kernels := newKernelSet(detect())
	for _, threads := range []int{1, 2, 3, 64} {
		for _, tokens := range []int{1, 7, 64, 65, 600} {
			for _, rows := range [][]int{{1}, {40}, {2048, 256, 256}, {32000}, {16, 5000}} {
				task := productTask{count: len(rows)}
				groups := 0
				for i, n := range rows {
					k := kernels.packed[[...]DType{Q8_0, F16, F32}[i]]
					o := &operand{form: k.form(), tokens: tokens, strips: ceilDiv(tokens, k.form().height())}
					task.factors[i] = factor{Product: Product{W: Matrix{Rows: n}}, kernel: k, operand: o, groups: ceilDiv(n, groupRows)}
					groups += task.factors[i].groups
				}
				task.divide(threads)
				name := fmt.Sprintf("%d threads, %d tokens, rows %v", threads, tokens, rows)
				checkPieces(t, name, &task)
				if least := min(threads, groups/4); len(task.pieces) < least {
					t.Errorf("%s: %d pieces", name, len(task.pieces))
				}
			}
		}
	}
}

func checkPieces(t *testing.T, name string, task *productTask) {
	t.Helper()
	type place struct {
		factor       *factor
		group, strip int
	}
	seen := map[place]int{}
	for _, p := range task.pieces {
		for g := p.groups.lo; g < p.groups.hi; g++ {
			for s := p.strips.lo; s < p.strips.hi; s++ {
				seen[place{p.factor, g, s}]++
			}
		}
	}
	all := 0
	for i := range task.count {
		f := &task.factors[i]
		all += f.groups * f.operand.strips
		for g := range f.groups {
			for s := range f.operand.strips {
				if n := seen[place{f, g, s}]; n != 1 {
					t.Fatalf("%s: group %d, strip %d of product %d is in %d pieces", name, g, s, i, n)
				}
			}
		}
	}
	if len(seen) != all {
		t.Errorf("%s: pieces cover %d of %d", name, len(seen), all)
	}
}

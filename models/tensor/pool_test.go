package tensor

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// countTask counts how often each part runs.
type countTask struct{ ran []atomic.Int32 }

func (c *countTask) part(i int) { c.ran[i].Add(1) }

func TestPoolRunsEachPartOnce(t *testing.T) {
	t.Parallel()
	p := pool(t, 3)
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			e := NewExec(p)
			for round := range 200 {
				task := countTask{make([]atomic.Int32, round%17)}
				e.run(&task, len(task.ran))
				for i := range task.ran {
					if n := task.ran[i].Load(); n != 1 {
						t.Errorf("round %d: part %d ran %d times", round, i, n)
					}
				}
			}
		})
	}
	callers.Wait()
}

// failTask panics in one part.
type failTask struct{ at int }

func (f *failTask) part(i int) {
	if i == f.at {
		panic("part failed")
	}
}

func TestPoolPanicReachesTheCaller(t *testing.T) {
	t.Parallel()
	p := pool(t, 2)
	e := NewExec(p)
	for round := range 100 {
		func() {
			defer func() {
				if v := recover(); v != "part failed" {
					t.Errorf("round %d: recovered %v", round, v)
				}
			}()
			e.run(&failTask{at: round % 8}, 8)
		}()
	}
	task := countTask{make([]atomic.Int32, 50)}
	e.run(&task, len(task.ran))
	for i := range task.ran {
		if n := task.ran[i].Load(); n != 1 {
			t.Errorf("after the panics, part %d ran %d times", i, n)
		}
	}
}

func TestPoolAfterClose(t *testing.T) {
	t.Parallel()
	p := NewPool(Config{Threads: 2})
	p.Close()
	task := countTask{make([]atomic.Int32, 5)}
	NewExec(p).run(&task, 5)
	for i := range task.ran {
		if n := task.ran[i].Load(); n != 1 {
			t.Errorf("part %d ran %d times", i, n)
		}
	}
	var none *Pool
	none.Close()
	if none.Threads() != 1 || p.Threads() != 2 || NewPool(Config{Threads: 1}).Threads() != 1 {
		t.Error("wrong number of threads")
	}
}

func TestOperationsAllocateNothing(t *testing.T) {
	e := NewExec(pool(t, 2))
	const rows, cols = 512, 256
	w, _ := randomMatrix(1, BF16, rows, cols)
	halves, _ := randomMatrix(1, F16, rows, cols)
	packed, half := w.Pack(nil), halves.Pack(nil)
	x, bias := normal(1, 2*cols), normal(2, rows)
	y, z, u := make([]float32, 2*rows), make([]float32, 2*rows), make([]float32, 2*rows)
	for name, f := range map[string]func(){
		"matmul":  func() { e.MatMul(y, x, w, bias) },
		"packed":  func() { e.MatMul(y, x, packed, bias) },
		"mixed":   func() { e.MatMuls(x, Product{Y: y, W: packed}, Product{Y: z, W: half}, Product{Y: u, W: w}) },
		"matmuls": func() { e.MatMuls(x, Product{Y: y, W: w}, Product{Y: z, W: w}) },
		"norm":    func() { e.RMSNorm(x, x, bias[:cols], 1e-5) },
		"gate":    func() { e.Gate(SiLU, y[:rows], y[rows:]) },
	} {
		if n := testing.AllocsPerRun(50, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// TestUntil ends an attention that would take minutes, and computes rightly afterwards.
func TestUntil(t *testing.T) {
	t.Parallel()
	for _, threads := range []int{1, 2} {
		for _, tiles := range []bool{false, true} {
			pool := NewPool(Config{Threads: threads})
			defer pool.Close()
			e := NewExec(pool)
			const pixels, heads, dim = 1 << 17, 2, 32
			x, y := make([]float32, pixels*heads*dim), make([]float32, pixels*heads*dim)
			a := Attention{Out: y, Q: x, K: x, V: x, Heads: heads, KVHeads: heads, HeadDim: dim, Scale: 1, BF16: tiles}
			ctx, cancel := context.WithCancel(t.Context())
			release := e.Until(ctx)
			time.AfterFunc(20*time.Millisecond, cancel)
			start := time.Now()
			e.Attention(a)
			release()
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("%d threads, tiles %v: it took %v", threads, tiles, took)
			}
			out := []float32{1, 2}
			e.Add(out, []float32{3, 4})
			if out[0] != 4 || out[1] != 6 {
				t.Errorf("after the release: %v", out)
			}
		}
	}
}

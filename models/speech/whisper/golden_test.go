package whisper

import (
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// TestGoldenWhisper compares features, states, logits and greedy tokens with the reference, at
// every level of the machine.
func TestGoldenWhisper(t *testing.T) {
	t.Parallel()
	root := os.Getenv("HELICON_GOLDENS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	files := os.DirFS(filepath.Join(root, "audio", "whisper"))
	if _, err := fs.Stat(files, "case.json"); err != nil {
		t.Skipf("no reference data: %v", err)
	}
	for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
			t.Cleanup(pool.Close)
			g := &golden{t: t, files: files, e: tensor.NewExec(pool)}
			g.run()
		})
	}
}

type golden struct {
	t     *testing.T
	files fs.FS
	e     *tensor.Exec
	store *weights.Store
	facts struct {
		Tensors map[string]struct{ Tolerance float64 }
	}
}

func (g *golden) open(name string) *weights.Store {
	g.t.Helper()
	s, err := weights.Open(g.files, name)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { s.Close() })
	return s
}

func (g *golden) run() {
	raw, err := fs.ReadFile(g.files, "case.json")
	if err == nil {
		err = json.Unmarshal(raw, &g.facts)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	if raw, err = fs.ReadFile(g.files, "config.json"); err != nil {
		g.t.Fatal(err)
	}
	c, err := ParseConfig(raw)
	if err != nil {
		g.t.Fatal(err)
	}
	m, err := Load(g.open("model"), c)
	if err != nil {
		g.t.Fatal(err)
	}
	g.store = g.open("golden")

	frames := 2 * c.Frames
	features := m.listener.features(g.lookup("wav").Float32s(), frames)
	turned := make([]float32, len(features))
	for i, v := range features {
		turned[i%c.Mels*frames+i/c.Mels] = v
	}
	g.compare("input_features", turned)
	h, err := m.encode(g.t.Context(), g.e, features, g.compare)
	if err != nil {
		g.t.Fatal(err)
	}
	ids := g.lookup("decoder_input_ids").Ints()
	logits, err := m.newText(h).read(g.e, ids, true, func(x []float32) { g.compare("decoder_final", x) })
	if err != nil {
		g.t.Fatal(err)
	}
	g.compare("logits", logits)

	want := g.lookup("greedy_ids").Ints()
	text, next := m.newText(h), ids[:4]
	var got []int
	var all []float32
	for range want {
		if logits, err = text.read(g.e, next, false, nil); err != nil {
			g.t.Fatal(err)
		}
		all = append(all, logits...)
		best := 0
		for i, v := range logits {
			if v > logits[best] {
				best = i
			}
		}
		got, next = append(got, best), []int{best}
	}
	if !slices.Equal(got, want) {
		g.t.Errorf("greedy ids %v, want %v", got, want)
	}
	g.compare("greedy_logits", all)
}

func (g *golden) lookup(name string) weights.Tensor {
	g.t.Helper()
	x, err := g.store.Lookup(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return x
}

// compare checks that no element is further off than the tolerance allows.
func (g *golden) compare(name string, got []float32) {
	g.t.Helper()
	want := g.lookup(name).Float32s()
	if len(got) != len(want) {
		g.t.Fatalf("%s: %d elements, want %d", name, len(got), len(want))
	}
	largest, worst := 0.0, 0.0
	for i, v := range want {
		largest = max(largest, math.Abs(float64(v)))
		if d := math.Abs(float64(got[i] - v)); !(d <= worst) {
			worst = d
		}
	}
	tolerance := g.facts.Tensors[name].Tolerance
	if !(worst/largest <= tolerance) {
		g.t.Errorf("%s is off by %.3g of the largest, tolerance %g", name, worst/largest, tolerance)
		return
	}
	g.t.Logf("%s: %.3g of the tolerance", name, worst/largest/tolerance)
}

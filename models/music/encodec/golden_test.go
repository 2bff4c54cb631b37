package encodec

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

// TestGoldenEnCodec compares every codec under goldens/audio with the reference, at every level
// of the machine.
func TestGoldenEnCodec(t *testing.T) {
	t.Parallel()
	root := os.Getenv("HELICON_GOLDENS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	cases, _ := filepath.Glob(filepath.Join(root, "audio", "encodec*", "case.json"))
	if len(cases) == 0 {
		t.Skipf("no cases in %s", root)
	}
	for _, file := range cases {
		for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
			t.Run(filepath.Base(filepath.Dir(file))+"/"+level.String(), func(t *testing.T) {
				t.Parallel()
				pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
				t.Cleanup(pool.Close)
				g := &golden{t: t, files: os.DirFS(filepath.Dir(file)), e: tensor.NewExec(pool)}
				g.run()
			})
		}
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
	wav := turned(g.lookup("wav").Float32s(), g.lookup("wav").Len()/c.AudioChannels)
	codes, scale := g.encode(m, wav, 0, "codes")
	if g.store.Has("codes_low") {
		g.encode(m, wav, slices.Min(c.Bandwidths), "codes_low")
	}
	if g.store.Has("scale") {
		g.compare("scale", []float32{scale})
	}
	got, err := m.Decode(g.e, codes, scale)
	if err != nil {
		g.t.Fatal(err)
	}
	g.compare("decoded", turned(got[:len(wav)], c.AudioChannels))
	random := g.codes("codes_random")
	states, err := m.quantized(random)
	if err != nil {
		g.t.Fatal(err)
	}
	g.compare("quantized_random", turned(states, c.Hidden))
	if got, err = m.Decode(g.e, random, 1); err != nil {
		g.t.Fatal(err)
	}
	g.compare("decoded_random", turned(got, c.AudioChannels))
}

func (g *golden) encode(m *Model, wav []float32, bandwidth float64, name string) ([][]int, float32) {
	g.t.Helper()
	codes, scale, err := m.Encode(g.e, wav, bandwidth)
	if err != nil {
		g.t.Fatal(err)
	}
	for i, want := range g.codes(name) {
		if !slices.Equal(codes[i], want) {
			g.t.Fatalf("%s of frame %d: %v, want %v", name, i, codes[i], want)
		}
	}
	return codes, scale
}

// codes returns a tensor [.., quantizers, frames] by frames.
func (g *golden) codes(name string) [][]int {
	g.t.Helper()
	x := g.lookup(name)
	frames := x.Shape[len(x.Shape)-1]
	list := make([][]int, frames)
	for i, v := range x.Ints() {
		list[i%frames] = append(list[i%frames], v)
	}
	return list
}

// turned returns a sequence [T, C] as [C, T].
func turned(x []float32, channels int) []float32 {
	t := len(x) / channels
	y := make([]float32, len(x))
	for i, v := range x {
		y[i%channels*t+i/channels] = v
	}
	return y
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

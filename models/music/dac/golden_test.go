package dac

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

// TestGoldenDAC compares both codecs with their references, at every level of the machine.
func TestGoldenDAC(t *testing.T) {
	t.Parallel()
	root := os.Getenv("HELICON_GOLDENS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	for name, run := range map[string]func(*golden, []byte){"dac": (*golden).codec, "oobleck": (*golden).oobleck} {
		files := os.DirFS(filepath.Join(root, "audio", name))
		config, err := fs.ReadFile(files, "config.json")
		if err != nil {
			t.Skipf("no reference data: %v", err)
		}
		for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
			t.Run(name+"/"+level.String(), func(t *testing.T) {
				t.Parallel()
				pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
				t.Cleanup(pool.Close)
				g := &golden{t: t, files: files, e: tensor.NewExec(pool)}
				raw, err := fs.ReadFile(files, "case.json")
				if err == nil {
					err = json.Unmarshal(raw, &g.facts)
				}
				if err != nil {
					t.Fatal(err)
				}
				g.store = g.open("golden")
				run(g, config)
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

func (g *golden) codec(config []byte) {
	c, err := ParseConfig(config)
	if err != nil {
		g.t.Fatal(err)
	}
	m, err := Load(g.open("model"), c)
	if err != nil {
		g.t.Fatal(err)
	}
	codes, err := m.Encode(g.e, g.lookup("wav").Float32s())
	if err != nil {
		g.t.Fatal(err)
	}
	for i, want := range g.codes("codes") {
		if !slices.Equal(codes[i], want) {
			g.t.Fatalf("codes of frame %d: %v, want %v", i, codes[i], want)
		}
	}
	for suffix, codes := range map[string][][]int{"": codes, "_random": g.codes("codes_random")} {
		states, err := m.quantized(g.e, codes)
		if err != nil {
			g.t.Fatal(err)
		}
		g.compare("quantized"+suffix, turned(states, c.Hidden))
		got, err := m.Decode(g.e, codes)
		if err != nil {
			g.t.Fatal(err)
		}
		g.compare("decoded"+suffix, got)
	}
}

func (g *golden) oobleck(config []byte) {
	c, err := ParseOobleckConfig(config)
	if err != nil {
		g.t.Fatal(err)
	}
	m, err := LoadOobleck(g.open("diffusion_pytorch_model"), c)
	if err != nil {
		g.t.Fatal(err)
	}
	wav := g.lookup("wav")
	mean, deviation, err := m.Encode(g.e, turned(wav.Float32s(), wav.Len()/c.Audio))
	if err != nil {
		g.t.Fatal(err)
	}
	g.compare("latent_mean", turned(mean, c.Encoder/2))
	g.compare("latent_std", turned(deviation, c.Encoder/2))
	z := g.lookup("z")
	got, err := m.Decode(g.e, turned(z.Float32s(), z.Len()/c.Latents))
	if err != nil {
		g.t.Fatal(err)
	}
	g.compare("decoded", turned(got, c.Audio))
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

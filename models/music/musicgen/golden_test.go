package musicgen

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

// TestGoldenMusicGen compares the language model, and the way from a text to sound, with the
// reference, at every level of the machine.
func TestGoldenMusicGen(t *testing.T) {
	t.Parallel()
	root := os.Getenv("HELICON_GOLDENS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	for name, run := range map[string]func(*golden, []byte){"musicgen_lm": (*golden).lm, "musicgen_full": (*golden).whole} {
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

// real returns how many of the tokens of each text are no padding.
func (g *golden) real(name string) []int {
	g.t.Helper()
	mask := g.lookup(name)
	counts := make([]int, mask.Shape[0])
	for i, v := range mask.Ints() {
		counts[i/mask.Shape[1]] += v
	}
	return counts
}

func (g *golden) lm(config []byte) {
	c, err := ParseConfig(config)
	if err != nil {
		g.t.Fatal(err)
	}
	m, err := LoadLM(g.open("model"), c)
	if err != nil {
		g.t.Fatal(err)
	}
	about, ids := g.lookup("encoder_hidden_states"), g.lookup("input_ids")
	var states [][]float32
	per := about.Shape[1] * about.Shape[2]
	for i, n := range g.real("encoder_attention_mask") {
		states = append(states, about.Float32s()[i*per:][:n*c.Width])
	}
	t := m.NewTune(g.e, states...)
	places, rows := ids.Shape[1], len(states)
	embedded, final := make([]float32, rows*places*c.Width), make([]float32, rows*places*c.Width)
	keep := func(to []float32) func([]float32) {
		place := 0
		return func(x []float32) {
			for r := range rows {
				copy(to[(r*places+place)*c.Width:][:c.Width], x[r*c.Width:])
			}
			place++
		}
	}
	t.embedded, t.final = keep(embedded), keep(final)
	all := make([]float32, rows*c.Books*places*c.Codes)
	for p := range places {
		codes := make([][]int, rows)
		for r := range codes {
			for b := range c.Books {
				codes[r] = append(codes[r], ids.Ints()[(r*c.Books+b)*places+p])
			}
		}
		logits, err := t.Next(g.e, codes)
		if err != nil {
			g.t.Fatal(err)
		}
		for rb := range rows * c.Books {
			copy(all[(rb*places+p)*c.Codes:][:c.Codes], logits[rb*c.Codes:])
		}
	}
	g.compare("hidden_embed", embedded)
	g.compare("hidden_final", final)
	g.compare("logits", all)
}

func (g *golden) whole(config []byte) {
	m, err := Load(g.open("model"), config)
	if err != nil {
		g.t.Fatal(err)
	}
	ids, codes, sound := g.lookup("text_ids"), g.lookup("codes"), g.lookup("waveform")
	books, frames := codes.Shape[2], codes.Shape[3]
	for i, n := range g.real("text_mask") {
		r := Request{IDs: ids.Ints()[i*ids.Shape[1]:][:n], Frames: frames, Guidance: 3, Pick: func(logits []float32) int {
			best := 0
			for j, v := range logits {
				if v > logits[best] {
					best = j
				}
			}
			return best
		}}
		samples, got, err := m.Generate(g.t.Context(), g.e, r)
		if err != nil {
			g.t.Fatal(err)
		}
		for f := range frames {
			var want []int
			for b := range books {
				want = append(want, codes.Ints()[(i*books+b)*frames+f])
			}
			if !slices.Equal(got[f], want) {
				g.t.Fatalf("text %d, frame %d: %v, want %v", i, f, got[f], want)
			}
		}
		g.near("waveform", samples, sound.Float32s()[i*len(samples):][:len(samples)])
	}
}

func (g *golden) lookup(name string) weights.Tensor {
	g.t.Helper()
	x, err := g.store.Lookup(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return x
}

func (g *golden) compare(name string, got []float32) {
	g.t.Helper()
	g.near(name, got, g.lookup(name).Float32s())
}

// near checks that no element is further off than the tolerance allows.
func (g *golden) near(name string, got, want []float32) {
	g.t.Helper()
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

package lm

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"helicon/models/lm/family"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// sharedDir returns a folder beside the module, or skips the test if it is absent.
// $HELICON_GOLDENS replaces the folder of goldens.
func sharedDir(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", name)
	if env := os.Getenv("HELICON_GOLDENS"); env != "" && name == "goldens" {
		dir = env
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no reference data: %v", err)
	}
	return dir
}

// goldenCase is the part of a case.json that is needed here.
type goldenCase struct {
	Config struct {
		ModelDir string `json:"model_dir"` // another case whose model this one uses
	} `json:"config"`
	Tensors map[string]struct {
		Tolerance float64 `json:"tolerance"`
	} `json:"tensors"`
}

// TestGoldenText compares every decoder under goldens/text with the reference.
func TestGoldenText(t *testing.T) {
	t.Parallel()
	goldenText(t, 0)
}

// TestGoldenTextLevels does so with the instructions of lesser processors, of which
// the lowest level is what other architectures run.
func TestGoldenTextLevels(t *testing.T) {
	t.Parallel()
	for level := tensor.Generic; level < tensor.BestLevel(); level++ {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			goldenText(t, level)
		})
	}
}

func goldenText(t *testing.T, level tensor.Level) {
	cases, err := filepath.Glob(filepath.Join(sharedDir(t, "goldens"), "text", "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Skipf("no cases in goldens/text: %v", err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
	t.Cleanup(pool.Close)
	for _, file := range cases {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			var c goldenCase
			raw, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(raw, &c)
			}
			if err != nil {
				t.Fatal(err)
			}
			modelDir := filepath.Join(dir, c.Config.ModelDir)
			if _, err := os.Stat(filepath.Join(modelDir, "config.json")); err != nil {
				t.Skip("not a model")
			}
			model, err := Load(os.DirFS(modelDir), Options{Pool: pool})
			if errors.Is(err, family.ErrUnsupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer model.Close()
			golden, err := weights.OpenFile(os.DirFS(dir), "golden.safetensors")
			if err != nil {
				t.Fatal(err)
			}
			defer golden.Close()
			g := &goldenRun{t: t, model: model, golden: golden, tolerance: map[string]float64{}}
			for name, x := range c.Tensors {
				g.tolerance[name] = x.Tolerance
			}
			g.run()
		})
	}
}

// goldenRun compares one model with its golden.
type goldenRun struct {
	t         *testing.T
	model     *Model
	golden    *weights.Store
	tolerance map[string]float64
	worst     float64 // largest error as a share of its tolerance
	worstName string
}

func (g *goldenRun) run() {
	ids := g.lookup("input_ids")
	prompts := ids.Ints()
	batch, length := ids.Shape[0], ids.Shape[1]
	got := map[string][]float32{}
	want := g.lookup("greedy_ids").Ints()
	steps := len(want) / batch
	for b := range batch {
		prompt := prompts[b*length:][:length]
		state := g.state(length + steps)
		logits := g.observe(state, prompt, got)
		for i := range steps {
			got["greedy_logits"] = append(got["greedy_logits"], logits...)
			id := argmax(logits)
			if id != want[b*steps+i] {
				g.t.Fatalf("greedy_ids[%d][%d] = %d, want %d", b, i, id, want[b*steps+i])
			}
			var err error
			if logits, err = g.model.Forward(g.t.Context(), state, []int{id}); err != nil {
				g.t.Fatal(err)
			}
		}
		chosen := got["greedy_logits"][b*steps*g.model.config.Vocab:]
		g.uncached(slices.Concat(prompt, want[b*steps:][:steps-1]), chosen)
	}
	for name, values := range got {
		g.compare(name, values)
	}
	g.t.Logf("%-22s ids equal, largest error %.2g of the tolerance (%s)", filepath.Base(g.t.Name()), g.worst, g.worstName)
}

// uncached checks, bit for bit, that a text read in one go has at its end the logits
// that it had when it was written token by token.
func (g *goldenRun) uncached(ids []int, want []float32) {
	g.t.Helper()
	for _, c := range g.model.config.Ropes {
		if c.Scaling != nil && c.Scaling.Type == "dynamic" {
			return // its angles depend on the length at each call
		}
	}
	var all []float32
	err := g.model.Observe(g.t.Context(), g.state(len(ids)), ids, Observer{
		Logits: func(_ int, logits []float32) { all = append(all, logits...) },
	})
	if err != nil {
		g.t.Fatal(err)
	}
	same(g.t, "uncached", all[len(all)-len(want):], want)
}

func (g *goldenRun) state(n int) *State {
	g.t.Helper()
	s, err := g.model.NewState(n)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// observe runs a prompt, collects what the golden has of it, and returns the last logits.
func (g *goldenRun) observe(s *State, prompt []int, got map[string][]float32) []float32 {
	g.t.Helper()
	names := map[int]string{0: "hidden_embed", 1: "hidden_layer1", g.model.config.Layers: "hidden_final"}
	var last []float32
	err := g.model.Observe(g.t.Context(), s, prompt, Observer{
		Hidden: func(layer, _ int, x []float32) {
			if name, ok := names[layer]; ok {
				got[name] = append(got[name], x...)
			}
		},
		Logits: func(_ int, logits []float32) {
			got["logits"] = append(got["logits"], logits...)
			last = logits
		},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return last
}

func (g *goldenRun) lookup(name string) weights.Tensor {
	g.t.Helper()
	x, err := g.golden.Lookup(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return x
}

func (g *goldenRun) compare(name string, got []float32) {
	g.t.Helper()
	want := g.lookup(name).Float32s()
	if len(got) != len(want) {
		g.t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	e := relativeError(got, want)
	tolerance := g.tolerance[name]
	if !(e <= tolerance) {
		g.t.Errorf("%s: error %.3g, tolerance %g", name, e, tolerance)
	}
	if share := e / tolerance; share > g.worst {
		g.worst, g.worstName = share, name
	}
}

// relativeError is max|got-want| / max|want|; NaN counts as infinite.
func relativeError(got, want []float32) float64 {
	var diff, scale float64
	for i, w := range want {
		d := math.Abs(float64(got[i]) - float64(w))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		diff, scale = max(diff, d), max(scale, math.Abs(float64(w)))
	}
	return diff / scale
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

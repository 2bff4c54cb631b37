package vits

import (
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// TestGoldenVITS compares every voice under goldens/audio with the reference, with noise that
// the reference has drawn and without, at every level of the machine.
func TestGoldenVITS(t *testing.T) {
	t.Parallel()
	root := os.Getenv("HELICON_GOLDENS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	cases, _ := filepath.Glob(filepath.Join(root, "audio", "vits*", "case.json"))
	if len(cases) == 0 {
		t.Skipf("no cases in %s", root)
	}
	for _, file := range cases {
		for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
			t.Run(filepath.Base(filepath.Dir(file))+"/"+level.String(), func(t *testing.T) {
				t.Parallel()
				newGolden(t, filepath.Dir(file), level).run()
			})
		}
	}
}

type golden struct {
	t     *testing.T
	e     *tensor.Exec
	model *Model
	facts struct {
		Config struct {
			Speaker int `json:"speaker_id"`
		}
		Tensors map[string]struct{ Tolerance float64 }
	}
	store *weights.Store
	worst float64
	which string
}

func newGolden(t *testing.T, dir string, level tensor.Level) *golden {
	t.Helper()
	g := &golden{t: t}
	pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
	t.Cleanup(pool.Close)
	g.e = tensor.NewExec(pool)
	files := os.DirFS(dir)
	raw, err := fs.ReadFile(files, "case.json")
	if err == nil {
		err = json.Unmarshal(raw, &g.facts)
	}
	if err != nil {
		t.Fatal(err)
	}
	if g.store, err = weights.Open(files, "golden"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.store.Close() })
	raw, err = fs.ReadFile(files, "config.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	s, err := weights.Open(files, "model")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if g.model, err = Load(s, c); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *golden) run() {
	g.t.Helper()
	ids := g.lookup("input_ids").Ints()
	for _, v := range []struct {
		suffix              string
		noise, rate, spread float32
	}{{"", 0, 1, 0}, {"_noise", 0.667, 1, 0.8}, {"_slow", 0, 0.7, 0}} {
		if !g.store.Has("waveform" + v.suffix) {
			continue
		}
		r := Request{IDs: ids, NoiseScale: v.noise, NoiseDuration: v.spread, SpeakingRate: v.rate}
		r.Speaker = g.facts.Config.Speaker
		r.Noise = func(n int, dst []float32) {
			// Without a drawn duration the first draw is that of the latents.
			name := []string{"noise_0", "noise_1"}[n]
			if !g.model.config.Stochastic {
				name = "noise_0"
			}
			copy(dst, g.lookup(name).Float32s())
		}
		s, err := g.model.Speak(g.t.Context(), g.e, r)
		if err != nil {
			g.t.Fatal(err)
		}
		if v.suffix == "" && g.store.Has("text_hidden") {
			g.compare("text_hidden", s.hidden)
		}
		g.compare("log_duration"+v.suffix, s.logDurations)
		for i, want := range g.lookup("durations" + v.suffix).Ints() {
			if got := s.Durations[i] / g.model.decoder.Config().Hop(); got != want {
				g.t.Errorf("durations%s[%d] is %d, want %d", v.suffix, i, got, want)
			}
		}
		g.compare("flow_latents"+v.suffix, turned(s.latents, g.model.config.Flow))
		g.compare("waveform"+v.suffix, s.Samples)
	}
	g.t.Logf("largest error %.3g of the tolerance, in %s", g.worst, g.which)
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
	}
	if share := worst / largest / tolerance; share >= g.worst {
		g.worst, g.which = share, name
	}
}

package scheduler

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"helicon/models/weights"
)

// goldens returns the folder of reference data, or skips the test if it is absent.
func goldens(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("HELICON_GOLDENS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no reference data: %v", err)
	}
	return dir
}

// golden is one case.
type golden struct {
	dir     string
	store   *weights.Store
	Tensors map[string]struct {
		Tolerance float64 `json:"tolerance"`
	} `json:"tensors"`
	Config struct {
		Steps int `json:"steps"`
	} `json:"config"`
	worst     float64 // error as a share of the tolerance
	worstName string
}

func openGolden(t *testing.T, dir string) *golden {
	t.Helper()
	g := &golden{dir: dir}
	raw, err := os.ReadFile(filepath.Join(dir, "case.json"))
	if err == nil {
		err = json.Unmarshal(raw, g)
	}
	if err == nil {
		g.store, err = weights.OpenFile(os.DirFS(dir), "golden.safetensors")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.store.Close(); err != nil {
			t.Error(err)
		}
		t.Logf("%s: largest error %.2g of the tolerance (%s)", filepath.Base(dir), g.worst, g.worstName)
	})
	return g
}

func (g *golden) floats(t *testing.T, name string) []float32 {
	t.Helper()
	x, err := g.store.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return x.Float32s()
}

// compare checks got against a tensor: whole numbers must be equal.
func (g *golden) compare(t *testing.T, name string, got []float32) {
	t.Helper()
	x, err := g.store.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	var want []float32
	if x.DType.Float() {
		want = x.Float32s()
	} else {
		for _, v := range x.Ints() {
			want = append(want, float32(v))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", name, len(got), len(want))
		return
	}
	tolerance := g.Tensors[name].Tolerance
	largest := 0.0
	for _, v := range want {
		largest = max(largest, math.Abs(float64(v)))
	}
	for i := range want {
		e := math.Abs(float64(got[i] - want[i]))
		if !(e <= tolerance*largest) {
			t.Errorf("%s[%d] = %v, want %v within %v of %v", name, i, got[i], want[i], tolerance, largest)
			return
		}
		if tolerance > 0 && e/(tolerance*largest) > g.worst {
			g.worst, g.worstName = e/(tolerance*largest), name
		}
	}
}

// configOf returns the configuration that a pipeline case has for a scheduler.
func configOf(t *testing.T, dir, name string, changes ...any) (Config, bool) {
	t.Helper()
	for _, c := range []string{"sd15_" + name, "sd21_vpred_" + name} {
		if name == "pndm" {
			c = "sd15_pipeline"
		}
		raw, err := os.ReadFile(filepath.Join(dir, "..", c, "scheduler", "scheduler_config.json"))
		if err != nil {
			continue
		}
		config, err := Parse(merge(append([]any{finite(raw)}, changes...)...))
		if err != nil {
			t.Fatal(err)
		}
		return config, true
	}
	return Config{}, false
}

// TestGoldenSchedulers compares tables and trajectories with the reference.
func TestGoldenSchedulers(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob(filepath.Join(goldens(t), "*", "*", "case.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range cases {
		dir := filepath.Dir(file)
		run := map[string]func(*testing.T, *golden){
			"scheduler_tables": goldenTables, "scheduler_steps": goldenSteps, "flow_match": goldenFlow, "svd_scheduler": goldenContinuous,
		}[filepath.Base(dir)]
		if run == nil {
			continue
		}
		t.Run(filepath.Base(dir), func(t *testing.T) { run(t, openGolden(t, dir)) })
	}
}

func goldenTables(t *testing.T, g *golden) {
	for name, c := range map[string]Config{
		"alphas_cumprod":                   {BetaStart: 0.00085, BetaEnd: 0.012, BetaSchedule: "scaled_linear"},
		"alphas_cumprod_linear":            {BetaStart: 0.0001, BetaEnd: 0.02, BetaSchedule: "linear"},
		"alphas_cumprod_squaredcos_cap_v2": {BetaSchedule: "squaredcos_cap_v2"},
		"alphas_cumprod_zsnr":              {BetaStart: 0.00085, BetaEnd: 0.012, BetaSchedule: "scaled_linear", ZeroSNR: true},
	} {
		c.TrainSteps = 1000
		bar, err := c.alphasCumprod()
		if err != nil {
			t.Fatal(err)
		}
		g.compare(t, name, narrow(bar))
	}
	pattern := regexp.MustCompile(`^(.+)_(\d+)_timesteps$`)
	for _, name := range slices.Sorted(maps.Keys(g.Tensors)) {
		m := pattern.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		config, ok := configOf(t, g.dir, m[1])
		if !ok {
			t.Errorf("%s: no configuration", name)
			continue
		}
		steps, _ := strconv.Atoi(m[2])
		p, err := newPlan(config, Options{Steps: steps})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var times []float32
		for _, c := range p.calls {
			times = append(times, c.Timestep)
		}
		g.compare(t, name, times)
		if sigmas := m[1] + "_" + m[2] + "_sigmas"; g.store.Has(sigmas) {
			g.compare(t, sigmas, referenceSigmas(p))
		}
	}
}

// referenceSigmas are the levels as the reference lists them: those of samplers of second
// order twice but for the first and, in Heun's, the last.
func referenceSigmas(p *plan) []float32 {
	s := narrow(p.sigmas)
	twice := []float32{s[0]}
	for _, v := range s[1 : len(s)-1] {
		twice = append(twice, v, v)
	}
	switch {
	case strings.HasPrefix(p.Class, "KDPM2"):
		return append(twice, 0, 0, 0)
	case strings.Contains(p.Class, "Heun"):
		return append(twice, 0)
	}
	return s
}

func narrow(x []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}

func goldenSteps(t *testing.T, g *golden) {
	pattern := regexp.MustCompile(`^(.+)_(epsilon|v_prediction|sample)$`)
	for _, name := range slices.Sorted(maps.Keys(g.Tensors)) {
		m := pattern.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		config, ok := configOf(t, g.dir, m[1], fmt.Sprintf(`{"prediction_type":%q}`, m[2]))
		if !ok {
			t.Errorf("%s: no configuration", name)
			continue
		}
		steps := g.Config.Steps
		if m[1] == "lcm" { // fewer, one a call
			x, err := g.store.Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			steps = x.Shape[0]
		}
		r, err := New(config, Options{Steps: steps, Noise: func(draw int, dst []float32) {
			copy(dst, g.floats(t, fmt.Sprintf("%s_noise_%d", name, draw)))
		}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		x := slices.Clone(g.floats(t, "x0"))
		for i := range x {
			x[i] *= r.InitSigma()
		}
		g.compare(t, name, trajectory(r, x, [3]float64{0.9, 0.1, 1000}))
	}
}

// trajectory runs the closed-form model of the goldens, which has two factors and a unit of
// time, and returns x after each call.
func trajectory(r *Run, x []float32, model [3]float64) []float32 {
	var all []float32
	out := make([]float32, len(x))
	for _, c := range r.Calls() {
		t := float64(c.Timestep) / model[2]
		for i, v := range x {
			in := float64(v * c.Scale)
			out[i] = float32(model[0]*in*math.Cos(t) - model[1]*math.Sin(in+2*t))
		}
		r.Step(x, out)
		all = append(all, x...)
	}
	return all
}

func goldenFlow(t *testing.T, g *golden) {
	n := g.Config.Steps
	falling := make([]float64, n)
	for i := range falling {
		falling[i] = linspace(1, 1/float64(n), n, i)
	}
	for name, tt := range map[string]struct {
		config string
		o      Options
	}{
		"sd3_shift3":   {`{"_class_name":"FlowMatchEulerDiscreteScheduler","shift":3.0}`, Options{Steps: n}},
		"shift1":       {`{"_class_name":"FlowMatchEulerDiscreteScheduler"}`, Options{Steps: n}},
		"flux_dynamic": {`{"_class_name":"FlowMatchEulerDiscreteScheduler","use_dynamic_shifting":true,"shift":3.0}`, Options{Sigmas: falling, Mu: 0.83}},
		"heun_shift3":  {`{"_class_name":"FlowMatchHeunDiscreteScheduler","shift":3.0}`, Options{Steps: n}},
	} {
		config, err := Parse([]byte(tt.config))
		if err != nil {
			t.Fatal(err)
		}
		p, err := newPlan(config, tt.o)
		if err != nil {
			t.Fatal(err)
		}
		g.compare(t, name+"_sigmas", referenceSigmas(p))
		r, err := New(config, tt.o)
		if err != nil {
			t.Fatal(err)
		}
		var times []float32
		for _, c := range r.Calls() {
			times = append(times, c.Timestep)
		}
		g.compare(t, name+"_timesteps", times)
		x := g.floats(t, "x0")
		if name == "sd3_shift3" {
			noisy, noise := make([]float32, len(x)), slices.Clone(x)
			for row := range slices.Chunk(noise, 5) {
				slices.Reverse(row)
			}
			r.AddNoise(noisy, x, noise, 3)
			g.compare(t, "scale_noise", noisy)
		}
		g.compare(t, name+"_steps", trajectory(r, slices.Clone(x), [3]float64{0.8, 0.2, 1000}))
	}
}

// goldenContinuous compares a schedule whose timesteps are levels of noise.
func goldenContinuous(t *testing.T, g *golden) {
	config, err := Parse([]byte(`{"_class_name":"EulerDiscreteScheduler","beta_start":0.00085,"beta_end":0.012,"beta_schedule":"scaled_linear",
		"prediction_type":"v_prediction","timestep_spacing":"leading","steps_offset":1,"timestep_type":"continuous",
		"use_karras_sigmas":true,"sigma_min":0.002,"sigma_max":700.0}`))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Steps: g.Config.Steps}
	p, err := newPlan(config, o)
	if err != nil {
		t.Fatal(err)
	}
	g.compare(t, "sigmas", narrow(p.sigmas))
	g.compare(t, "timesteps", narrow(p.times))
	r, err := New(config, o)
	if err != nil {
		t.Fatal(err)
	}
	g.compare(t, "init_noise_sigma", []float32{r.InitSigma()})
	x := slices.Clone(g.floats(t, "x0"))
	for i := range x {
		x[i] *= r.InitSigma()
	}
	g.compare(t, "steps", trajectory(r, x, [3]float64{0.9, 0.1, 1}))
}

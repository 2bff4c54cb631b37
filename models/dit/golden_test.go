package dit

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// goldenDir returns the folder of goldens beside the module, or of $HELICON_GOLDENS, and
// skips the test if it is absent.
func goldenDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "shared", "goldens")
	if env := os.Getenv("HELICON_GOLDENS"); env != "" {
		dir = env
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no reference data: %v", err)
	}
	return dir
}

// network is what the networks have in common.
type network interface {
	Bytes() int64
	NewState(Shape) (*State, error)
	Condition(*tensor.Exec, *State, Condition) error
	Forward(context.Context, *tensor.Exec, *State, []float32, []float32, []float32) error
}

// goldenCase is one case: what is in its folder.
type goldenCase struct {
	dir     string
	class   string
	config  []byte
	Tensors map[string]struct {
		Tolerance float64 `json:"tolerance"`
	} `json:"tensors"`
}

// goldenCases returns the cases of networks under goldens/image.
func goldenCases(t testing.TB) []goldenCase {
	t.Helper()
	cases := casesIn(t, filepath.Join(goldenDir(t), "image"))
	if len(cases) == 0 {
		t.Skip("no cases in goldens/image")
	}
	return cases
}

// casesIn returns the cases of a folder, with the class in their configuration.
func casesIn(t testing.TB, dir string) []goldenCase {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "case.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	for _, file := range files {
		c := goldenCase{dir: filepath.Dir(file)}
		if c.config, err = os.ReadFile(filepath.Join(c.dir, "config.json")); err != nil {
			continue // not a single network
		}
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, &c)
		}
		var head struct {
			Class string `json:"_class_name"`
		}
		if err == nil {
			err = json.Unmarshal(c.config, &head)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.class = head.Class
		cases = append(cases, c)
	}
	return cases
}

// loadFunc loads a network from its tensors and its config.json.
type loadFunc func(*weights.Store, []byte) (network, error)

// loaders has what loads the networks of a class.
func loaders() map[string]loadFunc {
	return map[string]loadFunc{
		"DiTTransformer2DModel":    loadWith(ParseDiTConfig, LoadDiT),
		"PixArtTransformer2DModel": loadWith(ParsePixArtConfig, LoadPixArt),
		"SD3Transformer2DModel":    loadWith(ParseSD3Config, LoadSD3),
		"FluxTransformer2DModel":   loadWith(ParseFluxConfig, LoadFlux),
		"Transformer2DModel":       loadWith(ParseDiTConfig, LoadDiT), // as older files have it
	}
}

func loadWith[C any, M network](parse func([]byte) (C, error), load func(*weights.Store, C) (M, error)) loadFunc {
	return func(s *weights.Store, config []byte) (network, error) {
		c, err := parse(config)
		if err != nil {
			return nil, err
		}
		return load(s, c)
	}
}

func openStore(t testing.TB, dir, name string) *weights.Store {
	t.Helper()
	s, err := weights.OpenFile(os.DirFS(dir), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestGoldenTransformers compares every transformer under goldens/image with the
// reference, at every level of instructions.
func TestGoldenTransformers(t *testing.T) {
	t.Parallel()
	goldenTransformers(t, goldenCases(t))
}

// TestGoldenParts does so for the cases of testdata, which have the parts that those lack.
func TestGoldenParts(t *testing.T) {
	t.Parallel()
	cases := casesIn(t, "testdata")
	if len(cases) != 3 {
		t.Fatalf("%d cases in testdata", len(cases))
	}
	goldenTransformers(t, cases)
}

func goldenTransformers(t *testing.T, cases []goldenCase) {
	for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
		t.Run(level.String(), func(t *testing.T) {
			pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
			t.Cleanup(pool.Close)
			for _, c := range cases {
				t.Run(filepath.Base(c.dir), func(t *testing.T) {
					load, ok := loaders()[c.class]
					if !ok {
						t.Skipf("%s is no transformer of this package", c.class)
					}
					m, err := load(openStore(t, c.dir, "diffusion_pytorch_model.safetensors"), c.config)
					if err != nil {
						t.Fatal(err)
					}
					g := &goldenRun{t: t, goldenCase: c, golden: openStore(t, c.dir, "golden.safetensors")}
					g.run(m, tensor.NewExec(pool))
				})
			}
		})
	}
}

// goldenRun compares one network with its golden.
type goldenRun struct {
	goldenCase
	t         *testing.T
	golden    *weights.Store
	worst     float64 // largest error as a share of its tolerance
	worstName string
}

func (g *goldenRun) run(m network, e *tensor.Exec) {
	in := g.inputs()
	st, err := m.NewState(in.shape)
	if err == nil {
		err = m.Condition(e, st, in.condition)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	got := map[string][]float32{}
	st.observe = func(name string, x []float32) { got[name] = append(got[name], x...) }
	y := make([]float32, len(in.x)/in.channels*in.out)
	if err := m.Forward(g.t.Context(), e, st, y, in.x, in.times); err != nil {
		g.t.Fatal(err)
	}
	if in.packed {
		tokens := make([]float32, len(y))
		pack(tokens, y, in.shape.Width, in.channels)
		y = tokens
	} else {
		y = channelsFirst(y, in.shape, in.out)
	}
	got["out"] = y
	for name, x := range g.Tensors {
		if x.Tolerance > 0 {
			g.compare(name, got[name], x.Tolerance)
		}
	}
	g.t.Logf("%-18s largest error %.2g of the tolerance (%s)", filepath.Base(g.dir), g.worst, g.worstName)
}

// inputs is what a golden gives a network.
type inputs struct {
	shape         Shape
	condition     Condition
	x, times      []float32
	channels, out int  // of the latents
	packed        bool // the golden has them as tokens
}

func (g *goldenRun) inputs() inputs {
	var in inputs
	if g.golden.Has("hidden_states") { // Flux, of a square picture
		tokens := g.lookup("hidden_states")
		side := fluxSide * int(math.Sqrt(float64(tokens.Shape[1])))
		in.packed, in.channels = true, tokens.Shape[2]/fluxPixels
		in.shape = Shape{Batch: tokens.Shape[0], Height: side, Width: side}
		in.x = make([]float32, tokens.Len())
		unpack(in.x, tokens.Float32s(), side, in.channels)
		in.out = in.channels
		in.condition.Guidance = g.lookup("guidance").Float32s()[0]
	} else {
		x := g.lookup("sample")
		in.channels, in.out = x.Shape[1], g.lookup("out").Shape[1]
		in.shape = Shape{Batch: x.Shape[0], Height: x.Shape[2], Width: x.Shape[3]}
		in.x = channelsLast(x.Float32s(), in.shape, in.channels)
	}
	in.times = g.floats("timestep")
	if in.packed {
		for i := range in.times {
			in.times[i] *= 1000
		}
	}
	if g.golden.Has("encoder_hidden_states") {
		in.shape.Tokens = g.lookup("encoder_hidden_states").Shape[1]
		in.condition.States = g.floats("encoder_hidden_states")
	}
	if g.golden.Has("encoder_attention_mask") {
		for _, m := range g.floats("encoder_attention_mask") {
			in.condition.Mask = append(in.condition.Mask, m > 0)
		}
	}
	if g.golden.Has("pooled") {
		in.condition.Pooled = g.floats("pooled")
	}
	if g.golden.Has("resolution") {
		size := g.floats("resolution")
		in.condition.Resolution = [2]int{int(size[0]), int(size[1])}
	}
	if g.golden.Has("class_labels") {
		in.condition.Labels = g.lookup("class_labels").Ints()
	}
	return in
}

func (g *goldenRun) lookup(name string) weights.Tensor {
	g.t.Helper()
	x, err := g.golden.Lookup(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return x
}

// floats returns a copy of numbers of any type.
func (g *goldenRun) floats(name string) []float32 {
	x := g.lookup(name)
	if x.DType == tensor.F32 {
		return slices.Clone(x.Float32s())
	}
	var out []float32
	for _, v := range x.Ints() {
		out = append(out, float32(v))
	}
	return out
}

func (g *goldenRun) compare(name string, got []float32, tolerance float64) {
	g.t.Helper()
	want := g.lookup(name).Float32s()
	if len(got) != len(want) {
		g.t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	e := relativeError(got, want)
	if !(e <= tolerance) {
		g.t.Errorf("%s: error %.3g, tolerance %g", name, e, tolerance)
	}
	if share := e / tolerance; share >= g.worst {
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

// channelsLast turns [B, C, H, W] into [B, H, W, C], channelsFirst back.
func channelsLast(x []float32, s Shape, channels int) []float32 {
	y, pixels := make([]float32, len(x)), s.Height*s.Width
	for i := range x {
		b, c, p := i/(channels*pixels), i/pixels%channels, i%pixels
		y[(b*pixels+p)*channels+c] = x[i]
	}
	return y
}

func channelsFirst(x []float32, s Shape, channels int) []float32 {
	y, pixels := make([]float32, len(x)), s.Height*s.Width
	for i := range y {
		b, c, p := i/(channels*pixels), i/pixels%channels, i%pixels
		y[i] = x[(b*pixels+p)*channels+c]
	}
	return y
}

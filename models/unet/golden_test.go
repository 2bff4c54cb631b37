package unet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// TestGoldenUNet compares every UNet and ControlNet under goldens/image with the
// reference: a forward pass and what it has in between.
func TestGoldenUNet(t *testing.T) {
	t.Parallel()
	goldens(t, 0)
}

// TestGoldenUNetLevels does so with the instructions of lesser processors.
func TestGoldenUNetLevels(t *testing.T) {
	t.Parallel()
	for level := tensor.Generic; level < tensor.BestLevel(); level++ {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			goldens(t, level)
		})
	}
}

func goldens(t *testing.T, level tensor.Level) {
	dir := os.Getenv("HELICON_GOLDENS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "goldens")
	}
	cases, err := filepath.Glob(filepath.Join(dir, "image", "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Skipf("no cases in %s: %v", filepath.Join(dir, "image"), err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
	t.Cleanup(pool.Close)
	for _, file := range cases {
		g := &golden{dir: os.DirFS(filepath.Dir(file)), exec: tensor.NewExec(pool)}
		raw, err := fs.ReadFile(g.dir, "case.json")
		if err == nil {
			err = json.Unmarshal(raw, &g.facts)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, netError := fs.Stat(g.dir, "controlnet/config.json")
		_, modelError := fs.Stat(g.dir, "diffusion_pytorch_model.safetensors")
		if netError != nil && modelError != nil {
			continue // of another kind
		}
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			g.t = t
			if netError == nil {
				g.controlNet()
			} else {
				g.model()
			}
		})
	}
}

// golden is a case.
type golden struct {
	t     *testing.T
	dir   fs.FS
	exec  *tensor.Exec
	facts struct {
		Tensors map[string]struct {
			Tolerance float64 `json:"tolerance"`
		} `json:"tensors"`
	}
	store *weights.Store
	worst float64 // largest error as a share of its tolerance
	which string
}

// parse reads the configuration and the weights of a folder.
func (g *golden) parse(folder string) (Config, *weights.Store) {
	g.t.Helper()
	raw, err := fs.ReadFile(g.dir, folder+"config.json")
	if err != nil {
		g.t.Fatal(err)
	}
	c, err := ParseConfig(raw)
	if errors.Is(err, ErrUnsupported) {
		g.t.Skip(err)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	s, err := weights.Open(g.dir, folder+"diffusion_pytorch_model")
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { s.Close() })
	return c, s
}

// state returns a conditioned state for the inputs of the case.
func (g *golden) state(m *encoder) *State {
	g.t.Helper()
	sample := g.lookup("sample")
	shape := Shape{Batch: sample.Shape[0], Height: sample.Shape[2], Width: sample.Shape[3]}
	var c Conditioning
	if m.config.Conditioned() {
		context := g.lookup("encoder_hidden_states")
		shape.Tokens, c.Context = context.Shape[1], context.Float32s()
	}
	if m.config.AddedText() {
		c.Pooled, c.TimeIDs = g.lookup("text_embeds").Float32s(), g.lookup("time_ids").Float32s()
	}
	s, err := m.NewState(shape)
	if err != nil {
		g.t.Fatal(err)
	}
	if size, err := Workspace(m.config, shape); err != nil || size != s.Bytes() {
		g.t.Errorf("workspace %d, %v, want %d", size, err, s.Bytes())
	}
	s.observe = func(name string, i int, x []float32) {
		if i >= 0 {
			name = fmt.Sprint(name, i)
		}
		if g.store.Has(name) {
			g.compare(name, x)
		}
	}
	if err := m.Condition(g.exec, s, c); err != nil {
		g.t.Fatal(err)
	}
	return s
}

// model compares a UNet, whose packed form must compute the same bits.
func (g *golden) model() {
	c, files := g.parse("")
	g.open()
	x, times := channelsLast(g.lookup("sample")), g.times()
	var first []float32
	for _, s := range []*weights.Store{files, files.Packed(nil, 0)} {
		m, err := Load(s, c)
		if err != nil {
			g.t.Fatal(err)
		}
		state := g.state(&m.encoder)
		y := make([]float32, len(x)/c.InChannels*c.OutChannels)
		for range 2 { // a state can be used again
			if err := m.Forward(g.t.Context(), g.exec, state, y, x, times); err != nil {
				g.t.Fatal(err)
			}
			g.compare("out", y)
		}
		for i := range first {
			if first[i] != y[i] {
				g.t.Fatalf("packed: y[%d] = %v, want %v", i, y[i], first[i])
			}
		}
		first = y
	}
	g.report()
}

// controlNet compares a ControlNet, and a UNet with and without it.
func (g *golden) controlNet() {
	netConfig, netFiles := g.parse("controlnet/")
	config, files := g.parse("unet/")
	g.open()
	net, err := LoadControlNet(netFiles, netConfig)
	if err != nil {
		g.t.Fatal(err)
	}
	m, err := Load(files, config)
	if err != nil {
		g.t.Fatal(err)
	}
	x, times := channelsLast(g.lookup("sample")), g.times()
	control, state := g.state(&net.encoder), g.state(&m.encoder)
	if err := net.SetHint(g.exec, control, channelsLast(g.lookup("controlnet_cond"))); err != nil {
		g.t.Fatal(err)
	}
	if err := net.Forward(g.t.Context(), g.exec, control, x, times, 1); err != nil {
		g.t.Fatal(err)
	}
	last := len(control.residuals) - 1
	for i, r := range control.residuals[:last] {
		g.compare(fmt.Sprint("down_", i), r)
	}
	g.compare("mid", control.residuals[last])
	y := make([]float32, len(x))
	for name, controls := range map[string][]*State{"unet_out_without": nil, "unet_out": {control}} {
		state.Controls = controls
		if err := m.Forward(g.t.Context(), g.exec, state, y, x, times); err != nil {
			g.t.Fatal(err)
		}
		g.compare(name, y)
	}
	g.report()
}

func (g *golden) open() {
	g.t.Helper()
	var err error
	if g.store, err = weights.OpenFile(g.dir, "golden.safetensors"); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { g.store.Close() })
}

func (g *golden) lookup(name string) weights.Tensor {
	g.t.Helper()
	x, err := g.store.Lookup(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return x
}

func (g *golden) times() []float32 {
	var times []float32
	for _, v := range g.lookup("timestep").Ints() {
		times = append(times, float32(v))
	}
	return times
}

// channelsLast returns an image [B, C, H, W] as [B, H, W, C], and other tensors as they are.
func channelsLast(x weights.Tensor) []float32 {
	if len(x.Shape) != 4 {
		return x.Float32s()
	}
	from := x.Float32s()
	to := make([]float32, len(from))
	channels, pixels := x.Shape[1], x.Shape[2]*x.Shape[3]
	for i, v := range from {
		b, c, p := i/(channels*pixels), i/pixels%channels, i%pixels
		to[(b*pixels+p)*channels+c] = v
	}
	return to
}

// compare checks that no element is further off than the tolerance allows.
func (g *golden) compare(name string, got []float32) {
	g.t.Helper()
	want := channelsLast(g.lookup(name))
	if len(got) != len(want) {
		g.t.Fatalf("%s: %d elements, want %d", name, len(got), len(want))
	}
	largest, worst, at := 0.0, 0.0, 0
	for i, v := range want {
		largest = max(largest, math.Abs(float64(v)))
		if d := math.Abs(float64(got[i] - v)); !(d <= worst) {
			worst, at = d, i
		}
	}
	tolerance := g.facts.Tensors[name].Tolerance
	if !(worst/largest <= tolerance) {
		g.t.Fatalf("%s[%d] = %v, want %v: off by %.3g of the largest, tolerance %g", name, at, got[at], want[at], worst/largest, tolerance)
	}
	if share := worst / largest / tolerance; share >= g.worst {
		g.worst, g.which = share, name
	}
}

func (g *golden) report() {
	g.t.Helper()
	g.t.Logf("largest error %.2g of the tolerance (%s)", g.worst, g.which)
}

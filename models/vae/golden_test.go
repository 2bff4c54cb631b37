package vae

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

// TestGoldenVAE compares every autoencoder under goldens/image with the reference, at
// every level of instructions.
func TestGoldenVAE(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob(filepath.Join(sharedDir(t, "goldens"), "image", "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Skipf("no cases in goldens/image: %v", err)
	}
	for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
			t.Cleanup(pool.Close)
			for _, file := range cases {
				g := openCase(t, file)
				run := map[string]func(*goldenCase, *tensor.Exec) map[string][]float32{
					"AutoencoderKL": runKL, "AutoencoderTiny": runTiny,
				}[strings.TrimPrefix(g.Reference, "huggingface/diffusers 0.31.0, ")]
				if run == nil {
					continue
				}
				t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
					g := openCase(t, file)
					g.compareAll(run(g, tensor.NewExec(pool)))
				})
			}
		})
	}
}

func runKL(g *goldenCase, e *tensor.Exec) map[string][]float32 {
	t := g.t
	c, err := ParseConfig(g.file("config.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(g.store("diffusion_pytorch_model"), c)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]float32{}
	st := NewState(0)
	for _, picture := range g.maps("image") {
		moments := make([]float32, picture.Height/2*(picture.Width/2)*2*c.LatentChannels)
		if err := m.Moments(t.Context(), e, st, moments, picture); err != nil {
			t.Fatal(err)
		}
		var mean, logvar []float32
		for n := 2 * c.LatentChannels; len(moments) > 0; moments = moments[n:] {
			mean, logvar = append(mean, moments[:n/2]...), append(logvar, moments[n/2:n]...)
		}
		got["latent_mean"] = append(got["latent_mean"], mean...)
		got["latent_logvar"] = append(got["latent_logvar"], logvar...)
		see := collect(got, "enc_", map[string]string{"conv_in": "conv_in", "down_blocks.0": "down0", "mid_block": "mid"})
		if err := m.encoder.forward(t.Context(), st.run(e, m.config.encodePlan(picture.Height/2, picture.Width/2, DefaultTile)), make([]float32, 2*len(mean)), picture, see); err != nil {
			t.Fatal(err)
		}
	}
	for _, z := range g.maps("z") {
		picture := make([]float32, 4*z.Height*z.Width*3)
		if err := m.Decode(t.Context(), e, st, picture, z); err != nil {
			t.Fatal(err)
		}
		got["decoded"] = append(got["decoded"], picture...)
		see := collect(got, "dec_", map[string]string{"conv_in": "conv_in", "up_blocks.0": "up0", "mid_block": "mid"})
		if err := m.decoder.forward(t.Context(), st.run(e, m.config.decodePlan(z.Height, z.Width, DefaultTile)), picture, z, see); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

// collect returns an observer that keeps what some modules made.
func collect(got map[string][]float32, prefix string, names map[string]string) observer {
	return func(module string, x []float32) {
		if name, ok := names[module]; ok {
			got[prefix+name] = append(got[prefix+name], x...)
		}
	}
}

func runTiny(g *goldenCase, e *tensor.Exec) map[string][]float32 {
	t := g.t
	c, err := ParseTinyConfig(g.file("config.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := LoadTiny(g.store("diffusion_pytorch_model"), c)
	if err != nil {
		t.Fatal(err)
	}
	st := NewState(0)
	picture, z := g.maps("image")[0], g.maps("z")[0]
	encoded := make([]float32, len(z.Data))
	if err := m.Encode(t.Context(), e, st, encoded, picture, nil); err != nil {
		t.Fatal(err)
	}
	decoded := make([]float32, len(picture.Data))
	if err := m.Decode(t.Context(), e, st, decoded, z); err != nil {
		t.Fatal(err)
	}
	return map[string][]float32{"encoded": encoded, "decoded": decoded}
}

// goldenCase is a folder of the goldens.
type goldenCase struct {
	Reference string
	Tensors   map[string]struct{ Tolerance float64 }

	t      *testing.T
	dir    string
	golden *weights.Store
}

func openCase(t *testing.T, file string) *goldenCase {
	t.Helper()
	g := &goldenCase{t: t, dir: filepath.Dir(file)}
	if err := json.Unmarshal(g.file("case.json"), g); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *goldenCase) file(name string) []byte {
	g.t.Helper()
	raw, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		g.t.Fatal(err)
	}
	return raw
}

func (g *goldenCase) store(base string) *weights.Store {
	g.t.Helper()
	s, err := weights.Open(os.DirFS(g.dir), base)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { s.Close() })
	return s.Packed(nil, tensor.F32)
}

func (g *goldenCase) lookup(name string) weights.Tensor {
	g.t.Helper()
	if g.golden == nil {
		s, err := weights.OpenFile(os.DirFS(g.dir), "golden.safetensors")
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { s.Close() })
		g.golden = s
	}
	x, err := g.golden.Lookup(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return x
}

// maps returns the images of a tensor [B, C, H, W].
func (g *goldenCase) maps(name string) []Map {
	x := g.lookup(name)
	data, n := lastChannels(x), x.Len()/x.Shape[0]
	var maps []Map
	for ; len(data) > 0; data = data[n:] {
		maps = append(maps, Map{Data: data[:n], Height: x.Shape[2], Width: x.Shape[3]})
	}
	return maps
}

// lastChannels turns [B, C, H, W] into [B, H, W, C].
func lastChannels(x weights.Tensor) []float32 {
	in, channels, pixels := x.Float32s(), x.Shape[1], x.Shape[2]*x.Shape[3]
	out := make([]float32, len(in))
	for i, v := range in {
		b, c, p := i/pixels/channels, i/pixels%channels, i%pixels
		out[(b*pixels+p)*channels+c] = v
	}
	return out
}

// compareAll compares results with all of the golden that has a tolerance.
func (g *goldenCase) compareAll(got map[string][]float32) {
	g.t.Helper()
	worst, worstName := 0.0, ""
	for name, x := range g.Tensors {
		if x.Tolerance == 0 {
			continue
		}
		share := relativeError(got[name], lastChannels(g.lookup(name))) / x.Tolerance
		if !(share <= 1) {
			g.t.Errorf("%s: error %.3g of the tolerance %g", name, share, x.Tolerance)
		}
		if share >= worst {
			worst, worstName = share, name
		}
	}
	g.t.Logf("%-22s largest error %.2g of the tolerance (%s)", filepath.Base(g.dir), worst, worstName)
}

// relativeError is max|got-want| / max|want|; NaN and a wrong length count as infinite.
func relativeError(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
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

package vision

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helicon/models/clip"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// goldens returns the folder of reference cases, or skips the test if it is absent.
func goldens(t testing.TB) string {
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

// goldenCase is a folder of the goldens.
type goldenCase struct {
	Reference string
	Title     string
	Tensors   map[string]struct {
		Tolerance float64
		Shape     []int
	}
	dir    string
	golden *weights.Store
}

// TestGoldenVision compares preprocessing and safety checkers under goldens/vision with
// the reference.
func TestGoldenVision(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob(filepath.Join(goldens(t), "vision", "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Skipf("no cases in goldens/vision: %v", err)
	}
	for _, file := range cases {
		c := goldenCase{dir: filepath.Dir(file)}
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, &c)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(c.dir), func(t *testing.T) {
			t.Parallel()
			if c.golden, err = weights.OpenFile(os.DirFS(c.dir), "golden.safetensors"); err != nil {
				t.Fatal(err)
			}
			defer c.golden.Close()
			switch {
			case strings.Contains(c.Reference, "image processors"):
				c.preprocess(t)
			case strings.HasSuffix(c.Reference, "StableDiffusionSafetyChecker"):
				for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
					c.safety(t, level)
				}
			default:
				t.Skip(c.Reference)
			}
		})
	}
}

func (c *goldenCase) lookup(t *testing.T, name string) weights.Tensor {
	t.Helper()
	x, err := c.golden.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (c *goldenCase) file(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (c *goldenCase) rgb(t *testing.T, name string) RGB {
	t.Helper()
	x := c.lookup(t, name)
	return RGB{Pix: x.Data, Width: x.Shape[1], Height: x.Shape[0]}
}

// preprocess compares every processor with its results, and every resized picture byte by
// byte.
func (c *goldenCase) preprocess(t *testing.T) {
	filters := map[string]Filter{"nearest": Nearest, "lanczos": Lanczos, "bilinear": Bilinear, "bicubic": Bicubic, "box": Box}
	worst, count := 0.0, 0
	for name, x := range c.Tensors {
		kind, rest, _ := strings.Cut(name, "_")
		switch {
		case kind == "resize":
			by, _, _ := strings.Cut(rest, "_")
			f, ok := filters[by]
			if !ok {
				t.Skip(name)
			}
			got := Resize(c.rgb(t, "image"), x.Shape[1], x.Shape[0], f)
			for i, want := range c.lookup(t, name).Data {
				if got.Pix[i] != want {
					t.Errorf("%s: byte %d is %d, want %d", name, i, got.Pix[i], want)
					break
				}
			}
			count++
		case rest != "":
			p, err := ParseProcessor(c.file(t, filepath.Join(kind, "preprocessor_config.json")))
			if err != nil {
				t.Fatal(err)
			}
			got, width, height, err := p.Pixels(c.rgb(t, rest))
			if err != nil {
				t.Fatal(err)
			}
			if width != x.Shape[3] || height != x.Shape[2] {
				t.Fatalf("%s: %d×%d, want %v", name, width, height, x.Shape)
			}
			e := relativeError(got, lastChannels(c.lookup(t, name)))
			if !(e <= x.Tolerance) {
				t.Errorf("%s: error %.3g, tolerance %g", name, e, x.Tolerance)
			}
			worst = max(worst, e/x.Tolerance)
		}
	}
	t.Logf("%-22s %d pictures resized equal, largest error of pixels %.2g of the tolerance", filepath.Base(c.dir), count, worst)
}

func (c *goldenCase) safety(t *testing.T, level tensor.Level) {
	config, err := clip.ParseConfig(c.file(t, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := weights.Open(os.DirFS(c.dir), "model")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := LoadSafetyChecker(s, config)
	if err != nil {
		t.Fatal(err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
	defer pool.Close()
	e := tensor.NewExec(pool)
	input := lastChannels(c.lookup(t, "clip_input"))
	embeds, err := m.embed(e, input)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]float32{"image_embeds": embeds}
	for i, width := 0, config.Vision.Projection; i < len(embeds); i += width {
		for name, set := range map[string]concepts{"cos_special": m.special, "cos_concept": m.unsafe} {
			for j := 0; j < len(set.vectors); j += width {
				got[name] = append(got[name], clip.Cosine(embeds[i:][:width], set.vectors[j:][:width]))
			}
		}
	}
	worst := 0.0
	for name, x := range got {
		share := relativeError(x, c.lookup(t, name).Float32s()) / c.Tensors[name].Tolerance
		if !(share <= 1) {
			t.Errorf("%s: error %.3g of the tolerance", name, share)
		}
		worst = max(worst, share)
	}
	flags, err := m.Check(e, input)
	if err != nil {
		t.Fatal(err)
	}
	var bits []int
	for _, f := range flags {
		bit := 0
		if f {
			bit = 1
		}
		bits = append(bits, bit)
	}
	if want := c.lookup(t, "flags").Ints(); fmt.Sprint(bits) != fmt.Sprint(want) {
		t.Errorf("flags %v, want %v", bits, want)
	}
	t.Logf("%-22s at level %v flags equal, largest error %.2g of the tolerance", filepath.Base(c.dir), level, worst)
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

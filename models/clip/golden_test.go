package clip

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

// TestGoldenCLIP compares every CLIP network under goldens/image and goldens/vision with
// the reference, at every level of instructions.
func TestGoldenCLIP(t *testing.T) {
	t.Parallel()
	var cases []string
	for _, area := range []string{"image", "vision"} {
		files, _ := filepath.Glob(filepath.Join(goldens(t), area, "*", "case.json"))
		cases = append(cases, files...)
	}
	for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
			t.Cleanup(pool.Close)
			for _, file := range cases {
				dir := filepath.Dir(file)
				run := caseOf(t, file)
				if run == nil {
					continue
				}
				t.Run(filepath.Base(dir), func(t *testing.T) { openGolden(t, dir).compareAll(run(t, dir, tensor.NewExec(pool))) })
			}
		})
	}
}

// network runs a case's model and returns its results by their names in the golden.
type network func(t *testing.T, dir string, e *tensor.Exec) map[string][]float32

// caseOf returns what runs a case's architecture, or nil if it is none of this package's.
func caseOf(t *testing.T, file string) network {
	t.Helper()
	var c struct{ Reference string }
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]network{"CLIPTextModel": runText, "CLIPTextModelWithProjection": runText, "CLIPModel": runBoth} {
		if strings.Contains(c.Reference+",", " "+name+",") {
			return run
		}
	}
	return nil
}

func runText(t *testing.T, dir string, e *tensor.Exec) map[string][]float32 {
	m := loadText(t, dir)
	ids := openGolden(t, dir).lookup("input_ids")
	st := m.NewState(ids.Shape[0])
	if err := m.Forward(e, st, TextInput{IDs: ids.Ints(), Batch: ids.Shape[0]}); err != nil {
		t.Fatal(err)
	}
	got := map[string][]float32{
		"hidden_embed": st.Hidden(0), "hidden_penultimate": st.Hidden(m.Config().Layers - 1),
		"last_hidden_state": st.Last(), "pooled": st.Pooled(), "text_embeds": st.Embeds(),
	}
	if m.Config().Projected {
		delete(got, "pooled")
	} else {
		delete(got, "text_embeds")
	}
	return got
}

func runBoth(t *testing.T, dir string, e *tensor.Exec) map[string][]float32 {
	c, err := ParseConfig(readFile(t, dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(openStore(t, dir), c)
	if err != nil {
		t.Fatal(err)
	}
	g := openGolden(t, dir)
	ids, pixels := g.lookup("input_ids"), g.lookup("pixel_values")
	texts, images := ids.Shape[0], pixels.Shape[0]
	text, vision := m.Text.NewState(texts), m.Vision.NewState(images)
	if err := m.Text.Forward(e, text, TextInput{IDs: ids.Ints(), Batch: texts}); err != nil {
		t.Fatal(err)
	}
	if err := m.Vision.Forward(e, vision, lastChannels(pixels)); err != nil {
		t.Fatal(err)
	}
	got := map[string][]float32{
		"vision_hidden": vision.Last(), "vision_pooled": vision.Pooled(),
		"image_embeds": unit(vision.Embeds(), c.Vision.Projection), "text_embeds": unit(text.Embeds(), c.Text.Projection),
	}
	logits := make([]float32, images*texts)
	m.Similarity(logits, vision.Embeds(), text.Embeds())
	got["logits_per_image"] = logits
	probs := append([]float32(nil), logits...)
	e.Softmax(probs, texts)
	got["probs"] = probs
	return got
}

// unit returns rows of c floats divided by their lengths.
func unit(x []float32, c int) []float32 {
	out := append([]float32(nil), x...)
	for ; len(x) > 0; x = x[c:] {
		var sum float64
		for _, v := range x[:c] {
			sum += float64(v) * float64(v)
		}
		row := out[len(out)-len(x):][:c]
		for i := range row {
			row[i] /= float32(math.Sqrt(sum))
		}
	}
	return out
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

func loadText(t testing.TB, dir string) *Text {
	t.Helper()
	c, err := ParseTextConfig(readFile(t, dir, "config.json"))
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := LoadText(openStore(t, dir), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readFile(t testing.TB, dir, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func openStore(t testing.TB, dir string) *weights.Store {
	t.Helper()
	s, err := weights.Open(os.DirFS(dir), "model")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// goldenFile is the results of a case.
type goldenFile struct {
	t         *testing.T
	dir       string
	store     *weights.Store
	tolerance map[string]float64
}

func openGolden(t *testing.T, dir string) *goldenFile {
	t.Helper()
	var c struct {
		Tensors map[string]struct{ Tolerance float64 }
	}
	if err := json.Unmarshal(readFile(t, dir, "case.json"), &c); err != nil {
		t.Fatal(err)
	}
	s, err := weights.OpenFile(os.DirFS(dir), "golden.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	g := &goldenFile{t: t, dir: dir, store: s, tolerance: map[string]float64{}}
	for name, x := range c.Tensors {
		g.tolerance[name] = x.Tolerance
	}
	return g
}

func (g *goldenFile) lookup(name string) weights.Tensor {
	g.t.Helper()
	x, err := g.store.Lookup(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return x
}

// compareAll compares results with the golden's, which are all that have a tolerance.
func (g *goldenFile) compareAll(got map[string][]float32) {
	g.t.Helper()
	worst, worstName := 0.0, ""
	for name, tolerance := range g.tolerance {
		if tolerance == 0 {
			continue
		}
		share := relativeError(got[name], g.lookup(name).Float32s()) / tolerance
		if !(share <= 1) {
			g.t.Errorf("%s: error %.3g of the tolerance %g", name, share, tolerance)
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

package diffusion

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"helicon/models/tensor"
	"helicon/models/vae"
	"helicon/models/weights"
)

// goldens returns the folder of reference data, or skips the test if it is absent.
func goldens(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("HELICON_GOLDENS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "goldens")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no reference data: %v", err)
	}
	return dir
}

// golden is a case of a pipeline.
type golden struct {
	dir     string
	store   *weights.Store
	Tensors map[string]struct {
		Tolerance float64 `json:"tolerance"`
	} `json:"tensors"`
	Config struct {
		ModelDir string  `json:"model_dir"`
		Steps    int     `json:"steps"`
		Guidance float32 `json:"guidance_scale"`
		Rescale  float32 `json:"guidance_rescale"`
		Eta      float32 `json:"eta"`
		Strength float32 `json:"strength"`
		Prompt   texts   `json:"prompt"`
		Negative texts   `json:"negative_prompt"`
	} `json:"config"`
	worst     float64 // error as a share of the tolerance
	worstName string
}

// texts is one text or several.
type texts []string

func (x *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*x = texts{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(x))
}

// overlay is a folder some of whose components are those of another.
type overlay struct{ over, under fs.FS }

func (o overlay) Open(name string) (fs.File, error) {
	f, err := o.over.Open(name)
	if err != nil {
		return o.under.Open(name)
	}
	return f, nil
}

// TestGoldenPipelines compares every pipeline under goldens/image with the reference,
// latent by latent.
func TestGoldenPipelines(t *testing.T) {
	t.Parallel()
	goldenPipelines(t, 0)
}

// TestGoldenPipelinesLevels does so with the instructions of lesser processors.
func TestGoldenPipelinesLevels(t *testing.T) {
	t.Parallel()
	for level := tensor.Generic; level < tensor.BestLevel(); level++ {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			goldenPipelines(t, level)
		})
	}
}

func goldenPipelines(t *testing.T, level tensor.Level) {
	cases, err := filepath.Glob(filepath.Join(goldens(t), "image", "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Skipf("no cases in goldens/image: %v", err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
	t.Cleanup(pool.Close)
	for _, file := range cases {
		g := &golden{dir: filepath.Dir(file)}
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, g)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := g.Tensors["step_latents"]; !ok || g.Config.Guidance == 0 {
			continue // no pipeline
		}
		t.Run(filepath.Base(g.dir), func(t *testing.T) {
			t.Parallel()
			g.run(t, pool)
		})
	}
}

func (g *golden) run(t *testing.T, pool *tensor.Pool) {
	files := os.DirFS(g.dir)
	if g.Config.ModelDir != "" {
		files = overlay{files, os.DirFS(filepath.Join(g.dir, g.Config.ModelDir))}
	}
	p, err := Load(t.Context(), files, Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	if g.store, err = weights.OpenFile(os.DirFS(g.dir), "golden.safetensors"); err != nil {
		t.Fatal(err)
	}
	defer g.store.Close()
	g.texts(t, p)
	var steps, pictures [][]float32
	for i, text := range g.Config.Prompt {
		x, all := g.draw(t, p, i, text)
		steps, pictures = append(steps, all), append(pictures, x)
	}
	g.compare(t, "step_latents", interleave(steps))
	g.compare(t, "image", slices.Concat(pictures...))
	t.Logf("%s: largest error %.2g of the tolerance (%s)", filepath.Base(g.dir), g.worst, g.worstName)
}

// draw makes the picture of prompt i as the reference did and returns it, and the latents
// after each call of the network.
func (g *golden) draw(t *testing.T, p *Pipeline, i int, text string) (picture, steps []float32) {
	height, width := g.size(t)
	r := Request{
		Prompt: text, Width: width, Height: height, Steps: g.Config.Steps,
		Guidance: g.Config.Guidance, GuidanceRescale: g.Config.Rescale, Eta: g.Config.Eta,
	}
	if i < len(g.Config.Negative) {
		r.Negative = g.Config.Negative[i]
	}
	j := &job{Request: r, scheduler: p.scheduler, guided: r.Guidance > 1, noise: func(stream uint32, dst []float32) {
		copy(dst, g.channelsLast(t, g.drawOf(stream), i))
	}}
	if g.store.Has("init_image") {
		j.picture = signed(g.channelsLast(t, "init_image", 0))
		j.Strength = g.Config.Strength
	}
	if g.store.Has("mask") {
		j.mask = g.channelsLast(t, "mask", 0)
	}
	shape := p.shape(width, height)
	j.seen = func(x []float32) { steps = append(steps, channelsFirst(x, shape)...) }
	d := &drawing{p: p, job: j, e: tensor.NewExec(p.bundle.options.Pool), vae: vae.NewState(0)}
	if g.store.Has("image_latents") {
		g.imageLatents(t, d)
	}
	w, h, x, err := d.draw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return channelsFirst(x, shapeOf(h, w, 3)), steps
}

func shapeOf(h, w, c int) shape { return shape{height: h, width: w, channels: c} }

// size returns the height and width of the case's pictures.
func (g *golden) size(t *testing.T) (height, width int) {
	x, err := g.store.Lookup("image")
	if err != nil {
		t.Fatal(err)
	}
	return x.Shape[2], x.Shape[3]
}

// drawOf names the reference's draw that a stream of ours stands for.
func (g *golden) drawOf(stream uint32) string {
	picture := g.store.Has("init_image")
	switch {
	case stream == startStream && g.store.Has("latents"):
		return "latents"
	case stream == startStream:
		return "noise_1"
	case stream == pictureStream, stream == maskedStream && !g.store.Has("noise_1"):
		return "noise_0"
	case stream >= samplerStream && picture:
		return fmt.Sprintf("noise_%d", stream-samplerStream+2)
	}
	return fmt.Sprintf("noise_%d", stream-samplerStream)
}

// texts compares what the text encoders make of the prompts.
func (g *golden) texts(t *testing.T, p *Pipeline) {
	e := tensor.NewExec(p.bundle.options.Pool)
	encode := func(negative string, skip int) *condition {
		c, err := p.family.encode(t.Context(), e, prompt{text: g.Config.Prompt[0], negative: negative, guided: true, clipSkip: skip})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if !g.store.Has("prompt_embeds") {
		return
	}
	c := encode(g.Config.Negative[0], 0)
	g.compare(t, "negative_embeds", c.context[:len(c.context)/2])
	g.compare(t, "prompt_embeds", c.context[len(c.context)/2:])
	if g.store.Has("pooled_embeds") {
		g.compare(t, "negative_pooled", c.pooled[:len(c.pooled)/2])
		g.compare(t, "pooled_embeds", c.pooled[len(c.pooled)/2:])
		c = encode("", 0)
		g.compare(t, "negative_embeds_none", c.context[:len(c.context)/2])
	}
	if g.store.Has("prompt_embeds_clip_skip1") {
		c = encode(g.Config.Negative[0], 1)
		g.compare(t, "prompt_embeds_clip_skip1", c.context[len(c.context)/2:])
	}
}

// imageLatents compares the latents that a picture is changed from.
func (g *golden) imageLatents(t *testing.T, d *drawing) {
	j := *d.job
	probe := *d
	probe.job = &j
	height, width := g.size(t)
	s := d.p.shape(width, height)
	ps := pass{width: width, height: height}
	if err := probe.schedule(&ps, g.Config.Steps, float64(g.Config.Strength)); err != nil {
		t.Fatal(err)
	}
	if err := probe.begin(t.Context(), &ps); err != nil {
		t.Fatal(err)
	}
	g.compare(t, "image_latents", channelsFirst(ps.from, s))
	noise, x := make([]float32, s.floats()), make([]float32, s.floats())
	j.noise(startStream, noise)
	ps.run.AddNoise(x, ps.from, noise, 0)
	g.compare(t, "noised_latents", channelsFirst(x, s))
}

// channelsLast returns member i of a tensor [B, C, H, W] as [H, W, C].
func (g *golden) channelsLast(t *testing.T, name string, i int) []float32 {
	t.Helper()
	x, err := g.store.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	c, n := x.Shape[1], x.Shape[2]*x.Shape[3]
	from, to := x.Float32s()[i*c*n:], make([]float32, c*n)
	for k := range to {
		to[k] = from[k%c*n+k/c]
	}
	return to
}

func channelsFirst(x []float32, s shape) []float32 {
	n := s.height * s.width
	to := make([]float32, len(x))
	for k, v := range x {
		to[k%s.channels*n+k/s.channels] = v
	}
	return to
}

// interleave joins the steps of a batch, given by member, as [step, batch].
func interleave(members [][]float32) []float32 {
	if len(members) == 1 {
		return members[0]
	}
	const latents = 4 * 8 * 8
	var out []float32
	for at := 0; at < len(members[0]); at += latents {
		for _, m := range members {
			out = append(out, m[at:at+latents]...)
		}
	}
	return out
}

func (g *golden) compare(t *testing.T, name string, got []float32) {
	t.Helper()
	x, err := g.store.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	want := x.Float32s()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", name, len(got), len(want))
		return
	}
	largest := 0.0
	for _, v := range want {
		largest = max(largest, math.Abs(float64(v)))
	}
	tolerance := g.Tensors[name].Tolerance
	for i := range want {
		e := math.Abs(float64(got[i]-want[i])) / max(largest, 1e-30)
		if !(e <= tolerance) {
			t.Errorf("%s[%d] = %v, want %v within %v of %v", name, i, got[i], want[i], tolerance, largest)
			return
		}
		if e/tolerance > g.worst {
			g.worst, g.worstName = e/tolerance, name
		}
	}
}

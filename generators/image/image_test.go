package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"helicon/generators"
	"helicon/generators/media"
	"helicon/models/diffusion/scheduler"
	"helicon/models/hub"
	"helicon/models/tensor"
	"helicon/queue"
)

func TestMain(m *testing.M) {
	// nats.go 1.55.0 leaves it behind when an object is stored before it has begun to run.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

type object = map[string]any

// golden returns a folder of the golden cases for pictures, or skips.
func golden(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("HELICON_GOLDENS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "goldens")
	}
	dir, err := filepath.Abs(filepath.Join(dir, "image", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("there is no golden case %s", dir)
	}
	return dir
}

// painters returns a models folder with the tiny Stable Diffusion of the golden cases,
// which makes pictures of 16 × 16, as "tiny".
func painters(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(golden(t, "sd15_pipeline"), filepath.Join(dir, "tiny")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startQueue returns a queue on an embedded server.
func startQueue(t testing.TB) *queue.Queue {
	t.Helper()
	srv, err := queue.StartServer(queue.ServerConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	q, err := queue.Open(t.Context(), nc, queue.Options{AckWait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// open returns a generator of the bundles in a folder that computes on so many threads.
func open(t testing.TB, q *queue.Queue, dir string, threads int) *Generator {
	t.Helper()
	h, err := hub.Open(hub.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: threads})
	t.Cleanup(pool.Close)
	memory := generators.NewMemory(2 << 30)
	t.Cleanup(memory.Close)
	g, err := New(Config{Hub: h, Pool: pool, Memory: memory, Artifacts: q, Model: "tiny"})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// upload stores a picture and returns its digest.
func upload(t testing.TB, q *queue.Queue, p *image.NRGBA, o media.EncodeOptions) string {
	t.Helper()
	var file bytes.Buffer
	if err := media.Encode(&file, p, o); err != nil {
		t.Fatal(err)
	}
	a, err := q.PutArtifact(t.Context(), queue.DefaultTenant, &file, 1<<24, queue.Artifact{MediaType: "image/png"})
	if err != nil {
		t.Fatal(err)
	}
	return a.SHA256
}

// fetch reads a stored picture.
func fetch(t testing.TB, q *queue.Queue, a queue.Artifact) (*image.NRGBA, *media.Info, []byte) {
	t.Helper()
	_, file, err := q.Artifact(t.Context(), queue.DefaultTenant, a.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	p, about, err := media.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return p, about, data
}

// recorder keeps what a job emits.
type recorder struct {
	queue *queue.Queue

	mu       sync.Mutex
	progress []queue.Progress
	previews []string
	onStep   func(step int)
}

func (r *recorder) Progress(step, total int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress = append(r.progress, queue.Progress{Step: step, Total: total})
	if r.onStep != nil {
		r.onStep(step)
	}
}

func (r *recorder) Delta(queue.Delta) {}

func (r *recorder) Preview(url string) { r.previews = append(r.previews, url) }

func (r *recorder) Artifact(ctx context.Context, in io.ReadSeeker, about queue.Artifact) (queue.Artifact, error) {
	return r.queue.PutArtifact(ctx, queue.DefaultTenant, in, 1<<30, about)
}

func jobOf(t testing.TB, task, model string, input object) *queue.Job {
	t.Helper()
	body, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	return &queue.Job{ID: queue.NewID(), Tenant: queue.DefaultTenant, Task: task, Model: model, Input: body, Seed: 7}
}

// generate runs a job that must succeed, and whose estimate must not fail either.
func generate(t testing.TB, q *queue.Queue, g *Generator, job *queue.Job, needs ...*queue.Job) (*queue.Result, meta, *recorder) {
	t.Helper()
	need, err := g.Estimate(job)
	if err != nil {
		t.Fatal(err)
	}
	if need.Memory < 0 || need.Model.Bytes < 0 || need.Memory > g.memory.Total() {
		t.Fatalf("need %+v", need)
	}
	out := &recorder{queue: q}
	result, err := g.Generate(t.Context(), job, needs, out)
	if err != nil {
		t.Fatal(err)
	}
	var m meta
	if err := json.Unmarshal(result.Meta, &m); err != nil {
		t.Fatal(err)
	}
	return result, m, out
}

// refused checks that a job ends with a problem of a code that says something, or points
// somewhere.
func refused(t testing.TB, g *Generator, q *queue.Queue, job *queue.Job, code, says string) {
	t.Helper()
	_, err := g.Generate(t.Context(), job, nil, &recorder{queue: q})
	var p *queue.Problem
	if !errors.As(err, &p) || p.Code != code {
		t.Errorf("%s %s: %v, want a problem %s", job.Task, job.Input, err, code)
		return
	}
	text, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(text), says) {
		t.Errorf("%s %s: %s does not say %q", job.Task, job.Input, text, says)
	}
}

func gradient(w, h int) *image.NRGBA {
	p := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			p.SetNRGBA(x, y, color.NRGBA{uint8(x * 7), uint8(y * 11), uint8(x + y), 255})
		}
	}
	return p
}

const prompt = "a photo of a red cat on the moon, highly detailed"

func TestGenerate(t *testing.T) {
	t.Parallel()
	dir, q := painters(t), startQueue(t)
	g := open(t, q, dir, 2)
	result, m, out := generate(t, q, g, jobOf(t, taskGenerate, "", object{
		"prompt": prompt, "negative_prompt": "blurry, low quality", "steps": 4, "guidance": 7.5, "width": 16, "height": 16, "n": 2,
	}))
	if len(result.Artifacts) != 2 || m.Model != "tiny" || m.Digest == "" || !slices.Equal(m.Seeds, []uint64{7, 8}) {
		t.Fatalf("result %+v, meta %+v", result, m)
	}
	a := result.Artifacts[0]
	if a.MediaType != "image/png" || a.Width != 16 || a.Height != 16 || a.Name != "a-photo-of-a-red-cat-on-the-moon-highly-detailed-7.png" {
		t.Errorf("artifact %+v", a)
	}
	if len(out.progress) == 0 || out.progress[len(out.progress)-1].Step != out.progress[len(out.progress)-1].Total {
		t.Errorf("progress %v", out.progress)
	}
	for i := 1; i < len(out.progress); i++ {
		if out.progress[i].Step <= out.progress[i-1].Step || out.progress[i].Total != out.progress[0].Total {
			t.Errorf("progress %v", out.progress)
		}
	}
	if len(out.previews) == 0 {
		t.Fatal("no preview")
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(out.previews[0], "data:image/jpeg;base64,"))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := jpeg.Decode(bytes.NewReader(data)); err != nil || p.Bounds().Dx() != previewSide {
		t.Errorf("preview: %v", err)
	}
	_, about, _ := fetch(t, q, result.Artifacts[1])
	want := "Steps: 4, Sampler: PLMS, CFG scale: 7.5, Seed: 8, Size: 16x16, Model: tiny, Version: Helicon"
	if text := about.Meta.Parameters; text != prompt+"\nNegative prompt: blurry, low quality\n"+want {
		t.Errorf("parameters %q", text)
	}
	if about.Meta.Origin != media.Generated {
		t.Errorf("origin %q", about.Meta.Origin)
	}
}

// TestSameFileFromItsRecord makes each of several pictures again by what its file says, on
// another number of threads.
func TestSameFileFromItsRecord(t *testing.T) {
	t.Parallel()
	dir, q := painters(t), startQueue(t)
	from := upload(t, q, gradient(16, 16), media.EncodeOptions{})
	one, two := open(t, q, dir, 1), open(t, q, dir, 2)
	for _, job := range []*queue.Job{
		jobOf(t, taskGenerate, "tiny", object{"prompt": "red", "steps": 2, "width": 16, "height": 24, "n": 3, "preview": false}),
		jobOf(t, taskGenerate, "", object{"prompt": "red", "steps": 2, "width": 16, "height": 16, "scheduler": "euler_a", "output_format": "webp"}),
		jobOf(t, taskEdit, "", object{"prompt": "red", "steps": 3, "image": from, "strength": 0.5, "output_format": "jpeg", "quality": 60, "scheduler": "ddim"}),
		jobOf(t, taskVariation, "", object{"steps": 2, "image": from}),
		jobOf(t, taskInpaint, "", object{"prompt": "red", "steps": 2, "image": from, "pad": object{"right": 8}}),
		jobOf(t, taskAdjust, "", object{"image": from, "operations": []object{{"op": "invert"}}}),
		jobOf(t, taskUpscale, "lanczos", object{"image": from, "scale": 1.5}),
	} {
		result, _, _ := generate(t, q, one, job)
		for _, a := range result.Artifacts {
			_, about, file := fetch(t, q, a)
			r := about.Meta.Record
			if r == nil {
				t.Fatalf("%s: no record", job.Task)
			}
			again, _, _ := generate(t, q, two, &queue.Job{ID: queue.NewID(), Tenant: queue.DefaultTenant, Task: r.Task, Model: r.Model, Seed: r.Seed, Input: r.Input})
			if _, _, second := fetch(t, q, again.Artifacts[0]); !bytes.Equal(file, second) {
				t.Errorf("%s: the file made by %s is another one", job.Task, r.Input)
			}
		}
	}
}

func TestInpaintKeepsTheRest(t *testing.T) {
	t.Parallel()
	q := startQueue(t)
	g := open(t, q, painters(t), 2)
	from := gradient(40, 24)
	from.SetNRGBA(0, 0, color.NRGBA{9, 8, 7, 0}) // transparent, and stays so
	mask := image.NewNRGBA(from.Rect)
	for i := range mask.Pix {
		mask.Pix[i] = 255
		if i%4 != 3 && i/4%40 < 20 {
			mask.Pix[i] = 0
		}
	}
	result, m, _ := generate(t, q, g, jobOf(t, taskInpaint, "", object{
		"prompt": "red", "steps": 2, "image": upload(t, q, from, media.EncodeOptions{}), "mask": upload(t, q, mask, media.EncodeOptions{}),
	}))
	p, about, _ := fetch(t, q, result.Artifacts[0])
	if p.Rect != from.Rect {
		t.Fatalf("size %v, want %v", p.Rect, from.Rect)
	}
	changed := 0
	for y := range 24 {
		for x := range 40 {
			same := p.NRGBAAt(x, y) == from.NRGBAAt(x, y)
			if x < 20 && !same {
				t.Fatalf("the pixel %d, %d was spared but has changed", x, y)
			}
			if !same {
				changed++
			}
		}
	}
	if changed < 300 {
		t.Errorf("only %d pixels were made anew", changed)
	}
	if about.Meta.Origin != media.Composite {
		t.Errorf("origin %q", about.Meta.Origin)
	}
	if m.Parameters.Width == nil || int(*m.Parameters.Width)%2 != 0 {
		t.Errorf("parameters %+v", m.Parameters)
	}
}

// TestEditByTransparency checks that a picture which is transparent in places can be its
// own mask, and that one without them is changed as a whole.
func TestEditByTransparency(t *testing.T) {
	t.Parallel()
	q := startQueue(t)
	g := open(t, q, painters(t), 2)
	clear := gradient(40, 24)
	for x := 20; x < 40; x++ {
		for y := range 24 {
			clear.SetNRGBA(x, y, color.NRGBA{})
		}
	}
	input := object{"prompt": "red", "steps": 2, "mask_mode": "transparent", "image": upload(t, q, clear, media.EncodeOptions{})}
	result, m, _ := generate(t, q, g, jobOf(t, taskEdit, "", input))
	p, _, _ := fetch(t, q, result.Artifacts[0])
	if p.Rect != clear.Rect || p.NRGBAAt(3, 3) != clear.NRGBAAt(3, 3) || p.NRGBAAt(35, 12).A != 255 || value(m.Parameters.Strength, 0) != 1 {
		t.Errorf("a picture of %v, parameters %+v", p.Rect, m.Parameters)
	}
	input["image"] = upload(t, q, gradient(40, 24), media.EncodeOptions{})
	result, m, _ = generate(t, q, g, jobOf(t, taskEdit, "", input))
	p, _, _ = fetch(t, q, result.Artifacts[0])
	if p.Rect == clear.Rect || value(m.Parameters.Strength, 0) != 0.75 {
		t.Errorf("opaque: a picture of %v, parameters %+v", p.Rect, m.Parameters)
	}
}

// TestNoGuidance checks that 0 and 1 turn guidance off alike.
func TestNoGuidance(t *testing.T) {
	t.Parallel()
	q := startQueue(t)
	g := open(t, q, painters(t), 1)
	var pictures []*image.NRGBA
	for _, guidance := range []float64{0, 0.5, 1, 7} {
		result, _, _ := generate(t, q, g, jobOf(t, taskGenerate, "", object{"prompt": "red", "steps": 2, "width": 16, "height": 16, "guidance": guidance}))
		p, _, _ := fetch(t, q, result.Artifacts[0])
		pictures = append(pictures, p)
	}
	for i, p := range pictures[1:] {
		if same := bytes.Equal(p.Pix, pictures[0].Pix); same != (i < 2) {
			t.Errorf("picture %d is the first: %v", i+1, same)
		}
	}
}

func TestCancelWithinAStep(t *testing.T) {
	t.Parallel()
	q := startQueue(t)
	g := open(t, q, painters(t), 2)
	ctx, cancel := context.WithCancelCause(t.Context())
	last := 0
	out := &recorder{queue: q, onStep: func(step int) {
		last = step
		if step == 3 {
			cancel(queue.ErrCanceled)
		}
	}}
	_, err := g.Generate(ctx, jobOf(t, taskGenerate, "", object{"prompt": "x", "steps": 50, "width": 16, "height": 16, "n": 8}), nil, out)
	if !errors.Is(err, queue.ErrCanceled) || last > 4 {
		t.Errorf("ended after step %d with %v, want %v", last, err, queue.ErrCanceled)
	}
	if used := g.memory.Used(); used == 0 {
		t.Error("the model was unloaded")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir, q := painters(t), startQueue(t)
	if err := os.CopyFS(filepath.Join(dir, "broken"), os.DirFS(golden(t, "sd15_pipeline"))); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "broken", "unet", "config.json")
	if err := os.Chmod(config, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(`{"_class_name":"UNet2DConditionModel","in_channels":-4}`), 0o600); err != nil {
		t.Fatal(err)
	}
	g := open(t, q, dir, 1)
	from := upload(t, q, gradient(16, 16), media.EncodeOptions{})
	small := upload(t, q, gradient(8, 8), media.EncodeOptions{})
	black := image.NewNRGBA(image.Rect(0, 0, 16, 16))
	a, err := q.PutArtifact(t.Context(), queue.DefaultTenant, strings.NewReader("no picture at all"), 100, queue.Artifact{MediaType: "image/png"})
	if err != nil {
		t.Fatal(err)
	}
	missing := strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		task, model string
		input       object
		code, says  string
	}{
		"no prompt":        {taskGenerate, "", object{}, "invalid_input", "prompt"},
		"unknown member":   {taskGenerate, "", object{"prompt": "x", "size": 3}, "invalid_input", "size"},
		"odd size":         {taskGenerate, "", object{"prompt": "x", "width": 17}, "invalid_input", "/input/width"},
		"huge":             {taskGenerate, "", object{"prompt": "x", "width": 1 << 20}, "invalid_input", "/input/width"},
		"no steps":         {taskGenerate, "", object{"prompt": "x", "steps": 0}, "invalid_input", "/input/steps"},
		"scheduler":        {taskGenerate, "", object{"prompt": "x", "scheduler": "magic"}, "invalid_input", "/input/scheduler"},
		"no model":         {taskGenerate, "other", object{"prompt": "x"}, "model_not_found", "other"},
		"broken model":     {taskGenerate, "broken", object{"prompt": "x"}, "model_unusable", "broken"},
		"no lora":          {taskGenerate, "", object{"prompt": "x", "loras": []object{{"model": "gone"}}}, "model_not_found", "/input/loras/0/model"},
		"not a lora":       {taskGenerate, "", object{"prompt": "x", "loras": []object{{"model": "tiny"}}}, "model_unusable", "it is not a LoRA"},
		"not a controlnet": {taskGenerate, "", object{"prompt": "x", "control": object{"model": "tiny", "image": from}}, "model_unusable", "ControlNet"},
		"huge second pass": {taskGenerate, "", object{"prompt": "x", "width": 2048, "hires": object{"scale": 4}}, "invalid_input", "/input/hires/scale"},
		"no picture":       {taskEdit, "", object{"prompt": "x"}, "invalid_input", "/input/image"},
		"not a digest":     {taskEdit, "", object{"prompt": "x", "image": "cat.png"}, "invalid_input", "/input/image"},
		"lost picture":     {taskEdit, "", object{"prompt": "x", "image": missing}, "input_missing", "upload it first"},
		"not a picture":    {taskEdit, "", object{"prompt": "x", "image": a.SHA256}, "image_unreadable", "/input/image"},
		"no mask":          {taskInpaint, "", object{"prompt": "x", "image": from}, "invalid_input", "/input/mask"},
		"other mask":       {taskInpaint, "", object{"prompt": "x", "image": from, "mask": small}, "invalid_input", "8 × 8"},
		"empty mask":       {taskInpaint, "", object{"prompt": "x", "image": from, "mask": upload(t, q, black, media.EncodeOptions{})}, "invalid_input", "nothing"},
		"opaque":           {taskInpaint, "", object{"prompt": "x", "image": from, "mask_mode": "transparent"}, "invalid_input", "nothing"},
		"painter enlarges": {taskUpscale, "tiny", object{"image": from}, "model_unusable", "does not do image.upscale"},
		"lanczos paints":   {taskGenerate, "lanczos", object{"prompt": "x"}, "model_not_found", "lanczos"},
		"too large":        {taskUpscale, "lanczos", object{"image": upload(t, q, gradient(8000, 16), media.EncodeOptions{}), "scale": 8}, "image_too_large", "/input/scale"},
		"adjust by model":  {taskAdjust, "tiny", object{"image": from, "operations": []object{{"op": "invert"}}}, "invalid_input", "/model"},
		"no operation":     {taskAdjust, "", object{"image": from, "operations": []object{}}, "invalid_input", "operations"},
		"operation":        {taskAdjust, "", object{"image": from, "operations": []object{{"op": "melt"}}}, "invalid_input", "/input/operations/0"},
		"outside":          {taskAdjust, "", object{"image": from, "operations": []object{{"op": "crop", "x": 8, "width": 9, "height": 2}}}, "invalid_input", "/input/operations/0"},
		"webp too wide":    {taskAdjust, "", object{"image": from, "operations": []object{{"op": "resize", "width": 20000, "height": 2}}, "output_format": "webp"}, "image_unwritable", "/input/output_format"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, g, q, jobOf(t, c.task, c.model, c.input), c.code, c.says)
		})
	}
}

// TestWithoutModels checks what there is where no model is: the tasks exist, what needs no
// model works, and what does says which to add.
func TestWithoutModels(t *testing.T) {
	t.Parallel()
	q := startQueue(t)
	g := open(t, q, t.TempDir(), 1)
	byName := map[string]queue.Task{}
	for _, task := range g.Tasks() {
		byName[task.Name] = task
	}
	if len(byName) != 6 || byName[taskAdjust].Model != "" {
		t.Errorf("tasks %+v", byName)
	}
	if byName[taskGenerate].Model == "" { // unless one is embedded
		refused(t, g, q, jobOf(t, taskGenerate, "", object{"prompt": "x"}), "model_not_found", "Stable Diffusion")
	}
	models := g.Models()
	if len(models) == 0 || models[0].ID != lanczos || !slices.Equal(models[0].Tasks, []string{taskUpscale}) {
		t.Errorf("models %+v", models)
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	dir, q := painters(t), startQueue(t)
	g := open(t, q, dir, 1)
	for _, m := range g.Models() {
		if m.ID != "tiny" {
			continue
		}
		if m.Architecture != "StableDiffusionPipeline" || m.Parameters == 0 || !slices.Contains(m.Tasks, taskInpaint) {
			t.Errorf("model %+v", m)
		}
		return
	}
	t.Errorf("the model is not listed: %+v", g.Models())
}

// TestSchemas checks that what tasks have in common is described alike, and that the
// schedulers are those that there are.
func TestSchemas(t *testing.T) {
	t.Parallel()
	type property = map[string]any
	schemaOf := map[string]map[string]property{}
	for _, name := range []string{"generate", "edit", "inpaint", "variation", "upscale", "adjust"} {
		text, err := schemas.ReadFile("schemas/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var s struct{ Properties map[string]property }
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		schemaOf[name] = s.Properties
	}
	var names []string
	for _, n := range schemaOf["generate"]["scheduler"]["enum"].([]any) {
		names = append(names, n.(string))
	}
	if !slices.Equal(names, scheduler.Names()) {
		t.Errorf("schedulers %v, want %v", names, scheduler.Names())
	}
	for task, properties := range schemaOf {
		for name, p := range properties {
			other := schemaOf["generate"][name]
			if other == nil || name == "prompt" || name == "width" || name == "height" {
				continue
			}
			if !reflect.DeepEqual(p, other) {
				t.Errorf("%s of %s is described otherwise than in generate", name, task)
			}
		}
	}
}

func TestFit(t *testing.T) {
	t.Parallel()
	for _, c := range [][6]int{
		{512, 512, 512 * 512, 8, 512, 512}, {3000, 2000, 512 * 512, 8, 624, 416}, {100, 10_000, 512 * 512, 8, 48, 2048},
		{1, 30_000, 256, 2, 2, 2048}, {40, 24, 256, 2, 20, 12},
	} {
		if w, h := fit(c[0], c[1], c[2], c[3]); w != c[4] || h != c[5] {
			t.Errorf("fit%v = %d, %d", c, w, h)
		}
	}
}

func TestAdjust(t *testing.T) {
	t.Parallel()
	p := gradient(20, 10)
	for name, c := range map[string]struct {
		operation operation
		w, h      int
		check     func(*image.NRGBA) bool
	}{
		"crop":    {operation{Op: "crop", X: pointer(5), Width: pointer(4), Height: pointer(3)}, 4, 3, func(q *image.NRGBA) bool { return q.NRGBAAt(0, 0) == p.NRGBAAt(5, 0) }},
		"width":   {operation{Op: "resize", Width: pointer(40)}, 40, 20, nil},
		"height":  {operation{Op: "resize", Height: pointer(5)}, 10, 5, nil},
		"stretch": {operation{Op: "resize", Width: pointer(7), Height: pointer(9)}, 7, 9, nil},
		"contain": {operation{Op: "resize", Width: pointer(40), Height: pointer(40), Fit: "contain"}, 40, 20, nil},
		"cover":   {operation{Op: "resize", Width: pointer(30), Height: pointer(30), Fit: "cover"}, 30, 30, nil},
		"quarter": {operation{Op: "rotate", Degrees: pointer(90)}, 10, 20, func(q *image.NRGBA) bool { return q.NRGBAAt(0, 19) == p.NRGBAAt(0, 0) }},
		"oblique": {operation{Op: "rotate", Degrees: pointer(30), Background: "#ff0000"}, 22, 19, func(q *image.NRGBA) bool { return q.NRGBAAt(0, 0) == color.NRGBA{255, 0, 0, 255} }},
		"flip":    {operation{Op: "flip", Axis: "horizontal"}, 20, 10, func(q *image.NRGBA) bool { return q.NRGBAAt(0, 3) == p.NRGBAAt(19, 3) }},
		"invert":  {operation{Op: "invert"}, 20, 10, func(q *image.NRGBA) bool { return q.NRGBAAt(1, 0).R == 255-p.NRGBAAt(1, 0).R }},
		"hue": {operation{Op: "hue", Degrees: pointer(0)}, 20, 10, func(q *image.NRGBA) bool {
			a, b := q.NRGBAAt(9, 9), p.NRGBAAt(9, 9)
			return int(a.R)-int(b.R) <= 1 && int(b.R)-int(a.R) <= 1 && int(a.B)-int(b.B) <= 1
		}},
		"nothing": {operation{Op: "brightness"}, 20, 10, func(q *image.NRGBA) bool { return bytes.Equal(q.Pix, p.Pix) }},
		"grey":    {operation{Op: "grayscale"}, 20, 10, func(q *image.NRGBA) bool { c := q.NRGBAAt(9, 9); return c.R == c.G && c.G == c.B }},
	} {
		got, err := c.operation.apply(p)
		if err != nil || got.Rect != image.Rect(0, 0, c.w, c.h) || c.check != nil && !c.check(got) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestDescent checks that what a file says of its making is not lost when it is adjusted.
func TestDescent(t *testing.T) {
	t.Parallel()
	q := startQueue(t)
	g := open(t, q, t.TempDir(), 1)
	made := media.Meta{Parameters: "a fox\nSteps: 1, Seed: 2, Size: 3x4", Origin: media.Generated}
	need := &queue.Job{Result: &queue.Result{Artifacts: []queue.Artifact{
		{MediaType: "text/plain"},
		{MediaType: "image/png", SHA256: upload(t, q, gradient(16, 16), media.EncodeOptions{Meta: made})},
	}}}
	result, _, _ := generate(t, q, g, jobOf(t, taskAdjust, "", object{"operations": []object{{"op": "blur", "sigma": 2}}}), need)
	_, about, _ := fetch(t, q, result.Artifacts[0])
	if about.Meta.Parameters != made.Parameters || about.Meta.Origin != media.Generated || about.Meta.Record.Task != taskAdjust {
		t.Errorf("metadata %+v", about.Meta)
	}
	result, m, _ := generate(t, q, g, jobOf(t, taskUpscale, lanczos, object{}), need)
	if a := result.Artifacts[0]; a.Width != 32 || m.Model != lanczos || m.Parameters.Image != need.Result.Artifacts[1].SHA256 {
		t.Errorf("%+v, meta %+v", a, m)
	}
}

func FuzzInput(f *testing.F) {
	f.Add(taskGenerate, `{"prompt":"x","loras":[{"model":"a"}]}`)
	f.Add(taskInpaint, `{"prompt":"x","pad":{"left":3}}`)
	f.Add(taskAdjust, `{"operations":[{"op":"rotate","degrees":3,"background":"#ffffff"}]}`)
	h, err := hub.Open(hub.Config{})
	if err != nil {
		f.Fatal(err)
	}
	g, err := New(Config{Hub: h, Memory: generators.NewMemory(1 << 30), Artifacts: (*queue.Queue)(nil)})
	if err != nil {
		f.Fatal(err)
	}
	p := gradient(9, 7)
	f.Fuzz(func(t *testing.T, task, text string) {
		r, err := g.request(&queue.Job{Task: task, Input: json.RawMessage(text)})
		var told *queue.Problem
		if err != nil && !errors.As(err, &told) {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		for _, o := range r.input.Operations {
			if value(o.Width, 0)*value(o.Height, 1) > 1e6 || value(o.Width, 1)*value(o.Height, 0) > 1e6 || value(o.Width, 0)+value(o.Height, 0) > 3000 {
				continue
			}
			if _, err := o.apply(p); err != nil && !errors.As(err, &told) {
				t.Fatal(err)
			}
		}
	})
}

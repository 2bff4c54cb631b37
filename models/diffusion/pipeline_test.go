package diffusion

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// bundleFiles returns the files of a golden's model in memory, to be changed.
func bundleFiles(t testing.TB, name string) fstest.MapFS {
	t.Helper()
	root := filepath.Join(goldens(t), "image", name)
	files := fstest.MapFS{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		files[filepath.ToSlash(name)] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"README.md", "case.json", "golden.safetensors"} {
		delete(files, not)
	}
	return files
}

func open(t testing.TB, files fs.FS, o Options) *Pipeline {
	t.Helper()
	p, err := Load(t.Context(), files, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func generate(t testing.TB, p *Pipeline, r Request) *Picture {
	t.Helper()
	m, err := p.Generate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// gradient is a picture to begin from.
func gradient(width, height int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			m.SetNRGBA(x, y, color.NRGBA{uint8(255 * x / width), uint8(255 * y / height), 90, 255})
		}
	}
	return m
}

// half is a mask whose right half is white.
func half(width, height int) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, width, height))
	for y := range height {
		for x := width / 2; x < width; x++ {
			m.SetGray(x, y, color.Gray{255})
		}
	}
	return m
}

// requests are ways to use a pipeline that differ in what is computed.
func requests() map[string]Request {
	base := Request{Prompt: "a (red:1.3) cat", Negative: "blurry", Width: 32, Height: 24, Steps: 3, Seed: 5}
	change := func(f func(*Request)) Request {
		r := base
		f(&r)
		return r
	}
	return map[string]Request{
		"plain":       base,
		"seed":        change(func(r *Request) { r.Seed = 6 }),
		"unguided":    change(func(r *Request) { r.Guidance = 1 }),
		"rescaled":    change(func(r *Request) { r.GuidanceRescale = 0.7 }),
		"clip skip":   change(func(r *Request) { r.ClipSkip = 1 }),
		"ancestral":   change(func(r *Request) { r.Scheduler = "euler_a" }),
		"eta":         change(func(r *Request) { r.Scheduler, r.Eta = "ddim", 0.5 }),
		"long prompt": change(func(r *Request) { r.Prompt = strings.Repeat("a red cat on the moon, ", 20) }),
		"edit":        change(func(r *Request) { r.Init, r.Strength = gradient(40, 30), 0.7 }),
		"inpaint":     change(func(r *Request) { r.Init, r.Mask = gradient(32, 24), half(32, 24) }),
		"hires":       change(func(r *Request) { r.Hires = &Hires{Scale: 1.5, Strength: 0.9} }),
	}
}

// TestGenerate checks that every request makes a picture of its own, the same on any
// number of threads, and that steps are told.
func TestGenerate(t *testing.T) {
	t.Parallel()
	files := bundleFiles(t, "sd15_pipeline")
	pool := tensor.NewPool(tensor.Config{Threads: 3})
	t.Cleanup(pool.Close)
	one, many := open(t, files, Options{}), open(t, files, Options{Pool: pool})
	seen := map[string]string{}
	for name, r := range requests() {
		picture := generate(t, one, r)
		count, total := 0, 0
		r.Observe = func(s Step) {
			count++
			total = s.Total
			if s.Index != count {
				t.Errorf("%s: step %d is told as %d", name, count, s.Index)
			}
			if m := s.Preview(); s.Index == 2 && m.Bounds().Dx() < 16 {
				t.Errorf("%s: preview of %v", name, m.Bounds())
			}
		}
		again := generate(t, many, r)
		if !slices.Equal(picture.Image.Pix, again.Image.Pix) {
			t.Errorf("%s: other bytes on other threads", name)
		}
		if count != total || count < 2 {
			t.Errorf("%s: %d of %d steps told", name, count, total)
		}
		want := image.Pt(r.Width, r.Height)
		if r.Hires != nil {
			want = image.Pt(48, 36)
		}
		if got := picture.Image.Bounds().Size(); got != want {
			t.Errorf("%s: %v pixels, want %v", name, got, want)
		}
		if other, ok := seen[string(picture.Image.Pix)]; ok {
			t.Errorf("%s is the same as %s", name, other)
		}
		seen[string(picture.Image.Pix)] = name
		if picture.NSFW != nil {
			t.Errorf("%s: checked without a checker", name)
		}
	}
}

// TestSchedulers makes a picture with each scheduler, from noise and from a picture.
func TestSchedulers(t *testing.T) {
	t.Parallel()
	p := open(t, bundleFiles(t, "sd15_pipeline"), Options{})
	if len(p.Info().Schedulers) < 20 || !slices.Contains(p.Info().Schedulers, p.Info().Scheduler) {
		t.Fatalf("schedulers %v, default %q", p.Info().Schedulers, p.Info().Scheduler)
	}
	for _, name := range p.Info().Schedulers {
		generate(t, p, Request{Prompt: "a cat", Width: 8, Height: 8, Steps: 5, Scheduler: name})
		generate(t, p, Request{Prompt: "a cat", Init: gradient(8, 8), Steps: 5, Strength: 0.5, Scheduler: name})
	}
}

// TestStrength counts the steps that a strength leaves, as the reference does.
func TestStrength(t *testing.T) {
	t.Parallel()
	p := open(t, bundleFiles(t, "sd15_pipeline"), Options{})
	for strength, want := range map[float32]int{0.7: 7, 0.75: 7, 0.3: 3, 0.1: 1, 1: 10} {
		got := 0
		generate(t, p, Request{Init: gradient(8, 8), Strength: strength, Steps: 10, Scheduler: "ddim", Observe: func(s Step) { got = s.Total }})
		if got != want {
			t.Errorf("strength %v of 10 steps runs %d, want %d", strength, got, want)
		}
	}
}

// TestMaskKeeps checks that what a mask keeps is in the result as it was.
func TestMaskKeeps(t *testing.T) {
	t.Parallel()
	p := open(t, bundleFiles(t, "sd15_pipeline"), Options{})
	init := gradient(32, 16)
	m := generate(t, p, Request{Prompt: "a cat", Init: init, Mask: half(32, 16), Steps: 2})
	changed := false
	for y := range 16 {
		for x := range 32 {
			got, want := m.Image.NRGBAAt(x, y), init.NRGBAAt(x, y)
			if x < 16-feather && got != want {
				t.Fatalf("pixel %d,%d is %v, want %v", x, y, got, want)
			}
			changed = changed || x > 16+feather && got != want
		}
	}
	if !changed {
		t.Error("nothing was made anew")
	}
}

// TestCancel ends a call in the middle.
func TestCancel(t *testing.T) {
	t.Parallel()
	p := open(t, bundleFiles(t, "sd15_pipeline"), Options{})
	cause := errors.New("no longer wanted")
	ctx, cancel := context.WithCancelCause(t.Context())
	steps := 0
	_, err := p.Generate(ctx, Request{Prompt: "a cat", Width: 16, Height: 16, Steps: 50, Observe: func(s Step) {
		if steps = s.Index; steps == 3 {
			cancel(cause)
		}
	}})
	if !errors.Is(err, cause) || steps != 3 {
		t.Errorf("error %v after %d steps", err, steps)
	}
	if _, err := Load(ctx, bundleFiles(t, "sd15_pipeline"), Options{}); !errors.Is(err, cause) {
		t.Errorf("loading: %v", err)
	}
}

func TestRequestErrors(t *testing.T) {
	t.Parallel()
	p := open(t, bundleFiles(t, "sd15_pipeline"), Options{})
	nan := float32(math.NaN())
	picture := gradient(16, 16)
	for field, r := range map[string]Request{
		"Width":           {Width: 15, Height: 16},
		"Height":          {Width: 16, Height: 1 << 20},
		"Width ":          {Width: 8192, Height: 8192},
		"Width  ":         {Width: -8, Height: 16},
		"Steps":           {Steps: -1},
		"Steps ":          {Steps: 5000},
		"Guidance":        {Guidance: nan},
		"Guidance ":       {Guidance: 101},
		"GuidanceRescale": {GuidanceRescale: 2},
		"Eta":             {Eta: nan},
		"Eta ":            {Eta: 0.5, Scheduler: "euler"},
		"ClipSkip":        {ClipSkip: 2},
		"ClipSkip ":       {ClipSkip: -1},
		"Scheduler":       {Scheduler: "magic"},
		"Strength":        {Init: picture, Strength: 1.5},
		"Strength ":       {Strength: 0.5},
		"Mask":            {Mask: half(16, 16)},
		"Mask ":           {Init: picture, Mask: half(17, 16)},
		"Init":            {Init: image.NewNRGBA(image.Rectangle{}), Width: 16, Height: 16},
		"Control":         {Control: picture},
		"ControlScale":    {ControlScale: 1},
		"Hires.Scale":     {Hires: &Hires{Scale: 1}},
		"Hires.Scale ":    {Hires: &Hires{Scale: nan}},
		"Hires.Steps":     {Hires: &Hires{Scale: 2, Steps: -1}},
		"Hires.Strength":  {Hires: &Hires{Scale: 2, Strength: nan}},
		"Hires":           {Init: picture, Mask: half(16, 16), Hires: &Hires{Scale: 2}},
		"Prompt":          {Prompt: "(cat:1000)"},
		"Prompt ":         {Prompt: strings.Repeat("cat BREAK ", 40)},
		"Negative":        {Negative: strings.Repeat("x", 1<<20)},
	} {
		if r.Steps == 0 {
			r.Steps = 2
		}
		_, err := p.Generate(t.Context(), r)
		var e *RequestError
		if !errors.As(err, &e) || e.Field != strings.TrimSpace(field) || !errors.Is(err, ErrRequest) {
			t.Errorf("%s: error %v", field, err)
		}
	}
	if _, err := p.Generate(t.Context(), Request{Init: picture, Strength: 0.01, Steps: 2}); !errors.Is(err, ErrRequest) {
		t.Errorf("no steps left: %v", err)
	}
	for field, o := range map[string]Options{
		"Compute":    {Compute: tensor.I64},
		"LoRAs[0]":   {LoRAs: []LoRA{{}}},
		"Embeddings": {Embeddings: []Embedding{{}}},
	} {
		if _, err := Load(t.Context(), fstest.MapFS{}, o); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), field) {
			t.Errorf("option %s: %v", field, err)
		}
	}
}

// edit changes fields of a JSON file.
func edit(t *testing.T, files fstest.MapFS, name string, fields map[string]any) {
	t.Helper()
	all := map[string]any{}
	if err := json.Unmarshal(files[name].Data, &all); err != nil {
		t.Fatal(err)
	}
	for k, v := range fields {
		all[k] = v
	}
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	files[name] = &fstest.MapFile{Data: data}
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(fstest.MapFS)
		is     error
		says   string
	}{
		"empty":        {func(f fstest.MapFS) { clear(f) }, fs.ErrNotExist, "no model_index.json"},
		"index":        {func(f fstest.MapFS) { f["model_index.json"] = &fstest.MapFile{Data: []byte("{")} }, ErrUnsupported, "model_index.json"},
		"pipeline":     {func(f fstest.MapFS) { edit(t, f, "model_index.json", map[string]any{"_class_name": "ShapEPipeline"}) }, ErrUnsupported, "ShapEPipeline"},
		"path":         {func(f fstest.MapFS) { edit(t, f, "model_index.json", map[string]any{"../x": []string{"a", "b"}}) }, ErrUnsupported, "../x"},
		"no unet":      {func(f fstest.MapFS) { edit(t, f, "model_index.json", map[string]any{"unet": nil}) }, ErrUnsupported, "no unet"},
		"no config":    {func(f fstest.MapFS) { delete(f, "vae/config.json") }, fs.ErrNotExist, "vae/config.json"},
		"no weights":   {func(f fstest.MapFS) { delete(f, "unet/diffusion_pytorch_model.safetensors") }, fs.ErrNotExist, "unet"},
		"no tokenizer": {func(f fstest.MapFS) { delete(f, "tokenizer/vocab.json") }, nil, "tokenizer"},
		"scheduler": {func(f fstest.MapFS) {
			edit(t, f, "scheduler/scheduler_config.json", map[string]any{"_class_name": "X"})
		}, nil, "scheduler_config.json"},
		"latent channels": {func(f fstest.MapFS) { edit(t, f, "vae/config.json", map[string]any{"latent_channels": 8}) }, ErrUnsupported, "8"},
		"input channels":  {func(f fstest.MapFS) { edit(t, f, "unet/config.json", map[string]any{"in_channels": 8}) }, ErrUnsupported, "8 input"},
		"text width":      {func(f fstest.MapFS) { edit(t, f, "unet/config.json", map[string]any{"cross_attention_dim": 64}) }, ErrUnsupported, "cross_attention_dim 64"},
		"network":         {func(f fstest.MapFS) { edit(t, f, "unet/config.json", map[string]any{"act_fn": "x"}) }, ErrUnsupported, "act_fn"},
		"VAE":             {func(f fstest.MapFS) { edit(t, f, "vae/config.json", map[string]any{"act_fn": "x"}) }, ErrUnsupported, "act_fn"},
		"encoder":         {func(f fstest.MapFS) { edit(t, f, "text_encoder/config.json", map[string]any{"hidden_act": "x"}) }, ErrUnsupported, "text_encoder/config.json"},
		"tensor":          {func(f fstest.MapFS) { edit(t, f, "unet/config.json", map[string]any{"layers_per_block": 3}) }, weights.ErrMissing, "resnets.2"},
		"truncated": {func(f fstest.MapFS) {
			m := f["unet/diffusion_pytorch_model.safetensors"]
			m.Data = m.Data[:len(m.Data)-1]
		}, weights.ErrFormat, "unet/"},
		"checker": {func(f fstest.MapFS) {
			edit(t, f, "model_index.json", map[string]any{"safety_checker": []string{"a", "b"}})
		}, fs.ErrNotExist, "SkipSafety"},
	} {
		files := bundleFiles(t, "sd15_pipeline")
		tt.change(files)
		_, err := Load(t.Context(), files, Options{})
		if err == nil || !strings.Contains(err.Error(), tt.says) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: error %v, want %v with %q", name, err, tt.is, tt.says)
		}
	}
}

// TestVariants reads weights by the names of variants and in shards.
func TestVariants(t *testing.T) {
	t.Parallel()
	r := Request{Prompt: "a cat", Width: 16, Height: 16, Steps: 2}
	want := generate(t, open(t, bundleFiles(t, "sd15_pipeline"), Options{}), r)
	files := bundleFiles(t, "sd15_pipeline")
	move := func(from, to string) {
		files[to] = files[from]
		delete(files, from)
	}
	move("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model-00001-of-00001.fp16.safetensors")
	move("text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors")
	move("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bf16.safetensors")
	files["unet/diffusion_pytorch_model.safetensors.index.fp16.json"] = &fstest.MapFile{
		Data: []byte(`{"weight_map":{"conv_in.weight":"diffusion_pytorch_model-00001-of-00001.fp16.safetensors"}}`),
	}
	if got := generate(t, open(t, files, Options{}), r); !slices.Equal(got.Image.Pix, want.Image.Pix) {
		t.Error("another picture from the same weights")
	}
	if _, err := Estimate(files, Options{}); err != nil {
		t.Error(err)
	}
}

func TestEstimate(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]Kind{"sd15_pipeline": StableDiffusion, "sdxl_pipeline": StableDiffusionXL} {
		files := bundleFiles(t, name)
		if got, err := Detect(files); got != kind || err != nil {
			t.Errorf("%s: detected %q, %v", name, got, err)
		}
		f, err := Estimate(files, Options{})
		if err != nil {
			t.Fatal(err)
		}
		weights := int64(0) // in files; the encoder of the VAE is not kept
		for name, m := range files {
			if strings.HasSuffix(name, ".safetensors") && !strings.HasPrefix(name, "text_") {
				weights += int64(len(m.Data))
			}
		}
		if f.Kind != kind || f.Weights > weights || f.Weights < weights*8/10 {
			t.Errorf("%s: %d bytes of weights in files of %d", name, f.Weights, weights)
		}
		if a, b := f.Work(64, 64, 1), f.Work(128, 64, 1); a <= 0 || b <= a || f.Work(64, 64, 3) < 3*a {
			t.Errorf("%s: work of %d and %d bytes", name, a, b)
		}
		if half, err := Estimate(files, Options{Compute: tensor.I8}); err != nil || half.Weights >= f.Weights {
			t.Errorf("%s: %d bytes in 8 bits, %v", name, half.Weights, err)
		}
	}
}

// TestCompute makes a picture in each type; they are alike.
func TestCompute(t *testing.T) {
	t.Parallel()
	files := bundleFiles(t, "sd15_pipeline")
	r := Request{Prompt: "a cat", Width: 32, Height: 32, Steps: 3, Guidance: 2}
	want := generate(t, open(t, files, Options{Compute: tensor.F32}), r)
	for d, least := range map[tensor.DType]float64{tensor.F16: 40, tensor.BF16: 25, tensor.I8: 15} {
		got := generate(t, open(t, files, Options{Compute: d}), r)
		if p := psnr(got.Image, want.Image); p < least {
			t.Errorf("%v: %.1f dB from F32, want %v", d, p, least)
		}
	}
}

// psnr returns the peak signal-to-noise ratio of two pictures in decibels.
func psnr(a, b *image.NRGBA) float64 {
	sum := 0.0
	for i, v := range a.Pix {
		d := float64(v) - float64(b.Pix[i])
		sum += d * d
	}
	return 10 * math.Log10(255*255/(sum/float64(len(a.Pix))+1e-9))
}

// TestTinyVAE replaces the VAE.
func TestTinyVAE(t *testing.T) {
	t.Parallel()
	tiny := os.DirFS(filepath.Join(goldens(t), "image", "taesd"))
	files := bundleFiles(t, "sd15_pipeline")
	p := open(t, files, Options{TinyVAE: tiny})
	r := Request{Prompt: "a cat", Width: 16, Height: 16, Steps: 2}
	if a, b := generate(t, p, r), generate(t, open(t, files, Options{}), r); slices.Equal(a.Image.Pix, b.Image.Pix) {
		t.Error("the same picture as with the other VAE")
	}
	r.Init = gradient(16, 16)
	generate(t, p, r)
	small, err := Estimate(files, Options{TinyVAE: tiny})
	if err != nil || small.Work(64, 64, 1) <= 0 {
		t.Errorf("estimate: %v", err)
	}
	if _, err := Load(t.Context(), files, Options{TinyVAE: fstest.MapFS{}}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "TinyVAE") {
		t.Errorf("no files: %v", err)
	}
}

// TestProjection learns the colours of pixels from themselves.
func TestProjection(t *testing.T) {
	t.Parallel()
	p := &Pipeline{vae: both(pixels{})}
	q, err := p.projection(t.Context(), &drawing{p: p, e: tensor.NewExec(nil)})
	if err != nil {
		t.Fatal(err)
	}
	for k, row := range q.weights {
		for c, w := range row {
			if c == k && w < 0.2 || c != k && math.Abs(float64(w)) > 0.05 {
				t.Errorf("colour %d is %v of the channels", k, row)
			}
		}
		if math.Abs(float64(q.bias[k])-0.5) > 0.05 {
			t.Errorf("colour %d of nothing is %v", k, q.bias[k])
		}
	}
}

func TestGuide(t *testing.T) {
	t.Parallel()
	both, y := []float32{1, 2, 3, 2, 0, 4}, make([]float32, 3)
	guide(y, both, 2, 0)
	if want := []float32{3, -2, 5}; !slices.Equal(y, want) {
		t.Errorf("%v, want %v", y, want)
	}
	guide(y, both, 2, 1)
	if a, b := deviation(y), deviation(both[3:]); math.Abs(a-b) > 1e-6 {
		t.Errorf("rescaled to a spread of %v, want %v", a, b)
	}
	guide(y, make([]float32, 6), 2, 1)
	if !slices.Equal(y, []float32{0, 0, 0}) {
		t.Errorf("of nothing: %v", y)
	}
}

// TestControlNet steers a picture.
func TestControlNet(t *testing.T) {
	t.Parallel()
	folder := os.DirFS(filepath.Join(goldens(t), "image", "controlnet", "controlnet"))
	p := open(t, bundleFiles(t, "sd15_pipeline"), Options{ControlNet: folder})
	if !p.Info().Control {
		t.Fatal("no Control")
	}
	r := Request{Prompt: "a cat", Width: 16, Height: 16, Steps: 2}
	plain := generate(t, p, r)
	r.Control = gradient(20, 20)
	if steered := generate(t, p, r); slices.Equal(plain.Image.Pix, steered.Image.Pix) {
		t.Error("the ControlNet changes nothing")
	}
	if _, err := Load(t.Context(), bundleFiles(t, "sdxl_pipeline"), Options{ControlNet: folder}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a ControlNet of another model: %v", err)
	}
}

// vectors returns a safetensors file of F32 tensors of one shape.
func vectors(tensors map[string][]float32, shape ...int) []byte {
	header, body := map[string]any{}, []byte(nil)
	for name, x := range tensors {
		begin := len(body)
		for _, v := range x {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(v))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(body)}}
	}
	text, _ := json.Marshal(header)
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body)
}

// TestEmbedding teaches a word.
func TestEmbedding(t *testing.T) {
	t.Parallel()
	x := make([]float32, 2*32)
	for i := range x {
		x[i] = float32(math.Sin(float64(i)))
	}
	files := fstest.MapFS{
		"w.safetensors":   {Data: vectors(map[string][]float32{"<cat-toy>": x}, 2, 32)},
		"bad.safetensors": {Data: vectors(map[string][]float32{"<cat-toy>": x}, 1, 64)},
	}
	bundle := bundleFiles(t, "sd15_pipeline")
	taught := open(t, bundle, Options{Embeddings: []Embedding{{Files: files, Name: "w.safetensors"}}})
	r := Request{Prompt: "a photo of <cat-toy>", Width: 16, Height: 16, Steps: 2}
	a, b := generate(t, taught, r), generate(t, open(t, bundle, Options{}), r)
	if slices.Equal(a.Image.Pix, b.Image.Pix) {
		t.Error("the word means nothing")
	}
	if _, err := Load(t.Context(), bundle, Options{Embeddings: []Embedding{{Files: files, Name: "bad.safetensors"}}}); !errors.Is(err, weights.ErrShape) {
		t.Errorf("a word of another model: %v", err)
	}
	files["xl.safetensors"] = &fstest.MapFile{Data: vectors(map[string][]float32{"clip_l": x, "clip_g": x}, 2, 32)}
	if _, err := Load(t.Context(), bundle, Options{Embeddings: []Embedding{{Files: files, Name: "xl.safetensors"}}}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "text_encoder_2") {
		t.Errorf("a word for two encoders: %v", err)
	}
}

// TestFewSteps checks that a scheduler for few steps brings their number along.
func TestFewSteps(t *testing.T) {
	t.Parallel()
	p := open(t, bundleFiles(t, "sd15_pipeline"), Options{})
	for name, want := range map[string]int{"lcm": 4, "tcd": 4, "euler": p.Info().Steps} {
		total := 0
		generate(t, p, Request{Prompt: "a cat", Width: 16, Height: 16, Scheduler: name, Observe: func(s Step) { total = s.Total }})
		if total != want {
			t.Errorf("%s: %d steps, want %d", name, total, want)
		}
	}
}

// TestGenerationConfig checks that a model brings its defaults along.
func TestGenerationConfig(t *testing.T) {
	t.Parallel()
	files := bundleFiles(t, "sd15_pipeline")
	files["generation_config.json"] = &fstest.MapFile{Data: []byte(`{"num_inference_steps": 3, "guidance_scale": 2.5}`)}
	p := open(t, files, Options{})
	if i := p.Info(); i.Steps != 3 || i.Guidance != 2.5 {
		t.Errorf("%d steps, guidance %v", i.Steps, i.Guidance)
	}
	total := 0
	generate(t, p, Request{Prompt: "a cat", Width: 16, Height: 16, Scheduler: "ddim", Observe: func(s Step) { total = s.Total }})
	if total != 3 {
		t.Errorf("%d steps", total)
	}
	for _, c := range []string{`{`, `{"num_inference_steps": 0}`, `{"guidance_scale": 1e9}`, `{"num_inference_steps": "many"}`} {
		files["generation_config.json"] = &fstest.MapFile{Data: []byte(c)}
		if _, err := Load(t.Context(), files, Options{}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "generation_config.json") {
			t.Errorf("%s: error %v", c, err)
		}
	}
}

// TestLoRA merges an adapter, and finds one of another model.
func TestLoRA(t *testing.T) {
	t.Parallel()
	folder := os.DirFS(filepath.Join(goldens(t), "image", "lora"))
	files := bundleFiles(t, "sd15_pipeline")
	r := Request{Prompt: "a cat", Width: 16, Height: 16, Steps: 2}
	plain := generate(t, open(t, files, Options{}), r)
	p, err := Load(t.Context(), files, Options{LoRAs: []LoRA{{Files: folder, Name: "lora_kohya.safetensors", Weight: 0.8}}})
	if err != nil {
		t.Skipf("the golden's LoRA is for other networks: %v", err)
	}
	defer p.Close()
	if changed := generate(t, p, r); slices.Equal(plain.Image.Pix, changed.Image.Pix) {
		t.Error("the LoRA changes nothing")
	}
	_, err = Load(t.Context(), bundleFiles(t, "sdxl_pipeline"), Options{LoRAs: []LoRA{{Files: folder, Name: "lora_kohya.safetensors", Weight: 1}}})
	if err == nil || !strings.Contains(err.Error(), "lora_kohya") {
		t.Errorf("a LoRA of another model: %v", err)
	}
}

// TestSafety blacks out a picture that the checker takes offence at.
func TestSafety(t *testing.T) {
	t.Parallel()
	files := bundleFiles(t, "sd15_pipeline")
	for name, m := range bundleFiles(t, filepath.Join("..", "vision", "safety_checker")) {
		files["safety_checker/"+name] = m
	}
	side := 0
	var c struct {
		Vision struct {
			Image int `json:"image_size"`
		} `json:"vision_config"`
	}
	if err := json.Unmarshal(files["safety_checker/config.json"].Data, &c); err != nil {
		t.Fatal(err)
	}
	side = c.Vision.Image
	files["feature_extractor/preprocessor_config.json"] = &fstest.MapFile{Data: fmt.Appendf(nil,
		`{"feature_extractor_type":"CLIPFeatureExtractor","size":%d,"crop_size":%d,"do_resize":true,"do_center_crop":true,"do_normalize":true,"resample":3}`, side, side)}
	edit(t, files, "model_index.json", map[string]any{
		"safety_checker": []string{"stable_diffusion", "StableDiffusionSafetyChecker"}, "feature_extractor": []string{"transformers", "CLIPFeatureExtractor"},
	})
	p := open(t, files, Options{})
	found := map[bool]bool{}
	for seed := range uint64(12) {
		m := generate(t, p, Request{Prompt: "a cat", Width: 16, Height: 16, Steps: 2, Seed: seed})
		if m.NSFW == nil {
			t.Fatal("not checked")
		}
		black := !slices.ContainsFunc(m.Image.Pix, func(v uint8) bool { return v != 0 && v != 255 })
		if *m.NSFW != black {
			t.Errorf("seed %d: flag %v, black %v", seed, *m.NSFW, black)
		}
		found[*m.NSFW] = true
	}
	t.Logf("flags found: %v", found)
	if m := generate(t, open(t, files, Options{SkipSafety: true}), Request{Prompt: "a cat", Width: 16, Height: 16, Steps: 2}); m.NSFW != nil {
		t.Error("checked all the same")
	}
}

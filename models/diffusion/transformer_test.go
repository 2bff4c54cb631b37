package diffusion

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/diffusion/scheduler"
	"helicon/models/tensor"
)

// tinyBundle is a model folder that is made up of the networks under goldens and of text
// encoders with random weights, which fit them.
type tinyBundle struct {
	t     *testing.T
	files fstest.MapFS
	parts map[string][]string
}

func newTinyBundle(t *testing.T, flow bool) *tinyBundle {
	b := &tinyBundle{t: t, files: fstest.MapFS{}, parts: map[string][]string{}}
	config := `{"_class_name":"DDIMScheduler","beta_schedule":"linear","clip_sample":false,"steps_offset":1}`
	if flow {
		config = `{"_class_name":"FlowMatchEulerDiscreteScheduler","shift":3}`
	}
	b.write("scheduler/scheduler_config.json", []byte(config))
	b.parts["scheduler"] = []string{"diffusers", "Scheduler"}
	return b
}

func (b *tinyBundle) write(name string, data []byte) { b.files[name] = &fstest.MapFile{Data: data} }

// copyFrom takes the files of a folder under goldens as a component.
func (b *tinyBundle) copyFrom(part, class, folder string) {
	b.t.Helper()
	dir := filepath.Join(goldens(b.t), folder)
	list, err := os.ReadDir(dir)
	if err != nil {
		b.t.Skipf("no reference data: %v", err)
	}
	for _, f := range list {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			b.t.Fatal(err)
		}
		b.write(path.Join(part, f.Name()), data)
	}
	b.parts[part] = []string{"diffusers", class}
}

// tensors writes random weights of the shapes.
func (b *tinyBundle) tensors(name string, shapes map[string][]int) {
	header, body := map[string]any{}, []byte(nil)
	random := rand.New(rand.NewPCG(7, 8))
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		begin, n, shape := len(body), 1, shapes[name]
		for _, d := range shape {
			n *= d
		}
		for range n {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(float32(random.NormFloat64())/3))
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{begin, len(body)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write(name, slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, body))
}

// t5 adds a text encoder of T5 of a width, and its tokenizer.
func (b *tinyBundle) t5(part, tokens string, width int) {
	b.copyFrom(tokens, "T5Tokenizer", "tokenizer/json_unigram")
	const vocab, inner = 500, 16
	layer := "encoder.block.0.layer."
	b.tensors(part+"/model.safetensors", map[string][]int{
		"shared.weight":                                          {vocab, width},
		layer + "0.layer_norm.weight":                            {width},
		layer + "0.SelfAttention.q.weight":                       {16, width},
		layer + "0.SelfAttention.k.weight":                       {16, width},
		layer + "0.SelfAttention.v.weight":                       {16, width},
		layer + "0.SelfAttention.o.weight":                       {width, 16},
		layer + "0.SelfAttention.relative_attention_bias.weight": {8, 2},
		layer + "1.layer_norm.weight":                            {width},
		layer + "1.DenseReluDense.wi.weight":                     {inner, width},
		layer + "1.DenseReluDense.wo.weight":                     {width, inner},
		"encoder.final_layer_norm.weight":                        {width},
	})
	b.write(part+"/config.json", fmt.Appendf(nil, `{"vocab_size":%d,"d_model":%d,"d_kv":8,"d_ff":%d,"num_layers":1,"num_heads":2,
		"relative_attention_num_buckets":8,"relative_attention_max_distance":20}`, vocab, width, inner))
	b.parts[part] = []string{"transformers", "T5EncoderModel"}
}

// clip adds a text encoder of CLIP of a width, and its tokenizer. It has a projection
// unless that is 0.
func (b *tinyBundle) clip(part, tokens string, width, projection int) {
	b.copyFrom(tokens, "CLIPTokenizer", "image/sdxl_pipeline/tokenizer")
	const vocab = 714
	shapes := map[string][]int{
		"text_model.embeddings.token_embedding.weight":    {vocab, width},
		"text_model.embeddings.position_embedding.weight": {77, width},
	}
	norm := func(name string) { shapes[name+".weight"], shapes[name+".bias"] = []int{width}, []int{width} }
	norm("text_model.final_layer_norm")
	for i := range 2 {
		layer := fmt.Sprintf("text_model.encoder.layers.%d.", i)
		norm(layer + "layer_norm1")
		norm(layer + "layer_norm2")
		for _, name := range []string{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"} {
			norm(layer + name)
			shapes[layer+name+".weight"] = []int{width, width}
		}
	}
	architecture := "CLIPTextModel"
	if projection > 0 {
		architecture = "CLIPTextModelWithProjection"
		shapes["text_projection.weight"] = []int{projection, width}
	}
	b.tensors(part+"/model.safetensors", shapes)
	b.write(part+"/config.json", fmt.Appendf(nil, `{"architectures":[%q],"vocab_size":%d,"hidden_size":%d,"intermediate_size":%d,
		"num_hidden_layers":2,"num_attention_heads":2,"projection_dim":%d,"eos_token_id":2}`, architecture, vocab, width, width, max(projection, 1)))
	b.parts[part] = []string{"transformers", architecture}
}

// finish writes the index.
func (b *tinyBundle) finish(class, more string) fs.FS {
	text, err := json.Marshal(b.parts)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write("model_index.json", fmt.Appendf(nil, `{"_class_name":%q,%s%s`, class, more, text[1:]))
	return b.files
}

// tinyKinds returns a made-up bundle of each kind that has a transformer.
func tinyKinds(t *testing.T) map[Kind]fs.FS {
	t.Helper()
	sd3 := newTinyBundle(t, true)
	sd3.copyFrom("transformer", "SD3Transformer2DModel", "image/sd35_mmdit_qknorm")
	sd3.copyFrom("vae", "AutoencoderKL", "image/vae_16ch")
	sd3.clip("text_encoder", "tokenizer", 12, 10)
	sd3.clip("text_encoder_2", "tokenizer_2", 8, 10)
	sd3.t5("text_encoder_3", "tokenizer_3", 24)

	flux := newTinyBundle(t, true)
	flux.write("scheduler/scheduler_config.json", []byte(`{"_class_name":"FlowMatchEulerDiscreteScheduler","use_dynamic_shifting":true}`))
	flux.copyFrom("transformer", "FluxTransformer2DModel", "image/flux")
	flux.copyFrom("vae", "AutoencoderKL", "image/vae_sd")
	flux.clip("text_encoder", "tokenizer", 20, 0)
	flux.t5("text_encoder_2", "tokenizer_2", 24)

	pixart := newTinyBundle(t, false)
	pixart.copyFrom("transformer", "PixArtTransformer2DModel", "image/pixart")
	pixart.copyFrom("vae", "AutoencoderKL", "image/vae_sd")
	pixart.t5("text_encoder", "tokenizer", 20)

	class := newTinyBundle(t, false)
	class.copyFrom("transformer", "DiTTransformer2DModel", "image/dit")
	class.copyFrom("vae", "AutoencoderKL", "image/vae_sd")
	return map[Kind]fs.FS{
		StableDiffusion3: sd3.finish("StableDiffusion3Pipeline", ""),
		Flux:             flux.finish("FluxPipeline", ""),
		PixArt:           pixart.finish("PixArtSigmaPipeline", ""),
		DiT:              class.finish("DiTPipeline", `"id2label":{"1":"goldfish, Carassius auratus","3":"Dog"},`),
	}
}

func loadTiny(t *testing.T, files fs.FS, o Options) *Pipeline {
	t.Helper()
	p, err := Load(t.Context(), files, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func pixelsOf(t *testing.T, p *Pipeline, r Request) []byte {
	t.Helper()
	picture, err := p.Generate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return picture.Image.Pix
}

// TestTransformers draws with every kind that has a transformer: the same request gives
// the same bytes on any number of threads, and every part of it counts.
func TestTransformers(t *testing.T) {
	t.Parallel()
	for kind, files := range tinyKinds(t) {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			if found, err := Detect(files); err != nil || found != kind {
				t.Fatalf("detected %q, %v", found, err)
			}
			pool := tensor.NewPool(tensor.Config{Threads: 3})
			t.Cleanup(pool.Close)
			p, alone := loadTiny(t, files, Options{Pool: pool}), loadTiny(t, files, Options{})
			f, err := Estimate(files, Options{})
			if err != nil || f.Kind != kind || f.Weights <= 0 || f.Work(32, 32, 1) <= 0 {
				t.Errorf("estimate %+v, %v", f, err)
			}
			r := Request{Prompt: "goldfish", Width: 32, Height: 24, Steps: 3, Seed: 5}
			steps := 0
			r.Observe = func(s Step) {
				if steps++; s.Index != steps || s.Preview().Bounds().Empty() {
					t.Errorf("step %d of %d after %d", s.Index, s.Total, steps)
				}
			}
			want := pixelsOf(t, p, r)
			if steps != 3 || len(want) != 32*24*4 {
				t.Errorf("%d steps, %d bytes", steps, len(want))
			}
			r.Observe = nil
			if !bytes.Equal(pixelsOf(t, alone, r), want) {
				t.Error("another picture on one thread")
			}
			for name, change := range map[string]func(*Request){
				"prompt":   func(r *Request) { r.Prompt = "dog" },
				"seed":     func(r *Request) { r.Seed++ },
				"steps":    func(r *Request) { r.Steps++ },
				"guidance": func(r *Request) { r.Guidance = 2 },
				"hires":    func(r *Request) { r.Hires = &Hires{Scale: 1.5, Strength: 0.5} },
			} {
				changed := r
				if change(&changed); bytes.Equal(pixelsOf(t, p, changed), want) {
					t.Errorf("another %s makes no other picture", name)
				}
			}
			r.GuidanceRescale = 0.5
			if _, err := p.Generate(t.Context(), r); (err != nil) != (kind == Flux) || err != nil && !errors.Is(err, ErrRequest) {
				t.Errorf("rescaled guidance: %v", err)
			}
			r.GuidanceRescale = 0
			if p.Info().Negative {
				r.Negative = "dog"
				if bytes.Equal(pixelsOf(t, p, r), want) {
					t.Error("a negative prompt makes no other picture")
				}
			}
		})
	}
}

// TestSkippedT5 checks that zeros stand for the largest encoder of Stable Diffusion 3.
func TestSkippedT5(t *testing.T) {
	t.Parallel()
	b := newTinyBundle(t, true)
	b.copyFrom("transformer", "SD3Transformer2DModel", "image/sd3_mmdit")
	b.copyFrom("vae", "AutoencoderKL", "image/vae_16ch")
	b.clip("text_encoder", "tokenizer", 12, 10)
	b.clip("text_encoder_2", "tokenizer_2", 8, 10)
	p := loadTiny(t, b.finish("StableDiffusion3Pipeline", `"text_encoder_3":[null,null],"tokenizer_3":[null,null],`), Options{})
	c, err := p.family.encode(t.Context(), tensor.NewExec(nil), prompt{text: "a dog", guided: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.batch != 2 || c.tokens != 154 || len(c.context) != 2*154*24 || len(c.pooled) != 40 {
		t.Fatalf("batch %d, %d tokens, %d states, pooled %d", c.batch, c.tokens, len(c.context), len(c.pooled))
	}
	for i, v := range c.context {
		token, channel := i/24%154, i%24
		if wants := token < 77 && channel < 20; (v != 0) != wants {
			t.Fatalf("token %d, channel %d is %v", token, channel, v)
		}
	}
	pixelsOf(t, p, Request{Prompt: "a dog", Width: 16, Height: 16, Steps: 2})
}

// TestT5Tokens checks how texts are cut and filled up.
func TestT5Tokens(t *testing.T) {
	t.Parallel()
	p := loadTiny(t, tinyKinds(t)[PixArt], Options{})
	encoder := *p.family.(*pixart).text
	encoder.tokens = 6
	for _, tt := range []struct {
		text string
		real int
	}{{"", 1}, {strings.Repeat("a dog and ", 20), 6}} {
		ids, mask, err := encoder.read(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		real := 0
		for i := range ids {
			if mask[i] {
				real++
			}
			if end := i == tt.real-1; end != (ids[i] == 1) || mask[i] != (i < tt.real) || !mask[i] && ids[i] != 0 {
				t.Fatalf("%q: ids %v, mask %v", tt.text, ids, mask)
			}
		}
		if len(ids) != 6 || real != tt.real {
			t.Errorf("%q: ids %v, mask %v", tt.text, ids, mask)
		}
	}
	if text, err := plainText(promptField{`a (red:1.3) [dog] BREAK \(old\)`, "Prompt"}); err != nil || strings.Join(strings.Fields(text), " ") != "a red dog (old)" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestClasses checks what prompts stand for a class.
func TestClasses(t *testing.T) {
	t.Parallel()
	p := loadTiny(t, tinyKinds(t)[DiT], Options{})
	m := p.family.(*classes)
	for prompt, want := range map[string]int{"goldfish": 1, " Carassius Auratus ": 1, "goldfish, carassius auratus": 1, "dog": 3, "0": 0, "9": 9} {
		if class, err := m.class(prompt); err != nil || class != want {
			t.Errorf("%q: class %d, %v, want %d", prompt, class, err, want)
		}
	}
	for _, prompt := range []string{"", "cat", "10", "-1", "gold"} {
		var r *RequestError
		if _, err := p.Generate(t.Context(), Request{Prompt: prompt}); !errors.As(err, &r) || r.Field != "Prompt" {
			t.Errorf("%q: %v", prompt, err)
		}
	}
	if got := p.Info().Classes; !slices.Equal(got, []string{"goldfish, Carassius auratus", "Dog"}) {
		t.Errorf("classes %q", got)
	}
}

// TestFluxSchedule checks the levels that Flux's pipeline asks for, and that a model
// without guidance refuses one.
func TestFluxSchedule(t *testing.T) {
	t.Parallel()
	c, err := scheduler.Parse([]byte(`{"_class_name":"FlowMatchEulerDiscreteScheduler","use_dynamic_shifting":true,
		"base_shift":0.5,"max_shift":1.15,"base_image_seq_len":256,"max_image_seq_len":4096}`))
	if err != nil {
		t.Fatal(err)
	}
	m := &flux{}
	o := scheduler.Options{Steps: 4}
	m.schedule(&o, c, shape{height: 128, width: 128})
	if !slices.Equal(o.Sigmas, []float64{1, 0.75, 0.5, 0.25}) || math.Abs(o.Mu-1.15) > 1e-12 {
		t.Errorf("sigmas %v, mu %v", o.Sigmas, o.Mu)
	}
	var r *RequestError
	if _, err := m.encode(t.Context(), nil, prompt{text: "a dog", guidance: 3}); !errors.As(err, &r) || r.Field != "Guidance" {
		t.Errorf("guidance: %v", err)
	}
}

// TestMisfits checks that components which do not fit one another are refused.
func TestMisfits(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*tinyBundle){
		"joint_attention_dim":   func(b *tinyBundle) { b.t5("text_encoder_2", "tokenizer_2", 20) },
		"pooled_projection_dim": func(b *tinyBundle) { b.clip("text_encoder", "tokenizer", 24, 0) },
		"latents of":            func(b *tinyBundle) { b.copyFrom("vae", "AutoencoderKL", "image/vae_16ch") },
		"no text_encoder_2":     func(b *tinyBundle) { delete(b.parts, "text_encoder_2") },
		`class "DiT`:            func(b *tinyBundle) { b.copyFrom("transformer", "FluxTransformer2DModel", "image/dit") },
	} {
		b := newTinyBundle(t, true)
		b.copyFrom("transformer", "FluxTransformer2DModel", "image/flux")
		b.copyFrom("vae", "AutoencoderKL", "image/vae_sd")
		b.clip("text_encoder", "tokenizer", 20, 0)
		b.t5("text_encoder_2", "tokenizer_2", 24)
		change(b)
		if _, err := Load(t.Context(), b.finish("FluxPipeline", ""), Options{}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package checkpoint

import (
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"helicon/models/clip"
	"helicon/models/tensor"
	"helicon/models/unet"
	"helicon/models/vae"
	"helicon/models/weights"
)

// golden is a case under goldens/image whose networks are not in folders of their own, or
// not as they are to be used.
type golden struct {
	t     *testing.T
	dir   fs.FS
	exec  *tensor.Exec
	store *weights.Store
	facts struct {
		Config struct {
			Scale float32 `json:"scale"`
		} `json:"config"`
		Tensors map[string]struct {
			Tolerance float64 `json:"tolerance"`
		} `json:"tensors"`
	}
	worst float64 // largest error as a share of its tolerance
	which string
}

// TestGoldenCheckpoint compares every single file and every LoRA under goldens/image with
// the reference.
func TestGoldenCheckpoint(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("HELICON_GOLDENS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	cases, err := filepath.Glob(filepath.Join(dir, "image", "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Skipf("no cases in %s: %v", filepath.Join(dir, "image"), err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: 2, Exact: true})
	t.Cleanup(pool.Close)
	for _, file := range cases {
		g := &golden{dir: os.DirFS(filepath.Dir(file)), exec: tensor.NewExec(pool)}
		loras, _ := fs.Glob(g.dir, "lora_*.safetensors")
		_, err := fs.Stat(g.dir, "model.safetensors")
		_, noUNet := fs.Stat(g.dir, "unet/config.json")
		if loras == nil && (err != nil || noUNet != nil) {
			continue // of another kind
		}
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			g.t = t
			g.open()
			if loras != nil {
				g.loras(loras)
			} else {
				g.singleFile()
			}
			t.Logf("largest error %.2g of the tolerance (%s)", g.worst, g.which)
		})
	}
}

func (g *golden) open() {
	g.t.Helper()
	raw, err := fs.ReadFile(g.dir, "case.json")
	if err == nil {
		err = json.Unmarshal(raw, &g.facts)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	g.store = g.file("golden.safetensors")
}

// file opens a file of weights.
func (g *golden) file(name string) *weights.Store {
	g.t.Helper()
	s, err := weights.OpenFile(g.dir, name)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { s.Close() })
	return s
}

// singleFile compares the networks of a file in the original layout, its numbers of heads
// and groups being those of the case's configurations.
func (g *golden) singleFile() {
	c, err := Open(g.dir, "model.safetensors")
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	part := func(name string) *weights.Store {
		s, err := c.Part(name)
		if err != nil {
			g.t.Fatal(err)
		}
		return s
	}
	g.compare("unet_out", g.unet(part("unet")))
	g.compare("text_out", g.text(part("text_encoder")))
	g.compare("decoded", g.decode(part("vae")))
	g.sameShapes(c)
}

// sameShapes checks the configurations that were inferred against those of the case.
func (g *golden) sameShapes(c *Checkpoint) {
	for part, keys := range map[string][]string{
		"unet":         {"in_channels", "out_channels", "block_out_channels", "layers_per_block", "cross_attention_dim", "down_block_types", "up_block_types", "use_linear_projection"},
		"vae":          {"latent_channels", "block_out_channels", "layers_per_block", "down_block_types"},
		"text_encoder": {"hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "max_position_embeddings"},
	} {
		var got, want map[string]any
		raw, err := fs.ReadFile(g.dir, part+"/config.json")
		if err == nil {
			err = json.Unmarshal(raw, &want)
		}
		if err == nil {
			err = json.Unmarshal(c.Config(part), &got)
		}
		if err != nil {
			g.t.Fatal(err)
		}
		for _, key := range keys {
			a, _ := json.Marshal(got[key])
			b, _ := json.Marshal(want[key])
			if string(a) != string(b) {
				g.t.Errorf("%s: %s = %s, want %s", part, key, a, b)
			}
		}
	}
}

// loras compares networks with each of several files that say the same, and without.
func (g *golden) loras(files []string) {
	parts := map[string]*weights.Store{
		"unet": g.file("unet/diffusion_pytorch_model.safetensors"), "text_encoder": g.file("text_encoder/model.safetensors"),
	}
	g.compare("unet_out_base", g.unet(parts["unet"]))
	g.compare("text_out_base", g.text(parts["text_encoder"]))
	for _, file := range files {
		s := g.file(file)
		// Two halves make a whole.
		half := Adapter{Name: file, Store: s, Weight: g.facts.Config.Scale / 2}
		merged, err := Merge(parts, half, half)
		if err != nil {
			g.t.Fatal(err)
		}
		g.compare("unet_out", g.unet(merged["unet"].Packed(nil, 0)))
		g.compare("text_out", g.text(merged["text_encoder"]))
	}
}

func (g *golden) config(name string) []byte {
	g.t.Helper()
	raw, err := fs.ReadFile(g.dir, name+"/config.json")
	if err != nil {
		g.t.Fatal(err)
	}
	return raw
}

func (g *golden) unet(s *weights.Store) []float32 {
	g.t.Helper()
	config, err := unet.ParseConfig(g.config("unet"))
	if err != nil {
		g.t.Fatal(err)
	}
	m, err := unet.Load(s, config)
	if err != nil {
		g.t.Fatal(err)
	}
	sample, context := g.lookup("sample"), g.lookup("encoder_hidden_states")
	st, err := m.NewState(unet.Shape{Batch: sample.Shape[0], Height: sample.Shape[2], Width: sample.Shape[3], Tokens: context.Shape[1]})
	if err == nil {
		err = m.Condition(g.exec, st, unet.Conditioning{Context: context.Float32s()})
	}
	if err != nil {
		g.t.Fatal(err)
	}
	times := make([]float32, sample.Shape[0])
	for i, v := range g.lookup("timestep").Ints() {
		times[i] = float32(v)
	}
	x := channelsLast(sample)
	y := make([]float32, len(x))
	if err := m.Forward(g.t.Context(), g.exec, st, y, x, times); err != nil {
		g.t.Fatal(err)
	}
	return y
}

func (g *golden) text(s *weights.Store) []float32 {
	g.t.Helper()
	config, err := clip.ParseTextConfig(g.config("text_encoder"))
	if err != nil {
		g.t.Fatal(err)
	}
	m, err := clip.LoadText(s, config)
	if err != nil {
		g.t.Fatal(err)
	}
	st := m.NewState(1)
	if err := m.Forward(g.exec, st, clip.TextInput{IDs: g.lookup("input_ids").Ints()}); err != nil {
		g.t.Fatal(err)
	}
	return st.Last()
}

func (g *golden) decode(s *weights.Store) []float32 {
	g.t.Helper()
	config, err := vae.ParseConfig(g.config("vae"))
	if err != nil {
		g.t.Fatal(err)
	}
	m, err := vae.Load(s, config)
	if err != nil {
		g.t.Fatal(err)
	}
	z := g.lookup("z")
	y := make([]float32, g.lookup("decoded").Len())
	latents := vae.Map{Data: channelsLast(z), Height: z.Shape[2], Width: z.Shape[3]}
	if err := m.Decode(g.t.Context(), g.exec, vae.NewState(0), y, latents); err != nil {
		g.t.Fatal(err)
	}
	return y
}

func (g *golden) lookup(name string) weights.Tensor {
	g.t.Helper()
	x, err := g.store.Lookup(name)
	if err != nil {
		g.t.Fatal(err)
	}
	return x
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

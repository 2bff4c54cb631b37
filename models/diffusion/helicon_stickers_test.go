package diffusion

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"helicon/models/tensor"
	"helicon/models/vae"
)

// heliconStickers is the reference output of the embedded picture model, written by its
// recipe with PyTorch in float32. Latents and pictures are [C, H, W].
type heliconStickers struct {
	SHA256 map[string]string `json:"sha256"` // of the weight files, by name without .safetensors
	Noise  []float32         `json:"noise"`
	Cases  []struct {
		Prompt     string               `json:"prompt"`
		IDs        []int                `json:"ids"`
		States     []float32            `json:"states"`     // [T, 8], the first channels
		Velocities map[string][]float32 `json:"velocities"` // of Noise, by timestep
		Latents    []float32            `json:"latents"`    // after four steps of guidance 3
		Picture    []float32            `json:"picture"`    // every eighth row and column, -1..1, not clipped
	} `json:"cases"`
}

// TestHeliconStickers compares the embedded picture model with the framework it was
// trained in: text states, single steps, four guided steps, and the picture.
func TestHeliconStickers(t *testing.T) {
	t.Parallel()
	dir := os.DirFS(filepath.Join("..", "hub", "defaults", "helicon-stickers"))
	raw, err := os.ReadFile(filepath.Join("testdata", "helicon-stickers.json"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	}
	var golden heliconStickers
	if err := errors.Join(err, json.Unmarshal(raw, &golden)); err != nil {
		t.Fatal(err)
	}
	for name, want := range golden.SHA256 {
		weights, err := fs.ReadFile(dir, name+".safetensors")
		if errors.Is(err, fs.ErrNotExist) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(weights); hex.EncodeToString(sum[:]) != want {
			t.Fatalf("%s has SHA-256 %x, its reference output is of %s", name, sum, want)
		}
	}
	if len(golden.Cases) == 0 {
		t.Fatal("no cases")
	}
	pool := tensor.NewPool(tensor.Config{Threads: 2, Exact: true})
	t.Cleanup(pool.Close)
	p, err := Load(t.Context(), dir, Options{Pool: pool, Compute: tensor.F32})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range golden.Cases {
		golden.check(t, p, i)
	}
}

func (golden *heliconStickers) check(t *testing.T, p *Pipeline, i int) {
	c, side := &golden.Cases[i], 16
	s := shape{height: side, width: side, channels: 4}
	noise := make([]float32, s.floats())
	for k := range noise {
		noise[k] = golden.Noise[k%4*side*side+k/4]
	}
	worst := 0.0 // as a share of the tolerance
	compare := func(what string, got, want []float32) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s: %s: %d values, want %d", c.Prompt, what, len(got), len(want))
		}
		largest := 0.0
		for _, v := range want {
			largest = max(largest, math.Abs(float64(v)))
		}
		for k := range want {
			e := math.Abs(float64(got[k] - want[k]))
			if worst = max(worst, e/(1e-4*largest)); !(e <= 1e-4*largest) {
				t.Errorf("%s: %s[%d] = %v, want %v within 1e-4 of %v", c.Prompt, what, k, got[k], want[k], largest)
				return
			}
		}
	}

	e := tensor.NewExec(p.bundle.options.Pool)
	cond, err := p.family.encode(t.Context(), e, prompt{text: c.Prompt, width: 8 * side, height: 8 * side})
	if err != nil {
		t.Fatal(err)
	}
	var states []float32
	for at := 0; at < len(cond.context); at += len(cond.context) / cond.tokens {
		states = append(states, cond.context[at:at+8]...)
	}
	compare("states", states, c.States)
	net, err := p.family.denoiser(e, cond, s)
	if err != nil {
		t.Fatal(err)
	}
	y := make([]float32, s.floats())
	for step, want := range c.Velocities {
		at, err := strconv.Atoi(step)
		if err == nil {
			err = net.forward(t.Context(), y, noise, float32(at))
		}
		if err != nil {
			t.Fatal(err)
		}
		compare("velocity at "+step, channelsFirst(y, s), want)
	}

	var latents []float32
	j := &job{Request: Request{Prompt: c.Prompt, Width: 8 * side, Height: 8 * side, Steps: 4, Guidance: 3}, scheduler: p.scheduler, guided: true}
	j.noise = func(_ uint32, dst []float32) { copy(dst, noise) }
	j.seen = func(x []float32) { latents = channelsFirst(x, s) }
	d := &drawing{p: p, job: j, e: e, vae: vae.NewState(0)}
	w, h, x, err := d.draw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	compare("latents", latents, c.Latents)
	picture, want := make([]float32, 0, len(c.Picture)), make([]float32, len(c.Picture))
	for k, v := range channelsFirst(x, shape{height: h, width: w, channels: 3}) {
		if k/w%8 == 0 && k%w%8 == 0 {
			picture = append(picture, v)
		}
	}
	for k, v := range c.Picture {
		want[k] = min(max(v/2+0.5, 0), 1)
	}
	compare("picture", picture, want)
	t.Logf("%-40s largest error %.2g of the tolerance", c.Prompt, worst)
}

package bench

import (
	"context"
	"errors"
	"math"
	"os"
	"testing"
	"time"

	"helicon/models/tensor"
)

// quick returns a Bench of made-up peaks, which repeats as little as can be.
func quick(t *testing.T) *Bench {
	pool := tensor.NewPool(tensor.Config{Threads: 2})
	t.Cleanup(pool.Close)
	return &Bench{pool: pool, peaks: tensor.Peaks{Threads: 2, F32: 100, Int8: 400, Read: 10}}
}

// check fails if a result has figures that cannot be.
func check(t *testing.T, r Result) {
	t.Helper()
	if r.Case == "" || r.Type == "" || r.Peak == "" || r.Repetitions < minRepetitions || r.Median < r.Best {
		t.Errorf("%+v", r)
	}
	for figure, v := range map[string]float64{"best": r.Best, "gops": r.Gops, "gbs": r.GBs, "fraction": r.Fraction} {
		if !(v > 0) || math.IsInf(v, 0) {
			t.Errorf("%s, %s: %s is %v", r.Case, r.Type, figure, v)
		}
	}
}

func TestGEMM(t *testing.T) {
	t.Parallel()
	b := quick(t)
	for _, d := range Types() {
		for _, m := range []int{1, 3} {
			r, err := b.GEMM(t.Context(), GEMM{M: m, N: 20, K: 256, Type: d})
			if err != nil {
				t.Fatal(err)
			}
			check(t, r)
			want := b.multiplying(d)
			if m == 1 {
				want = Read
			}
			if r.Peak != want {
				t.Errorf("%v with %d rows is compared with %s, want %s", d, m, r.Peak, want)
			}
		}
	}
}

func TestGEMMRefuses(t *testing.T) {
	t.Parallel()
	for _, g := range []GEMM{
		{M: 0, N: 1, K: 32, Type: tensor.F32},
		{M: 1, N: maxSide + 1, K: 32, Type: tensor.F32},
		{M: 1, N: maxSide, K: maxSide, Type: tensor.F32},
		{M: 1, N: 1, K: 33, Type: tensor.Q8_0},
	} {
		if _, err := quick(t).GEMM(t.Context(), g); err == nil {
			t.Errorf("%v %v was measured", g, g.Type)
		}
	}
}

func TestAttention(t *testing.T) {
	t.Parallel()
	b := quick(t)
	for _, a := range []Attention{
		{Name: "step", Queries: 1, Keys: 70, Heads: 4, KVHeads: 2, HeadDim: 16, Layers: 2},
		{Name: "prompt", Queries: 33, Keys: 33, Heads: 4, KVHeads: 2, HeadDim: 16, Layers: 1},
		{Name: "image", Queries: 40, Keys: 40, Image: true, Heads: 2, KVHeads: 2, HeadDim: 20, Layers: 1},
	} {
		r, err := b.Attention(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		check(t, r)
	}
}

func TestConv(t *testing.T) {
	t.Parallel()
	for _, c := range []Conv{
		{In: 8, Out: 16, Size: 9, Kernel: 3, Type: tensor.F32}, {In: 16, Out: 16, Size: 9, Kernel: 3, Stride: 2, Type: tensor.I8},
		{In: 16, Out: 8, Size: 5, Kernel: 3, Upsample: 2, Type: tensor.BF16},
	} {
		r, err := quick(t).Conv(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		check(t, r)
	}
}

// TestLM writes models of random weights and measures them, one after the other: threads
// that wait for each other's would take turns.
func TestLM(t *testing.T) {
	for _, s := range []Shape{
		{"llama", "llama", 300, 128, 256, 2, 4, 2, 512, false},
		{"tied llama", "llama", 300, 128, 256, 1, 4, 4, 512, true},
		{"gpt2", "gpt2", 300, 128, 256, 2, 4, 4, 512, true},
	} {
		for _, d := range []tensor.DType{tensor.F16, tensor.Q8_0, tensor.Q4_K} {
			t.Run(s.Name+" "+d.String(), func(t *testing.T) {
				testLM(t, s, d)
			})
		}
	}
}

func testLM(t *testing.T, s Shape, d tensor.DType) {
	dir := t.TempDir()
	if err := s.Write(t.Context(), dir, d); err != nil {
		t.Fatal(err)
	}
	var results []Result
	m, err := quick(t).LM(t.Context(), os.DirFS(dir), LM{Prompt: 40, Generate: 4, Batches: []int{1, 3}}, func(r Result) {
		results = append(results, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 4 {
		t.Fatalf("%d results, want 4", len(results))
	}
	for i, tokens := range []int{40, shortPrompt, 1, 3} {
		check(t, results[i])
		if results[i].Tokens != tokens || results[i].Type != d.String() || !(results[i].Rate > 0) {
			t.Errorf("result %d, want %d tokens of %v: %+v", i, tokens, d, results[i])
		}
	}
	keys := s.Hidden / s.Heads * s.KVHeads
	matrices := 2*s.Hidden*s.Hidden + 2*s.Hidden*keys + 2*s.Hidden*s.Intermediate
	if s.Architecture == "llama" {
		matrices += s.Hidden * s.Intermediate
	}
	if want := d.Bytes(s.Layers*matrices + s.Vocab*s.Hidden); m.TokenBytes != want || m.Type != d.String() {
		t.Errorf("a token reads %d bytes of %s, want %d of %v", m.TokenBytes, m.Type, want, d)
	}
}

func TestLMErrors(t *testing.T) {
	t.Parallel()
	if _, err := quick(t).LM(t.Context(), os.DirFS(t.TempDir()), LM{}, func(Result) {}); err == nil {
		t.Error("an empty folder was measured")
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	why := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	b := quick(t)
	b.time = time.Hour
	_, err := b.measure(ctx, work{peak: F32}, func(context.Context) error { stop(why); return nil })
	if !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
	if _, err := New(ctx, b.pool, 0); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
}

// TestImage loads networks of made-up sizes, so their tensors are those that the networks
// look for.
func TestImage(t *testing.T) {
	t.Parallel()
	b := quick(t)
	small := CLIPShape{Hidden: 32, Layers: 1, Heads: 2, Activation: "gelu"}
	for name, shape := range map[string]ImageShape{
		"sd15": {Channels: []int{32, 64}, Depths: []int{1, 0}, Heads: []int{2, 2}, Context: 32, Encoder: small},
		"sdxl": {Channels: []int{32, 64}, Depths: []int{0, 2}, Heads: []int{2, 4}, Context: 48, Added: 6*256 + 32, Linear: true, Encoder: small},
	} {
		var results []Result
		i := Image{Shape: shape, Height: 64, Width: 64, Types: []tensor.DType{tensor.F32, tensor.I8}, Steps: 2}
		if err := b.Image(t.Context(), t.TempDir(), i, func(r Result) { results = append(results, r) }); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(results) != 2*5 {
			t.Errorf("%s: %d results, want 10", name, len(results))
		}
		for _, r := range results {
			check(t, r)
		}
	}
}

// TestImageOperations compares a UNet's operations with what is known of it: at 512×512
// about 0.8e12, multiplications and additions counted apart.
func TestImageOperations(t *testing.T) {
	t.Parallel()
	for _, shape := range ImageShapes() {
		s := newSheet(tensor.F16)
		shape.unet(s, shape.Size, shape.Size)
		if shape.Name == "sd15" && (s.operations < 0.75e12 || s.operations > 0.85e12) {
			t.Errorf("a step of %s has %.3g operations", shape.Name, s.operations)
		}
		parameters := map[string]float64{"sd15": 860e6, "sd21": 866e6, "sdxl": 2567e6}[shape.Name]
		if got := s.bytes / 2; math.Abs(got-parameters) > 0.01*parameters {
			t.Errorf("%s has %.4g parameters, want %.4g", shape.Name, got, parameters)
		}
	}
}

package convert

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"helicon/models/lm"
	"helicon/models/lm/family"
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

// goldenCase is the part of a case.json that is needed here.
type goldenCase struct {
	Config struct {
		ModelDir string `json:"model_dir"`
	} `json:"config"`
	Tensors map[string]struct {
		Tolerance float64 `json:"tolerance"`
	} `json:"tensors"`
}

// roundingError is how far the logits of the golden models may be off with matrices in
// another type, as a share of the largest logit. The models are tiny and random, so that
// what a matrix loses hardly averages out: a weight is off by up to 2^-12 of itself in F16,
// 2^-9 in BF16, 1/254 of its block's largest in Q8_0, where activations are rounded too.
var roundingError = map[string]float64{"f16": 0.005, "bf16": 0.025, "q8_0": 0.1}

// TestGoldenGGUFText writes every golden model as GGUF and compares what is read back
// with the reference.
func TestGoldenGGUFText(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob(filepath.Join(sharedDir(t, "goldens"), "text", "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Skipf("no cases in goldens/text: %v", err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: 2, Exact: true})
	t.Cleanup(pool.Close)
	for _, file := range cases {
		dir := filepath.Dir(file)
		var c goldenCase
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, &c)
		}
		if err != nil {
			t.Fatal(err)
		}
		folder := os.DirFS(filepath.Join(dir, c.Config.ModelDir))
		if _, err := fs.Stat(folder, "config.json"); err != nil {
			continue
		}
		for _, kind := range []string{"f32", "bf16", "f16", "q8_0"} {
			t.Run(filepath.Base(dir)+"/"+kind, func(t *testing.T) {
				t.Parallel()
				out := t.TempDir()
				_, err := File(t.Context(), folder, filepath.Join(out, "model.gguf"), Options{Type: kind})
				if errors.Is(err, family.ErrUnsupported) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := family.Check(os.DirFS(out)); err != nil {
					t.Fatal(err)
				}
				m, err := lm.Load(os.DirFS(out), lm.Options{Pool: pool})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				compare(t, m, dir, c, kind)
			})
		}
	}
}

// compare runs the case's prompts and follows its greedy continuation, which in F32 must
// be the model's own.
func compare(t *testing.T, m *lm.Model, dir string, c goldenCase, kind string) {
	t.Helper()
	golden, err := weights.OpenFile(os.DirFS(dir), "golden.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	lookup := func(name string) weights.Tensor {
		x, err := golden.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	prompts, greedy, logits := lookup("input_ids"), lookup("greedy_ids"), lookup("greedy_logits").Float32s()
	batch, length, steps := prompts.Shape[0], prompts.Shape[1], greedy.Shape[1]
	limit, rounded := roundingError[kind]
	if !rounded {
		limit = c.Tensors["greedy_logits"].Tolerance
	}
	worst := 0.0
	for b := range batch {
		tokens := prompts.Ints()[b*length:][:length]
		forward := run(t, m, length+steps)
		for i := range steps {
			got := forward(tokens)
			worst = max(worst, difference(got, logits[(b*steps+i)*len(got):][:len(got)]))
			id := greedy.Ints()[b*steps+i]
			if best := argmax(got); !rounded && best != id {
				t.Fatalf("greedy_ids[%d][%d] = %d, want %d", b, i, best, id)
			}
			tokens = []int{id}
		}
	}
	if worst > limit {
		t.Errorf("error %.3g, at most %g expected", worst, limit)
	}
	t.Logf("%-22s %-5s largest error %.2g, limit %g", filepath.Base(dir), kind, worst, limit)
}

// run returns a function that appends tokens and returns the logits that follow.
func run(t *testing.T, m *lm.Model, room int) func(tokens []int) []float32 {
	t.Helper()
	s, err := m.NewState(room)
	if err != nil {
		t.Fatal(err)
	}
	return func(tokens []int) []float32 {
		t.Helper()
		logits, err := m.Forward(t.Context(), s, tokens)
		if err != nil {
			t.Fatal(err)
		}
		return logits
	}
}

// difference is max|got-want| / max|want|; NaN counts as infinite.
func difference(got, want []float32) float64 {
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

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// TestTypes checks which tensors get which type.
func TestTypes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind, name string
		shape      []int
		want       tensor.DType
	}{
		{"q4_k", "blk.0.attn_q.weight", []int{256, 512}, tensor.Q4_K},
		{"q4_k", "blk.0.attn_q.weight", []int{256, 96}, tensor.Q5_0},
		{"q5_k", "blk.0.attn_q.weight", []int{256, 96}, tensor.Q5_1},
		{"q6_k", "blk.0.attn_q.weight", []int{256, 96}, tensor.Q8_0},
		{"q8_0", "blk.0.attn_q.weight", []int{256, 48}, tensor.F16},
		{"q8_0", "output.weight", []int{256, 256}, tensor.Q8_0},
		{"q4_0", "output.weight", []int{256, 256}, tensor.Q6_K},
		{"q4_0", "output.weight", []int{256, 64}, tensor.Q8_0},
		{"q4_0", "token_embd.weight", []int{256, 256}, tensor.Q4_0},
		{"q4_0", "blk.3.ffn_gate_exps.weight", []int{4, 64, 64}, tensor.Q4_0},
		{"q4_0", "blk.3.ffn_gate_inp.weight", []int{4, 64}, tensor.F32},
		{"q4_0", "blk.3.attn_q_norm.weight", []int{4, 64}, tensor.F32},
		{"f16", "position_embd.weight", []int{4, 64}, tensor.F32},
		{"f16", "blk.3.attn_norm.weight", []int{64}, tensor.F32},
		{"bf16", "blk.3.ffn_up.weight", []int{64, 64}, tensor.BF16},
		{"q4_k_m", "blk.0.attn_v.weight", []int{256, 256}, tensor.Q6_K},
		{"q4_k_m", "blk.2.attn_v.weight", []int{256, 256}, tensor.Q4_K},
		{"q4_k_m", "blk.4.ffn_down.weight", []int{256, 256}, tensor.Q6_K},
		{"q5_k_m", "blk.4.ffn_up.weight", []int{256, 256}, tensor.Q5_K},
	} {
		r, err := recipeOf(tt.kind)
		if err != nil {
			t.Fatal(err)
		}
		p := plan{recipe: r, layers: 16}
		if got, _ := p.typeOf(tt.name, tt.shape); got != tt.want {
			t.Errorf("%s: %s of %v is %v, want %v", tt.kind, tt.name, tt.shape, got, tt.want)
		}
	}
	if _, err := recipeOf("q9"); err == nil {
		t.Error("a type q9 is accepted")
	}
}

// TestAgain makes a quantised file of a GGUF file, and refuses what would be a loss.
func TestAgain(t *testing.T) {
	t.Parallel()
	folder := os.DirFS(filepath.Join(sharedDir(t, "goldens"), "text", "llama_gqa"))
	first, second := t.TempDir(), t.TempDir()
	direct, again := filepath.Join(first, "m.gguf"), filepath.Join(second, "m.gguf")
	if _, err := File(t.Context(), folder, direct, Options{Type: "f32", Name: "tiny", Licence: "mit"}); err != nil {
		t.Fatal(err)
	}
	var done, total int64
	o := Options{Type: "q8_0", Progress: func(d, n int64) { done, total = d, n }}
	r, err := File(t.Context(), os.DirFS(first), again, o)
	if err != nil {
		t.Fatal(err)
	}
	if done != total || done != r.Bytes || r.Bytes == 0 {
		t.Errorf("%d of %d bytes were reported, %d written", done, total, r.Bytes)
	}
	header, err := weights.ReadFileHeader(os.DirFS(second), "m.gguf")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := header.Metadata.Int("general.file_type"); n != 7 || err != nil {
		t.Errorf("file type %d, %v", n, err)
	}
	if name, err := header.Metadata.String("general.name"); name != "tiny" || err != nil {
		t.Errorf("name %q, %v", name, err)
	}
	if _, err := File(t.Context(), os.DirFS(first), again, o); !errors.Is(err, ErrExists) {
		t.Errorf("a file that exists: %v", err)
	}
	o.Type, o.Force = "q4_0", true
	if _, err := File(t.Context(), os.DirFS(second), direct, o); !errors.Is(err, ErrQuantised) {
		t.Errorf("from a quantised file: %v", err)
	}
	entries, err := os.ReadDir(first)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left, %v", len(entries), err)
	}
}

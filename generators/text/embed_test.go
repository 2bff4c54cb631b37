package text

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helicon/models/lm"
	"helicon/models/tensor"
	"helicon/models/weights"
	"helicon/queue"
)

// embedded runs a job of text.embed and returns its meta and the vectors.
func embedded(t testing.TB, g *Generator, job *queue.Job) (embedMeta, [][]float32, *queue.Usage) {
	t.Helper()
	result, err := g.Generate(t.Context(), job, nil, &recorder{})
	if err != nil {
		t.Fatal(err)
	}
	var m embedMeta
	if err := json.Unmarshal(result.Meta, &m); err != nil {
		t.Fatal(err)
	}
	var vectors [][]float32
	for _, text := range m.Embeddings {
		vectors = append(vectors, vectorOf(t, text))
	}
	return m, vectors, result.Usage
}

func vectorOf(t testing.TB, text string) []float32 {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, len(raw)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return v
}

func dot(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func TestEmbed(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 2)
	m, v, usage := embedded(t, g, jobOf(t, taskEmbed, "plain", object{"input": []string{"abc", "xyz!", "abc"}}))
	if m.Model != "plain" || m.Digest == "" || m.Pooling != poolMean || m.Dimensions != 32 || usage.InputTokens != 10 {
		t.Errorf("meta %+v, usage %+v", m, usage)
	}
	if len(v) != 3 || len(v[0]) != 32 || math.Abs(dot(v[0], v[0])-1) > 1e-6 {
		t.Fatalf("vectors %v", v)
	}
	if dot(v[0], v[2]) < 1-1e-6 || dot(v[0], v[1]) > 0.999 {
		t.Errorf("likeness of equal texts %v, of others %v", dot(v[0], v[2]), dot(v[0], v[1]))
	}
	_, one, _ := embedded(t, g, jobOf(t, taskEmbed, "plain", object{"input": "abc"}))
	_, tokens, _ := embedded(t, g, jobOf(t, taskEmbed, "plain", object{"input": []int{'a', 'b', 'c'}}))
	_, several, _ := embedded(t, g, jobOf(t, taskEmbed, "plain", object{"input": [][]int{{'x'}, {'a', 'b', 'c'}}}))
	for name, got := range map[string][]float32{"alone": one[0], "as tokens": tokens[0], "as several": several[1]} {
		if dot(got, v[0]) < 1-1e-6 {
			t.Errorf("%s: likeness %v", name, dot(got, v[0]))
		}
	}
	m, short, _ := embedded(t, g, jobOf(t, taskEmbed, "plain", object{"input": "abc", "dimensions": 8}))
	norm := math.Sqrt(dot(v[0][:8], v[0][:8]))
	if m.Dimensions != 8 || len(short[0]) != 8 || math.Abs(dot(short[0], v[0][:8])/norm-1) > 1e-6 {
		t.Errorf("cut to 8: %v", short)
	}
	_, last, _ := embedded(t, g, jobOf(t, taskEmbed, "plain", object{"input": "abc", "pooling": "last"}))
	_, first, _ := embedded(t, g, jobOf(t, taskEmbed, "plain", object{"input": "abc", "pooling": "cls"}))
	_, a, _ := embedded(t, g, jobOf(t, taskEmbed, "plain", object{"input": "a"}))
	if dot(first[0], a[0]) < 1-1e-6 || dot(last[0], v[0]) > 1-1e-6 {
		t.Errorf("pooling: first %v, last %v", dot(first[0], a[0]), dot(last[0], v[0]))
	}
	if err := os.Mkdir(filepath.Join(bundleDir(t, g, "plain"), "1_Pooling"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := []byte(`{"pooling_mode_cls_token":false,"pooling_mode_mean_tokens":false,"pooling_mode_lasttoken":true}`)
	if err := os.WriteFile(filepath.Join(bundleDir(t, g, "plain"), "1_Pooling", "config.json"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	if m, stated, _ := embedded(t, g, jobOf(t, taskEmbed, "plain", object{"input": "abc"})); m.Pooling != poolLast || dot(stated[0], last[0]) < 1-1e-6 {
		t.Errorf("pooling of the model: %s", m.Pooling)
	}
}

func TestEmbedProblems(t *testing.T) {
	t.Parallel()
	g := open(t, models(t), 1)
	long := strings.Repeat("x", testContext+1)
	for name, c := range map[string]struct {
		input           any
		pointer, detail string
	}{
		"nothing":       {object{"input": []string{}}, "/input", "1 to 2048"},
		"empty":         {object{"input": []string{"a", ""}}, "/input/1", "1 to 200000 characters"},
		"too long":      {object{"input": []string{"a", long}}, "/input/1", "has 161 tokens; the model plain takes 1 to 160"},
		"unknown token": {object{"input": [][]int{{1}, {99999}}}, "/input/1", "outside the vocabulary"},
		"negative":      {object{"input": []int{-1}}, "/input", "outside the vocabulary"},
		"no text":       {object{"input": 7}, "/input", "want an array"},
		"dimensions":    {object{"input": "a", "dimensions": 33}, "/dimensions", "has 32 dimensions"},
		"pooling":       {object{"input": "a", "pooling": "max"}, "/pooling", "want mean, last or cls"},
	} {
		problem := problemOf(t, g, jobOf(t, taskEmbed, "plain", c.input))
		if len(problem.Errors) == 0 || problem.Errors[0].Pointer != c.pointer || !strings.Contains(problem.Errors[0].Detail, c.detail) {
			t.Errorf("%s: %+v", name, problem)
		}
	}
}

// TestGoldenEmbed compares the mean of a golden's last hidden states with the pooling.
func TestGoldenEmbed(t *testing.T) {
	t.Parallel()
	root := os.Getenv("HELICON_GOLDENS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "goldens")
	}
	cases, _ := filepath.Glob(filepath.Join(root, "text", "*", "golden.safetensors"))
	if len(cases) == 0 {
		t.Skipf("reference cases are absent: %s (set HELICON_GOLDENS)", root)
	}
	pool := tensor.NewPool(tensor.Config{Threads: 1, Exact: true})
	t.Cleanup(pool.Close)
	compared := 0
	for _, file := range cases {
		golden, err := weights.OpenFile(os.DirFS(filepath.Dir(file)), "golden.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		defer golden.Close()
		hidden, err := golden.Lookup("hidden_final")
		if err != nil {
			continue
		}
		ids, err := golden.Lookup("input_ids")
		if err != nil {
			t.Fatal(err)
		}
		m, err := lm.Load(os.DirFS(filepath.Dir(file)), lm.Options{Pool: pool})
		if err != nil {
			continue // package lm tests which models it has
		}
		defer m.Close()
		batch, length, width := hidden.Shape[0], hidden.Shape[1], hidden.Shape[2]
		want := hidden.Float32s()
		for b := range batch {
			tokens := ids.Ints()[b*length:][:length]
			s, err := m.NewState(length)
			if err != nil {
				t.Fatal(err)
			}
			got, mean := pooler{kind: poolMean, tokens: length}, pooler{kind: poolMean, tokens: length}
			mean.add(0, want[b*length*width:][:length*width], width)
			if err := m.Observe(t.Context(), s, tokens, got.observer(m.Config())); err != nil {
				t.Fatal(err)
			}
			x, _ := got.vector(width)
			y, _ := mean.vector(width)
			u, v := vectorOf(t, base64.StdEncoding.EncodeToString(x)), vectorOf(t, base64.StdEncoding.EncodeToString(y))
			for i := range u {
				if math.Abs(float64(u[i]-v[i])) > 1e-4 {
					t.Fatalf("%s: dimension %d is %v, want %v", filepath.Base(filepath.Dir(file)), i, u[i], v[i])
				}
			}
		}
		compared++
	}
	t.Logf("mean pooling of %d models", compared)
}

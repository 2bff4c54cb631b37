package t5

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
func goldens(t *testing.T) string {
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

// TestGoldenEncoder compares every T5 encoder under goldens/image with the reference, at
// every level of instructions.
func TestGoldenEncoder(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob(filepath.Join(goldens(t), "image", "*", "case.json"))
	if err != nil || len(cases) == 0 {
		t.Skipf("no cases in goldens/image: %v", err)
	}
	for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
			t.Cleanup(pool.Close)
			for _, file := range cases {
				var c struct {
					Reference string
					Tensors   map[string]struct{ Tolerance float64 }
				}
				raw, err := os.ReadFile(file)
				if err == nil {
					err = json.Unmarshal(raw, &c)
				}
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasSuffix(c.Reference, "T5EncoderModel") {
					continue
				}
				t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
					tolerance := map[string]float64{}
					for name, x := range c.Tensors {
						tolerance[name] = x.Tolerance
					}
					golden(t, filepath.Dir(file), tensor.NewExec(pool), tolerance)
				})
			}
		})
	}
}

func golden(t *testing.T, dir string, e *tensor.Exec, tolerance map[string]float64) {
	m := load(t, dir)
	want, err := weights.OpenFile(os.DirFS(dir), "golden.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	lookup := func(name string) weights.Tensor {
		x, err := want.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	ids := lookup("input_ids")
	in := Input{IDs: ids.Ints(), Batch: ids.Shape[0]}
	for _, seen := range lookup("attention_mask").Ints() {
		in.Mask = append(in.Mask, seen != 0)
	}
	worst, worstName := 0.0, ""
	compare := func(name string, got []float32) {
		t.Helper()
		e := relativeError(got, lookup(name).Float32s()) / tolerance[name]
		if !(e <= 1) {
			t.Errorf("%s: error %.3g of the tolerance", name, e)
		}
		if e > worst {
			worst, worstName = e, name
		}
	}
	st := m.NewState(in.Batch, ids.Shape[1])
	var first []float32
	in.Observe = func(layer int, x []float32) {
		if layer == 0 {
			first = append(first, x...)
		}
	}
	got, err := m.Forward(e, st, in)
	if err != nil {
		t.Fatal(err)
	}
	compare("hidden_layer1", first)
	compare("last_hidden_state", got)
	in.Mask, in.Observe = nil, nil
	if got, err = m.Forward(e, st, in); err != nil {
		t.Fatal(err)
	}
	compare("last_hidden_state_nomask", got)
	t.Logf("%-22s largest error %.2g of the tolerance (%s)", filepath.Base(dir), worst, worstName)
}

// load reads a case's model.
func load(t *testing.T, dir string) *Encoder {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseConfig(raw)
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := weights.Open(os.DirFS(dir), "model")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	m, err := Load(s, c)
	if err != nil {
		t.Fatal(err)
	}
	return m
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

package hifigan

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// TestGoldenHiFiGAN compares the vocoder with the reference.
func TestGoldenHiFiGAN(t *testing.T) {
	t.Parallel()
	root := os.Getenv("HELICON_GOLDENS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	files := os.DirFS(filepath.Join(root, "audio", "hifigan"))
	raw, err := fs.ReadFile(files, "config.json")
	if err != nil {
		t.Skipf("no reference data: %v", err)
	}
	c, err := ParseConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	var facts struct {
		Tensors map[string]struct{ Tolerance float64 }
	}
	if raw, err = fs.ReadFile(files, "case.json"); err == nil {
		err = json.Unmarshal(raw, &facts)
	}
	if err != nil {
		t.Fatal(err)
	}
	open := func(name string) *weights.Store {
		s, err := weights.Open(files, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	m, err := Load(open("model"), c)
	if err != nil {
		t.Fatal(err)
	}
	store := open("golden")
	mel, err := store.Lookup("mel")
	if err != nil {
		t.Fatal(err)
	}
	want, err := store.Lookup("waveform")
	if err != nil {
		t.Fatal(err)
	}
	for level := tensor.Generic; level <= tensor.BestLevel(); level++ {
		pool := tensor.NewPool(tensor.Config{Threads: 2, Level: level, Exact: true})
		t.Cleanup(pool.Close)
		got := m.Forward(tensor.NewExec(pool), mel.Float32s(), nil)
		worst, largest := 0.0, 0.0
		for i, v := range want.Float32s() {
			largest = max(largest, math.Abs(float64(v)))
			worst = max(worst, math.Abs(float64(got[i]-v)))
		}
		t.Logf("%v: off by %.3g of the largest, tolerance %g", level, worst/largest, facts.Tensors["waveform"].Tolerance)
		if len(got) != want.Len() || !(worst/largest <= facts.Tensors["waveform"].Tolerance) {
			t.Errorf("%v: off by %.3g of the largest in %d samples of %d", level, worst/largest, len(got), want.Len())
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if c, err := ParseConfig([]byte("{}")); err != nil || c.Hop() != 256 {
		t.Errorf("the published shape: %v", err)
	}
	for _, bad := range []string{"", `{"model_in_dim":0}`, `{"upsample_rates":[9,9,9,9]}`, `{"upsample_kernel_sizes":[8]}`, `{"leaky_relu_slope":2}`, `{"resblock_dilation_sizes":[[1],[1],[]]}`} {
		if _, err := ParseConfig([]byte(bad)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

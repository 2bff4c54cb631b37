package lm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"helicon/models/tensor"
)

// heliconText is the reference output of the embedded text model, written by its
// recipe with PyTorch.
type heliconText struct {
	ModelSHA256 string `json:"model_sha256"`
	Cases       []struct {
		Name        string    `json:"name"`
		IDs         []int     `json:"ids"`
		TopIDs      []int     `json:"top_ids"` // most likely tokens after ids
		TopLogits   []float64 `json:"top_logits"`
		FixedIDs    []int     `json:"fixed_ids"` // the same few tokens in every case
		FixedLogits []float64 `json:"fixed_logits"`
		GreedyIDs   []int     `json:"greedy_ids"`
	} `json:"cases"`
}

// TestHeliconText compares the embedded text model with the framework it was
// trained in.
func TestHeliconText(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "hub", "defaults", "helicon-text")
	raw, err := os.ReadFile(filepath.Join("testdata", "helicon-text.json"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip(err)
	}
	weights, weightsErr := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if errors.Is(weightsErr, fs.ErrNotExist) {
		t.Skip(weightsErr)
	}
	var golden heliconText
	if err := errors.Join(err, weightsErr, json.Unmarshal(raw, &golden)); err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(weights); hex.EncodeToString(sum[:]) != golden.ModelSHA256 {
		t.Fatalf("the bundle has SHA-256 %x, its reference output is of %s", sum, golden.ModelSHA256)
	}
	if len(golden.Cases) == 0 {
		t.Fatal("no cases")
	}
	t.Run("exact", func(t *testing.T) {
		// As the goldens: a part of the largest logit.
		golden.check(t, loadOn(t, os.DirFS(dir), tensor.Config{Threads: 2, Exact: true}), 1e-4)
	})
	t.Run("rounded", func(t *testing.T) {
		// Activations rounded to BF16 are off by 2⁻⁹ of themselves, matrix after matrix.
		golden.check(t, load(t, os.DirFS(dir), 2), 0x1p-7)
	})
}

// check compares the model's logits and greedy continuations with the reference.
func (golden *heliconText) check(t *testing.T, m *Model, tolerance float64) {
	for _, c := range golden.Cases {
		s := newState(t, m, len(c.IDs)+len(c.GreedyIDs))
		logits := forward(t, m, s, c.IDs)
		var worst, scale float64
		for i, id := range slices.Concat(c.TopIDs, c.FixedIDs) {
			want := slices.Concat(c.TopLogits, c.FixedLogits)[i]
			worst, scale = max(worst, math.Abs(float64(logits[id])-want)), max(scale, math.Abs(want))
		}
		if !(worst <= tolerance*scale) {
			t.Errorf("%s: logits are off by %.3g of %.3g, tolerance %g", c.Name, worst, scale, tolerance*scale)
		}
		var ids []int
		for range c.GreedyIDs {
			id := argmax(logits)
			ids = append(ids, id)
			logits = forward(t, m, s, []int{id})
		}
		if !slices.Equal(ids, c.GreedyIDs) {
			t.Errorf("%s: greedy ids %v, want %v", c.Name, ids, c.GreedyIDs)
		}
		t.Logf("%-24s largest error %.2g of the tolerance", c.Name, worst/(tolerance*scale))
	}
}

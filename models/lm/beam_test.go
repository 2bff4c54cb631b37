package lm

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"testing"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// TestGoldenBeam compares beam search with the reference on every case that has it.
func TestGoldenBeam(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(sharedDir(t, "goldens"), "text", "*", "golden.safetensors"))
	if err != nil || len(files) == 0 {
		t.Skipf("no cases in goldens/text: %v", err)
	}
	pool := tensor.NewPool(tensor.Config{Threads: 2, Exact: true})
	t.Cleanup(pool.Close)
	compared := 0
	for _, file := range files {
		dir := filepath.Dir(file)
		golden, err := weights.OpenFile(os.DirFS(dir), "golden.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		defer golden.Close()
		want, err := golden.Lookup("beam_ids")
		if errors.Is(err, weights.ErrMissing) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		model, err := Load(os.DirFS(dir), Options{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		defer model.Close()
		input, err := golden.Lookup("input_ids")
		if err != nil {
			t.Fatal(err)
		}
		ids := want.Ints()
		beams, err := model.Beams(t.Context(), input.Ints(), BeamOptions{Beams: 3, Tokens: len(ids), LengthPenalty: 1, Ends: model.Config().EOS})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(beams[0].Tokens, ids) {
			t.Errorf("%s: tokens %v, want %v", filepath.Base(dir), beams[0].Tokens, ids)
		}
		t.Logf("%-12s %d ids of 3 beams equal", filepath.Base(dir), len(ids))
		compared++
	}
	if compared == 0 {
		t.Skip("no case has beams")
	}
}

// naiveBeams is a beam search by the definition: it keeps all candidates and reads
// every text from its beginning.
func naiveBeams(t *testing.T, m *Model, prompt []int, o BeamOptions) []Beam {
	t.Helper()
	type text struct {
		tokens []int
		sum    float64
	}
	open, found := []text{{}}, []Beam{}
	for length := 1; length <= o.Tokens; length++ {
		var all []text
		for _, b := range open {
			s, err := m.NewState(len(prompt) + o.Tokens)
			if err != nil {
				t.Fatal(err)
			}
			logits, err := m.Forward(t.Context(), s, slices.Concat(prompt, b.tokens))
			if err != nil {
				t.Fatal(err)
			}
			largest, total := float64(slices.Max(logits)), 0.0
			for _, l := range logits {
				total += math.Exp(float64(l) - largest)
			}
			for id, l := range logits {
				all = append(all, text{append(slices.Clone(b.tokens), id), b.sum + float64(l) - largest - math.Log(total)})
			}
		}
		sort.SliceStable(all, func(i, j int) bool { return all[i].sum > all[j].sum })
		open = nil
		score := func(sum float64) float64 { return sum / math.Pow(float64(length), o.LengthPenalty) }
		for rank := 0; len(open) < o.Beams; rank++ {
			c := all[rank]
			if !slices.Contains(o.Ends, c.tokens[length-1]) {
				open = append(open, c)
			} else if rank < o.Beams {
				found = append(found, Beam{Tokens: c.tokens[:length-1], Ended: true, Score: score(c.sum)})
			}
		}
		sort.SliceStable(found, func(i, j int) bool { return found[i].Score > found[j].Score })
		found = found[:min(len(found), o.Beams)]
		if len(found) == o.Beams && (o.EarlyStopping || found[o.Beams-1].Score >= score(all[0].sum)) {
			return found
		}
	}
	for _, b := range open {
		found = append(found, Beam{Tokens: b.tokens, Score: b.sum / math.Pow(float64(o.Tokens), o.LengthPenalty)})
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].Score > found[j].Score })
	return found[:o.Beams]
}

func TestBeams(t *testing.T) {
	t.Parallel()
	m := load(t, randomLlama(smallLlama).fsys(t, tensor.BF16), 2)
	prompt := []int{3, 1, 4, 1, 5}
	early := 0
	for _, o := range []BeamOptions{
		{Beams: 1, Tokens: 8, LengthPenalty: 1},
		{Beams: 3, Tokens: 8, LengthPenalty: 1},
		{Beams: 4, Tokens: 10, LengthPenalty: 1, Ends: []int{7, 11, 2}},
		{Beams: 3, Tokens: 10, LengthPenalty: 0, Ends: []int{7, 11, 2, 9, 30, 31, 32}},
		{Beams: 3, Tokens: 10, LengthPenalty: 2.5, Ends: []int{7, 11, 2, 9, 30, 31, 32}},
		{Beams: 2, Tokens: 10, LengthPenalty: -1, Ends: []int{7, 11, 2, 9}, EarlyStopping: true},
	} {
		steps := 0
		o.Progress = func(n int) { steps = n }
		got, err := m.Beams(t.Context(), prompt, o)
		if err != nil {
			t.Fatal(err)
		}
		want := naiveBeams(t, m, prompt, o)
		if len(got) != len(want) {
			t.Fatalf("%+v: %d texts, want %d", o, len(got), len(want))
		}
		for i, w := range want {
			if g := got[i]; !slices.Equal(g.Tokens, w.Tokens) || g.Ended != w.Ended || math.Abs(g.Score-w.Score) > 1e-6 {
				t.Errorf("%d beams, penalty %v: text %d is %+v, want %+v", o.Beams, o.LengthPenalty, i, g, w)
			}
		}
		if steps < o.Tokens {
			early++
		}
	}
	if early == 0 {
		t.Error("no search has ended early")
	}
	if _, err := m.Beams(t.Context(), prompt, BeamOptions{Tokens: 3}); !errors.Is(err, ErrFull) {
		t.Errorf("no beams: %v", err)
	}
	if _, err := m.Beams(t.Context(), nil, BeamOptions{Beams: 2, Tokens: 3}); !errors.Is(err, ErrToken) {
		t.Errorf("no prompt: %v", err)
	}
}

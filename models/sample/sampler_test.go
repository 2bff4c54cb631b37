package sample

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

var (
	negInf = float32(math.Inf(-1))
	posInf = float32(math.Inf(1))
	nan    = float32(math.NaN())
)

func mustNew(t testing.TB, p Params, vocab int) *Sampler {
	t.Helper()
	s, err := New(p, vocab)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func randomLogits(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.NormFloat64() * 3)
	}
	return out
}

func TestNextEdges(t *testing.T) {
	t.Parallel()
	sampled := func(edit func(*Params)) Params {
		p := Default()
		edit(&p)
		return p
	}
	forbidAll := map[int]float64{0: math.Inf(-1), 1: math.Inf(-1)}
	for _, c := range []struct {
		name   string
		params Params
		logits []float32
		want   int // -1: any
		err    bool
	}{
		{"greedy", Params{}, []float32{1, 3, 2}, 1, false},
		{"greedy takes the lowest id of a tie", Params{}, []float32{1, 3, 3}, 1, false},
		{"vocabulary of one", Default(), []float32{-5}, 0, false},
		{"vocabulary of one, greedy", Params{}, []float32{-5}, 0, false},
		{"NaN", Default(), []float32{1, nan}, 0, true},
		{"NaN, greedy", Params{}, []float32{nan, 1}, 0, true},
		{"+Inf", Default(), []float32{1, posInf}, 0, true},
		{"-Inf forbids", Default(), []float32{negInf, 0, negInf}, 1, false},
		{"all forbidden", Default(), []float32{negInf, negInf}, 0, true},
		{"all forbidden, greedy", Params{}, []float32{negInf, negInf}, 0, true},
		{"all biased away", sampled(func(p *Params) { p.LogitBias = forbidAll }), []float32{1, 2}, 0, true},
		{"bias wins", Params{LogitBias: map[int]float64{0: 100}}, []float32{1, 3}, 0, false},
		{"bias forbids", Params{LogitBias: map[int]float64{1: math.Inf(-1)}}, []float32{1, 3}, 0, false},
		{"top_k above the vocabulary", sampled(func(p *Params) { p.TopK = 1000 }), []float32{1, 2, 3}, -1, false},
		{"top_k 1", sampled(func(p *Params) { p.TopK = 1 }), []float32{1, 3, 3}, 1, false},
		{"top_p 0", sampled(func(p *Params) { p.TopP = 0 }), []float32{1, 3, 2}, 1, false},
		{"top_p 1", sampled(func(p *Params) { p.TopP = 1 }), []float32{1, 3, 2}, -1, false},
		{"min_p 1", sampled(func(p *Params) { p.MinP = 1 }), []float32{1, 3, 2}, 1, false},
		{"huge logits", sampled(func(p *Params) { p.Temperature = minTemperature }), []float32{math.MaxFloat32, -math.MaxFloat32}, 0, false},
		{"wrong length", Default(), nil, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			vocab := max(1, len(c.logits))
			got, err := mustNew(t, c.params, vocab).Next(c.logits)
			switch {
			case (err != nil) != c.err:
				t.Fatalf("error %v, want one: %v", err, c.err)
			case err == nil && c.want >= 0 && got != c.want:
				t.Fatalf("token %d, want %d", got, c.want)
			case err == nil && (got < 0 || got >= vocab):
				t.Fatalf("token %d of %d", got, vocab)
			}
		})
	}
	if _, err := mustNew(t, Default(), 2).Next([]float32{negInf, negInf}); !errors.Is(err, ErrNoToken) {
		t.Errorf("error %v, want ErrNoToken", err)
	}
	for _, l := range []float32{nan, posInf} {
		if _, err := mustNew(t, Default(), 2).Next([]float32{1, l}); !errors.Is(err, ErrLogits) {
			t.Errorf("Next with %v: error %v, want ErrLogits", l, err)
		}
		if _, _, err := Logprobs([]float32{1, l}, 0, 1); !errors.Is(err, ErrLogits) {
			t.Errorf("Logprobs with %v: error %v, want ErrLogits", l, err)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		field string
		edit  func(*Params)
	}{
		{"temperature", func(p *Params) { p.Temperature = -1 }},
		{"temperature", func(p *Params) { p.Temperature = math.NaN() }},
		{"temperature", func(p *Params) { p.Temperature = 1e-9 }},
		{"top_k", func(p *Params) { p.TopK = -1 }},
		{"top_p", func(p *Params) { p.TopP = 1.1 }},
		{"min_p", func(p *Params) { p.MinP = -0.1 }},
		{"typical_p", func(p *Params) { p.TypicalP = 2 }},
		{"repetition_penalty", func(p *Params) { p.RepetitionPenalty = -1 }},
		{"presence_penalty", func(p *Params) { p.PresencePenalty = 3 }},
		{"frequency_penalty", func(p *Params) { p.FrequencyPenalty = -3 }},
		{"no_repeat_ngram_size", func(p *Params) { p.NoRepeatNGram = -1 }},
		{"logit_bias", func(p *Params) { p.LogitBias = map[int]float64{10: 1} }},
		{"logit_bias", func(p *Params) { p.LogitBias = map[int]float64{1: 101} }},
		{"logit_bias", func(p *Params) { p.LogitBias = map[int]float64{1: math.NaN()} }},
	} {
		p := Default()
		c.edit(&p)
		_, err := New(p, 10)
		var field *FieldError
		if !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("%+v: error %v, want one about %s", p, err, c.field)
		}
	}
	if _, err := New(Default(), 0); err == nil {
		t.Error("an empty vocabulary was accepted")
	}
}

// The expected tokens pin the draws of a seed: they must be the same on every
// machine and in every version.
func TestSeedIsPinned(t *testing.T) {
	t.Parallel()
	p := Default()
	p.Temperature, p.TopK, p.TopP, p.Seed = 0.8, 50, 0.95, 42
	s := mustNew(t, p, 1000)
	var got []int
	for i := range 8 {
		id, err := s.Next(randomLogits(uint64(i), 1000))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, id)
	}
	want := []int{899, 533, 890, 166, 578, 911, 717, 877}
	if !slices.Equal(got, want) {
		t.Errorf("tokens %v, want %v", got, want)
	}
}

func TestResumeContinues(t *testing.T) {
	t.Parallel()
	p := Default()
	p.PresencePenalty, p.FrequencyPenalty, p.RepetitionPenalty, p.NoRepeatNGram, p.Seed = 0.5, 0.3, 1.2, 2, 7
	prompt := []int{1, 2, 3}
	whole := mustNew(t, p, 20)
	whole.Prompt(prompt)
	var ids []int
	for i := range 30 {
		id, err := whole.Next(randomLogits(uint64(i), 20))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	rest := mustNew(t, p, 20)
	rest.Prompt(prompt)
	if err := rest.Resume(ids[:12]); err != nil {
		t.Fatal(err)
	}
	for i := 12; i < 30; i++ {
		id, err := rest.Next(randomLogits(uint64(i), 20))
		if err != nil {
			t.Fatal(err)
		}
		if id != ids[i] {
			t.Fatalf("token %d is %d, want %d", i, id, ids[i])
		}
	}
}

func TestPenalties(t *testing.T) {
	t.Parallel()
	s := mustNew(t, Params{PresencePenalty: 0.5, FrequencyPenalty: 0.25}, 3)
	s.Prompt([]int{2}) // the prompt does not count
	if err := s.Resume([]int{0, 0, 1}); err != nil {
		t.Fatal(err)
	}
	copy(s.logits, []float32{1, 1, 1})
	s.penalize()
	if want := []float32{0, 0.25, 1}; !slices.Equal(s.logits, want) {
		t.Errorf("logits %v, want %v", s.logits, want)
	}
}

// The draws must follow the distribution: chi-squared over a small vocabulary.
func TestDrawsFollowProbabilities(t *testing.T) {
	t.Parallel()
	logits := []float32{0, 1, 2, -1, 0.5}
	sum := 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l))
	}
	s := mustNew(t, Default(), len(logits))
	const n = 50000
	var counts [5]float64
	for range n {
		id, err := s.Next(logits)
		if err != nil {
			t.Fatal(err)
		}
		counts[id]++
	}
	chi := 0.0
	for id, l := range logits {
		want := n * math.Exp(float64(l)) / sum
		chi += (counts[id] - want) * (counts[id] - want) / want
	}
	if chi > 18.5 { // 4 degrees of freedom, p = 0.001
		t.Errorf("chi-squared %.1f", chi)
	}
}

// Partial sorting must give what a full sort gives.
func TestFiltersEqualFullSort(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		n := 1 + int(seed*37%900)
		logits := randomLogits(seed, n)
		for i := range logits { // ties
			logits[i] = float32(math.Round(float64(logits[i])*4) / 4)
		}
		var all candidates
		all.reset(logits, 1)
		all.weigh()
		slices.SortFunc(all.list, func(a, b candidate) int {
			if a.before(b) {
				return -1
			}
			return 1
		})
		k := 1 + int(seed*13)%n
		var c candidates
		c.resetTop(logits, 1, k)
		c.weigh()
		if !slices.Equal(c.list, all.list[:k]) {
			t.Fatalf("seed %d: top-k %d differs from a full sort", seed, k)
		}
		c.reset(logits, 1)
		c.weigh()
		p := 0.5 + float64(seed)/100
		c.topP(p)
		mass, keep := 0.0, 0
		for keep < n && mass < p*all.total {
			mass += all.list[keep].weight
			keep++
		}
		if !slices.Equal(c.list, all.list[:keep]) {
			t.Fatalf("seed %d: top-p %v keeps %d, a full sort %d", seed, p, len(c.list), keep)
		}
		c.reset(logits, 1)
		c.weigh()
		c.minP(0.1)
		var early candidates
		early.reset(logits, 1)
		early.atLeast(0.1)
		early.weigh()
		early.minP(0.1)
		if !slices.Equal(c.list, early.list) {
			t.Fatalf("seed %d: min-p keeps %d of those with weights, %d of all", seed, len(early.list), len(c.list))
		}
	}
}

func TestExp(t *testing.T) {
	t.Parallel()
	for x := 0.0; x > -707; x -= 0.0137 {
		got, want := exp(x), math.Exp(x)
		if math.Abs(got-want) > 4e-16*want {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	if exp(0) != 1 || exp(-1000) != 0 || exp(math.Inf(-1)) != 0 {
		t.Error("exp is wrong at 0 or far below")
	}
}

func TestLogprobs(t *testing.T) {
	t.Parallel()
	logits := []float32{1, 3, 2, 3, negInf}
	chosen, top, err := Logprobs(logits, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	logSum := math.Log(math.E + 2*math.Exp(3) + math.Exp(2))
	if math.Abs(chosen.Logprob-(2-logSum)) > 1e-12 || chosen.ID != 2 {
		t.Errorf("chosen %v, want %v", chosen, 2-logSum)
	}
	var ids []int
	for _, lp := range top {
		ids = append(ids, lp.ID)
	}
	if want := []int{1, 3, 2}; !slices.Equal(ids, want) {
		t.Errorf("top %v, want %v", ids, want)
	}
	if _, top, err := Logprobs(logits, 0, 10); err != nil || len(top) != len(logits) {
		t.Errorf("%d of top, error %v", len(top), err)
	}
	if _, top, err := Logprobs(logits, 0, 0); err != nil || len(top) != 0 {
		t.Errorf("%d of top, error %v", len(top), err)
	}
	for _, bad := range [][]float32{nil, {nan}, {posInf}, {negInf}} {
		if _, _, err := Logprobs(bad, 0, 1); err == nil {
			t.Errorf("logits %v: no error", bad)
		}
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	p := Default()
	p.TopK, p.TopP, p.MinP, p.TypicalP, p.RepetitionPenalty, p.PresencePenalty, p.NoRepeatNGram = 40, 0.9, 0.01, 0.95, 1.1, 0.1, 4
	s := mustNew(t, p, 5000)
	logits := randomLogits(1, 5000)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.Next(logits); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a token", n)
	}
}

// among allows a fixed set of tokens, and records what is chosen.
type among struct {
	allowed []uint64
	chosen  []int
}

func (a *among) Allowed() []uint64 { return a.allowed }
func (a *among) Ended() bool       { return len(a.chosen) == 3 }
func (a *among) Accept(id int) error {
	if a.allowed[id/64]>>(id%64)&1 == 0 {
		return errors.New("refused")
	}
	a.chosen = append(a.chosen, id)
	return nil
}

func TestConstraint(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]Params{"greedy": {}, "sampled": Default(), "filtered": {Temperature: 1, TopK: 3, TopP: 0.5, RepetitionPenalty: 1.2}} {
		s := mustNew(t, p, 200)
		c := &among{allowed: []uint64{0, 0xF << 60, 1}} // 124 to 128
		s.Constrain(c)
		logits := randomLogits(3, 200)
		before := slices.Clone(logits)
		for !s.Ended() {
			if _, err := s.Next(logits); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range c.chosen {
			if id < 124 || id > 128 {
				t.Errorf("%s: token %d is chosen", name, id)
			}
		}
		if !slices.Equal(logits, before) {
			t.Errorf("%s: the logits are changed", name)
		}
		if err := s.Resume([]int{1}); err == nil {
			t.Errorf("%s: a forbidden token is resumed", name)
		}
		c.allowed = []uint64{0}
		if _, err := s.Next(logits); !errors.Is(err, ErrNoToken) {
			t.Errorf("%s: without a token: %v", name, err)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	for _, vocab := range []int{4096, 131072} {
		for _, c := range []struct {
			name string
			edit func(*Params)
		}{
			{"greedy", func(p *Params) { p.Temperature = 0 }},
			{"plain", func(*Params) {}},
			{"top_k", func(p *Params) { p.TopK = 40 }},
			{"usual", func(p *Params) { p.Temperature, p.TopK, p.TopP, p.RepetitionPenalty = 0.8, 40, 0.95, 1.1 }},
			{"min_p", func(p *Params) { p.MinP = 0.05 }},
			{"top_p", func(p *Params) { p.TopP = 0.95 }},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, vocab), func(b *testing.B) {
				p := Default()
				c.edit(&p)
				s := mustNew(b, p, vocab)
				logits := randomLogits(1, vocab)
				for b.Loop() {
					if _, err := s.Next(logits); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

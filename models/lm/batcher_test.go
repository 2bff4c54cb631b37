package lm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"helicon/models/tensor"
)

func newBatcher(t testing.TB, m *Model, o BatchOptions) *Batcher {
	t.Helper()
	b, err := m.NewBatcher(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// chooser draws tokens from logits with a temperature that keeps them apart, and
// remembers both.
type chooser struct {
	random *rand.Rand
	ids    []int
	logits []float32
}

func newChooser(seed uint64) *chooser { return &chooser{random: rand.New(rand.NewPCG(seed, 1))} }

func (c *chooser) next(logits []float32) (int, bool) {
	c.logits = append(c.logits, logits...)
	u, total := c.random.Float64(), 0.0
	for _, l := range logits {
		total += math.Exp(float64(l))
	}
	id := 0
	for left := u * total; id < len(logits)-1; id++ {
		if left -= math.Exp(float64(logits[id])); left < 0 {
			break
		}
	}
	c.ids = append(c.ids, id)
	return id, true
}

// alone writes a text with a State.
func alone(t testing.TB, m *Model, prompt []int, tokens int, c *chooser) {
	t.Helper()
	s := newState(t, m, len(prompt)+tokens)
	read := prompt
	for range tokens {
		id, _ := c.next(forward(t, m, s, read))
		read = []int{id}
	}
}

// text is what a test has written.
type text struct {
	prompt []int
	tokens int
	seed   uint64
}

// someTexts are texts of different lengths, of which some begin alike.
func someTexts(n, vocab, context int) []text {
	texts := make([]text, n)
	for i := range texts {
		prompt := someTokens(3+(i*29)%(context/2), vocab)
		if i%3 > 0 {
			prompt[0] = i // of its own from the beginning
		}
		texts[i] = text{prompt: prompt, tokens: 4 + (i*17)%(context/3), seed: uint64(i)}
	}
	return texts
}

// writeAll has texts written at once and compares, bit for bit, with what each is alone.
func writeAll(t *testing.T, m *Model, b *Batcher, texts []text) {
	t.Helper()
	var group sync.WaitGroup
	got := make([]*chooser, len(texts))
	for i, x := range texts {
		got[i] = newChooser(x.seed)
		group.Go(func() {
			if err := b.Generate(t.Context(), x.prompt, x.tokens, got[i].next); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i, x := range texts {
		want := newChooser(x.seed)
		alone(t, m, x.prompt, x.tokens, want)
		if !slices.Equal(got[i].ids, want.ids) {
			t.Fatalf("text %d of %d tokens after %d is %v, alone %v", i, x.tokens, len(x.prompt), got[i].ids, want.ids)
		}
		same(t, fmt.Sprintf("text %d beside others", i), got[i].logits, want.logits)
	}
}

// batchModels are the forms of decoder for which batches are tested.
func batchModels(t *testing.T) map[string]fs.FS {
	all := map[string]fs.FS{"llama BF16": randomLlama(smallLlama).fsys(t, tensor.BF16)}
	mistral := randomLlama(smallLlama)
	mistral.config["architectures"], mistral.config["sliding_window"] = []string{"MistralForCausalLM"}, 5
	all["mistral, window of all layers"] = mistral.fsys(t, tensor.F16)
	for name, config := range families(t) {
		all[name] = randomBundle(t, config).fsys(t, tensor.F32)
	}
	all["longrope"] = randomBundle(t, longrope(t)).fsys(t, tensor.F32)
	return all
}

// TestBatchEqualsAlone writes texts together, more than there are places for, and
// compares with each alone: every form of decoder, with speculation and without.
func TestBatchEqualsAlone(t *testing.T) {
	t.Parallel()
	for name, fsys := range batchModels(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := load(t, fsys, 2)
			context := min(m.config.Context, 200)
			for _, o := range []BatchOptions{{Sequences: 5}, {NoLookup: true}} {
				writeAll(t, m, newBatcher(t, m, o), someTexts(12, m.config.Vocab, context))
			}
		})
	}
}

// TestBatchMemory writes texts that do not fit into the memory together, several times
// over, so that pages of prefixes have to go.
func TestBatchMemory(t *testing.T) {
	t.Parallel()
	m := load(t, randomBundle(t, longContext(t)).fsys(t, tensor.F32), 1)
	b := newBatcher(t, m, BatchOptions{Memory: 13 * pageBytes(&m.config)})
	if got := b.Room(); got != 13*PageTokens {
		t.Fatalf("room for %d tokens in 13 pages", got)
	}
	for range 3 {
		writeAll(t, m, b, someTexts(9, m.config.Vocab, 400))
	}
	err := b.Generate(t.Context(), make([]int, 13*PageTokens), 1, newChooser(1).next)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "416") {
		t.Errorf("a text that never fits: %v, want ErrFull with the room", err)
	}
	if _, err := m.NewBatcher(t.Context(), BatchOptions{Memory: pageBytes(&m.config) - 1}); !errors.Is(err, ErrFull) {
		t.Errorf("no room for a page: %v, want ErrFull", err)
	}
}

// longContext is a small Llama for longer texts than those of the other tests.
func longContext(t testing.TB) map[string]any {
	config := families(t)["qwen3"]
	config["max_position_embeddings"] = 2000
	return config
}

// TestBatchPrefix checks that a prompt that was read before is not read again, and that
// several that come at once are read once.
func TestBatchPrefix(t *testing.T) {
	t.Parallel()
	m := load(t, randomBundle(t, longContext(t)).fsys(t, tensor.F32), 1)
	b := newBatcher(t, m, BatchOptions{})
	prompt := someTokens(10*PageTokens+5, m.config.Vocab)
	first := newChooser(7)
	if err := b.Generate(t.Context(), prompt, 40, first.next); err != nil {
		t.Fatal(err)
	}
	// Another text that begins like the first one and what was written after it.
	more := slices.Concat(prompt, first.ids[:35])
	computed := b.computed.Load()
	writeAll(t, m, b, []text{{more, 3, 3}})
	if got, most := b.computed.Load()-computed, int64(PageTokens+3+1); got > most {
		t.Errorf("%d tokens were computed of a text whose beginning is known, want at most %d", got, most)
	}

	prompt = slices.Clone(prompt)
	slices.Reverse(prompt)
	choices := make([]*chooser, 6)
	next := make([]Next, len(choices))
	for i := range choices {
		choices[i] = newChooser(uint64(i))
		next[i] = choices[i].next
	}
	computed = b.computed.Load()
	if err := b.Generate(t.Context(), prompt, 9, next...); err != nil {
		t.Fatal(err)
	}
	if got, most := b.computed.Load()-computed, int64(len(prompt)+len(choices)*(9+maxDraft)); got > most {
		t.Errorf("%d tokens were computed for %d texts after the same prompt of %d, want at most %d", got, len(choices), len(prompt), most)
	}
	for i, c := range choices {
		want := newChooser(uint64(i))
		alone(t, m, prompt, 9, want)
		same(t, fmt.Sprintf("choice %d", i), c.logits, want.logits)
	}
}

// TestBatchErrors checks that what goes wrong with a text is its caller's alone.
func TestBatchErrors(t *testing.T) {
	t.Parallel()
	m := load(t, randomBundle(t, longContext(t)).fsys(t, tensor.F32), 1)
	b := newBatcher(t, m, BatchOptions{})
	long := text{someTokens(500, m.config.Vocab), 400, 5}
	var group sync.WaitGroup
	group.Go(func() { writeAll(t, m, b, []text{long}) })

	for _, tt := range []struct {
		name   string
		prompt []int
		tokens int
		next   Next
		want   error
	}{
		{"no prompt", nil, 5, newChooser(1).next, ErrToken},
		{"no tokens", []int{1}, 0, newChooser(1).next, ErrToken},
		{"prompt outside the vocabulary", []int{1, m.config.Vocab}, 5, newChooser(1).next, ErrToken},
		{"choice outside the vocabulary", []int{1}, 5, func([]float32) (int, bool) { return -1, true }, ErrToken},
		{"beyond the context", []int{1}, m.config.Context, newChooser(1).next, ErrFull},
	} {
		if err := b.Generate(t.Context(), tt.prompt, tt.tokens, tt.next); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
	}
	if err := b.Generate(t.Context(), []int{1}, 5); !errors.Is(err, ErrToken) {
		t.Errorf("no texts: error %v", err)
	}
	for _, choices := range [][]Next{
		{func([]float32) (int, bool) { panic("my own") }, newChooser(1).next},
		{newChooser(1).next, func([]float32) (int, bool) { panic("my own") }},
	} {
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "my own") {
					t.Errorf("recovered %v, want the panic of the caller's function", v)
				}
			}()
			b.Generate(t.Context(), []int{1}, 100, choices...)
		}()
	}
	reason := errors.New("not wanted any more")
	ctx, cancel := context.WithCancelCause(t.Context())
	count := 0
	err := b.Generate(ctx, []int{2}, 1000, func([]float32) (int, bool) {
		if count++; count == 50 { // many are proposed by then, and right
			cancel(reason)
		}
		return 3, true
	})
	if !errors.Is(err, reason) || count != 50 {
		t.Errorf("error %v after %d tokens, want %v after 50", err, count, reason)
	}
	group.Wait()
}

// TestBatchStepPanics checks that a panic while a step computes ends its texts alone.
func TestBatchStepPanics(t *testing.T) {
	t.Parallel()
	m := load(t, randomLlama(smallLlama).fsys(t, tensor.BF16), 2)
	b := newBatcher(t, m, BatchOptions{})
	norm := m.net.norm
	m.net.norm = brokenNorm{}
	func() {
		defer func() {
			if v := recover(); !strings.Contains(fmt.Sprint(v), "broken norm") {
				t.Errorf("recovered %v, want the panic of the step", v)
			}
		}()
		b.Generate(t.Context(), []int{1, 2, 3}, 5, newChooser(1).next)
	}()
	m.net.norm = norm
	writeAll(t, m, b, someTexts(3, m.config.Vocab, m.config.Context))
}

type brokenNorm struct{}

func (brokenNorm) Forward(*tensor.Exec, []float32, []float32) { panic("broken norm") }

// TestBatchClose closes a batcher in the middle of its texts.
func TestBatchClose(t *testing.T) {
	t.Parallel()
	m := load(t, randomBundle(t, longContext(t)).fsys(t, tensor.F32), 1)
	b := newBatcher(t, m, BatchOptions{Sequences: 2})
	var group sync.WaitGroup
	begun := make(chan struct{}, 1)
	for range 4 {
		group.Go(func() {
			err := b.Generate(t.Context(), []int{1, 2}, 1900, func([]float32) (int, bool) {
				select {
				case begun <- struct{}{}:
				default:
				}
				return 1, true
			})
			if !errors.Is(err, ErrClosed) {
				t.Errorf("error %v, want ErrClosed", err)
			}
		})
	}
	<-begun
	b.Close()
	group.Wait()
	if err := b.Generate(t.Context(), []int{1}, 1, newChooser(1).next); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// TestBatchLogitsAreNoNumbers checks that a text whose logits are NaN leaves the
// others alone, also in the pages that it had.
func TestBatchLogitsAreNoNumbers(t *testing.T) {
	t.Parallel()
	bundle := randomLlama(smallLlama)
	embed := bundle.tensors["model.embed_tokens.weight"]
	bundle.config["tie_word_embeddings"] = false
	bundle.tensors["lm_head.weight"] = named{shape: embed.shape, data: slices.Clone(embed.data)}
	for i := range smallLlama.hidden {
		embed.data[5*smallLlama.hidden+i] = float32(math.NaN())
	}
	m := load(t, bundle.fsys(t, tensor.F32), 2)
	b := newBatcher(t, m, BatchOptions{Memory: 4 * pageBytes(&m.config)})
	for range 3 {
		var group sync.WaitGroup
		group.Go(func() {
			err := b.Generate(t.Context(), []int{1, 5, 1}, 40, func(logits []float32) (int, bool) {
				if !math.IsNaN(float64(logits[0])) {
					t.Error("a NaN in the prompt does not reach the logits")
				}
				return 7, true
			})
			if err != nil {
				t.Error(err)
			}
		})
		for i := range 3 {
			group.Go(func() {
				if err := b.Generate(t.Context(), []int{i + 6, 20}, 20, func(logits []float32) (int, bool) {
					if slices.ContainsFunc(logits, func(l float32) bool { return math.IsNaN(float64(l)) }) {
						t.Error("NaN in the logits of another text")
					}
					return 6 + argmax(logits[6:]), true
				}); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
}

// TestBatchAllocatesNothing counts what the steps of a batch allocate: the texts are in
// the middle when counting begins and ends.
func TestBatchAllocatesNothing(t *testing.T) {
	for _, sequences := range []int{1, 16} {
		m := load(t, randomBundle(t, longContext(t)).fsys(t, tensor.F32), 2)
		b := newBatcher(t, m, BatchOptions{})
		const steps = 300
		var allocated float64
		var group sync.WaitGroup
		counting, done := make(chan struct{}), make(chan struct{})
		for i := 1; i < sequences; i++ {
			group.Go(func() {
				b.Generate(t.Context(), []int{i, 1}, 1000, func(logits []float32) (int, bool) {
					select {
					case <-done:
						return 0, false
					default:
						return argmax(logits), true
					}
				})
			})
		}
		n := 0
		turns := make(chan struct{})
		group.Go(func() {
			defer close(turns)
			b.Generate(t.Context(), []int{40, 1}, 1000, func(logits []float32) (int, bool) {
				n++
				select {
				case <-done:
					return 0, false
				case turns <- struct{}{}:
				case <-counting:
				}
				return argmax(logits), true
			})
		})
		for range 100 {
			<-turns
		}
		allocated = testing.AllocsPerRun(steps, func() { <-turns })
		close(done)
		for range turns {
		}
		group.Wait()
		if allocated != 0 {
			t.Errorf("a step of %d texts allocates %v times", sequences, allocated)
		}
	}
}

// TestLookup checks what is proposed.
func TestLookup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text []int
		want int
	}{
		{[]int{1}, 0},
		{[]int{1, 2, 3}, 0},
		{[]int{1, 1, 1}, 2},
		{[]int{7, 1, 2, 9, 5, 1, 2}, 3},
		{[]int{7, 1, 2, 9, 3, 1, 2, 8, 1, 2}, 7},
		{[]int{4, 7, 1, 2, 9, 3, 1, 2, 8, 7, 1, 2}, 4},
		{[]int{3, 2, 9, 5, 1, 2}, 0},
	} {
		if got := recurrence(tt.text); got != tt.want {
			t.Errorf("the end of %v recurs before %d, want %d", tt.text, got, tt.want)
		}
	}
}

// TestLookupSavesSteps writes a text that repeats itself: the same in fewer steps.
func TestLookupSavesSteps(t *testing.T) {
	t.Parallel()
	m := load(t, randomBundle(t, longContext(t)).fsys(t, tensor.F32), 1)
	for _, o := range []BatchOptions{{NoLookup: true}, {}} {
		b := newBatcher(t, m, o)
		var ids []int
		prompt := []int{1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3}
		err := b.Generate(t.Context(), prompt, 200, func([]float32) (int, bool) {
			ids = append(ids, (len(ids)+3)%8+1)
			return ids[len(ids)-1], true
		})
		if err != nil || len(ids) != 200 {
			t.Fatalf("%d tokens, error %v", len(ids), err)
		}
		if steps := b.steps.Load(); o.NoLookup != (steps >= 200) || !o.NoLookup && steps > 50 {
			t.Errorf("options %+v: %d steps for 200 tokens that repeat", o, steps)
		}
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestBatcherLongPromptBehindWindow reads prompts that are far longer than the window of
// all layers in the pages that a text with such a window is promised.
func TestBatcherLongPromptBehindWindow(t *testing.T) {
	t.Parallel()
	size := smallLlama
	size.context = 2048
	mistral := randomLlama(size)
	mistral.config["architectures"], mistral.config["sliding_window"] = []string{"MistralForCausalLM"}, 5
	m := load(t, mistral.fsys(t, tensor.F32), 2)
	pages := int64(pagesFor(5+stepTokens) + 2)
	b := newBatcher(t, m, BatchOptions{Memory: pages * pageBytes(&m.config)})
	if b.windowPages() != b.cache.limit || b.Room() != size.context {
		t.Fatalf("room for %d tokens in %d pages, want %d in %d", b.Room(), b.cache.limit, size.context, b.windowPages())
	}
	writeAll(t, m, b, []text{
		{prompt: someTokens(1500, size.vocab), tokens: 40, seed: 1},
		{prompt: someTokens(1400, size.vocab), tokens: 3, seed: 2},
	})
}

// TestBatcherTiles writes texts with BF16 weights, wide enough for the tiles of the
// processor where it has them, at every level: each is what it is alone.
func TestBatcherTiles(t *testing.T) {
	t.Parallel()
	size := llamaSize{vocab: 300, hidden: 128, layers: 2, heads: 4, kvHeads: 2, headDim: 32, intermediate: 192, context: 256}
	files := randomLlama(size).fsys(t, tensor.BF16)
	for _, level := range []tensor.Level{0, tensor.AVX512, tensor.AVX2, tensor.Generic} {
		m := loadOn(t, files, tensor.Config{Threads: 2, Level: level})
		for _, lookup := range []bool{true, false} {
			writeAll(t, m, newBatcher(t, m, BatchOptions{NoLookup: !lookup}), someTexts(9, size.vocab, size.context))
		}
	}
}

package bench

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/process"

	"helicon/models/lm"
)

// LM says what to measure of a language model.
type LM struct {
	Prompt   int   // tokens that are read at once
	Generate int   // tokens that each text is written with
	Batches  []int // how many texts are written side by side
}

// shortPrompt is how many tokens come before the first one that is timed, and before
// every text that is written.
const shortPrompt = 32

// Model is what was measured.
type Model struct {
	Architecture string  `json:"architecture"`
	Type         string  `json:"type"` // of most of the weights
	FileBytes    int64   `json:"file_bytes"`
	TokenBytes   int64   `json:"token_bytes"` // of weights that a token reads
	LoadTime     float64 `json:"load_ms"`

	// Resident is how much more memory the process holds than before the model was loaded:
	// with the model, and with the texts and caches of the measurements too.
	ResidentLoaded int64 `json:"resident_loaded_bytes"`
	ResidentUsed   int64 `json:"resident_used_bytes"`
}

// LM loads the model in a folder and measures it: a prompt, the first token after a short
// prompt, and texts written side by side. report is told each result as it comes. The
// errors are those of lm.Load and of texts that the model has no room for, or the cause of
// ctx's end.
func (b *Bench) LM(ctx context.Context, files fs.FS, l LM, report func(Result)) (Model, error) {
	before, err := resident(ctx)
	if err != nil {
		return Model{}, err
	}
	start := time.Now()
	model, err := lm.Load(files, lm.Options{Pool: b.pool})
	if err != nil {
		return Model{}, err
	}
	defer model.Close()
	cost := model.Cost()
	m := Model{
		Architecture: model.Config().Architecture, Type: cost.DType.String(),
		FileBytes: model.Bytes(), TokenBytes: cost.Bytes, LoadTime: milliseconds(time.Since(start)),
	}
	after, err := resident(ctx)
	if err != nil {
		return m, err
	}
	m.ResidentLoaded = after - before
	r := reading{bench: b, model: model, cost: cost}
	if err := r.run(ctx, l, report); err != nil {
		return m, err
	}
	if after, err = resident(ctx); err != nil {
		return m, err
	}
	m.ResidentUsed = after - before
	return m, nil
}

// resident returns the memory that the process holds, in bytes.
func resident(ctx context.Context) (int64, error) {
	debug.FreeOSMemory()
	p, err := process.NewProcessWithContext(ctx, int32(os.Getpid()))
	if err != nil {
		return 0, fmt.Errorf("bench: memory of the process: %w", err)
	}
	info, err := p.MemoryInfoWithContext(ctx)
	if err != nil {
		return 0, fmt.Errorf("bench: memory of the process: %w", err)
	}
	return int64(info.RSS), nil
}

// reading measures one model.
type reading struct {
	bench *Bench
	model *lm.Model
	cost  lm.Cost
}

func (r *reading) run(ctx context.Context, l LM, report func(Result)) error {
	if err := r.prompts(ctx, l, report); err != nil {
		return err
	}
	for _, texts := range l.Batches {
		result, err := r.generate(ctx, texts, l.Generate)
		if err != nil {
			return err
		}
		report(result)
	}
	return nil
}

// prompts measures the whole prompt and a short one, whose time is that to the first token.
func (r *reading) prompts(ctx context.Context, l LM, report func(Result)) error {
	state, err := r.model.NewState(max(l.Prompt, shortPrompt))
	if err != nil {
		return err
	}
	for _, c := range []struct {
		name   string
		tokens int
	}{
		{fmt.Sprintf("prompt %d", l.Prompt), l.Prompt},
		{fmt.Sprintf("first token after %d", shortPrompt), shortPrompt},
	} {
		tokens := someTokens(c.tokens, r.model.Config().Vocab)
		result, err := r.bench.measure(ctx, r.work(c.name, c.tokens, 1), func(ctx context.Context) error {
			state.Truncate(0)
			_, err := r.model.Forward(ctx, state, tokens)
			return err
		})
		if err != nil {
			return err
		}
		report(result)
	}
	return nil
}

// work is what so many tokens, of which some have logits, do in one pass.
func (r *reading) work(name string, tokens, logits int) work {
	operations := int64(tokens)*(r.cost.Operations-r.cost.Logits) + int64(logits)*r.cost.Logits
	return work{
		name: name, dtype: r.cost.DType, tokens: tokens, operations: float64(operations),
		bytes: float64(r.cost.Bytes), peak: r.bench.multiplying(r.cost.DType),
	}
}

// generate measures so many texts that are written side by side, each after a short prompt
// of its own.
func (r *reading) generate(ctx context.Context, texts, tokens int) (Result, error) {
	batcher, err := r.model.NewBatcher(ctx, lm.BatchOptions{Sequences: texts, NoLookup: true})
	if err != nil {
		return Result{}, err
	}
	defer batcher.Close()
	w := r.work(fmt.Sprintf("generate, batch %d", texts), texts, texts)
	if texts == 1 {
		w.peak = Read
	}
	var steps []time.Duration // the mean step of each repetition
	for begin := time.Now(); len(steps) < minRepetitions || time.Since(begin) < r.bench.time; {
		step, err := r.write(ctx, batcher, texts, tokens)
		if err != nil {
			return Result{}, err
		}
		steps = append(steps, step)
	}
	slices.Sort(steps)
	return r.bench.result(w, steps), nil
}

// write has texts written and returns the mean time of a step in which all of them get a
// token: from when the last one has begun until the first one has so many tokens more.
func (r *reading) write(ctx context.Context, batcher *lm.Batcher, texts, tokens int) (time.Duration, error) {
	c, vocab := clock{texts: texts, tokens: tokens}, r.model.Config().Vocab
	errs := make([]error, texts)
	var group sync.WaitGroup
	for i := range texts {
		prompt, written, timed := someTokens(shortPrompt, vocab), 0, 0
		prompt[0] = i % vocab
		group.Go(func() {
			// A text begins in each step at the latest, while the others go on.
			errs[i] = batcher.Generate(ctx, prompt, texts+tokens, func([]float32) (int, bool) {
				written++
				return (written*written + i) % vocab, c.token(written == 1, &timed)
			})
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	if c.counted == 0 {
		return 0, fmt.Errorf("bench: %d texts were never written side by side", texts)
	}
	return max(1, c.to.Sub(c.from)*time.Duration(texts)/time.Duration(c.counted)), nil
}

// clock times texts that are written side by side.
type clock struct {
	texts, tokens int

	mu       sync.Mutex
	begun    int // texts
	ended    bool
	counted  int // tokens between from and to
	from, to time.Time
}

// token takes in a token of a text, its first one or another, of which timed have been
// counted. It returns whether the text is to go on.
func (c *clock) token(first bool, timed *int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if first {
		if c.begun++; c.begun == c.texts {
			c.from = time.Now()
		}
		return true
	}
	if c.begun < c.texts || c.ended {
		return !c.ended
	}
	*timed++
	c.counted++
	c.to = time.Now()
	c.ended = *timed == c.tokens
	return !c.ended
}

// someTokens returns n token ids that repeat no short pattern.
func someTokens(n, vocab int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = (i*i*7 + i*13 + 5) % vocab
	}
	return ids
}

package lm

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"helicon/models/lm/family"
)

// ErrClosed is returned for texts whose Batcher was closed.
var ErrClosed = errors.New("lm: the batcher is closed")

// BatchOptions are the choices of NewBatcher.
type BatchOptions struct {
	// Memory is the most that keys and values may take, in bytes. 0 is as much as
	// Sequences texts of the model's whole context need. It is allocated as it is needed.
	Memory int64
	// Sequences is how many texts are written at once at most; default 32.
	Sequences int
	// NoLookup turns speculation off. It changes the speed alone.
	NoLookup bool
}

const (
	defaultSequences = 32

	// stepTokens is how many tokens pass the network together at most. While texts are
	// being written, prompts that are read beside them get promptTokens of them, so
	// that the texts do not falter.
	stepTokens   = 256
	promptTokens = 64
)

// size returns what a step of the batcher has room for.
func (o BatchOptions) size(c *family.Config) passSize {
	n := o.Sequences
	if n == 0 {
		n = defaultSequences
	}
	return passSize{tokens: max(stepTokens, n+maxDraft), sequences: n, outputs: n + maxDraft, positions: c.Context}
}

// Batcher writes many texts at once with one model (continuous batching, Yu et al.
// 2022): in each step the next tokens of all of them pass the network together. It
// owns the goroutine that computes. Texts that begin alike share the keys and values
// of what they have in common, also after one of them has ended.
//
// A text has the same logits, bit for bit, whatever is written beside it.
type Batcher struct {
	model  *Model
	pass   *pass
	cache  *pages
	most   int // sequences at once
	lookup bool
	window int // that all layers have, or 0

	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when the goroutine has
	wake   chan struct{} // of capacity one: something arrived, or it is to end

	steps, computed atomic.Int64 // and the tokens in them

	mu      sync.Mutex
	arrived []*task
	closed  bool

	// What follows belongs to the goroutine.

	waiting  []*task // for memory: first come, first served
	active   []*task
	prompts  []*task // of a step: those whose text is being read
	running  []*task // of a step: those of runs
	runs     []run
	choosing []*task // those whose turn it is
}

// Next is told the logits [V] of what follows a text, which are valid until it returns
// and must not be changed, and chooses the next token; more says whether to go on after
// it. It should return soon: other texts wait for it.
type Next func(logits []float32) (id int, more bool)

// NewBatcher returns a batcher, which must be closed before its model is. When ctx ends
// all texts fail with its cause. The error wraps ErrFull if the memory does not hold a
// single page.
func (m *Model) NewBatcher(ctx context.Context, o BatchOptions) (*Batcher, error) {
	c, size := &m.config, o.size(&m.config)
	limit := int64(size.sequences) * int64(pagesFor(c.Context))
	if o.Memory > 0 {
		limit = min(limit, o.Memory/pageBytes(c))
	}
	if limit < 1 || o.Sequences < 0 {
		return nil, fmt.Errorf("lm: %d bytes for keys and values of %d texts; a page takes %d: %w", o.Memory, size.sequences, pageBytes(c), ErrFull)
	}
	b := &Batcher{
		model: m, pass: m.newPass(size), cache: newPages(c, int(limit)), most: size.sequences,
		lookup: !o.NoLookup, window: c.CommonWindow(),
		ended: make(chan struct{}), wake: make(chan struct{}, 1),
		active: make([]*task, 0, size.sequences), prompts: make([]*task, 0, size.sequences),
		running: make([]*task, 0, size.sequences), runs: make([]run, 0, size.sequences),
		choosing: make([]*task, 0, size.sequences),
	}
	b.cache.prefixes = newPrefixes()
	ctx, b.cancel = context.WithCancelCause(ctx)
	go b.work(ctx)
	return b, nil
}

// Room returns the most tokens that a text can have, its prompt included.
func (b *Batcher) Room() int {
	if b.window > 0 && b.windowPages() <= b.cache.limit {
		return b.model.config.Context
	}
	return min(b.model.config.Context, b.cache.limit*PageTokens)
}

// pagesOf returns how many pages a text of so many tokens holds at once.
func (b *Batcher) pagesOf(tokens int) int {
	n := pagesFor(tokens)
	if b.window > 0 {
		n = min(n, b.windowPages())
	}
	return n
}

// windowPages is what a text holds whose layers all have a window: that, what is being
// computed, and a page in part at either end.
func (b *Batcher) windowPages() int { return pagesFor(b.window+b.pass.tokens) + 2 }

// Generate writes texts that begin with the prompt, one for each of choices, each of so
// many tokens at most. A text ends at that length or when its Next says so; Generate
// returns when all have ended, with the first error. A panic of a Next is the caller's.
//
// The texts wait until there is memory for them. The error is the cause of ctx if that
// ends, within a step; it wraps ErrFull if a text would never have room, ErrToken for a
// token outside the vocabulary, and is ErrClosed after Close.
func (b *Batcher) Generate(ctx context.Context, prompt []int, tokens int, choices ...Next) error {
	if len(prompt) == 0 || tokens < 1 || len(choices) == 0 {
		return fmt.Errorf("lm: %d texts of %d tokens after %d: %w", len(choices), tokens, len(prompt), ErrToken)
	}
	if err := b.model.checkTokens(prompt); err != nil {
		return err
	}
	length := len(prompt) + tokens
	if length > b.model.config.Context || b.pagesOf(length) > b.cache.limit {
		return fmt.Errorf("lm: %d tokens after %d where there is room for %d: %w", tokens, len(prompt), b.Room(), ErrFull)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	prompt = slices.Clone(prompt) // the batcher may look at it after the caller has left
	tasks := make([]*task, len(choices))
	for i, next := range choices {
		tasks[i] = &task{
			next: next, left: tokens, prompt: prompt, length: len(prompt), pages: b.pagesOf(length),
			turns: make(chan turn, 1), replies: make(chan bool, 1), chosen: make([]int, 0, 1+maxDraft),
		}
	}
	if !b.submit(tasks) {
		return ErrClosed
	}
	var others sync.WaitGroup
	for _, t := range tasks[1:] {
		others.Go(func() { b.serve(ctx, t, stop) })
	}
	b.serve(ctx, tasks[0], stop)
	others.Wait()
	err := context.Cause(ctx)
	if p := new(stepPanic); errors.As(err, &p) {
		panic(p)
	}
	return err
}

// stepPanic is a panic on its way to the caller of Generate.
type stepPanic struct {
	value any
	stack []byte
}

// Error tells where it came from.
func (p *stepPanic) Error() string { return fmt.Sprintf("%v\n\n%s", p.value, p.stack) }

func newStepPanic(v any) *stepPanic { return &stepPanic{v, debug.Stack()} }

// serve has the tokens of a text chosen until it ends, on a goroutine of the one who
// asked for it, and stops the others after an error or a panic.
func (b *Batcher) serve(ctx context.Context, t *task, stop context.CancelCauseFunc) {
	defer t.leave()
	defer func() {
		if v := recover(); v != nil {
			stop(newStepPanic(v))
		}
	}()
	for more := true; more; {
		var err error
		select {
		case turn := <-t.turns:
			if err = turn.err; err == nil && ctx.Err() == nil {
				more, err = t.choose(ctx, turn.logits, b.model.config.Vocab)
			}
		case <-ctx.Done():
		}
		switch {
		case err != nil:
			stop(err)
			return
		case ctx.Err() != nil:
			return
		case more:
			t.replies <- true
		}
	}
}

// submit hands tasks to the goroutine, unless it is to end.
func (b *Batcher) submit(tasks []*task) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.arrived = append(b.arrived, tasks...)
	b.poke()
	return true
}

func (b *Batcher) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Close ends all texts and waits for the goroutine.
func (b *Batcher) Close() error {
	b.cancel(ErrClosed)
	<-b.ended
	return nil
}

// task is a text that is being written. Its caller chooses tokens when it is their turn
// and the batcher does everything else: at any time one of them works on it.
type task struct {
	next   Next
	left   int // tokens that may still be written
	prompt []int
	pages  int // that it needs at most

	turns   chan turn // of capacity one
	replies chan bool // of capacity one: whether it goes on
	gone    atomic.Bool

	seq    *sequence
	length int   // of the text, without what is proposed
	begun  bool  // a token was written
	leader *task // whose keys and values this one waits for
	shared int   // tokens at the beginning that it has in common with the leader
	lookup lookup

	proposed []int // in the text after length
	chosen   []int // in the last turn
}

// turn is what a caller is waiting for: logits of the next position, and of those after
// it as long as the choice is what was proposed; or why the text cannot go on.
type turn struct {
	logits []float32 // [1 + proposed, V]
	err    error
}

// choose has the next tokens chosen: one, and another one for each that was proposed
// and has turned out right, until ctx ends.
func (t *task) choose(ctx context.Context, logits []float32, vocab int) (more bool, err error) {
	t.chosen = t.chosen[:0]
	for i := 0; ; i++ {
		id, more := t.next(logits[i*vocab:][:vocab:vocab])
		if id < 0 || id >= vocab {
			return false, fmt.Errorf("lm: token %d was chosen in a vocabulary of %d: %w", id, vocab, ErrToken)
		}
		t.chosen = append(t.chosen, id)
		if t.left--; !more || t.left == 0 {
			return false, nil
		}
		if i == len(t.proposed) || t.proposed[i] != id || ctx.Err() != nil {
			return true, nil
		}
	}
}

// leave tells the batcher that the caller does not answer any more.
func (t *task) leave() {
	t.gone.Store(true)
	select {
	case t.replies <- false:
	default: // an answer is there already; the batcher finds out before the next turn
	}
}

// tell makes it the caller's turn. A caller who has left may not have taken the last one.
func (t *task) tell(turn turn) {
	select {
	case t.turns <- turn:
	default:
	}
}

// reading reports whether there is more to compute than the token that was written last.
func (t *task) reading() bool { return !t.begun || t.seq.ready < t.length-1 }

// accept makes what was chosen part of the text, and what was proposed beyond it not.
func (t *task) accept() {
	right := len(t.chosen) - 1
	if len(t.proposed) > 0 {
		t.lookup.judge(right, len(t.proposed))
	}
	t.seq.truncate(t.length + right)
	t.seq.text = append(t.seq.text, t.chosen[right])
	t.length = len(t.seq.text)
	t.begun, t.proposed = true, nil
}

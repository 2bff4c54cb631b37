package lm

import (
	"context"
	"slices"
)

// work is the life of the batcher's goroutine.
func (b *Batcher) work(ctx context.Context) {
	defer close(b.ended)
	defer context.AfterFunc(ctx, b.poke)()
	for b.receive(ctx) {
		b.admit()
		if b.plan(); len(b.runs) == 0 {
			continue
		}
		b.steps.Add(1)
		logits, err := b.compute(ctx)
		if err != nil {
			b.fail(err)
			continue
		}
		b.deliver(logits)
		b.collect()
	}
	b.mu.Lock()
	b.closed = true
	b.waiting = append(b.waiting, b.arrived...)
	b.mu.Unlock()
	for _, t := range slices.Concat(b.active, b.waiting) {
		t.tell(turn{err: context.Cause(ctx)})
	}
}

// receive takes in what arrived, waiting for it if there is nothing else to do. It
// returns false when the batcher is to end.
func (b *Batcher) receive(ctx context.Context) bool {
	if len(b.active)+len(b.waiting) == 0 {
		<-b.wake
	}
	b.mu.Lock()
	b.waiting = append(b.waiting, b.arrived...)
	clear(b.arrived)
	b.arrived = b.arrived[:0]
	b.mu.Unlock()
	return ctx.Err() == nil
}

// admit lets in those who wait, in their order, as far as there is room, after those
// who have left have gone.
func (b *Batcher) admit() {
	for i := 0; i < len(b.active); {
		if b.active[i].gone.Load() {
			b.remove(i)
		} else {
			i++
		}
	}
	for len(b.waiting) > 0 {
		t := b.waiting[0]
		if !t.gone.Load() {
			if len(b.active) == b.most || !b.cache.promise(t.pages) {
				return
			}
			b.start(t)
		}
		b.waiting = slices.Delete(b.waiting, 0, 1)
	}
}

// start makes a task active.
func (b *Batcher) start(t *task) {
	t.seq = b.cache.newSequence(len(t.prompt)+t.left, t.pages)
	t.seq.text = append(t.seq.text, t.prompt...)
	t.seq.begin(&b.model.config, t.length)
	t.seq.adopt()
	b.active = append(b.active, t)
	b.lead(t, len(b.active)-1)
}

// remove ends the task at an index of active.
func (b *Batcher) remove(i int) {
	t := b.active[i]
	t.seq.close()
	b.active = slices.Delete(b.active, i, i+1)
	for i, other := range b.active {
		if other.leader == t {
			b.lead(other, i)
		}
	}
}

// forget gives back what is behind the window of all layers, before a step takes more.
func (b *Batcher) forget(t *task) {
	if b.window > 0 {
		t.seq.forgetBefore(t.seq.ready + 1 - b.window)
	}
}

// lead finds, among the tasks before index i that are reading, the one that has most in
// common with a task, which then waits for what they share: it is computed once.
func (b *Batcher) lead(t *task, i int) {
	t.leader, t.shared = nil, 0
	for _, other := range b.active[:i] {
		if other.begun || other.seq.made != t.seq.made {
			continue
		}
		n := inCommon(t.prompt, other.prompt)
		if n < len(t.prompt) || n < len(other.prompt) {
			n = min(n, len(t.prompt)-1) / PageTokens * PageTokens
		}
		if n > max(t.shared, t.seq.ready) {
			t.leader, t.shared = other, n
		}
	}
}

// inCommon returns how many tokens two texts have in common at their beginning.
func inCommon(a, b []int) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// waits reports whether a task still waits for another, after taking over what that
// one has computed by now.
func (b *Batcher) waits(t *task) bool {
	if t.leader == nil {
		return false
	}
	t.seq.adopt()
	if t.seq.ready >= t.shared || t.leader.begun {
		t.leader = nil
	}
	return t.leader != nil
}

// plan decides what the next step computes: the last tokens of all that are being
// written, and parts of those that are being read, to each as much.
func (b *Batcher) plan() {
	c := &b.model.config
	b.runs, b.running, b.prompts = b.runs[:0], b.running[:0], b.prompts[:0]
	written := 0
	for _, t := range b.active {
		t.seq.begin(c, t.length) // it may have to be read again
		switch {
		case !t.reading():
			written++
		case !b.waits(t):
			b.prompts = append(b.prompts, t)
		}
		b.forget(t)
	}
	room := b.pass.tokens
	propose := 0
	if b.lookup && len(b.prompts) == 0 && written > 0 {
		propose = maxDraft / written
	}
	for _, t := range b.active {
		if t.reading() {
			continue
		}
		n := 1
		if propose > 0 {
			n += t.propose(c, propose)
		}
		b.run(t, n, n)
		room -= n
	}
	if written > 0 {
		room = min(room, promptTokens)
	}
	for i, t := range b.prompts {
		left := t.length - t.seq.ready
		n := min(left, max(1, room/(len(b.prompts)-i)), room)
		if n == 0 {
			break
		}
		wanted := 0
		if n == left {
			wanted = 1
		}
		b.run(t, n, wanted)
		room -= n
	}
}

// run makes the next n tokens of a task part of the step.
func (b *Batcher) run(t *task, n, wanted int) {
	b.runs = append(b.runs, run{seq: t.seq, tokens: n, length: t.length, wanted: wanted})
	b.running = append(b.running, t)
	b.computed.Add(int64(n))
}

// compute runs the step and returns the logits [R, V] that it asks for. A panic is
// an error.
func (b *Batcher) compute(ctx context.Context) (logits []float32, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = newStepPanic(v)
		}
	}()
	states, err := b.pass.step(ctx, b.runs, nil)
	if err != nil || len(states) == 0 {
		return nil, err
	}
	return b.pass.score(states), nil
}

// fail ends the tasks of a step.
func (b *Batcher) fail(err error) {
	for _, t := range b.running {
		if i := slices.Index(b.active, t); i >= 0 {
			t.tell(turn{err: err})
			b.remove(i)
		}
	}
}

// deliver hands logits to those who choose by them. A task that waited for one with the
// same prompt goes on from there.
func (b *Batcher) deliver(logits []float32) {
	v := b.model.config.Vocab
	b.choosing = b.choosing[:0]
	for i, t := range b.running {
		own := logits[:b.runs[i].wanted*v]
		logits = logits[len(own):]
		if len(own) == 0 {
			continue
		}
		b.turn(t, own)
		for _, f := range b.active {
			if f.leader == t && f.shared == len(f.prompt) {
				f.leader = nil
				f.seq.follow(t.seq)
				b.turn(f, own)
			}
		}
	}
}

func (b *Batcher) turn(t *task, logits []float32) {
	t.tell(turn{logits: logits})
	b.choosing = append(b.choosing, t)
}

// collect waits for what was chosen, and makes it part of the texts.
func (b *Batcher) collect() {
	for _, t := range b.choosing {
		if <-t.replies {
			t.accept()
		}
	}
}

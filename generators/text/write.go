package text

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"helicon/generators"
	"helicon/models/lm"
	"helicon/models/sample"
	"helicon/queue"
)

// The reasons why a text ends.
const (
	finishStop   = "stop"   // the model ended it, or a stop string
	finishLength = "length" // it reached max_tokens or the end of the context window

	finishToolCalls = "tool_calls" // the model calls tools
)

// choice is one finished answer.
type choice struct {
	Index        int                  `json:"index"`
	Text         string               `json:"text"`
	FinishReason string               `json:"finish_reason"`
	Logprobs     []queue.TokenLogprob `json:"logprobs,omitempty"`
	ToolCalls    []toolCall           `json:"tool_calls,omitempty"`
}

// meta is what the result states beside the text.
type meta struct {
	Model            string     `json:"model"`
	Digest           string     `json:"digest"`
	FinishReason     string     `json:"finish_reason"`
	Parameters       parameters `json:"parameters"`
	Choices          []choice   `json:"choices,omitempty"`
	ToolCalls        []toolCall `json:"tool_calls,omitempty"` // of the first choice
	DroppedMessages  int        `json:"dropped_messages,omitempty"`
	TokensPerSecond  float64    `json:"tokens_per_second"`
	TimeToFirstToken float64    `json:"time_to_first_token"` // seconds from when the job began to compute
}

// writer writes the choices of one job.
type writer struct {
	*engine
	params parameters
	prompt prompt
	form   *boundForm // nil: the text is free
	begun  time.Time
	out    generators.Output

	mu      sync.Mutex // of what follows: choices are written side by side
	first   time.Time  // when the first token was chosen
	written int        // tokens, in all choices
}

// write does the work of Generate on a loaded model.
func (e *engine) write(ctx context.Context, r *request, out generators.Output) (*queue.Result, error) {
	w := &writer{engine: e, params: r.params, out: out, begun: time.Now()}
	var err error
	if w.prompt, err = e.read(ctx, r); err != nil {
		return nil, err
	}
	if w.form, err = e.bind(r.form); err != nil {
		return nil, err
	}
	w.params.MaxTokens = min(w.params.MaxTokens, e.model.Config().Context-len(w.prompt.tokens))
	if err := cmp.Or(w.checkLogprobs(), e.checkRoom(len(w.prompt.tokens)+w.params.MaxTokens)); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	passages, next := make([]*passage, w.params.N), make([]lm.Next, w.params.N)
	for i := range passages {
		p, err := w.passage(i, stop)
		if err != nil {
			return nil, fmt.Errorf("text: %w", err)
		}
		passages[i], next[i] = p, p.next
	}
	err = e.batcher.Generate(ctx, w.prompt.tokens, w.params.MaxTokens, next...)
	if errors.Is(err, lm.ErrToken) {
		return nil, unusable(e.bundle, fmt.Errorf("its tokenizer does not fit its weights: %w", err))
	}
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	choices := make([]choice, len(passages))
	for i, p := range passages {
		choices[i] = p.end()
	}
	return w.result(choices)
}

// checkLogprobs refuses a job whose log probabilities would not fit into its result.
func (w *writer) checkLogprobs() error {
	if w.params.Logprobs == nil {
		return nil
	}
	rows := w.params.N * w.params.MaxTokens * (1 + *w.params.Logprobs)
	if rows <= maxProbableRows {
		return nil
	}
	return &queue.Problem{
		Code:   "invalid_request",
		Detail: fmt.Sprintf("Up to %d log probabilities were asked for; a result holds %d. Ask for fewer tokens, answers or log probabilities.", rows, maxProbableRows),
		Errors: []queue.FieldError{{Pointer: "/logprobs", Detail: "too many together with max_tokens and n"}},
	}
}

func (w *writer) result(choices []choice) (*queue.Result, error) {
	m := meta{
		Model: w.bundle.ID, Digest: w.digest, FinishReason: choices[0].FinishReason, Parameters: w.params,
		ToolCalls:        choices[0].ToolCalls,
		DroppedMessages:  w.prompt.dropped,
		TimeToFirstToken: rounded(w.first.Sub(w.begun).Seconds()),
	}
	if decoding := time.Since(w.first).Seconds(); decoding > 0 && w.written > 1 {
		m.TokensPerSecond = rounded(float64(w.written-1) / decoding) // the first one waited for the prompt
	}
	if w.params.N > 1 || w.params.Logprobs != nil {
		m.Choices = choices
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	return &queue.Result{
		Text: choices[0].Text,
		Usage: &queue.Usage{
			InputTokens: len(w.prompt.tokens), OutputTokens: w.written,
			ComputeSeconds: rounded(time.Since(w.begun).Seconds()),
		},
		Meta: body,
	}, nil
}

// rounded keeps a figure of time to what can be measured.
func rounded(x float64) float64 { return math.Round(x*1000) / 1000 }

// passage is a choice while it is written.
type passage struct {
	*writer
	fail    context.CancelCauseFunc // ends the job
	index   int
	sampler *sample.Sampler
	stops   *sample.StopMatcher
	decoder textDecoder
	calls   *callReader // nil: no tools may be called
	finish  string

	text     strings.Builder
	logprobs []queue.TokenLogprob // of the text so far
	held     []queue.TokenLogprob // of tokens whose text is not complete
}

// passage begins a choice.
func (w *writer) passage(index int, fail context.CancelCauseFunc) (*passage, error) {
	p := &passage{writer: w, fail: fail, index: index, decoder: w.decoder(), finish: finishLength}
	var err error
	if p.sampler, err = sample.New(w.params.sample(index), w.model.Config().Vocab); err != nil {
		return nil, err
	}
	p.sampler.Prompt(w.prompt.tokens)
	if w.form != nil {
		p.sampler.Constrain(w.form.constraint())
		p.calls = w.form.callReader(w.params.Seed, index)
	}
	if p.stops, err = sample.NewStopMatcher(w.params.Stop); err != nil {
		return nil, err
	}
	p.add(w.prompt.echo)
	return p, nil
}

// add passes text on to whoever watches.
func (p *passage) add(text string) {
	if text == "" {
		return
	}
	p.out.Delta(queue.Delta{Text: text, Offset: p.text.Len(), Choice: p.index, Logprobs: p.held})
	p.text.WriteString(text)
	p.logprobs = append(p.logprobs, p.held...)
	p.held = nil
}

// next is the passage's lm.Next.
func (p *passage) next(logits []float32) (id int, more bool) {
	id, more, err := p.choose(logits)
	if err != nil {
		p.fail(err)
	}
	return id, more
}

// choose takes the passage one token further.
func (p *passage) choose(logits []float32) (id int, more bool, err error) {
	id, err = p.sampler.Next(logits)
	if errors.Is(err, sample.ErrNoToken) && p.form != nil {
		return 0, false, p.form.stuck(p.bundle.ID)
	}
	if errors.Is(err, sample.ErrLogits) || errors.Is(err, sample.ErrNoToken) { // no parameter of ours forbids a token
		return 0, false, unusable(p.bundle, fmt.Errorf("its weights produce no numbers to choose a token by: %w", err))
	}
	if err != nil {
		return 0, false, err
	}
	ends := p.engine.stops[id]
	p.count(!ends)
	if ends {
		p.finish = finishStop
		return id, false, nil
	}
	if err := p.measure(logits, id); err != nil {
		return 0, false, err
	}
	text, stopped := p.stops.Push(p.decoder.Push(id))
	p.add(p.calls.push(text))
	if stopped = stopped || p.sampler.Ended(); stopped {
		p.finish = finishStop
	}
	return id, !stopped, nil
}

// count records that a token was chosen, and that it is part of the text.
func (w *writer) count(written bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first.IsZero() {
		w.first = time.Now()
	}
	if written {
		w.written++
		w.out.Progress(w.written, w.params.N*w.params.MaxTokens)
	}
}

// end returns the choice.
func (p *passage) end() choice {
	// A character that the text ends in the middle of is no text.
	text, stopped := p.stops.Push(strings.TrimRight(p.decoder.Flush(), "\uFFFD"))
	text, calls := p.calls.end(text + p.stops.Flush())
	p.add(text)
	if stopped {
		p.finish = finishStop
	}
	if calls != nil {
		p.finish = finishToolCalls
	}
	return choice{Index: p.index, Text: p.text.String(), FinishReason: p.finish, Logprobs: p.logprobs, ToolCalls: calls}
}

// textDecoder turns tokens into text as they come.
type textDecoder interface {
	Push(id int) string
	Flush() string
}

// decoder returns one for the text behind the prompt. A completion goes on in the
// middle of a text, where a token may mean a space that it does not at the start.
func (w *writer) decoder() textDecoder {
	if w.form != nil {
		return w.form.decoder()
	}
	d := w.tokenizer.NewDecoder(true)
	if w.prompt.continues {
		for _, id := range w.prompt.tokens {
			d.Push(id)
		}
	}
	return d
}

// measure records the log probabilities of a token, if they were asked for.
func (p *passage) measure(logits []float32, id int) error {
	if p.params.Logprobs == nil {
		return nil
	}
	chosen, top, err := sample.Logprobs(logits, id, *p.params.Logprobs)
	if err != nil {
		return fmt.Errorf("text: %w", err)
	}
	t := p.logprob(chosen)
	for _, other := range top {
		t.Top = append(t.Top, p.logprob(other))
	}
	p.held = append(p.held, t)
	return nil
}

// impossible stands for the logarithm of zero, which JSON cannot write.
const impossible = -9999

func (w *writer) logprob(l sample.Logprob) queue.TokenLogprob {
	spelled := w.tokenizer.TokenBytes(l.ID)
	t := queue.TokenLogprob{
		Token:   strings.ToValidUTF8(string(spelled), "\uFFFD"),
		Bytes:   make([]int, len(spelled)),
		Logprob: max(l.Logprob, impossible),
	}
	for i, b := range spelled {
		t.Bytes[i] = int(b)
	}
	return t
}

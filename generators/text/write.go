package text

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"helicon/generators"
	"helicon/models/lm"
	"helicon/models/sample"
	"helicon/models/tokenizer"
	"helicon/queue"
)

// The reasons why a text ends.
const (
	finishStop   = "stop"   // the model ended it, or a stop string
	finishLength = "length" // it reached max_tokens or the end of the context window
)

// choice is one finished answer.
type choice struct {
	Index        int                  `json:"index"`
	Text         string               `json:"text"`
	FinishReason string               `json:"finish_reason"`
	Logprobs     []queue.TokenLogprob `json:"logprobs,omitempty"`
}

// meta is what the result states beside the text.
type meta struct {
	Model            string     `json:"model"`
	Digest           string     `json:"digest"`
	FinishReason     string     `json:"finish_reason"`
	Parameters       parameters `json:"parameters"`
	Choices          []choice   `json:"choices,omitempty"`
	DroppedMessages  int        `json:"dropped_messages,omitempty"`
	TokensPerSecond  float64    `json:"tokens_per_second"`
	TimeToFirstToken float64    `json:"time_to_first_token"` // seconds from when the job began to compute
}

// writer writes the choices of one job.
type writer struct {
	*engine
	params parameters
	prompt prompt
	state  *lm.State
	out    generators.Output

	begun   time.Time
	first   time.Time // when the first token was chosen
	written int       // tokens, in all choices
	next    [1]int    // the token to read, without an allocation
}

// write does the work of Generate on a loaded model.
func (e *engine) write(ctx context.Context, r *request, out generators.Output) (*queue.Result, error) {
	w := &writer{engine: e, params: r.params, out: out, begun: time.Now()}
	var err error
	if w.prompt, err = e.read(ctx, r); err != nil {
		return nil, err
	}
	w.params.MaxTokens = min(w.params.MaxTokens, e.model.Config().Context-len(w.prompt.tokens))
	if err := w.checkLogprobs(); err != nil {
		return nil, err
	}
	if w.state, err = e.model.NewState(len(w.prompt.tokens) + w.params.MaxTokens); err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	logits, err := e.model.Forward(ctx, w.state, w.prompt.tokens)
	if errors.Is(err, lm.ErrToken) {
		return nil, unusable(e.bundle, fmt.Errorf("its tokenizer does not fit its weights: %w", err))
	}
	if err != nil {
		return nil, fmt.Errorf("text: prompt: %w", err)
	}
	logits = slices.Clone(logits) // every choice begins with them
	choices := make([]choice, w.params.N)
	for i := range choices {
		w.state.Truncate(len(w.prompt.tokens))
		if choices[i], err = w.choice(ctx, i, logits); err != nil {
			return nil, err
		}
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
	out      generators.Output
	index    int
	text     strings.Builder
	logprobs []queue.TokenLogprob // of the text so far
	held     []queue.TokenLogprob // of tokens whose text is not complete
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

// choice writes one answer, from the logits behind the prompt.
func (w *writer) choice(ctx context.Context, index int, logits []float32) (choice, error) {
	sampler, err := sample.New(w.params.sample(index), w.model.Config().Vocab)
	if err != nil {
		return choice{}, fmt.Errorf("text: %w", err)
	}
	sampler.Prompt(w.prompt.tokens)
	stops, err := sample.NewStopMatcher(w.params.Stop)
	if err != nil {
		return choice{}, fmt.Errorf("text: %w", err)
	}
	decoder := w.decoder()
	p := &passage{out: w.out, index: index}
	p.add(w.prompt.echo)
	finish := finishLength
	for n := range w.params.MaxTokens {
		if n > 0 {
			if logits, err = w.model.Forward(ctx, w.state, w.next[:]); err != nil {
				return choice{}, fmt.Errorf("text: token %d: %w", n, err)
			}
		}
		id, err := sampler.Next(logits)
		if errors.Is(err, sample.ErrLogits) || errors.Is(err, sample.ErrNoToken) { // no parameter of ours forbids a token
			return choice{}, unusable(w.bundle, fmt.Errorf("its weights produce no numbers to choose a token by: %w", err))
		}
		if err != nil {
			return choice{}, fmt.Errorf("text: token %d: %w", n, err)
		}
		if w.first.IsZero() {
			w.first = time.Now()
		}
		if w.stops[id] {
			finish = finishStop
			break
		}
		w.next[0] = id
		w.written++
		if err := w.measure(p, logits, id); err != nil {
			return choice{}, err
		}
		text, stopped := stops.Push(decoder.Push(id))
		p.add(text)
		w.out.Progress(index*w.params.MaxTokens+n+1, w.params.N*w.params.MaxTokens)
		if stopped {
			finish = finishStop
			break
		}
	}
	// A character that the text ends in the middle of is no text.
	text, stopped := stops.Push(strings.TrimRight(decoder.Flush(), "\uFFFD"))
	p.add(text + stops.Flush())
	if stopped {
		finish = finishStop
	}
	return choice{Index: index, Text: p.text.String(), FinishReason: finish, Logprobs: p.logprobs}, nil
}

// decoder returns one for the text behind the prompt. A completion goes on in the
// middle of a text, where a token may mean a space that it does not at the start.
func (w *writer) decoder() *tokenizer.Decoder {
	d := w.tokenizer.NewDecoder(true)
	if w.prompt.continues {
		for _, id := range w.prompt.tokens {
			d.Push(id)
		}
	}
	return d
}

// measure records the log probabilities of a token, if they were asked for.
func (w *writer) measure(p *passage, logits []float32, id int) error {
	if w.params.Logprobs == nil {
		return nil
	}
	chosen, top, err := sample.Logprobs(logits, id, *w.params.Logprobs)
	if err != nil {
		return fmt.Errorf("text: %w", err)
	}
	t := w.logprob(chosen)
	for _, other := range top {
		t.Top = append(t.Top, w.logprob(other))
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

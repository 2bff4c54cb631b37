package text

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"helicon/generators"
	"helicon/models/lm"
	"helicon/models/sample"
	"helicon/queue"
)

// Limits on beam search, as the schemas state them.
const (
	maxBeams         = 16
	maxLengthPenalty = 5
)

// beamInput is the members about beam search.
type beamInput struct {
	NumBeams      *whole   `json:"num_beams"`
	LengthPenalty *float64 `json:"length_penalty"`
	EarlyStopping *bool    `json:"early_stopping"`
}

// beamParameters are the values used, as the result states them.
type beamParameters struct {
	NumBeams      int     `json:"num_beams"`
	LengthPenalty float64 `json:"length_penalty"`
	EarlyStopping bool    `json:"early_stopping"`
}

// beams returns the parameters of a beam search, nil if tokens are drawn.
func (in *input) beams() *beamParameters {
	if in.NumBeams == nil || *in.NumBeams == 1 {
		return nil
	}
	p := &beamParameters{NumBeams: int(*in.NumBeams), LengthPenalty: 1}
	p.LengthPenalty = *cmp.Or(in.LengthPenalty, &p.LengthPenalty)
	p.EarlyStopping = *cmp.Or(in.EarlyStopping, &p.EarlyStopping)
	return p
}

// search makes the parameters those of a beam search, which leaves nothing to chance.
func (p parameters) search(b *beamParameters) parameters {
	p.Temperature, p.TopK, p.TopP, p.MinP, p.RepetitionPenalty, p.PresencePenalty, p.FrequencyPenalty = 0, 0, 1, 0, 1, 0, 0
	p.Beams = b
	return p
}

// validateBeams checks the members about beam search, and that no others contradict them.
func (in *input) validateBeams(f *findings) {
	if in.NumBeams != nil {
		f.within(float64(*in.NumBeams), 1, maxBeams, "num_beams")
	}
	if in.LengthPenalty != nil {
		f.within(*in.LengthPenalty, -maxLengthPenalty, maxLengthPenalty, "length_penalty")
	}
	beams := in.beams()
	if beams == nil {
		f.check(in.LengthPenalty == nil, "/length_penalty", "is for beams: set num_beams above 1")
		f.check(in.EarlyStopping == nil, "/early_stopping", "is for beams: set num_beams above 1")
		return
	}
	f.check(in.N == nil || int(*in.N) <= beams.NumBeams, "/n", "want at most num_beams, %d", beams.NumBeams)
	for _, given := range []struct {
		name string
		ok   bool
	}{
		{"temperature", in.Temperature == nil || *in.Temperature == 0}, {"top_k", in.TopK == nil || *in.TopK == 0},
		{"top_p", in.TopP == nil || *in.TopP == 1}, {"min_p", in.MinP == nil || *in.MinP == 0},
		{"repetition_penalty", in.RepetitionPenalty == nil || *in.RepetitionPenalty == 1},
		{"presence_penalty", in.PresencePenalty == nil || *in.PresencePenalty == 0},
		{"frequency_penalty", in.FrequencyPenalty == nil || *in.FrequencyPenalty == 0},
		{"logprobs", in.Logprobs == nil}, {"grammar", in.Grammar == ""},
		{"response_format", in.ResponseFormat == nil || in.ResponseFormat.Type == formatText}, {"tools", !in.usesTools()},
	} {
		f.check(given.ok, "/"+given.name, "is not part of a beam search; leave it out, or num_beams")
	}
}

// search does the work of Generate by beam search.
func (e *engine) search(ctx context.Context, r *request, out generators.Output) (*queue.Result, error) {
	w := &writer{engine: e, params: r.params, out: out, begun: time.Now()}
	var err error
	if w.prompt, err = e.read(ctx, r); err != nil {
		return nil, err
	}
	w.params.MaxTokens = min(w.params.MaxTokens, e.model.Config().Context-len(w.prompt.tokens))
	beams, err := e.model.Beams(ctx, w.prompt.tokens, lm.BeamOptions{
		Beams: r.params.Beams.NumBeams, LengthPenalty: r.params.Beams.LengthPenalty, EarlyStopping: r.params.Beams.EarlyStopping,
		Tokens: w.params.MaxTokens, Ends: slices.Sorted(maps.Keys(e.stops)),
		Progress: func(tokens int) {
			if w.first.IsZero() {
				w.first = time.Now()
			}
			out.Progress(tokens, w.params.MaxTokens)
		},
	})
	switch {
	case errors.Is(err, lm.ErrToken):
		return nil, unusable(e.bundle, fmt.Errorf("its tokenizer does not fit its weights: %w", err))
	case errors.Is(err, sample.ErrLogits), errors.Is(err, sample.ErrNoToken):
		return nil, unusable(e.bundle, fmt.Errorf("its weights produce no numbers to choose a token by: %w", err))
	case err != nil:
		return nil, fmt.Errorf("text: %w", err)
	}
	choices := make([]choice, min(r.params.N, len(beams)))
	for i := range choices {
		if choices[i], err = w.found(i, beams[i]); err != nil {
			return nil, err
		}
	}
	return w.result(choices)
}

// found passes on a text that the search has found.
func (w *writer) found(index int, b lm.Beam) (choice, error) {
	stops, err := sample.NewStopMatcher(w.params.Stop)
	if err != nil {
		return choice{}, fmt.Errorf("text: %w", err)
	}
	p := &passage{writer: w, index: index, stops: stops, decoder: w.decoder(), finish: finishLength}
	if b.Ended {
		p.finish = finishStop
	}
	p.add(w.prompt.echo)
	for _, id := range b.Tokens {
		w.written++
		text, stopped := p.stops.Push(p.decoder.Push(id))
		if p.add(text); stopped {
			p.finish = finishStop
			break
		}
	}
	return p.end(), nil
}

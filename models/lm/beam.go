package lm

import (
	"context"
	"fmt"
	"math"
	"slices"

	"helicon/models/sample"
)

// BeamOptions are the choices of Model.Beams.
type BeamOptions struct {
	Beams  int // texts that are followed at once, at least 1
	Tokens int // the most to write, at least 1

	// LengthPenalty is the power of the length by which the log probability of a text is
	// divided to be its score: above 0 favours longer texts.
	LengthPenalty float64
	// EarlyStopping ends the search when as many texts have ended as there are beams,
	// even if one that is still open might have a better score.
	EarlyStopping bool
	// Ends are the tokens that end a text.
	Ends []int
	// Progress is told how many tokens have been written; it may be nil.
	Progress func(tokens int)
}

// Beam is a text that a beam search has found.
type Beam struct {
	Tokens []int // behind the prompt, without the one that ends it
	Ended  bool  // by one of Ends, not by its length
	Score  float64
}

// maxBeams bounds the states of one search.
const maxBeams = 64

// Beams searches for the likeliest texts behind a prompt with a beam search, as
// transformers' generate does it, and returns as many as there are beams, the best
// first. The errors are those of NewState and Forward, and those of sample.Logprobs for
// logits that are no numbers.
func (m *Model) Beams(ctx context.Context, prompt []int, o BeamOptions) ([]Beam, error) {
	if o.Beams < 1 || o.Beams > maxBeams || o.Tokens < 1 {
		return nil, fmt.Errorf("lm: %d beams of %d tokens: %w", o.Beams, o.Tokens, ErrFull)
	}
	state, err := m.NewState(len(prompt) + o.Tokens)
	if err != nil {
		return nil, err
	}
	logits, err := m.Forward(ctx, state, prompt)
	if err != nil {
		return nil, err
	}
	s := &beamSearch{BeamOptions: o, model: m, keep: max(2, 1+len(o.Ends)) * o.Beams}
	s.open = []openBeam{{state: state}}
	if err := s.look(0, logits); err != nil {
		return nil, err
	}
	for s.written < o.Tokens && !s.done {
		if err := s.step(ctx); err != nil {
			return nil, err
		}
		if o.Progress != nil {
			o.Progress(s.written)
		}
	}
	if !s.done {
		for _, b := range s.open {
			s.finish(Beam{Tokens: b.tokens, Score: s.score(b.sum)})
		}
	}
	return s.found, nil
}

// beamSearch is a search under way.
type beamSearch struct {
	BeamOptions
	model   *Model
	keep    int // candidates of a step: enough that beams of them go on whatever ends
	written int
	open    []openBeam
	next    []candidate // of the step to come, unordered
	found   []Beam      // by falling score, as many as there are beams at most
	done    bool
}

// openBeam is a text that goes on.
type openBeam struct {
	tokens []int
	sum    float64 // of the logarithms of the probabilities
	state  *State
}

// candidate is an open text with one more token.
type candidate struct {
	beam, id int
	sum      float64
}

// look adds the candidates of a beam, from the logits of what follows it.
func (s *beamSearch) look(beam int, logits []float32) error {
	_, top, err := sample.Logprobs(logits, 0, s.keep)
	if err != nil {
		return err
	}
	for _, t := range top {
		s.next = append(s.next, candidate{beam, t.ID, s.open[beam].sum + t.Logprob})
	}
	return nil
}

// score is that of a text of the current length.
func (s *beamSearch) score(sum float64) float64 {
	return sum / math.Pow(float64(s.written), s.LengthPenalty)
}

// finish takes in a text that has ended, if it is among the best.
func (s *beamSearch) finish(b Beam) {
	at, _ := slices.BinarySearchFunc(s.found, b, func(x, y Beam) int {
		if x.Score >= y.Score {
			return -1
		}
		return 1
	})
	s.found = slices.Insert(s.found, at, b)
	s.found = s.found[:min(len(s.found), s.Beams)]
}

// step makes all texts one token longer.
func (s *beamSearch) step(ctx context.Context) error {
	slices.SortStableFunc(s.next, func(a, b candidate) int {
		switch {
		case a.sum > b.sum:
			return -1
		case a.sum < b.sum:
			return 1
		}
		return 0
	})
	s.written++
	var chosen []candidate
	for rank, c := range s.next[:min(len(s.next), s.keep)] {
		if slices.Contains(s.Ends, c.id) {
			if rank < s.Beams {
				s.finish(Beam{Tokens: s.open[c.beam].tokens, Ended: true, Score: s.score(c.sum)})
			}
		} else if chosen = append(chosen, c); len(chosen) == s.Beams {
			break
		}
	}
	if len(s.found) == s.Beams {
		best := s.score(s.next[0].sum) // that an open text could have, were it to end here
		s.done = s.EarlyStopping || s.found[len(s.found)-1].Score >= best
	}
	s.done = s.done || len(chosen) == 0
	return s.advance(ctx, chosen)
}

// advance makes the chosen candidates the open texts.
func (s *beamSearch) advance(ctx context.Context, chosen []candidate) error {
	before := s.open
	s.open, s.next = make([]openBeam, len(chosen)), s.next[:0]
	heirs := make([]int, len(before))
	for i, c := range chosen {
		from := before[c.beam]
		b := openBeam{tokens: append(slices.Clone(from.tokens), c.id), sum: c.sum, state: from.state}
		if heirs[c.beam]++; heirs[c.beam] > 1 {
			b.state = from.state.Fork()
		}
		s.open[i] = b
	}
	for i, b := range before {
		if heirs[i] == 0 {
			b.state.Close()
		}
	}
	if s.done || s.written == s.Tokens {
		return nil
	}
	for i, c := range chosen {
		logits, err := s.model.Forward(ctx, s.open[i].state, []int{c.id})
		if err != nil {
			return err
		}
		if err := s.look(i, logits); err != nil {
			return err
		}
	}
	return nil
}

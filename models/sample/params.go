package sample

import (
	"fmt"
	"math"
)

// Params says how the next token is chosen from logits. The zero value is
// greedy decoding; start from Default to sample.
type Params struct {
	// Temperature divides the logits; 0 takes the most probable token always.
	Temperature float64 `json:"temperature,omitempty"`
	// TopK keeps the k most probable tokens (Fan et al. 2018); 0 keeps all.
	TopK int `json:"top_k,omitempty"`
	// TopP keeps the smallest set of most probable tokens whose mass reaches p
	// (nucleus sampling, Holtzman et al. 2020); 1 keeps all, 0 keeps one.
	TopP float64 `json:"top_p"`
	// MinP keeps the tokens that are at least p times as probable as the most
	// probable one (Nguyen et al. 2024); 0 keeps all.
	MinP float64 `json:"min_p,omitempty"`
	// TypicalP keeps the tokens of the most typical information content up to a
	// mass of p (locally typical sampling, Meister et al. 2023); 0 and 1 keep all.
	TypicalP float64 `json:"typical_p,omitempty"`

	// RepetitionPenalty divides positive logits, and multiplies negative ones,
	// of tokens in the prompt and the text so far (CTRL, Keskar et al. 2019);
	// 0 and 1 change nothing.
	RepetitionPenalty float64 `json:"repetition_penalty,omitempty"`
	// PresencePenalty is subtracted from the logits of tokens in the generated
	// text, FrequencyPenalty as often as they occur in it (OpenAI's definition;
	// the prompt does not count). Both lie in [-2, 2].
	PresencePenalty  float64 `json:"presence_penalty,omitempty"`
	FrequencyPenalty float64 `json:"frequency_penalty,omitempty"`
	// NoRepeatNGram forbids tokens that would complete a sequence of n tokens
	// that the prompt and the text so far already hold; 0 forbids none.
	NoRepeatNGram int `json:"no_repeat_ngram_size,omitempty"`

	// LogitBias is added to the logits of tokens by id, each in [-100, 100]
	// or -Inf, which forbids the token.
	LogitBias map[int]float64 `json:"logit_bias,omitempty"`
	// Seed determines all draws.
	Seed uint64 `json:"seed,omitempty"`
}

// Limits on parameters whose cost or range is otherwise unbounded.
const (
	minTemperature = 1e-5 // keeps divided logits apart; 0 is greedy
	maxTemperature = 100
	maxRepetition  = 100
	maxPenalty     = 2
	maxBias        = 100
)

// Default returns parameters that sample from the model's own distribution.
func Default() Params { return Params{Temperature: 1, TopP: 1} }

// FieldError says which parameter is wrong, by its JSON name, and why.
type FieldError struct {
	Field  string
	Reason string
}

// Error names the field.
func (e *FieldError) Error() string { return fmt.Sprintf("sample: %s: %s", e.Field, e.Reason) }

// Validate returns a *FieldError for the first parameter out of range. vocab
// is the number of tokens.
func (p *Params) Validate(vocab int) error {
	for _, f := range []struct {
		name           string
		value, low, up float64
	}{
		{"temperature", p.Temperature, 0, maxTemperature},
		{"top_p", p.TopP, 0, 1},
		{"min_p", p.MinP, 0, 1},
		{"typical_p", p.TypicalP, 0, 1},
		{"repetition_penalty", p.RepetitionPenalty, 0, maxRepetition},
		{"presence_penalty", p.PresencePenalty, -maxPenalty, maxPenalty},
		{"frequency_penalty", p.FrequencyPenalty, -maxPenalty, maxPenalty},
		{"top_k", float64(p.TopK), 0, math.MaxInt32},
		{"no_repeat_ngram_size", float64(p.NoRepeatNGram), 0, math.MaxInt32},
	} {
		if !(f.value >= f.low && f.value <= f.up) { // NaN is refused, too
			return &FieldError{f.name, fmt.Sprintf("%v is outside [%v, %v]", f.value, f.low, f.up)}
		}
	}
	if p.Temperature > 0 && p.Temperature < minTemperature {
		return &FieldError{"temperature", fmt.Sprintf("%v is below %v; use 0 for greedy decoding", p.Temperature, minTemperature)}
	}
	for id, bias := range p.LogitBias {
		if id < 0 || id >= vocab {
			return &FieldError{"logit_bias", fmt.Sprintf("token %d is outside the vocabulary of %d", id, vocab)}
		}
		if !(math.Abs(bias) <= maxBias) && !math.IsInf(bias, -1) {
			return &FieldError{"logit_bias", fmt.Sprintf("%v for token %d is outside [%d, %d]", bias, id, -maxBias, maxBias)}
		}
	}
	return nil
}

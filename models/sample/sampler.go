// Package sample chooses tokens from a language model's logits.
//
// A Sampler applies, in this order and as Hugging Face's transformers does:
// a constraint, repetition penalty, no-repeat n-grams, presence and frequency
// penalties, logit bias, temperature, top-k, top-p, min-p, typical-p, and then draws from
// what is left. The same logits, parameters and seed give the same tokens on
// every machine: the arithmetic is float64 in a fixed order with an
// exponential of its own (see exp), the generator is PCG, and ties go to the
// lowest id.
//
// The package also reports log probabilities (Logprobs) and ends texts at stop
// strings (StopMatcher). It knows nothing of models or of tokenizers.
package sample

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Errors that callers tell apart.
var (
	// ErrNoToken is returned when the parameters forbid every token.
	ErrNoToken = errors.New("sample: no token is left to choose from")
	// ErrLogits is wrapped when logits are NaN or +Inf: the model is broken.
	ErrLogits = errors.New("sample: logits are no numbers")
)

// Sampler chooses the tokens of one text. It owns its working memory, so that
// a step allocates nothing; it is not safe for concurrent use.
type Sampler struct {
	params Params
	bias   []bias
	source *rand.PCG

	constraint Constraint // or nil

	logits []float32  // of this step, after the penalties
	kept   candidates // that this step may choose

	history []int32  // prompt and generated tokens, if n-grams are forbidden
	seen    idSet    // ids in the prompt or generated
	counts  []uint32 // by id, of generated tokens
	written idSet    // ids generated
}

type bias struct {
	id    int
	value float32
}

// New returns a Sampler for a model of vocab tokens, or a *FieldError.
func New(p Params, vocab int) (*Sampler, error) {
	if vocab < 1 {
		return nil, fmt.Errorf("sample: a vocabulary of %d tokens", vocab)
	}
	if err := p.Validate(vocab); err != nil {
		return nil, err
	}
	s := &Sampler{
		params: p,
		source: rand.NewPCG(p.Seed, pcgStream),
		logits: make([]float32, vocab),
	}
	s.kept.list = make([]candidate, 0, vocab)
	for id, value := range p.LogitBias {
		s.bias = append(s.bias, bias{id, float32(value)})
	}
	if p.RepetitionPenalty > 0 && p.RepetitionPenalty != 1 {
		s.seen = newIDSet(vocab)
	}
	if p.PresencePenalty != 0 || p.FrequencyPenalty != 0 {
		s.counts, s.written = make([]uint32, vocab), newIDSet(vocab)
	}
	if p.NoRepeatNGram > 0 {
		s.history = make([]int32, 0, historyCap)
	}
	return s, nil
}

const (
	// pcgStream is the second half of the generator's seed.
	pcgStream = 0x9E3779B97F4A7C15
	// historyCap is the length of texts that need no second allocation.
	historyCap = 4096
)

// Prompt records the tokens that precede the generated text.
func (s *Sampler) Prompt(ids []int) {
	for _, id := range ids {
		s.remember(id)
	}
}

// Resume records tokens that an earlier Sampler with the same parameters
// generated, so that this one continues as that one would have. An error says that the
// constraint does not allow them.
func (s *Sampler) Resume(generated []int) error {
	for _, id := range generated {
		if err := s.accept(id); err != nil {
			return err
		}
		if s.params.Temperature > 0 {
			s.uniform()
		}
	}
	return nil
}

// Next chooses the next token and records it as generated. logits holds one
// number per token and is not changed; -Inf forbids a token. NaN and +Inf are
// ErrLogits; ErrNoToken says that no token is left. An error of the constraint is
// returned as it is.
func (s *Sampler) Next(logits []float32) (int, error) {
	if len(logits) != len(s.logits) {
		return 0, fmt.Errorf("sample: %d logits for a vocabulary of %d", len(logits), len(s.logits))
	}
	if err := check(logits); err != nil {
		return 0, err
	}
	copy(s.logits, logits)
	if s.constraint != nil {
		if allowed := s.constraint.Allowed(); allowed != nil {
			forbid(s.logits, allowed)
		}
	}
	s.penalize()
	if s.params.Temperature == 0 {
		id := argmax(s.logits)
		if math.IsInf(float64(s.logits[id]), -1) {
			return 0, ErrNoToken
		}
		return id, s.accept(id)
	}
	s.filter()
	if len(s.kept.list) == 0 {
		return 0, ErrNoToken
	}
	id := s.kept.draw(s.uniform())
	return id, s.accept(id)
}

// filter leaves in s.kept the tokens that may be chosen.
func (s *Sampler) filter() {
	p := &s.params
	if p.TopK > 0 {
		s.kept.resetTop(s.logits, float32(p.Temperature), p.TopK)
	} else {
		s.kept.reset(s.logits, float32(p.Temperature))
	}
	if p.MinP > 0 && p.TopP >= 1 {
		s.kept.atLeast(p.MinP)
	}
	s.kept.weigh()
	if p.TopP < 1 {
		s.kept.topP(p.TopP)
	}
	if p.MinP > 0 {
		s.kept.minP(p.MinP)
	}
	if p.TypicalP > 0 && p.TypicalP < 1 {
		s.kept.typicalP(p.TypicalP)
	}
}

// uniform returns a number in [0, 1).
func (s *Sampler) uniform() float64 { return float64(s.source.Uint64()>>11) / (1 << 53) }

// penalize applies what depends on the text so far, and the bias.
func (s *Sampler) penalize() {
	p := &s.params
	if s.seen.has != nil {
		repetitionPenalty(s.logits, s.seen.ids, float32(p.RepetitionPenalty))
	}
	if p.NoRepeatNGram > 0 {
		noRepeatNGram(s.logits, s.history, p.NoRepeatNGram)
	}
	for _, id := range s.written.ids {
		s.logits[id] -= float32(p.PresencePenalty) + float32(float32(p.FrequencyPenalty)*float32(s.counts[id]))
	}
	for _, b := range s.bias {
		if s.logits[b.id] += b.value; b.value < -maxBias {
			s.logits[b.id] = b.value // -Inf, whatever the logit was
		}
	}
}

// accept records a generated token.
func (s *Sampler) accept(id int) error {
	s.remember(id)
	if s.counts != nil && id >= 0 && id < len(s.counts) {
		s.counts[id]++
		s.written.add(id)
	}
	if s.constraint == nil {
		return nil
	}
	return s.constraint.Accept(id)
}

// remember records a token of the prompt or of the text. Ids outside the
// vocabulary cannot be chosen and need no penalty.
func (s *Sampler) remember(id int) {
	if s.seen.has != nil && id >= 0 && id < len(s.seen.has) {
		s.seen.add(id)
	}
	if s.params.NoRepeatNGram > 0 {
		s.history = append(s.history, int32(id))
	}
}

// idSet is a set of ids that can be listed.
type idSet struct {
	ids []int32 // in order of arrival
	has []bool
}

func newIDSet(vocab int) idSet {
	return idSet{ids: make([]int32, 0, min(vocab, historyCap)), has: make([]bool, vocab)}
}

func (s *idSet) add(id int) {
	if !s.has[id] {
		s.has[id] = true
		s.ids = append(s.ids, int32(id))
	}
}

// check refuses logits that no model in order yields.
func check(logits []float32) error {
	for id, l := range logits {
		if !(l <= math.MaxFloat32) { // NaN is not, too
			return fmt.Errorf("%w: that of token %d is %v", ErrLogits, id, l)
		}
	}
	return nil
}

// argmax returns the lowest id of the largest logit.
func argmax(logits []float32) int {
	best := 0
	for id, l := range logits {
		if l > logits[best] {
			best = id
		}
	}
	return best
}

// Logprob is the natural logarithm of a token's probability.
type Logprob struct {
	ID      int
	Logprob float64
}

// Logprobs returns the log probability of the chosen token and those of the
// topN most probable ones, in falling order, under the softmax of logits:
// before any penalty or filter, as the OpenAI API reports them. The errors are those
// of Next.
func Logprobs(logits []float32, chosen, topN int) (Logprob, []Logprob, error) {
	if chosen < 0 || chosen >= len(logits) {
		return Logprob{}, nil, fmt.Errorf("sample: token %d is outside the vocabulary of %d", chosen, len(logits))
	}
	if err := check(logits); err != nil {
		return Logprob{}, nil, err
	}
	largest := float64(logits[argmax(logits)])
	if math.IsInf(largest, -1) {
		return Logprob{}, nil, ErrNoToken
	}
	sum := 0.0
	for _, l := range logits {
		sum += exp(float64(l) - largest)
	}
	logSum := largest + math.Log(sum)
	top := make([]Logprob, 0, max(0, topN)+1)
	for id, l := range logits {
		if topN <= 0 || len(top) == topN && float64(l)-logSum <= top[topN-1].Logprob {
			continue
		}
		lp := Logprob{id, float64(l) - logSum}
		// Equal ones stay in order of id.
		at, _ := slices.BinarySearchFunc(top, lp, func(a, b Logprob) int {
			if a.Logprob >= b.Logprob {
				return -1
			}
			return 1
		})
		top = slices.Insert(top, at, lp)
		top = top[:min(len(top), topN)]
	}
	return Logprob{chosen, float64(logits[chosen]) - logSum}, top, nil
}

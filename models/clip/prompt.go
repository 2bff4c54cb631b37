package clip

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"helicon/models/tokenizer"
)

// Word is a word that a textual inversion (Gal et al. 2022) taught: it stands for vectors
// in the place of embeddings.
type Word struct {
	Name    string // as it is written in prompts
	Vectors int
}

// Prompter turns prompts into the tokens that a text encoder reads. It is read-only and
// may be shared by any number of goroutines.
type Prompter struct {
	tokens          *tokenizer.Tokenizer
	positions       int
	start, end, pad int
	comma           int // -1 if the vocabulary has none
	words           []learned
}

// learned is a word and the ids of its vectors.
type learned struct {
	name  string // lower case
	first int
	count int
}

// NewPrompter returns the prompter of an encoder with that tokenizer. The vectors of the
// words, in the order given, are TextInput.Vectors. The padding is the tokenizer's: the
// end token in Stable Diffusion 1, "!" in 2 and in the second encoder of SDXL. Errors wrap
// ErrConfig if the tokenizer is none of CLIP's.
func NewPrompter(t *tokenizer.Tokenizer, c TextConfig, words ...Word) (*Prompter, error) {
	p := &Prompter{tokens: t, positions: c.Positions, comma: -1}
	start, ok := t.BOS()
	end := t.EOS()
	if !ok || len(end) == 0 {
		return nil, fmt.Errorf("clip: a tokenizer without start and end token: %w", ErrConfig)
	}
	p.start, p.end, p.pad = start, end[0], end[0]
	if pad, ok := t.PAD(); ok {
		p.pad = pad
	}
	if t.Vocab() > c.Vocab || c.Positions < 3 {
		return nil, fmt.Errorf("clip: a tokenizer of %d tokens for an encoder of %d, with %d positions: %w", t.Vocab(), c.Vocab, c.Positions, ErrConfig)
	}
	if id, ok := t.ID(",</w>"); ok {
		p.comma = id
	}
	next := c.Vocab
	for _, w := range words {
		if w.Name == "" || w.Vectors < 1 || w.Vectors > c.Positions-2 {
			return nil, fmt.Errorf("clip: a learned word %q of %d vectors, want 1 to %d: %w", w.Name, w.Vectors, c.Positions-2, ErrConfig)
		}
		p.words = append(p.words, learned{strings.ToLower(w.Name), next, w.Vectors})
		next += w.Vectors
	}
	slices.SortStableFunc(p.words, func(a, b learned) int { return len(b.name) - len(a.name) }) // the longest match wins
	return p, nil
}

// Chunk is what an encoder reads at once: start token, text, end token and padding.
type Chunk struct {
	IDs     []int     // [Positions]
	Weights []float32 // [Positions], or nil if all are 1
}

// Plain returns the chunk of a text without any syntax but learned words, cut off where it
// is too long, as the reference's pipelines read it.
func (p *Prompter) Plain(text string) (Chunk, error) {
	tokens, err := p.encode(text, 1)
	if err != nil {
		return Chunk{}, err
	}
	flat := make([]token, 0, p.positions)
	for _, t := range tokens {
		for i := range t.count {
			flat = append(flat, token{id: t.id + i, count: 1, weight: 1})
		}
	}
	return p.chunk(flat[:min(len(flat), p.positions-2)]), nil
}

// Empty returns the chunk of no text. It makes two prompts equally long.
func (p *Prompter) Empty() Chunk { return p.chunk(nil) }

// Chunks returns a prompt in the syntax of ParsePrompt, in as many chunks as it takes. A
// chunk ends at its last comma, if that is near, rather than within a phrase. The error
// wraps ErrPrompt.
func (p *Prompter) Chunks(prompt string) ([]Chunk, error) {
	fragments, err := ParsePrompt(prompt)
	if err != nil {
		return nil, err
	}
	room := p.positions - 2
	var chunks []Chunk
	var current []token
	for _, f := range fragments {
		if f.Break {
			chunks, current = append(chunks, p.chunk(current)), nil
			continue
		}
		tokens, err := p.encode(f.Text, f.Weight)
		if err != nil {
			return nil, err
		}
		for _, t := range tokens {
			if used(current)+t.count > room {
				at := p.lastComma(current, t)
				rest := slices.Clone(current[at:])
				chunks, current = append(chunks, p.chunk(current[:at])), rest
			}
			current = append(current, t)
		}
	}
	if len(current) > 0 || len(chunks) == 0 {
		chunks = append(chunks, p.chunk(current))
	}
	return chunks, nil
}

// backtrack is how many tokens after a comma may be moved to the next chunk.
const backtrack = 20

// lastComma returns where to end a chunk that the next token does not fit into: after a
// comma among its last tokens, or else at its end.
func (p *Prompter) lastComma(chunk []token, next token) int {
	if next.id != p.comma {
		moved := next.count
		for i := len(chunk) - 1; i > 0 && moved <= min(backtrack, p.positions-2); i-- {
			if chunk[i].id == p.comma {
				return i + 1
			}
			moved += chunk[i].count
		}
	}
	return len(chunk)
}

// token is an id, or a learned word: count ids from id on.
type token struct {
	id, count int
	weight    float32
}

func used(tokens []token) int {
	n := 0
	for _, t := range tokens {
		n += t.count
	}
	return n
}

// chunk surrounds tokens that fit by what belongs to a chunk.
func (p *Prompter) chunk(tokens []token) Chunk {
	c := Chunk{IDs: make([]int, 0, p.positions)}
	weights := make([]float32, 0, p.positions)
	add := func(id int, weight float32) {
		c.IDs, weights = append(c.IDs, id), append(weights, weight)
	}
	add(p.start, 1)
	plain := true
	for _, t := range tokens {
		for i := range t.count {
			add(t.id+i, t.weight)
		}
		plain = plain && t.weight == 1
	}
	add(p.end, 1)
	for len(c.IDs) < p.positions {
		add(p.pad, 1)
	}
	if !plain {
		c.Weights = weights
	}
	return c
}

// encode returns the tokens of a text with its learned words.
func (p *Prompter) encode(text string, weight float32) ([]token, error) {
	var out []token
	plain := func(text string) error {
		ids, err := p.tokens.Encode(text, tokenizer.EncodeOptions{})
		if err != nil {
			return fmt.Errorf("clip: %v: %w", err, ErrPrompt)
		}
		for _, id := range ids {
			out = append(out, token{id, 1, weight})
		}
		return nil
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	for at := 0; len(p.words) > 0 && at < len(text); {
		w, n := p.wordAt(text, at)
		if n == 0 {
			at++
			continue
		}
		if err := plain(text[:at]); err != nil {
			return nil, err
		}
		out = append(out, token{w.first, w.count, weight})
		text, at = text[at+n:], 0
	}
	return out, plain(text)
}

// wordAt returns the learned word that stands at a place in a text, and its length in
// bytes there, or 0. A name that begins or ends like a word is no part of a longer one.
func (p *Prompter) wordAt(text string, at int) (learned, int) {
	for _, w := range p.words {
		n := len(w.name)
		if at+n > len(text) || !strings.EqualFold(text[at:at+n], w.name) {
			continue
		}
		runes := []rune(w.name)
		before, after := text[:at], text[at+n:]
		if !wordRune(runes[0]) {
			before = ""
		}
		if !wordRune(runes[len(runes)-1]) {
			after = ""
		}
		if wordEnds(before, after) {
			return w, n
		}
	}
	return learned{}, 0
}

// Weigh multiplies the states x [T, C] of the chunk by its weights, and restores their
// mean, as AUTOMATIC1111's web interface does.
func (c Chunk) Weigh(x []float32) {
	if c.Weights == nil {
		return
	}
	width := len(x) / len(c.Weights)
	var before, after float64
	for i, w := range c.Weights {
		for j, v := range x[i*width:][:width] {
			before += float64(v)
			v *= w
			after += float64(v)
			x[i*width+j] = v
		}
	}
	ratio := before / after
	if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
		return // there is no mean to restore
	}
	for i := range x {
		x[i] *= float32(ratio)
	}
}

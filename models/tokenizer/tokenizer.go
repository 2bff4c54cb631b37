// Package tokenizer turns text into token ids and ids back into text, exactly
// as the tokenizer that a model was trained with does.
//
// It reads the layouts in which models are published: Hugging Face's
// tokenizer.json (byte-level BPE, SentencePiece-style BPE, Unigram,
// WordPiece), SentencePiece's own tokenizer.model and spiece.model, GPT-2's
// vocab.json with merges.txt, BERT's vocab.txt, and the metadata of GGUF files,
// which it also writes. The sources are
// "Neural Machine Translation of Rare Words with Subword Units" (Sennrich et
// al. 2016, BPE), "Subword Regularization" (Kudo 2018, Unigram),
// "SentencePiece" (Kudo and Richardson 2018) and, for the pipeline of
// components in tokenizer.json, https://github.com/huggingface/tokenizers.
//
// The package also renders chat templates (see ChatTemplate). It knows nothing
// of weights or of generation.
package tokenizer

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"helicon/models/tokenizer/subword"
	"helicon/models/tokenizer/words"
)

// Tokenizer maps text to ids and back. It is immutable after loading apart
// from its cache of words, and safe for concurrent use.
type Tokenizer struct {
	normalizer words.Normalizer   // nil: none
	pre        words.PreTokenizer // nil: none
	model      subword.Model
	added      *addedTokens
	newDecoder func() []decodeStep

	// prefix and suffix surround a text when EncodeOptions.AddSpecial is set.
	prefix, suffix []int

	tokens []string // by id; "" where an id is unused
	ids    map[string]int
	roles  roles
	cache  *wordCache

	chatSource string // of the bundle's chat template, "" if it has none
	toolSource string // of that for conversations with tools, "" if it has none of its own
}

// roles are the ids with a part to play in generation; -1 where absent.
type roles struct {
	bos, eos, pad, unk int
	stop               []int // all ids that end a generation, eos first
}

// EncodeOptions selects what Encode does beside splitting the text. The zero
// value treats the whole text as plain.
type EncodeOptions struct {
	// AddSpecial surrounds the ids with the tokens that the model's
	// post-processor adds, such as a begin-of-sequence token.
	AddSpecial bool
	// ParseSpecial recognises special tokens written in the text, such as
	// "<|im_end|>". Leave it off for text that a user wrote: then special
	// tokens in it are split like any other text. Added tokens that the bundle
	// does not declare special (runs of spaces, "<tool_call>") are part of the
	// ordinary vocabulary and are always recognised.
	ParseSpecial bool
}

// Encode returns the ids of text. Bytes that are not UTF-8 are read as U+FFFD.
// An error means that the model cannot represent some part of the text and
// declares no unknown token.
func (t *Tokenizer) Encode(text string, opts EncodeOptions) ([]int, error) {
	return t.encode(text, opts, noGuard)
}

// encode is Encode for a text in which the rune guard, unless it is noGuard,
// may stand inside the spelling of a special token to keep it from being
// recognised; it is removed before the text is split.
func (t *Tokenizer) encode(text string, opts EncodeOptions, guard rune) ([]int, error) {
	text = strings.ToValidUTF8(text, "\uFFFD")
	var ids []int
	if opts.AddSpecial {
		ids = append(ids, t.prefix...)
	}
	var word []int32
	encodePlain := func(text string, first bool) error {
		if guard != noGuard {
			text = strings.ReplaceAll(text, string(guard), "")
		}
		pieces := []words.Piece{{Text: text, First: first}}
		if t.pre != nil {
			pieces = t.pre.Split(pieces)
		}
		ids = slices.Grow(ids, len(pieces))
		for _, p := range pieces {
			if p.Text == "" {
				continue
			}
			var err error
			if word, err = t.cache.tokenize(t.model, word[:0], p.Text); err != nil {
				return fmt.Errorf("tokenizer: encode: %w", err)
			}
			for _, id := range word {
				ids = append(ids, int(id))
			}
		}
		return nil
	}
	for _, raw := range t.added.raw.split(text, opts.ParseSpecial) {
		if raw.id >= 0 {
			ids = append(ids, raw.id)
			continue
		}
		s := raw.text
		if t.normalizer != nil {
			s = t.normalizer.Normalize(s)
		}
		for _, part := range t.added.normalized.split(s, opts.ParseSpecial) {
			if part.id >= 0 {
				ids = append(ids, part.id)
			} else if err := encodePlain(part.text, raw.first && part.first); err != nil {
				return nil, err
			}
		}
	}
	if opts.AddSpecial {
		ids = append(ids, t.suffix...)
	}
	return ids, nil
}

// Decode returns the text of ids. With skipSpecial, special tokens are left
// out. Ids outside the vocabulary have no text; bytes that do not form UTF-8
// become U+FFFD.
func (t *Tokenizer) Decode(ids []int, skipSpecial bool) string {
	d := t.NewDecoder(skipSpecial)
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(d.Push(id))
	}
	b.WriteString(d.Flush())
	return b.String()
}

// Vocab returns the number of ids, which are 0 to Vocab()-1. A model's
// embedding may have more rows, as padding.
func (t *Tokenizer) Vocab() int { return len(t.tokens) }

// ID returns the id of a token as it is spelled in the vocabulary, for example
// "Ġthe", "▁the" or "<|im_end|>".
func (t *Tokenizer) ID(token string) (id int, ok bool) {
	id, ok = t.ids[token]
	return id, ok
}

// Token returns the spelling of an id in the vocabulary.
func (t *Tokenizer) Token(id int) (token string, ok bool) {
	if id < 0 || id >= len(t.tokens) || t.tokens[id] == "" {
		return "", false
	}
	return t.tokens[id], true
}

// TokenBytes returns the bytes that a token contributes inside a text, or nil
// for an id outside the vocabulary. They need not be valid UTF-8: a character
// may be spread over several tokens.
func (t *Tokenizer) TokenBytes(id int) []byte {
	token, ok := t.Token(id)
	if !ok {
		return nil
	}
	c := chunk{id: id, text: token, literal: t.added.has(id)}
	for _, step := range t.newDecoder() {
		c.text = step.raw(c)
	}
	return []byte(c.text)
}

// Special reports whether an id is a special token: one that Decode skips
// and that Encode recognises only with ParseSpecial.
func (t *Tokenizer) Special(id int) bool { return t.added.special[id] }

// BOS returns the id of the begin-of-sequence token, if the bundle names one.
func (t *Tokenizer) BOS() (id int, ok bool) { return t.roles.bos, t.roles.bos >= 0 }

// EOS returns every id that ends a generation, the tokenizer's own
// end-of-sequence token first, then those of the bundle's generation settings.
func (t *Tokenizer) EOS() []int { return slices.Clone(t.roles.stop) }

// PAD returns the id of the padding token, if the bundle names one.
func (t *Tokenizer) PAD() (id int, ok bool) { return t.roles.pad, t.roles.pad >= 0 }

// UNK returns the id of the unknown token, if the bundle names one.
func (t *Tokenizer) UNK() (id int, ok bool) { return t.roles.unk, t.roles.unk >= 0 }

// noGuard is no rune of any text.
const noGuard = utf8.MaxRune + 1

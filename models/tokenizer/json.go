package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"

	"helicon/models/tokenizer/subword"
	"helicon/models/tokenizer/words"
)

// fileJSON is the name of Hugging Face's format.
const fileJSON = "tokenizer.json"

// jsonFile is the content of tokenizer.json.
type jsonFile struct {
	pipeline
	AddedTokens []addedToken    `json:"added_tokens"`
	Model       json.RawMessage `json:"model"`
}

// pipeline holds the components around the model. The older layouts are
// described by constants of it.
type pipeline struct {
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
}

// parseJSON builds a tokenizer from the content of tokenizer.json.
func parseJSON(data []byte) (*Tokenizer, error) {
	var f jsonFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	p, err := f.pipeline.parts()
	if err != nil {
		return nil, err
	}
	if p.model, p.vocab, err = subword.Parse(f.Model); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	p.added = f.AddedTokens
	return p.assemble()
}

// parts builds all but the model.
func (c *pipeline) parts() (p parts, err error) {
	if p.normalizer, err = words.ParseNormalizer(c.Normalizer); err != nil {
		return p, fmt.Errorf("normalizer: %w", err)
	}
	if p.pre, err = words.ParsePreTokenizer(c.PreTokenizer); err != nil {
		return p, fmt.Errorf("pre_tokenizer: %w", err)
	}
	if p.prefix, p.suffix, err = parsePostProcessor(c.PostProcessor); err != nil {
		return p, fmt.Errorf("post_processor: %w", err)
	}
	if p.newDecoder, err = parseDecoder(c.Decoder); err != nil {
		return p, fmt.Errorf("decoder: %w", err)
	}
	return p, nil
}

// builtinParts builds the parts of a layout that is described here.
func builtinParts(text string) (parts, error) {
	var c pipeline
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return parts{}, err
	}
	return c.parts()
}

// parts are what a tokenizer is assembled from, whatever the format.
type parts struct {
	normalizer     words.Normalizer   // nil: none
	pre            words.PreTokenizer // nil: none
	model          subword.Model
	vocab          *subword.Vocabulary
	added          []addedToken
	prefix, suffix []int
	newDecoder     func() []decodeStep
}

func (p parts) assemble() (*Tokenizer, error) {
	t := &Tokenizer{
		normalizer: p.normalizer,
		pre:        p.pre,
		model:      p.model,
		prefix:     p.prefix,
		suffix:     p.suffix,
		newDecoder: p.newDecoder,
		roles:      roles{bos: -1, eos: -1, pad: -1, unk: -1},
		cache:      newWordCache(),
	}
	t.setVocabulary(p.vocab)
	if err := t.addTokens(p.added); err != nil {
		return nil, err
	}
	for _, id := range slices.Concat(p.prefix, p.suffix) {
		if id < 0 || id >= len(t.tokens) {
			return nil, fmt.Errorf("post_processor: id %d is outside the vocabulary of %d", id, len(t.tokens))
		}
	}
	return t, nil
}

func (t *Tokenizer) setVocabulary(v *subword.Vocabulary) {
	t.tokens = slices.Clone(v.Tokens)
	t.ids = make(map[string]int, len(v.IDs))
	for token, id := range v.IDs {
		t.ids[token] = int(id)
	}
}

// addTokens enters the tokens that are found before the model is asked. A
// token that the vocabulary knows keeps its id.
func (t *Tokenizer) addTokens(list []addedToken) error {
	for i, token := range list {
		if token.ID < 0 || token.ID >= subword.MaxVocab {
			return fmt.Errorf("added_tokens[%d] %q: id %d is outside [0, %d)", i, token.Content, token.ID, subword.MaxVocab)
		}
		if token.Content == "" {
			continue
		}
		if len(token.Content) > subword.MaxTokenBytes {
			return fmt.Errorf("added_tokens[%d]: %d bytes, at most %d are accepted", i, len(token.Content), subword.MaxTokenBytes)
		}
		if n := token.ID + 1; n > len(t.tokens) {
			t.tokens = append(t.tokens, make([]string, n-len(t.tokens))...)
		}
		t.tokens[token.ID] = token.Content
		t.ids[token.Content] = token.ID
	}
	t.added = newAddedTokens(list, t.normalizer)
	return nil
}

package subword

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"helicon/models/tokenizer/component"
)

// jsonModel is the union of the model types of tokenizer.json.
type jsonModel struct {
	Type   string          `json:"type"`
	Vocab  json.RawMessage `json:"vocab"`
	Merges []MergePair     `json:"merges"`

	UnkToken     *string `json:"unk_token"`
	UnkID        *int32  `json:"unk_id"`
	FuseUnk      bool    `json:"fuse_unk"`
	ByteFallback bool    `json:"byte_fallback"`
	IgnoreMerges bool    `json:"ignore_merges"`

	Prefix   *string `json:"continuing_subword_prefix"`
	Suffix   *string `json:"end_of_word_suffix"`
	MaxRunes int     `json:"max_input_chars_per_word"`
}

// MergePair is a BPE rule, written "left right" or ["left", "right"].
type MergePair [2]string

// UnmarshalJSON reads either form.
func (p *MergePair) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		var parts []string
		if err := json.Unmarshal(data, &parts); err != nil {
			return err
		}
		if len(parts) != 2 {
			return fmt.Errorf("merges: a rule has %d parts, want 2", len(parts))
		}
		*p = MergePair(parts)
		return nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	return p.Parse(s)
}

// Parse reads a rule written as "left right".
func (p *MergePair) Parse(s string) error {
	left, right, ok := strings.Cut(s, " ")
	if !ok || left == "" || right == "" || strings.Contains(right, " ") {
		return fmt.Errorf("merges: rule %q is not two tokens", s)
	}
	*p = MergePair{left, right}
	return nil
}

// Parse builds the component "model" of tokenizer.json.
func Parse(raw json.RawMessage) (Model, *Vocabulary, error) {
	if component.Absent(raw) {
		return nil, nil, errors.New("it is missing")
	}
	var m jsonModel
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, nil, err
	}
	kind := m.Type
	if kind == "" { // files of old versions name no type
		kind = m.guessType()
	}
	switch kind {
	case "BPE":
		return m.bpe()
	case "WordPiece":
		return m.wordPiece()
	case "Unigram":
		return m.unigram()
	}
	return nil, nil, fmt.Errorf("type %q is not supported", kind)
}

func (m *jsonModel) guessType() string {
	switch {
	case m.Merges != nil:
		return "BPE"
	case len(m.Vocab) > 0 && m.Vocab[0] == '[':
		return "Unigram"
	}
	return "WordPiece"
}

// vocabulary reads a vocabulary written as an object of ids.
func (m *jsonModel) vocabulary() (*Vocabulary, error) {
	var ids map[string]int32
	if err := json.Unmarshal(m.Vocab, &ids); err != nil {
		return nil, fmt.Errorf("vocab: %w", err)
	}
	v, err := NewVocabulary(ids)
	if err != nil {
		return nil, fmt.Errorf("vocab: %w", err)
	}
	return v, nil
}

func (m *jsonModel) bpe() (Model, *Vocabulary, error) {
	vocab, err := m.vocabulary()
	if err != nil {
		return nil, nil, err
	}
	merges, err := MergesFromList(vocab, m.Merges, deref(m.Prefix))
	if err != nil {
		return nil, nil, err
	}
	b := NewBPE(vocab, merges)
	b.FuseUnk, b.IgnoreMerges = m.FuseUnk, m.IgnoreMerges
	b.Prefix, b.Suffix = deref(m.Prefix), deref(m.Suffix)
	if m.ByteFallback {
		b.ByteFallback = ByteTokens(vocab)
	}
	if unk := deref(m.UnkToken); unk != "" {
		id, ok := vocab.IDs[unk]
		if !ok {
			return nil, nil, fmt.Errorf("unk_token %q is not in the vocabulary", unk)
		}
		b.Unk = id
	}
	return b, vocab, nil
}

func (m *jsonModel) wordPiece() (Model, *Vocabulary, error) {
	vocab, err := m.vocabulary()
	if err != nil {
		return nil, nil, err
	}
	prefix := "##"
	if m.Prefix != nil {
		prefix = *m.Prefix
	}
	w := NewWordPiece(vocab, prefix, deref(m.UnkToken))
	if m.MaxRunes > 0 {
		w.MaxRunes = m.MaxRunes
	}
	return w, vocab, nil
}

func (m *jsonModel) unigram() (Model, *Vocabulary, error) {
	var list []scoredToken
	if err := json.Unmarshal(m.Vocab, &list); err != nil {
		return nil, nil, fmt.Errorf("vocab: %w", err)
	}
	if len(list) > MaxVocab {
		return nil, nil, fmt.Errorf("vocab: %d tokens, at most %d are accepted", len(list), MaxVocab)
	}
	vocab := &Vocabulary{IDs: make(map[string]int32, len(list))}
	scores := make([]float64, len(list))
	for i, entry := range list {
		vocab.Set(entry.token, int32(i))
		vocab.IDs[entry.token] = int32(i)
		scores[i] = entry.score
	}
	u := NewUnigram(vocab, scores, func(int) bool { return true })
	if m.ByteFallback {
		u.ByteFallback = ByteTokens(vocab)
	}
	if m.UnkID != nil {
		if *m.UnkID < 0 || int(*m.UnkID) >= len(list) {
			return nil, nil, fmt.Errorf("unk_id %d is outside the vocabulary of %d", *m.UnkID, len(list))
		}
		u.Unk = *m.UnkID
	}
	return u, vocab, nil
}

// scoredToken is an entry of a Unigram vocabulary: [token, log probability].
type scoredToken struct {
	token string
	score float64
}

// UnmarshalJSON reads the pair and refuses scores that are not finite.
func (e *scoredToken) UnmarshalJSON(data []byte) error {
	pair := [2]any{&e.token, &e.score}
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	if math.IsNaN(e.score) || math.IsInf(e.score, 0) {
		return fmt.Errorf("vocab: token %q has score %v", e.token, e.score)
	}
	return nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

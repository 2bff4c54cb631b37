package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"helicon/models/tokenizer/subword"
	"helicon/models/weights"
)

// Keys of a tokenizer in a GGUF file.
const (
	keyModel     = "tokenizer.ggml.model"
	keyPre       = "tokenizer.ggml.pre"
	keyTokens    = "tokenizer.ggml.tokens"
	keyTypes     = "tokenizer.ggml.token_type"
	keyScores    = "tokenizer.ggml.scores"
	keyMerges    = "tokenizer.ggml.merges"
	keyAddBOS    = "tokenizer.ggml.add_bos_token"
	keyAddEOS    = "tokenizer.ggml.add_eos_token"
	keyPrefix    = "tokenizer.ggml.add_space_prefix"
	keyExtra     = "tokenizer.ggml.remove_extra_whitespaces"
	keyCharsmap  = "tokenizer.ggml.precompiled_charsmap"
	keyTemplate  = "tokenizer.chat_template"
	keyTools     = "tokenizer.chat_template.tool_use"
	keyJSON      = "tokenizer.huggingface.json"
	keyIDPattern = "tokenizer.ggml.%s_token_id"
)

// FromGGUF builds the tokenizer that a GGUF file carries in its metadata: byte-level BPE
// ("gpt2"), SentencePiece BPE ("llama") or Unigram ("t5"), or a whole tokenizer.json. The error wraps ErrNoTokenizer
// if it carries none. What the metadata leave open is as llama.cpp has it, with one
// exception: where a model's own tokenizer normalises to NFC, so does this.
func FromGGUF(m weights.Metadata) (*Tokenizer, error) {
	kind, err := m.String(keyModel)
	if errors.Is(err, weights.ErrNoKey) || kind == "no_vocab" || kind == "none" {
		return nil, fmt.Errorf("%w, and none in the GGUF file", ErrNoTokenizer)
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	g := &ggufVocab{meta: m}
	if err := g.read(); err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	var t *Tokenizer
	whole, jsonErr := m.String(keyJSON)
	switch {
	case jsonErr == nil:
		t, err = parseJSON([]byte(whole))
	case kind == "gpt2":
		t, err = g.byteLevel()
	case kind == "llama":
		t, err = g.sentencePiece(spmBPE)
	case kind == "t5":
		t, err = g.sentencePiece(spmUnigram)
	default:
		err = fmt.Errorf("%s %q is not supported (gpt2, llama, t5)", keyModel, kind)
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: GGUF: %w", err)
	}
	g.finish(t)
	return t, nil
}

// ggufVocab is the vocabulary of a GGUF file.
type ggufVocab struct {
	meta   weights.Metadata
	tokens []string
	types  []int     // as pieceType; nil: all are normal
	scores []float32 // nil: none
}

func (g *ggufVocab) read() error {
	var err error
	if g.tokens, err = g.meta.Strings(keyTokens); err != nil {
		return err
	}
	if len(g.tokens) == 0 || len(g.tokens) > subword.MaxVocab {
		return fmt.Errorf("%s: %d tokens, want 1 to %d", keyTokens, len(g.tokens), subword.MaxVocab)
	}
	if g.meta.Has(keyTypes) {
		if g.types, err = g.meta.Ints(keyTypes); err != nil {
			return err
		}
		if len(g.types) < len(g.tokens) {
			return fmt.Errorf("%s: %d for %d tokens", keyTypes, len(g.types), len(g.tokens))
		}
	}
	if g.meta.Has(keyScores) {
		if g.scores, err = g.meta.Floats(keyScores); err != nil {
			return err
		}
		if len(g.scores) < len(g.tokens) {
			return fmt.Errorf("%s: %d for %d tokens", keyScores, len(g.scores), len(g.tokens))
		}
	}
	return nil
}

// typeOf returns the type of a token; what is no type is normal.
func (g *ggufVocab) typeOf(id int) pieceType {
	if g.types == nil || g.types[id] < int(pieceNormal) || g.types[id] > int(pieceByte) {
		return pieceNormal
	}
	return pieceType(g.types[id])
}

// id returns the token with a part to play, -1 if the file names none.
func (g *ggufVocab) id(role string) int {
	if id, err := g.meta.Int(fmt.Sprintf(keyIDPattern, role)); err == nil && id >= 0 && id < len(g.tokens) {
		return id
	}
	return -1
}

func (g *ggufVocab) flag(key string, absent bool) bool {
	if value, err := g.meta.Bool(key); err == nil {
		return value
	}
	return absent
}

// byteLevel builds a byte-level BPE.
func (g *ggufVocab) byteLevel() (*Tokenizer, error) {
	name := ""
	if g.meta.Has(keyPre) {
		var err error
		if name, err = g.meta.String(keyPre); err != nil {
			return nil, err
		}
	}
	pre, err := preTokenizerNamed(name)
	if err != nil {
		return nil, err
	}
	layout := pipeline{PreTokenizer: json.RawMessage(pre.split), Decoder: json.RawMessage(`{"type": "ByteLevel"}`)}
	if pre.compose {
		layout.Normalizer = json.RawMessage(`{"type": "NFC"}`)
	}
	p, err := layout.parts()
	if err != nil {
		return nil, err
	}
	ids := make(map[string]int32, len(g.tokens))
	for i, token := range g.tokens {
		kind := g.typeOf(i)
		if token == "" || kind == pieceUnused {
			continue
		}
		ids[token] = int32(i)
		if kind == pieceControl || kind == pieceUserDefined || kind == pieceUnknown {
			p.added = append(p.added, addedToken{ID: i, Content: token, Special: kind != pieceUserDefined})
		}
	}
	if p.vocab, err = subword.NewVocabulary(ids); err != nil {
		return nil, err
	}
	merges, err := g.merges(p.vocab)
	if err != nil {
		return nil, err
	}
	b := subword.NewBPE(p.vocab, merges)
	b.IgnoreMerges = pre.whole
	p.model = b
	if bos := g.id("bos"); bos >= 0 && g.flag(keyAddBOS, pre.begin) {
		p.prefix = []int{bos}
	}
	if eos := g.id("eos"); eos >= 0 && g.flag(keyAddEOS, false) {
		p.suffix = []int{eos}
	}
	return p.assemble()
}

func (g *ggufVocab) merges(vocab *subword.Vocabulary) (subword.Merges, error) {
	rules, err := g.meta.Strings(keyMerges)
	if err != nil {
		return nil, err
	}
	list := make([]subword.MergePair, len(rules))
	for i, rule := range rules {
		if err := list[i].Parse(rule); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", keyMerges, i, err)
		}
	}
	return subword.MergesFromList(vocab, list, "")
}

// sentencePiece builds a tokenizer as SentencePiece's own files describe it.
func (g *ggufVocab) sentencePiece(kind uint64) (*Tokenizer, error) {
	bpe := kind == spmBPE
	m := &spmModel{
		modelType: kind, unkSurface: " \u2047 ", escapeSpace: true, filled: true,
		dummyPrefix: g.flag(keyPrefix, bpe), removeExtraSpace: g.flag(keyExtra, false),
	}
	if g.meta.Has(keyCharsmap) {
		list, err := g.meta.Ints(keyCharsmap)
		if err != nil {
			return nil, err
		}
		for _, b := range list {
			m.charsmap = append(m.charsmap, byte(b))
		}
	}
	for i, token := range g.tokens {
		p := spmPiece{piece: token, kind: g.typeOf(i)}
		if g.scores != nil {
			p.score = g.scores[i]
		}
		switch p.kind {
		case pieceByte:
			m.byteFallback = true
		case pieceUserDefined: // are spelled as they are in a text
			p.piece = strings.ReplaceAll(p.piece, " ", spaceSymbol)
		}
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("token %d: %w", i, err)
		}
		m.pieces = append(m.pieces, p)
	}
	cfg := &bundleConfig{AddBOS: new(g.flag(keyAddBOS, bpe)), AddEOS: new(g.flag(keyAddEOS, !bpe))}
	for _, f := range []struct {
		role string
		to   *tokenField
	}{{"bos", &cfg.BOS}, {"eos", &cfg.EOS}, {"padding", &cfg.PAD}, {"unknown", &cfg.UNK}} {
		if id := g.id(f.role); id >= 0 {
			*f.to = tokenField(m.pieces[id].piece)
		}
	}
	t, err := m.tokenizer(cfg)
	if err != nil {
		return nil, err
	}
	t.apply(cfg)
	return t, nil
}

// turnEnds are tokens that end a turn in the dialogues of some models, whether or not the
// file says so.
var turnEnds = [...]string{"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<EOT>"}

// finish sets the parts that tokens play, and the chat templates.
func (g *ggufVocab) finish(t *Tokenizer) {
	for _, f := range []struct {
		role string
		to   *int
	}{{"bos", &t.roles.bos}, {"eos", &t.roles.eos}, {"padding", &t.roles.pad}, {"unknown", &t.roles.unk}} {
		if id := g.id(f.role); id >= 0 {
			*f.to = id
		}
	}
	stop := []int{t.roles.eos, g.id("eot"), g.id("eom")}
	for _, name := range turnEnds {
		if id, ok := t.ids[name]; ok && t.added.special[id] {
			stop = append(stop, id)
		}
	}
	t.roles.stop = nil
	for _, id := range stop {
		if id >= 0 && !slices.Contains(t.roles.stop, id) {
			t.roles.stop = append(t.roles.stop, id)
		}
	}
	if source, err := g.meta.String(keyTemplate); err == nil {
		t.chatSource = source
	}
	if source, err := g.meta.String(keyTools); err == nil {
		t.toolSource = source
	}
}

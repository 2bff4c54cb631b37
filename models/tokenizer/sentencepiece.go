package tokenizer

import (
	"fmt"
	"io/fs"
	"math"

	"helicon/models/tokenizer/subword"
	"helicon/models/tokenizer/words"
)

// Names under which bundles hold a SentencePiece model.
const (
	fileSentencePiece = "tokenizer.model"
	fileSpiece        = "spiece.model"
)

func loadSentencePiece(_ fs.FS, data []byte, cfg *bundleConfig) (*Tokenizer, error) {
	m, err := parseSentencePiece(data)
	if err != nil {
		return nil, err
	}
	return m.tokenizer(cfg)
}

// tokenizer builds the tokenizer that the model describes.
func (m *spmModel) tokenizer(cfg *bundleConfig) (*Tokenizer, error) {
	vocab := &subword.Vocabulary{IDs: make(map[string]int32, len(m.pieces))}
	kinds := make([]pieceType, len(m.pieces))
	var user []string
	for i, p := range m.pieces {
		vocab.Set(p.piece, int32(i))
		vocab.IDs[p.piece] = int32(i)
		kinds[i] = p.kind
		if p.kind == pieceUserDefined {
			user = append(user, p.piece)
		}
	}
	n := &spmNormalizer{
		user:        subword.NewTrie(user, make([]int32, len(user))),
		dummyPrefix: m.dummyPrefix,
		suffix:      m.whitespaceSuffix,
		removeExtra: m.removeExtraSpace,
		space:       " ",
	}
	if m.escapeSpace {
		n.space = spaceSymbol
	}
	p := parts{normalizer: n, vocab: vocab}
	var err error
	if len(m.charsmap) > 0 {
		if n.rules, err = words.NewCharsmap(m.charsmap); err != nil {
			return nil, fmt.Errorf("normalizer_spec: %w", err)
		}
	}
	switch m.modelType {
	case spmUnigram:
		p.model = m.unigram(vocab)
	case spmBPE:
		p.model, err = m.bpe(vocab)
	default:
		err = fmt.Errorf("trainer_spec: model_type %d is neither unigram nor BPE", m.modelType)
	}
	if err != nil {
		return nil, err
	}
	p.newDecoder = func() []decodeStep {
		return []decodeStep{&spmStep{
			kinds:     kinds,
			unknown:   m.unkSurface,
			bytes:     utf8Joiner{perByte: true},
			dropSpace: m.dummyPrefix || m.removeExtraSpace,
			dropAll:   m.removeExtraSpace,
		}}
	}
	if err := m.special(&p, cfg); err != nil {
		return nil, err
	}
	return p.assemble()
}

func (m *spmModel) unknownID() int32 {
	for i, p := range m.pieces {
		if p.kind == pieceUnknown {
			return int32(i)
		}
	}
	return -1
}

func (m *spmModel) unigram(vocab *subword.Vocabulary) *subword.Unigram {
	scores := make([]float64, len(m.pieces))
	user := make([]bool, len(m.pieces))
	hasUser := false
	lowest := float32(math.MaxFloat32)
	for i, p := range m.pieces {
		scores[i] = float64(p.score)
		user[i] = p.kind == pieceUserDefined
		hasUser = hasUser || user[i]
		if p.kind == pieceNormal {
			lowest = min(lowest, p.score)
		}
	}
	u := subword.NewUnigram(vocab, scores, func(id int) bool {
		return m.pieces[id].kind == pieceNormal || user[id]
	})
	if hasUser {
		u.User = user
	}
	u.Single = true
	u.Unk = m.unknownID()
	u.UnkScore = float64(lowest - subword.UnkPenalty)
	if m.byteFallback {
		u.ByteFallback = subword.ByteTokens(vocab)
	}
	return u
}

func (m *spmModel) bpe(vocab *subword.Vocabulary) (*subword.BPE, error) {
	scores := make([]float32, len(m.pieces))
	// Only normal and user-defined pieces are found in text.
	visible := &subword.Vocabulary{IDs: make(map[string]int32, len(m.pieces)), Tokens: vocab.Tokens}
	for i, p := range m.pieces {
		scores[i] = p.score
		switch p.kind {
		case pieceUnused:
			if m.filled {
				continue
			}
			return nil, fmt.Errorf("pieces[%d]: %q is unused, which is not supported in a BPE model", i, p.piece)
		case pieceNormal, pieceUserDefined:
			visible.IDs[p.piece] = int32(i)
		}
	}
	ranks := subword.RanksByScore(scores)
	merges, err := subword.MergesFromVocab(visible, func(id int32) (int32, bool) {
		return ranks[id], m.pieces[id].kind == pieceNormal
	})
	if err != nil {
		return nil, err
	}
	b := subword.NewBPE(visible, merges)
	var user []string
	var ids []int32
	for i, p := range m.pieces {
		if p.kind == pieceUserDefined {
			user, ids = append(user, p.piece), append(ids, int32(i))
		}
	}
	if len(user) > 0 {
		b.Whole = subword.NewTrie(user, ids)
	}
	b.Unk, b.FuseUnk = m.unknownID(), true
	if m.byteFallback {
		b.ByteFallback = subword.ByteTokens(vocab)
	}
	return b, nil
}

// special enters the control pieces as special tokens and the tokens that
// AddSpecial adds: those that the configuration asks for, else by custom the
// start for BPE models (Llama) and the end for unigram models (T5).
func (m *spmModel) special(p *parts, cfg *bundleConfig) error {
	cfg.fill(&specialTokens{BOS: m.piece("<s>"), EOS: m.piece("</s>"), PAD: m.piece("<pad>")})
	if id := m.unknownID(); id >= 0 {
		cfg.fill(&specialTokens{UNK: tokenField(m.pieces[id].piece)})
	}
	extra, err := cfg.extraTokens(p.vocab.IDs)
	if err != nil {
		return err
	}
	known := map[int]bool{}
	for _, token := range extra {
		known[token.ID] = true
	}
	for i, piece := range m.pieces {
		if (piece.kind == pieceControl || piece.kind == pieceUnknown) && !known[i] {
			extra = append(extra, addedToken{ID: i, Content: piece.piece, Special: true})
		}
	}
	p.added = extra
	addBOS, addEOS := m.modelType == spmBPE, m.modelType == spmUnigram
	if cfg.AddBOS != nil {
		addBOS = *cfg.AddBOS
	}
	if cfg.AddEOS != nil {
		addEOS = *cfg.AddEOS
	}
	if id, ok := p.vocab.IDs[string(cfg.BOS)]; ok && addBOS {
		p.prefix = []int{int(id)}
	}
	if id, ok := p.vocab.IDs[string(cfg.EOS)]; ok && addEOS {
		p.suffix = []int{int(id)}
	}
	return nil
}

// piece returns name if the model has a control piece of that name.
func (m *spmModel) piece(name string) tokenField {
	for _, p := range m.pieces {
		if p.piece == name && p.kind == pieceControl {
			return tokenField(name)
		}
	}
	return ""
}

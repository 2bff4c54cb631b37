package tokenizer

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"helicon/models/tokenizer/subword"
)

// pieceType is the enum SentencePiece.Type.
type pieceType int32

const (
	pieceNormal      pieceType = 1
	pieceUnknown     pieceType = 2
	pieceControl     pieceType = 3
	pieceUserDefined pieceType = 4
	pieceUnused      pieceType = 5
	pieceByte        pieceType = 6
)

// spmPiece is an entry of the vocabulary.
type spmPiece struct {
	piece string
	score float32
	kind  pieceType
}

// Values of TrainerSpec.model_type.
const (
	spmUnigram = 1
	spmBPE     = 2
)

// spmModel is the part of the message ModelProto that encoding needs:
// https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
type spmModel struct {
	pieces []spmPiece

	// TrainerSpec
	modelType        uint64
	byteFallback     bool
	whitespaceSuffix bool   // the dummy prefix is a suffix
	unkSurface       string // what an unknown token decodes to
	filled           bool   // unused pieces fill up the vocabulary and are never found

	// NormalizerSpec
	charsmap         []byte
	dummyPrefix      bool
	removeExtraSpace bool
	escapeSpace      bool
	denormalizer     bool // a DenormalizerSpec has rules
}

// parseSentencePiece decodes a ModelProto.
func parseSentencePiece(data []byte) (*spmModel, error) {
	m := &spmModel{
		modelType:        spmUnigram,
		unkSurface:       " \u2047 ",
		dummyPrefix:      true,
		removeExtraSpace: true,
		escapeSpace:      true,
	}
	err := eachField(data, func(f field) error {
		switch f.num {
		case 1:
			p, err := parsePiece(f.bytes)
			if err != nil {
				return fmt.Errorf("pieces[%d]: %w", len(m.pieces), err)
			}
			if len(m.pieces) == subword.MaxVocab {
				return fmt.Errorf("more than %d pieces", subword.MaxVocab)
			}
			m.pieces = append(m.pieces, p)
		case 2:
			return wrapField("trainer_spec", eachField(f.bytes, m.trainerField))
		case 3:
			return wrapField("normalizer_spec", eachField(f.bytes, m.normalizerField))
		case 5:
			return wrapField("denormalizer_spec", eachField(f.bytes, func(f field) error {
				m.denormalizer = m.denormalizer || f.num == 2 && len(f.bytes) > 0
				return nil
			}))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(m.pieces) == 0 {
		return nil, errors.New("it has no pieces")
	}
	if m.denormalizer {
		return nil, errors.New("denormalizer_spec is not supported")
	}
	return m, nil
}

func wrapField(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func parsePiece(data []byte) (spmPiece, error) {
	p := spmPiece{kind: pieceNormal}
	err := eachField(data, func(f field) error {
		switch f.num {
		case 1:
			p.piece = string(f.bytes)
		case 2:
			p.score = math.Float32frombits(f.fixed32)
		case 3:
			p.kind = pieceType(f.varint)
		}
		return nil
	})
	if err != nil {
		return p, err
	}
	return p, p.check()
}

func (p *spmPiece) check() error {
	switch score := float64(p.score); {
	case p.piece == "" || !utf8.ValidString(p.piece):
		return fmt.Errorf("piece %q is empty or not UTF-8", p.piece)
	case math.IsNaN(score) || math.IsInf(score, 0):
		return fmt.Errorf("piece %q has score %v", p.piece, p.score)
	case p.kind < pieceNormal || p.kind > pieceByte:
		return fmt.Errorf("piece %q has type %d", p.piece, p.kind)
	}
	return nil
}

func (m *spmModel) trainerField(f field) error {
	switch f.num {
	case 3:
		m.modelType = f.varint
	case 24:
		m.whitespaceSuffix = f.varint != 0
	case 35:
		m.byteFallback = f.varint != 0
	case 44:
		m.unkSurface = string(f.bytes)
	}
	return nil
}

func (m *spmModel) normalizerField(f field) error {
	switch f.num {
	case 2:
		m.charsmap = f.bytes
	case 3:
		m.dummyPrefix = f.varint != 0
	case 4:
		m.removeExtraSpace = f.varint != 0
	case 5:
		m.escapeSpace = f.varint != 0
	}
	return nil
}

// field is one field of a protocol buffer; only the value of its wire type
// is set.
type field struct {
	num     protowire.Number
	varint  uint64
	fixed32 uint32
	bytes   []byte
}

// eachField calls visit for every field of a message.
func eachField(data []byte, visit func(field) error) error {
	for len(data) > 0 {
		num, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		f := field{num: num}
		switch kind {
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			f.fixed32, n = protowire.ConsumeFixed32(data)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(num, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

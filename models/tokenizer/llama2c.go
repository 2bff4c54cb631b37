package tokenizer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"helicon/models/tokenizer/subword"
)

// ReadLlama2C builds a SentencePiece BPE tokenizer from the tokenizer.bin of
// https://github.com/karpathy/llama2.c: the length of the longest token, then
// for each token its score, length and bytes, little-endian. Tokens 0, 1 and 2
// are the unknown, begin and end tokens; a space is written as such.
func ReadLlama2C(data []byte) (*Tokenizer, error) {
	if len(data) < 4 {
		return nil, errors.New("tokenizer: tokenizer.bin: too short")
	}
	m := &spmModel{modelType: spmBPE, byteFallback: true, unkSurface: " \u2047 ", dummyPrefix: true, escapeSpace: true}
	names := [...]string{"<unk>", "<s>", "</s>"}
	for rest := data[4:]; len(rest) > 0; {
		i := len(m.pieces)
		if len(rest) < 8 {
			return nil, fmt.Errorf("tokenizer: tokenizer.bin: token %d is cut off", i)
		}
		p := spmPiece{score: math.Float32frombits(binary.LittleEndian.Uint32(rest)), kind: pieceNormal}
		size := int64(binary.LittleEndian.Uint32(rest[4:]))
		if size > int64(len(rest)-8) || i == subword.MaxVocab {
			return nil, fmt.Errorf("tokenizer: tokenizer.bin: token %d has %d bytes of %d", i, size, len(rest)-8)
		}
		p.piece = strings.ReplaceAll(string(rest[8:8+size]), " ", spaceSymbol)
		rest = rest[8+size:]
		_, isByte := subword.ByteOfToken(p.piece)
		switch {
		case i < len(names):
			p.piece, p.kind = names[i], pieceControl
			if i == 0 {
				p.kind = pieceUnknown
			}
		case isByte:
			p.kind = pieceByte
		case p.piece == "" || !utf8.ValidString(p.piece) || math.IsNaN(float64(p.score)):
			return nil, fmt.Errorf("tokenizer: tokenizer.bin: token %d is %q with score %v", i, p.piece, p.score)
		}
		m.pieces = append(m.pieces, p)
	}
	if len(m.pieces) < len(names) {
		return nil, fmt.Errorf("tokenizer: tokenizer.bin: %d tokens", len(m.pieces))
	}
	cfg := &bundleConfig{}
	t, err := m.tokenizer(cfg)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: tokenizer.bin: %w", err)
	}
	t.apply(cfg)
	return t, nil
}

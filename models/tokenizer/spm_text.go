package tokenizer

import (
	"strings"

	"helicon/models/tokenizer/subword"
	"helicon/models/tokenizer/words"
)

// spaceSymbol is how SentencePiece writes a space.
const spaceSymbol = "▁"

// spmNormalizer is SentencePiece's Normalizer: the rules of its charsmap and
// the treatment of spaces.
type spmNormalizer struct {
	rules       *words.Charsmap // nil: none
	user        *subword.Trie   // user-defined pieces, which are left as they are
	dummyPrefix bool
	suffix      bool // the dummy prefix goes to the end
	removeExtra bool
	space       string
}

// Normalize applies the rules from left to right.
func (n *spmNormalizer) Normalize(s string) string {
	if n.removeExtra {
		for s != "" {
			first, size := n.first(s)
			if first != " " {
				break
			}
			s = s[size:]
		}
	}
	if s == "" {
		return ""
	}
	var b strings.Builder
	b.Grow(len(s) + len(s)/4)
	if n.dummyPrefix && !n.suffix {
		b.WriteString(n.space)
	}
	afterSpace := n.removeExtra
	for s != "" {
		first, size := n.first(s)
		s = s[size:]
		if afterSpace {
			first = strings.TrimLeft(first, " ")
		}
		if first != "" {
			b.WriteString(strings.ReplaceAll(first, " ", n.space))
			afterSpace = strings.HasSuffix(first, " ")
		}
		afterSpace = afterSpace && n.removeExtra
	}
	out := b.String()
	if n.removeExtra {
		for len(out) > 0 && strings.HasSuffix(out, n.space) {
			out = out[:len(out)-len(n.space)]
		}
	}
	if n.dummyPrefix && n.suffix {
		out += n.space
	}
	return out
}

// first normalises what s begins with.
func (n *spmNormalizer) first(s string) (normalized string, size int) {
	if _, size := n.user.Longest(s); size > 0 {
		return s[:size], size
	}
	return n.rules.First(s)
}

// spmStep decodes SentencePiece's pieces.
type spmStep struct {
	kinds     []pieceType // by id; later ids are added tokens
	unknown   string
	bytes     utf8Joiner
	dropSpace bool // the space that the first piece begins with is dropped
	dropAll   bool // and so are those of the pieces after it, while there is no text
	begun     bool
}

func (s *spmStep) push(c chunk, next func(chunk)) {
	kind := pieceUserDefined
	if c.id < len(s.kinds) {
		kind = s.kinds[c.id]
	}
	text := s.raw(c)
	if kind == pieceByte {
		s.begun = true
		if text = s.bytes.push([]byte(text)); text != "" {
			next(chunk{text: text})
		}
		return
	}
	s.flush(next)
	switch kind {
	case pieceUnknown:
		text = s.unknown
	case pieceControl:
		next(chunk{text: text})
		return
	default:
		if rest, ok := strings.CutPrefix(text, " "); ok && !s.begun && s.dropSpace {
			text = rest
			s.begun = !s.dropAll
		}
	}
	if text != "" {
		s.begun = true
		next(chunk{text: text})
	}
}

func (s *spmStep) flush(next func(chunk)) {
	if text := s.bytes.flush(); text != "" {
		next(chunk{text: text})
	}
}

func (s *spmStep) raw(c chunk) string {
	if c.id < len(s.kinds) && s.kinds[c.id] == pieceByte {
		if b, ok := subword.ByteOfToken(c.text); ok {
			return string([]byte{b})
		}
	}
	if c.literal {
		return c.text
	}
	return strings.ReplaceAll(c.text, spaceSymbol, " ")
}

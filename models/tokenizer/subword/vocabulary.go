// Package subword splits words into the tokens of a vocabulary: byte-pair
// encoding (Sennrich et al. 2016), Unigram (Kudo 2018) and WordPiece (Schuster
// and Nakajima 2012), with the options that Hugging Face's tokenizers and
// SentencePiece give them. It knows nothing of how a text becomes words.
package subword

import "fmt"

// Limits on a vocabulary. The length of a token is limited where the time to
// load or to search grows with its square.
const (
	MaxVocab      = 1 << 21
	MaxTokenBytes = 1 << 10
)

// Model splits one word into ids. It is immutable and safe for concurrent use.
type Model interface {
	// Tokenize appends the ids of word to dst. The error says that some part of
	// it has no id and that there is no unknown token.
	Tokenize(dst []int32, word string) ([]int32, error)
}

// Vocabulary is a bijection between tokens and ids, filled at load.
type Vocabulary struct {
	IDs    map[string]int32
	Tokens []string // by id, "" where unused
}

// NewVocabulary inverts ids and checks their range.
func NewVocabulary(ids map[string]int32) (*Vocabulary, error) {
	if len(ids) > MaxVocab {
		return nil, fmt.Errorf("%d tokens, at most %d are accepted", len(ids), MaxVocab)
	}
	v := &Vocabulary{IDs: ids}
	for token, id := range ids {
		if id < 0 || id >= MaxVocab {
			return nil, fmt.Errorf("token %q: id %d is outside [0, %d)", token, id, MaxVocab)
		}
		v.Set(token, id)
	}
	return v, nil
}

// Set stores the spelling of id.
func (v *Vocabulary) Set(token string, id int32) {
	if n := int(id) + 1; n > len(v.Tokens) {
		v.Tokens = append(v.Tokens, make([]string, n-len(v.Tokens))...)
	}
	v.Tokens[id] = token
}

// ByteTokens returns the ids of the tokens <0x00> to <0xFF>, or nil unless
// all of them exist.
func ByteTokens(vocab *Vocabulary) *[256]int32 {
	var ids [256]int32
	for b := range ids {
		id, ok := vocab.IDs[fmt.Sprintf("<0x%02X>", b)]
		if !ok {
			return nil
		}
		ids[b] = id
	}
	return &ids
}

// ByteOfToken returns the byte of a token spelled <0xNN>.
func ByteOfToken(token string) (byte, bool) {
	if len(token) != 6 || token[:3] != "<0x" || token[5] != '>' {
		return 0, false
	}
	hi, ok1 := hexDigit(token[3])
	lo, ok2 := hexDigit(token[4])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

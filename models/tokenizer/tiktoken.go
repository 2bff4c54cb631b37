package tokenizer

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"helicon/models/tokenizer/subword"
	"helicon/models/tokenizer/words"
)

// ReadTiktoken builds a byte-level BPE from a file of OpenAI's tiktoken: a
// line holds a token in base64 and its rank, which is its id, and any two
// tokens that make a token merge. Text is cut into words as GPT-2 does, which
// is right for GPT-2 and Whisper. special adds special tokens with their ids.
func ReadTiktoken(data []byte, special map[string]int) (*Tokenizer, error) {
	alphabet := words.NewByteAlphabet()
	ids := map[string]int32{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		encoded, number, _ := strings.Cut(lines.Text(), " ")
		if encoded == "" || encoded == "=" { // "=" is the empty token that ends Whisper's file
			continue
		}
		token, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, fmt.Errorf("tokenizer: tiktoken: line %d: token %q is not base64", n, encoded)
		}
		id, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("tokenizer: tiktoken: line %d: rank %q is not a number", n, number)
		}
		ids[alphabet.Encode(string(token))] = int32(id)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("tokenizer: tiktoken: %w", err)
	}
	vocab, err := subword.NewVocabulary(ids)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: tiktoken: %w", err)
	}
	merges, err := subword.MergesFromVocab(vocab, func(id int32) (int32, bool) { return id, true })
	if err != nil {
		return nil, fmt.Errorf("tokenizer: tiktoken: %w", err)
	}
	p, err := builtinParts(gpt2Pipeline)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: tiktoken: %w", err)
	}
	p.vocab, p.model = vocab, subword.NewBPE(vocab, merges)
	for content, id := range special {
		p.added = append(p.added, addedToken{ID: id, Content: content, Special: true})
	}
	t, err := p.assemble()
	if err != nil {
		return nil, fmt.Errorf("tokenizer: tiktoken: %w", err)
	}
	if id, ok := special[gpt2End]; ok {
		t.roles.bos, t.roles.eos, t.roles.stop = id, id, []int{id}
	}
	return t, nil
}

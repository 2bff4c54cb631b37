package words

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"helicon/models/tokenizer/component"
)

// jsonNormalizer is the union of the normalizer types of tokenizer.json.
type jsonNormalizer struct {
	Normalizers []json.RawMessage `json:"normalizers"`

	CleanText    bool  `json:"clean_text"`
	Chinese      bool  `json:"handle_chinese_chars"`
	StripAccents *bool `json:"strip_accents"` // null: as lowercase
	Lowercase    bool  `json:"lowercase"`

	Left     bool        `json:"strip_left"`
	Right    bool        `json:"strip_right"`
	Pattern  jsonPattern `json:"pattern"`
	Content  string      `json:"content"`
	Prepend  string      `json:"prepend"`
	Charsmap []byte      `json:"precompiled_charsmap"`
}

// ParseNormalizer builds the component "normalizer"; nil if there is none.
func ParseNormalizer(raw json.RawMessage) (Normalizer, error) {
	if component.Absent(raw) {
		return nil, nil
	}
	return parseNormalizerAt(raw, 0)
}

func parseNormalizerAt(raw json.RawMessage, depth int) (Normalizer, error) {
	kind, err := component.Type(raw)
	if err != nil {
		return nil, err
	}
	var n jsonNormalizer
	if err := json.Unmarshal(raw, &n); err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		if depth == component.MaxDepth {
			return nil, component.ErrDepth
		}
		list, err := component.List("normalizers", n.Normalizers, func(raw json.RawMessage) (Normalizer, error) {
			return parseNormalizerAt(raw, depth+1)
		})
		return normalizers(list), err
	case "BertNormalizer":
		strip := n.Lowercase
		if n.StripAccents != nil {
			strip = *n.StripAccents
		}
		return bertNormalizer(n.CleanText, n.Chinese, strip, n.Lowercase), nil
	case "NFC":
		return unicodeForm(norm.NFC), nil
	case "NFD":
		return unicodeForm(norm.NFD), nil
	case "NFKC":
		return unicodeForm(norm.NFKC), nil
	case "NFKD":
		return unicodeForm(norm.NFKD), nil
	case "Lowercase":
		return normalizerFunc(lowercase), nil
	case "StripAccents":
		return stripMarks(unicode.M), nil
	case "Strip":
		return stripSpace{n.Left, n.Right}, nil
	case "Prepend":
		return prepend(n.Prepend), nil
	case "ByteLevel":
		return byteLevelNormalizer{NewByteAlphabet()}, nil
	case "Precompiled":
		return NewCharsmap(n.Charsmap)
	case "Replace":
		return n.replace()
	}
	return nil, fmt.Errorf("type %q is not supported", kind)
}

func (n *jsonNormalizer) replace() (Normalizer, error) {
	if n.Pattern.String != nil && *n.Pattern.String != "" {
		return replaceString{*n.Pattern.String, n.Content}, nil
	}
	if n.Pattern.Regex == nil {
		return nil, errors.New("pattern: neither String nor Regex is given")
	}
	re, err := newRegexp(*n.Pattern.Regex)
	if err != nil {
		return nil, err
	}
	return replaceRegexp{re, n.Content}, nil
}

// jsonPreTokenizer is the union of the pre-tokenizer types of tokenizer.json.
type jsonPreTokenizer struct {
	PreTokenizers []json.RawMessage `json:"pretokenizers"`

	UseRegex *bool `json:"use_regex"`

	Pattern   jsonPattern     `json:"pattern"`
	Behavior  behavior        `json:"behavior"`
	Invert    bool            `json:"invert"`
	Delimiter string          `json:"delimiter"`
	Digits    bool            `json:"individual_digits"`
	Length    json.RawMessage `json:"length"`

	component.Metaspace
	Split *bool `json:"split"`
}

// ParsePreTokenizer builds the component "pre_tokenizer"; nil if there is none.
func ParsePreTokenizer(raw json.RawMessage) (PreTokenizer, error) {
	if component.Absent(raw) {
		return nil, nil
	}
	return parsePreTokenizerAt(raw, 0)
}

func parsePreTokenizerAt(raw json.RawMessage, depth int) (PreTokenizer, error) {
	kind, err := component.Type(raw)
	if err != nil {
		return nil, err
	}
	var p jsonPreTokenizer
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		if depth == component.MaxDepth {
			return nil, component.ErrDepth
		}
		list, err := component.List("pretokenizers", p.PreTokenizers, func(raw json.RawMessage) (PreTokenizer, error) {
			return parsePreTokenizerAt(raw, depth+1)
		})
		return preTokenizers(list), err
	case "ByteLevel":
		return p.byteLevel(), nil
	case "BertPreTokenizer":
		return bertWords(), nil
	case "Whitespace":
		return splitter{pattern: patternFunc(wordsAndSymbols), behavior: removed, invert: true}, nil
	case "WhitespaceSplit":
		return splitter{pattern: runes(unicode.IsSpace), behavior: removed}, nil
	case "Metaspace":
		return p.metaspace()
	case "Digits":
		b := contiguous
		if p.Digits {
			b = isolated
		}
		return splitter{pattern: runes(isNumber), behavior: b}, nil
	case "Punctuation":
		if p.Behavior == "" {
			p.Behavior = isolated
		}
		return p.splitter(runes(isBertPunctuation))
	case "CharDelimiterSplit":
		if p.Delimiter == "" {
			return nil, errors.New("delimiter is empty")
		}
		return splitter{pattern: literal(p.Delimiter), behavior: removed}, nil
	case "Split":
		pattern, err := p.Pattern.compile()
		if err != nil {
			return nil, err
		}
		return p.splitter(pattern)
	case "FixedLength":
		var n int
		if err := json.Unmarshal(p.Length, &n); err != nil || n < 1 {
			return nil, fmt.Errorf("length is %s, want a positive number", p.Length)
		}
		return fixedLength(n), nil
	}
	return nil, fmt.Errorf("type %q is not supported", kind)
}

func (p *jsonPreTokenizer) splitter(pattern pattern) (PreTokenizer, error) {
	switch p.Behavior {
	case removed, isolated, contiguous, mergedWithPrevious, mergedWithNext:
		return splitter{pattern, p.Behavior, p.Invert}, nil
	}
	return nil, fmt.Errorf("behavior %q is not supported", p.Behavior)
}

func (p *jsonPreTokenizer) byteLevel() PreTokenizer {
	var ps preTokenizers
	if p.AddPrefixSpace == nil || *p.AddPrefixSpace {
		ps = append(ps, prefixSpace{})
	}
	if p.UseRegex == nil || *p.UseRegex {
		ps = append(ps, splitter{pattern: scanner(scanGPT2), behavior: isolated})
	}
	return append(ps, byteLevelMap{NewByteAlphabet()})
}

func (p *jsonPreTokenizer) metaspace() (PreTokenizer, error) {
	scheme, err := p.Scheme()
	if err != nil {
		return nil, err
	}
	return metaspace{p.Replacement, scheme, p.Split == nil || *p.Split}, nil
}

// jsonPattern is a pattern as written in tokenizer.json.
type jsonPattern struct {
	String *string `json:"String"`
	Regex  *string `json:"Regex"`
}

func (p jsonPattern) compile() (pattern, error) {
	switch {
	case p.Regex != nil:
		return newPattern(*p.Regex)
	case p.String != nil && *p.String != "":
		return literal(*p.String), nil
	}
	return nil, errors.New("pattern: neither String nor Regex is given")
}

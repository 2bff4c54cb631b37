package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"helicon/models/tokenizer/component"
)

// preTokenizer is a way of cutting text into words that GGUF has names for.
type preTokenizer struct {
	names []string // of tokenizer.ggml.pre; the first is written
	split string   // the component "pre_tokenizer" of tokenizer.json

	compose bool // text is normalised to NFC, as the models' own tokenizers do
	whole   bool // a word of the vocabulary is taken as it is
	begin   bool // a text begins with the begin token unless the file says otherwise
}

const (
	byteLevel = `{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}`
	gpt2Words = `{"type": "ByteLevel", "add_prefix_space": false}`

	contractions = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|`
	afterWords   = `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	llama3Words  = contractions + `[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}` + afterWords
	qwen2Words   = contractions + `[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}` + afterWords
	upperWord    = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
	lowerWord    = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
	afterCased   = `| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	tekkenWords  = upperWord + `|` + lowerWord + `|\p{N}` + afterCased
	gpt4oWords   = upperWord + `(?i:'s|'t|'re|'ve|'m|'ll|'d)?|` + lowerWord + `(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}` + afterCased
	deepseekWord = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)

// preTokenizers lists those that are known, by the patterns of the models that they are
// named for.
func preTokenizers() []preTokenizer {
	return []preTokenizer{
		{names: []string{"gpt-2", "phi-2", "olmo", "mpt", "jais", "exaone4", "gigachat", "trillion", "mellum", "granite-docling"}, split: gpt2Words},
		{names: []string{"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "lfm2"}, split: splits(llama3Words), whole: true, begin: true},
		{names: []string{"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, split: splits(llama3Words)},
		{names: []string{"qwen2", "deepseek-r1-qwen", "kormo", "megrez"}, split: splits(qwen2Words), compose: true},
		{names: []string{"stablelm2", "hunyuan", "solar-open", "grok-2"}, split: splits(qwen2Words)},
		{names: []string{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"},
			split: sequence(`{"type": "Digits", "individual_digits": true}`, gpt2Words)},
		{names: []string{"falcon"}, split: sequence(`{"type": "Punctuation", "behavior": "Contiguous"}`, gpt2Words,
			`{"type": "Digits", "individual_digits": false}`, isolate(`[0-9][0-9][0-9]`))},
		{names: []string{"bloom", "gpt3-finnish", "poro-chat"}, split: splits(` ?[^(\s|[.,!?…。，、।۔،])]+`)},
		{names: []string{"tekken"}, split: splits(tekkenWords), whole: true, begin: true},
		{names: []string{"gpt-4o", "llama4", "kanana2"}, split: splits(gpt4oWords)},
		{names: []string{"deepseek-v3", "hunyuan-dense"}, split: splits(`\p{N}{1,3}`, `[一-龥぀-ゟ゠-ヿ]+`, deepseekWord)},
		{names: []string{"deepseek-coder"}, split: splits(`[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, `[一-龥ࠀ-一가-퟿]+`, `\p{N}`)},
		{names: []string{"default", ""}, split: splits(`[\p{P}\$\+<=>\^~\|]+`,
			`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, `\p{N}+`, `[0-9][0-9][0-9]`)},
	}
}

// splits cuts a text at all matches of one expression after the other.
func splits(expressions ...string) string {
	parts := make([]string, len(expressions))
	for i, e := range expressions {
		parts[i] = isolate(e)
	}
	return sequence(append(parts, byteLevel)...)
}

func isolate(expression string) string {
	quoted, err := json.Marshal(expression)
	if err != nil {
		return "" // a string always has a form in JSON
	}
	return fmt.Sprintf(`{"type": "Split", "pattern": {"Regex": %s}, "behavior": "Isolated"}`, quoted)
}

func sequence(parts ...string) string {
	return `{"type": "Sequence", "pretokenizers": [` + strings.Join(parts, ", ") + `]}`
}

// preTokenizerNamed returns the one that a file names.
func preTokenizerNamed(name string) (preTokenizer, error) {
	for _, p := range preTokenizers() {
		if slices.Contains(p.names, name) {
			return p, nil
		}
	}
	return preTokenizer{}, fmt.Errorf("tokenizer.ggml.pre %q is not known", name)
}

// preTokenizerLike returns the one that does what a component of tokenizer.json does, the
// one with the same composition if there is a choice.
func preTokenizerLike(raw json.RawMessage, compose, whole bool) (found preTokenizer, ok bool) {
	want, err := stages(raw, 0)
	if err != nil {
		return found, false
	}
	for _, p := range preTokenizers() {
		have, err := stages(json.RawMessage(p.split), 0)
		if err != nil || p.whole != whole || !slices.Equal(have, want) || ok && p.compose != compose {
			continue
		}
		found, ok = p, true
	}
	return found, ok
}

// stages lists what a pre-tokenizer does, in words that are equal for equal ones.
func stages(raw json.RawMessage, depth int) ([]string, error) {
	kind, err := component.Type(raw)
	if err != nil {
		return nil, err
	}
	var p struct {
		Parts   []json.RawMessage `json:"pretokenizers"`
		Pattern struct {
			Regex, String *string
		} `json:"pattern"`
		Behavior string `json:"behavior"`
		Invert   bool   `json:"invert"`
		Digits   bool   `json:"individual_digits"`
		Prefix   *bool  `json:"add_prefix_space"`
		Words    *bool  `json:"use_regex"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		if depth == component.MaxDepth {
			return nil, component.ErrDepth
		}
		var all []string
		for _, part := range p.Parts {
			list, err := stages(part, depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, list...)
		}
		return all, nil
	case "ByteLevel":
		return []string{fmt.Sprintf("bytes prefix=%t words=%t", p.Prefix == nil || *p.Prefix, p.Words == nil || *p.Words)}, nil
	case "Split":
		if p.Pattern.Regex != nil {
			return []string{fmt.Sprintf("split %s %t %s", p.Behavior, p.Invert, *p.Pattern.Regex)}, nil
		}
	}
	return []string{fmt.Sprintf("%s %s %t %t", kind, p.Behavior, p.Digits, p.Invert)}, nil
}

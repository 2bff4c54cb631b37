package tokenizer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"helicon/models/tokenizer/subword"
)

// Files of the layouts that came before tokenizer.json.
const (
	fileVocabJSON = "vocab.json"
	fileMerges    = "merges.txt"
	fileVocabText = "vocab.txt"
)

// gpt2End is GPT-2's only special token; CLIP has it, too.
const gpt2End = "<|endoftext|>"

// loadVocabMerges builds a byte-level BPE from vocab.json and merges.txt.
func loadVocabMerges(fsys fs.FS, data []byte, cfg *bundleConfig) (*Tokenizer, error) {
	mergesData, err := readFile(fsys, fileMerges)
	if err != nil {
		return nil, err
	}
	var ids map[string]int32
	if err := json.Unmarshal(data, &ids); err != nil {
		return nil, err
	}
	vocab, err := subword.NewVocabulary(ids)
	if err != nil {
		return nil, err
	}
	list, err := parseMerges(mergesData)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileMerges, err)
	}
	merges, err := subword.MergesFromList(vocab, list, "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileMerges, err)
	}
	if _, ok := ids[gpt2End]; ok && cfg.EOS == "" {
		cfg.EOS = gpt2End
		if cfg.BOS == "" {
			cfg.BOS = gpt2End
		}
	}
	b := subword.NewBPE(vocab, merges)
	layout := gpt2Pipeline
	_, clip := ids["a"+clipWordEnd]
	if clip {
		layout = clipPipeline
	}
	p, err := builtinParts(layout)
	if err != nil {
		return nil, err
	}
	p.model, p.vocab = b, vocab
	if clip {
		if err := p.clip(b, cfg); err != nil {
			return nil, err
		}
	}
	if p.added, err = cfg.extraTokens(ids); err != nil {
		return nil, err
	}
	return p.assemble()
}

// parseMerges reads merges.txt: a rule a line, in order of rank.
func parseMerges(data []byte) ([]subword.MergePair, error) {
	var list []subword.MergePair
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if line == "" || n == 1 && strings.HasPrefix(line, "#version") {
			continue
		}
		var p subword.MergePair
		if err := p.Parse(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		list = append(list, p)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return list, nil
}

// gpt2Pipeline is the pipeline of GPT-2 around its model.
const gpt2Pipeline = `{
	"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
	"decoder": {"type": "ByteLevel"}
}`

// clipPipeline is the pipeline of CLIP (Radford et al. 2021): lower case,
// single spaces, and words that end in a mark.
const clipPipeline = `{
	"normalizer": {"type": "Sequence", "normalizers": [
		{"type": "NFC"},
		{"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
		{"type": "Lowercase"}
	]},
	"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
		{"type": "Split", "behavior": "Removed", "invert": true, "pattern":
			{"Regex": "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}},
		{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}
	]},
	"decoder": {"type": "ByteLevel"}
}`

// clipWordEnd marks the last token of a word in CLIP's vocabulary.
const clipWordEnd = "</w>"

// clip sets what CLIP has beside its pipeline: AddSpecial adds its start and
// end, and the end is the unknown token, too.
func (p *parts) clip(b *subword.BPE, cfg *bundleConfig) error {
	const start = "<|startoftext|>"
	if cfg.BOS == "" || cfg.BOS == gpt2End {
		cfg.BOS = start
	}
	for _, f := range []struct {
		token string
		to    *[]int
	}{{start, &p.prefix}, {gpt2End, &p.suffix}} {
		id, ok := p.vocab.IDs[f.token]
		if !ok {
			return fmt.Errorf("%q is not in the vocabulary", f.token)
		}
		*f.to = []int{int(id)}
		b.Unk = id
	}
	b.Suffix = clipWordEnd
	bytes := p.newDecoder
	p.newDecoder = func() []decodeStep { return append(bytes(), &wordEndStep{}) }
	return nil
}

// wordEndStep writes the mark of a word's end as a space, except at the end
// of the text.
type wordEndStep struct{ space bool }

func (s *wordEndStep) push(c chunk, next func(chunk)) {
	if s.space {
		c.text = " " + c.text
	}
	c.text, s.space = strings.CutSuffix(c.text, clipWordEnd)
	c.text = strings.ReplaceAll(c.text, clipWordEnd, " ")
	next(c)
}

func (s *wordEndStep) flush(func(chunk)) {}

func (s *wordEndStep) raw(c chunk) string { return strings.ReplaceAll(c.text, clipWordEnd, " ") }

// bertPipeline is the pipeline of BERT around its model; it lacks whether the
// model is uncased.
const bertPipeline = `{
	"normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "lowercase": %t},
	"pre_tokenizer": {"type": "BertPreTokenizer"},
	"decoder": {"type": "WordPiece"}
}`

// loadVocabText builds BERT's WordPiece from vocab.txt, a token a line.
func loadVocabText(_ fs.FS, data []byte, cfg *bundleConfig) (*Tokenizer, error) {
	ids := map[string]int32{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for id := int32(0); lines.Scan(); id++ {
		ids[strings.TrimRight(lines.Text(), "\r")] = id
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	vocab, err := subword.NewVocabulary(ids)
	if err != nil {
		return nil, err
	}
	cfg.fill(&specialTokens{UNK: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", PAD: "[PAD]", MASK: "[MASK]"})
	p, err := builtinParts(fmt.Sprintf(bertPipeline, cfg.LowerCase == nil || *cfg.LowerCase))
	if err != nil {
		return nil, err
	}
	p.vocab, p.model = vocab, subword.NewWordPiece(vocab, "##", string(cfg.UNK))
	if id, ok := ids[string(cfg.CLS)]; ok {
		p.prefix = []int{int(id)}
	}
	if id, ok := ids[string(cfg.SEP)]; ok {
		p.suffix = []int{int(id)}
	}
	if p.added, err = cfg.extraTokens(ids); err != nil {
		return nil, err
	}
	return p.assemble()
}

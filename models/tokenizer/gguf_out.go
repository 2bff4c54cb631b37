package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"helicon/models/tokenizer/component"
	"helicon/models/tokenizer/subword"
	"helicon/models/weights"
)

// ErrNoGGUF is wrapped when GGUF has no form for a tokenizer.
var ErrNoGGUF = errors.New("tokenizer: it has no form in GGUF")

// ToGGUF returns the tokenizer of a model bundle as metadata of a GGUF file, for a model
// with an embedding of vocab tokens. The errors are those of Load; ErrNoGGUF is wrapped
// for what GGUF cannot say: another model than byte-level BPE or SentencePiece, or tokens
// around a text other than one at each end. If it has no name for how words are cut,
// tokenizer.json is put into the metadata whole, which FromGGUF prefers, and the nearest
// name beside it for engines that do not read that.
func ToGGUF(fsys fs.FS, vocab int) ([]weights.Pair, error) {
	t, err := Load(fsys)
	if err != nil {
		return nil, err
	}
	if t.Vocab() > vocab {
		return nil, fmt.Errorf("tokenizer: %d tokens of a model with an embedding of %d", t.Vocab(), vocab)
	}
	w := &ggufWriter{t: t, types: make([]int32, vocab), tokens: make([]string, vocab)}
	w.list()
	if err := w.model(fsys); err != nil {
		return nil, err
	}
	if err := w.ends(); err != nil {
		return nil, err
	}
	return w.pairs, nil
}

// nearestPre is how most newer models cut words.
const nearestPre = "qwen2"

// ggufWriter collects the metadata of a tokenizer.
type ggufWriter struct {
	t      *Tokenizer
	tokens []string
	types  []int32
	pairs  []weights.Pair
}

func (w *ggufWriter) add(key string, value any) {
	w.pairs = append(w.pairs, weights.Pair{Key: key, Value: value})
}

// list fills in tokens and types, with rows of the embedding that no token has as padding.
func (w *ggufWriter) list() {
	for i := range w.tokens {
		token, ok := w.t.Token(i)
		switch {
		case !ok:
			token, w.types[i] = fmt.Sprintf("[PAD%d]", i), int32(pieceUnused)
		case w.t.Special(i):
			w.types[i] = int32(pieceControl)
		case w.t.added.has(i):
			w.types[i] = int32(pieceUserDefined)
		default:
			w.types[i] = int32(pieceNormal)
		}
		w.tokens[i] = token
	}
}

// model writes what kind of tokenizer it is, and its vocabulary. Of the files of a bundle
// SentencePiece's says most.
func (w *ggufWriter) model(fsys fs.FS) error {
	for _, f := range []struct {
		name  string
		write func(fsys fs.FS, data []byte) error
	}{
		{fileSentencePiece, w.sentencePiece}, {fileSpiece, w.sentencePiece}, {fileJSON, w.json}, {fileVocabJSON, w.vocabMerges},
	} {
		data, err := readFile(fsys, f.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f.write(fsys, data)
		}
		if err != nil {
			return fmt.Errorf("tokenizer: %s: %w", f.name, err)
		}
		return nil
	}
	return fmt.Errorf("%w: WordPiece is not supported", ErrNoGGUF)
}

func (w *ggufWriter) sentencePiece(_ fs.FS, data []byte) error {
	m, err := parseSentencePiece(data)
	if err != nil {
		return err
	}
	if m.whitespaceSuffix || !m.escapeSpace {
		return fmt.Errorf("spaces at the end of words, or as they are: %w", ErrNoGGUF)
	}
	scores := make([]float32, len(w.tokens))
	for i := range scores {
		if scores[i] = -1000; w.types[i] == int32(pieceUnused) {
			scores[i] = -10000
		}
		if i < len(m.pieces) && !w.t.added.has(i) || i < len(m.pieces) && m.pieces[i].piece == w.tokens[i] {
			scores[i], w.types[i] = m.pieces[i].score, int32(m.pieces[i].kind)
		}
		if w.types[i] == int32(pieceUserDefined) {
			w.tokens[i] = strings.ReplaceAll(w.tokens[i], spaceSymbol, " ")
		}
	}
	kind := "llama"
	if m.modelType == spmUnigram {
		kind = "t5"
	}
	w.vocabulary(kind, "default")
	w.add(keyScores, scores)
	w.add(keyPrefix, m.dummyPrefix)
	w.add(keyExtra, m.removeExtraSpace)
	if len(m.charsmap) > 0 {
		w.add(keyCharsmap, slices.Clone(m.charsmap))
	}
	return nil
}

// vocabulary writes what all kinds have.
func (w *ggufWriter) vocabulary(model, pre string) {
	w.add(keyModel, model)
	w.add(keyPre, pre)
	w.add(keyTokens, w.tokens)
	w.add(keyTypes, w.types)
}

func (w *ggufWriter) vocabMerges(fsys fs.FS, _ []byte) error {
	if _, clip := w.t.ids["a"+clipWordEnd]; clip {
		return fmt.Errorf("CLIP's words: %w", ErrNoGGUF)
	}
	data, err := readFile(fsys, fileMerges)
	if err != nil {
		return err
	}
	merges, err := parseMerges(data)
	if err != nil {
		return err
	}
	w.vocabulary("gpt2", "gpt-2")
	w.merges(merges)
	return nil
}

func (w *ggufWriter) merges(list []subword.MergePair) {
	rules := make([]string, len(list))
	for i, m := range list {
		rules[i] = m[0] + " " + m[1]
	}
	w.add(keyMerges, rules)
}

// jsonBPE is the part of the component "model" that is needed here.
type jsonBPE struct {
	Type         string              `json:"type"`
	Merges       []subword.MergePair `json:"merges"`
	IgnoreMerges bool                `json:"ignore_merges"`
	ByteFallback bool                `json:"byte_fallback"`
	Prefix       *string             `json:"continuing_subword_prefix"`
	Suffix       *string             `json:"end_of_word_suffix"`
}

func (w *ggufWriter) json(_ fs.FS, data []byte) error {
	var f jsonFile
	var m jsonBPE
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	if err := json.Unmarshal(f.Model, &m); err != nil {
		return err
	}
	marked := m.Prefix != nil && *m.Prefix != "" || m.Suffix != nil && *m.Suffix != ""
	if m.Type != "BPE" && m.Type != "" || m.Merges == nil || marked {
		return fmt.Errorf("model %q: %w", m.Type, ErrNoGGUF)
	}
	if m.ByteFallback {
		return w.llama(&f, &m)
	}
	compose := false
	if !component.Absent(f.Normalizer) {
		kind, err := component.Type(f.Normalizer)
		if err != nil || kind != "NFC" {
			return fmt.Errorf("normalizer %s: %w", f.Normalizer, ErrNoGGUF)
		}
		compose = true
	}
	pre, ok := preTokenizerLike(f.PreTokenizer, compose, m.IgnoreMerges)
	if !ok {
		w.vocabulary("gpt2", nearestPre)
		w.merges(m.Merges)
		w.add(keyJSON, string(data))
		return nil
	}
	w.vocabulary("gpt2", pre.names[0])
	w.merges(m.Merges)
	return nil
}

// llama writes a BPE over characters with bytes for unknown ones, as SentencePiece's are
// in tokenizer.json. A token's score is the rank of the first rule that makes it.
func (w *ggufWriter) llama(f *jsonFile, m *jsonBPE) error {
	prefix, err := f.spacePrefix()
	if err != nil {
		return err
	}
	scores := make([]float32, len(w.tokens))
	made := map[string]bool{}
	for rank, rule := range m.Merges {
		token := rule[0] + rule[1]
		if id, ok := w.t.ids[token]; ok && !made[token] {
			made[token] = true
			scores[id] = -float32(rank + 1)
		}
	}
	unmade := -float32(len(m.Merges) + 2)
	for i, token := range w.tokens {
		if _, isByte := subword.ByteOfToken(token); isByte {
			w.types[i] = int32(pieceByte)
		} else if i == w.t.roles.unk {
			w.types[i] = int32(pieceUnknown)
		} else if w.types[i] == int32(pieceNormal) && !made[token] {
			scores[i] = unmade // single characters, which nothing makes
		}
		if w.types[i] == int32(pieceUserDefined) {
			w.tokens[i] = strings.ReplaceAll(w.tokens[i], spaceSymbol, " ")
		}
	}
	w.vocabulary("llama", "default")
	w.add(keyScores, scores)
	w.add(keyPrefix, prefix)
	return nil
}

// spacePrefix tells whether a text has a space put before it, in the forms that
// SentencePiece's models have in tokenizer.json.
func (f *jsonFile) spacePrefix() (bool, error) {
	const (
		replace  = `{"type":"Replace","pattern":{"String":" "},"content":"▁"}`
		prepend  = `{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},` + replace + `]}`
		meta     = `{"type":"Metaspace","replacement":"▁","prepend_scheme":%q,"split":false}`
		splitOff = `{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false}`
	)
	for _, form := range []struct {
		normalizer, pre string
		prefix          bool
	}{
		{prepend, `null`, true}, {replace, `null`, false}, {replace, splitOff, false},
		{`null`, fmt.Sprintf(meta, "first"), true}, {`null`, fmt.Sprintf(meta, "always"), true}, {`null`, fmt.Sprintf(meta, "never"), false},
	} {
		if sameJSON(f.Normalizer, form.normalizer) && sameJSON(f.PreTokenizer, form.pre) {
			return form.prefix, nil
		}
	}
	return false, fmt.Errorf("normalizer %s with pre_tokenizer %s: %w", f.Normalizer, f.PreTokenizer, ErrNoGGUF)
}

// sameJSON reports whether two texts say the same.
func sameJSON(raw json.RawMessage, want string) bool {
	var a, b any
	if len(raw) == 0 {
		raw = json.RawMessage("null")
	}
	if json.Unmarshal(raw, &a) != nil || json.Unmarshal([]byte(want), &b) != nil {
		return false
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// ends writes the tokens with a part to play, and the chat template.
func (w *ggufWriter) ends() error {
	t := w.t
	bos, eos := t.roles.bos, t.roles.eos
	switch {
	case len(t.prefix) > 1 || len(t.suffix) > 1:
		return fmt.Errorf("%w: %d tokens before a text and %d after it", ErrNoGGUF, len(t.prefix), len(t.suffix))
	case len(t.prefix) == 1:
		bos = t.prefix[0]
	}
	if len(t.suffix) == 1 {
		eos = t.suffix[0]
	}
	stops := slices.DeleteFunc(slices.Clone(t.roles.stop), func(id int) bool { return id == eos })
	for _, f := range []struct {
		role string
		id   int
	}{
		{"bos", bos}, {"eos", eos}, {"padding", t.roles.pad}, {"unknown", t.roles.unk}, {"eot", at(stops, 0)}, {"eom", at(stops, 1)},
	} {
		if f.id >= 0 {
			w.add(fmt.Sprintf(keyIDPattern, f.role), uint32(f.id))
		}
	}
	w.add(keyAddBOS, len(t.prefix) == 1)
	w.add(keyAddEOS, len(t.suffix) == 1)
	if t.chatSource != "" {
		w.add(keyTemplate, t.chatSource)
	}
	if t.toolSource != "" {
		w.add(keyTools, t.toolSource)
	}
	return nil
}

// at returns an element of a list of ids, -1 if it is shorter.
func at(ids []int, i int) int {
	if i < len(ids) {
		return ids[i]
	}
	return -1
}

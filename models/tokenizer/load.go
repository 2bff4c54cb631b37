package tokenizer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"helicon/models/weights"
)

// ErrNoTokenizer is returned by Load for a folder without any of the files
// that it reads.
var ErrNoTokenizer = errors.New("tokenizer: no tokenizer.json, tokenizer.model, spiece.model, vocab.json with merges.txt, or vocab.txt")

// Load reads the tokenizer of a model bundle. It takes the first of these
// that fsys holds at its root:
//
//   - tokenizer.json
//   - tokenizer.model or spiece.model (SentencePiece)
//   - vocab.json with merges.txt (GPT-2, or CLIP by the shape of its tokens)
//   - vocab.txt (BERT)
//   - the metadata of the model's GGUF file (see FromGGUF)
//
// and completes it, unless it is GGUF's, from tokenizer_config.json, special_tokens_map.json,
// added_tokens.json, generation_config.json and chat_template.jinja where
// present. Errors name the file and the field; ErrNoTokenizer reports that
// none of the files exists.
func Load(fsys fs.FS) (*Tokenizer, error) {
	cfg, err := readBundleConfig(fsys)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	for _, f := range formats {
		data, err := readFile(fsys, f.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("tokenizer: %w", err)
		}
		t, err := f.load(fsys, data, cfg)
		if err != nil {
			return nil, fmt.Errorf("tokenizer: %s: %w", f.file, err)
		}
		t.apply(cfg)
		return t, nil
	}
	if files, err := weights.Files(fsys, "model"); err != nil || weights.FormatOf(files[0].Name) != weights.GGUF {
		return nil, ErrNoTokenizer
	}
	header, err := weights.ReadHeader(fsys, "model")
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	return FromGGUF(header.Metadata)
}

// maxFileBytes bounds the files of a bundle.
const maxFileBytes = 256 << 20

// formats lists the files that hold a tokenizer, in order of preference.
var formats = [...]struct {
	file string
	load func(fsys fs.FS, data []byte, cfg *bundleConfig) (*Tokenizer, error)
}{
	{fileJSON, func(_ fs.FS, data []byte, _ *bundleConfig) (*Tokenizer, error) { return parseJSON(data) }},
	{fileSentencePiece, loadSentencePiece},
	{fileSpiece, loadSentencePiece},
	{fileVocabJSON, loadVocabMerges},
	{fileVocabText, loadVocabText},
}

// readFile reads a file of the bundle of at most maxFileBytes.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, maxFileBytes)
	}
	return data, nil
}

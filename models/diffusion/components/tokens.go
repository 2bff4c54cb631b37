package components

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"helicon/models/diffusion/checkpoint"
	"helicon/models/tokenizer"
)

// Tokenizer reads a component that is a tokenizer. Single files have none: theirs are in
// folders beside them, or in another bundle that the options name.
func (m *Model) Tokenizer(name string) (*tokenizer.Tokenizer, error) {
	if !m.Has(name) {
		return nil, fmt.Errorf("diffusion: model_index.json: no %s: %w", name, ErrUnsupported)
	}
	var first error
	for _, folder := range m.tokenizerFolders(name) {
		t, err := tokenizer.Load(folder)
		if err == nil {
			return t, nil
		}
		if first == nil {
			first = fmt.Errorf("diffusion: %s: %w", name, err)
		}
		if !errors.Is(err, tokenizer.ErrNoTokenizer) {
			return nil, first
		}
	}
	if m.singles != nil {
		return nil, fmt.Errorf("diffusion: %s holds no tokenizer: put a folder %s beside it, or name another bundle's as Options.Tokenizers: %w", m.singles[0].name, name, ErrUnsupported)
	}
	return nil, first
}

// tokenizerFolders lists where a tokenizer may be.
func (m *Model) tokenizerFolders(name string) []fs.FS {
	roots := []fs.FS{m.Files}
	if m.options.Tokenizers != nil {
		roots = append(roots, m.options.Tokenizers)
	}
	var folders []fs.FS
	for _, root := range roots {
		if folder, err := fs.Sub(root, name); err == nil {
			folders = append(folders, folder)
		}
		// The tokenizers of CLIP differ in what they fill up with alone.
		if folder, err := fs.Sub(root, "tokenizer"); err == nil && m.padsBy(name) != "" {
			folders = append(folders, clipFolder{folder, m.padsBy(name)})
		}
	}
	return folders
}

// padsBy returns the token that a tokenizer of CLIP fills up with in a single file's
// model, "" if it is none.
func (m *Model) padsBy(name string) string {
	f := m.singleOf("scheduler")
	switch {
	case f == nil:
		return ""
	case name == "tokenizer" && f.layout.Family == checkpoint.SD2:
		return "!"
	case name == "tokenizer":
		return "<|endoftext|>"
	case name == "tokenizer_2" && f.layout.Family != checkpoint.Flux:
		return "!"
	}
	return ""
}

// clipFolder is a folder with a tokenizer of CLIP that fills up with another token.
type clipFolder struct {
	fs.FS
	pad string
}

// Open opens a file.
func (c clipFolder) Open(name string) (fs.File, error) {
	switch name {
	case "tokenizer_config.json":
		const form = `{"tokenizer_class":"CLIPTokenizer","bos_token":"<|startoftext|>","eos_token":"<|endoftext|>",` +
			`"unk_token":"<|endoftext|>","pad_token":%q,"do_lower_case":true,"model_max_length":77}`
		return &textFile{Reader: bytes.NewReader(fmt.Appendf(nil, form, c.pad))}, nil
	case "special_tokens_map.json", "added_tokens.json":
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return c.FS.Open(name)
}

// textFile is a file in memory.
type textFile struct{ *bytes.Reader }

// Stat is not supported.
func (*textFile) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*textFile) Close() error { return nil }

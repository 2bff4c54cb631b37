package hub

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"helicon/models/weights"
)

// Files that describe a bundle.
const (
	configFile   = "config.json"      // of one network
	pipelineFile = "model_index.json" // of several, each in a folder of its own
	cardFile     = "README.md"
)

// Names of files of weights, without their endings.
const (
	modelBase = "model"
	partBase  = "diffusion_pytorch_model" // of a part of a pipeline by itself, as a ControlNet
)

// Limits on the files that are read to describe a bundle.
const (
	maxConfig = 1 << 20  // bytes
	maxCard   = 64 << 10 // bytes of the card in which the front matter must end
)

// describe fills in what the bundle's files say and returns what is wrong with it.
func (b *Bundle) describe() error {
	b.readCard()
	name := configFile
	if _, err := fs.Stat(b.Files, pipelineFile); err == nil {
		name = pipelineFile
	}
	header, err := weights.ReadHeader(b.Files, modelBase)
	if errors.Is(err, fs.ErrNotExist) {
		if part, e := weights.ReadHeader(b.Files, partBase); !errors.Is(e, fs.ErrNotExist) {
			header, err = part, e
		}
	}
	if err == nil && header.Format == weights.GGUF {
		b.add(header)
		return b.readGGUF(header)
	}
	if missing := b.readConfig(name); errors.Is(missing, fs.ErrNotExist) && len(ggufModels(b.Files)) > 0 {
		return unreadable(err) // a GGUF file needs no other description
	} else if errors.Is(missing, fs.ErrNotExist) {
		return b.readSingle(fmt.Errorf("%s: %w", name, missing))
	} else if missing != nil {
		return fmt.Errorf("%s: %w", name, missing)
	}
	if !errors.Is(err, fs.ErrNotExist) || name == configFile {
		if err == nil {
			b.add(header)
		}
		return unreadable(err)
	}
	return b.readPipeline(err)
}

// unreadable adds to the error of a file that breaks its format what the reason may be.
func unreadable(err error) error {
	if errors.Is(err, weights.ErrFormat) && !errors.Is(err, weights.ErrUnsafe) {
		return fmt.Errorf("%w (is it still being copied?)", err)
	}
	return err
}

// add counts the weights of a header.
func (b *Bundle) add(h *weights.Header) {
	b.Parameters += h.Parameters()
	b.Bytes += h.Bytes()
	sizes := map[string]int64{}
	for _, t := range h.Tensors() {
		kind := t.Kind
		if t.DType != 0 {
			kind = t.DType.String() // one name for a type in all formats
		}
		if sizes[kind] += t.Bytes; sizes[kind] > sizes[b.Type] || b.Type == "" {
			b.Type = kind
		}
	}
}

// readGGUF reads what a GGUF file says of itself.
func (b *Bundle) readGGUF(h *weights.Header) error {
	arch, err := h.Metadata.String("general.architecture")
	if class, unknown := classOf(h); unknown == nil { // a diffusion model, which need not name itself
		arch, err = class, nil
	}
	if err != nil {
		return err
	}
	b.Architectures = []string{arch}
	if n, err := h.Metadata.Int(arch + ".context_length"); err == nil {
		b.Context = max(0, n)
	}
	if licence, err := h.Metadata.String("general.license"); err == nil && b.Licence == "" {
		b.Licence = licence
	}
	if info, err := fs.Stat(b.Files, h.Files[0].Name); err == nil && b.Created.IsZero() {
		b.Created = info.ModTime().UTC()
	}
	return nil
}

// readConfig reads the class names and the context length under all names they have.
func (b *Bundle) readConfig(name string) error {
	raw, err := readLimited(b.Files, name, maxConfig)
	if err != nil {
		return err
	}
	if info, err := fs.Stat(b.Files, name); err == nil && b.Created.IsZero() && !info.ModTime().IsZero() {
		b.Created = info.ModTime().UTC()
	}
	var c struct {
		Architectures []string `json:"architectures"`
		Class         string   `json:"_class_name"`
		MaxPositions  int      `json:"max_position_embeddings"`
		NPositions    int      `json:"n_positions"`
		NCtx          int      `json:"n_ctx"`
		MaxSeqLen     int      `json:"max_seq_len"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return err
	}
	b.Architectures = c.Architectures
	if b.Architectures == nil && c.Class != "" {
		b.Architectures = []string{c.Class}
	}
	b.Context = max(0, cmp.Or(c.MaxPositions, c.NPositions, c.NCtx, c.MaxSeqLen))
	if len(b.Architectures) == 0 {
		return errors.New("it names no architecture")
	}
	return nil
}

// readPipeline counts every safetensors file in the folders of a pipeline; missing is the
// error if there is none.
func (b *Bundle) readPipeline(missing error) error {
	found := false
	err := fs.WalkDir(b.Files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || weights.FormatOf(name) != weights.Safetensors {
			return err
		}
		header, err := weights.ReadFileHeader(b.Files, name)
		if err == nil {
			found = true
			b.add(header)
		}
		return err
	})
	if err == nil && !found {
		return missing
	}
	return err
}

// readCard takes licence and date from the front matter of the card, if there is one.
func (b *Bundle) readCard() {
	f, err := b.Files.Open(cardFile)
	if err != nil {
		return // a bundle need not have a card
	}
	defer f.Close()
	matter := frontMatter(io.LimitReader(f, maxCard))
	b.Licence = matter["license"]
	if b.Licence == "other" && matter["license_name"] != "" {
		b.Licence = matter["license_name"]
	}
	if date, err := time.Parse(time.DateOnly, matter["date"]); err == nil {
		b.Created = date
	}
}

// frontMatter reads the plain "key: value" lines between the two "---" lines at the
// start of a Markdown file.
func frontMatter(r io.Reader) map[string]string {
	lines := bufio.NewScanner(r)
	if !lines.Scan() || strings.TrimSpace(lines.Text()) != "---" {
		return nil
	}
	values := map[string]string{}
	for lines.Scan() {
		line := lines.Text()
		if strings.TrimSpace(line) == "---" {
			return values
		}
		if key, value, ok := strings.Cut(line, ":"); ok {
			values[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return nil // it does not end
}

// readLimited reads a file that must not have more than limit bytes.
func readLimited(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return data, err
}

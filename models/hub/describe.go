package hub

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
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

// Limits on the files that are read to describe a bundle.
const (
	maxConfig = 1 << 20 // bytes
	maxHeader = 100_000_000
	maxCard   = 64 << 10 // bytes of the card in which the front matter must end
)

// describe fills in what the bundle's files say and returns what is wrong with it.
func (b *Bundle) describe() error {
	b.readCard()
	name := configFile
	if _, err := fs.Stat(b.Files, pipelineFile); err == nil {
		name = pipelineFile
	}
	if err := b.readConfig(name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	files, err := b.weightFiles()
	if err != nil {
		return err
	}
	for _, f := range files {
		n, err := countParameters(b.Files, f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		b.Parameters += n
		b.Bytes += f.Size
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

// weightFiles lists the files that a loader would open: model.safetensors or its
// shards, and every safetensors file in the folders of a pipeline.
func (b *Bundle) weightFiles() ([]weights.File, error) {
	files, err := weights.Files(b.Files, "model")
	if !errors.Is(err, fs.ErrNotExist) {
		return files, err
	}
	walkErr := fs.WalkDir(b.Files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".safetensors") {
			return err
		}
		info, err := fs.Stat(b.Files, name)
		if err != nil {
			return err
		}
		files = append(files, weights.File{Name: name, Size: info.Size()})
		return nil
	})
	if walkErr != nil {
		return nil, walkErr
	}
	if len(files) == 0 {
		return nil, err
	}
	return files, nil
}

// countParameters adds up the shapes in the header of a safetensors file.
func countParameters(fsys fs.FS, file weights.File) (int64, error) {
	f, err := fsys.Open(file.Name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return parseHeader(f, info.Size(), file.Tensors)
}

// parseHeader reads the header of a safetensors file of the given size in bytes, which
// is to have the tensors that the index lists.
func parseHeader(r io.Reader, fileSize int64, listed []string) (parameters int64, err error) {
	var length uint64
	if err := binary.Read(r, binary.LittleEndian, &length); err != nil {
		return 0, fmt.Errorf("no safetensors header: %w", err)
	}
	if length > maxHeader || int64(length) > fileSize-8 {
		return 0, fmt.Errorf("safetensors header of %d bytes in a file of %d", length, fileSize)
	}
	var header map[string]struct {
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(r, raw); err != nil {
		return 0, fmt.Errorf("safetensors header: %w", err)
	}
	if err := json.Unmarshal(raw, &header); err != nil {
		return 0, fmt.Errorf("safetensors header: %w", err)
	}
	for _, name := range listed {
		if _, ok := header[name]; !ok {
			return 0, fmt.Errorf("tensor %q of the index is missing", name)
		}
	}
	for name, t := range header {
		if name == "__metadata__" {
			continue
		}
		n := int64(1)
		for _, d := range t.Shape {
			if d < 0 || d > 0 && n > math.MaxInt64/d {
				return 0, fmt.Errorf("tensor %q has the shape %v", name, t.Shape)
			}
			n *= d
		}
		if end := int64(length) + 8; t.Offsets[1] > fileSize-end {
			return 0, fmt.Errorf("tensor %q ends beyond the file: is it still being copied?", name)
		}
		if parameters > math.MaxInt64-n {
			return 0, errors.New("more parameters than can be counted")
		}
		parameters += n
	}
	return parameters, nil
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

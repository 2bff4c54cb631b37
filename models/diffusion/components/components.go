// Package components finds the components of a diffusion model - networks, tokenizers,
// configurations - wherever they are stored: in the folders of Hugging Face's diffusers,
// whose model_index.json lists them, in single files of the layouts that package
// checkpoint knows, or in GGUF. It merges LoRAs into weights and hands out the words of
// textual inversions. Networks are loaded from it by those who know them.
package components

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"helicon/models/diffusion/checkpoint"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// ErrUnsupported is wrapped by errors about files that are well formed but hold no
// diffusion model that is known, or lack a part of one.
var ErrUnsupported = errors.New("unsupported diffusion model")

// Options are what a model is found with.
type Options struct {
	Compute    tensor.DType // of networks that are at work all the time; 0 is as stored
	LoRAs      []LoRA       // merged into the weights, in this order
	Embeddings []Embedding  // textual inversions
	Tokenizers fs.FS        // folder with tokenizer, tokenizer_2, … for models that are a single file
}

// LoRA is a low-rank change of a model's weights (Hu et al. 2021), in a file with the
// names of kohya or of diffusers.
type LoRA struct {
	Files  fs.FS
	Name   string  // of the file in Files
	Weight float32 // factor of the change; 1 is as trained
}

// Embedding is a textual inversion (Gal et al. 2022): vectors for a new word.
type Embedding struct {
	Files fs.FS
	Name  string // of the file in Files
	Token string // the word that prompts use; empty is the one in the file, or the file's name
}

// Model is the components of a model by the names that model_index.json has for them,
// and all that they hold open.
type Model struct {
	Files fs.FS
	Class string            // of the pipeline
	Parts map[string]string // class of each component, by name
	Index Index
	Arena *tensor.Arena // of what is laid out for the kernels

	options Options
	singles []*single                 // files that hold components, if they are in no folders
	merged  map[string]*weights.Store // components that LoRAs were merged into
	open    []io.Closer
}

// Index is what a model_index.json says beside the components.
type Index struct {
	ForceZeros *bool             `json:"force_zeros_for_empty_prompt"`
	Labels     map[string]string `json:"id2label"` // class names, by number
}

// maxText bounds the size of a configuration file, in bytes.
const maxText = 16 << 20

// Find finds the components of a model, in folders or in single files, and reads
// none of its weights.
func Find(files fs.FS, o Options) (*Model, error) {
	m := &Model{Files: files, Parts: map[string]string{}, options: o, Arena: &tensor.Arena{}}
	raw, err := ReadText(files, "model_index.json")
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = m.findSingles()
	}
	if err != nil {
		return nil, err
	}
	return m, m.readIndex(raw)
}

// readIndex takes in a model_index.json.
func (m *Model) readIndex(raw []byte) error {
	var fields map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(raw, &fields), json.Unmarshal(raw, &m.Index)); err != nil {
		return fmt.Errorf("diffusion: model_index.json: %w: %w", err, ErrUnsupported)
	}
	for name, value := range fields {
		var part []*string // library and class
		if name == "_class_name" {
			if err := json.Unmarshal(value, &m.Class); err != nil {
				return fmt.Errorf("diffusion: model_index.json: _class_name: %w: %w", err, ErrUnsupported)
			}
		} else if json.Unmarshal(value, &part) == nil && len(part) == 2 && part[1] != nil {
			m.Parts[name] = *part[1]
		}
	}
	for name := range m.Parts {
		if !fs.ValidPath(name) || strings.Contains(name, "/") {
			return fmt.Errorf("diffusion: model_index.json: component %q: %w", name, ErrUnsupported)
		}
	}
	return nil
}

// ReadText reads a small file whole.
func ReadText(files fs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, fmt.Errorf("diffusion: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("diffusion: %s: %w", name, err)
	}
	if len(data) > maxText {
		return nil, fmt.Errorf("diffusion: %s: larger than %d bytes: %w", name, maxText, ErrUnsupported)
	}
	return data, nil
}

// Has reports whether the model has a component.
func (m *Model) Has(name string) bool { return m.Parts[name] != "" }

// Config reads the configuration of a component.
func (m *Model) Config(name string) ([]byte, error) {
	if !m.Has(name) {
		return nil, fmt.Errorf("diffusion: model_index.json: no %s: %w", name, ErrUnsupported)
	}
	if f := m.singleOf(name); f != nil {
		return f.layout.Config(name), nil
	}
	file := "config.json"
	if name == "scheduler" {
		file = "scheduler_config.json"
	}
	return ReadText(m.Files, path.Join(name, file))
}

// Weights opens the weights of a component as they are stored, with the LoRAs of the
// options.
func (m *Model) Weights(name string) (*weights.Store, error) {
	if s := m.merged[name]; s != nil {
		return s, nil
	}
	if f := m.singleOf(name); f != nil {
		return f.file.Part(name)
	}
	s, err := OpenFolder(m.Files, name)
	if err != nil {
		return nil, err
	}
	m.open = append(m.open, s)
	if s.Header().Format != weights.GGUF {
		return s, nil
	}
	layout, err := checkpoint.Inspect(s.Header()) // names and axes are not diffusers'
	if err != nil {
		return nil, fmt.Errorf("diffusion: %s: %w", name, err)
	}
	return layout.Store(s, name)
}

// Packed opens the weights of a component to be laid out for the kernels and computed in
// the type that the options ask for.
func (m *Model) Packed(name string) (*weights.Store, error) {
	s, err := m.Weights(name)
	if err != nil {
		return nil, err
	}
	compute := m.options.Compute
	if compute == 0 && m.merged[name] != nil {
		compute = storedIn(s)
	}
	return s.Packed(m.Arena, compute), nil
}

// Brief opens the weights of a component that works for a moment a picture, as text
// encoders do. They are used where they lie in their file, so that its pages can be given
// back by Evict, and in the type that they have there: rounding them changes what is drawn.
// Only those that LoRAs were merged into lie in memory.
func (m *Model) Brief(name string) (*weights.Store, error) {
	s, err := m.Weights(name)
	if err != nil || m.merged[name] == nil {
		return s, err
	}
	return s.Packed(m.Arena, storedIn(s)), nil
}

// storedIn returns the type of the largest tensor if it is one of half precision, so that
// tensors that were changed in F32 take no more memory than the others. 0 is any other.
func storedIn(s *weights.Store) tensor.DType {
	var largest weights.Info
	for _, name := range s.Names() {
		if t, err := s.Describe(name); err == nil && t.Len() > largest.Len() {
			largest = t
		}
	}
	if d := largest.DType; d == tensor.F16 || d == tensor.BF16 {
		return d
	}
	return 0
}

// Evict gives the pages of the files back that loading has touched.
func (m *Model) Evict() {
	for _, c := range m.open {
		if s, ok := c.(*weights.Store); ok {
			s.Evict()
		}
	}
	for _, f := range m.singles {
		if s, err := f.file.Part(f.layout.Parts()[0]); err == nil {
			s.Evict()
		}
	}
}

// bases are the names of the weights of a component, without endings: diffusers' and
// transformers', each in full precision before the variants of half of it.
func bases(folder string) []string {
	var all []string
	for _, name := range []string{"diffusion_pytorch_model", "model"} {
		for _, variant := range []string{"", ".fp16", ".bf16"} {
			all = append(all, path.Join(folder, name+variant))
		}
	}
	return all
}

// OpenFolder opens the weights in a folder.
func OpenFolder(files fs.FS, folder string) (*weights.Store, error) {
	return eachVariant(files, folder, weights.Open)
}

// header reads what the weights in a folder are, without their data.
func header(files fs.FS, folder string) (*weights.Header, error) {
	return eachVariant(files, folder, weights.ReadHeader)
}

// eachVariant returns what open makes of the first of the bases that is there.
func eachVariant[T any](files fs.FS, folder string, open func(fs.FS, string) (T, error)) (T, error) {
	var none T
	for _, base := range bases(folder) {
		found, err := open(variantIndex{files}, base)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return found, err
		}
	}
	return none, fmt.Errorf("diffusion: %s: no weights: no %s.safetensors, .bin or index of them: %w", folder, bases(folder)[0], fs.ErrNotExist)
}

// variantIndex shows the index of a variant by the name that package weights looks for:
// diffusers writes model.safetensors.index.fp16.json for model.fp16.safetensors.
type variantIndex struct{ fs.FS }

// Open opens a file.
func (v variantIndex) Open(name string) (fs.File, error) {
	f, err := v.FS.Open(name)
	if err == nil || !strings.HasSuffix(name, ".index.json") {
		return f, err
	}
	for _, variant := range []string{".fp16", ".bf16"} {
		stem, rest, ok := strings.Cut(name, variant+".")
		if ok { // stem.fp16.safetensors.index.json
			return v.FS.Open(stem + "." + strings.TrimSuffix(rest, ".json") + variant + ".json")
		}
	}
	return f, err
}

// Stat describes a file.
func (v variantIndex) Stat(name string) (fs.FileInfo, error) { return fs.Stat(v.FS, name) }

// ReadDir lists a folder.
func (v variantIndex) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(v.FS, name) }

// Keep has something closed when the model is.
func (m *Model) Keep(c io.Closer) { m.open = append(m.open, c) }

// Close releases the weights and the files.
func (m *Model) Close() error {
	var errs []error
	for _, c := range m.open {
		errs = append(errs, c.Close())
	}
	m.open, m.merged = nil, nil
	return errors.Join(append(errs, m.Arena.Close())...)
}

package components

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"helicon/models/clip"
	"helicon/models/diffusion/checkpoint"
	"helicon/models/weights"
)

// single is a file that holds components in the layout of those who published them.
type single struct {
	name   string
	layout *checkpoint.Layout
	file   *checkpoint.Checkpoint // when it is open
}

// findSingles looks among the files of a folder for those that hold components, and
// returns the model_index.json that stands for them. Files of other kinds, such as LoRAs,
// may lie beside them.
func (m *Model) findSingles() ([]byte, error) {
	list, err := fs.ReadDir(m.Files, ".")
	if err != nil {
		return nil, fmt.Errorf("diffusion: %w", err)
	}
	unknown := fmt.Errorf("diffusion: no model_index.json, and no model in a single file: %w", fs.ErrNotExist)
	for _, entry := range list {
		name := entry.Name()
		if _, part, _, ok := weights.SplitName(name); entry.IsDir() || weights.FormatOf(name) == "" || ok && part != 1 {
			continue
		}
		h, err := weights.ReadFileHeader(m.Files, name)
		if err != nil {
			return nil, fmt.Errorf("diffusion: %w", err)
		}
		layout, err := checkpoint.Inspect(h)
		if errors.Is(err, checkpoint.ErrUnsupported) {
			unknown = fmt.Errorf("diffusion: %w: %w", err, ErrUnsupported)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("diffusion: %w", err)
		}
		m.singles = append(m.singles, &single{name: name, layout: layout})
	}
	if len(m.singles) == 0 {
		return nil, unknown
	}
	return m.joinSingles()
}

// joinSingles makes one model of the files, and returns its index.
func (m *Model) joinSingles() ([]byte, error) {
	network := m.network()
	if network == nil {
		return nil, fmt.Errorf("diffusion: %s: no unet and no transformer: %w", m.singles[0].name, ErrUnsupported)
	}
	holds := map[string]string{} // which file, by component
	for _, f := range m.singles {
		f.layout.Beside(network.layout.Family)
		for _, part := range f.layout.Parts() {
			if other := holds[part]; other != "" {
				return nil, fmt.Errorf("diffusion: %s and %s have both a %s: two models in one folder: %w", other, f.name, part, ErrUnsupported)
			}
			holds[part] = f.name
			m.Parts[part] = "single" // unless the index knows better
		}
	}
	return network.layout.Config("model_index"), nil
}

// network returns the first file that holds what denoises, nil if none does.
func (m *Model) network() *single {
	for _, f := range m.singles {
		if f.layout.Has("unet") || f.layout.Has("transformer") {
			return f
		}
	}
	return nil
}

// singleOf returns the file that holds a component or its configuration, nil if none does.
func (m *Model) singleOf(name string) *single {
	if name == "scheduler" {
		return m.network()
	}
	for _, f := range m.singles {
		if f.layout.Has(name) {
			return f
		}
	}
	return nil
}

// OpenFiles opens the files that hold components.
func (m *Model) OpenFiles() error {
	network := m.network()
	for _, f := range m.singles {
		file, err := checkpoint.Open(m.Files, f.name)
		if err != nil {
			return fmt.Errorf("diffusion: %w", err)
		}
		file.Beside(network.layout.Family)
		f.file, f.layout = file, file.Layout
		m.open = append(m.open, file)
	}
	return nil
}

// Open opens the files that hold components, and merges the LoRAs.
func (m *Model) Open() error {
	if err := errors.Join(m.OpenFiles(), m.checkEmbeddings()); err != nil || len(m.options.LoRAs) == 0 {
		return err
	}
	var adapters []checkpoint.Adapter
	for _, l := range m.options.LoRAs {
		s, err := weights.OpenFile(l.Files, l.Name)
		if err != nil {
			return fmt.Errorf("diffusion: LoRA: %w", err)
		}
		m.open = append(m.open, s)
		adapters = append(adapters, checkpoint.Adapter{Name: l.Name, Store: s, Weight: l.Weight})
	}
	parts := map[string]*weights.Store{}
	for _, name := range []string{"unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"} {
		if !m.Has(name) {
			continue
		}
		s, err := m.Weights(name)
		if err != nil {
			return err
		}
		parts[name] = s
	}
	merged, err := checkpoint.Merge(parts, adapters...)
	if err != nil {
		return fmt.Errorf("diffusion: %w: %w", err, ErrUnsupported)
	}
	m.merged = merged
	return nil
}

// checkEmbeddings refuses learned words that no text encoder of the model could read.
func (m *Model) checkEmbeddings() error {
	for _, o := range m.options.Embeddings {
		e, err := checkpoint.ReadEmbedding(o.Files, o.Name)
		if err != nil {
			return fmt.Errorf("diffusion: %w", err)
		}
		encoders := slices.Sorted(maps.Keys(e.Vectors))
		for _, name := range encoders {
			if !strings.HasPrefix(m.Parts[name], "CLIP") {
				return fmt.Errorf("diffusion: embedding %s: it is for a %s of CLIP, which this model does not have: %w", o.Name, name, ErrUnsupported)
			}
		}
	}
	return nil
}

// Words returns the learned words of the options for a text encoder of a width, and their
// vectors, one after another.
func (m *Model) Words(encoder string, width int) ([]clip.Word, []float32, error) {
	var words []clip.Word
	var flat []float32
	for _, o := range m.options.Embeddings {
		e, err := checkpoint.ReadEmbedding(o.Files, o.Name)
		if err != nil {
			return nil, nil, fmt.Errorf("diffusion: %w", err)
		}
		vectors := e.Vectors[encoder]
		if vectors == nil {
			continue // of another encoder
		}
		for _, v := range vectors {
			if len(v) != width {
				return nil, nil, fmt.Errorf("diffusion: embedding %s: vectors of %d for a %s of %d: %w", o.Name, len(v), encoder, width, weights.ErrShape)
			}
			flat = append(flat, v...)
		}
		if o.Token != "" {
			e.Token = o.Token
		}
		words = append(words, clip.Word{Name: e.Token, Vectors: len(vectors)})
	}
	return words, flat, nil
}

// Tensors describes the tensors of a component, of which no data are read.
func (m *Model) Tensors(name string) ([]weights.Info, error) {
	f := m.singleOf(name)
	if f == nil {
		h, err := header(m.Files, name)
		if err != nil {
			return nil, err
		}
		return h.Tensors(), nil
	}
	s, err := f.file.Part(name)
	if err != nil {
		return nil, err
	}
	return describe(s)
}

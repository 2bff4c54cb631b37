package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"helicon/models/diffusion/checkpoint"
	"helicon/models/weights"
)

// Architectures of files that say nothing of themselves, beside those of diffusers that a
// checkpoint in another layout stands for: they are told by the names of tensors.
const (
	LoRA      = "LoRA"            // a low-rank change of another model
	Embedding = "Embedding"       // vectors for a new word (textual inversion)
	RRDBNet   = "RRDBNet"         // ESRGAN and its successors
	SRVGGNet  = "SRVGGNetCompact" // the small networks of Real-ESRGAN
)

// Upscalers lists the architectures of networks that enlarge pictures.
func Upscalers() []string { return []string{RRDBNet, SRVGGNet} }

// single reports whether a file at the top of a folder may be a whole model without a
// description: GGUF is another matter.
func single(name string) bool {
	switch weights.FormatOf(name) {
	case weights.Safetensors:
		return !strings.HasPrefix(name, ".")
	case weights.PyTorch:
		return !strings.HasPrefix(name, ".") && path.Ext(name) != ".bin"
	}
	return false
}

// Checkpoints lists the files at the top of a folder that may be whole models by
// themselves, sorted.
func Checkpoints(files fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if single(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// readSingle describes a bundle that is one file of weights. missing is what is wrong with
// it if the file says nothing of itself.
func (b *Bundle) readSingle(missing error) error {
	names, err := Checkpoints(b.Files)
	if err != nil || len(names) != 1 {
		return missing
	}
	header, err := weights.ReadFileHeader(b.Files, names[0])
	if err != nil {
		return unreadable(err)
	}
	class, err := classOf(header)
	if errors.Is(err, checkpoint.ErrUnsupported) {
		return fmt.Errorf("%w; and %w", missing, err)
	}
	if err != nil {
		return err
	}
	b.Architectures = []string{class}
	b.add(header)
	if info, err := fs.Stat(b.Files, names[0]); err == nil && b.Created.IsZero() {
		b.Created = info.ModTime().UTC()
	}
	return nil
}

// classOf tells what a file holds by the names of its tensors. The error wraps
// checkpoint.ErrUnsupported if that is nothing known.
func classOf(h *weights.Header) (string, error) {
	names := h.Names()
	any := func(parts ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(name, part) })
		})
	}
	all := func(parts ...string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !any(part) })
	}
	switch {
	case any("lora_down.weight", "lora_A.weight", "lora.down.weight", "lora_A.default.weight"):
		return LoRA, nil
	case any("string_to_param", "emb_params"), len(names) <= 2 && any("clip_l", "clip_g"), oneWord(h):
		return Embedding, nil
	case all("conv_first.weight") && any("body.0.rdb1.conv1.weight", "RRDB_trunk.0.RDB1.conv1.weight"), any("sub.0.RDB1.conv1.0.weight"):
		return RRDBNet, nil
	case all("body.0.weight", "body.1.weight", "body.2.weight") && !any("conv_first.weight"):
		return SRVGGNet, nil
	}
	layout, err := checkpoint.Inspect(h)
	if err != nil {
		return "", err
	}
	for _, part := range append([]string{"model_index"}, layout.Parts()...) {
		var config struct {
			Class string `json:"_class_name"`
		}
		if err := json.Unmarshal(layout.Config(part), &config); err == nil && config.Class != "" {
			return config.Class, nil
		}
	}
	return "", fmt.Errorf("parts of a model alone, %s: %w", strings.Join(layout.Parts(), ", "), checkpoint.ErrUnsupported)
}

// oneWord reports whether all that a file holds is some vectors, under the word that they
// stand for: an embedding as diffusers writes it.
func oneWord(h *weights.Header) bool {
	const most, width = 1 << 10, 32 // vectors, and the least that a text encoder has in one
	tensors := h.Tensors()
	if len(tensors) != 1 || h.Format == weights.GGUF {
		return false
	}
	shape := tensors[0].Shape
	return len(shape) > 0 && shape[len(shape)-1] >= width && (len(shape) == 1 || len(shape) == 2 && shape[0] <= most)
}

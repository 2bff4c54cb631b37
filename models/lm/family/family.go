// Package family says what the families of decoder-only language models are: how their
// bundles describe a decoder (Config) and where they keep its tensors (Layout), in the
// layout of Hugging Face's repositories and in GGUF, and how one becomes the other
// (ToGGUF). It computes nothing: package lm does, in whose name errors are given.
//
// A family is one short file that maps its config.json and its tensors' names onto the one
// decoder that all share, and a line in the table below.
package family

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"helicon/models/weights"
)

// Errors that callers tell apart.
var (
	// ErrUnsupported is wrapped when the bundle's architecture is not one of ours, or
	// GGUF has no form for it.
	ErrUnsupported = errors.New("unsupported architecture")
	// ErrConfig is wrapped when config.json, or what a GGUF file says in its place, is
	// unusable.
	ErrConfig = errors.New("unusable model configuration")
)

// weightsBase is the name of the weight files, without their extension.
const weightsBase = "model"

// architecture is one family: how to read its configuration, which says all else.
type architecture struct {
	modelType string
	config    func(raw []byte) (Config, error)
	gguf      ggufForm
}

// architectures has the supported families under the names that bundles carry.
var architectures = map[string]architecture{
	"BloomForCausalLM":               {"bloom", bloomConfig, ggufForm{name: "bloom"}},
	"FalconForCausalLM":              {"falcon", falconConfig, ggufForm{name: "falcon", names: falconNames, words: falconWords}},
	"RWForCausalLM":                  {"RefinedWebModel", rwConfig, ggufForm{name: "falcon", names: falconNames, words: falconWords}},
	"GPT2LMHeadModel":                {"gpt2", gpt2Config, ggufForm{name: "gpt2"}},
	"GPTBigCodeForCausalLM":          {"gpt_bigcode", bigcodeConfig, ggufForm{name: "starcoder", words: bigcodeWords}},
	"GPTNeoXForCausalLM":             {"gpt_neox", neoxConfig, ggufForm{name: "gptneox"}},
	"GemmaForCausalLM":               {"gemma", gemmaConfig, ggufForm{name: "gemma"}},
	"Gemma2ForCausalLM":              {"gemma2", gemma2Config, ggufForm{name: "gemma2", words: gemmaWords}},
	"Gemma3ForCausalLM":              {"gemma3_text", gemma3Config, ggufForm{name: "gemma3", words: gemmaWords}},
	"Gemma3ForConditionalGeneration": {"gemma3", gemma3TextConfig, ggufForm{name: "gemma3", words: gemmaWords}},
	"LlamaForCausalLM":               {"llama", llamaConfig, ggufForm{name: "llama", turn: true}},
	"MistralForCausalLM":             {"mistral", mistralConfig, ggufForm{name: "llama", turn: true}},
	"MixtralForCausalLM":             {"mixtral", mixtralConfig, ggufForm{name: "llama", turn: true}},
	"OPTForCausalLM":                 {"opt", optConfig, ggufForm{}},
	"Phi3ForCausalLM":                {"phi3", phi3Config, ggufForm{name: "phi3"}},
	"PhiForCausalLM":                 {"phi", phiConfig, ggufForm{name: "phi2"}},
	"Qwen2ForCausalLM":               {"qwen2", qwen2Config, ggufForm{name: "qwen2"}},
	"Qwen3ForCausalLM":               {"qwen3", qwen3Config, ggufForm{name: "qwen3"}},
	"Qwen3MoeForCausalLM":            {"qwen3_moe", qwen3MoEConfig, ggufForm{name: "qwen3moe", words: qwen3MoEWords}},
	"StableLmForCausalLM":            {"stablelm", stablelmConfig, ggufForm{name: "stablelm", words: stablelmWords}},
}

// Architectures returns the names of the supported architectures, as config.json and as
// GGUF files have them, sorted.
func Architectures() []string {
	names := slices.Collect(maps.Keys(architectures))
	for _, a := range architectures {
		if name := a.gguf.name; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Open returns the configuration of the model in a folder and its weights, which the
// caller closes: of a GGUF file both are in it. The error wraps ErrUnsupported for an
// unknown architecture, ErrConfig for an unusable configuration, and the errors of package
// weights for unusable weights.
func Open(fsys fs.FS) (Config, *weights.Store, error) {
	var c Config
	gguf := isGGUF(fsys)
	if !gguf {
		var err error
		if c, err = ReadConfig(fsys); err != nil {
			return c, nil, err
		}
	}
	store, err := weights.Open(fsys, weightsBase)
	if err != nil {
		return c, nil, fmt.Errorf("lm: %w", err)
	}
	if gguf {
		if c, err = readGGUF(store); err != nil {
			return c, nil, errors.Join(err, store.Close())
		}
	}
	return c, store, nil
}

// Describe is Open without the data of the weights.
func Describe(fsys fs.FS) (Config, *weights.Header, error) {
	if isGGUF(fsys) { // of which some small tensors belong to the configuration
		c, store, err := Open(fsys)
		if err != nil {
			return c, nil, err
		}
		return c, store.Header(), store.Close()
	}
	c, err := ReadConfig(fsys)
	if err != nil {
		return c, nil, err
	}
	h, err := weights.ReadHeader(fsys, weightsBase)
	if err != nil {
		return c, nil, fmt.Errorf("lm: %w", err)
	}
	return c, h, nil
}

// isGGUF reports whether the weights in a folder are in GGUF files.
func isGGUF(fsys fs.FS) bool {
	files, err := weights.Files(fsys, weightsBase)
	return err == nil && weights.FormatOf(files[0].Name) == weights.GGUF
}

// wrap says of which architecture an error about tensors is.
func wrap(architecture string, err error) error {
	return fmt.Errorf("lm: %s: %w", architecture, err)
}

// choose returns the architecture that a configuration names.
func choose(names []string, modelType string) (string, architecture, error) {
	for _, name := range names {
		if a, ok := architectures[name]; ok {
			return name, a, nil
		}
	}
	if len(names) == 0 {
		for name, a := range architectures {
			if a.modelType == modelType && modelType != "" {
				return name, a, nil
			}
		}
		names = []string{modelType}
	}
	return "", architecture{}, fmt.Errorf("lm: config.json: %q is not one of %s: %w",
		strings.Join(names, ", "), strings.Join(slices.Sorted(maps.Keys(architectures)), ", "), ErrUnsupported)
}

// Package lm runs decoder-only transformers from the folders that Hugging Face
// repositories have, config.json and model.safetensors, and from GGUF files, which say
// both (gguf.go). OPT, Falcon with ALiBi and what else GGUF has no words for is in folders
// alone.
//
// There is one decoder (decoder.go) for all families; a family is one short file
// that maps its configuration and its tensor names onto the decoder. A Model is
// read-only and shared; a State is one sequence with its KV cache. Tokens go in,
// logits come out: text and sampling are the business of packages tokenizer and sample.
//
// Axes: T tokens of a call, C hidden channels, H query heads, G key-value heads,
// D head dimension, I channels inside the MLP, X experts, V vocabulary, E width of its
// embedding, which nearly always is C.
package lm

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"helicon/models/tensor"
	"helicon/models/weights"
)

// Errors that callers tell apart.
var (
	// ErrUnsupported is wrapped when the bundle's architecture is not one of ours.
	ErrUnsupported = errors.New("unsupported architecture")
	// ErrConfig is wrapped when config.json is unusable.
	ErrConfig = errors.New("unusable model configuration")
	// ErrFull is wrapped when a sequence would outgrow its state.
	ErrFull = errors.New("sequence is full")
	// ErrToken is wrapped when a token id is outside the vocabulary.
	ErrToken = errors.New("token outside the vocabulary")
)

// weightsBase is the name of the weight files, without their extension.
const weightsBase = "model"

// Options are the choices of Load. The zero value computes on the caller's thread.
type Options struct {
	Pool *tensor.Pool // shares the work of operations; it must outlive the model
}

// Model is a loaded language model. It may be used by any number of goroutines,
// each with its own State.
type Model struct {
	config Config
	pool   *tensor.Pool
	store  *weights.Store
	arena  *tensor.Arena // of the packed matrices
	net    network
}

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

// Load opens the model in a folder. The error wraps ErrUnsupported for an unknown
// architecture, ErrConfig for an unusable config.json, and the errors of package
// weights for unusable weights.
func Load(fsys fs.FS, o Options) (*Model, error) {
	config, store, err := open(fsys)
	if err != nil {
		return nil, err
	}
	m := &Model{config: config, pool: o.Pool, store: store, arena: new(tensor.Arena)}
	if m.net, err = loadNetwork(store, &m.config, m.arena); err != nil {
		return nil, errors.Join(wrap(config.Architecture, err), m.Close())
	}
	return m, nil
}

// open returns the configuration of the model in a folder and its weights: of a GGUF
// file both are in it.
func open(fsys fs.FS) (Config, *weights.Store, error) {
	var c Config
	gguf := isGGUF(fsys)
	if !gguf {
		var err error
		if c, err = readConfig(fsys); err != nil {
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

// describe is open without the data of the weights.
func describe(fsys fs.FS) (Config, *weights.Header, error) {
	if isGGUF(fsys) { // of which some small tensors belong to the configuration
		c, store, err := open(fsys)
		if err != nil {
			return c, nil, err
		}
		return c, store.Header(), store.Close()
	}
	c, err := readConfig(fsys)
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

// Config returns the model's configuration.
func (m *Model) Config() Config { return m.config }

// Bytes returns the size of the weights.
func (m *Model) Bytes() int64 { return m.store.Bytes() }

// Close releases the weights. No state of the model may be used any more.
func (m *Model) Close() error { return errors.Join(m.store.Close(), m.arena.Close()) }

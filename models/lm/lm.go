// Package lm runs decoder-only transformers from the folders that Hugging Face
// repositories have: config.json and model.safetensors.
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
}

// architectures has the supported families under the names that bundles carry.
var architectures = map[string]architecture{
	"BloomForCausalLM":      {"bloom", bloomConfig},
	"FalconForCausalLM":     {"falcon", falconConfig},
	"GPT2LMHeadModel":       {"gpt2", gpt2Config},
	"GPTBigCodeForCausalLM": {"gpt_bigcode", bigcodeConfig},
	"GPTNeoXForCausalLM":    {"gpt_neox", neoxConfig},
	"GemmaForCausalLM":      {"gemma", gemmaConfig},
	"Gemma2ForCausalLM":     {"gemma2", gemma2Config},
	"Gemma3ForCausalLM":     {"gemma3_text", gemma3Config},
	"LlamaForCausalLM":      {"llama", llamaConfig},
	"MistralForCausalLM":    {"mistral", mistralConfig},
	"MixtralForCausalLM":    {"mixtral", mixtralConfig},
	"OPTForCausalLM":        {"opt", optConfig},
	"Phi3ForCausalLM":       {"phi3", phi3Config},
	"PhiForCausalLM":        {"phi", phiConfig},
	"Qwen2ForCausalLM":      {"qwen2", qwen2Config},
	"Qwen3ForCausalLM":      {"qwen3", qwen3Config},
	"Qwen3MoeForCausalLM":   {"qwen3_moe", qwen3MoEConfig},
	"StableLmForCausalLM":   {"stablelm", stablelmConfig},
}

// Architectures returns the names of the supported architectures, sorted.
func Architectures() []string { return slices.Sorted(maps.Keys(architectures)) }

// Load opens the model in a folder. The error wraps ErrUnsupported for an unknown
// architecture, ErrConfig for an unusable config.json, and the errors of package
// weights for unusable weights.
func Load(fsys fs.FS, o Options) (*Model, error) {
	config, err := readConfig(fsys)
	if err != nil {
		return nil, err
	}
	store, err := weights.Open(fsys, weightsBase)
	if err != nil {
		return nil, fmt.Errorf("lm: %w", err)
	}
	m := &Model{config: config, pool: o.Pool, store: store, arena: new(tensor.Arena)}
	if m.net, err = loadNetwork(store, &m.config, m.arena); err != nil {
		return nil, errors.Join(fmt.Errorf("lm: %s: %w", config.Architecture, err), m.Close())
	}
	return m, nil
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
		strings.Join(names, ", "), strings.Join(Architectures(), ", "), ErrUnsupported)
}

// Config returns the model's configuration.
func (m *Model) Config() Config { return m.config }

// Bytes returns the size of the weights.
func (m *Model) Bytes() int64 { return m.store.Bytes() }

// Close releases the weights. No state of the model may be used any more.
func (m *Model) Close() error { return errors.Join(m.store.Close(), m.arena.Close()) }

package family

import (
	"testing"

	"helicon/models/weights"
)

// FuzzGGUF checks that whatever a GGUF file says, it is refused or makes a sound
// configuration.
func FuzzGGUF(f *testing.F) {
	f.Add("llama.rope.freq_base", 1.0, uint32(3), "x")
	f.Add("llama.attention.head_count", 0.0, uint32(0), "")
	f.Add("llama.rope.scaling.type", 4.0, uint32(4), "yarn")
	f.Add("llama.attention.sliding_window_pattern", 4.0, uint32(4), "")
	f.Add("general.architecture", 0.0, uint32(0), "gemma3")
	c, err := read(f, map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "vocab_size": 97, "max_position_embeddings": 64, "hidden_size": 48,
		"num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 76,
	})
	if err != nil {
		f.Fatal(err)
	}
	form := architectures[c.Architecture].gguf
	pairs, target := c.ggufPairs(form.name), c.ggufLayout(form, false)
	shapes := map[string][]int{}
	for _, s := range c.slots(&target, "") {
		shapes[s.names[0]] = s.shape
	}
	f.Fuzz(func(t *testing.T, key string, float float64, whole uint32, text string) {
		for _, value := range []any{float32(float), whole, text, []uint32{whole, whole}} {
			said := append([]weights.Pair{{Key: key, Value: value}}, pairs...)
			for i, p := range said[1:] {
				if p.Key == key {
					said = append(said[:i+1:i+1], said[i+2:]...)
					break
				}
			}
			meta, err := weights.NewMetadata("fuzz", said)
			if err != nil {
				t.Fatal(err)
			}
			file := &ggufFile{
				meta:   meta,
				shape:  func(name string) []int { return shapes[name] },
				vector: func(string) ([]float64, error) { return []float64{float}, nil },
			}
			if c, err := file.read(); err == nil && c.validate() != nil {
				t.Errorf("%q = %v: %+v", key, value, c)
			}
		}
	})
}

package lm

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"testing"
	"testing/fstest"

	"helicon/models/lm/family"
	"helicon/models/tensor"
	"helicon/models/weights"
)

// asGGUF writes a folder's model as a GGUF file with F32 matrices.
func asGGUF(t testing.TB, fsys fstest.MapFS, change func(*family.Export)) fstest.MapFS {
	t.Helper()
	x, err := family.ToGGUF(fsys)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if change != nil {
		change(x)
	}
	var sources []weights.Source
	for _, p := range x.Parts {
		sources = append(sources, weights.Source{Name: p.Name, DType: tensor.F32, Shape: p.Shape, Write: func(w io.Writer) error {
			row, err := p.Open()
			if err != nil {
				return err
			}
			rows, columns := p.Rows()
			values, data := make([]float32, columns), make([]byte, 4*columns)
			for i := range rows {
				row(values, i)
				tensor.Encode(data, tensor.F32, values)
				if _, err := w.Write(data); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	var file bytes.Buffer
	if err := weights.EncodeGGUF(t.Context(), &file, x.Pairs, sources); err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{"m.gguf": {Data: file.Bytes()}}
}

// TestGGUFRefused checks that files which do not hold what the network needs are refused
// before they are loaded, by name.
func TestGGUFRefused(t *testing.T) {
	t.Parallel()
	base := randomLlama(smallLlama).fsys(t, tensor.F32)
	for name, tt := range map[string]struct {
		change func(*family.Export)
		want   error
	}{
		"sound":          {nil, nil},
		"another family": {func(x *family.Export) { x.Pairs[0].Value = "mamba" }, family.ErrUnsupported},
		"no family":      {func(x *family.Export) { x.Pairs[0].Key = "general.other" }, family.ErrConfig},
		"a tensor less":  {func(x *family.Export) { x.Parts = append(x.Parts[:4:4], x.Parts[5:]...) }, weights.ErrMissing},
		"another shape": {func(x *family.Export) {
			x.Parts[1].Shape = []int{7}
			x.Parts[1].Open = func() (func([]float32, int), error) { return func([]float32, int) {}, nil }
		}, weights.ErrShape},
		"heads of two":    {set("llama.attention.head_count_kv", []int32{1, 2}), family.ErrConfig},
		"a theta of NaN":  {set("llama.rope.freq_base", float32(0)), family.ErrConfig},
		"a word for many": {set("llama.embedding_length", "many"), family.ErrConfig},
	} {
		fsys := asGGUF(t, base, tt.change)
		if err := family.Check(fsys); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if _, err := Load(fsys, Options{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: load: %v, want %v", name, err, tt.want)
		}
	}
}

func set(key string, value any) func(*family.Export) {
	return func(x *family.Export) {
		for i := range x.Pairs {
			if x.Pairs[i].Key == key {
				x.Pairs[i].Value = value
			}
		}
	}
}

// TestGGUFCannotSay refuses to write what would be read as another model.
func TestGGUFCannotSay(t *testing.T) {
	t.Parallel()
	fsys := randomLlama(smallLlama).fsys(t, tensor.F32)
	var config map[string]any
	if err := json.Unmarshal(fsys["config.json"].Data, &config); err != nil {
		t.Fatal(err)
	}
	config["hidden_act"] = "relu"
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	fsys = fstest.MapFS{"config.json": {Data: raw}, "model.safetensors": fsys["model.safetensors"]}
	if _, err := family.ToGGUF(fsys); !errors.Is(err, family.ErrUnsupported) {
		t.Errorf("a Llama with ReLU: %v", err)
	}
}

// TestGGUFFamilies compares, bit for bit, what random models of all families compute from
// both containers.
func TestGGUFFamilies(t *testing.T) {
	t.Parallel()
	all := families(t)
	all["phi3, longrope"] = longrope(t)
	for name, config := range all {
		fsys := randomBundle(t, config).fsys(t, tensor.F32)
		x, err := family.ToGGUF(fsys)
		if errors.Is(err, family.ErrUnsupported) {
			t.Logf("%s: %v", name, err)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		x.Close()
		a, errA := Load(fsys, Options{})
		b, errB := Load(asGGUF(t, fsys, nil), Options{})
		if err := errors.Join(errA, errB); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		tokens := []int{1, 5, 3, 2, 8, 4}
		want := forward(t, a, newState(t, a, 8), tokens)
		if e := relativeError(forward(t, b, newState(t, b, 8), tokens), want); e > 1e-5 {
			t.Errorf("%s: error %.2g", name, e)
		}
	}
}

// TestOtherNames loads models under the names of other releases: the text part of a Gemma
// 3 that sees, and Falcon before it was called so.
func TestOtherNames(t *testing.T) {
	t.Parallel()
	tokens := []int{1, 5, 3}
	gemma := randomBundle(t, families(t)["gemma3"])
	seeing := bundle{tensors: map[string]named{}, config: map[string]any{
		"architectures": []string{"Gemma3ForConditionalGeneration"}, "model_type": "gemma3", "text_config": gemma.config,
	}}
	for name, x := range gemma.tensors {
		seeing.tensors["language_model."+name] = x
	}
	falcon := randomBundle(t, families(t)["falcon, groups"])
	first := bundle{tensors: falcon.tensors, config: maps.Clone(falcon.config)}
	first.config["architectures"] = []string{"RWForCausalLM"}
	first.config["n_head_kv"] = first.config["num_kv_heads"]
	delete(first.config, "num_kv_heads")
	delete(first.config, "new_decoder_architecture")
	for _, pair := range [][2]bundle{{gemma, seeing}, {falcon, first}} {
		var logits [2][]float32
		for i, b := range pair {
			m := load(t, b.fsys(t, tensor.F32), 1)
			logits[i] = forward(t, m, newState(t, m, 8), tokens)
		}
		same(t, "logits", logits[1], logits[0])
	}
}

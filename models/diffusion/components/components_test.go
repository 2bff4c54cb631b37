package components

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"helicon/models/weights"
)

// golden returns a folder of reference data, or skips the test if it is absent.
func golden(t testing.TB, name string) fs.FS {
	t.Helper()
	dir := os.Getenv("HELICON_GOLDENS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "goldens")
	}
	dir = filepath.Join(dir, "image", name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no reference data: %v", err)
	}
	return os.DirFS(dir)
}

func find(t testing.TB, files fs.FS, o Options) *Model {
	t.Helper()
	m, err := Find(files, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestFolder(t *testing.T) {
	t.Parallel()
	m := find(t, golden(t, "sdxl_pipeline"), Options{})
	if m.Class != "StableDiffusionXLPipeline" || !m.Has("text_encoder_2") || m.Has("safety_checker") || m.Index.ForceZeros == nil || !*m.Index.ForceZeros {
		t.Errorf("found %+v", m)
	}
	if err := m.Open(); err != nil {
		t.Fatal(err)
	}
	for name := range m.Parts {
		if strings.HasPrefix(name, "tokenizer") {
			if _, err := m.Tokenizer(name); err != nil {
				t.Error(err)
			}
			continue
		}
		if _, err := m.Config(name); err != nil {
			t.Error(err)
		}
		if name == "scheduler" {
			continue
		}
		s, err := m.Packed(name)
		if err != nil {
			t.Fatal(err)
		}
		list, err := m.Tensors(name)
		if err != nil || len(list) != len(s.Names()) {
			t.Errorf("%s: %d tensors described of %d, %v", name, len(list), len(s.Names()), err)
		}
	}
	m.Evict()
	for _, missing := range []string{"transformer", "tokenizer_3"} {
		if _, err := m.Config(missing); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), missing) {
			t.Errorf("config of %s: %v", missing, err)
		}
		if _, err := m.Tokenizer(missing); !errors.Is(err, ErrUnsupported) {
			t.Errorf("tokenizer %s: %v", missing, err)
		}
	}
}

// TestSingle finds the components of a single file; the tokenizer is another model's.
func TestSingle(t *testing.T) {
	t.Parallel()
	data, err := fs.ReadFile(golden(t, "sd15_single_file"), "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{"model.safetensors": {Data: data}, "notes.txt": {Data: []byte("x")}}
	m := find(t, files, Options{Tokenizers: golden(t, "sd15_pipeline")})
	if m.Class != "StableDiffusionPipeline" {
		t.Errorf("class %q", m.Class)
	}
	if err := m.Open(); err != nil {
		t.Fatal(err)
	}
	for name, tensor := range map[string]string{
		"unet": "conv_in.weight", "vae": "decoder.conv_in.weight", "text_encoder": "text_model.final_layer_norm.weight",
	} {
		s, err := m.Brief(name)
		if err != nil || !s.Has(tensor) {
			t.Errorf("%s: no %s, %v", name, tensor, err)
		}
		if list, err := m.Tensors(name); err != nil || len(list) != len(s.Names()) {
			t.Errorf("%s: %d tensors, %v", name, len(list), err)
		}
		if raw, err := m.Config(name); err != nil || !json.Valid(raw) {
			t.Errorf("%s: config %q, %v", name, raw, err)
		}
	}
	m.Evict()
	tokens, err := m.Tokenizer("tokenizer")
	if err != nil {
		t.Fatal(err)
	}
	if pad, ok := tokens.PAD(); !ok || !slices.Contains(tokens.EOS(), pad) {
		t.Errorf("pads by %d", pad)
	}
	alone := find(t, files, Options{})
	if _, err := alone.Tokenizer("tokenizer"); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "model.safetensors holds no tokenizer") {
		t.Errorf("no tokenizer: %v", err)
	}
}

// TestPad checks that a folder of CLIP's can be made to fill up by another token.
func TestPad(t *testing.T) {
	t.Parallel()
	folder, err := fs.Sub(golden(t, "sd15_pipeline"), "tokenizer")
	if err != nil {
		t.Fatal(err)
	}
	c := clipFolder{folder, "!"}
	raw, err := ReadText(c, "tokenizer_config.json")
	if err != nil || !strings.Contains(string(raw), `"pad_token":"!"`) {
		t.Errorf("%s, %v", raw, err)
	}
	if _, err := ReadText(c, "special_tokens_map.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("special tokens: %v", err)
	}
	if _, err := ReadText(c, "vocab.json"); err != nil {
		t.Error(err)
	}
}

func TestFindErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files fstest.MapFS
		is    error
	}{
		"empty":     {fstest.MapFS{}, fs.ErrNotExist},
		"broken":    {fstest.MapFS{"model_index.json": {Data: []byte("[")}}, ErrUnsupported},
		"class":     {fstest.MapFS{"model_index.json": {Data: []byte(`{"_class_name":1}`)}}, ErrUnsupported},
		"path":      {fstest.MapFS{"model_index.json": {Data: []byte(`{"a/b":["x","y"]}`)}}, ErrUnsupported},
		"huge":      {fstest.MapFS{"model_index.json": {Data: make([]byte, maxText+1)}}, ErrUnsupported},
		"truncated": {fstest.MapFS{"m.safetensors": {Data: []byte("abc")}}, weights.ErrFormat},
		"nothing known": {fstest.MapFS{"m.safetensors": {
			Data: append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, "{}"...),
		}}, ErrUnsupported},
	} {
		if _, err := Find(tt.files, Options{}); !errors.Is(err, tt.is) {
			t.Errorf("%s: error %v, want %v", name, err, tt.is)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"_class_name":"StableDiffusionPipeline","unet":["diffusers","UNet2DConditionModel"],"x":[null,null]}`))
	f.Add([]byte(`{"id2label":{"0":"cat"},"force_zeros_for_empty_prompt":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Find(fstest.MapFS{"model_index.json": {Data: data}}, Options{})
		if err != nil {
			if !errors.Is(err, ErrUnsupported) {
				t.Errorf("error %v wraps no ErrUnsupported", err)
			}
			return
		}
		for name := range m.Parts {
			if _, err := m.Weights(name); err == nil {
				t.Errorf("weights of %q out of nothing", name)
			}
		}
	})
}

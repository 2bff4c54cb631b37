package hub

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSingleFiles checks that files of weights which are whole models are told by what is
// in them, alone in a folder, beside others, and at the top.
func TestSingleFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, "pixel-style.safetensors", header(t, map[string][]int64{
		"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": {4, 32},
		"lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight":   {32, 4},
	}))
	put(t, dir, "enlargers/esrgan.safetensors", header(t, map[string][]int64{"conv_first.weight": {64, 3, 3, 3}, "body.0.rdb1.conv1.weight": {32, 64, 3, 3}}))
	put(t, dir, "enlargers/old.safetensors", header(t, map[string][]int64{"model.0.weight": {64, 3, 3, 3}, "model.1.sub.0.RDB1.conv1.0.weight": {32, 64, 3, 3}}))
	put(t, dir, "enlargers/small.safetensors", header(t, map[string][]int64{"body.0.weight": {64, 3, 3, 3}, "body.1.weight": {64}, "body.2.weight": {64, 64, 3, 3}}))
	put(t, dir, "word/embedding.safetensors", header(t, map[string][]int64{"emb_params": {2, 768}}))
	put(t, dir, "words/one.safetensors", header(t, map[string][]int64{"<sunny>": {2, 768}}))
	put(t, dir, "control/config.json", []byte(`{"_class_name": "ControlNetModel"}`))
	put(t, dir, "control/diffusion_pytorch_model.safetensors", header(t, map[string][]int64{"conv_in.weight": {320, 4, 3, 3}}))
	put(t, dir, "strange/one.safetensors", header(t, map[string][]int64{"a": {2}}))
	put(t, dir, "broken/one.safetensors", []byte("\xff\x00"))
	put(t, dir, "broken/two.safetensors", header(t, map[string][]int64{"a": {2}}))
	h := open(t, dir)
	for id, want := range map[string]string{
		"pixel-style": LoRA, "enlargers/esrgan": RRDBNet, "enlargers/old": RRDBNet, "enlargers/small": SRVGGNet, "word": Embedding,
		"words": Embedding, "control": "ControlNetModel",
	} {
		if b := bundle(t, h, id); b.Problem != nil || len(b.Architectures) != 1 || b.Architectures[0] != want || b.Bytes == 0 || b.Created.IsZero() {
			t.Errorf("%s: %+v, want %s", id, b, want)
		}
	}
	for id, says := range map[string]string{"strange": "no network that is known", "broken/one": "copied", "broken/two": "config.json"} {
		b, err := h.Bundle(id)
		if err != nil || b.Problem == nil || !strings.Contains(b.Problem.Error(), says) {
			t.Errorf("%s: %+v (%v), want a problem of %q", id, b, err, says)
		}
	}
}

// TestStableDiffusionFile reads a checkpoint in the original layout, with and without
// another file beside it.
func TestStableDiffusionFile(t *testing.T) {
	t.Parallel()
	goldens := os.Getenv("HELICON_GOLDENS")
	if goldens == "" {
		goldens = filepath.Join("..", "..", "..", "shared", "goldens")
	}
	file, err := os.ReadFile(filepath.Join(goldens, "image", "sd15_single_file", "model.safetensors"))
	if err != nil {
		t.Skipf("there is no golden checkpoint: %v", err)
	}
	dir := t.TempDir()
	put(t, dir, "alone/model.safetensors", file)
	put(t, dir, "sd15.safetensors", file)
	put(t, dir, "sd15.yaml", []byte("model: {}\n"))
	put(t, dir, "other.safetensors", file)
	h := open(t, dir)
	for _, id := range []string{"alone", "sd15", "other"} {
		if b := bundle(t, h, id); b.Problem != nil || b.Architectures[0] != "StableDiffusionPipeline" {
			t.Errorf("%s: %+v", id, b)
		}
	}
	names, err := Checkpoints(bundle(t, h, "sd15").Files)
	if err != nil || len(names) != 1 || names[0] != "sd15.safetensors" {
		t.Errorf("files %v, %v", names, err)
	}
}

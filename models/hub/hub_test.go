package hub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// header renders a safetensors file that holds F32 tensors of the given shapes.
func header(t testing.TB, shapes map[string][]int64) []byte {
	t.Helper()
	entries := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	var at int64
	for name, shape := range shapes {
		n := int64(4)
		for _, d := range shape {
			n *= d
		}
		entries[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int64{at, at + n}}
		at += n
	}
	raw, err := json.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(raw))), raw...), make([]byte, at)...)
}

// put writes a file below dir, with its folders.
func put(t testing.TB, dir, name string, content []byte) {
	t.Helper()
	full := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

const config = `{"architectures":["LlamaForCausalLM"],"max_position_embeddings":512}`

const card = "---\nlanguage:\n- en\nlicense: apache-2.0\ndate: 2026-05-04\n---\n# A card\n"

// putBundle writes a sound bundle.
func putBundle(t testing.TB, dir, id string) {
	t.Helper()
	put(t, dir, id+"/config.json", []byte(config))
	put(t, dir, id+"/model.safetensors", header(t, map[string][]int64{"a": {3, 5}, "b": {7}}))
}

func open(t testing.TB, dir string) *Hub {
	t.Helper()
	h, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func bundle(t testing.TB, h *Hub, id string) *Bundle {
	t.Helper()
	b, err := h.Bundle(id)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEmbeddedBundlesAreSound(t *testing.T) {
	t.Parallel()
	for _, b := range open(t, "").Bundles() {
		if b.Problem != nil || b.Source != Embedded || b.Parameters == 0 || b.Bytes == 0 {
			t.Errorf("%s: problem %v, source %q, %d parameters in %d bytes", b.ID, b.Problem, b.Source, b.Parameters, b.Bytes)
		}
		if _, err := fs.Stat(b.Files, cardFile); err == nil && b.Licence == "" {
			t.Errorf("%s: the front matter of its card states no license", b.ID)
		}
		known := b.KnownDigest()
		if digest, err := b.Digest(t.Context()); err != nil || known != digest {
			t.Errorf("%s: digest %q, %v; known %q", b.ID, digest, err, known)
		}
	}
}

func TestBundleIsDescribed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	putBundle(t, dir, "one")
	put(t, dir, "one/README.md", []byte(card))
	b := bundle(t, open(t, dir), "one")
	if b.Problem != nil {
		t.Fatal(b.Problem)
	}
	if len(b.Architectures) != 1 || b.Architectures[0] != "LlamaForCausalLM" || b.Context != 512 || b.Parameters != 22 ||
		b.Licence != "apache-2.0" || b.Created.Format(time.DateOnly) != "2026-05-04" || b.Source != filepath.Join(dir, "one") {
		t.Errorf("described as %+v", b)
	}
	if info, err := os.Stat(filepath.Join(dir, "one", "model.safetensors")); err != nil || b.Bytes != info.Size() {
		t.Errorf("%d bytes of weights", b.Bytes)
	}
}

func TestOtherLayouts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, "gpt/config.json", []byte(`{"architectures":["GPT2LMHeadModel"],"n_positions":64}`))
	put(t, dir, "gpt/README.md", []byte("---\nlicense: other\nlicense_name: \"my-licence\"\n---\n"))
	put(t, dir, "gpt/model-00001-of-00002.safetensors", header(t, map[string][]int64{"a": {2}}))
	put(t, dir, "gpt/model-00002-of-00002.safetensors", header(t, map[string][]int64{"b": {3}}))
	put(t, dir, "gpt/model.safetensors.index.json",
		[]byte(`{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}`))
	put(t, dir, "owner/pipeline/model_index.json", []byte(`{"_class_name":"StableDiffusionPipeline"}`))
	put(t, dir, "owner/pipeline/unet/config.json", []byte(`{"_class_name":"UNet2DConditionModel"}`))
	put(t, dir, "owner/pipeline/unet/diffusion_pytorch_model.safetensors", header(t, map[string][]int64{"a": {10}}))
	h := open(t, dir)
	sharded := bundle(t, h, "gpt")
	if sharded.Problem != nil || sharded.Parameters != 5 || sharded.Context != 64 || sharded.Licence != "my-licence" {
		t.Errorf("sharded: %+v", sharded)
	}
	pipeline := bundle(t, h, "owner/pipeline")
	if pipeline.Problem != nil || pipeline.Parameters != 10 || pipeline.Architectures[0] != "StableDiffusionPipeline" {
		t.Errorf("pipeline: %+v", pipeline)
	}
	if _, err := h.Bundle("owner/pipeline/unet"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a part of a pipeline is listed as a bundle: %v", err)
	}
}

func TestBrokenFoldersAreListedWithTheirProblem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, "no-config/model.safetensors", header(t, nil))
	put(t, dir, "bad-config/config.json", []byte(`{`))
	put(t, dir, "no-weights/config.json", []byte(config))
	put(t, dir, "no-class/config.json", []byte(`{}`))
	put(t, dir, "huge-config/config.json", bytes.Repeat([]byte(" "), maxConfig+1))
	put(t, dir, "short/config.json", []byte(config))
	put(t, dir, "short/model.safetensors", header(t, map[string][]int64{"a": {100}})[:200])
	put(t, dir, "outside/config.json", []byte(config))
	put(t, dir, "outside/model.safetensors.index.json", []byte(`{"weight_map":{"a":"../short/model.safetensors"}}`))
	put(t, dir, "incomplete/config.json", []byte(config))
	put(t, dir, "incomplete/one.safetensors", header(t, map[string][]int64{"a": {3}}))
	put(t, dir, "incomplete/model.safetensors.index.json", []byte(`{"weight_map":{"a":"one.safetensors","b":"one.safetensors"}}`))
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "just-files/notes.txt", nil)
	put(t, dir, ".hidden/config.json", []byte(config))
	h := open(t, dir)
	for id, says := range map[string]string{
		"no-config": "config.json", "bad-config": "config.json", "no-weights": "model.safetensors",
		"no-class": "architecture", "huge-config": "bytes", "short": "copied", "outside": "not beside the index",
		"incomplete": `one.safetensors: tensor "b" of the index`,
		"dangling":   "", "loop": "",
	} {
		b, err := h.Bundle(id)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if b.Problem == nil || !strings.Contains(b.Problem.Error(), says) {
			t.Errorf("%s: problem %v, want one about %q", id, b.Problem, says)
		}
		if b.KnownDigest() != "" {
			t.Errorf("%s: has a digest", id)
		}
	}
	for _, b := range h.Bundles() {
		if b.ID == "just-files" || strings.HasPrefix(b.ID, ".") {
			t.Errorf("%s is no bundle", b.ID)
		}
	}
}

func TestIDsAreNoPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	putBundle(t, dir, "secret")
	models := filepath.Join(dir, "models")
	putBundle(t, models, "one")
	h := open(t, models)
	for _, id := range []string{"", ".", "..", "../secret", "one/../../secret", "./one", "one/", filepath.Join(dir, "secret")} {
		if _, err := h.Bundle(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("Bundle(%q) = %v", id, err)
		}
	}
}

func TestLinksAreFollowed(t *testing.T) {
	t.Parallel()
	elsewhere, dir := t.TempDir(), t.TempDir()
	putBundle(t, elsewhere, "big")
	for link, to := range map[string]string{"linked": filepath.Join(elsewhere, "big"), "self": "."} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	b := bundle(t, open(t, dir), "linked")
	if b.Problem != nil || b.Parameters != 22 {
		t.Errorf("%+v", b)
	}
	if digest, err := b.Digest(t.Context()); err != nil || digest != wantDigest(t, filepath.Join(elsewhere, "big"), "config.json", "model.safetensors") {
		t.Errorf("digest %q, %v", digest, err)
	}
}

// wantDigest computes a digest as sha256sum would: the names must be sorted.
func wantDigest(t testing.TB, dir string, names ...string) string {
	t.Helper()
	all := sha256.New()
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(all, "%x  %s\n", sha256.Sum256(content), name)
	}
	return "sha256:" + hex.EncodeToString(all.Sum(nil))
}

func TestDigestIsComputedOnceAndAfterChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	putBundle(t, dir, "one")
	put(t, dir, "one/.cache/junk", []byte("x"))
	h := open(t, dir)
	b := bundle(t, h, "one")
	if known := b.KnownDigest(); known != "" {
		t.Errorf("digest %s known before it was asked for", known)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Digest(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v of a canceled call", err)
	}
	first, err := b.Digest(t.Context())
	if err != nil || first != wantDigest(t, filepath.Join(dir, "one"), "config.json", "model.safetensors") {
		t.Fatalf("digest %q, %v", first, err)
	}
	if b.KnownDigest() != first {
		t.Errorf("known digest %q, want %q", b.KnownDigest(), first)
	}
	put(t, dir, "one/config.json", []byte(config+" "))
	if known := b.KnownDigest(); known != "" {
		t.Errorf("digest %s known after a change", known)
	}
	if second, err := b.Digest(t.Context()); err != nil || second == first {
		t.Errorf("digest %q, %v after a change", second, err)
	}
}

func TestRescan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	putBundle(t, dir, "one")
	h := open(t, dir)
	one := bundle(t, h, "one")
	putBundle(t, dir, "owner/two")
	if err := h.Rescan(); err != nil {
		t.Fatal(err)
	}
	if bundle(t, h, "one") != one {
		t.Errorf("an unchanged bundle was described again")
	}
	if two := bundle(t, h, "owner/two"); two.Problem != nil {
		t.Error(two.Problem)
	}
	put(t, dir, "one/config.json", []byte(strings.ReplaceAll(config, "512", "1024")))
	if err := os.RemoveAll(filepath.Join(dir, "owner")); err != nil {
		t.Fatal(err)
	}
	if err := h.Rescan(); err != nil {
		t.Fatal(err)
	}
	if got := bundle(t, h, "one").Context; got != 1024 {
		t.Errorf("context %d after a change, want 1024", got)
	}
	if _, err := h.Bundle("owner/two"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a removed bundle: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := h.Rescan(); err == nil {
		t.Error("a file is taken for the models folder")
	}
	bundle(t, h, "one") // what was known stays
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := h.Rescan(); err != nil {
		t.Errorf("a models folder that is not there: %v", err)
	}
	if _, err := h.Bundle("one"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a removed bundle: %v", err)
	}
}

func TestFrontMatter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ card, licence string }{
		"plain":     {"---\nlicense: mit\n---\n", "mit"},
		"quoted":    {"---\nlicense: 'mit'\n---\n", "mit"},
		"crlf":      {"---\r\nlicense: mit\r\n---\r\n", "mit"},
		"none":      {"# Card\nlicense: mit\n", ""},
		"unended":   {"---\nlicense: mit\n", ""},
		"empty":     {"", ""},
		"no colon":  {"---\nlicense\n---\n", ""},
		"long line": {"---\n" + strings.Repeat("x", 1<<17) + "\nlicense: mit\n---\n", ""},
	} {
		if got := frontMatter(strings.NewReader(c.card))["license"]; got != c.licence {
			t.Errorf("%s: licence %q, want %q", name, got, c.licence)
		}
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add("model.safetensors", header(f, map[string][]int64{"a": {3, 5}, "b": {}}))
	f.Add("model.safetensors", []byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"))
	f.Add("model.gguf", []byte("GGUF\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if !fs.ValidPath(name) || name == configFile {
			return
		}
		b := &Bundle{Files: fstest.MapFS{configFile: {Data: []byte(`{"architectures":["A"]}`)}, name: {Data: data}}}
		if err := b.describe(); b.Parameters < 0 || b.Bytes < 0 {
			t.Errorf("%d parameters, %d bytes, %v", b.Parameters, b.Bytes, err)
		}
	})
}

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helicon/models/lm/family"
	"helicon/models/tokenizer"
)

// TestQuantize makes a GGUF file of the embedded model, lists it, and reads it back.
func TestQuantize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "small.gguf")
	var stdout, stderr bytes.Buffer
	env := &environment{stdout: &stdout, stderr: &stderr}
	c := &quantizeCmd{Models: dir, In: "helicon-text", Type: "q8_0", Out: out}
	if err := c.Run(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stdout.String(), "74 tensors") {
		t.Errorf("it says %q", stdout.String())
	}
	if err := c.Run(t.Context(), env); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a second time: %v", err)
	}
	list := &listModelsCmd{modelsFlags{Models: dir}}
	if err := list.Run(env); err != nil {
		t.Fatal(err)
	}
	line := ""
	for _, l := range strings.Split(stdout.String(), "\n") {
		if strings.HasPrefix(l, "small ") {
			line = l
		}
	}
	if !strings.Contains(line, "llama") || !strings.Contains(line, "Q8_0") || !strings.Contains(line, "512") {
		t.Errorf("it is listed as %q", line)
	}
	if err := family.Check(os.DirFS(dir)); err != nil {
		t.Error(err)
	}
	tok, err := tokenizer.Load(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tok.ChatTemplate(); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]quantizeCmd{
		"no such model":  {Models: dir, In: "nothing", Type: "q8_0", Out: filepath.Join(dir, "a.gguf")},
		"no such type":   {Models: dir, In: out, Type: "q9", Out: filepath.Join(dir, "a.gguf")},
		"another ending": {Models: dir, In: out, Type: "q8_0", Out: filepath.Join(dir, "a.bin")},
		"twice":          {Models: dir, In: out, Type: "q4_0", Out: filepath.Join(dir, "a.gguf")},
	} {
		if err := c.Run(t.Context(), env); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

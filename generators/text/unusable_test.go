package text

import (
	"bytes"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helicon/queue"
)

// TestUnusableModels checks that a model that cannot be used is not offered, that the
// log says why, once, and that a job naming it is told the same.
func TestUnusableModels(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		bundle testBundle
		file   string // written over the bundle's
		reason string
	}{
		"generation_config.json of other types": {testBundle{}, `generation_config.json: {"top_p":"most"}`, "generation_config.json: top_p: want a number, got string"},
		"generation_config.json out of range":   {testBundle{}, `generation_config.json: {"top_p":7}`, "top_p"},
		"generation_config.json no JSON":        {testBundle{}, `generation_config.json: {`, "generation_config.json"},
		"tokenizer.json no JSON":                {testBundle{}, `tokenizer.json: {`, "tokenizer.json"},
		"tokenizer_config.json no JSON":         {testBundle{}, `tokenizer_config.json: {`, "tokenizer_config.json"},
		"no heads":                              {testBundle{config: object{"num_attention_heads": 0}}, "", "heads"},
		"heads that do not divide":              {testBundle{config: object{"num_key_value_heads": 3}}, "", "3 key-value heads"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c.bundle.write(t, filepath.Join(dir, "broken"))
			if file, body, ok := strings.Cut(c.file, ": "); ok {
				if err := os.WriteFile(filepath.Join(dir, "broken", file), []byte(body), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			g, log := openLogged(t, dir)
			for range 3 {
				checkNotOffered(t, g, "broken")
			}
			checkReason(t, g, log, c.reason)
			b, err := g.hub.Bundle("broken")
			if err != nil {
				t.Fatal(err)
			}
			if err := Check(b); err == nil || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("checked: %v, want the reason %q", err, c.reason)
			}
		})
	}
}

// TestOtherArchitecture checks that a sound bundle of another kind is told apart without
// a word in the log: it may be for another generator.
func TestOtherArchitecture(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	testBundle{config: object{"architectures": []string{"MambaForCausalLM"}}}.write(t, filepath.Join(dir, "other"))
	g, log := openLogged(t, dir)
	checkNotOffered(t, g, "other")
	b, err := g.hub.Bundle("other")
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(b); err == nil || !strings.Contains(err.Error(), "no network for its architecture, MambaForCausalLM") || log.Len() > 0 {
		t.Errorf("checked: %v, log %q", err, log)
	}
}

// TestUnusableWeights checks the same of what shows only when weights are loaded.
func TestUnusableWeights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const missing = "model.layers.1.mlp.up_proj.weight"
	testBundle{without: missing}.write(t, filepath.Join(dir, "broken"))
	g, log := openLogged(t, dir)
	checkReason(t, g, log, missing)
	checkReason(t, g, log, missing)
	checkNotOffered(t, g, "broken")
	testBundle{seed: 1}.write(t, filepath.Join(dir, "broken"))
	if !slices.ContainsFunc(g.Models(), func(m queue.Model) bool { return m.ID == "broken" }) {
		t.Error("the mended model is not offered")
	}
}

// TestUnusableChatTemplate checks that a model whose template cannot be read still
// completes texts.
func TestUnusableChatTemplate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	testBundle{template: "{% for m in %}"}.write(t, filepath.Join(dir, "broken"))
	g, log := openLogged(t, dir)
	for range 2 {
		for _, m := range g.Models() {
			if m.ID == "broken" && !slices.Equal(m.Tasks, []string{taskComplete, taskEmbed}) {
				t.Errorf("offered for %v", m.Tasks)
			}
		}
	}
	if s := log.String(); strings.Count(s, "model=broken") != 1 || !strings.Contains(s, "chat_template") {
		t.Errorf("log %q", s)
	}
	problem := problemOf(t, g, jobOf(t, taskChat, "broken", object{"messages": []message{{Role: user, Content: "x"}}}))
	if problem.Code != "chat_unreadable" || !strings.Contains(problem.Detail, "chat_template") {
		t.Errorf("problem %v", problem)
	}
	generate(t, g, jobOf(t, taskComplete, "broken", object{"prompt": "x", "max_tokens": 2}))
}

// openLogged returns a generator of the bundles in a folder and its log.
func openLogged(t testing.TB, dir string) (*Generator, *bytes.Buffer) {
	t.Helper()
	g, log := open(t, dir, 1), &bytes.Buffer{}
	g.log = slog.New(slog.NewTextHandler(log, nil))
	return g, log
}

func checkNotOffered(t testing.TB, g *Generator, id string) {
	t.Helper()
	for _, m := range g.Models() {
		if m.ID == id {
			t.Errorf("model %s is offered", id)
		}
	}
	for _, task := range g.Tasks() {
		if task.Model == id {
			t.Errorf("model %s is the default for %s", id, task.Name)
		}
	}
}

// checkReason runs a job on the model "broken", which is to tell the reason, as the
// log is to do once.
func checkReason(t testing.TB, g *Generator, log *bytes.Buffer, reason string) {
	t.Helper()
	problem := problemOf(t, g, jobOf(t, taskComplete, "broken", object{"prompt": "x"}))
	if problem.Code != "model_unusable" || !strings.Contains(problem.Detail, reason) || strings.Contains(problem.Detail, "Go ") {
		t.Errorf("problem %v, want the reason %q", problem, reason)
	}
	if s := log.String(); strings.Count(s, "model=broken") != 1 || !strings.Contains(s, reason) {
		t.Errorf("log %q, want the reason %q once", s, reason)
	}
}

// TestNoNumbers checks that weights whose logits are no numbers fail a job for good.
func TestNoNumbers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, weight := range map[string]float64{"nan": math.NaN(), "inf": math.Inf(1), "huge": 1e18} {
		testBundle{weight: float32(weight)}.write(t, filepath.Join(dir, name))
		for _, input := range []object{{"prompt": "x"}, {"prompt": "x", "temperature": 0, "logprobs": 2}} {
			problem := problemOf(t, open(t, dir, 1), jobOf(t, taskComplete, name, input))
			if problem.Code != "model_unusable" || !strings.Contains(problem.Detail, name) || !strings.Contains(problem.Detail, "no numbers") {
				t.Errorf("%s: problem %v", name, problem)
			}
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestBench measures little, on small cases, and checks what is printed.
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("peaks take seconds")
	}
	for name, c := range map[string]struct {
		args    []string
		results int
	}{
		"gemm": {[]string{"gemm", "--shape", "3x64x256", "--type", "f32,q4_k"}, 2},
		"lm":   {[]string{"lm", "--prompt", "8", "--generate", "3", "--batch", "1"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"bench"}, c.args...)
			out, err := command(t.Context(), append(args, "--time", "1ms", "--json")...).Output()
			if err != nil {
				t.Fatal(err)
			}
			var view benchView
			decoder := json.NewDecoder(bytes.NewReader(out))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&view); err != nil {
				t.Fatal(err)
			}
			m := view.Machine
			if m.CPU == "" || m.Level == "" || m.Threads < 1 || !(m.Peaks.F32 > 0) || !(m.Peaks.Int8 > 0) || !(m.Peaks.Read > 0) {
				t.Errorf("machine: %+v", m)
			}
			if len(view.Results) != c.results || (view.Model != nil) != (name == "lm") {
				t.Errorf("got %s", out)
			}
		})
	}
}

// TestBenchTable checks that a result is one line under the heading.
func TestBenchTable(t *testing.T) {
	if testing.Short() {
		t.Skip("peaks take seconds")
	}
	out, err := command(t.Context(), "bench", "gemm", "--shape", "3x64x256", "--type", "f32", "--time", "1ms", "--cpu", "generic", "--threads", "1").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 5 || !strings.HasSuffix(lines[0], "1 threads, generic") || !strings.HasPrefix(lines[3], "CASE") || !strings.HasPrefix(lines[4], "3x64x256") {
		t.Errorf("got\n%s", out)
	}
}

func TestBenchRefuses(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"is not a size":        {"gemm", "--shape", "3x4"},
		"blocks of 32":         {"gemm", "--shape", "3x4x33", "--type", "q8_0"},
		"is not one of f32":    {"gemm", "--type", "q9"},
		"no level":             {"attention", "--cpu", "mmx"},
		"want at least 0":      {"conv", "--threads=-1"},
		"needs --shape":        {"lm", "--type", "q8_0"},
		"tinyllama-1.1b":       {"lm", "--shape", "huge"},
		"not both":             {"lm", "helicon-text", "--shape", "gpt2-124m"},
		"--batch":              {"lm", "--batch", "0"},
		"--prompt and --gener": {"lm", "--generate", "1"},
		"--width and --height": {"image", "--width", "100"},
		"sd15, sd21, sdxl":     {"image", "--shape", "sd9"},
		"f32, bf16, int8":      {"image", "--type", "q8_0"},
	} {
		_, err := command(t.Context(), append([]string{"bench"}, args...)...).Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitUsage || !strings.Contains(string(exit.Stderr), want) {
			t.Errorf("%v: got %v, want a usage error with %q", args, err, want)
		}
	}
}

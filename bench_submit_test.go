package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestBenchSubmit submits for a moment, with and without a sync of every write, and
// checks what is printed.
func TestBenchSubmit(t *testing.T) {
	if testing.Short() {
		t.Skip("starts gateways")
	}
	t.Parallel()
	for _, flags := range [][]string{nil, {"--sync"}} {
		args := append([]string{"bench", "submit", "--connections", "4", "--duration", "400ms", "--json"}, flags...)
		out, err := command(t.Context(), args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		var view submitView
		decoder := json.NewDecoder(bytes.NewReader(out))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&view); err != nil {
			t.Fatal(err)
		}
		s := view.Submit
		if s.Done < 4 || s.Errors > 0 || !(s.Rate > 0) || !(s.P50 > 0) || s.P99 < s.P50 || s.Max < s.P99 || !(s.CPU > 0) {
			t.Errorf("submissions: %+v", s)
		}
		if view.Connections != 4 || view.Sync == nil || *view.Sync != (flags != nil) ||
			view.HTTP == nil || view.HTTP.Done == 0 || view.Queue == nil || view.Queue.Done == 0 || !(view.Disk > 0) {
			t.Errorf("got %s", out)
		}
	}
}

func TestBenchSubmitRefuses(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--connections": {"--connections", "0"},
		"--duration":    {"--duration", "0s"},
		"--prompt":      {"--prompt", "0"},
		"--sync is for": {"--sync", "--addr", "127.0.0.1:1"},
		"not an addr":   {"--addr", "ftp://x"},
	} {
		_, err := command(t.Context(), append([]string{"bench", "submit"}, args...)...).Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitUsage || !strings.Contains(string(exit.Stderr), want) {
			t.Errorf("%v: got %v, want a usage error with %q", args, err, want)
		}
	}
	_, err := command(t.Context(), "bench", "submit", "--addr", "127.0.0.1:1", "--duration", "50ms").Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailed || !strings.Contains(string(exit.Stderr), "refused") {
		t.Errorf("nobody there: %v", err)
	}
}

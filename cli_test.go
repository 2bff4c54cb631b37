package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"helicon/queue"
)

// TestTextOnATerminal shows a job where text and status share the screen: what erases
// the status must not erase the text, and text that was cut ends its line.
func TestTextOnATerminal(t *testing.T) {
	t.Parallel()
	token := &queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: "first line\nsecond"}}
	for name, c := range map[string]struct {
		end  *queue.Job
		want string
	}{
		"succeeded": {&queue.Job{State: queue.Succeeded, Result: &queue.Result{Text: "first line\nsecond"}}, "first line\nsecond\n"},
		"canceled":  {&queue.Job{State: queue.Canceled}, "first line\nsecond\n"},
		"failed":    {&queue.Job{State: queue.Failed, Problem: queue.Problemf("internal", "It broke.")}, "first line\nsecond\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var screen bytes.Buffer
			v := &view{out: &screen, status: &screen, live: true}
			for _, e := range []*queue.Event{{Type: queue.EventQueued}, token, {Type: queue.EventType(c.end.State), Job: c.end}} {
				if err := v.show(e); err != nil {
					t.Fatal(err)
				}
			}
			v.clear()
			v.finish()
			if _, got, _ := strings.Cut(screen.String(), "queued …\r\x1b[K"); got != c.want {
				t.Errorf("behind the status the screen got %q, want %q", got, c.want)
			}
		})
	}
}

func TestServerAddress(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		"http://127.0.0.1:8080":     "http://127.0.0.1:8080",
		"http://127.0.0.1:8080/":    "http://127.0.0.1:8080",
		"127.0.0.1:8080":            "http://127.0.0.1:8080",
		"localhost:8080":            "http://localhost:8080",
		"example.org":               "http://example.org",
		"https://example.org/made/": "https://example.org/made",
		"ftp://example.org":         "",
		"http://":                   "",
		"http://example.org:port":   "",
	} {
		var got serverURL
		err := got.UnmarshalText([]byte(written))
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q (%v), want %q", written, got, err, want)
		}
	}
}

func TestPromptFromInput(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		"The fox\n":                      "The fox",
		"The fox\r\n":                    "The fox",
		"The fox\n\n":                    "The fox\n",
		"broken \xff end":                "",
		" 狐狸 ":                           " 狐狸 ",
		strings.Repeat("x", maxPrompt+1): "",
	} {
		got, err := readPrompt(t.Context(), strings.NewReader(written))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q is read as %.20q (%v), want %q", written, got, err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	silent, _ := io.Pipe()
	if _, err := readPrompt(ctx, silent); !errors.Is(err, stopped) {
		t.Errorf("reading from nobody ended with %v, want %v", err, stopped)
	}
}

// TestDescribeSaysThingsOnce prints a problem whose sentence names its only field.
func TestDescribeSaysThingsOnce(t *testing.T) {
	t.Parallel()
	p := &queue.Problem{Detail: "The input is not valid: /input/n: want at least 1.", Errors: []queue.FieldError{
		{Pointer: "/input/n", Detail: "want at least 1"}, {Pointer: "/input/top_p", Detail: "want at most 1"}}}
	if got, want := describe(p).Error(), p.Detail+"\n  /input/top_p: want at most 1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestWrongCommandLine checks that a mistake is told in a few lines, that nothing of
// it reaches the standard output, and that broken settings are not a crash.
func TestWrongCommandLine(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("addr: [a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"generate", "text", "x", "--max-tokens", "many"},
		{"generate", "text", "x", "--slots=-1"},
		{"generate", "text", "x", "--server", "ftp://example.org"},
		{"gateway", "--retention=-1h"},
		{"serve", "--workers", "smell"},
		{"serve", "--retention", "0s"},
		{"serve", "--max-attempts", "0"},
		{"serve", "--max-upload", "0"},
		{"serve", "--threads=-1"},
		{"worker", "--nats", "nats://127.0.0.1:1", "--modality", "smell"},
		{"doctor", "--config", broken},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var stdout, stderr bytes.Buffer
			cmd := command(ctx, args...)
			cmd.Env = append(cmd.Env, "HELICON_DATA="+t.TempDir(), "HELICON_ADDR=127.0.0.1:0") // should it start
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			cmd.Run()
			if said := stderr.String(); cmd.ProcessState.ExitCode() != exitUsage || stdout.Len() > 0 ||
				!strings.Contains(said, "helicon: error: ") || strings.Count(said, "\n") > 12 {
				t.Errorf("exit status %d, standard output %q, standard error %q", cmd.ProcessState.ExitCode(), &stdout, said)
			}
		})
	}
}

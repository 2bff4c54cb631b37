package web_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// patience is how long a page may take to show what it is expected to show.
const patience = 90 * time.Second

// page is a tab of a real browser.
type page struct {
	ctx   context.Context
	shots string // folder for pictures; empty for none
}

// findChromium returns the browser's path, or skips the test. Where a browser is
// required ($HELICON_REQUIRE_BROWSER=1) it fails instead.
func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	unavailable(t, "no Chromium or Chrome is installed")
	return ""
}

// unavailable skips the test, or fails it where the browser test is required.
func unavailable(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("HELICON_REQUIRE_BROWSER") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// openBrowser starts a browser with a fresh profile and returns its first tab. An
// exception in the page or a breach of its content security policy fails the test.
func openBrowser(t *testing.T, executable string) *page {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(executable), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 800),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("lang", "en-US"), chromedp.Flag("accept-lang", "en-US"))
	allocator, stopAllocator := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, stop := chromedp.NewContext(allocator)
	var complaints sync.WaitGroup
	messages := chromedp.Console(ctx)
	complaints.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleException || strings.Contains(m.Text, "Content Security Policy") {
				t.Errorf("console: %s %s", m.Type, m.Text)
			}
		}
	})
	t.Cleanup(func() {
		stop()
		stopAllocator()
		complaints.Wait()
	})
	shots := os.Getenv("HELICON_SCREENSHOTS")
	if shots != "" {
		if err := os.MkdirAll(shots, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &page{ctx: ctx, shots: shots}
}

// do runs actions of the user.
func (p *page) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatalf("browser: %v", err)
	}
}

// click presses the mouse on the one element that the selector names.
func (p *page) click(t *testing.T, selector string) {
	t.Helper()
	p.do(t, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// press clicks the button with the label inside the element that the selector names.
func (p *page) press(t *testing.T, within, label string) {
	t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll('%s button')].find((b) => !b.disabled && b.offsetParent && b.querySelector('span')?.textContent === '%s')`, within, label)
	p.wait(t, "a button "+label, find)
	eval[chromedp.Void](t, p, find+".click()")
}

// write types a prompt and submits it by the keyboard.
func (p *page) write(t *testing.T, prompt string) {
	t.Helper()
	p.wait(t, "the prompt", `document.querySelector('#prompt') && !document.querySelector('[type=submit]').disabled`)
	eval[string](t, p, `document.querySelector('#prompt').value = ''`)
	p.do(t, chromedp.SendKeys(chromedp.CSS("#prompt"), prompt),
		chromedp.KeyEvent("\r", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
}

// set types text into a parameter's field.
func (p *page) set(t *testing.T, parameter, text string) {
	t.Helper()
	eval[chromedp.Void](t, p, fmt.Sprintf(`(() => {
		const field = document.querySelector('#parameter-%s');
		field.value = %q;
		field.dispatchEvent(new Event('input', { bubbles: true }));
	})()`, parameter, text))
}

// wait returns once the condition, a JavaScript expression, holds in the page.
func (p *page) wait(t *testing.T, what, condition string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	expression := fmt.Sprintf(`new Promise((resolve) => {
		const check = () => ((%s) ? resolve(true) : setTimeout(check, 20));
		check();
	})`, condition)
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression, chromedp.EvalAwaitPromise)); err != nil {
		shown := eval[string](t, p, `document.body.innerText`)
		p.shoot(t, "waiting")
		t.Fatalf("waiting for %s: %v; the page shows:\n%s", what, err, shown)
	}
}

// waitState returns once the job is in view and in the state, and fails if it ends in
// another.
func (p *page) waitState(t *testing.T, id, state string) {
	t.Helper()
	chip := fmt.Sprintf(`document.querySelector('job-view[data-id="%s"] .job-head .chip')?.dataset.state`, id)
	p.wait(t, "a job "+state, fmt.Sprintf(`[%q, 'succeeded', 'failed', 'canceled'].includes(%s)`, state, chip))
	if got := eval[string](t, p, chip); got != state {
		t.Fatalf("job %s is %s, want %s; the page shows:\n%s", id, got, state, eval[string](t, p, `document.body.innerText`))
	}
}

// eval returns the value of a JavaScript expression.
func eval[T any](t *testing.T, p *page, expression string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("evaluating %s: %v", expression, err)
	}
	return value
}

// awaited returns what the promise of a JavaScript expression resolves to.
func awaited[T any](t *testing.T, p *page, expression string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("evaluating %s: %v", expression, err)
	}
	return value
}

// look emulates a size of the window and a preferred colour scheme.
func (p *page) look(t *testing.T, width, height int64, scheme string) {
	t.Helper()
	p.do(t, chromedp.EmulateViewport(width, height))
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shoot writes a picture of the page, if pictures are wanted.
func (p *page) shoot(t *testing.T, name string) {
	t.Helper()
	if p.shots == "" {
		return
	}
	picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.shots, name+".png"), picture, 0o644); err != nil {
		t.Fatal(err)
	}
}

package web_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestKey uses the studio of a server that wants keys: it asks for one, keeps it over a
// reload out of reach of scripts, and forgets it again.
func TestKey(t *testing.T) {
	t.Parallel()
	chromium := findChromium(t)
	srv := buildServer(t, "--auth", "required", "--workers", "none")
	srv.start(t)
	made, err := exec.CommandContext(t.Context(), srv.binary, "keys", "create", "--tenant", "acme", "--data", srv.data).Output()
	if err != nil {
		t.Fatal(err)
	}
	p := openBrowser(t, chromium)
	p.look(t, 1280, 800, "light")
	const asked, shown = `document.querySelector('.key-dialog[open]')`, `document.querySelector('.empty-state h2')?.textContent === 'No worker is running'`
	enter := func(key string) {
		t.Helper()
		p.wait(t, "the question for a key", asked)
		eval[string](t, p, `document.querySelector('#key').value = ''`)
		p.do(t, chromedp.SendKeys(chromedp.CSS("#key"), key+"\r"))
	}
	p.do(t, chromedp.Navigate("http://"+srv.addr+"/"))
	enter("hk_wrong")
	p.wait(t, "the fault of a wrong key", `document.querySelector('#key-fault').textContent.includes('not valid')`)
	p.shoot(t, "20-key")
	enter(strings.TrimSpace(string(made)))
	p.wait(t, "the studio", shown+` && !document.querySelector('.key-dialog')`)
	if cookies := eval[string](t, p, `document.cookie`); cookies != "" {
		t.Errorf("scripts can read the cookie %q", cookies)
	}
	p.do(t, chromedp.Reload())
	p.wait(t, "the studio after a reload", shown+` && !document.querySelector('.key-dialog')`)
	p.wait(t, "the way out", `document.querySelector('[aria-label="Sign out of acme"]:not([hidden])')`)
	eval[chromedp.Void](t, p, `document.querySelector('[aria-label="Sign out of acme"]').click()`)
	for end := time.Now().Add(patience); ; { // the page is loaded anew, which ends what is evaluated in it
		found, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool]("!!"+asked))
		if err == nil && found {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no question after signing out: %v", err)
		}
	}
}

package web_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"helicon/queue"
	"helicon/web"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"index.html", "icon.svg", "css/base.css", "js/main.js", "js/elements/studio-app.js"} {
		if _, err := fs.Stat(web.Files(), name); err != nil {
			t.Error(err)
		}
	}
	if _, err := fs.Stat(web.Files(), "package.json"); err == nil {
		t.Error("package.json is embedded, and is for development alone")
	}
}

// studio is a browser before a running server.
type studio struct {
	*page
	server *server
	line   *line
}

// TestStudio uses the studio as a person does: a real browser, the real server, a
// real model. The parts run one after the other on the same server.
func TestStudio(t *testing.T) {
	t.Parallel()
	chromium := findChromium(t)
	// One job at a time on one core without vector instructions: a text takes its time.
	srv := buildServer(t, "--threads", "1", "--cpu", "generic", "--slots", "1")
	srv.start(t)
	if !srv.serves(t, "text.complete") {
		unavailable(t, "the server has no model for text.complete")
	}
	s := &studio{page: openBrowser(t, chromium), server: srv, line: layLine(t, srv.addr)}
	s.look(t, 1280, 800, "light")
	for _, part := range []struct {
		name string
		run  func(*testing.T, *studio)
	}{
		{"writes", testWrites},
		{"points at faults", testFaults},
		{"comes back after a reload", testReload},
		{"cancels, tries again and deletes", testCancel},
		{"survives the loss of the connection", testConnection},
		{"survives the death of the server", testRestart},
		{"converses", testChat},
		{"speaks Chinese and fits a phone", testChinesePhone},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, s) }) {
			return // what follows stands on what went before
		}
	}
}

// open shows the page at the hash, loaded anew.
func (s *studio) open(t *testing.T, hash string) {
	t.Helper()
	s.do(t, chromedp.Navigate("about:blank"), chromedp.Navigate("http://"+s.line.addr+"/"+hash))
	s.wait(t, "the tasks", `document.querySelectorAll('.tasks a').length >= 2`)
}

// started submits a prompt for a long job, eight versions so wild that they seldom
// come to an end, and returns the job's id once its text is seen to grow.
func (s *studio) started(t *testing.T, prompt string) string {
	t.Helper()
	s.wait(t, "the parameters", `document.querySelector('#parameter-n')`)
	for parameter, text := range map[string]string{"n": "8", "max_tokens": "120", "temperature": "2", "top_k": "0", "top_p": "1"} {
		s.set(t, parameter, text)
	}
	eval[chromedp.Void](t, s.page, observe)
	id := s.submit(t, prompt)
	s.waitState(t, id, "running")
	s.wait(t, "the text to grow", `window.lengths.size >= 2 && `+shown+`.join('').length > 20`)
	return id
}

// submit submits a prompt and returns the id of its job, to which the page goes.
func (s *studio) submit(t *testing.T, prompt string) string {
	t.Helper()
	before := eval[string](t, s.page, `location.hash`)
	s.write(t, prompt)
	s.wait(t, "the page to go to the new job", fmt.Sprintf(`location.hash !== %q`, before))
	return s.current(t)
}

// shown is the texts of all versions in view, any of which may be short.
const shown = `[...document.querySelectorAll('.page stream-text .body')].map((e) => e.textContent)`

// literal writes a value as JavaScript does.
func literal(t *testing.T, value any) string {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// current is the id of the job that the address names.
func (s *studio) current(t *testing.T) string {
	t.Helper()
	hash := eval[string](t, s.page, `location.hash`)
	id, ok := strings.CutPrefix(hash, "#/jobs/")
	if !ok {
		t.Fatalf("the address is %q, want a job's", hash)
	}
	return id
}

// checkTexts compares the texts in view with the result that the server has stored.
func (s *studio) checkTexts(t *testing.T, id string) {
	t.Helper()
	job := s.server.job(t, id)
	if job.State != queue.Succeeded {
		t.Fatalf("job %s is %s, want succeeded: %+v", id, job.State, job.Problem)
	}
	var meta struct {
		Choices []struct {
			Index int
			Text  string
		}
	}
	if err := json.Unmarshal(job.Result.Meta, &meta); err != nil {
		t.Fatal(err)
	}
	want := []string{job.Result.Text}
	if len(meta.Choices) > 1 {
		want = make([]string, len(meta.Choices))
		for _, choice := range meta.Choices {
			want[choice.Index] = choice.Text
		}
	}
	got := eval[[]string](t, s.page, shown)
	if !slices.Equal(got, want) {
		t.Errorf("texts in view\n%q\nwant\n%q", got, want)
	}
}

// observe notes every length that the texts in view have had together.
const observe = `window.lengths = new Set();
new MutationObserver(() => { const n = ` + shown + `.join('').length; if (n > 0) window.lengths.add(n); })
	.observe(document.body, { subtree: true, childList: true, characterData: true });`

func testWrites(t *testing.T, s *studio) {
	s.open(t, "")
	s.wait(t, "three examples", `document.querySelectorAll('.examples button').length === 3`)
	s.shoot(t, "01-empty")
	id := s.submit(t, "Once upon a time, a little fox")
	s.waitState(t, id, "succeeded")
	s.shoot(t, "02-written")
	s.checkTexts(t, id)
	job := s.server.job(t, id)
	eval[chromedp.Void](t, s.page, `document.querySelector('.facts').open = true`)
	facts := eval[string](t, s.page, `document.querySelector('.facts').innerText`)
	for _, fact := range []string{fmt.Sprint(job.Seed), job.ID, "Temperature"} {
		if !strings.Contains(facts, fact) {
			t.Errorf("the details do not tell %q:\n%s", fact, facts)
		}
	}
	s.press(t, ".job-head", "Use these settings")
	if seed := eval[string](t, s.page, `document.querySelector('#parameter-seed').value`); seed != fmt.Sprint(job.Seed) {
		t.Errorf("the seed is %q after taking over the job's, want %d", seed, job.Seed)
	}
	s.press(t, ".composer", "Parameters")
	s.press(t, ".sheet", "Use the defaults")
	if seed := eval[string](t, s.page, `document.querySelector('#parameter-seed').value`); seed != "" {
		t.Errorf("the seed is %q after going back to the defaults, want a new one each time", seed)
	}
}

func testFaults(t *testing.T, s *studio) {
	s.open(t, "#/new/text.complete")
	s.press(t, ".composer", "Parameters")
	s.set(t, "temperature", "7")
	s.write(t, "The fox")
	s.wait(t, "the fault of the temperature", `document.querySelector('#parameter-temperature-fault').textContent === 'From 0 to 2.'`)
	s.shoot(t, "03-fault")
	s.set(t, "temperature", "")
	s.set(t, "stop", strings.Repeat("x\n", 17)) // which only the server knows to be too many
	s.press(t, ".composer", "Generate")
	s.wait(t, "the server's complaint at its field", `document.querySelector('#parameter-stop-fault').textContent !== ''`)
	s.press(t, ".sheet", "Use the defaults")
	s.press(t, ".composer", "Parameters")
}

func testReload(t *testing.T, s *studio) {
	s.open(t, "#/new/text.complete")
	id := s.started(t, "One day, a small dragon")
	s.shoot(t, "04-streaming")
	s.look(t, 1280, 800, "dark")
	s.shoot(t, "05-streaming-dark")
	s.look(t, 1280, 800, "light")
	before := eval[[]string](t, s.page, shown)
	if state := s.server.job(t, id).State; state != queue.Running {
		t.Fatalf("the job is %s before the reload, want running: make it longer", state)
	}
	s.do(t, chromedp.Reload())
	// Versions that had not begun are not among them, so that they have no numbers yet.
	s.wait(t, "what was written before", fmt.Sprintf(`(%s).every((text) => %s.some((grown) => grown.startsWith(text)))`, literal(t, before), shown))
	if got := s.current(t); got != id {
		t.Fatalf("the reload led to %s, want %s", got, id)
	}
	s.waitState(t, id, "succeeded")
	s.checkTexts(t, id)
	s.shoot(t, "06-versions")
}

func testCancel(t *testing.T, s *studio) {
	s.open(t, "#/new/text.complete")
	running := s.started(t, "Tom had a blue boat")
	waiting := s.submit(t, "Anna had a red boat")
	s.waitState(t, waiting, "queued")
	s.wait(t, "both in the list", `document.querySelector('.jobs .chip[data-state=running]') && document.querySelector('.jobs .chip[data-state=queued]')`)
	s.press(t, ".job-head", "Cancel")
	s.waitState(t, waiting, "canceled")
	s.click(t, fmt.Sprintf(`.job-link[href="#/jobs/%s"]`, running))
	s.waitState(t, running, "running")
	s.press(t, ".composer", "Stop")
	s.waitState(t, running, "canceled")
	s.wait(t, "what was written until then", shown+`.join('').length > 20`)

	s.click(t, `.filter[data-state=canceled]`)
	s.wait(t, "the canceled ones alone", `document.querySelectorAll('.job-link').length === 2 && document.querySelectorAll('.jobs .chip[data-state=canceled]').length === 2`)
	s.shoot(t, "07-canceled")
	s.click(t, `.filter[data-state=""]`)
	for _, id := range []string{running, waiting} {
		if state := s.server.job(t, id).State; state != queue.Canceled {
			t.Errorf("job %s is %s, want canceled", id, state)
		}
	}

	s.press(t, ".job-head", "Try again")
	s.wait(t, "another job", fmt.Sprintf(`!location.hash.endsWith(%q)`, running))
	again := s.current(t)
	s.press(t, ".composer", "Stop")
	s.waitState(t, again, "canceled")
	s.press(t, ".job-head", "Delete")
	s.press(t, ".job-head", "Delete for good?")
	s.wait(t, "the job to leave the list", fmt.Sprintf(`!document.querySelector('.job-link[href="#/jobs/%s"]')`, again))
	s.open(t, "#/jobs/"+again)
	s.wait(t, "that there is no such job", `document.body.innerText.includes('This job does not exist')`)
}

func testConnection(t *testing.T, s *studio) {
	s.open(t, "#/new/text.complete")
	id := s.started(t, "The moon looked down")
	s.line.cut()
	s.wait(t, "the loss to be told", `document.querySelector('connection-banner[data-state=lost]')`)
	s.shoot(t, "08-reconnecting")
	before := eval[[]string](t, s.page, shown)
	s.line.mend(t)
	s.wait(t, "the connection", `!document.querySelector('connection-banner[data-state=lost]')`)
	after := eval[[]string](t, s.page, shown)
	for _, text := range before { // versions that had not begun are not among them
		if !slices.ContainsFunc(after, func(grown string) bool { return strings.HasPrefix(grown, text) }) {
			t.Errorf("a version was %q before the loss; the page then shows %q", text, after)
		}
	}
	s.waitState(t, id, "succeeded")
	s.checkTexts(t, id)
}

func testRestart(t *testing.T, s *studio) {
	s.open(t, "#/new/text.complete")
	id := s.started(t, "Far away in the mountains")
	s.server.kill()
	s.wait(t, "the loss to be told", `document.querySelector('connection-banner[data-state=lost]')`)
	s.server.start(t)
	s.wait(t, "the connection", `!document.querySelector('connection-banner[data-state=lost]')`)
	s.waitState(t, id, "succeeded")
	s.checkTexts(t, id)
	if attempts := s.server.job(t, id).Attempts; attempts < 2 {
		t.Errorf("the job took %d attempt, want a second one", attempts)
	}
	s.wait(t, "the list to follow", fmt.Sprintf(`document.querySelector('.job-link[href="#/jobs/%s"] .chip[data-state=succeeded]')`, id))
}

func testChat(t *testing.T, s *studio) {
	s.open(t, "#/new/text.chat")
	s.write(t, "Write a story about a cat.")
	answered := func(n int) string {
		return fmt.Sprintf(`document.querySelectorAll('.turn[data-role=assistant] footer a').length === %d`, n)
	}
	s.wait(t, "the answer", answered(1))
	s.do(t, chromedp.Reload())
	s.wait(t, "the conversation after a reload", answered(1))
	s.write(t, "And then?")
	s.wait(t, "the second answer", answered(2))
	s.shoot(t, "09-chat")
	href := eval[string](t, s.page, `[...document.querySelectorAll('.turn footer a')].at(-1).getAttribute('href')`)
	job := s.server.job(t, strings.TrimPrefix(href, "#/jobs/"))
	var asked struct {
		Messages []struct{ Role, Content string }
	}
	if err := json.Unmarshal(job.Input, &asked); err != nil {
		t.Fatal(err)
	}
	if n := len(asked.Messages); n != 3 {
		t.Errorf("the second answer was given %d messages, want the whole history of 3", n)
	}
	s.press(t, ".stage", "New conversation")
	s.wait(t, "an empty conversation", `document.querySelectorAll('.examples button').length === 3`)
	s.open(t, "#/jobs/"+job.ID)
	s.press(t, ".job-head", "Continue this conversation")
	s.wait(t, "the conversation of the job", `document.querySelectorAll('chat-view .turn').length === 4`)
}

func testChinesePhone(t *testing.T, s *studio) {
	s.look(t, 390, 844, "dark")
	s.open(t, "#/new/text.complete")
	s.click(t, ".language")
	s.wait(t, "Chinese", `document.documentElement.lang === 'zh-Hans' && document.querySelector('.tasks').textContent.includes('写作')`)
	s.shoot(t, "10-phone-chinese-dark")
	if over := eval[bool](t, s.page, `document.documentElement.scrollWidth > innerWidth`); over {
		t.Error("the page is wider than the phone")
	}
	s.click(t, `[title="显示作品"]`)
	s.wait(t, "the drawer of jobs", `document.querySelector('#side:popover-open .job-link')`)
	s.shoot(t, "11-phone-jobs")
	s.click(t, `#side .job-link`)
	s.wait(t, "the drawer to close and the job to open", `!document.querySelector('#side:popover-open') && document.querySelector('job-view .job-head .chip')`)
	s.shoot(t, "12-phone-job")
	s.look(t, 1280, 800, "light")
}

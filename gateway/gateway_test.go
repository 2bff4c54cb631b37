package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

func TestMain(m *testing.M) {
	// nats.go 1.55.0 leaves it behind when an object is stored before it has begun to run.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// echo answers a job with its prompt, one delta a word.
func echo(ctx context.Context, l *queue.Lease) error {
	var in struct{ Prompt string }
	if err := json.Unmarshal(l.Job.Input, &in); err != nil {
		return err
	}
	offset := 0
	for i, word := range strings.SplitAfter(in.Prompt, " ") {
		e := queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: word, Offset: offset}, Progress: &queue.Progress{Step: i + 1, Total: 10}}
		if err := l.Emit(ctx, e); err != nil {
			return err
		}
		offset += len(word)
	}
	return l.Succeed(ctx, &queue.Result{Text: in.Prompt, Usage: &queue.Usage{InputTokens: 1, OutputTokens: 2}})
}

// block runs until the job is canceled.
func block(ctx context.Context, _ *queue.Lease) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

const hello = `{"task":"text.complete","input":{"prompt":"hello there world"}}`

func TestSubmitAndRead(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	var job queue.Job
	answer := h.Do(t, "POST", "/v1/jobs", hello)
	answer.JSON(t, http.StatusAccepted, &job)
	if answer.Header.Get("Location") != "/v1/jobs/"+job.ID || job.State != queue.Queued || job.Seed > queue.MaxSeed {
		t.Fatalf("location %q, job %+v", answer.Header.Get("Location"), job)
	}
	if _, err := h.Queue.Wait(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	h.Do(t, "GET", "/v1/jobs/"+job.ID, "").JSON(t, http.StatusOK, &job)
	if job.State != queue.Succeeded || job.Result.Text != "hello there world" || job.Worker != "w1" {
		t.Fatalf("job %+v", job)
	}
}

// problem is the shape of an error answer that clients rely on.
type problem struct {
	Type, Title, Detail, Code string
	Status                    int
	Errors                    []queue.FieldError
	Error                     *struct{ Message, Type, Code string }
}

func TestRefusedJobs(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	cases := []struct {
		name, body string
		status     int
		code       string
		pointer    string
		detail     string // part of the field's or the problem's detail
	}{
		{"empty", ``, 400, "invalid_request", "", "empty"},
		{"not JSON", `{"task":`, 400, "invalid_request", "", "ends within"},
		{"syntax", `{"task" 1}`, 400, "invalid_request", "", "not JSON"},
		{"array", `[]`, 400, "invalid_request", "", "want an object"},
		{"null", `null`, 400, "invalid_request", "", "want an object"},
		{"trailing", hello + `{}`, 400, "invalid_request", "", "behind"},
		{"UTF-8", "{\"task\":\"\xff\"}", 400, "invalid_request", "", "UTF-8"},
		{"twice", `{"task":"text.complete","task":"text.chat"}`, 400, "invalid_request", "/task", "twice"},
		{"deep", `{"input":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, 400, "invalid_request", "", "deeper"},
		{"unknown member", `{"task":"text.complete","webhok":"http://x"}`, 400, "invalid_request", "/webhok", "unknown member"},
		{"case", `{"Task":"text.complete"}`, 400, "invalid_request", "/Task", "unknown member"},
		{"mistyped", `{"task":7}`, 400, "invalid_request", "/task", "want a string"},
		{"seed fraction", `{"task":"text.complete","seed":1.5}`, 400, "invalid_request", "/seed", "want an integer"},
		{"seed large", `{"task":"text.complete","seed":9007199254740992}`, 400, "invalid_request", "/seed", "from 0 to"},
		{"priority", `{"task":"text.complete","priority":"urgent"}`, 400, "invalid_request", "/priority", "high, normal or low"},
		{"past deadline", `{"task":"text.complete","input":{"prompt":"a"},"deadline":"2001-01-01T00:00:00Z"}`, 400, "invalid_request", "/deadline", "passed"},
		{"bad deadline", `{"task":"text.complete","input":{"prompt":"a"},"deadline":"tomorrow"}`, 400, "invalid_request", "/deadline", "a time such as"},
		{"tags", `{"task":"text.complete","tags":[1]}`, 400, "invalid_request", "/tags", "an array of strings"},
		{"no task", `{}`, 400, "invalid_request", "/task", "<modality>.<verb>"},
		{"unknown task", `{"task":"text.sing"}`, 400, "unknown_task", "", "text.chat, text.complete"},
		{"no input", `{"task":"text.complete"}`, 400, "invalid_input", "/input/prompt", "missing"},
		{"input not an object", `{"task":"text.complete","input":"a"}`, 400, "invalid_input", "/input", "want an object, got a string"},
		{"unknown input", `{"task":"text.complete","input":{"prompt":"a","temprature":1}}`, 400, "invalid_input", "/input/temprature", "temperature"},
		{"far too hot", `{"task":"text.complete","input":{"prompt":"a","temperature":1000000}}`, 400, "invalid_input", "/input/temperature", "want at most 2, got 1000000"},
		{"too hot", `{"task":"text.complete","input":{"prompt":"a","temperature":9}}`, 400, "invalid_input", "/input/temperature", "want at most 2, got 9"},
		{"role", `{"task":"text.chat","input":{"messages":[{"role":"king","content":""}]}}`, 400, "invalid_input", "/input/messages/0/role", `"system", "user", "assistant"`},
		{"huge exponent", `{"task":"text.complete","input":{"prompt":"a","temperature":1e-999999}}`, 400, "invalid_request", "/input/temperature", "out of range"},
		{"unknown model", `{"task":"text.complete","model":"gpt-9","input":{"prompt":"a"}}`, 404, "model_not_found", "/model", harness.Model},
		{"missing need", `{"task":"text.complete","input":{"prompt":"a"},"needs":["01ARZ3NDEKTSV4RRFFQ69G5FAV"]}`, 400, "invalid_request", "/needs/0", "no job"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			answer := h.Do(t, "POST", "/v1/jobs", c.body)
			var p problem
			answer.JSON(t, c.status, &p)
			if answer.Header.Get("Content-Type") != "application/problem+json" || p.Status != c.status || p.Title == "" || !strings.HasSuffix(p.Type, "/"+c.code) {
				t.Errorf("%s %s", answer.Header.Get("Content-Type"), answer.Body)
			}
			if p.Code != c.code {
				t.Errorf("code %q, want %q", p.Code, c.code)
			}
			if c.pointer != "" && (len(p.Errors) == 0 || p.Errors[0].Pointer != c.pointer) {
				t.Errorf("errors %v, want the first at %s", p.Errors, c.pointer)
			}
			if told := p.Detail + fmt.Sprint(p.Errors); !strings.Contains(told, c.detail) {
				t.Errorf("told %q, want %q in it", told, c.detail)
			}
		})
	}
	if page, err := h.Queue.Jobs(t.Context(), queue.Filter{}); err != nil || len(page.Jobs) != 0 {
		t.Errorf("refused requests made jobs: %v, %v", page, err)
	}
}

func TestUnknownModelWaitsForWorker(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	if err := h.Queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	if a := h.Do(t, "POST", "/v1/jobs", `{"task":"text.complete","model":"other","input":{"prompt":"a"}}`); a.Status != http.StatusAccepted {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	var ready struct {
		Ready  bool
		Checks map[string]struct{ OK bool }
	}
	h.Do(t, "GET", "/readyz", "").JSON(t, http.StatusOK, &ready)
	if !ready.Ready || !ready.Checks["queue"].OK || ready.Checks["workers"].OK {
		t.Errorf("readiness %+v", ready)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			var job queue.Job
			answer := h.Do(t, "POST", "/v1/jobs", hello, "Idempotency-Key", "k")
			if err := json.Unmarshal(answer.Body, &job); err != nil {
				t.Error(err)
			}
			if replayed := answer.Header.Get("Idempotency-Replayed") == "true"; replayed != (answer.Status == http.StatusOK) {
				t.Errorf("status %d, replayed %v", answer.Status, replayed)
			}
			ids[i] = job.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("one key made several jobs: %v", ids)
		}
	}
	respelled := `{ "input": {"prompt":"hello there world"}, "task":"text.complete" }`
	if a := h.Do(t, "POST", "/v1/jobs", respelled, "Idempotency-Key", "k"); a.Status != http.StatusOK {
		t.Errorf("the same request with other spaces: %d %s", a.Status, a.Body)
	}
	var p problem
	h.Do(t, "POST", "/v1/jobs", `{"task":"text.complete","input":{"prompt":"b"}}`, "Idempotency-Key", "k").JSON(t, 422, &p)
	if p.Code != "idempotency_key_reused" {
		t.Errorf("code %q", p.Code)
	}
	h.Do(t, "POST", "/v1/jobs", hello, "Idempotency-Key", strings.Repeat("k", 256)).JSON(t, 400, &p)
}

func TestSDKRetry(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	if err := h.Queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	post := func(retry int) string {
		var job queue.Job
		answer := h.Do(t, "POST", "/v1/jobs", hello, "X-Stainless-Retry-Count", strconv.Itoa(retry))
		if err := json.Unmarshal(answer.Body, &job); err != nil {
			t.Fatal(err)
		}
		return job.ID
	}
	first, second := post(0), post(0)
	if first == second {
		t.Fatal("two first attempts made one job")
	}
	if again := post(1); again != second {
		t.Errorf("a retry got %s, want %s", again, second)
	}
	if again := post(2); again != second {
		t.Errorf("a second retry got %s, want %s", again, second)
	}
	if _, err := h.Queue.Cancel(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	third := post(1)
	if third == second || third == first {
		t.Error("a retry was given a canceled job")
	}
	if again := post(2); again != third {
		t.Errorf("a retry got %s, want %s", again, third)
	}
}

func TestPreferWait(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	stop := h.Worker(t, "w1", echo)
	var job queue.Job
	answer := h.Do(t, "POST", "/v1/jobs", hello, "Prefer", "respond-async, wait=20")
	answer.JSON(t, http.StatusOK, &job)
	if job.State != queue.Succeeded || answer.Header.Get("Preference-Applied") != "wait=20" {
		t.Errorf("state %s, applied %q", job.State, answer.Header.Get("Preference-Applied"))
	}
	stop()
	answer = h.Do(t, "POST", "/v1/jobs", hello, "Prefer", "wait=0")
	answer.JSON(t, http.StatusAccepted, &job)
	if job.State != queue.Queued {
		t.Errorf("state %s", job.State)
	}
	answer = h.Do(t, "POST", "/v1/jobs", hello, "Prefer", "wait=soon")
	if answer.Status != http.StatusAccepted || answer.Header.Get("Preference-Applied") != "" {
		t.Errorf("a preference that makes no sense: %d, applied %q", answer.Status, answer.Header.Get("Preference-Applied"))
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	if err := h.Queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	type page struct {
		Object  string
		Data    []queue.Job
		HasMore bool `json:"has_more"`
		Next    string
	}
	var empty page
	h.Do(t, "GET", "/v1/jobs", "").JSON(t, 200, &empty)
	if empty.Object != "list" || empty.Data == nil || empty.HasMore {
		t.Errorf("empty list %+v", empty)
	}
	var ids []string
	for i := range 5 {
		var job queue.Job
		h.Do(t, "POST", "/v1/jobs", fmt.Sprintf(`{"task":"text.complete","input":{"prompt":"a"},"tags":["t%d"]}`, i%2)).JSON(t, 202, &job)
		ids = append([]string{job.ID}, ids...)
	}
	var got []string
	for after := ""; ; {
		var p page
		h.Do(t, "GET", "/v1/jobs?limit=2&after="+after, "").JSON(t, 200, &p)
		for _, job := range p.Data {
			got = append(got, job.ID)
		}
		if p.HasMore != (p.Next != "") || len(p.Data) > 2 {
			t.Fatalf("page %+v", p)
		}
		if after = p.Next; after == "" {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(ids) {
		t.Errorf("pages %v, want %v", got, ids)
	}
	var tagged page
	h.Do(t, "GET", "/v1/jobs?tag=t1&state=queued&task=text.complete", "").JSON(t, 200, &tagged)
	if len(tagged.Data) != 2 {
		t.Errorf("%d jobs have the tag, want 2", len(tagged.Data))
	}
	for _, query := range []string{"state=lost", "limit=0", "limit=201", "limit=x", "after=1", "color=red", "tag=a&tag=b"} {
		if a := h.Do(t, "GET", "/v1/jobs?"+query, ""); a.Status != 400 {
			t.Errorf("?%s: %d %s", query, a.Status, a.Body)
		}
	}
}

func TestCancelRetryDelete(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", block)
	var job, again queue.Job
	h.Do(t, "POST", "/v1/jobs", hello).JSON(t, 202, &job)
	at := "/v1/jobs/" + job.ID
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"POST", at + "/retry", 409, "job_not_finished"},
		{"DELETE", at, 409, "job_not_finished"},
		{"POST", at + "/cancel", 200, ""},
		{"POST", at + "/cancel", 409, "job_finished"},
		{"POST", at + "/retry", 202, ""},
		{"DELETE", at, 204, ""},
		{"GET", at, 404, "not_found"},
		{"DELETE", at, 404, "not_found"},
		{"POST", at + "/cancel", 404, "not_found"},
		{"GET", at + "/events", 404, "not_found"},
		{"GET", "/v1/jobs/nonsense", 404, "not_found"},
		{"PUT", at, 405, "method_not_allowed"},
	} {
		answer := h.Do(t, c.method, c.path, "")
		if answer.Status != c.status || c.code != "" && !strings.Contains(string(answer.Body), `"code":"`+c.code+`"`) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, answer.Status, answer.Body, c.status, c.code)
		}
		if c.status == 202 {
			answer.JSON(t, 202, &again)
		}
	}
	if again.RetryOf != job.ID || again.Seed != job.Seed {
		t.Errorf("the new job %+v does not repeat %+v", again, job)
	}
}

// sse is one event as it came over the wire.
type sse struct {
	id   string
	name string
	data queue.Event
}

// read reads events until stop says so or the stream ends. It returns what was read
// and whether the server ended the stream.
func read(t *testing.T, h *harness.Harness, path, lastID string, stop func(sse) bool) (events []sse, ended bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", h.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	response, err := h.Client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s: %d %s", path, response.StatusCode, response.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(response.Body)
	var e sse
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				t.Fatal(err)
			}
		case "":
			if value == "ping" {
				e.name = "ping"
			}
			if e.name == "" {
				continue
			}
			events = append(events, e)
			if stop(e) {
				return events, false
			}
			e = sse{}
		}
	}
	return events, lines.Err() == nil
}

func never(sse) bool { return false }

func TestEventsResumeWithoutGap(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	var job queue.Job
	h.Do(t, "POST", "/v1/jobs", hello, "Prefer", "wait").JSON(t, 200, &job)
	path := "/v1/jobs/" + job.ID + "/events"
	all, ended := read(t, h, path, "", never)
	var names []string
	for _, e := range all {
		if e.name != string(e.data.Type) || e.data.JobID != job.ID {
			t.Errorf("event %+v", e)
		}
		names = append(names, e.name)
	}
	if got := strings.Join(names, " "); got != "queued started token token token succeeded" || !ended {
		t.Fatalf("events %s, ended %v", got, ended)
	}
	for i, e := range all[:len(all)-1] {
		rest, _ := read(t, h, path, e.id, never)
		if len(rest) != len(all)-i-1 || rest[0].id != all[i+1].id {
			t.Errorf("after %s: %v", e.name, rest)
		}
		rest, _ = read(t, h, path+"?after="+e.id, "", never)
		if len(rest) != len(all)-i-1 {
			t.Errorf("?after=%s: %d events", e.id, len(rest))
		}
	}
	last := all[len(all)-1]
	if last.data.Job == nil || last.data.Job.Result.Text != "hello there world" {
		t.Errorf("the last event %+v", last.data)
	}
	if a := h.Do(t, "GET", path, "", "Last-Event-ID", last.id); a.Status != 204 {
		t.Errorf("after the end: %d %s", a.Status, a.Body)
	}
	if a := h.Do(t, "GET", path, "", "Last-Event-ID", "x"); a.Status != 400 {
		t.Errorf("bad Last-Event-ID: %d", a.Status)
	}
}

func TestEventsOfAllJobs(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{Heartbeat: 20 * time.Millisecond})
	h.Worker(t, "w1", echo)
	submitted := false
	var firstID string
	events, _ := read(t, h, "/v1/events", "", func(e sse) bool {
		if !submitted { // the first ping says that the stream listens
			submitted = true
			h.Do(t, "POST", "/v1/jobs", hello)
			h.Do(t, "POST", "/v1/jobs", hello)
		}
		if firstID == "" {
			firstID = e.id
		}
		return e.name == "succeeded"
	})
	if len(events) < 6 {
		t.Errorf("events %v", events)
	}
	ended := 0
	read(t, h, "/v1/events", firstID, func(e sse) bool {
		if e.name == "succeeded" {
			ended++
		}
		return ended == 2
	})
}

func TestManyWatchersAndShutdown(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{MaxStreams: 50})
	h.Worker(t, "w1", block)
	var job queue.Job
	h.Do(t, "POST", "/v1/jobs", hello).JSON(t, 202, &job)
	path := "/v1/jobs/" + job.ID + "/events"
	var listening, done sync.WaitGroup
	for range 50 {
		listening.Add(1)
		done.Go(func() {
			once := sync.OnceFunc(listening.Done)
			defer once()
			if _, ended := read(t, h, path, "", func(e sse) bool { once(); return false }); !ended {
				t.Error("the stream was cut, not ended")
			}
		})
	}
	listening.Wait()
	if a := h.Do(t, "GET", path, ""); a.Status != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("one stream too many: %d %s", a.Status, a.Body)
	}
	start := time.Now()
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	done.Wait()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("shutdown took %v", took)
	}
}

func TestQueueAway(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)()
	h.Disconnect()
	if a := h.Do(t, "GET", "/v1/jobs", ""); a.Status != 200 { // the catalog has them
		t.Errorf("list: %d %s", a.Status, a.Body)
	}
	for _, path := range []string{"/v1/models", "/v1/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"} {
		var p problem
		answer := h.Do(t, "GET", path, "")
		answer.JSON(t, 503, &p)
		if p.Code != "unavailable" || answer.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %s", path, answer.Body)
		}
	}
	if a := h.Do(t, "GET", "/readyz", ""); a.Status != 503 {
		t.Errorf("readyz: %d %s", a.Status, a.Body)
	}
	if a := h.Do(t, "GET", "/healthz", ""); a.Status != 200 || string(a.Body) != "{\"status\":\"ok\"}\n" {
		t.Errorf("healthz: %d %s", a.Status, a.Body)
	}
}

func TestDirectoryRoutes(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	var none struct{ Data []any }
	h.Do(t, "GET", "/v1/models", "").JSON(t, 200, &none)
	if none.Data == nil || len(none.Data) != 0 {
		t.Errorf("models without workers: %v", none.Data)
	}
	h.Worker(t, "w1", echo)
	h.Worker(t, "w2", echo)
	// The listing is up to a second old; a job for the new task is known at once.
	if a := h.Do(t, "POST", "/v1/jobs", hello, "Prefer", "wait"); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	var models struct {
		Object string
		Data   []struct {
			ID, Object, Digest string
			Created            int64
			OwnedBy            string `json:"owned_by"`
			Tasks, Workers     []string
		}
	}
	h.Do(t, "GET", "/v1/models", "").JSON(t, 200, &models)
	if len(models.Data) != 1 {
		t.Fatalf("models %+v", models)
	}
	m := models.Data[0]
	if m.ID != harness.Model || m.Object != "model" || m.OwnedBy != "helicon" || m.Created == 0 || m.Digest != harness.Digest ||
		len(m.Tasks) != 3 || len(m.Workers) != 2 {
		t.Errorf("model %+v", m)
	}
	if a := h.Do(t, "GET", "/v1/models/"+harness.Model, ""); a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	for _, path := range []string{"/v1/jobs", "/v1/models", "/v1/models/" + harness.Model, "/v1/tasks", "/v1/workers", "/healthz", "/readyz"} {
		if a := h.Do(t, "HEAD", path, ""); a.Status != 200 || len(a.Body) != 0 {
			t.Errorf("HEAD %s: %d %s", path, a.Status, a.Body)
		}
	}
	var p problem
	h.Do(t, "GET", "/v1/models/org/none", "").JSON(t, 404, &p)
	if p.Code != "model_not_found" || p.Error == nil || p.Error.Code != "model_not_found" {
		t.Errorf("problem %+v", p)
	}
	var tasks struct{ Data []queue.Task }
	h.Do(t, "GET", "/v1/tasks", "").JSON(t, 200, &tasks)
	var workers struct{ Data []queue.Worker }
	h.Do(t, "GET", "/v1/workers", "").JSON(t, 200, &workers)
	if len(tasks.Data) != 3 || len(workers.Data) != 2 {
		t.Errorf("%d tasks, %d workers", len(tasks.Data), len(workers.Data))
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	if _, err := gateway.New(gateway.Config{}); err == nil {
		t.Error("no queue was accepted")
	}
	h := harness.Start(t, gateway.Config{})
	for _, c := range []gateway.Config{
		{Queue: h.Queue, MaxUpload: -1},
		{Queue: h.Queue, Origins: []string{"example.org"}},
	} {
		if _, err := gateway.New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func TestServeReportsItsListener(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	g, err := gateway.New(gateway.Config{Queue: h.Queue})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Serve(t.Context(), brokenListener{}); !errors.Is(err, errBroken) {
		t.Errorf("err %v, want %v", err, errBroken)
	}
}

// TestSlowClientIsLetGo opens a stream, reads nothing of it, and waits until its
// place is free again.
func TestSlowClientIsLetGo(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{MaxStreams: 1, Patience: 50 * time.Millisecond})
	big := strings.Repeat("a", 256<<10)
	started := make(chan struct{})
	h.Worker(t, "w1", func(ctx context.Context, l *queue.Lease) error {
		<-started
		for offset := 0; ; offset += len(big) {
			if err := l.Emit(ctx, queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: big, Offset: offset}}); err != nil {
				return err
			}
		}
	})
	var job queue.Job
	h.Do(t, "POST", "/v1/jobs", hello).JSON(t, 202, &job)
	var stored queue.Artifact // reading it takes a place as well
	h.Do(t, "POST", "/v1/uploads", "text", "Content-Type", "text/plain").JSON(t, 201, &stored)
	request, err := http.NewRequestWithContext(t.Context(), "GET", h.URL+"/v1/jobs/"+job.ID+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := h.Client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	close(started)
	for end := time.Now().Add(20 * time.Second); ; {
		other := h.Do(t, "GET", stored.URL, "")
		if other.Status == http.StatusOK {
			break
		}
		if other.Status != http.StatusTooManyRequests {
			t.Fatalf("%d %s", other.Status, other.Body)
		}
		if time.Now().After(end) {
			t.Fatal("the slow client still holds its place")
		}
	}
	if _, err := h.Queue.Cancel(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
}

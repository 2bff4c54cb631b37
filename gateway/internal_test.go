package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"helicon/gateway/strict"
	"helicon/queue"
)

// FuzzJobRequest feeds bodies to everything that stands between the network and the
// queue: none may panic it, and what it lets through the queue must not refuse.
func FuzzJobRequest(f *testing.F) {
	schema := json.RawMessage(`{"type":"object","additionalProperties":false,"required":["prompt"],"properties":{
		"prompt":{"type":"string","minLength":1},"n":{"type":"integer","minimum":1,"maximum":8},
		"stop":{"type":"array","maxItems":2,"items":{"type":"string"}},"mode":{"enum":["a",1]},"t":{"type":"number","exclusiveMinimum":0,"multipleOf":0.5}}}`)
	named := queue.Task{Name: "text.complete", Schema: schema}
	compiled, err := compile(named)
	if err != nil {
		f.Fatal(err)
	}
	t := &task{Task: named, schema: compiled}
	for _, seed := range []string{
		`{"task":"text.complete","input":{"prompt":"a","n":2,"stop":["x"],"mode":1,"t":0.5},"seed":1,"priority":"low","tags":["a"],"deadline":"2999-01-01T00:00:00Z"}`,
		`{"task":"text.complete","input":{"t":1e308,"n":1e2}}`, `{"input":null}`, `[[[[`, `{"a":{"b":[{"c":1e999}]}}`, `{"seed":-1}`, "\xff", `{"needs":["01ARZ3NDEKTSV4RRFFQ69G5FAV"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(test *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/v1/jobs", strings.NewReader(string(body)))
		var request jobRequest
		text, err := strict.Read(r, &request)
		job := request.job()
		if err == nil {
			_, err = fingerprint(r, text)
		}
		if err == nil {
			err = checkRequest(job, 1<<20)
		}
		if err == nil && job.Task == t.Name {
			err = t.validate(job.Input)
		}
		if err != nil {
			var problem *queue.Problem
			if !errors.As(err, &problem) || problem.Code == "" || problem.Detail == "" {
				test.Fatalf("refused without a problem: %v", err)
			}
			if status, _ := explain(err); status < 400 || status > 499 {
				test.Fatalf("status %d for %v", status, err)
			}
			return
		}
		job.Tenant = queue.DefaultTenant
		if job.Priority == "" {
			job.Priority = queue.Normal
		}
		if problem := job.Validate(); problem != nil {
			test.Fatalf("let through what the queue refuses: %v", problem)
		}
		if _, err := json.Marshal(job); err != nil {
			test.Fatalf("let through what cannot be stored: %v", err)
		}
	})
}

func FuzzCleanName(f *testing.F) {
	for _, seed := range []string{"a.png", `C:\x\y.txt`, "../../etc/passwd", "..", "\x00a\xff", strings.Repeat("é", 100) + ".jpeg", "a." + strings.Repeat("b", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		clean := cleanName(name)
		if len(clean) > maxName || !utf8.ValidString(clean) || strings.ContainsAny(clean, "/\\\x00\n") || strings.HasPrefix(clean, ".") {
			t.Errorf("%q became %q", name, clean)
		}
		if clean != "" && filepath.Base(clean) != clean {
			t.Errorf("%q became %q, which is no file name", name, clean)
		}
	})
}

func TestMediaType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, head, declared, want string }{
		{"seen", "\x89PNG\r\n\x1a\n", "image/jpeg", "image/png"},
		{"text as an image", "hello", "image/png", "text/plain"},
		{"Markdown", "# hello", "text/markdown", "text/markdown"},
		{"JSON", `{"a":1}`, "application/json", "application/json"},
		{"SVG", `<?xml version="1.0"?><svg/>`, "image/svg+xml", "image/svg+xml"},
		{"page as text", "<html><script>", "text/plain", "text/html"},
		{"binary as text", "\x00\x01\x02", "text/plain", "application/octet-stream"},
		{"binary as declared", "\x00\x01\x02", "audio/flac", "audio/flac"},
		{"sound in a container", "\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "audio/mp4", "audio/mp4"},
		{"nothing declared", "\x00\x01\x02", "", "application/octet-stream"},
	} {
		if got := mediaType([]byte(c.head), c.declared); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestPreferredWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header string
		wait   time.Duration
		given  bool
	}{
		{"", 0, false}, {"wait", maxWait, true}, {"wait=5", 5 * time.Second, true}, {"Wait = 5", 5 * time.Second, true},
		{`respond-async, wait="7"`, 7 * time.Second, true}, {"wait=0", 0, true}, {"wait=999999999999", maxWait, true},
		{"wait=-1", 0, false}, {"wait=x", 0, false}, {"waiting=5", 0, false},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Prefer", c.header)
		if wait, given := preferredWait(r); wait != c.wait || given != c.given {
			t.Errorf("%q: %v %v, want %v %v", c.header, wait, given, c.wait, c.given)
		}
	}
}

func TestSchemaThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]string{
		"not JSON": `{`, "not a schema": `{"type":7}`, "elsewhere": `{"$ref":"https://example.org/schema.json"}`, "a file": `{"$ref":"file:///etc/passwd"}`,
	} {
		if _, err := compile(queue.Task{Name: "text.x", Schema: json.RawMessage(schema)}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	t.Parallel()
	gin.SetMode(gin.ReleaseMode)
	g := &Gateway{log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	e := gin.New()
	e.Use(g.identify, g.account)
	e.GET("/v1/early", func(*gin.Context) { panic("boom") })
	e.GET("/v1/late", func(c *gin.Context) {
		c.Writer.Write([]byte("half an ans"))
		c.Writer.Flush()
		panic("boom")
	})
	server := httptest.NewServer(e)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	response, err := http.Get(server.URL + "/v1/early")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 500 || !strings.Contains(string(body), `"code":"internal"`) || strings.Contains(string(body), "boom") {
		t.Errorf("%d %s %v", response.StatusCode, body, err)
	}
	response, err = http.Get(server.URL + "/v1/late")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("half an answer looks whole: %q", body)
	}
}

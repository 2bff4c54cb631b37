package gateway_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

var errBroken = errors.New("the listener is broken")

// brokenListener is a listener whose socket has failed.
type brokenListener struct{}

func (brokenListener) Accept() (net.Conn, error) { return nil, errBroken }
func (brokenListener) Close() error              { return nil }
func (brokenListener) Addr() net.Addr            { return &net.TCPAddr{} }

var png = []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR and more")

func TestUploadAndArtifact(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	var stored queue.Artifact
	h.Do(t, "POST", "/v1/uploads", string(png), "Content-Type", "text/html", "Content-Disposition", `attachment; filename="../../a b.png"`).JSON(t, 201, &stored)
	sum := sha256.Sum256(png)
	if stored.SHA256 != hex.EncodeToString(sum[:]) || stored.MediaType != "image/png" || stored.Name != "a b.png" || stored.Size != int64(len(png)) {
		t.Fatalf("stored %+v", stored)
	}
	etag := `"` + stored.SHA256 + `"`
	answer := h.Do(t, "GET", stored.URL, "")
	if answer.Status != 200 || !bytes.Equal(answer.Body, png) {
		t.Fatalf("%d %q", answer.Status, answer.Body)
	}
	for name, want := range map[string]string{
		"Content-Type": "image/png", "Etag": etag, "X-Content-Type-Options": "nosniff", "Accept-Ranges": "bytes",
		"Content-Disposition": `inline; filename="a b.png"`, "Content-Length": fmt.Sprint(len(png)),
	} {
		if got := answer.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(answer.Header.Get("Content-Security-Policy"), "sandbox") || !strings.Contains(answer.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("headers %v", answer.Header)
	}
	part := h.Do(t, "GET", stored.URL, "", "Range", "bytes=1-3")
	if part.Status != 206 || string(part.Body) != "PNG" || part.Header.Get("Content-Range") != fmt.Sprintf("bytes 1-3/%d", len(png)) {
		t.Errorf("range: %d %q %s", part.Status, part.Body, part.Header.Get("Content-Range"))
	}
	if a := h.Do(t, "GET", stored.URL, "", "Range", "bytes=999-"); a.Status != 416 {
		t.Errorf("range behind the end: %d", a.Status)
	}
	if a := h.Do(t, "GET", stored.URL, "", "If-None-Match", etag); a.Status != 304 || len(a.Body) != 0 {
		t.Errorf("If-None-Match: %d", a.Status)
	}
	if a := h.Do(t, "HEAD", stored.URL, ""); a.Status != 200 || len(a.Body) != 0 || a.Header.Get("Content-Length") != fmt.Sprint(len(png)) {
		t.Errorf("HEAD: %d %v", a.Status, a.Header)
	}
	if a := h.Do(t, "GET", stored.URL+"?download=1", ""); !strings.HasPrefix(a.Header.Get("Content-Disposition"), "attachment") {
		t.Errorf("download: %q", a.Header.Get("Content-Disposition"))
	}
	for _, path := range []string{strings.Repeat("0", 64), "x"} {
		if a := h.Do(t, "GET", "/v1/artifacts/"+path, ""); a.Status != 404 || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
}

func TestUploadForm(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{MaxUpload: 1000})
	form := func(field, name, mediaType string, content []byte) (string, string) {
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		part, err := w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {fmt.Sprintf(`form-data; name=%q; filename=%q`, field, name)}, "Content-Type": {mediaType},
		})
		if err != nil {
			t.Fatal(err)
		}
		part.Write(content)
		w.Close()
		return body.String(), w.FormDataContentType()
	}
	body, contentType := form("file", "über.svg", "image/svg+xml", []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>`))
	var stored queue.Artifact
	h.Do(t, "POST", "/v1/uploads", body, "Content-Type", contentType).JSON(t, 201, &stored)
	if stored.MediaType != "image/svg+xml" || stored.Name != "über.svg" {
		t.Errorf("stored %+v", stored)
	}
	if a := h.Do(t, "GET", stored.URL, ""); !strings.Contains(a.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("an SVG may act: %v", a.Header)
	}
	truncated := body[:len(body)-30]
	wrongField, wrongType := form("picture", "a", "image/png", png)
	large, largeType := form("file", "a", "image/png", bytes.Repeat(png, 100))
	for _, c := range []struct {
		name, body, contentType string
		status                  int
	}{
		{"truncated", truncated, contentType, 400},
		{"wrong field", wrongField, wrongType, 400},
		{"no boundary", body, "multipart/form-data", 400},
		{"large", large, largeType, 413},
		{"large raw", strings.Repeat("a", 1001), "text/plain", 413},
		{"very large raw", strings.Repeat("a", 3<<20), "text/plain", 413},
		{"empty", "", "image/png", 400},
		{"no media type", "a", ";;", 415},
	} {
		if a := h.Do(t, "POST", "/v1/uploads", c.body, "Content-Type", c.contentType); a.Status != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, a.Status, a.Body, c.status)
		}
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{Hosts: []string{"studio.example"}, Origins: []string{"https://friend.example"}})
	if err := h.Queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		headers []string
		status  int
	}{
		{"plain", nil, 202},
		{"localhost", []string{"Host", "localhost:8080"}, 202},
		{"IPv6", []string{"Host", "[::1]:8080"}, 202},
		{"configured name", []string{"Host", "Studio.Example"}, 202},
		{"rebinding", []string{"Host", "evil.example:8080"}, 421},
		{"rebinding lookalike", []string{"Host", "localhost.evil.example"}, 421},
		{"same origin", []string{"Origin", h.URL}, 202},
		{"other origin", []string{"Origin", "https://evil.example"}, 403},
		{"other port", []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"no origin", []string{"Origin", "null"}, 403},
		{"cross site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"same site", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"friend", []string{"Origin", "https://friend.example", "Sec-Fetch-Site", "cross-site"}, 202},
		{"form", []string{"Content-Type", "text/plain"}, 415},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := h.Do(t, "POST", "/v1/jobs", hello, c.headers...)
			if answer.Status != c.status {
				t.Errorf("%d %s, want %d", answer.Status, answer.Body, c.status)
			}
			shared := answer.Header.Get("Access-Control-Allow-Origin")
			if want := c.name == "friend"; (shared != "") != want {
				t.Errorf("Access-Control-Allow-Origin %q", shared)
			}
		})
	}
	preflight := h.Do(t, "OPTIONS", "/v1/jobs", "", "Origin", "https://friend.example", "Access-Control-Request-Method", "POST")
	if preflight.Status != 204 || preflight.Header.Get("Access-Control-Allow-Methods") == "" {
		t.Errorf("preflight: %d %v", preflight.Status, preflight.Header)
	}
	if a := h.Do(t, "OPTIONS", "/v1/jobs", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight of a stranger: %d %v", a.Status, a.Header)
	}
}

func TestLimitsOfBodiesAndHeaders(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	if err := h.Queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", h.Queue.MaxInput())
	var p problem
	h.Do(t, "POST", "/v1/jobs", `{"task":"text.complete","input":{"prompt":"`+long+`"}}`).JSON(t, 413, &p)
	if p.Code != "too_large" {
		t.Errorf("problem %+v", p)
	}
	h.Do(t, "POST", "/v1/jobs", `{"task":"text.complete","input":{"prompt":"`+long+long[:100<<10]+`"}}`).JSON(t, 413, &p)
	if a := h.Do(t, "GET", "/healthz", "", "X-Long", strings.Repeat("a", 80<<10)); a.Status != 431 {
		t.Errorf("long header: %d", a.Status)
	}
}

// TestSlowBody begins requests and never finishes their bodies: the client must be
// told why it is given up.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	impatient := httptest.NewUnstartedServer(h.Gateway)
	impatient.Config.ReadHeaderTimeout = time.Minute // the header comes, however busy the machine is
	impatient.Config.ReadTimeout = 50 * time.Millisecond
	impatient.Start()
	defer impatient.Close()
	for _, path := range []string{"/v1/jobs", "/v1/chat/completions", "/v1/responses"} {
		conn, err := net.Dial("tcp", impatient.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", path)
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || !strings.Contains(string(answer), "request_timeout") {
			t.Errorf("%s: %q (%v)", path, answer, err)
		}
	}
}

func TestStudio(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{Studio: fstest.MapFS{
		"index.html": {Data: []byte("<!doctype html><title>Helicon</title>")},
		"js/main.js": {Data: []byte("export {}")},
	}})
	page := h.Do(t, "GET", "/", "")
	if page.Status != 200 || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") || !strings.Contains(page.Header.Get("Content-Security-Policy"), "default-src 'self'") {
		t.Errorf("%d %v", page.Status, page.Header)
	}
	script := h.Do(t, "GET", "/js/main.js", "")
	if script.Status != 200 || !strings.HasPrefix(script.Header.Get("Content-Type"), "text/javascript") {
		t.Errorf("%d %v", script.Status, script.Header)
	}
	if a := h.Do(t, "GET", "/js/main.js", "", "If-None-Match", script.Header.Get("Etag")); a.Status != 304 {
		t.Errorf("If-None-Match: %d", a.Status)
	}
	for _, path := range []string{"/none.js", "/v1/none", "/js/../../etc/passwd", "/js/"} {
		a := h.Do(t, "GET", path, "")
		if a.Status != 404 || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	if a := h.Do(t, "POST", "/", ""); a.Status != 404 {
		t.Errorf("POST /: %d", a.Status)
	}
}

// record is a log that can be read while it is written.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func TestRequestIDAndAccessLog(t *testing.T) {
	t.Parallel()
	var log record
	h := harness.Start(t, gateway.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err := h.Queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	a := h.Do(t, "POST", "/v1/jobs", hello, "X-Request-Id", "my-id.1", "Authorization", "Bearer secret-token")
	if got := a.Header.Get("X-Request-Id"); got != "my-id.1" {
		t.Errorf("X-Request-Id %q", got)
	}
	if got := h.Do(t, "GET", "/v1/jobs?tag=private", "", "X-Request-Id", "two words").Header.Get("X-Request-Id"); got == "" || got == "two words" {
		t.Errorf("X-Request-Id %q", got)
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	text := log.String()
	if !strings.Contains(text, "request=my-id.1 method=POST path=/v1/jobs status=202") {
		t.Errorf("log %s", text)
	}
	for _, secret := range []string{"hello", "secret-token", "private"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log tells %q: %s", secret, text)
		}
	}
}

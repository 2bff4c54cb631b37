package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/gateway/openai"
	"helicon/queue"
)

// evil are JSON values that most members of a request cannot take.
var evil = []string{
	`null`, `true`, `-1`, `0`, `1e308`, `9007199254740993`, `-9223372036854775809`, `1e-400000`, `""`, `"\u0000\ud800"`, `"` + strings.Repeat("x", 70_000) + `"`,
	`[]`, `[[[[]]]]`, `[null,1,"x",{}]`, `{}`, `{"":{"a":[null]}}`, strings.Repeat("[", 70) + strings.Repeat("]", 70),
}

// bodies are no JSON objects, or none that is a request.
var bodies = []string{
	"", " ", "{", "}", "null", "true", "[]", `"x"`, "1e999", "{\"a\":\xff}", "\xef\xbb\xbf{}", "\xff\xfe{\x00}\x00", `{"a":1}{"a":2}`, `{"a":1,"a":2}`, `{"":1}`, `{"\u0000":1}`, `{"a" 1}`, "{'a':1}", "{}//",
	strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 100_000), `{"` + strings.Repeat("a", 100_000) + `":1}`, `{"a":` + strings.Repeat("9", 100_000) + `}`,
}

// minimal are requests that are good, which a member at a time is spoilt in.
var minimal = map[string]string{
	"/v1/jobs":               `{"task":"text.complete","input":{"prompt":"a"}}`,
	"/v1/chat/completions":   `{"model":"test-model","messages":[{"role":"user","content":"a"}]}`,
	"/v1/completions":        `{"model":"test-model","prompt":"a"}`,
	"/v1/responses":          `{"model":"test-model","input":"a"}`,
	"/v1/embeddings":         `{"model":"test-model","input":"a"}`,
	"/v1/images/generations": `{"prompt":"a"}`,
	"/v1/webhooks":           `{"url":"https://example.com/"}`,
	"/v1/batches":            `{"input_file_id":"file-x","endpoint":"/v1/completions","completion_window":"24h"}`,
}

// target is a gateway that bad requests are sent to, in process.
type target struct {
	*harness.Harness
	contract *contract
}

func newTarget(t testing.TB) *target {
	t.Helper()
	h := harness.Start(t, gateway.Config{MaxUpload: 1 << 20})
	h.Worker(t, "w1", contractWork)
	h.ImageWorker(t, "w2", func(ctx context.Context, l *queue.Lease) error {
		return l.Fail(ctx, queue.Problemf("image_unreadable", "The picture is none."))
	})
	return &target{Harness: h, contract: &contract{document: describedBy(t, h)}}
}

func describedBy(t testing.TB, h *harness.Harness) map[string]any {
	t.Helper()
	var document map[string]any
	h.Do(t, "GET", "/openapi.json", "").JSON(t, http.StatusOK, &document)
	return document
}

// patience is how long an answer may take.
const patience = 20 * time.Second

// send sends a request and judges the answer.
func (g *target) send(t *testing.T, method, path, body string, headers ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request := httptest.NewRequestWithContext(ctx, method, "/", strings.NewReader(body))
	at, err := url.ParseRequestURI(path)
	if err != nil {
		return // net/http refuses such a request itself
	}
	request.URL, request.Host = at, "localhost"
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	answer := httptest.NewRecorder()
	g.Gateway.ServeHTTP(answer, request)
	if ctx.Err() != nil {
		t.Errorf("%s %.200s: no answer to %.200q", method, path, body)
		return
	}
	judge(t, method, at.Path, body, answer.Result())
}

// judge checks that an answer blames nobody but the client, in the shape of its route.
func judge(t *testing.T, method, path, body string, answer *http.Response) {
	t.Helper()
	defer answer.Body.Close()
	said := fmt.Sprintf("%s %.200s with %.200q: %d", method, path, body, answer.StatusCode)
	if answer.StatusCode < 400 {
		return
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	offered := answer.StatusCode == http.StatusNotImplemented // which is no fault of anybody
	if answer.StatusCode >= 500 && !offered {
		t.Errorf("%s: %.500s", said, text)
		return
	}
	if method == http.MethodHead {
		return
	}
	var shape struct {
		Type, Title, Detail, Code string
		Status                    int
		Error                     *struct{ Message, Type, Code string }
	}
	if err := json.Unmarshal(text, &shape); err != nil {
		t.Errorf("%s: %v: %.300s", said, err, text)
		return
	}
	if openai.Owns(path) {
		if shape.Error == nil || shape.Error.Message == "" || shape.Error.Type == "" || shape.Error.Code == "" {
			t.Errorf("%s is no error of OpenAI's: %.300s", said, text)
		}
	} else if shape.Type == "" || shape.Title == "" || shape.Detail == "" || shape.Code == "" || shape.Status != answer.StatusCode || answer.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s is no problem: %.300s", said, text)
	}
}

// properties are the members of an operation's JSON body; nil if it takes none.
func (c *contract) properties(method, path string) map[string]any {
	body := c.at("#/paths/" + pointer(path) + "/" + strings.ToLower(method) + "/requestBody/content/" + pointer("application/json") + "/schema")
	return c.members(body)
}

// members are the properties of a schema, wherever they are said.
func (c *contract) members(schema any) map[string]any {
	all := map[string]any{}
	o, _ := schema.(map[string]any)
	if name, ok := o["$ref"].(string); ok {
		maps.Copy(all, c.members(c.at(name)))
	}
	for _, list := range []string{"allOf", "anyOf", "oneOf"} {
		parts, _ := o[list].([]any)
		for _, part := range parts {
			maps.Copy(all, c.members(part))
		}
	}
	properties, _ := o["properties"].(map[string]any)
	maps.Copy(all, properties)
	return all
}

var names = strings.NewReplacer("{id}", "x", "{sha256}", "x", "{delivery}", "x")

// TestBadBodies spoils the bodies of all operations that take JSON, member by member.
func TestBadBodies(t *testing.T) {
	t.Parallel()
	g := newTarget(t)
	for _, o := range g.contract.operations() {
		method, path := o[0], o[1]
		members := g.contract.properties(method, path)
		if method == http.MethodGet || streams(path) {
			continue
		}
		t.Run(method+" "+path, func(t *testing.T) {
			t.Parallel()
			at := names.Replace(path)
			for _, body := range bodies {
				g.send(t, method, at, body)
			}
			for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x", "application/json; charset=\"", "\x00/\xff"} {
				g.send(t, method, at, `{"a":1}`, "Content-Type", kind)
			}
			good := map[string]json.RawMessage{}
			if text := minimal[path]; text != "" {
				if err := json.Unmarshal([]byte(text), &good); err != nil {
					t.Fatal(err)
				}
				g.send(t, method, at, text)
			}
			for name := range good {
				g.send(t, method, at, without(t, good, name))
			}
			for name := range members {
				for _, value := range evil {
					g.send(t, method, at, with(t, good, name, value))
					g.send(t, method, at, with(t, good, name, `[`+value+`]`))
					g.send(t, method, at, with(t, good, name, fmt.Sprintf(`{"type":%s}`, value)))
					g.send(t, method, at, with(t, good, name, fmt.Sprintf(`[{"role":"user","type":%s,"content":%[1]s}]`, value)))
				}
			}
		})
	}
}

// TestBadInputs spoils the inputs of all tasks in the same way.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	g := newTarget(t)
	for schema := range g.contract.at("#/components/schemas").(map[string]any) {
		task, ok := strings.CutPrefix(schema, "input.")
		if !ok {
			continue
		}
		t.Run(task, func(t *testing.T) {
			t.Parallel()
			for name := range g.contract.members(g.contract.at("#/components/schemas/" + schema)) {
				for _, value := range evil {
					good := map[string]json.RawMessage{"task": json.RawMessage(strconv.Quote(task))}
					g.send(t, "POST", "/v1/jobs", with(t, good, "input", with(t, nil, name, value)))
					good["model"] = json.RawMessage(`"none"`)
					g.send(t, "POST", "/v1/jobs", with(t, good, "input", fmt.Sprintf(`{"messages":[{"role":"user","content":"a"}],"prompt":"a",%q:%s}`, name, value)))
				}
			}
		})
	}
}

// with returns an object with a member set to a value, which need not be valid.
func with(t *testing.T, o map[string]json.RawMessage, name, value string) string {
	t.Helper()
	rest := strings.TrimSuffix(without(t, o, name), "}")
	if rest != "{" {
		rest += ","
	}
	return fmt.Sprintf("%s%q:%s}", rest, name, value)
}

// without returns an object that lacks a member.
func without(t *testing.T, o map[string]json.RawMessage, name string) string {
	t.Helper()
	rest := maps.Clone(o)
	delete(rest, name)
	text, err := json.Marshal(rest)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestBadPlaces sends paths, queries and headers that nobody means.
func TestBadPlaces(t *testing.T) {
	t.Parallel()
	g := newTarget(t)
	queries := []string{"limit=-1", "limit=99999999999999999999", "limit=1&limit=2", "after=%00", "after=%ff", "x=1", "%zz", "stream=maybe", "starting_after=-9", "order=up", "q=%22%27%28*", "after=" + strings.Repeat("x", 20_000)}
	ids := []string{"%00", "%ff%fe", "a%20b", "..", "%2e%2e%2fetc", strings.Repeat("x", 5_000), "🦊", "resp_", "file-", "batch_", "resp_01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01arz3ndektsv4rrffq69g5fav", "'%20OR%201=1--"}
	headers := [][2]string{
		{"Idempotency-Key", strings.Repeat("k", 10_000)}, {"X-Stainless-Retry-Count", "-1"}, {"X-Stainless-Retry-Count", "99999999999999999999"}, {"Prefer", "wait=-5, wait=x;;=,"},
		{"Last-Event-ID", "-1"}, {"Last-Event-ID", "18446744073709551616"}, {"Traceparent", "00-xyz"}, {"Traceparent", strings.Repeat("0", 9_000)}, {"Authorization", "Bearer \xff"}, {"Authorization", "Basic eA=="},
		{"Range", "bytes=9-1,x"}, {"If-None-Match", `"`}, {"X-Request-Id", "\x01"}, {"Content-Length", "5"},
	}
	for _, o := range g.contract.operations() {
		method, path := o[0], o[1]
		if streams(path) {
			continue
		}
		t.Run(method+" "+path, func(t *testing.T) {
			t.Parallel()
			body := minimal[path]
			for _, query := range queries {
				g.send(t, method, names.Replace(path)+"?"+query, body)
			}
			for _, header := range headers {
				g.send(t, method, names.Replace(path), body, header[0], header[1])
			}
			if strings.Contains(path, "{") {
				for _, id := range ids {
					g.send(t, method, strings.NewReplacer("{id}", id, "{sha256}", id, "{delivery}", id).Replace(path), body)
				}
			}
		})
	}
	for _, method := range []string{"PATCH", "PUT", "TRACE", "OPTIONS", "get", "DELETE", "HEAD"} {
		for _, path := range []string{"/v1/jobs", "/v1/responses", "/v1/nothing", "/v1/files", "/", "/v1//jobs", "/v1/jobs/"} {
			g.send(t, method, path, "")
		}
	}
}

// TestBadForms spoils uploads.
func TestBadForms(t *testing.T) {
	t.Parallel()
	g := newTarget(t)
	var whole bytes.Buffer
	form := multipart.NewWriter(&whole)
	for name, value := range map[string]string{"prompt": "a", "n": "1", "purpose": "batch"} {
		if err := form.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"image", "file"} {
		part, err := form.CreateFormFile(name, "a.png")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write([]byte("\x89PNG\r\n\x1a\nnot really")); err != nil {
			t.Fatal(err)
		}
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	field := func(disposition, value string) string {
		return "--x\r\nContent-Disposition: " + disposition + "\r\n\r\n" + value + "\r\n--x--\r\n"
	}
	forms := []string{
		"", "--x", "--x--", "--x\r\n\r\n", field(`form-data`, "a"), field(`form-data; name="prompt"`, strings.Repeat("a", 70_000)), field(`form-data; name="image"; filename="x"`, ""),
		field(`form-data; name="image"; filename="../../etc/passwd"`, "a"), field("form-data; name=\"im\x00age\"", "a"), field(`form-data; name="\xff"`, "\xff\xfe"), field(`attachment; filename="x"`, "a"),
		strings.Repeat("--x\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na\r\n", 3) + "--x--\r\n",
		strings.Repeat("--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\na\r\n", 3_000) + "--x--\r\n",
		field(`form-data; name="image"; filename="large"`, strings.Repeat("a", 1<<20+1)), "--x\r\n" + strings.Repeat("A: b\r\n", 20_000) + "\r\n",
	}
	for _, path := range []string{"/v1/images/edits", "/v1/images/variations", "/v1/uploads", "/v1/files", "/v1/batches"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			for _, body := range forms {
				g.send(t, "POST", path, body, "Content-Type", "multipart/form-data; boundary=x")
			}
			for cut := range 20 {
				g.send(t, "POST", path, whole.String()[:cut*whole.Len()/20], "Content-Type", form.FormDataContentType())
			}
			for _, kind := range []string{"multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + strings.Repeat("b", 300), "multipart/mixed; boundary=x", "multipart/form-data; boundary=\"\xff\""} {
				g.send(t, "POST", path, whole.String(), "Content-Type", kind)
			}
		})
	}
}

// TestBadConnections breaks off requests at every stage, over real connections.
func TestBadConnections(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	address := strings.TrimPrefix(h.URL, "http://")
	for _, path := range []string{"/v1/jobs", "/v1/chat/completions", "/v1/responses", "/v1/images/edits", "/v1/files", "/v1/uploads"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			head := "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
			for _, text := range []string{
				"POST " + path, head, head + "\r\n", head + "Content-Length: 100\r\n\r\n{", head + "Content-Length: -1\r\n\r\n{}", head + "Content-Length: 99999999999999999999\r\n\r\n",
				head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
				head + "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 500\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\nabc",
				head + "A: " + strings.Repeat("a", 100_000) + "\r\n\r\n", "\x16\x03\x01", "GET / HTTP/9.9\r\n\r\n",
			} {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
				// The server may close the connection before it has read everything.
				_, _ = io.WriteString(conn, text)
				if err := conn.(*net.TCPConn).CloseWrite(); err == nil {
					if answer, err := io.ReadAll(conn); err == nil && bytes.HasPrefix(answer, []byte("HTTP/1.1 5")) && !bytes.HasPrefix(answer, []byte("HTTP/1.1 505")) {
						t.Errorf("%.200q: %.300s", text, answer)
					}
				}
				conn.Close()
			}
		})
	}
}

// FuzzRoutes sends any bytes to any route.
func FuzzRoutes(f *testing.F) {
	g := newTarget(f)
	operations := slices.DeleteFunc(g.contract.operations(), func(o [2]string) bool { return streams(o[1]) })
	kinds := []string{"application/json", "multipart/form-data; boundary=x", "text/csv", ""}
	for i, o := range operations {
		f.Add(uint8(i), uint8(0), "limit=1", []byte(minimal[o[1]]))
		f.Add(uint8(i), uint8(1), "", []byte("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\na\r\n--x--\r\n"))
	}
	f.Fuzz(func(t *testing.T, operation, kind uint8, query string, body []byte) {
		o := operations[int(operation)%len(operations)]
		path := names.Replace(o[1]) + "?" + (&url.URL{RawQuery: query}).RawQuery
		g.send(t, o[0], path, string(body), "Content-Type", kinds[int(kind)%len(kinds)])
	})
}

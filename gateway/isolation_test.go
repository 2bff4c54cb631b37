package gateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/gateway/webhook"
	"helicon/queue"
)

// property is what one tenant has on a gateway: at least one thing of every kind that has
// an id, by what the paths of its routes begin with.
type property struct {
	ids   map[string][]string // the values of a path's parameters
	words []string            // texts that no other tenant may see
}

// endow gives the tenant of a key something of everything.
func (g *guarded) endow(t *testing.T, key string) property {
	t.Helper()
	made := func(answer harness.Answer, status int) (it struct {
		ID     string
		SHA256 string
	}) {
		t.Helper()
		answer.JSON(t, status, &it)
		return it
	}
	job := made(g.as(t, key, "POST", "/v1/jobs", `{"task":"text.complete","input":{"prompt":"only mine to read"},"tags":["mine"]}`), 202)
	if _, err := g.Queue.Wait(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	waiting := made(g.as(t, key, "POST", "/v1/jobs", `{"task":"image.generate","input":{"prompt":"nobody paints"}}`), 202)
	artifact := made(g.as(t, key, "POST", "/v1/uploads", "these are my bytes", "Content-Type", "text/plain"), 201)
	form, formType := batchForm(t, `{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"model":"test-model","prompt":"a"}}`)
	file := made(g.as(t, key, "POST", "/v1/files", form, "Content-Type", formType), 200)
	batch := made(g.as(t, key, "POST", "/v1/batches", fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"24h"}`, file.ID)), 200)
	hook := made(g.as(t, key, "POST", "/v1/webhooks", `{"url":"http://127.0.0.1:1/mine","description":"my endpoint"}`), 201)
	delivery := made(g.as(t, key, "POST", "/v1/webhooks/"+hook.ID+"/test", ""), 202)
	var signs struct{ Secret string }
	g.as(t, key, "GET", "/v1/webhooks/secret", "").JSON(t, 200, &signs)
	response := made(g.as(t, key, "POST", "/v1/responses", `{"model":"test-model","input":"my question"}`), 200)
	return property{
		ids: map[string][]string{
			"/v1/jobs": {job.ID}, "/v1/artifacts": {artifact.SHA256}, "/v1/files": {file.ID}, "/v1/batches": {batch.ID},
			"/v1/webhooks": {hook.ID, delivery.ID}, "/v1/responses": {response.ID},
		},
		words: []string{waiting.ID, "only mine", "my bytes", "rows.jsonl", "my endpoint", "my question", signs.Secret, "owner"},
	}
}

// batchForm is a body of POST /v1/files and its Content-Type.
func batchForm(t *testing.T, rows string) (body, contentType string) {
	t.Helper()
	var written bytes.Buffer
	form := multipart.NewWriter(&written)
	if err := form.WriteField("purpose", "batch"); err != nil {
		t.Fatal(err)
	}
	part, err := form.CreateFormFile("file", "rows.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(part, rows)
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	return written.String(), form.FormDataContentType()
}

// What the routes without an id in their path do for a tenant who owns nothing.
const (
	common   = "common"   // tells every tenant the same, and nothing of any
	own      = "own"      // lists or shows what the tenant has
	makes    = "makes"    // makes something; refuses to make it from what others have
	operator = "operator" // is for who runs the server
)

// routeKinds are the routes without an id in their path. The others are found by it.
var routeKinds = map[string]string{
	"/healthz": common, "/readyz": common, "/openapi.json": common, "/v1/session": common,
	"/v1/tasks": common, "/v1/models": common, "/v1/models/*id": common, "/v1/workers": common,
	"/v1/jobs": own, "/v1/events": own, "/v1/usage": own, "/v1/batches": own, "/v1/files": own, "/v1/webhooks": own, "/v1/webhooks/secret": own,
	"/v1/uploads": makes, "/v1/webhooks/secret/rotate": makes,
	"/v1/chat/completions": makes, "/v1/completions": makes, "/v1/embeddings": makes, "/v1/responses": makes, "/v1/moderations": makes,
	"/v1/images/generations": makes, "/v1/images/edits": makes, "/v1/images/variations": makes,
	"/metrics": operator, "/v1/backup": operator, "/v1/gc": operator,
}

// keyless are the routes that need no key.
var keyless = []string{"/healthz", "/readyz", "/openapi.json", "POST /v1/session", "DELETE /v1/session"}

// TestEveryRouteIsTheTenants walks every route there is: with another tenant's key it
// shows nothing and changes nothing of what a tenant has, and without a key it is closed.
// A new route fails the test until it is known here.
func TestEveryRouteIsTheTenants(t *testing.T) {
	t.Parallel()
	g := guard(t, gateway.Config{Webhooks: webhook.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}})
	g.Worker(t, "w1", echo)
	if err := g.Queue.Define(t.Context(), []queue.Task{{Name: "image.generate", Schema: []byte(`{"type":"object"}`)}}); err != nil {
		t.Fatal(err)
	}
	owner := g.key(t, "owner")
	has := g.endow(t, owner)
	// The stranger's key allows what tenants' keys do.
	stranger := g.key(t, "stranger", "jobs:read", "jobs:write", "webhooks")
	for _, route := range g.Gateway.Routes() {
		name := route.Method + " " + route.Path
		path := has.path(route.Path)
		if kind, ok := routeKinds[route.Path]; ok && path == "" {
			g.probe(t, kind, route.Method, route.Path, stranger, has)
		} else if path == "" {
			t.Errorf("%s is covered by no test: say in routeKinds what it is, or give the owner one in endow", name)
			continue
		} else if a := g.as(t, stranger, route.Method, path, bodyOf(route.Method, route.Path)); a.Status != http.StatusNotFound || mentions(a.Body, has.words) {
			t.Errorf("%s of another tenant: %d %s, want 404", name, a.Status, a.Body)
		}
		if slices.Contains(keyless, route.Path) || slices.Contains(keyless, name) {
			continue
		}
		if a := g.Do(t, route.Method, strings.ReplaceAll(max(path, route.Path), "*id", "x"), bodyOf(route.Method, route.Path)); a.Status != http.StatusUnauthorized {
			t.Errorf("%s without a key: %d %s, want 401", name, a.Status, a.Body)
		}
	}
	g.borrow(t, stranger, has)
	// All of it is still there: what the stranger was told of was not that there is nothing.
	for _, route := range g.Gateway.Routes() {
		if path := has.path(route.Path); path != "" && route.Method == "GET" && !strings.HasSuffix(path, "/events") {
			if a := g.as(t, owner, "GET", path, ""); a.Status != http.StatusOK && a.Status != http.StatusConflict {
				t.Errorf("%s by its owner: %d %s", route.Path, a.Status, a.Body)
			}
		}
	}
}

// path fills the parameters of a route with what the owner has; "" if there are none, or
// the owner has nothing of the kind.
func (p property) path(route string) string {
	for begin, ids := range p.ids {
		if !strings.HasPrefix(route, begin+"/:") {
			continue
		}
		path := ""
		for _, part := range strings.Split(route[1:], "/") {
			if strings.HasPrefix(part, ":") && len(ids) > 0 {
				part, ids = ids[0], ids[1:]
			}
			path += "/" + part
		}
		return path
	}
	return ""
}

// bodyOf is a body that a route would take.
func bodyOf(method, route string) string {
	switch {
	case method == http.MethodPatch:
		return `{"description":"changed"}`
	case method == http.MethodPost && !strings.Contains(route, ":"):
		return `{}`
	}
	return ""
}

func mentions(body []byte, texts []string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return bytes.Contains(body, []byte(text)) })
}

// probe calls a route without an id as a stranger.
func (g *guarded) probe(t *testing.T, kind, method, path, key string, has property) {
	t.Helper()
	path = strings.ReplaceAll(path, "*id", "test-model")
	if path == "/v1/events" {
		g.watch(t, key, has)
		return
	}
	query := map[string]string{"/v1/usage": "?by=task"}[path] // without it, there is one sum of nothing
	a := g.as(t, key, method, path+query, bodyOf(method, path))
	if mentions(a.Body, has.words) || mentions(a.Body, slices.Concat(slices.Collect(maps.Values(has.ids))...)) {
		t.Errorf("%s %s tells of another tenant's: %s", method, path, a.Body)
	}
	reads := method == http.MethodGet || method == http.MethodHead
	switch {
	case kind == operator && a.Status != http.StatusForbidden,
		kind != operator && reads && a.Status != http.StatusOK,
		a.Status >= 500 && a.Status != http.StatusNotImplemented:
		t.Errorf("%s %s (%s): %d %s", method, path, kind, a.Status, a.Body)
	}
	if kind == own && method == http.MethodGet {
		var listed struct{ Data []json.RawMessage }
		if err := json.Unmarshal(a.Body, &listed); err != nil || len(listed.Data) != 0 {
			t.Errorf("%s lists %s, want nothing", path, a.Body)
		}
	}
}

// watch reads the stranger's event stream over an event of each of the two.
func (g *guarded) watch(t *testing.T, key string, has property) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", g.URL+"/v1/events?after=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := g.Client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	g.as(t, g.key(t, "owner"), "POST", "/v1/jobs", hello)
	var job queue.Job
	g.as(t, key, "POST", "/v1/jobs", hello).JSON(t, 202, &job)
	var told bytes.Buffer
	watchdog := time.AfterFunc(20*time.Second, func() { response.Body.Close() })
	defer watchdog.Stop()
	for piece := make([]byte, 4096); !strings.Contains(told.String(), "event: succeeded"); {
		n, err := response.Body.Read(piece)
		told.Write(piece[:n])
		if err != nil {
			t.Fatalf("%v: %s", err, told.String())
		}
	}
	if mentions(told.Bytes(), has.words) || !strings.Contains(told.String(), job.ID) {
		t.Errorf("the stranger's events: %s", told.String())
	}
	if _, err := g.Queue.Job(t.Context(), job.ID); err != nil {
		t.Error(err)
	}
	if a := g.as(t, key, "DELETE", "/v1/jobs/"+job.ID, ""); a.Status != 204 { // the stranger has nothing again
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// borrow names what another tenant has in requests of one's own.
func (g *guarded) borrow(t *testing.T, key string, has property) {
	t.Helper()
	for _, c := range []struct{ name, path, body string }{
		{"needs", "/v1/jobs", fmt.Sprintf(`{"task":"text.complete","input":{"prompt":"a"},"needs":[%q]}`, has.ids["/v1/jobs"][0])},
		{"the file of a batch", "/v1/batches", fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"24h"}`, has.ids["/v1/files"][0])},
		{"the response before", "/v1/responses", fmt.Sprintf(`{"model":"test-model","input":"a","previous_response_id":%q}`, has.ids["/v1/responses"][0])},
	} {
		if a := g.as(t, key, "POST", c.path, c.body); a.Status != 400 && a.Status != 404 {
			t.Errorf("%s of another tenant: %d %s", c.name, a.Status, a.Body)
		}
	}
	// The same key for idempotency is another one for each tenant.
	var mine, others queue.Job
	g.as(t, g.key(t, "owner"), "POST", "/v1/jobs", hello, "Idempotency-Key", "k").JSON(t, 202, &mine)
	g.as(t, key, "POST", "/v1/jobs", hello, "Idempotency-Key", "k").JSON(t, 202, &others)
	if mine.ID == others.ID || others.Tenant != "stranger" {
		t.Errorf("one idempotency key of two tenants: %s and %+v", mine.ID, others)
	}
	// So is the retry that OpenAI's client marks.
	for i, k := range []string{g.key(t, "owner"), key} {
		a := g.as(t, k, "POST", "/v1/completions", `{"model":"test-model","prompt":"x"}`, "X-Stainless-Retry-Count", fmt.Sprint(i))
		if a.Status != 200 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
}

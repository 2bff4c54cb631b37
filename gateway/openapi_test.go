package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

// contract is the description of the API as a test holds answers against it: more strictly than
// clients may, since here an answer may have no member that is not described.
type contract struct {
	document map[string]any
	compiler *jsonschema.Compiler
	seen     map[string]map[bool]bool // by operation: whether a good and a bad answer were seen
}

const contractURL = "https://api.test/openapi.json"

func newContract(t *testing.T, h *harness.Harness) *contract {
	t.Helper()
	answer := h.Do(t, "GET", "/openapi.json", "")
	if answer.Status != http.StatusOK {
		t.Fatalf("%d %s", answer.Status, answer.Body)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer.Body))
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{document: value.(map[string]any), compiler: jsonschema.NewCompiler(), seen: map[string]map[bool]bool{}}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	closeSchemas(c.document)
	if err := c.compiler.AddResource(contractURL, c.document); err != nil {
		t.Fatal(err)
	}
	return c
}

// closeSchemas has the described objects refuse other members, as far as they are not parts
// of larger ones.
func closeSchemas(document map[string]any) {
	parts := map[string]bool{}
	var walk func(any)
	walk = func(value any) {
		switch v := value.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if all, ok := v["allOf"].([]any); ok {
				for _, part := range all {
					if name, ok := part.(map[string]any)["$ref"].(string); ok {
						parts[name] = true
					}
				}
				v["unevaluatedProperties"] = false
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(document)
	for name, schema := range document["components"].(map[string]any)["schemas"].(map[string]any) {
		s := schema.(map[string]any)
		if s["properties"] != nil && !parts["#/components/schemas/"+name] {
			s["unevaluatedProperties"] = false
		}
	}
}

// check holds an answer against what is said of the operation.
func (c *contract) check(t *testing.T, method, path string, answer harness.Answer) {
	t.Helper()
	operation := method + " " + path
	if c.seen[operation] == nil {
		c.seen[operation] = map[bool]bool{}
	}
	c.seen[operation][answer.Status < 400] = true
	at := "#/paths/" + pointer(path) + "/" + strings.ToLower(method) + "/responses/"
	responses, ok := c.at(at).(map[string]any)
	if !ok {
		t.Errorf("%s is not described", operation)
		return
	}
	status := fmt.Sprint(answer.Status)
	if responses[status] == nil {
		if answer.Status < 400 {
			t.Errorf("%s: %d is not described: %.300s", operation, answer.Status, answer.Body)
			return
		}
		status = "default"
	}
	at += status
	for response := responses[status].(map[string]any); response["$ref"] != nil; response = c.at(at).(map[string]any) {
		at = response["$ref"].(string)
	}
	content, described := c.at(at + "/content").(map[string]any)
	if !described {
		if len(answer.Body) > 0 {
			t.Errorf("%s: %d has a body that is not described: %.300s", operation, answer.Status, answer.Body)
		}
		return
	}
	mediaType, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || content[mediaType] == nil && content["*/*"] == nil {
		t.Errorf("%s: %d: the content type %q is not described", operation, answer.Status, answer.Header.Get("Content-Type"))
		return
	}
	if !strings.HasSuffix(mediaType, "json") {
		return
	}
	schema, err := c.compiler.Compile(contractURL + at + "/content/" + pointer(mediaType) + "/schema")
	if err != nil {
		t.Fatalf("%s: %v", operation, err)
	}
	body, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer.Body))
	if err == nil {
		err = schema.Validate(body)
	}
	if err != nil {
		t.Errorf("%s: %d: %v\n%.600s", operation, answer.Status, err, answer.Body)
	}
}

// at returns what a fragment of the document points to, or nil.
func (c *contract) at(fragment string) any {
	var value any = c.document
	for _, step := range strings.Split(strings.Trim(fragment, "#/"), "/") {
		o, _ := value.(map[string]any)
		value = o[strings.NewReplacer("~1", "/", "~0", "~").Replace(step)]
	}
	return value
}

func pointer(step string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(step) }

// operations lists what is described, HEAD excepted.
func (c *contract) operations() [][2]string {
	var all [][2]string
	for path, item := range c.document["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" && method != "head" {
				all = append(all, [2]string{strings.ToUpper(method), path})
			}
		}
	}
	slices.SortFunc(all, func(a, b [2]string) int { return strings.Compare(a[1]+a[0], b[1]+b[0]) })
	return all
}

var routeParameter = regexp.MustCompile(`[:*](\w+)`)

// TestDescriptionIsValid has an independent reader judge the document.
func TestDescriptionIsValid(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	document, err := openapi3.NewLoader().LoadFromData(h.Do(t, "GET", "/openapi.json", "").Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(t.Context(), openapi3.IsOpenAPI31OrLater()); err != nil {
		t.Fatal(err)
	}
	if document.Components.Schemas["input.text.chat"] == nil {
		t.Error("the input of the task text.chat is not described")
	}
}

// TestDescriptionHasEveryRoute compares the document with the router, both ways.
func TestDescriptionHasEveryRoute(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	c := newContract(t, h)
	routes := map[string]bool{}
	for _, r := range h.Gateway.Routes() {
		if r.Method != http.MethodHead {
			routes[r.Method+" "+routeParameter.ReplaceAllString(r.Path, "{$1}")] = true
		}
	}
	for _, o := range c.operations() {
		operation := o[0] + " " + o[1]
		if !routes[operation] {
			t.Errorf("%s is described in gateway/openapi.yaml, but not answered", operation)
		}
		delete(routes, operation)
	}
	for operation := range routes {
		t.Errorf("%s is answered, but not described: add it to gateway/openapi.yaml", operation)
	}
}

// unfailing are operations that have no way to fail.
var unfailing = []string{"GET /healthz", "GET /metrics", "GET /openapi.json", "DELETE /v1/session"}

// TestAnswersAreAsDescribed sends every operation something good and something bad, and holds
// what comes back against the document.
func TestAnswersAreAsDescribed(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{
		Backup:        func(_ context.Context, to io.Writer) error { _, err := io.WriteString(to, "all"); return err },
		KeepArtifacts: queue.LeastAge,
	})
	h.Worker(t, "w1", contractWork)
	h.ImageWorker(t, "w2", func(ctx context.Context, l *queue.Lease) error {
		a, err := h.Queue.PutArtifact(ctx, l.Job.Tenant, strings.NewReader("picture "+l.Job.ID), 1000, queue.Artifact{MediaType: "image/png", Width: 16, Height: 24})
		if err != nil {
			return err
		}
		return l.Succeed(ctx, &queue.Result{Artifacts: []queue.Artifact{a}})
	})
	c := newContract(t, h)
	askGood(t, h, c)

	unknown := strings.NewReplacer("{id}", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "{sha256}", strings.Repeat("0", 64), "{delivery}", "none")
	for _, o := range c.operations() {
		if streams(o[1]) {
			continue
		}
		c.check(t, o[0], o[1], h.Do(t, o[0], unknown.Replace(o[1]), map[bool]string{true: "{"}[o[0] != "GET"]))
	}
	c.check(t, "GET", "/v1/events", h.Do(t, "GET", "/v1/events?after=x", ""))
	h.Disconnect()
	for _, o := range c.operations() {
		if streams(o[1]) {
			continue
		}
		c.check(t, o[0], o[1], h.Do(t, o[0], unknown.Replace(o[1])+"?unheard=of", map[bool]string{true: "{}"}[o[0] != "GET"]))
	}
	for _, o := range c.operations() {
		operation := o[0] + " " + o[1]
		if !c.seen[operation][true] && !slices.Contains(unsucceeding, operation) {
			t.Errorf("%s: no good answer was looked at", operation)
		}
		if !c.seen[operation][false] && !slices.Contains(unfailing, operation) {
			t.Errorf("%s: no bad answer was looked at", operation)
		}
	}
}

func streams(path string) bool { return path == "/v1/events" }

// unsucceeding are operations that never succeed here.
var unsucceeding = []string{"POST /v1/moderations"}

// asker sends what an operation wants and checks the answer.
type asker func(method, template, path, body string, headers ...string) harness.Answer

// askGood sends what each operation wants.
func askGood(t *testing.T, h *harness.Harness, c *contract) {
	t.Helper()
	ask := func(method, template, path, body string, headers ...string) harness.Answer {
		t.Helper()
		answer := h.Do(t, method, path, body, headers...)
		if answer.Status >= 400 {
			t.Errorf("%s %s: %d %.300s", method, path, answer.Status, answer.Body)
		}
		c.check(t, method, template, answer)
		return answer
	}
	askDirectory(ask)
	askJobs(t, ask)
	c.check(t, "GET", "/v1/events", firstEvents(t, h))
	askFiles(t, ask)
	askModels(t, ask)
	askBatches(t, ask)
	askWebhooks(t, ask)
}

func askDirectory(ask asker) {
	for _, path := range []string{"/v1/jobs", "/v1/tasks", "/v1/models", "/v1/workers", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/backup", "/v1/usage", "/v1/session"} {
		ask("GET", path, path, "")
	}
	ask("POST", "/v1/session", "/v1/session", `{"key":"none is required"}`)
	ask("DELETE", "/v1/session", "/v1/session", "")
	ask("GET", "/v1/models/{id}", "/v1/models/"+harness.Model, "")
	ask("POST", "/v1/gc", "/v1/gc", `{"dry_run":true}`)
}

func askJobs(t *testing.T, ask asker) {
	t.Helper()
	var job queue.Job
	ask("POST", "/v1/jobs", "/v1/jobs", `{"task":"text.complete","input":{"prompt":"a"},"tags":["x"],"needs":[]}`).JSON(t, http.StatusAccepted, &job)
	ask("POST", "/v1/jobs", "/v1/jobs", `{"task":"text.complete","input":{"prompt":"a"}}`, "Prefer", "wait=20")
	one := "/v1/jobs/" + job.ID
	ask("GET", "/v1/jobs/{id}/events", one+"/events", "")
	ask("GET", "/v1/jobs/{id}", one, "")
	ask("DELETE", "/v1/jobs/{id}", one, "")
	ask("POST", "/v1/jobs", "/v1/jobs", `{"task":"text.complete","input":{"prompt":"slow"}}`).JSON(t, http.StatusAccepted, &job)
	ask("POST", "/v1/jobs/{id}/cancel", "/v1/jobs/"+job.ID+"/cancel", "")
	ask("POST", "/v1/jobs/{id}/retry", "/v1/jobs/"+job.ID+"/retry", "").JSON(t, http.StatusAccepted, &job)
	ask("POST", "/v1/jobs/{id}/cancel", "/v1/jobs/"+job.ID+"/cancel", "")
}

func askFiles(t *testing.T, ask asker) {
	t.Helper()
	var file queue.Artifact
	ask("POST", "/v1/uploads", "/v1/uploads", "some text", "Content-Type", "text/plain").JSON(t, http.StatusCreated, &file)
	ask("GET", "/v1/artifacts/{sha256}", file.URL, "")
	ask("GET", "/v1/artifacts/{sha256}/info", file.URL+"/info", "")

	named := storeFile(t, ask, "some text")
	ask("GET", "/v1/files", "/v1/files", "")
	ask("GET", "/v1/files/{id}", "/v1/files/"+named, "")
	ask("GET", "/v1/files/{id}/content", "/v1/files/"+named+"/content", "")
	ask("DELETE", "/v1/files/{id}", "/v1/files/"+named, "")
}

// storeFile stores a file under a name and returns its id.
func storeFile(t *testing.T, ask asker, content string) string {
	t.Helper()
	var named struct{ ID string }
	body, kind := form(t, map[string]string{"purpose": "batch"}, "file", content)
	ask("POST", "/v1/files", "/v1/files", body, "Content-Type", kind).JSON(t, http.StatusOK, &named)
	return named.ID
}

// askModels asks the routes of OpenAI's clients that run models.
func askModels(t *testing.T, ask asker) {
	t.Helper()
	for path, body := range map[string]string{
		"/v1/chat/completions":   `{"model":"test-model","messages":[{"role":"user","content":"hi"}],"logprobs":true,"top_logprobs":1}`,
		"/v1/completions":        `{"model":"test-model","prompt":"hi","logprobs":1}`,
		"/v1/embeddings":         `{"model":"test-model","input":"hi"}`,
		"/v1/images/generations": `{"model":"test-model","prompt":"a cat"}`,
	} {
		ask("POST", path, path, body)
	}
	for _, path := range []string{"/v1/images/edits", "/v1/images/variations"} {
		body, kind := form(t, map[string]string{"prompt": "a dog"}, "image", "\x89PNG\r\n\x1a\n")
		if path == "/v1/images/variations" {
			body, kind = form(t, nil, "image", "\x89PNG\r\n\x1a\n")
		}
		ask("POST", path, path, body, "Content-Type", kind)
	}
	var response struct{ ID string }
	ask("POST", "/v1/responses", "/v1/responses", `{"model":"test-model","input":"hi"}`).JSON(t, http.StatusOK, &response)
	one := "/v1/responses/" + response.ID
	ask("GET", "/v1/responses/{id}", one, "")
	ask("DELETE", "/v1/responses/{id}", one, "")
	ask("POST", "/v1/responses", "/v1/responses", `{"model":"test-model","input":"slow","background":true}`).JSON(t, http.StatusOK, &response)
	ask("POST", "/v1/responses/{id}/cancel", "/v1/responses/"+response.ID+"/cancel", "")
}

func askBatches(t *testing.T, ask asker) {
	t.Helper()
	var b struct{ ID, Job string }
	create := func(prompt string) string {
		body := fmt.Sprintf(`{"input_file_id":%q,"task":"text.complete"}`, storeFile(t, ask, "prompt\n"+prompt+"\n"))
		ask("POST", "/v1/batches", "/v1/batches", body).JSON(t, http.StatusOK, &b)
		return "/v1/batches/" + b.ID
	}
	ask("POST", "/v1/batches", "/v1/batches", fmt.Sprintf(`{"input_file_id":%q,"task":"text.complete","dry_run":1}`, storeFile(t, ask, "prompt\na\n")))
	one := create("a")
	ask("GET", "/v1/jobs/{id}/events", "/v1/jobs/"+b.Job+"/events", "") // until its end
	ask("GET", "/v1/batches/{id}", one, "")
	ask("GET", "/v1/batches", "/v1/batches", "")
	for _, format := range []string{"jsonl", "csv", "zip"} {
		ask("GET", "/v1/batches/{id}/results", one+"/results?format="+format, "")
	}
	ask("DELETE", "/v1/batches/{id}", one, "")
	one = create("slow")
	ask("POST", "/v1/batches/{id}/cancel", one+"/cancel", "")
	ask("GET", "/v1/jobs/{id}/events", "/v1/jobs/"+b.Job+"/events", "")
	ask("POST", "/v1/batches/{id}/retry", one+"/retry", "")
}

func askWebhooks(t *testing.T, ask asker) {
	t.Helper()
	var made struct{ ID string }
	ask("POST", "/v1/webhooks", "/v1/webhooks", `{"url":"https://hooks.example.org/"}`).JSON(t, http.StatusCreated, &made)
	one := "/v1/webhooks/" + made.ID
	ask("GET", "/v1/webhooks", "/v1/webhooks", "")
	ask("GET", "/v1/webhooks/secret", "/v1/webhooks/secret", "")
	ask("POST", "/v1/webhooks/secret/rotate", "/v1/webhooks/secret/rotate", "")
	ask("GET", "/v1/webhooks/{id}", one, "")
	ask("PATCH", "/v1/webhooks/{id}", one, `{"description":"mine"}`)
	ask("POST", "/v1/webhooks/{id}/rotate", one+"/rotate", "")
	ask("POST", "/v1/webhooks/{id}/test", one+"/test", "").JSON(t, http.StatusAccepted, &made)
	ask("GET", "/v1/webhooks/{id}/deliveries", one+"/deliveries", "")
	ask("GET", "/v1/webhooks/{id}/deliveries/{delivery}", one+"/deliveries/"+made.ID, "")
	ask("POST", "/v1/webhooks/{id}/deliveries/{delivery}/redeliver", one+"/deliveries/"+made.ID+"/redeliver", "")
	ask("DELETE", "/v1/webhooks/{id}", one, "")
}

// form is a multipart form with a file in it.
func form(t *testing.T, fields map[string]string, name, file string) (body, contentType string) {
	t.Helper()
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	for field, value := range fields {
		if err := w.WriteField(field, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile(name, "file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(part, file); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String(), w.FormDataContentType()
}

// firstEvents opens the stream of all events and closes it.
func firstEvents(t *testing.T, h *harness.Harness) harness.Answer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", h.URL+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := h.Client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return harness.Answer{Status: response.StatusCode, Header: response.Header}
}

// contractWork answers every text task with a result that has all that one can have.
func contractWork(ctx context.Context, l *queue.Lease) error {
	if strings.Contains(string(l.Job.Input), "slow") {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	token := queue.TokenLogprob{Token: "hi", Bytes: []int{104, 105}, Logprob: -0.5, Top: []queue.TokenLogprob{{Token: "hi", Bytes: []int{104, 105}, Logprob: -0.5}}}
	choice := map[string]any{"index": 0, "text": "hi", "finish_reason": "stop", "logprobs": []queue.TokenLogprob{token}}
	meta := map[string]any{"finish_reason": "stop", "choices": []any{choice}}
	if l.Job.Task == "text.embed" {
		return l.Succeed(ctx, &queue.Result{Usage: &queue.Usage{InputTokens: 1}, Meta: json.RawMessage(`{"embeddings":["AACAPwAAAAA="]}`)})
	}
	text, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	if err := l.Emit(ctx, queue.Event{Type: queue.EventToken, Delta: &queue.Delta{Text: "hi", Logprobs: []queue.TokenLogprob{token}}}); err != nil {
		return err
	}
	return l.Succeed(ctx, &queue.Result{Text: "hi", Usage: &queue.Usage{InputTokens: 1, OutputTokens: 1}, Meta: text})
}

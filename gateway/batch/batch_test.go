package batch_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"helicon/gateway"
	"helicon/gateway/batch"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

func TestMain(m *testing.M) {
	// nats.go 1.55.0 leaves it behind when an object is stored before it has begun to run.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// platform is a message server with workers, and gateways that come and go.
type platform struct {
	t      testing.TB
	server *queue.Server
	queue  *queue.Queue
	runs   atomic.Int64 // jobs that workers have begun
	lost   atomic.Int64 // leases that workers were too slow to keep
	begun  chan string  // prompts that contain "hold" as they are begun, which run until they are canceled
}

func start(t testing.TB, workers int) *platform {
	t.Helper()
	server, err := queue.StartServer(queue.ServerConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	p := &platform{t: t, server: server, begun: make(chan string, 1000)}
	p.queue, _ = p.connect()
	if err := p.queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, workers)
	for i := range workers {
		source, err := p.queue.NewSource(ctx, fmt.Sprintf("w%d", i), "text")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer func() { done <- struct{}{} }()
			defer source.Close()
			for {
				lease, err := source.Next(ctx)
				if lease == nil || err != nil {
					return
				}
				p.work(ctx, lease)
			}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range workers {
			<-done
		}
	})
	return p
}

func (p *platform) connect() (*queue.Queue, *nats.Conn) {
	p.t.Helper()
	conn, err := p.server.Connect()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(conn.Close)
	q, err := queue.Open(p.t.Context(), conn, queue.Options{AckWait: time.Second, MaxAttempts: 2})
	if err != nil {
		p.t.Fatal(err)
	}
	return q, conn
}

// work answers with the prompt in capitals, fails where the prompt says "fail" and waits
// where it says "hold".
func (p *platform) work(ctx context.Context, l *queue.Lease) {
	held, release, err := l.Hold(ctx)
	if err != nil {
		return
	}
	defer release()
	var in struct{ Prompt string }
	if l.Start(held) != nil || json.Unmarshal(l.Job.Input, &in) != nil {
		return
	}
	p.runs.Add(1)
	switch {
	case strings.Contains(in.Prompt, "fail"):
		err = l.Fail(held, queue.Problemf("prompt_too_long", "The prompt is too long."))
	case strings.Contains(in.Prompt, "hold"):
		p.begun <- in.Prompt
		<-held.Done()
		return
	default:
		err = l.Succeed(held, &queue.Result{Text: strings.ToUpper(in.Prompt), Usage: &queue.Usage{InputTokens: 1, OutputTokens: 2}})
	}
	switch {
	case errors.Is(err, queue.ErrLeaseLost), errors.Is(context.Cause(held), queue.ErrLeaseLost):
		p.lost.Add(1)
	case err != nil && held.Err() == nil:
		p.t.Errorf("job %s: %v", l.Job.ID, err)
	}
}

// front is one gateway.
type front struct {
	p    *platform
	url  string
	kill func() // cuts it off at once: nothing that it does from then on is seen
}

// gateway starts a gateway on a connection of its own.
func (p *platform) gateway() *front {
	p.t.Helper()
	q, conn := p.connect()
	g, err := gateway.New(gateway.Config{Queue: q, Log: slog.New(slog.NewTextHandler(p.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		p.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, listener) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			p.t.Errorf("serve: %v", err)
		}
	})
	kill := func() {
		conn.Close()
		cancel()
	}
	return &front{p: p, url: "http://" + listener.Addr().String(), kill: kill}
}

// do sends a request and reads the answer.
func (f *front) do(method, path, contentType string, body []byte) (int, []byte) {
	f.p.t.Helper()
	request, err := http.NewRequestWithContext(f.p.t.Context(), method, f.url+path, bytes.NewReader(body))
	if err != nil {
		f.p.t.Fatal(err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		f.p.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		f.p.t.Fatal(err)
	}
	return response.StatusCode, text
}

// ok sends JSON and decodes the answer, which must have the status.
func (f *front) ok(status int, method, path, body string, into any) {
	f.p.t.Helper()
	got, text := f.do(method, path, map[bool]string{true: "application/json"}[body != ""], []byte(body))
	if got != status {
		f.p.t.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, text)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			f.p.t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
}

// upload stores a file and returns its id.
func (f *front) upload(name, content string) string {
	f.p.t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", name)
	if err != nil {
		f.p.t.Fatal(err)
	}
	_, _ = part.Write([]byte(content)) // to memory
	_ = w.WriteField("purpose", "batch")
	_ = w.Close()
	status, text := f.do("POST", "/v1/files", w.FormDataContentType(), form.Bytes())
	var file struct{ ID string }
	if err := json.Unmarshal(text, &file); err != nil || status != http.StatusOK {
		f.p.t.Fatalf("upload: %d: %s", status, text)
	}
	return file.ID
}

// create makes a batch of a request body whose %s is the file.
func (f *front) create(content, body string) *batch.Batch {
	f.p.t.Helper()
	b := new(batch.Batch)
	f.ok(http.StatusOK, "POST", "/v1/batches", fmt.Sprintf(body, f.upload("rows", content)), b)
	return b
}

// patience is how long a batch may take on a busy machine.
const patience = 3 * time.Minute

// ended waits for the end of a batch by its job's events.
func (f *front) ended(b *batch.Batch) *batch.Batch {
	f.p.t.Helper()
	ctx, cancel := context.WithTimeout(f.p.t.Context(), patience)
	defer cancel()
	if _, err := f.p.queue.Wait(ctx, b.Job); err != nil {
		f.p.t.Fatalf("batch %s: %v", b.ID, err)
	}
	out := new(batch.Batch)
	f.ok(http.StatusOK, "GET", "/v1/batches/"+b.ID, "", out)
	return out
}

// account waits until the account of a batch is as wanted.
func (p *platform) account(b *batch.Batch, wanted func(*batch.Account) bool) *batch.Account {
	p.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		a := new(batch.Account)
		_, err := p.queue.Batches().Get(p.t.Context(), queue.DefaultTenant, b.Job, a)
		if err != nil && !errors.Is(err, queue.ErrNoRecord) {
			p.t.Fatal(err)
		}
		if err == nil && wanted(a) {
			return a
		}
		<-time.After(5 * time.Millisecond) // nothing tells of records
	}
	p.t.Fatal("the account of the batch does not become as wanted")
	return nil
}

func (f *front) lines(fileID string) []map[string]any {
	f.p.t.Helper()
	if fileID == "" {
		return nil
	}
	status, text := f.do("GET", "/v1/files/"+fileID+"/content", "", nil)
	if status != http.StatusOK {
		f.p.t.Fatalf("file %s: %d: %s", fileID, status, text)
	}
	var out []map[string]any
	for line := range strings.Lines(string(text)) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			f.p.t.Fatalf("%v: %s", err, line)
		}
		out = append(out, v)
	}
	return out
}

// results reads the records of a batch.
func (f *front) results(b *batch.Batch) []batch.Record {
	f.p.t.Helper()
	status, text := f.do("GET", "/v1/batches/"+b.ID+"/results", "", nil)
	if status != http.StatusOK {
		f.p.t.Fatalf("results: %d: %s", status, text)
	}
	var out []batch.Record
	for line := range strings.Lines(string(text)) {
		var rec batch.Record
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			f.p.t.Fatal(err)
		}
		out = append(out, rec)
	}
	return out
}

const native = `{"input_file_id":"%s","task":"text.complete","template":{"prompt":"a {{colour}} {{animal}}","max_tokens":"{{n}}"},"seed":7,"tags":["t"],"metadata":{"who":"me"}}`

func TestNative(t *testing.T) {
	p := start(t, 4)
	f := p.gateway()
	b := f.create("colour;animal;n;custom_id\nred;cat;5;one\nblue;fail;;two\ngreen;dog\n=1;+bird;x;four\n猫;猫;3;five\n", native)
	if b.Status != "validating" && b.Status != "in_progress" || b.Object != "batch" || b.Task != "text.complete" || b.Metadata["who"] != "me" {
		t.Errorf("created %+v", b)
	}
	b = f.ended(b)
	if b.Status != "completed" || b.RequestCounts != (batch.Counts{Total: 5, Completed: 2, Failed: 3}) || b.CompletedAt == nil || b.Encoding != "utf-8" {
		t.Errorf("ended %+v", b)
	}
	if b.Usage == nil || b.Usage.TotalTokens != 6 {
		t.Errorf("usage %+v", b.Usage)
	}
	if b.Errors == nil || b.Errors.Total != 2 || b.Errors.Data[0].Row+b.Errors.Data[1].Row != 3+4 {
		t.Errorf("errors %+v", b.Errors)
	}
	records := f.results(b)
	states := ""
	for i, rec := range records {
		if rec.Row != i+1 {
			t.Errorf("record %d is of row %d", i, rec.Row)
		}
		states += string(rec.State[0])
	}
	if states != "sffss"[:3]+"fs" {
		t.Errorf("states %s", states)
	}
	if records[0].Text != "A RED CAT" || records[0].CustomID != "one" || records[0].Seed != 7 || records[4].Seed != 11 {
		t.Errorf("first %+v", records[0])
	}
	if e := records[3].Errors; len(e) != 1 || e[0].Param != "n" || e[0].Line != 5 || e[0].Code != "invalid_input" {
		t.Errorf("row 4: %+v", e)
	}
	if e := records[2].Errors; len(e) != 1 || e[0].Code != "ragged_row" {
		t.Errorf("row 3: %+v", e)
	}
	job, err := p.queue.Job(t.Context(), records[0].Jobs[0])
	if err != nil || job.Batch != b.ID || job.Priority != queue.Low || job.Tags[0] != "t" || string(job.Input) != `{"max_tokens":5,"prompt":"a red cat"}` {
		t.Errorf("job %+v, %v", job, err)
	}
	if out, bad := f.lines(b.OutputFileID), f.lines(b.ErrorFileID); len(out) != 2 || len(bad) != 3 {
		t.Errorf("%d lines of output, %d of errors", len(out), len(bad))
	}
	f.exports(b)
}

// exports checks the results of TestNative as CSV and ZIP.
func (f *front) exports(b *batch.Batch) {
	f.p.t.Helper()
	status, text := f.do("GET", "/v1/batches/"+b.ID+"/results?format=csv", "", nil)
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if status != http.StatusOK || err != nil || len(rows) != 6 {
		f.p.t.Fatalf("csv: %d, %v: %s", status, err, text)
	}
	if got := strings.Join(rows[0], ","); !strings.HasPrefix(got, "row,custom_id,state,colour,animal,n,text,artifacts,") {
		f.p.t.Errorf("header %s", got)
	}
	if got := strings.Join(rows[4][:6], ","); got != "4,four,failed,'=1,'+bird,x" {
		f.p.t.Errorf("row 4: %s", got)
	}
	status, text = f.do("GET", "/v1/batches/"+b.ID+"/results?format=zip", "", nil)
	archive, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
	if status != http.StatusOK || err != nil {
		f.p.t.Fatalf("zip: %d, %v", status, err)
	}
	var names []string
	for _, file := range archive.File {
		names = append(names, file.Name)
	}
	if strings.Join(names, " ") != "manifest.json 000001.txt 000005.txt" {
		f.p.t.Errorf("zip has %s", names)
	}
	manifest, err := archive.Open("manifest.json")
	if err != nil {
		f.p.t.Fatal(err)
	}
	defer manifest.Close()
	var listed struct {
		Batch batch.Batch
		Rows  []struct {
			Row   int
			Files []string
		}
	}
	if err := json.NewDecoder(manifest).Decode(&listed); err != nil || listed.Batch.ID != b.ID || len(listed.Rows) != 5 || listed.Rows[4].Files[0] != "000005.txt" {
		f.p.t.Errorf("manifest %+v, %v", listed, err)
	}
}

func TestDryRun(t *testing.T) {
	p := start(t, 0)
	f := p.gateway()
	var dry batch.DryRun
	body := strings.Replace(native, `"seed":7`, `"seed":7,"dry_run":3`, 1)
	f.ok(http.StatusOK, "POST", "/v1/batches", fmt.Sprintf(body, f.upload("a.csv", "colour,animal,n\nred,cat,1\nred,cat\nred,dog,-4\nred,cow,2\n")), &dry)
	if len(dry.Inputs) != 1 || string(dry.Inputs[0].Input) != `{"max_tokens":1,"prompt":"a red cat"}` || dry.Inputs[0].Seed != 7 {
		t.Errorf("inputs %+v", dry.Inputs)
	}
	if len(dry.Errors.Data) != 2 || dry.Errors.Data[0].Row != 2 || dry.Errors.Data[1].Param != "n" || dry.Errors.Data[1].Row != 3 {
		t.Errorf("errors %+v", dry.Errors)
	}
	var list struct{ Data []batch.Batch }
	if f.ok(http.StatusOK, "GET", "/v1/batches", "", &list); len(list.Data) != 0 {
		t.Errorf("a dry run is listed: %+v", list)
	}
}

func TestRefused(t *testing.T) {
	p := start(t, 0)
	f := p.gateway()
	good := f.upload("a.csv", "colour,animal,n\nred,cat,1\n")
	for name, c := range map[string]struct{ body, want string }{
		"no file":      {`{"task":"text.complete"}`, "/input_file_id"},
		"unknown file": {`{"task":"text.complete","input_file_id":"file-x"}`, "/input_file_id"},
		"neither":      {`{"input_file_id":"GOOD"}`, "/endpoint"},
		"both":         {`{"input_file_id":"GOOD","task":"text.complete","endpoint":"/v1/embeddings"}`, "/task"},
		"endpoint":     {`{"input_file_id":"GOOD","endpoint":"/v1/audio"}`, "/endpoint"},
		"window":       {`{"input_file_id":"GOOD","endpoint":"/v1/embeddings","completion_window":"1s"}`, "/completion_window"},
		"task":         {`{"input_file_id":"GOOD","task":"text.sing"}`, "unknown_task"},
		"column":       {`{"input_file_id":"GOOD","task":"text.complete","template":{"prompt":"{{size}}"}}`, "/template/prompt"},
		"concurrency":  {`{"input_file_id":"GOOD","task":"text.complete","concurrency":100000}`, "/concurrency"},
		"unknown":      {`{"input_file_id":"GOOD","task":"text.complete","templates":{}}`, "/templates"},
		"duplicates":   {`{"input_file_id":"DUPLICATE","task":"text.complete"}`, "duplicate_column"},
		"tags":         {`{"input_file_id":"GOOD","task":"text.complete","tags":[""]}`, "/tags/0"},
	} {
		body := strings.NewReplacer("GOOD", good, "DUPLICATE", f.upload("b.csv", "a,a\n1,2\n")).Replace(c.body)
		status, text := f.do("POST", "/v1/batches", "application/json", []byte(body))
		if status != http.StatusBadRequest || !strings.Contains(string(text), c.want) || !strings.Contains(string(text), `"error":{`) {
			t.Errorf("%s: %d: %s", name, status, text)
		}
	}
	for _, path := range []string{"/v1/batches/x", "/v1/batches/batch_01ARZ3NDEKTSV4RRFFQ69G5FAV", "/v1/batches/x/results"} {
		if status, text := f.do("GET", path, "", nil); status != http.StatusNotFound {
			t.Errorf("%s: %d: %s", path, status, text)
		}
	}
	if status, _ := f.do("POST", "/v1/jobs", "application/json", []byte(`{"task":"batch.run","input":{}}`)); status != http.StatusBadRequest {
		t.Errorf("a batch can be submitted as a job: %d", status)
	}
}

func TestFailsInValidation(t *testing.T) {
	p := start(t, 0)
	f := p.gateway()
	line := `{"custom_id":"%s","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"x"}}` + "\n"
	file := fmt.Sprintf(line, "a") + fmt.Sprintf(line, "a") + "not json\n" + `{"custom_id":"b","method":"GET","url":"/v1/x","body":3}`
	b := f.ended(f.create(file, `{"input_file_id":"%s","endpoint":"/v1/completions","completion_window":"24h"}`))
	if b.Status != "failed" || b.FailedAt == nil || b.Errors == nil || b.OutputFileID != "" {
		t.Fatalf("batch %+v", b)
	}
	var codes []string
	for _, e := range b.Errors.Data {
		codes = append(codes, fmt.Sprintf("%d %s", e.Line, e.Code))
	}
	if got := strings.Join(codes, ", "); got != "2 duplicate_custom_id, 3 invalid_json_line, 4 invalid_method, 4 invalid_url, 4 missing_body" {
		t.Errorf("errors %s", got)
	}
	if status, _ := f.do("GET", "/v1/batches/"+b.ID+"/results", "", nil); status != http.StatusNotFound {
		t.Errorf("results: %d", status)
	}
	b = f.ended(f.create("a,b\n1,\"2\n", `{"input_file_id":"%s","endpoint":"/v1/completions"}`))
	if b.Status != "failed" || b.Errors == nil || b.Errors.Data[0].Code != "invalid_file" {
		t.Errorf("broken file: %+v", b)
	}
}

// TestOpenAI: lines become what the route would answer, errors of a request its error, and
// a request with two prompts two jobs.
func TestOpenAI(t *testing.T) {
	p := start(t, 2)
	f := p.gateway()
	var file strings.Builder
	for i, body := range []string{
		`{"model":"m","prompt":["x","y"]}`, `{"model":"m","prompt":"fail"}`, `{"model":"m","prompt":5}`, `{"model":"m","prompt":"x","stream":true}`,
	} {
		fmt.Fprintf(&file, `{"custom_id":"%d","method":"POST","url":"/v1/completions","body":%s}`+"\n", i, body)
	}
	b := f.ended(f.create(file.String(), `{"input_file_id":"%s","endpoint":"/v1/completions","completion_window":"24h"}`))
	if b.Status != "completed" || b.RequestCounts != (batch.Counts{Total: 4, Completed: 1, Failed: 3}) {
		t.Fatalf("batch %+v", b)
	}
	out := f.lines(b.OutputFileID)
	text, _ := json.Marshal(out[0]["response"]) // came from JSON
	if len(out) != 1 || out[0]["custom_id"] != "0" || !strings.Contains(string(text), `"text":"X"`) || !strings.Contains(string(text), `"text":"Y"`) {
		t.Errorf("output %s", text)
	}
	for i, line := range f.lines(b.ErrorFileID) {
		response := line["response"].(map[string]any)
		want := []string{"context_length_exceeded", "invalid_request", "invalid_request"}[i]
		if e := response["body"].(map[string]any)["error"].(map[string]any); response["status_code"] != 400.0 || e["code"] != want {
			t.Errorf("line %d: %v", i, line)
		}
	}
}

func TestCancel(t *testing.T) {
	p := start(t, 3)
	f := p.gateway()
	file := "prompt\nhold 1\nhold 2\nhold 3\n" + strings.Repeat("queued\n", 40)
	b := f.create(file, `{"input_file_id":"%s","task":"text.complete","concurrency":8}`)
	for range 3 {
		<-p.begun
	}
	if status, _ := f.do("GET", "/v1/batches/"+b.ID+"/results", "", nil); status != http.StatusConflict {
		t.Errorf("results of a batch that runs: %d", status)
	}
	asked := time.Now()
	if f.ok(http.StatusOK, "POST", "/v1/batches/"+b.ID+"/cancel", "", b); b.Status != "cancelling" || b.CancellingAt == nil {
		t.Errorf("batch %+v", b)
	}
	b = f.ended(b)
	if took := time.Since(asked); took > 5*time.Second {
		t.Errorf("the cancel took %v", took)
	}
	// Of the 8 rows at once, those that waited may be begun as others stop.
	if c := b.RequestCounts; b.Status != "cancelled" || c.Total != 43 || c.Completed > 5 || c.Completed+c.Canceled != c.Total {
		t.Errorf("batch %+v", c)
	}
	for _, rec := range f.results(b) {
		for _, id := range rec.Jobs {
			if job, err := p.queue.Job(t.Context(), id); err != nil || !job.State.Terminal() {
				t.Errorf("row %d: job %+v, %v", rec.Row, job, err)
			}
		}
	}
	if n := len(f.lines(b.OutputFileID)) + len(f.lines(b.ErrorFileID)); n != 43 {
		t.Errorf("%d rows accounted for", n)
	}
	if status, _ := f.do("POST", "/v1/batches/"+b.ID+"/cancel", "", nil); status != http.StatusConflict {
		t.Errorf("a second cancel: %d", status)
	}
}

func TestExpiry(t *testing.T) {
	p := start(t, 3)
	f := p.gateway()
	// The least window is a minute: the batch is submitted as if that was nearly over.
	request := batch.Request{InputFileID: f.upload("a.csv", "prompt\nfine\nhold 1\nhold 2\n"), Task: "text.complete"}
	spec, err := request.Spec(time.Now().Add(-24*time.Hour + 1500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	file, err := p.queue.File(t.Context(), queue.DefaultTenant, request.InputFileID)
	if err != nil {
		t.Fatal(err)
	}
	spec.Source = file.Artifact.SHA256
	job, err := spec.Job(queue.DefaultTenant, nil)
	if err == nil {
		err = p.queue.Submit(t.Context(), job)
	}
	if err != nil {
		t.Fatal(err)
	}
	b := f.ended(&batch.Batch{ID: batch.Name(job.ID), Job: job.ID})
	if c := b.RequestCounts; b.Status != "expired" || b.ExpiredAt == nil || c.Total != 3 || c.Canceled < 2 || c.Completed+c.Canceled != 3 {
		t.Errorf("batch %+v", b)
	}
	if lines := f.lines(b.ErrorFileID); len(lines) < 2 || lines[1]["problem"].(map[string]any)["code"] != "batch_expired" {
		t.Errorf("errors %v", lines)
	}
}

func TestRetry(t *testing.T) {
	p := start(t, 2)
	f := p.gateway()
	b := f.ended(f.create("prompt\na\nfail b\nc\nfail d\n", `{"input_file_id":"%s","task":"text.complete"}`))
	if b.RequestCounts.Failed != 2 {
		t.Fatalf("batch %+v", b)
	}
	runs := p.runs.Load()
	again := new(batch.Batch)
	f.ok(http.StatusOK, "POST", "/v1/batches/"+b.ID+"/retry", "", again)
	again = f.ended(again)
	if again.RetryOf != b.ID || again.RequestCounts != (batch.Counts{Total: 4, Completed: 2, Failed: 2}) {
		t.Errorf("batch %+v", again)
	}
	if n := p.runs.Load() - runs; n != 2 {
		t.Errorf("%d jobs ran, want the 2 that had failed", n)
	}
	first, second := f.results(b), f.results(again)
	if first[0].Jobs[0] != second[0].Jobs[0] || first[1].Jobs[0] == second[1].Jobs[0] || second[2].Text != "C" {
		t.Errorf("records %+v, then %+v", first, second)
	}
	done := f.ended(f.create("prompt\na\n", `{"input_file_id":"%s","task":"text.complete"}`))
	if status, _ := f.do("POST", "/v1/batches/"+done.ID+"/retry", "", nil); status != http.StatusConflict {
		t.Errorf("retry of a batch without failures: %d", status)
	}
	var list struct {
		Data    []batch.Batch
		HasMore bool `json:"has_more"`
	}
	f.ok(http.StatusOK, "GET", "/v1/batches?limit=2&after="+done.ID, "", &list)
	if len(list.Data) != 2 || list.HasMore || list.Data[0].ID != again.ID || list.Data[1].ID != b.ID {
		t.Errorf("list %+v", list)
	}
	f.ok(http.StatusNoContent, "DELETE", "/v1/batches/"+b.ID, "", nil)
	f.ok(http.StatusNotFound, "GET", "/v1/batches/"+b.ID, "", nil)
}

// TestKilled: gateways are killed again and again while they run a batch, more often than
// a job may be begun; every row has exactly one job and one line.
func TestKilled(t *testing.T) {
	killed(t, 2000, 3, func() {})
}

// killed runs a batch of so many rows while so many gateways are killed. ended is called at
// its end, before its results are read.
func killed(t *testing.T, rows, kills int, ended func()) {
	p := start(t, 8)
	var file strings.Builder
	file.WriteString("prompt\n")
	for i := range rows {
		fmt.Fprintf(&file, "%s %d\n", map[bool]string{true: "fail", false: "row"}[i%100 == 7], i+1)
	}
	f := p.gateway()
	b := f.create(file.String(), `{"input_file_id":"%s","task":"text.complete","concurrency":64}`)
	for k := range kills {
		p.account(b, func(a *batch.Account) bool { return a.Mark >= rows*(k+1)/(kills+2) })
		f.kill()
		f = p.gateway()
	}
	b = f.ended(b)
	ended()
	if want := (batch.Counts{Total: rows, Completed: rows - rows/100, Failed: rows / 100}); b.Status != "completed" || b.RequestCounts != want {
		t.Errorf("%s %+v, want %+v", b.Status, b.RequestCounts, want)
	}
	jobs := map[string]bool{}
	for i, rec := range f.results(b) {
		state, text := queue.Succeeded, "ROW "+strconv.Itoa(i+1)
		if i%100 == 7 {
			state, text = queue.Failed, ""
		}
		if rec.Row != i+1 || rec.State != state || rec.Text != text || len(rec.Jobs) != 1 || jobs[rec.Jobs[0]] {
			t.Fatalf("record %d: %+v", i, rec)
		}
		jobs[rec.Jobs[0]] = true
	}
	if len(jobs) != rows {
		t.Errorf("%d jobs", len(jobs))
	}
	if runs, lost := p.runs.Load(), p.lost.Load(); runs-lost != int64(rows) {
		t.Errorf("workers have run %d jobs and lost %d", runs, lost)
	}
	job, err := p.queue.Job(t.Context(), b.Job)
	if err != nil || job.Attempts != kills+1 {
		t.Errorf("%d attempts, %v", job.Attempts, err)
	}
}

package openai_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/openai/openai-go/v3"

	"helicon/gateway"
	"helicon/gateway/internal/harness"
)

// uploaded stores a file of requests for chats through the SDK.
func uploaded(t *testing.T, c *sdk.Client, texts ...string) *sdk.FileObject {
	t.Helper()
	var lines strings.Builder
	for i, text := range texts {
		temperature := 1
		if text == "too warm" {
			temperature = 99
		}
		body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}],"temperature":%d}`, harness.Model, text, temperature)
		fmt.Fprintf(&lines, `{"custom_id":"request-%d","method":"POST","url":"/v1/chat/completions","body":%s}`+"\n", i, body)
	}
	file, err := c.Files.New(t.Context(), sdk.FileNewParams{
		File: sdk.File(strings.NewReader(lines.String()), "requests.jsonl", "application/jsonl"), Purpose: sdk.FilePurposeBatch,
	})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// polled asks for the batch until it has the status.
func polled(t *testing.T, c *sdk.Client, id string, status sdk.BatchStatus) *sdk.Batch {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		b, err := c.Batches.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if b.Status == status {
			return b
		}
		if time.Now().After(deadline) {
			t.Fatalf("the batch is %s, want %s: %s", b.Status, status, b.RawJSON())
		}
		<-time.After(20 * time.Millisecond) // as clients poll
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", words)
	c := client(h)
	file := uploaded(t, c, "one", "two words", "too warm")
	if file.Filename != "requests.jsonl" || file.Purpose != sdk.FileObjectPurposeBatch || file.Bytes == 0 || file.CreatedAt == 0 {
		t.Errorf("file %s", file.RawJSON())
	}
	b, err := c.Batches.New(t.Context(), sdk.BatchNewParams{
		InputFileID: file.ID, Endpoint: sdk.BatchNewParamsEndpointV1ChatCompletions,
		CompletionWindow: sdk.BatchNewParamsCompletionWindow24h, Metadata: map[string]string{"k": "v"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.ID, "batch_") || b.InputFileID != file.ID || b.Metadata["k"] != "v" || b.ExpiresAt-b.CreatedAt < 86398 {
		t.Errorf("batch %s", b.RawJSON())
	}
	b = polled(t, c, b.ID, sdk.BatchStatusCompleted)
	if b.RequestCounts.Total != 3 || b.RequestCounts.Completed != 2 || b.RequestCounts.Failed != 1 || b.CompletedAt == 0 || b.Usage.TotalTokens == 0 {
		t.Errorf("batch %s", b.RawJSON())
	}
	if lines := content(t, c, b.OutputFileID); len(lines) != 2 || lines[1].CustomID != "request-1" ||
		lines[1].Response.Body.Choices[0].Message.Content != "two words" || lines[1].Response.StatusCode != 200 || lines[1].Error != nil {
		t.Errorf("output %+v", lines)
	}
	if lines := content(t, c, b.ErrorFileID); len(lines) != 1 || lines[0].CustomID != "request-2" || lines[0].Response.StatusCode != 400 || lines[0].Response.Body.Error.Message == "" {
		t.Errorf("errors %+v", lines)
	}
}

// outputLine is a line of a batch's output or error file.
type outputLine struct {
	ID       string
	CustomID string `json:"custom_id"`
	Response struct {
		StatusCode int `json:"status_code"`
		Body       struct {
			sdk.ChatCompletion
			Error struct{ Message, Code string }
		}
	}
	Error *struct{ Code string }
}

func content(t *testing.T, c *sdk.Client, file string) []outputLine {
	t.Helper()
	response, err := c.Files.Content(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var lines []outputLine
	for decoder := json.NewDecoder(response.Body); ; {
		var l outputLine
		if err := decoder.Decode(&l); err == io.EOF {
			return lines
		} else if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
}

func TestBatchCancelAndList(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{}) // without workers: nothing ends by itself
	if err := h.Queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	c := client(h)
	file := uploaded(t, c, "one", "two")
	ids := map[string]bool{}
	for range 3 {
		b, err := c.Batches.New(t.Context(), sdk.BatchNewParams{
			InputFileID: file.ID, Endpoint: sdk.BatchNewParamsEndpointV1ChatCompletions, CompletionWindow: sdk.BatchNewParamsCompletionWindow24h,
		})
		if err != nil {
			t.Fatal(err)
		}
		ids[b.ID] = true
	}
	pages := c.Batches.ListAutoPaging(t.Context(), sdk.BatchListParams{Limit: sdk.Int(2)})
	seen := 0
	for pages.Next() {
		if seen++; !ids[pages.Current().ID] {
			t.Errorf("a batch nobody made: %s", pages.Current().RawJSON())
		}
		if _, err := c.Batches.Cancel(t.Context(), pages.Current().ID); err != nil {
			t.Error(err)
		}
	}
	if err := pages.Err(); err != nil || seen != 3 {
		t.Errorf("%d batches, %v", seen, err)
	}
	for id := range ids {
		b := polled(t, c, id, sdk.BatchStatusCancelled)
		if b.CancelledAt == 0 {
			t.Errorf("batch %s", b.RawJSON())
		}
	}
	_, err := c.Batches.Get(t.Context(), "batch_x")
	wantError(t, err, http.StatusNotFound, "not_found", "")
	_, err = c.Batches.New(t.Context(), sdk.BatchNewParams{InputFileID: "file-x", Endpoint: sdk.BatchNewParamsEndpointV1ChatCompletions, CompletionWindow: "24h"})
	wantError(t, err, http.StatusBadRequest, "invalid_request", "input_file_id")
}

func TestFiles(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	c := client(h)
	var ids []string
	for i := range 5 {
		purpose := []sdk.FilePurpose{sdk.FilePurposeBatch, sdk.FilePurposeUserData}[i%2]
		f, err := c.Files.New(t.Context(), sdk.FileNewParams{
			File: sdk.File(strings.NewReader(fmt.Sprint("content ", i)), "../ä.txt", "text/plain"), Purpose: purpose,
			ExpiresAfter: sdk.FileNewParamsExpiresAfter{Seconds: 7200},
		})
		if err != nil {
			t.Fatal(err)
		}
		if f.Filename != "ä.txt" || f.ExpiresAt-f.CreatedAt != 7200 {
			t.Errorf("file %s", f.RawJSON())
		}
		ids = append(ids, f.ID)
	}
	pages := c.Files.ListAutoPaging(t.Context(), sdk.FileListParams{Limit: sdk.Int(2), Order: sdk.FileListParamsOrderAsc})
	var listed []string
	for pages.Next() {
		listed = append(listed, pages.Current().ID)
	}
	if strings.Join(listed, " ") != strings.Join(ids, " ") || pages.Err() != nil {
		t.Errorf("listed %v, want %v; %v", listed, ids, pages.Err())
	}
	if page, err := c.Files.List(t.Context(), sdk.FileListParams{Purpose: sdk.String("user_data")}); err != nil || len(page.Data) != 2 || page.Data[0].ID != ids[3] {
		t.Errorf("by purpose: %+v, %v", page, err)
	}
	if gone, err := c.Files.Delete(t.Context(), ids[0]); err != nil || !gone.Deleted || gone.ID != ids[0] {
		t.Errorf("delete: %+v, %v", gone, err)
	}
	_, err := c.Files.Get(t.Context(), ids[0])
	wantError(t, err, http.StatusNotFound, "not_found", "")
	if f, err := c.Files.Get(t.Context(), ids[1]); err != nil || f.ID != ids[1] {
		t.Errorf("get: %+v, %v", f, err)
	}
	_, err = c.Files.New(t.Context(), sdk.FileNewParams{File: sdk.File(strings.NewReader("x"), "a", "text/plain"), Purpose: "fine-tune"})
	wantError(t, err, http.StatusBadRequest, "invalid_request", "purpose")
}

// TestFilesRefused: forms that are no forms of a file, and a file that is too large, of
// which no more is read than its length.
func TestFilesRefused(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	form := func(fields ...string) (string, []byte) {
		var out bytes.Buffer
		w := multipart.NewWriter(&out)
		for i := 0; i < len(fields); i += 2 {
			part, err := w.CreateFormFile(fields[i], "name")
			if fields[i] != "file" {
				part, err = w.CreateFormField(fields[i])
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _ = part.Write([]byte(fields[i+1])) // to memory
		}
		_ = w.Close()
		return w.FormDataContentType(), out.Bytes()
	}
	for name, fields := range map[string][]string{
		"no file":    {"purpose", "batch"},
		"no purpose": {"file", "x"},
		"empty file": {"file", "", "purpose", "batch"},
		"two files":  {"file", "x", "file", "y", "purpose", "batch"},
		"twice":      {"file", "x", "purpose", "batch", "purpose", "batch"},
		"unknown":    {"file", "x", "purpose", "batch", "colour", "red"},
		"long":       {"file", "x", "purpose", strings.Repeat("b", 100)},
		"expiry":     {"file", "x", "purpose", "batch", "expires_after[anchor]", "created_at", "expires_after[seconds]", "5"},
		"anchor":     {"file", "x", "purpose", "batch", "expires_after[seconds]", "7200"},
	} {
		contentType, body := form(fields...)
		if answer := h.Do(t, "POST", "/v1/files", string(body), "Content-Type", contentType); answer.Status != http.StatusBadRequest || !bytes.Contains(answer.Body, []byte(`"error":{`)) {
			t.Errorf("%s: %d: %s", name, answer.Status, answer.Body)
		}
	}
	if answer := h.Do(t, "POST", "/v1/files", "{}"); answer.Status != http.StatusUnsupportedMediaType {
		t.Errorf("JSON: %d: %s", answer.Status, answer.Body)
	}
	request, err := http.NewRequestWithContext(t.Context(), "POST", h.URL+"/v1/files", io.LimitReader(endless{}, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	request.ContentLength = 1 << 30
	request.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	request.Header.Set("Expect", "100-continue")
	response, err := h.Client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("1 GiB: %d", response.StatusCode)
	}
}

// endless is a file without end.
type endless struct{}

// Read implements io.Reader.
func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"helicon/gateway"
	"helicon/gateway/catalog"
	"helicon/gateway/internal/harness"
	"helicon/queue"
)

type jobPage struct {
	Data    []queue.Job
	HasMore bool `json:"has_more"`
	Next    string
}

// makeJob submits a job and waits for its end.
func makeJob(t *testing.T, h *harness.Harness, prompt string) queue.Job {
	t.Helper()
	body, err := json.Marshal(map[string]any{"task": "text.complete", "input": map[string]string{"prompt": prompt}})
	if err != nil {
		t.Fatal(err)
	}
	var job queue.Job
	h.Do(t, "POST", "/v1/jobs", string(body), "Prefer", "wait=20").JSON(t, 200, &job)
	return job
}

func TestSearch(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	sea := makeJob(t, h, "a storm at sea")
	cat := makeJob(t, h, "月光下的猫")
	for query, want := range map[string][]string{
		"q=storm":                        {sea.ID},
		"q=" + url.QueryEscape("猫"):      {cat.ID},
		"q=" + url.QueryEscape(`"月光" *`): {cat.ID},
		"q=calm":                         nil,
		"state=succeeded":                {cat.ID, sea.ID},
		"q=storm&state=failed":           nil,
		"from=2020-01-01&to=2100-01-01":  {cat.ID, sea.ID},
		"from=2100-01-01T00:00:00Z":      nil,
		"model=" + harness.Model:         nil, // the job names none, and this worker does not fill it in
	} {
		var page jobPage
		h.Do(t, "GET", "/v1/jobs?"+query, "").JSON(t, 200, &page)
		var got []string
		for _, job := range page.Data {
			got = append(got, job.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	for _, query := range []string{"q=!", "q=" + strings.Repeat("x", catalog.MaxQuery+1), "from=yesterday", "to=1", "batch=a&batch=b"} {
		if a := h.Do(t, "GET", "/v1/jobs?"+query, ""); a.Status != 400 {
			t.Errorf("%s: %d %s", query, a.Status, a.Body)
		}
	}
}

func TestUsageRoute(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	makeJob(t, h, "one")
	makeJob(t, h, "two")
	h.Do(t, "GET", "/v1/jobs", "") // which waits for the record
	var answer struct {
		Object string
		Data   []catalog.Usage
	}
	h.Do(t, "GET", "/v1/usage?by=task,day", "").JSON(t, 200, &answer)
	if len(answer.Data) != 1 {
		t.Fatalf("%+v", answer)
	}
	u := answer.Data[0]
	if answer.Object != "list" || u.Task != "text.complete" || u.Day == "" || u.Jobs != 2 || u.Succeeded != 2 || u.InputTokens != 2 || u.OutputTokens != 4 || u.Tenant != "" {
		t.Errorf("%+v", u)
	}
	for query, status := range map[string]int{
		"": 200, "by=model": 200, "from=2026-01-01&to=2026-01-31": 200,
		"by=tenant": 400, "by=day,day": 400, "by=color": 400, "from=2026-02-01&to=2026-01-31": 400, "from=1900-01-01": 400, "to=tomorrow": 400, "tenant=other": 400,
	} {
		if a := h.Do(t, "GET", "/v1/usage?"+query, ""); a.Status != status {
			t.Errorf("?%s: %d %s", query, a.Status, a.Body)
		}
	}
}

// A job whose events have aged out is shown and deleted all the same.
func TestJobsOfTheRecord(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	job := makeJob(t, h, "old times")
	h.Do(t, "GET", "/v1/jobs", "")
	if err := h.Queue.Delete(t.Context(), job.ID); err != nil { // behind the gateway's back
		t.Fatal(err)
	}
	var shown queue.Job
	h.Do(t, "GET", "/v1/jobs/"+job.ID, "").JSON(t, 200, &shown)
	if shown.State != queue.Succeeded || shown.Result == nil || shown.Result.Text != "old times" {
		t.Errorf("%+v", shown)
	}
	if a := h.Do(t, "DELETE", "/v1/jobs/"+job.ID, ""); a.Status != 204 {
		t.Errorf("delete: %d %s", a.Status, a.Body)
	}
	var page jobPage
	h.Do(t, "GET", "/v1/jobs?q=old", "").JSON(t, 200, &page)
	if a := h.Do(t, "GET", "/v1/jobs/"+job.ID, ""); a.Status != 404 || len(page.Data) != 0 {
		t.Errorf("after its deletion: %d, listed %d", a.Status, len(page.Data))
	}
}

// A deleted job vanishes from lists at once, whatever the record still had to read.
func TestDeletedJobsAreNotListed(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	h.Worker(t, "w1", echo)
	for range 10 {
		job := makeJob(t, h, "short lived")
		if a := h.Do(t, "DELETE", "/v1/jobs/"+job.ID, ""); a.Status != 204 {
			t.Errorf("delete: %d %s", a.Status, a.Body)
		}
	}
	var page jobPage
	h.Do(t, "GET", "/v1/jobs", "").JSON(t, 200, &page)
	if len(page.Data) != 0 {
		t.Errorf("%d are listed", len(page.Data))
	}
}

// A list has every job that was accepted before it was asked for.
func TestListsShowWhatWasAccepted(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	if err := h.Queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		var job queue.Job
		h.Do(t, "POST", "/v1/jobs", hello).JSON(t, 202, &job)
		var page jobPage
		h.Do(t, "GET", "/v1/jobs?limit=1", "").JSON(t, 200, &page)
		if len(page.Data) != 1 || page.Data[0].ID != job.ID || page.HasMore != (i > 0) {
			t.Fatalf("job %d is not the first of the list", i)
		}
	}
}

package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"helicon/gateway"
	"helicon/gateway/catalog"
	"helicon/gateway/internal/harness"
	"helicon/gateway/webhook"
	"helicon/queue"
)

// loopback admits the receivers of the tests.
func loopback() webhook.Policy {
	return webhook.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
}

// deliver sends what the gateway's catalog has to send until the test ends.
func deliver(t *testing.T, h *harness.Harness) {
	t.Helper()
	d, err := webhook.New(webhook.Config{Catalog: h.Catalog, Policy: loopback()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// told is a message that a receiver was sent, at a path.
type told struct {
	path   string
	header http.Header
	body   []byte
}

func receiver(t *testing.T) (url string, messages <-chan told) {
	t.Helper()
	received := make(chan told, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		received <- told{r.URL.Path, r.Header, body}
	}))
	t.Cleanup(server.Close)
	return server.URL, received
}

// created is the answer to POST /v1/webhooks.
type created struct{ ID, URL, Secret string }

// The whole way: a job's events reach an endpoint and the job's own webhook, signed.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{Webhooks: loopback()})
	h.Worker(t, "w1", echo)
	deliver(t, h)
	url, messages := receiver(t)
	var hook created
	h.Do(t, "POST", "/v1/webhooks", `{"url":"`+url+`/endpoint","events":["job.succeeded"],"description":"all of them"}`).JSON(t, http.StatusCreated, &hook)
	var own struct{ Secret string }
	h.Do(t, "GET", "/v1/webhooks/secret", "").JSON(t, http.StatusOK, &own)
	var job queue.Job
	h.Do(t, "POST", "/v1/jobs", `{"task":"text.complete","input":{"prompt":"hello"},"webhook":"`+url+`/own","webhook_events_filter":["job.started","job.succeeded"]}`).
		JSON(t, http.StatusAccepted, &job)
	seen := map[string]told{}
	for range 3 {
		m := <-messages
		secret := own.Secret
		if m.path == "/endpoint" {
			secret = hook.Secret
		}
		verify(t, secret, m)
		var body struct {
			Type string
			Data queue.Job
		}
		if err := json.Unmarshal(m.body, &body); err != nil || body.Data.ID != job.ID {
			t.Errorf("%s: %v", m.body, err)
		}
		if body.Type == "job.succeeded" && body.Data.Result.Text != "hello" {
			t.Errorf("%s", m.body)
		}
		seen[m.path+" "+body.Type] = m
	}
	if len(seen) != 3 || seen["/endpoint job.succeeded"].body == nil || seen["/own job.started"].body == nil || seen["/own job.succeeded"].body == nil {
		t.Errorf("received %v", seen)
	}
	for id, count := range map[string]int{hook.ID: 1, catalog.JobsEndpoint: 2} {
		entry := delivered(t, h, id, count)
		h.Do(t, "POST", "/v1/webhooks/"+id+"/deliveries/"+entry.ID+"/redeliver", "").JSON(t, http.StatusAccepted, &entry)
		if again := <-messages; again.header.Get("webhook-id") != entry.ID {
			t.Errorf("sent again as %s, was %s", again.header.Get("webhook-id"), entry.ID)
		}
	}
}

// verify checks a message's signature with the specification's library and OpenAI's.
func verify(t *testing.T, secret string, m told) {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify(m.body, m.header); err != nil {
		t.Error(err)
	}
	client := openai.NewClient(option.WithAPIKey("none"), option.WithWebhookSecret(secret))
	if err := client.Webhooks.VerifySignature(m.body, m.header); err != nil {
		t.Error(err)
	}
}

// delivered waits until an endpoint's log has count entries, all delivered, and returns one.
func delivered(t *testing.T, h *harness.Harness, id string, count int) catalog.Delivery {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-poll.C {
		var log struct{ Data []catalog.Delivery }
		h.Do(t, "GET", "/v1/webhooks/"+id+"/deliveries?state=delivered", "").JSON(t, http.StatusOK, &log)
		if len(log.Data) < count {
			continue
		}
		var detail struct {
			catalog.Delivery
			Body string
		}
		h.Do(t, "GET", "/v1/webhooks/"+id+"/deliveries/"+log.Data[0].ID, "").JSON(t, http.StatusOK, &detail)
		if len(log.Data) != count || len(detail.Attempts) != 1 || detail.Attempts[0].Status != http.StatusOK || !strings.HasPrefix(detail.Body, `{"type":"job.`) {
			t.Errorf("log %+v, detail %+v", log, detail)
		}
		return log.Data[0]
	}
	t.Fatalf("%d deliveries to %s were not recorded", count, id)
	return catalog.Delivery{}
}

func TestWebhookLife(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	var hook created
	answer := h.Do(t, "POST", "/v1/webhooks", `{"url":"https://example.org/a"}`)
	answer.JSON(t, http.StatusCreated, &hook)
	path := "/v1/webhooks/" + hook.ID
	if webhook.CheckSecret(hook.Secret) != nil || answer.Header.Get("Location") != path {
		t.Errorf("%s", answer.Body)
	}
	var e catalog.Endpoint
	answer = h.Do(t, "GET", path, "")
	answer.JSON(t, http.StatusOK, &e)
	if strings.Contains(string(answer.Body), "whsec_") || !e.Enabled || !slices.Equal(e.Events, catalog.FinalEvents()) {
		t.Errorf("%s", answer.Body)
	}
	h.Do(t, "PATCH", path, `{"enabled":false,"events":["batch.completed"],"description":"b"}`).JSON(t, http.StatusOK, &e)
	if e.Enabled || e.URL != "https://example.org/a" || !slices.Equal(e.Events, []string{"batch.completed"}) || e.Description != "b" {
		t.Errorf("%+v", e)
	}
	refused(t, h, "POST", path+"/test", "", http.StatusConflict, "enable it first")
	h.Do(t, "PATCH", path, `{"enabled":true}`).JSON(t, http.StatusOK, &e)
	var test catalog.Delivery
	h.Do(t, "POST", path+"/test", "").JSON(t, http.StatusAccepted, &test)
	if test.Type != "webhook.test" || test.State != catalog.Pending {
		t.Errorf("%+v", test)
	}
	var rotated struct{ Secret string }
	h.Do(t, "POST", path+"/rotate", "").JSON(t, http.StatusOK, &rotated)
	if rotated.Secret == hook.Secret || webhook.CheckSecret(rotated.Secret) != nil {
		t.Errorf("%+v", rotated)
	}
	chosen := webhook.NewSecret()
	h.Do(t, "POST", path+"/rotate", `{"secret":"`+chosen+`"}`).JSON(t, http.StatusOK, &rotated)
	if rotated.Secret != chosen {
		t.Errorf("%+v", rotated)
	}
	var list struct{ Data []catalog.Endpoint }
	h.Do(t, "GET", "/v1/webhooks", "").JSON(t, http.StatusOK, &list)
	if len(list.Data) != 1 || list.Data[0].ID != hook.ID {
		t.Errorf("%+v", list)
	}
	if a := h.Do(t, "DELETE", path, ""); a.Status != http.StatusNoContent {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	for _, gone := range []string{"GET " + path, "DELETE " + path, "POST " + path + "/rotate", "POST " + path + "/test", "GET " + path + "/deliveries",
		"GET " + path + "/deliveries/" + test.ID, "POST " + path + "/deliveries/" + test.ID + "/redeliver", "GET /v1/webhooks/jobs", "DELETE /v1/webhooks/jobs", "POST /v1/webhooks/jobs/test"} {
		method, at, _ := strings.Cut(gone, " ")
		refused(t, h, method, at, "", http.StatusNotFound, "no such webhook")
	}
	refused(t, h, "GET", "/v1/webhooks/jobs/deliveries/msg_1", "", http.StatusNotFound, "no such delivery")
}

// refused makes a request that is answered with a problem, and looks for words in it.
func refused(t *testing.T, h *harness.Harness, method, path, body string, status int, words string) {
	t.Helper()
	var p problem
	answer := h.Do(t, method, path, body)
	answer.JSON(t, status, &p)
	if told := p.Detail + fmt.Sprint(p.Errors); !strings.Contains(told, words) {
		t.Errorf("%s %s %s: %s, want %q in it", method, path, body, answer.Body, words)
	}
}

func TestRefusedWebhooks(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{})
	if err := h.Queue.Define(t.Context(), harness.Tasks()); err != nil {
		t.Fatal(err)
	}
	var hook created
	h.Do(t, "POST", "/v1/webhooks", `{"url":"https://example.org/a"}`).JSON(t, http.StatusCreated, &hook)
	one := "/v1/webhooks/" + hook.ID
	job := func(members string) string {
		return `{"task":"text.complete","input":{"prompt":"a"},` + members + `}`
	}
	for _, c := range []struct{ method, path, body, words string }{
		{"POST", "/v1/webhooks", ``, "empty"},
		{"POST", "/v1/webhooks", `[]`, "want an object"},
		{"POST", "/v1/webhooks", `{}`, "/url: missing"},
		{"POST", "/v1/webhooks", `{"url":7}`, "want a string"},
		{"POST", "/v1/webhooks", `{"url":"https://example.org","evnts":[]}`, "unknown member"},
		{"POST", "/v1/webhooks", `{"url":"http://example.org"}`, "use https"},
		{"POST", "/v1/webhooks", `{"url":"https://10.0.0.1"}`, "not a public one"},
		{"POST", "/v1/webhooks", `{"url":"https://user:password@example.org"}`, "user or password"},
		{"POST", "/v1/webhooks", `{"url":"https://example.org","events":["job.ended"]}`, `there is no event "job.ended"`},
		{"POST", "/v1/webhooks", `{"url":"https://example.org","events":["job.failed","job.failed"]}`, "appears twice"},
		{"POST", "/v1/webhooks", `{"url":"https://example.org","description":"` + strings.Repeat("a", 257) + `"}`, "at most 256 bytes"},
		{"POST", "/v1/webhooks", `{"url":"https://example.org","secret":"secret"}`, "begins with whsec_"},
		{"POST", "/v1/webhooks", `{"url":"https://example.org","secret":"whsec_YQ=="}`, "24 to 64 bytes"},
		{"GET", "/v1/webhooks?limit=1", ``, "takes none"},
		{"PATCH", one, `{"url":"ftp://example.org"}`, "want https"},
		{"PATCH", one, `{"events":[]}`, "at least one"},
		{"PATCH", one, `{"secret":"whsec_a"}`, "unknown member"},
		{"POST", one + "/rotate", `{"secret":"a"}`, "begins with whsec_"},
		{"GET", one + "/deliveries?state=lost", ``, "no state"},
		{"GET", one + "/deliveries?limit=0", ``, "want 1 to"},
		{"GET", one + "/deliveries?after=msg_1", ``, "not a delivery of this webhook"},
		{"GET", one + "/deliveries?page=1", ``, "unknown"},
		{"POST", "/v1/jobs", job(`"webhook":"https://127.0.0.1/"`), "not a public one"},
		{"POST", "/v1/jobs", job(`"webhook_events_filter":["job.started"]`), "no webhook to filter"},
		{"POST", "/v1/jobs", job(`"webhook":"https://example.org","webhook_events_filter":["batch.completed"]`), "no event"},
	} {
		refused(t, h, c.method, c.path, c.body, http.StatusBadRequest, c.words)
	}
	var all sync.WaitGroup
	for range catalog.MaxEndpoints - 1 {
		all.Go(func() { h.Do(t, "POST", "/v1/webhooks", `{"url":"https://example.org/a"}`) })
	}
	all.Wait()
	refused(t, h, "POST", "/v1/webhooks", `{"url":"https://example.org/a"}`, http.StatusConflict, "delete one first")
}

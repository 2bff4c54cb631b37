package gateway_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"helicon/gateway"
	"helicon/gateway/catalog"
	"helicon/gateway/internal/harness"
)

// readiness is an answer of GET /readyz.
type readiness struct {
	Ready  bool
	Checks map[string]struct {
		OK           bool
		Code, Detail string
	}
}

// TestReadyWithoutDatabase closes the database of a gateway that requires no keys: jobs are
// accepted all the same, and what does not work is told.
func TestReadyWithoutDatabase(t *testing.T) {
	t.Parallel()
	record, err := catalog.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := harness.Start(t, gateway.Config{Catalog: record})
	if err := record.Close(); err != nil {
		t.Fatal(err)
	}
	var ready readiness
	h.Do(t, "GET", "/readyz", "").JSON(t, http.StatusOK, &ready)
	if !ready.Ready || ready.Checks["database"].OK || ready.Checks["database"].Code != "unavailable" || !ready.Checks["queue"].OK {
		t.Errorf("readiness %+v", ready)
	}
}

// TestDrain ends a gateway that is given time: it says that it is not ready, and answers.
func TestDrain(t *testing.T) {
	t.Parallel()
	h := harness.Start(t, gateway.Config{Drain: time.Second})
	ended := make(chan error, 1)
	go func() { ended <- h.Stop() }()
	var ready readiness
	for answer := h.Do(t, "GET", "/readyz", ""); ; answer = h.Do(t, "GET", "/readyz", "") {
		if answer.Status == http.StatusServiceUnavailable {
			answer.JSON(t, http.StatusServiceUnavailable, &ready)
			break
		}
	}
	if ready.Ready || ready.Checks["server"].Code != "shutting_down" {
		t.Errorf("readiness %+v", ready)
	}
	if a := h.Do(t, "GET", "/v1/tasks", ""); a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestMetrics reads what requests have left in the metrics, whose labels have no end to be
// afraid of.
func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	h := harness.Start(t, gateway.Config{Metrics: registry})
	h.Worker(t, "w1", echo)
	h.Do(t, "POST", "/v1/jobs", `{"task":"text.complete","input":{"prompt":"a"},"priority":"high"}`, "Prefer", "wait=20")
	for _, path := range []string{"/v1/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/v1/made/up", "/any/file"} {
		h.Do(t, "GET", path, "")
	}
	h.Do(t, "BREW", "/v1/tasks", "")
	page := string(h.Do(t, "GET", "/metrics", "").Body)
	for _, line := range []string{
		`helicon_http_requests_total{method="POST",route="/v1/jobs",status="200"} 1`,
		`helicon_http_requests_total{method="GET",route="/v1/jobs/:id",status="404"} 1`,
		`helicon_http_requests_total{method="GET",route="unknown",status="404"} 1`,
		`helicon_http_requests_total{method="GET",route="studio",status="404"} 1`,
		`helicon_http_requests_total{method="other",route="unknown",status="405"} 1`,
		`helicon_jobs_submitted_total{priority="high",task="text.complete"} 1`,
		`helicon_queue_jobs{modality="text",priority="high",state="waiting"} 0`,
		`helicon_queue_up 1`, `helicon_workers{modality="text"} 1`, `helicon_http_streams 0`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("no %s in\n%s", line, page)
		}
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

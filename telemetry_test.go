package main

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collectorServer is an OpenTelemetry collector that keeps the names of spans by their trace.
type collectorServer struct {
	*httptest.Server
	mu    sync.Mutex
	spans map[string][]string
}

func newCollector(t *testing.T) *collectorServer {
	t.Helper()
	c := &collectorServer{spans: map[string][]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, of := range request.ResourceSpans {
			for _, in := range of.ScopeSpans {
				for _, s := range in.Spans {
					id := hex.EncodeToString(s.TraceId)
					c.spans[id] = append(c.spans[id], s.Name)
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// TestTraceFromRequestToCommit follows one job through a whole server into a collector.
func TestTraceFromRequestToCommit(t *testing.T) {
	t.Parallel()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for name, start := range map[string]func(url string) *process{
		"flag": func(url string) *process {
			return launch(t, "serve", "--addr", "127.0.0.1:0", "--data", t.TempDir(), "--workers", "text", "--otlp", url)
		},
		"environment": func(url string) *process {
			cmd := command(t.Context(), "serve", "--addr", "127.0.0.1:0", "--data", t.TempDir(), "--workers", "text")
			cmd.Env = append(cmd.Env, "OTEL_EXPORTER_OTLP_ENDPOINT="+url)
			return start(t, cmd)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCollector(t)
			p := start(c.URL)
			server := p.address(t)
			awaitWorkers(t, server, 1)
			resp, err := server.do(t.Context(), http.MethodPost, "/v1/jobs",
				strings.NewReader(`{"task":"text.complete","input":{"prompt":"Once","max_tokens":8}}`),
				map[string]string{"traceparent": "00-" + trace + "-b7ad6b7169203331-01", "Prefer": "wait=30"})
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			p.terminate(t) // what is left is sent
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, span := range []string{"POST /v1/jobs", "wait in queue", "run text.complete", "load helicon-text", "prepare", "steps", "commit"} {
				if !slices.Contains(c.spans[trace], span) {
					t.Errorf("no span %q in %q\n%s", span, c.spans[trace], p.log)
				}
			}
		})
	}
}

// TestWorkerShowsMetrics reads what a worker of its own counts.
func TestWorkerShowsMetrics(t *testing.T) {
	t.Parallel()
	data, port, shown := t.TempDir(), freePort(t), "127.0.0.1:"+freePort(t)
	gateway := launch(t, "gateway", "--addr", "127.0.0.1:0", "--data", data, "--nats-listen", "127.0.0.1:"+port)
	server := gateway.address(t)
	launch(t, "worker", "--modality", "text", "--nats", "nats://127.0.0.1:"+port, "--data", data, "--metrics", shown)
	awaitWorkers(t, server, 1)
	job, err := server.submit(t.Context(), completion("Once", 4, 1))
	if err != nil {
		t.Fatal(err)
	}
	finish(t, server, job.ID)
	for address, want := range map[string][]string{
		"http://" + shown + "/healthz": {`"ok"`},
		"http://" + shown + "/metrics": {`helicon_job_attempts_total{task="text.complete"} 1`, "helicon_model_loads_total 1", "go_goroutines", "process_resident_memory_bytes"},
		server.base + "/metrics":       {`helicon_jobs_submitted_total{priority="normal",task="text.complete"} 1`, `helicon_queue_jobs{modality="text",priority="normal",state="waiting"} 0`, `helicon_workers{modality="text"} 1`},
	} {
		resp, err := http.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains(string(page), line) {
				t.Errorf("%s: no %q in\n%s", address, line, page)
			}
		}
	}
}

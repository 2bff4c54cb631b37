package generators_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"helicon/generators"
	"helicon/queue"
)

const (
	clientTrace  = "0af7651916cd43dd8448eb211c80319c"
	clientParent = "00-" + clientTrace + "-b7ad6b7169203331-01"
)

// telemetry runs one job, of a model that has to be loaded, which is tried twice, and returns
// what was traced and counted.
func telemetry(t *testing.T) (tracetest.SpanStubs, *prometheus.Registry) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	registry := prometheus.NewRegistry()
	memory := generators.NewMemory(1 << 20)
	q := openQueue(t, queue.Options{})
	_, stop := startWorker(t, generators.Config{
		Queue: q, Memory: memory, Metrics: registry, Tracer: provider,
		Generators: []generators.Generator{scripted{
			need: func(*queue.Job) generators.Need {
				return generators.Need{Model: generators.Footprint{Key: "script", Bytes: 1000}}
			},
			run: func(ctx context.Context, job *queue.Job, out generators.Output) (*queue.Result, error) {
				_, done, err := generators.Use(ctx, memory, generators.Footprint{Key: "script", Bytes: 1000},
					func(context.Context) (io.Closer, error) { return io.NopCloser(nil), nil })
				if err != nil {
					return nil, err
				}
				defer done()
				if job.Attempts == 1 {
					return nil, generators.Transient(queue.Problemf("busy", "Not now."))
				}
				result := write("one two three", out)
				result.Usage = &queue.Usage{InputTokens: 4, OutputTokens: 3}
				return result, nil
			},
		}},
	})
	job := submit(t, q, func(j *queue.Job) { j.Trace = clientParent })
	awaitState(t, q, job.ID, queue.Succeeded)
	stop() // the last span ends behind the commit
	return spans.GetSpans(), registry
}

// TestOneTraceAJob looks at the spans of a job: all are of the trace that its client began,
// and those of an attempt lie within it.
func TestOneTraceAJob(t *testing.T) {
	t.Parallel()
	spans, _ := telemetry(t)
	var names []string
	runs := map[string]int{} // by span id, the attempt
	for _, s := range spans {
		names = append(names, s.Name)
		if got := s.SpanContext.TraceID().String(); got != clientTrace {
			t.Errorf("the span %q is of the trace %s, want the client's", s.Name, got)
		}
		if strings.HasPrefix(s.Name, "run ") {
			runs[s.SpanContext.SpanID().String()] = len(runs) + 1
		}
		if s.EndTime.Before(s.StartTime) {
			t.Errorf("the span %q ends before it begins", s.Name)
		}
	}
	want := map[string]int{"wait in queue": 2, "run text.complete": 2, "load script": 1, "prepare": 2, "steps": 1, "finish": 1, "commit": 2}
	for name, n := range want {
		if got := len(slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s != name })); got != n {
			t.Errorf("%d spans %q, want %d (of %q)", got, name, n, names)
		}
	}
	for _, s := range spans {
		parent := s.Parent.SpanID().String()
		if within := s.Name != "wait in queue" && !strings.HasPrefix(s.Name, "run "); within != (runs[parent] > 0) {
			t.Errorf("the span %q has the parent %s", s.Name, parent)
		}
	}
}

// TestWorkerCounts compares what is counted with what has happened.
func TestWorkerCounts(t *testing.T) {
	t.Parallel()
	_, registry := telemetry(t)
	expected := `
# HELP helicon_job_attempts_total Attempts at jobs that were begun.
# TYPE helicon_job_attempts_total counter
helicon_job_attempts_total{task="text.complete"} 2
# HELP helicon_jobs_running Jobs that this worker holds now.
# TYPE helicon_jobs_running gauge
helicon_jobs_running{task="text.complete"} 0
# HELP helicon_memory_budget_bytes Memory that models and running jobs may take.
# TYPE helicon_memory_budget_bytes gauge
helicon_memory_budget_bytes 1.048576e+06
# HELP helicon_memory_used_bytes Memory that models and running jobs take by their estimates.
# TYPE helicon_memory_used_bytes gauge
helicon_memory_used_bytes 1000
# HELP helicon_model_cache_hits_total Uses of a model that was in memory already.
# TYPE helicon_model_cache_hits_total counter
helicon_model_cache_hits_total 1
# HELP helicon_model_evictions_total Models that were unloaded to make room for others.
# TYPE helicon_model_evictions_total counter
helicon_model_evictions_total 0
# HELP helicon_model_loads_total Models that were loaded into memory.
# TYPE helicon_model_loads_total counter
helicon_model_loads_total 1
# HELP helicon_tokens_total Tokens read (input) and written (output) by jobs that succeeded.
# TYPE helicon_tokens_total counter
helicon_tokens_total{direction="input",model="script"} 4
helicon_tokens_total{direction="output",model="script"} 3
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(expected),
		"helicon_job_attempts_total", "helicon_jobs_running", "helicon_memory_budget_bytes", "helicon_memory_used_bytes",
		"helicon_model_cache_hits_total", "helicon_model_evictions_total", "helicon_model_loads_total", "helicon_tokens_total"); err != nil {
		t.Error(err)
	}
	outcomes := map[string]uint64{}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "helicon_job_duration_seconds" && l.GetName() == "outcome" {
					outcomes[l.GetValue()] = m.GetHistogram().GetSampleCount()
				}
			}
		}
	}
	if len(outcomes) != 2 || outcomes["retried"] != 1 || outcomes["succeeded"] != 1 {
		t.Errorf("attempts by outcome: %v", outcomes)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("names of metrics: %v, %v", problems, err)
	}
}

package generators

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"helicon/queue"
)

// metrics count what a worker does. Their labels are tasks, models and a few fixed words:
// never a tenant or a job, of which there is no end.
type metrics struct {
	waits      *prometheus.HistogramVec // by task
	durations  *prometheus.HistogramVec // by task and outcome
	attempts   *prometheus.CounterVec   // by task
	firstToken *prometheus.HistogramVec // by model
	tokenRate  *prometheus.HistogramVec // by model
	tokens     *prometheus.CounterVec   // by model and direction
	running    *prometheus.GaugeVec     // by task
}

// newMetrics registers what the worker counts with r, which may be nil.
func newMetrics(r prometheus.Registerer, memory *Memory) *metrics {
	with := promauto.With(r)
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return with.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	memory.register(with)
	return &metrics{
		waits: histogram("helicon_job_wait_seconds", "Time from the acceptance of a job, or the end of its last attempt, to its lease.",
			prometheus.ExponentialBuckets(0.01, 3, 12), "task"), // 10 ms to 30 min
		durations: histogram("helicon_job_duration_seconds", "Time from the lease of a job to the end of that attempt.",
			prometheus.ExponentialBuckets(0.05, 2.5, 12), "task", "outcome"), // 50 ms to 20 min
		attempts: counter("helicon_job_attempts_total", "Attempts at jobs that were begun.", "task"),
		firstToken: histogram("helicon_time_to_first_token_seconds", "Time from the start of an attempt to the first text.",
			prometheus.ExponentialBuckets(0.01, 2, 12), "model"), // 10 ms to 20 s
		tokenRate: histogram("helicon_tokens_per_second", "Tokens of one job written a second, from its first text to its end.",
			prometheus.ExponentialBuckets(1, 2, 12), "model"),
		tokens: counter("helicon_tokens_total", "Tokens read (input) and written (output) by jobs that succeeded.", "model", "direction"),
		running: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "helicon_jobs_running", Help: "Jobs that this worker holds now.",
		}, []string{"task"}),
	}
}

// Outcomes of an attempt, as the label outcome has them.
const (
	outcomeSucceeded  = "succeeded"
	outcomeFailed     = "failed"
	outcomeCanceled   = "canceled"
	outcomeLost       = "lease_lost"
	outcomeHandedBack = "handed_back"
	outcomeRetried    = "retried"
	outcomeUnrecorded = "unrecorded" // the message server was away: the job is delivered again
)

// outcome names what became of an attempt, by the error that ended its run, the error of its
// commit and the state that the job has then.
func outcome(ran, committed error, state queue.State) string {
	switch {
	case errors.Is(committed, queue.ErrCanceled):
		return outcomeCanceled
	case errors.Is(committed, queue.ErrLeaseLost):
		return outcomeLost
	case committed != nil:
		return outcomeUnrecorded
	case state == queue.Succeeded:
		return outcomeSucceeded
	case state == queue.Failed:
		return outcomeFailed
	case errors.Is(ran, errDraining):
		return outcomeHandedBack
	}
	return outcomeRetried
}

// waiting is since when a job has waited for a worker: its acceptance, or the end of its last
// attempt.
func waiting(job *queue.Job) time.Time {
	if n := len(job.Failures); n > 0 {
		return job.Failures[n-1].Time
	}
	return job.Created
}

// leased records that a worker has a job from now on.
func (m *metrics) leased(job *queue.Job, now time.Time) {
	m.running.WithLabelValues(job.Task).Inc()
	m.waits.WithLabelValues(job.Task).Observe(now.Sub(waiting(job)).Seconds())
}

// left records that it has it no more.
func (m *metrics) left(job *queue.Job) { m.running.WithLabelValues(job.Task).Dec() }

// written records the speed of a text that is complete. first is when its first part came.
func (m *metrics) written(job *queue.Job, usage *queue.Usage, begun, first time.Time) {
	if usage == nil || usage.InputTokens+usage.OutputTokens == 0 {
		return
	}
	m.tokens.WithLabelValues(job.Model, "input").Add(float64(usage.InputTokens))
	m.tokens.WithLabelValues(job.Model, "output").Add(float64(usage.OutputTokens))
	if first.IsZero() {
		return // vectors, not a text
	}
	m.firstToken.WithLabelValues(job.Model).Observe(first.Sub(begun).Seconds())
	// The first token is what the time begins with.
	if took := time.Since(first).Seconds(); usage.OutputTokens > 1 && took > 0 {
		m.tokenRate.WithLabelValues(job.Model).Observe(float64(usage.OutputTokens-1) / took)
	}
}

// counts are what happened to the models of a Memory.
type counts struct{ hits, loads, evictions uint64 }

// register shows the budget and the cache of models.
func (m *Memory) register(with promauto.Factory) {
	gauge := func(name, help string, value func() float64) {
		with.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	counter := func(name, help string, of func(counts) uint64) {
		with.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return float64(of(m.counts))
		})
	}
	gauge("helicon_memory_budget_bytes", "Memory that models and running jobs may take.", func() float64 { return float64(m.Total()) })
	gauge("helicon_memory_used_bytes", "Memory that models and running jobs take by their estimates.", func() float64 { return float64(m.Used()) })
	gauge("helicon_models_loaded", "Models that are in memory.", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return float64(len(m.models))
	})
	counter("helicon_model_cache_hits_total", "Uses of a model that was in memory already.", func(c counts) uint64 { return c.hits })
	counter("helicon_model_loads_total", "Models that were loaded into memory.", func(c counts) uint64 { return c.loads })
	counter("helicon_model_evictions_total", "Models that were unloaded to make room for others.", func(c counts) uint64 { return c.evictions })
}

// observe records an attempt that has ended.
func (a *attempt) observe(ctx context.Context, result string, begun time.Time) {
	a.worker.metrics.durations.WithLabelValues(a.lease.Job.Task, result).Observe(time.Since(begun).Seconds())
	a.conclude(ctx, result)
}

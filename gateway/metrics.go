package gateway

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"helicon/queue"
)

// metrics count what the gateway does. Their labels are routes, tasks and a few fixed words:
// never a tenant, a job or a path, of which there is no end.
type metrics struct {
	requests  *prometheus.CounterVec   // by method, route and status
	durations *prometheus.HistogramVec // by method and route
	submitted *prometheus.CounterVec   // by task and priority
	rows      *prometheus.CounterVec   // by outcome
}

func newMetrics(g *Gateway) *metrics {
	with := promauto.With(g.config.Metrics)
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "helicon_http_streams", Help: "Event streams and waiting requests that are open.",
	}, func() float64 { return float64(len(g.streams)) })
	if record := g.config.Catalog; record != nil {
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "helicon_projection_lag_events", Help: "Events that wait to be projected into the catalog, as far as this gateway knows.",
		}, func() float64 { return float64(record.Lag().Events) })
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "helicon_projection_lag_seconds", Help: "For how long events have been waiting to be projected.",
		}, func() float64 { return record.Lag().Age.Seconds() })
	}
	return &metrics{
		requests: with.NewCounterVec(prometheus.CounterOpts{
			Name: "helicon_http_requests_total", Help: "Requests that were answered.",
		}, []string{"method", "route", "status"}),
		durations: with.NewHistogramVec(prometheus.HistogramOpts{
			Name: "helicon_http_request_duration_seconds", Help: "Time from a request's header to the end of its answer; event streams last as long as their clients.",
			Buckets: prometheus.ExponentialBuckets(0.001, 3, 11), // 1 ms to 1 min
		}, []string{"method", "route"}),
		submitted: with.NewCounterVec(prometheus.CounterOpts{
			Name: "helicon_jobs_submitted_total", Help: "Jobs that were accepted, repetitions of a request not counted.",
		}, []string{"task", "priority"}),
		rows: with.NewCounterVec(prometheus.CounterOpts{
			Name: "helicon_batch_rows_total", Help: "Rows of batches that have ended.",
		}, []string{"outcome"}),
	}
}

// rowEnded counts a row of a batch.
func (m *metrics) rowEnded(succeeded bool) {
	outcome := "failed"
	if succeeded {
		outcome = "succeeded"
	}
	m.rows.WithLabelValues(outcome).Inc()
}

// gauges ask how the queue stands whenever somebody wants to know: several gateways on one
// queue all tell the same.
type gauges struct {
	gateway *Gateway
	ctx     context.Context // of the request that asks: Prometheus' collectors are given none
	up      *prometheus.Desc
	jobs    *prometheus.Desc // by modality, priority and state
	oldest  *prometheus.Desc // by modality and priority
	workers *prometheus.Desc // by modality
}

func newGauges(ctx context.Context, g *Gateway) *gauges {
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &gauges{
		gateway: g, ctx: ctx,
		up: gauge("helicon_queue_up", "1 if the message server answers, else 0."),
		jobs: gauge("helicon_queue_jobs", "Jobs that have not ended: waiting for a worker, or given to one (running, or put aside until others have ended).",
			"modality", "priority", "state"),
		oldest:  gauge("helicon_queue_oldest_seconds", "How long the job has waited that waits longest; 0 if none waits.", "modality", "priority"),
		workers: gauge("helicon_workers", "Workers that are alive, by what they can do.", "modality"),
	}
}

// askTime bounds what one look at the queue may take.
const askTime = 3 * time.Second

// Describe implements prometheus.Collector.
func (q *gauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{q.up, q.jobs, q.oldest, q.workers} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (q *gauges) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(q.ctx, askTime)
	defer cancel()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	depths, err := q.gateway.queue.Depth(ctx)
	if err != nil {
		gauge(q.up, 0)
		return
	}
	gauge(q.up, 1)
	now := time.Now()
	for _, d := range depths {
		priority := string(d.Priority)
		gauge(q.jobs, float64(d.Waiting), d.Modality, priority, "waiting")
		gauge(q.jobs, float64(d.Given), d.Modality, priority, "given")
		age := 0.0
		if !d.Oldest.IsZero() {
			age = max(now.Sub(d.Oldest).Seconds(), 0)
		}
		gauge(q.oldest, age, d.Modality, priority)
	}
	listing, err := q.gateway.directory.list(ctx)
	if err != nil {
		return
	}
	alive := map[string]int{}
	for _, w := range listing.workers {
		for _, modality := range w.Modalities {
			alive[modality]++
		}
	}
	for modality, n := range alive {
		gauge(q.workers, float64(n), modality)
	}
}

// accepted counts a job that was accepted anew and names it in the span of its request.
func (g *Gateway) accepted(ctx context.Context, job *queue.Job, replayed bool, err error) {
	if err != nil {
		return
	}
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("helicon.job.id", job.ID))
	if !replayed {
		g.metrics.submitted.WithLabelValues(job.Task, string(job.Priority)).Inc()
	}
}

// observe counts the request and gives it a span.
func (g *Gateway) observe(c *gin.Context) {
	start := time.Now()
	end := g.trace(c)
	defer func() {
		status := c.Writer.Status()
		method, route := method(c.Request.Method), route(c)
		g.metrics.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
		g.metrics.durations.WithLabelValues(method, route).Observe(time.Since(start).Seconds())
		end(status)
	}()
	c.Next()
}

// method is a request's method as a label: clients may send any word.
func method(name string) string {
	switch name {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return name
	}
	return "other"
}

// route is a request's route as a label: its pattern, or one word for what has none.
func route(c *gin.Context) string {
	if pattern := c.FullPath(); pattern != "" {
		return pattern
	}
	if strings.HasPrefix(c.Request.URL.Path, "/v1/") {
		return "unknown"
	}
	return "studio"
}

// showMetrics answers GET /metrics in the format of Prometheus.
func (g *Gateway) showMetrics(c *gin.Context) error {
	standing := prometheus.NewRegistry()
	standing.MustRegister(newGauges(c.Request.Context(), g))
	all := prometheus.Gatherers{g.config.Metrics, standing}
	promhttp.HandlerFor(all, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(c.Writer, c.Request)
	return nil
}

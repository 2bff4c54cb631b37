package generators

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"helicon/queue"
)

// tracing is the name of the instrumentation in traces.
const tracing = "helicon/generators"

// begin returns ctx with a span for one attempt at a job: a part of the trace of the request
// that made the job. How long the job has waited is a span before it.
func (w *Worker) begin(ctx context.Context, job *queue.Job) context.Context {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": job.Trace})
	about := trace.WithAttributes(
		attribute.String("helicon.job.id", job.ID),
		attribute.String("helicon.job.task", job.Task),
		attribute.String("helicon.job.priority", string(job.Priority)),
		attribute.String("helicon.tenant", job.Tenant),
		attribute.Int("helicon.job.attempt", job.Attempts+1),
		attribute.String("helicon.worker", w.id),
	)
	_, wait := w.tracer.Start(ctx, "wait in queue", trace.WithTimestamp(waiting(job)), about)
	wait.End()
	ctx, _ = w.tracer.Start(ctx, "run "+job.Task, trace.WithSpanKind(trace.SpanKindConsumer), about)
	return ctx
}

// conclude ends the span of the attempt.
func (a *attempt) conclude(ctx context.Context, result string) {
	span, job := trace.SpanFromContext(ctx), a.lease.Job
	span.SetAttributes(attribute.String("helicon.outcome", result), attribute.String("helicon.model", job.Model))
	if job.Problem != nil {
		span.SetStatus(codes.Error, job.Problem.Detail)
	}
	span.End()
}

// within runs f in a span of its own below that of ctx. It costs nothing where ctx has none.
func within(ctx context.Context, name string, f func(context.Context) error) error {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return f(ctx)
	}
	ctx, span := parent.TracerProvider().Tracer(tracing).Start(ctx, name)
	defer span.End()
	err := f(ctx)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, "")
	}
	return err
}

// phases divides the making of a result by what it shows of itself, whatever makes it:
// everything before the first token or step is "prepare" (a model that is loaded has a span of
// its own within), then come the "steps", and "finish" is what follows the last of them.
// The zero value traces nothing.
type phases struct {
	ctx context.Context // of the attempt's span

	mu    sync.Mutex
	name  string
	span  trace.Span
	first time.Time // of the first text
}

// Names of phases.
const (
	phasePrepare = "prepare"
	phaseSteps   = "steps"
	phaseFinish  = "finish"
)

// enter ends the phase that lasts and begins the named one, unless it has begun already. The
// name "" begins none.
func (p *phases) enter(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.switchTo(name)
}

func (p *phases) switchTo(name string) {
	if p.name == name {
		return
	}
	if p.span != nil {
		p.span.End()
		p.span = nil
	}
	p.name = name
	if parent := trace.SpanFromContext(p.ctx); name != "" && parent.IsRecording() {
		_, p.span = parent.TracerProvider().Tracer(tracing).Start(p.ctx, name)
	}
}

// wrote notes that there is text.
func (p *phases) wrote() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first.IsZero() {
		p.first = time.Now()
	}
	p.switchTo(phaseSteps)
}

// stepped notes that step of total are done.
func (p *phases) stepped(step, total int) {
	switch {
	case step >= total:
		p.enter(phaseFinish)
	case step > 0:
		p.enter(phaseSteps)
	}
}

// end ends the last phase and returns when the first text came.
func (p *phases) end() (first time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.switchTo("")
	return p.first
}

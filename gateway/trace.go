package gateway

import (
	"context"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// tracing is the name of the instrumentation in traces.
const tracing = "helicon/gateway"

// trace begins the span of a request, within the client's trace if it names one (W3C Trace
// Context); end is called with the status of the answer. Where nothing is traced a client's
// trace is still passed on to the job.
func (g *Gateway) trace(c *gin.Context) (end func(status int)) {
	r := c.Request
	traced := g.config.Tracer != nil || r.Header.Get("traceparent") != ""
	if !traced || !strings.HasPrefix(r.URL.Path, "/v1/") {
		return func(int) {}
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := g.tracer.Start(ctx, method(r.Method)+" "+route(c), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", r.Method),
		attribute.String("http.route", c.FullPath()),
		attribute.String("url.path", r.URL.Path),
		attribute.String("helicon.request.id", requestID(c)),
	))
	c.Request = r.WithContext(ctx)
	return func(status int) {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
		span.End()
	}
}

// traceparent names the span of a request for whoever continues its trace; "" if it has none.
func traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// newRegistry is what a process counts: what the Go runtime and the operating system know of
// it, and what its parts add.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "helicon_build_info", Help: "1, with the version of the program.",
			ConstLabels: prometheus.Labels{"version": version(), "go": runtime.Version()},
		}, func() float64 { return 1 }),
	)
	return r
}

// traceFlags say where traces go.
type traceFlags struct {
	OTLP string `help:"Send traces to this OpenTelemetry collector, such as http://127.0.0.1:4318 (OTLP over HTTP); OTEL_EXPORTER_OTLP_ENDPOINT counts too." name:"otlp" placeholder:"URL"`
}

// validate refuses what is no address.
func (f traceFlags) validate() error {
	var u serverURL
	if f.OTLP != "" && u.UnmarshalText([]byte(f.OTLP)) != nil || f.OTLP != "" && !strings.Contains(f.OTLP, "://") {
		return fmt.Errorf("--otlp: %q is not an address such as http://127.0.0.1:4318", f.OTLP)
	}
	return nil
}

// wanted reports whether anybody asks for traces, by our flag or by OpenTelemetry's own settings.
func (f traceFlags) wanted() bool {
	return f.OTLP != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// flushTime is how long the last traces may take to be sent.
const flushTime = 2 * time.Second

// trace gives the environment a tracer if traces are wanted. stop sends what is left. Samplers,
// headers and the like are OpenTelemetry's own settings (OTEL_…).
func (f traceFlags) trace(ctx context.Context, env *environment, service string) (stop func(), err error) {
	if !f.wanted() {
		return func() {}, nil
	}
	var options []otlptracehttp.Option
	if f.OTLP != "" {
		options = append(options, otlptracehttp.WithEndpointURL(strings.TrimSuffix(f.OTLP, "/")+"/v1/traces"))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithHost(), resource.WithProcessPID(), resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", version())),
		resource.WithFromEnv(), // counts most
	)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { env.log.Warn("traces cannot be sent", "err", err) }))
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	env.tracer = provider
	return func() {
		flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		if err := provider.Shutdown(flushing); err != nil {
			env.log.Warn("the last traces could not be sent", "err", err)
		}
	}, nil
}

// probeFlags say where a process without a gateway shows how it is.
type probeFlags struct {
	Metrics string `help:"Show metrics (/metrics) and whether the process lives (/healthz) at this address." placeholder:"HOST:PORT"`
}

// serve shows what the process counts until ctx ends.
func (f probeFlags) serve(ctx context.Context, env *environment) error {
	if f.Metrics == "" {
		<-ctx.Done()
		return nil
	}
	listener, err := net.Listen("tcp", f.Metrics)
	if err != nil {
		return fmt.Errorf("%w (choose another address with --metrics)", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(env.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, `{"status":"ok"}`) })
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	env.log.Info("metrics are shown", "address", listener.Addr().String())
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

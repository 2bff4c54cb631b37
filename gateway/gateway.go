// Package gateway is Helicon's HTTP interface: the native job API with its event
// streams, uploads and artifacts, the OpenAI-compatible routes (package openai),
// and the studio. It turns requests into jobs on the queue and events of the queue
// into answers; it knows the tasks and models that workers advertise and never
// runs one.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"helicon/gateway/access"
	"helicon/gateway/catalog"
	"helicon/gateway/openai"
	"helicon/gateway/webhook"
	"helicon/queue"
)

// Config is what a Gateway is made from. Queue is required; the zero values of the
// rest are usable.
type Config struct {
	Queue   *queue.Queue
	Catalog *catalog.Catalog // keys and the record of jobs; nil: none
	Studio  fs.FS            // files served at /; nil: none
	Log     *slog.Logger     // nil: nothing is logged

	// RequireKeys refuses requests without a key of the catalog. Otherwise everyone is
	// the default tenant, and keys are not looked at.
	RequireKeys bool
	// Limits hold for each tenant that has none of his own in the catalog.
	Limits access.Limits

	// Inspect tells what the bytes of a file say about it beside their kind: size, and what
	// made it. nil: nothing is known of files. An error that a client may see is a
	// *queue.Problem.
	Inspect func(content io.Reader, about queue.Artifact) (Facts, error)

	// Hosts are names by which clients may call the server beside localhost and IP
	// addresses; "*" admits every name. Other names are refused, so that a web site
	// cannot reach a local server by pointing its own name at it.
	Hosts []string
	// KeepArtifacts is how long artifacts are kept after their last use that nothing refers
	// to; at least queue.LeastAge. 0: for good.
	KeepArtifacts time.Duration
	// Webhooks says where messages may be sent.
	Webhooks webhook.Policy
	// Origins are web sites ("https://example.org") whose scripts may use the API.
	Origins []string
	// Proxies are addresses and networks of those who are believed whom they forward for.
	Proxies []string

	Metrics *prometheus.Registry // where what is counted is registered, and what GET /metrics shows; nil: one of its own
	Tracer  trace.TracerProvider // where the spans of requests go; nil: nowhere

	// Backup writes all that the server keeps, as a tar archive. nil: it keeps nothing itself.
	Backup func(ctx context.Context, to io.Writer) error

	// Drain is how long Serve still answers when it is told to end, while GET /readyz says that
	// the server is not ready: time for balancers to notice. 0: it ends at once.
	Drain time.Duration

	MaxUpload  int64         // bytes of one upload; default 64 MiB
	MaxStreams int           // event streams and waiting requests at once; default 4096
	Heartbeat  time.Duration // pause after which a silent event stream is pinged; default 15 s
	Patience   time.Duration // how long a client may leave unread what is sent to it; default 20 s
}

func (c Config) withDefaults() (Config, error) {
	if c.Queue == nil {
		return c, errors.New("gateway: config: no queue")
	}
	if c.RequireKeys && c.Catalog == nil {
		return c, errors.New("gateway: config: keys are required, and there is no catalog to find them in")
	}
	if err := c.Limits.Validate(); err != nil {
		return c, fmt.Errorf("gateway: config: %w", err)
	}
	if c.KeepArtifacts != 0 && c.KeepArtifacts < queue.LeastAge {
		return c, fmt.Errorf("gateway: config: artifacts are to be kept at least %v", queue.LeastAge)
	}
	if c.MaxUpload < 0 || c.MaxStreams < 0 || c.Heartbeat < 0 || c.Patience < 0 || c.Drain < 0 {
		return c, errors.New("gateway: config: limits must not be negative")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	c.MaxUpload = cmp.Or(c.MaxUpload, 64<<20)
	c.MaxStreams = cmp.Or(c.MaxStreams, 4096)
	c.Heartbeat = cmp.Or(c.Heartbeat, 15*time.Second)
	c.Patience = cmp.Or(c.Patience, 20*time.Second)
	return c, nil
}

// Gateway serves the API. It is an http.Handler; Serve adds the connection's limits
// and an orderly end.
type Gateway struct {
	config    Config
	queue     *queue.Queue
	log       *slog.Logger
	directory *directory
	origins   *http.CrossOriginProtection
	studio    *studio
	keys      *access.Keyring // nil: none are required
	limiter   *access.Limiter
	metrics   *metrics
	tracer    trace.Tracer
	engine    *gin.Engine

	copying     sync.Mutex     // held while a backup is made
	draining    atomic.Bool    // Serve is about to end
	description map[string]any // of the API, without the tasks' inputs

	streams   chan struct{} // one element an open stream or waiting request
	closing   chan struct{} // closed when Serve begins to end
	closeOnce sync.Once
}

// New returns a Gateway on the queue.
func New(config Config) (*Gateway, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		config:    config,
		queue:     config.Queue,
		log:       config.Log,
		directory: newDirectory(config.Queue),
		origins:   http.NewCrossOriginProtection(),
		streams:   make(chan struct{}, config.MaxStreams),
		closing:   make(chan struct{}),
	}
	if config.RequireKeys {
		g.keys = access.NewKeyring(config.Catalog, config.Log)
	}
	g.limiter = access.NewLimiter(config.Limits, config.Catalog)
	for _, origin := range config.Origins {
		if err := g.origins.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("gateway: config: origins: %w", err)
		}
	}
	if config.Studio != nil {
		if g.studio, err = newStudio(config.Studio); err != nil {
			return nil, err
		}
	}
	g.metrics = newMetrics(g)
	g.tracer = noop.NewTracerProvider().Tracer(tracing)
	if config.Tracer != nil {
		g.tracer = config.Tracer.Tracer(tracing)
	}
	g.engine = g.routes()
	if err := g.engine.SetTrustedProxies(config.Proxies); err != nil {
		return nil, fmt.Errorf("gateway: config: proxies: %w", err)
	}
	if g.description, err = newDescription(g.engine.Routes()); err != nil {
		return nil, err
	}
	return g, nil
}

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.engine.ServeHTTP(w, r) }

// handler answers a request or returns the error to answer with.
type handler func(c *gin.Context) error

func (g *Gateway) routes() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false
	e.RedirectFixedPath = false
	e.ContextWithFallback = false
	e.Use(g.identify, g.observe, g.account, g.guard, g.authenticate)
	handle := func(method, path string, h handler) {
		e.Handle(method, path, func(c *gin.Context) {
			if err := h(c); err != nil {
				g.fail(c, err)
			}
		})
	}
	read := func(path string, h handler) { // what is read can be asked about, too
		handle("GET", path, h)
		handle("HEAD", path, h)
	}
	handle("POST", "/v1/jobs", g.submitJob)
	read("/v1/jobs", g.listJobs)
	read("/v1/jobs/:id", g.showJob)
	handle("DELETE", "/v1/jobs/:id", g.deleteJob)
	handle("POST", "/v1/jobs/:id/cancel", g.cancelJob)
	handle("POST", "/v1/jobs/:id/retry", g.retryJob)
	handle("GET", "/v1/jobs/:id/events", g.jobEvents)
	read("/v1/usage", g.showUsage)
	handle("GET", "/v1/events", g.allEvents)
	handle("POST", "/v1/batches", g.createBatch)
	read("/v1/batches", g.listBatches)
	read("/v1/batches/:id", g.showBatch)
	handle("DELETE", "/v1/batches/:id", g.deleteBatch)
	handle("POST", "/v1/batches/:id/cancel", g.cancelBatch)
	handle("POST", "/v1/batches/:id/retry", g.retryBatch)
	read("/v1/batches/:id/results", g.batchResults)
	handle("POST", "/v1/uploads", g.upload)
	read("/v1/artifacts/:sha256", g.artifact)
	read("/v1/artifacts/:sha256/info", g.artifactInfo)
	read("/v1/tasks", g.listTasks)
	read("/v1/models", g.listModels)
	read("/v1/models/*id", g.showModel)
	read("/v1/workers", g.listWorkers)
	read(sessionPath, g.showSession)
	handle("POST", sessionPath, g.openSession)
	handle("DELETE", sessionPath, g.closeSession)
	handle("POST", "/v1/webhooks", g.createWebhook)
	read("/v1/webhooks", g.listWebhooks)
	read("/v1/webhooks/secret", g.showWebhookSecret)
	handle("POST", "/v1/webhooks/secret/rotate", g.rotateWebhookSecret)
	read("/v1/webhooks/:id", g.showWebhook)
	handle("PATCH", "/v1/webhooks/:id", g.changeWebhook)
	handle("DELETE", "/v1/webhooks/:id", g.deleteWebhook)
	handle("POST", "/v1/webhooks/:id/rotate", g.rotateWebhook)
	handle("POST", "/v1/webhooks/:id/test", g.testWebhook)
	read("/v1/webhooks/:id/deliveries", g.listDeliveries)
	read("/v1/webhooks/:id/deliveries/:delivery", g.showDelivery)
	handle("POST", "/v1/webhooks/:id/deliveries/:delivery/redeliver", g.redeliver)
	read("/healthz", g.healthz)
	read("/readyz", g.readyz)
	handle("GET", "/metrics", g.showMetrics)
	handle("GET", backupPath, g.backup)
	handle("POST", garbagePath, g.collectGarbage)
	handle("GET", "/openapi.json", g.describeAPI)
	for _, h := range openai.New(backend{g}).Handlers() {
		handle(h.Method, h.Path, g.openAI(h))
	}
	e.NoRoute(func(c *gin.Context) {
		if err := g.serveStudio(c); err != nil {
			g.fail(c, err)
		}
	})
	e.NoMethod(func(c *gin.Context) {
		g.fail(c, queue.Problemf("method_not_allowed", "%s takes %s, not %s.", c.Request.URL.Path, c.Writer.Header().Get("Allow"), c.Request.Method))
	})
	return e
}

// Limits on connections. Handlers that wait or stream replace the deadlines by ones
// that move on with their progress.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 60 * time.Second // of a whole request
	writeTimeout  = 90 * time.Second // from the end of the header to the end of the answer
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	shutdownGrace = 9 * time.Second
)

// Serve answers the connections of the listener until ctx ends and Drain has passed; then it
// ends event streams and waiting requests at once, lets the others finish, and returns
// within 10 seconds. A Gateway serves once.
func (g *Gateway) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           g,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelWarn),
	}
	stopBatches, err := g.coordinate(ctx)
	if err != nil {
		return err
	}
	defer stopBatches()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		g.close()
		return fmt.Errorf("gateway: serve: %w", err)
	case <-ctx.Done():
	}
	g.drain()
	g.close()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	err = server.Shutdown(grace)
	if err != nil {
		// Whoever is still being answered is cut off: the process is about to end.
		err = errors.Join(err, server.Close())
	}
	<-served
	if err != nil {
		return fmt.Errorf("gateway: shutdown: %w", err)
	}
	return nil
}

func (g *Gateway) close() { g.closeOnce.Do(func() { close(g.closing) }) }

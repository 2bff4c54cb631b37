package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/shirou/gopsutil/v4/mem"
	"golang.org/x/sync/errgroup"

	"helicon/backup"
	"helicon/gateway"
	"helicon/generators"
	"helicon/generators/image"
	"helicon/generators/text"
	"helicon/models/hub"
	"helicon/models/tensor"
	"helicon/queue"
	"helicon/web"
)

// queueFlags say where jobs are kept.
type queueFlags struct {
	Data        string        `help:"Data directory; ${default} unless given." default:"${data}" placeholder:"DIR" type:"path"`
	Nats        []string      `help:"Use these NATS servers instead of the embedded one." placeholder:"URL"`
	NatsToken   string        `help:"Token for the NATS servers, unless it is in their URLs." placeholder:"TOKEN"`
	NatsListen  string        `help:"Let workers in other processes reach the embedded queue here; they need the token in its directory." placeholder:"HOST:PORT"`
	Sync        bool          `help:"Write every accepted job through to the disk before it is acknowledged, so that it survives power loss." default:"true" negatable:""`
	MaxStore    byteSize      `help:"Disk space for the embedded queue; 0 is no limit but the disk's." default:"0"`
	Replicas    int           `help:"Copies of every stream in a NATS cluster; 0 means 3 with several servers, and otherwise what there is." default:"0"`
	Retention   time.Duration `help:"How long the record of a job is kept." default:"168h"`
	MaxAttempts int           `help:"How often a job is begun before it fails for good." default:"5"`
	storeFlags
}

// validate refuses numbers that mean nothing.
func (f queueFlags) validate() error {
	switch {
	case f.Retention <= 0:
		return errors.New("--retention: want more than 0")
	case f.MaxAttempts < 1:
		return errors.New("--max-attempts: want at least 1")
	case f.Replicas < 0:
		return errors.New("--replicas: want at least 0")
	}
	return f.storeFlags.validate()
}

// open connects to the queue, starting the embedded server if no other is named, and
// waits for the named ones if they cannot be reached. close ends the connection and
// the server.
func (f queueFlags) open(ctx context.Context, env *environment, name string) (q *queue.Queue, close func(), err error) {
	store, err := f.storeFlags.open(ctx, env)
	if err != nil {
		return nil, nil, err
	}
	if len(f.Nats) == 0 {
		return f.openEmbedded(ctx, env.log, store)
	}
	for told := false; ; told = true {
		nc, err := queue.Connect(strings.Join(f.Nats, ","), f.token(), name)
		if err == nil {
			if q, err = f.openQueue(ctx, nc, queue.Options{Store: store}); err == nil {
				return q, nc.Close, nil
			}
			nc.Close()
		}
		if !errors.Is(err, queue.ErrUnavailable) || ctx.Err() != nil {
			return nil, nil, err
		}
		if !told {
			env.log.Error("the queue cannot be reached; trying again until it can", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

func (f queueFlags) openEmbedded(ctx context.Context, log *slog.Logger, store queue.Store) (*queue.Queue, func(), error) {
	srv, err := queue.StartServer(queue.ServerConfig{
		Dir: f.natsDir(), Listen: f.NatsListen, Sync: f.Sync, MaxStore: int64(f.MaxStore), Log: log,
	})
	if err != nil {
		return nil, nil, err
	}
	nc, err := srv.Connect()
	if err != nil {
		srv.Close()
		return nil, nil, err
	}
	close := func() { nc.Close(); srv.Close() }
	q, err := f.openQueue(ctx, nc, queue.Options{Full: srv.Full, Sync: f.Sync, Store: store})
	if err != nil {
		close()
		return nil, nil, err
	}
	return q, close, nil
}

// openTimeout bounds one attempt: a cluster that has no leader yet does not answer.
const openTimeout = 10 * time.Second

// openQueue opens the queue on a connection; the options say what is known of its server.
func (f queueFlags) openQueue(ctx context.Context, nc *nats.Conn, options queue.Options) (*queue.Queue, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	options.Replicas, options.Retention, options.MaxAttempts = f.replicas(), f.Retention, f.MaxAttempts
	return queue.Open(ctx, nc, options)
}

func (f queueFlags) natsDir() string { return filepath.Join(f.Data, "nats") }

func (f queueFlags) replicas() int {
	switch {
	case f.Replicas > 0:
		return f.Replicas
	case len(f.Nats) > 1:
		return 3
	}
	return 0
}

// token is the given one, or the one that an embedded server of this user has left
// in the data directory.
func (f queueFlags) token() string {
	if f.NatsToken != "" || slices.ContainsFunc(f.Nats, func(url string) bool { return strings.Contains(url, "@") }) {
		return f.NatsToken
	}
	token, err := queue.ReadToken(f.natsDir())
	if err != nil {
		return ""
	}
	return token
}

// httpFlags say where the gateway listens.
type httpFlags struct {
	Addr      string   `help:"Address to listen on; ${default} unless given." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	Hosts     []string `help:"Host names by which clients may call the server beside localhost and IP addresses; * for any." placeholder:"NAME"`
	Origins   []string `help:"Web sites whose scripts may use the API." placeholder:"URL"`
	MaxUpload byteSize `help:"Largest upload." default:"64MiB"`

	Drain time.Duration `help:"How long to go on answering when told to stop, while /readyz says no: time for a balancer to notice." default:"0s"`
	databaseFlags
	recordFlags
	accessFlags
	webhookFlags
	artifactFlags
}

// validate refuses a limit that lets nothing through.
func (f httpFlags) validate() error {
	if f.MaxUpload < 1 {
		return errors.New("--max-upload: want at least 1 byte")
	}
	if f.Drain < 0 {
		return errors.New("--drain: want at least 0")
	}
	if f.KeepJobs < 0 {
		return errors.New("--keep-jobs: want at least 0")
	}
	return cmp.Or(f.limitFlags.validate(), f.artifactFlags.validate())
}

// serve answers HTTP until ctx ends. store says where the data are.
func (f httpFlags) serve(ctx context.Context, env *environment, q *queue.Queue, store queueFlags) error {
	listener, err := net.Listen("tcp", f.Addr)
	if err != nil {
		return fmt.Errorf("%w (choose another address with --addr)", err)
	}
	cat, err := f.openCatalog(ctx, env, store)
	if err != nil {
		listener.Close()
		return err
	}
	defer cat.Close()
	keys, err := f.requireKeys(ctx, listener.Addr(), cat, f.createKey(store.Data))
	if err != nil {
		listener.Close()
		return err
	}
	g, err := gateway.New(gateway.Config{
		Queue: q, Studio: web.Files(), Log: env.log,
		Hosts: f.Hosts, Origins: f.Origins, MaxUpload: int64(f.MaxUpload), Inspect: inspect,
		Metrics: env.metrics, Tracer: env.tracer, Drain: f.Drain,
		Backup:  func(ctx context.Context, to io.Writer) error { return backup.Write(ctx, to, q.Conn(), cat, version()) },
		Catalog: cat, Webhooks: f.policy(), KeepArtifacts: f.KeepArtifacts, RequireKeys: keys, Limits: f.limits(keys), Proxies: f.TrustedProxies,
	})
	if err != nil {
		listener.Close()
		return err
	}
	fmt.Fprintf(env.stdout, "Helicon is ready: http://%s\n", listener.Addr())
	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error { return g.Serve(serving, listener) })
	group.Go(func() error { return cat.Follow(serving, q) })
	group.Go(func() error { return f.deliver(serving, env, cat) })
	group.Go(func() error { return f.collect(serving, env, q, cat) })
	group.Go(func() error { return followLimits(serving, env, keys, g.SetLimits) })
	return group.Wait()
}

// engineFlags say what workers may use.
type engineFlags struct {
	Models  string        `help:"Folder of model bundles; ${default} unless given." default:"${data}/models" placeholder:"DIR" type:"path"`
	Threads int           `help:"Cores to compute on; 0 means all." default:"0"`
	CPU     tensor.Level  `help:"Highest level of processor instructions to use: generic, avx2, avx512 or amx; the best unless given." name:"cpu" placeholder:"LEVEL"`
	Compute computeType   `help:"Type that pictures are computed in: auto is bf16 where the processor is fast at it and else the one that the model's weights have; f32 is the most exact, int8 takes the least memory." default:"auto" placeholder:"TYPE"`
	Mem     byteSize      `help:"Memory for models and running jobs; 0 means 3/4 of the machine's." default:"0"`
	Slots   int           `help:"Jobs of each kind to run at once; 0 means 16 texts, which are written together, and one of any other kind." default:"0"`
	Grace   time.Duration `help:"How long running jobs may go on when the worker is told to stop, before they are handed back." default:"7s"`
}

// validate refuses numbers that mean nothing.
func (f engineFlags) validate() error {
	if f.Threads < 0 || f.Slots < 0 || f.Grace < 0 {
		return errors.New("--threads, --slots and --grace: want at least 0")
	}
	return checkLevel(f.CPU)
}

// checkLevel refuses instructions that the machine does not have.
func checkLevel(l tensor.Level) error {
	if !l.Supported() {
		return fmt.Errorf("--cpu: this machine has no %v, only %v", l, tensor.BestLevel())
	}
	return nil
}

func (f engineFlags) threads() int {
	if f.Threads > 0 {
		return f.Threads
	}
	return runtime.NumCPU()
}

func (f engineFlags) memory() (int64, error) {
	if f.Mem > 0 {
		return int64(f.Mem), nil
	}
	m, err := mem.VirtualMemory()
	if err != nil {
		return 0, fmt.Errorf("size of the machine's memory: %w (set it with --mem)", err)
	}
	return int64(m.Total / 4 * 3), nil
}

// modalities are the kinds of work that this program has generators for.
var modalities = []string{"text", "image"}

// computeType is a type that networks are computed in, by the name that users give it; 0 is
// for the program to choose.
type computeType tensor.DType

// on returns the type to compute in on a pool; 0 is the one that the weights have.
func (c computeType) on(pool *tensor.Pool) tensor.DType {
	if c == 0 && pool.FastBF16() {
		return tensor.BF16
	}
	return tensor.DType(c)
}

// UnmarshalText reads a name.
func (c *computeType) UnmarshalText(text []byte) error {
	types := map[string]tensor.DType{"auto": 0, "f32": tensor.F32, "bf16": tensor.BF16, "int8": tensor.I8}
	d, ok := types[string(text)]
	if !ok {
		return fmt.Errorf("%q is none of auto, f32, bf16 and int8", text)
	}
	*c = computeType(d)
	return nil
}

// engine is a worker and what it computes with.
type engine struct {
	worker *generators.Worker
	memory *generators.Memory
	pool   *tensor.Pool
}

// checkModalities refuses kinds of work that there is no generator for.
func checkModalities(kinds []string) error {
	for _, kind := range kinds {
		if !slices.Contains(modalities, kind) {
			return fmt.Errorf("no worker for %q; there are: %s", kind, strings.Join(modalities, ", "))
		}
	}
	return nil
}

// open prepares a worker for some modalities and makes its tasks known to the queue, so
// that jobs can be submitted from then on.
func (f engineFlags) open(ctx context.Context, env *environment, q *queue.Queue, kinds []string) (*engine, error) {
	budget, err := f.memory()
	if err != nil {
		return nil, err
	}
	bundles, err := hub.Open(hub.Config{Dir: f.Models})
	if err != nil {
		return nil, err
	}
	for _, b := range bundles.Bundles() {
		if b.Problem != nil {
			env.log.Info("a model cannot be used", "model", b.ID, "source", b.Source, "err", b.Problem)
		}
	}
	e := &engine{memory: generators.NewMemory(budget), pool: tensor.NewPool(tensor.Config{Threads: f.threads(), Level: f.CPU})}
	all, err := e.generators(f, env.log, q, bundles)
	if err == nil {
		err = e.hire(ctx, generators.Config{
			Queue: q, Memory: e.memory, Log: env.log, Slots: f.Slots, Version: version(), Grace: f.Grace,
			Metrics: env.metrics, Tracer: env.tracer,
		}, all, kinds)
	}
	if err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// generators makes those that this program has, by modality.
func (e *engine) generators(f engineFlags, log *slog.Logger, q *queue.Queue, bundles *hub.Hub) (map[string]generators.Generator, error) {
	writer, err := text.New(text.Config{Hub: bundles, Memory: e.memory, Pool: e.pool, Log: log})
	if err != nil {
		return nil, err
	}
	painter, err := image.New(image.Config{
		Hub: bundles, Memory: e.memory, Artifacts: q, Pool: e.pool, Compute: f.Compute.on(e.pool), Log: log,
	})
	return map[string]generators.Generator{"text": writer, "image": painter}, err
}

// hire makes the worker, with the generators of some modalities.
func (e *engine) hire(ctx context.Context, c generators.Config, all map[string]generators.Generator, kinds []string) error {
	for _, kind := range modalities {
		if !slices.Contains(kinds, kind) {
			continue
		}
		c.Generators = append(c.Generators, all[kind])
		if err := c.Queue.Define(ctx, all[kind].Tasks()); err != nil {
			return err
		}
	}
	var err error
	e.worker, err = generators.NewWorker(c)
	return err
}

// run works until ctx ends and then lets go of models and threads.
func (e *engine) run(ctx context.Context) error {
	if err := e.worker.Run(ctx); err != nil {
		return err // a job that did not stop may still compute on them
	}
	e.close()
	return nil
}

func (e *engine) close() {
	e.memory.Close()
	e.pool.Close()
}

// serveCmd is everything in one process.
type serveCmd struct {
	queueFlags
	httpFlags
	engineFlags
	traceFlags
	Workers []string `help:"Modalities to work on in this process: text, image; none for none." default:"text,image"`
}

func (c *serveCmd) works() bool { return !slices.Equal(c.Workers, []string{"none"}) }

// Validate refuses settings that mean nothing and work that nobody could do.
func (c *serveCmd) Validate() error {
	var unknown error
	if c.works() {
		unknown = checkModalities(c.Workers)
	}
	return cmp.Or(c.queueFlags.validate(), c.httpFlags.validate(), c.engineFlags.validate(), c.traceFlags.validate(), unknown)
}

// Run serves until the process is told to stop.
func (c *serveCmd) Run(ctx context.Context, env *environment) error {
	stopTraces, err := c.traceFlags.trace(ctx, env, "helicon-serve")
	if err != nil {
		return err
	}
	defer stopTraces()
	q, closeQueue, err := c.queueFlags.open(ctx, env, "helicon-serve")
	if err != nil {
		return ended(err)
	}
	defer closeQueue()
	group, running := errgroup.WithContext(ctx)
	if c.works() {
		e, err := c.engineFlags.open(ctx, env, q, c.Workers)
		if err != nil {
			return err
		}
		group.Go(func() error { return e.run(running) })
	}
	group.Go(func() error { return c.serve(running, env, q, c.queueFlags) })
	return ended(group.Wait())
}

// gatewayCmd is the front without workers.
type gatewayCmd struct {
	queueFlags
	httpFlags
	traceFlags
}

// Validate refuses settings that mean nothing.
func (c *gatewayCmd) Validate() error {
	return cmp.Or(c.queueFlags.validate(), c.httpFlags.validate(), c.traceFlags.validate())
}

// Run serves until the process is told to stop.
func (c *gatewayCmd) Run(ctx context.Context, env *environment) error {
	stopTraces, err := c.traceFlags.trace(ctx, env, "helicon-gateway")
	if err != nil {
		return err
	}
	defer stopTraces()
	q, closeQueue, err := c.queueFlags.open(ctx, env, "helicon-gateway")
	if err != nil {
		return ended(err)
	}
	defer closeQueue()
	return ended(c.serve(ctx, env, q, c.queueFlags))
}

// workerCmd is a worker for the queue of another process.
type workerCmd struct {
	queueFlags
	engineFlags
	traceFlags
	probeFlags
	Modality []string `help:"Modalities to work on: text, image." default:"text,image"`
}

// Validate refuses a worker that nobody could give work.
func (c *workerCmd) Validate() error {
	if len(c.Nats) == 0 {
		return errors.New("--nats is missing: the address of the queue, which helicon serve --nats-listen or a NATS server provides")
	}
	return cmp.Or(c.queueFlags.validate(), c.engineFlags.validate(), c.traceFlags.validate(), checkModalities(c.Modality))
}

// Run works until the process is told to stop.
func (c *workerCmd) Run(ctx context.Context, env *environment) error {
	stopTraces, err := c.traceFlags.trace(ctx, env, "helicon-worker")
	if err != nil {
		return err
	}
	defer stopTraces()
	q, closeQueue, err := c.queueFlags.open(ctx, env, "helicon-worker")
	if err != nil {
		return ended(err)
	}
	defer closeQueue()
	e, err := c.engineFlags.open(ctx, env, q, c.Modality)
	if err != nil {
		return err
	}
	env.log.Info("worker started", "worker", e.worker.ID(), "modalities", c.Modality)
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return c.probeFlags.serve(running, env) })
	group.Go(func() error { return e.run(running) })
	return ended(group.Wait())
}

// ended takes the end that was asked for as a success.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

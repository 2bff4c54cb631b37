package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/singleflight"
)

// Errors on which callers decide.
var (
	ErrNotFound    = errors.New("queue: no such job")
	ErrFinished    = errors.New("queue: the job has already ended")
	ErrNotFinished = errors.New("queue: the job has not ended")
	ErrTooLarge    = errors.New("queue: larger than a message may be")
	ErrUnavailable = errors.New("queue: the message server cannot be reached")
	ErrFull        = errors.New("queue: the storage of the message server is full")
	ErrKeyReused   = errors.New("queue: the idempotency key was used with another request")
	ErrLeaseLost   = errors.New("queue: the lease was lost to another worker")
	ErrCanceled    = errors.New("queue: the job was canceled")
)

const (
	jobsStream   = "JOBS"
	eventsStream = "EVENTS"
	keysBucket   = "idempotency"
	tasksBucket  = "tasks"
	workerBucket = "workers"
	objectBucket = "artifacts"
	locksBucket  = "locks"

	// envelope is what a message may carry beside input and result: the job's other fields, headers.
	envelope = 64 << 10
)

// Options tune the topology. The zero value is usable.
type Options struct {
	Replicas    int           // copies of every stream in a cluster; 0 leaves them as they are, and makes new ones with 1
	AckWait     time.Duration // a lease without heartbeat lasts so long; default 10 s
	MaxAttempts int           // runs a job may begin before it fails for good; default 5
	Retention   time.Duration // how long an event is kept; a job that lives longer keeps its request; default 7 days
	WorkerTTL   time.Duration // a worker that is silent for so long is gone; default 15 s
	Sync        bool          // the server syncs every write to the disk (ServerConfig.Sync): write in groups
	Store       Store         // where artifacts are kept; nil: in the message servers
	Full        func() bool   // reports that the servers can store nothing; nil: they tell by themselves

	lineIdle time.Duration // tests let lines go sooner
}

func (o Options) withDefaults() Options {
	if o.AckWait == 0 {
		o.AckWait = 10 * time.Second
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = 5
	}
	if o.Retention == 0 {
		o.Retention = 7 * 24 * time.Hour
	}
	if o.lineIdle == 0 {
		o.lineIdle = lineIdle
	}
	if o.Full == nil {
		o.Full = func() bool { return false }
	}
	if o.WorkerTTL == 0 {
		o.WorkerTTL = 15 * time.Second
	}
	return o
}

// Queue is a connection to the streams. Its methods may be called concurrently.
type Queue struct {
	opts    Options
	nc      *nats.Conn
	js      jetstream.JetStream
	jobs    jetstream.Stream
	events  jetstream.Stream
	keys    bucket
	tasks   bucket
	workers bucket
	files   bucket
	batches bucket
	locks   bucket

	artifacts Store

	accepting *committer // to JOBS
	recording *committer // to EVENTS

	lines   sync.Map // of line, to the time at which this process opened it
	opening singleflight.Group

	accepted atomic.Int64 // jobs that this process has submitted
	tally    tally
}

// bucket is a key-value bucket and the stream that it is made of.
type bucket struct {
	jetstream.KeyValue
	stream jetstream.Stream
}

// Open creates the streams and buckets where they are missing and returns a Queue
// on them. The caller keeps and closes the connection.
func Open(ctx context.Context, nc *nats.Conn, opts Options) (*Queue, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	q := &Queue{
		opts: opts.withDefaults(), nc: nc, js: js,
		accepting: &committer{nc: nc, js: js}, recording: &committer{nc: nc, js: js},
	}
	for _, open := range []func(context.Context) error{q.adoptReplicas, q.openStreams, q.openBuckets} {
		if err := open(ctx); err != nil {
			return nil, fmt.Errorf("queue: open: %w", q.explain(err))
		}
	}
	return q, nil
}

// adoptReplicas settles on the copies that there are, if none are asked for: who knows one
// server of a cluster by name must not leave the others without their copies.
func (q *Queue) adoptReplicas(ctx context.Context) error {
	if q.opts.Replicas > 0 {
		return nil
	}
	q.opts.Replicas = 1
	stream, err := q.js.Stream(ctx, jobsStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", jobsStream, err)
	}
	q.opts.Replicas = max(1, stream.CachedInfo().Config.Replicas)
	return nil
}

func (q *Queue) openStreams(ctx context.Context) (err error) {
	q.jobs, err = q.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:       jobsStream,
		Subjects:   []string{"jobs.*.*.*.*"},
		Retention:  jetstream.WorkQueuePolicy,
		Storage:    jetstream.FileStorage,
		Duplicates: 2 * time.Minute,
		Replicas:   q.opts.Replicas,

		AllowAtomicPublish: true,
		// A headers-only copy of each new message wakes idle workers.
		RePublish: &jetstream.RePublish{Source: "jobs.*.*.*.*", Destination: "wake.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}", HeadersOnly: true},
	})
	if err != nil {
		return fmt.Errorf("stream %s: %w", jobsStream, err)
	}
	q.events, err = q.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:      eventsStream,
		Subjects:  []string{"events.*"},
		Retention: jetstream.LimitsPolicy,
		Storage:   jetstream.FileStorage,
		MaxAge:    q.opts.Retention,
		Replicas:  q.opts.Replicas,

		AllowAtomicPublish: true,
		// Republished after it is stored, so that whoever is woken can read it.
		RePublish: &jetstream.RePublish{Source: "events.*", Destination: "live.{{wildcard(1)}}", HeadersOnly: true},
	})
	if err != nil {
		return fmt.Errorf("stream %s: %w", eventsStream, err)
	}
	return nil
}

func (q *Queue) openBuckets(ctx context.Context) error {
	buckets := []struct {
		to     *bucket
		config jetstream.KeyValueConfig
	}{
		{&q.keys, jetstream.KeyValueConfig{Bucket: keysBucket, TTL: 24 * time.Hour}},
		{&q.tasks, jetstream.KeyValueConfig{Bucket: tasksBucket, MaxValueSize: 256 << 10}},
		{&q.workers, jetstream.KeyValueConfig{Bucket: workerBucket, TTL: q.opts.WorkerTTL, MaxValueSize: 512 << 10}},
		{&q.files, jetstream.KeyValueConfig{Bucket: filesBucket, MaxValueSize: maxRecord}},
		{&q.batches, jetstream.KeyValueConfig{Bucket: batchesBucket, TTL: q.opts.Retention, MaxValueSize: maxRecord}},
		{&q.locks, jetstream.KeyValueConfig{Bucket: locksBucket, TTL: lockTTL}},
	}
	for _, b := range buckets {
		b.config.Storage = jetstream.FileStorage
		b.config.Replicas = q.opts.Replicas
		stream, err := q.settled(ctx, "KV_"+b.config.Bucket, b.config.TTL, func() error {
			_, err := q.js.CreateOrUpdateKeyValue(ctx, b.config)
			return err
		})
		if err != nil {
			return fmt.Errorf("bucket %s: %w", b.config.Bucket, err)
		}
		kv, err := q.js.KeyValue(ctx, b.config.Bucket)
		if err != nil {
			return fmt.Errorf("bucket %s: %w", b.config.Bucket, err)
		}
		*b.to = bucket{kv, stream}
	}
	stream, err := q.settled(ctx, "OBJ_"+objectBucket, 0, func() error {
		_, err := q.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket: objectBucket, Storage: jetstream.FileStorage, Replicas: q.opts.Replicas,
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("bucket %s: %w", objectBucket, err)
	}
	objects, err := q.js.ObjectStore(ctx, objectBucket)
	if err != nil {
		return fmt.Errorf("bucket %s: %w", objectBucket, err)
	}
	if q.artifacts = q.opts.Store; q.artifacts == nil {
		q.artifacts = &objectStore{q, objects, stream}
	}
	return nil
}

// settled returns the stream of a bucket as it should be, made or changed by create if it is
// not. In a cluster its leader alone answers for it. Otherwise any copy does, even one that
// does not have yet what another has acknowledged: what one gateway stored, the next would
// not find. What is as it should be is left alone: a change costs a cluster a vote.
func (q *Queue) settled(ctx context.Context, name string, ttl time.Duration, create func() error) (jetstream.Stream, error) {
	alone := q.opts.Replicas > 1
	stream, err := q.js.Stream(ctx, name)
	if err == nil {
		if c := stream.CachedInfo().Config; c.Replicas == q.opts.Replicas && c.MaxAge == ttl && c.AllowDirect != alone {
			return stream, nil
		}
	} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, err
	}
	if err := create(); err != nil {
		return nil, err
	}
	if stream, err = q.js.Stream(ctx, name); err != nil || !alone {
		return stream, err
	}
	config := stream.CachedInfo().Config
	config.AllowDirect = false
	return q.js.UpdateStream(ctx, config)
}

// Ready reports whether the message server can be reached, has room, and answers for
// both streams.
func (q *Queue) Ready(ctx context.Context) error {
	if err := q.writable(); err != nil {
		return err
	}
	for _, s := range []jetstream.Stream{q.jobs, q.events} {
		if _, err := s.Info(ctx); err != nil {
			return fmt.Errorf("queue: ready: %w", q.explain(err))
		}
	}
	return nil
}

// MaxInput is how many bytes the input of a job, or the result of one, may have.
func (q *Queue) MaxInput() int { return (int(q.nc.MaxPayload()) - envelope) / 2 }

// connected fails at once while the connection is down, where nats.go would buffer.
func (q *Queue) connected() error {
	if !q.nc.IsConnected() {
		return ErrUnavailable
	}
	return nil
}

// writable is connected, and an answer for a full disk, on which a write would only
// time out.
func (q *Queue) writable() error {
	if q.opts.Full() {
		return ErrFull
	}
	return q.connected()
}

// explain adds to an error of the message server the sentinel that callers branch on.
func (q *Queue) explain(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case q.opts.Full():
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.As(err, &api) && (api.ErrorCode == insufficientResources || api.ErrorCode == storageExceeded || api.ErrorCode == streamStoreFailed):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case q.connected() != nil, errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrNoResponders),
		errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrTimeout),
		errors.Is(err, context.DeadlineExceeded), // the answer did not come in time
		api != nil && (api.ErrorCode == temporarilyUnavailable || api.ErrorCode == jetstream.JSErrCodeStreamNameInUse): // a cluster settles in
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// Error codes of nats-server (server/errors.json) that nats.go does not name.
const (
	temporarilyUnavailable jetstream.ErrorCode = 10008
	insufficientResources  jetstream.ErrorCode = 10023
	storageExceeded        jetstream.ErrorCode = 10047
	streamStoreFailed      jetstream.ErrorCode = 10077
)

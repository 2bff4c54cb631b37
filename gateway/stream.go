package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/queue"
)

// hold prepares a request to be answered slowly: no deadline cuts the connection,
// and the context also ends when the gateway stops, with errShuttingDown, or when the
// caller's key does. end must be called.
func (g *Gateway) hold(w http.ResponseWriter, r *http.Request) (ctx context.Context, end func(), err error) {
	select {
	case g.streams <- struct{}{}:
	default:
		return nil, nil, queue.Problemf("too_many_streams", "The server has %d event streams and waiting requests open, which is its limit.", cap(g.streams))
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		cancel(g.until(ctx))
	}()
	// A recorder in a test has no deadlines; a connection always has.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
	return ctx, func() {
		cancel(context.Canceled)
		<-done
		_ = control.SetWriteDeadline(time.Now().Add(g.config.Patience))
		<-g.streams
	}, nil
}

// keyCheck is the pause between looks at whether the key of a long request is still good.
const keyCheck = 5 * time.Second

// until waits for the end of ctx, or returns earlier with the reason to end it: the
// gateway stops, or the caller's key was revoked or expired.
func (g *Gateway) until(ctx context.Context) error {
	look := make(<-chan time.Time)
	id := principalOf(ctx).KeyID
	if id != "" {
		ticker := time.NewTicker(keyCheck)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-g.closing:
			return errShuttingDown
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look:
			if err := g.keys.Valid(ctx, id); err != nil {
				return err
			}
		}
	}
}

// reconnectPause is the time between attempts to go on watching while the message
// server is away.
const reconnectPause = time.Second

// watch yields a job's events like queue.Watch, and waits out interruptions of the
// message server. id "" stands for all jobs of the caller's tenant.
func (g *Gateway) watch(ctx context.Context, id string, after uint64) iter.Seq2[*queue.Event, error] {
	tenant := principalOf(ctx).Tenant
	return func(yield func(*queue.Event, error) bool) {
		for {
			events := g.queue.WatchAll(ctx, after)
			if id != "" {
				events = g.queue.Watch(ctx, id, after)
			}
			var interrupted bool
			for e, err := range events {
				if errors.Is(err, queue.ErrUnavailable) && ctx.Err() == nil {
					interrupted = true
					break
				}
				if err == nil {
					after = max(after, e.Seq)
					if e.Tenant != tenant {
						continue
					}
				}
				if !yield(e, err) {
					return
				}
			}
			if !interrupted {
				return
			}
			select {
			case <-time.After(reconnectPause):
			case <-ctx.Done():
				yield(nil, context.Cause(ctx))
				return
			}
		}
	}
}

// jobEvents answers GET /v1/jobs/{id}/events.
func (g *Gateway) jobEvents(c *gin.Context) error {
	after, err := resumeAfter(c)
	if err != nil {
		return err
	}
	job, err := g.job(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	if after > 0 && job.State.Terminal() && after >= job.Revision {
		c.Status(http.StatusNoContent) // which tells an EventSource not to come again
		c.Writer.WriteHeaderNow()
		return nil
	}
	return g.stream(c, job.ID, after)
}

// allEvents answers GET /v1/events.
func (g *Gateway) allEvents(c *gin.Context) error {
	after, err := resumeAfter(c)
	if err != nil {
		return err
	}
	return g.stream(c, "", after)
}

// resumeAfter reads the sequence of the last event that a client has seen.
func resumeAfter(c *gin.Context) (uint64, error) {
	if err := onlyQuery(c, "after"); err != nil {
		return 0, err
	}
	text, where := c.GetHeader("Last-Event-ID"), "the header Last-Event-ID"
	if text == "" {
		text, where = c.Query("after"), "the query parameter after"
	}
	if text == "" {
		return 0, nil
	}
	after, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, queue.Problemf("invalid_request", "%q is not the id of an event, in %s.", text, where)
	}
	return after, nil
}

// stream sends events (WHATWG HTML, server-sent events) until the job's end, or for
// all jobs until the client leaves. A client that does not read is let go.
func (g *Gateway) stream(c *gin.Context, id string, after uint64) error {
	ctx, end, err := g.hold(c.Writer, c.Request)
	if err != nil {
		return err
	}
	defer end()
	header := c.Writer.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // for nginx
	send := g.sender(c.Writer)
	if err := send([]byte("retry: 1000\n\n")); err != nil {
		return nil
	}
	events, stop := g.subscribe(ctx, id, after)
	defer stop()
	heartbeat := time.NewTicker(g.config.Heartbeat)
	defer heartbeat.Stop()
	for {
		var out bytes.Buffer
		select {
		case e, ok := <-events:
			if !ok {
				return nil
			}
			if err := frame(&out, e); err != nil {
				return err
			}
			heartbeat.Reset(g.config.Heartbeat)
		case <-heartbeat.C:
			out.WriteString(": ping\n\n")
		}
		if err := send(out.Bytes()); err != nil {
			return nil // the client has gone
		}
	}
}

// frame writes one event as it goes over the wire. An event that is not stored yet
// has no id: a client could not resume behind it.
func frame(out *bytes.Buffer, e *queue.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("gateway: event %d: %w", e.Seq, err)
	}
	if e.Seq > 0 {
		fmt.Fprintf(out, "id: %d\n", e.Seq)
	}
	fmt.Fprintf(out, "event: %s\ndata: %s\n\n", e.Type, data)
	return nil
}

// sender writes to a client at once, and gives up on one that does not read.
func (g *Gateway) sender(w http.ResponseWriter) func([]byte) error {
	control := http.NewResponseController(w)
	return func(b []byte) error {
		_ = control.SetWriteDeadline(time.Now().Add(g.config.Patience)) // a recorder in a test has none
		if _, err := w.Write(b); err != nil {
			return err
		}
		return control.Flush()
	}
}

// subscribe watches in a goroutine. The channel is closed at the end of the events;
// stop must be called and waits for the goroutine.
func (g *Gateway) subscribe(ctx context.Context, id string, after uint64) (_ <-chan *queue.Event, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan *queue.Event, 16)
	go func() {
		defer close(out)
		for e, err := range g.watch(ctx, id, after) {
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, queue.ErrNotFound) {
					g.log.Error("event stream broke", "job", id, "err", err)
				}
				return
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, func() {
		cancel()
		for range out {
		}
	}
}

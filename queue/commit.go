package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// committer publishes to one stream whose server syncs every write to the disk. What is
// handed over while a write is on its way is gathered and published as one atomic batch,
// which one sync serves: under load many messages share the time that one would take.
type committer struct {
	nc *nats.Conn
	js jetstream.JetStream

	mu      sync.Mutex
	waiting []*handed
	running bool // a goroutine publishes, until nothing waits
}

// handed is a message that waits for its acknowledgement.
type handed struct {
	msg  *nats.Msg
	ack  *jetstream.PubAck
	err  error
	done chan struct{}
}

func (h *handed) end(ack *jetstream.PubAck, err error) {
	h.ack, h.err = ack, err
	close(h.done)
}

// Limits of one batch; the server takes 1,000 messages at most.
const (
	maxGroup      = 256
	maxGroupBytes = 4 << 20

	commitTimeout = 5 * time.Second
)

// Headers of the server's atomic batches (NATS ADR-50).
const (
	batchID       = "Nats-Batch-Id"
	batchSequence = "Nats-Batch-Sequence"
	batchCommit   = "Nats-Batch-Commit"
)

// publish stores a message and returns its acknowledgement. When ctx ends first it is
// open whether the message was stored.
func (c *committer) publish(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	h := &handed{msg: msg, done: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, h)
	if !c.running {
		c.running = true
		go c.run(context.WithoutCancel(ctx))
	}
	c.mu.Unlock()
	select {
	case <-h.done:
		return h.ack, h.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run publishes group after group and ends when nothing waits.
func (c *committer) run(ctx context.Context) {
	for {
		group := c.take()
		if group == nil {
			return
		}
		c.commit(ctx, group)
	}
}

// take removes the next group from what waits.
func (c *committer) take() []*handed {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := 0, 0
	for n < min(len(c.waiting), maxGroup) && (n == 0 || bytes+len(c.waiting[n].msg.Data) <= maxGroupBytes) {
		bytes += len(c.waiting[n].msg.Data)
		n++
	}
	if n == 0 {
		c.running, c.waiting = false, nil
		return nil
	}
	group := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	return group
}

// commit publishes a group and ends its messages. A batch that the server refuses for the
// sake of one of them, as it does for one that it has already, is published one by one.
func (c *committer) commit(ctx context.Context, group []*handed) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	if len(group) == 1 {
		c.single(ctx, group[0])
		return
	}
	last, err := c.batch(ctx, group)
	var refused *jetstream.APIError
	if errors.As(err, &refused) {
		var each sync.WaitGroup
		for _, h := range group {
			each.Go(func() { c.single(ctx, h) })
		}
		each.Wait()
		return
	}
	for i, h := range group {
		if err != nil {
			h.end(nil, err)
			continue
		}
		ack := *last
		ack.Sequence -= uint64(len(group) - 1 - i)
		h.end(&ack, nil)
	}
}

func (c *committer) single(ctx context.Context, h *handed) {
	for _, name := range []string{batchID, batchSequence, batchCommit} {
		h.msg.Header.Del(name)
	}
	h.end(c.js.PublishMsg(ctx, h.msg))
}

// batch publishes a group as one and returns the acknowledgement of its last message. An
// error that is a *jetstream.APIError says that nothing was stored.
func (c *committer) batch(ctx context.Context, group []*handed) (*jetstream.PubAck, error) {
	id := NewID()
	for i, h := range group {
		h.msg.Header.Set(batchID, id)
		h.msg.Header.Set(batchSequence, strconv.Itoa(i+1))
		if i == len(group)-1 {
			break
		}
		if err := c.nc.PublishMsg(h.msg); err != nil {
			return nil, err
		}
	}
	last := group[len(group)-1].msg
	last.Header.Set(batchCommit, "1")
	answer, err := c.nc.RequestMsgWithContext(ctx, last)
	if err != nil {
		return nil, err
	}
	var ack struct {
		jetstream.PubAck
		Count int                 `json:"count"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return nil, fmt.Errorf("acknowledgement of a batch: %w", err)
	}
	if ack.Error != nil {
		return nil, ack.Error
	}
	if ack.Count != len(group) {
		return nil, fmt.Errorf("acknowledgement of a batch of %d: %d stored", len(group), ack.Count)
	}
	return &ack.PubAck, nil
}

// store publishes a message to the stream that a committer is for, in company if that pays.
func (q *Queue) store(ctx context.Context, c *committer, msg *nats.Msg) (*jetstream.PubAck, error) {
	if !q.opts.Sync {
		return q.js.PublishMsg(ctx, msg)
	}
	return c.publish(ctx, msg)
}

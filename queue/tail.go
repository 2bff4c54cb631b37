package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// EventLog describes the stream of events.
type EventLog struct {
	ID   string // differs if the stream was lost and made anew
	Last uint64 // sequence of its newest event
}

// EventLog returns how far the stream of events has come.
func (q *Queue) EventLog(ctx context.Context) (EventLog, error) {
	if err := q.connected(); err != nil {
		return EventLog{}, err
	}
	info, err := q.events.Info(ctx)
	if err != nil {
		return EventLog{}, fmt.Errorf("queue: event log: %w", q.explain(err))
	}
	return EventLog{ID: strconv.FormatInt(info.Created.UnixNano(), 36), Last: info.State.LastSeq}, nil
}

// Tail reads the events of all jobs in bulk. Where WatchAll asks for each event, at a
// round trip apiece, and leaves nothing on the server, a Tail has a consumer there and asks
// for hundreds at once: it is for one reader a process, which wants them all. It may not be
// used concurrently.
type Tail struct {
	q        *Queue
	consumer string
	next     string // subject that asks for more
	inbox    *nats.Subscription
	replies  string // prefix of the subjects that inbox takes: one a request
	requests int    // made so far
	asked    int    // events of the last request that are still to come
	reached  uint64 // sequence of the last event that was returned
	place    uint64 // of that event among those of the consumer
	pending  uint64
	pace     pace
}

// Limits on what a Tail asks for and holds in memory.
const (
	tailEvents = 1000
	tailBytes  = 4 << 20
)

// A request for events lasts for tailIdle; that it has ended may be told as much later as
// tailLate; the server forgets the consumer of a Tail that
// has gone after tailThreshold.
const (
	tailIdle      = 2 * time.Second
	tailLate      = 3 * time.Second
	tailThreshold = time.Minute
)

// errBroken says that a Tail cannot go on.
var errBroken = errors.New("queue: tail: the stream or the consumer has changed, or an answer was lost")

// Tail begins to read behind the event of sequence after. It ends with an error when the
// connection does; the reader then begins a new one behind the last event it has seen.
func (q *Queue) Tail(ctx context.Context, after uint64) (*Tail, error) {
	if err := q.connected(); err != nil {
		return nil, err
	}
	consumer, err := q.events.CreateConsumer(ctx, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       after + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: tailThreshold,
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return nil, fmt.Errorf("queue: tail: %w", q.explain(err))
	}
	about := consumer.CachedInfo()
	t := &Tail{q: q, consumer: about.Name, next: "$JS.API.CONSUMER.MSG.NEXT." + eventsStream + "." + about.Name, reached: after, pending: about.NumPending}
	t.replies = q.nc.NewInbox() + "."
	if t.inbox, err = q.nc.SubscribeSync(t.replies + "*"); err != nil {
		return nil, fmt.Errorf("queue: tail: %w", q.explain(err))
	}
	return t, nil
}

// Close ends the Tail and takes its consumer off the server.
func (t *Tail) Close(ctx context.Context) {
	// Where that fails, the connection has ended, or the server forgets the consumer after a while.
	_ = t.inbox.Unsubscribe()
	_ = t.q.events.DeleteConsumer(ctx, t.consumer)
}

// Pending is how many events were in the stream behind the last one returned when that
// was sent.
func (t *Tail) Pending() uint64 { return t.pending }

// Next waits for an event and returns it with those that follow within the time to
// gather, in the order of the stream, none left out that is retained; at most a thousand,
// fewer if they are large. An event that cannot be read has no Type.
func (t *Tail) Next(ctx context.Context, gather time.Duration) ([]*Event, error) {
	if err := t.pace.yield(ctx, t.q); err != nil {
		return nil, err
	}
	msg, err := t.receive(ctx)
	if err != nil {
		return nil, err
	}
	gathering, cancel := context.WithTimeout(ctx, gather)
	defer cancel()
	var events []*Event
	for size := 0; ; {
		e, err := t.event(msg)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
		if size += len(msg.Data); len(events) == tailEvents || size >= tailBytes {
			return events, nil
		}
		if msg, err = t.receive(gathering); err != nil {
			if gathering.Err() != nil {
				return events, nil
			}
			return nil, err
		}
	}
}

// receive returns the next message, which it asks for if necessary.
func (t *Tail) receive(ctx context.Context) (*nats.Msg, error) {
	for {
		if err := t.ask(); err != nil {
			return nil, err
		}
		patience, cancel := context.WithTimeout(ctx, tailIdle+tailLate)
		msg, err := t.inbox.NextMsgWithContext(patience)
		cancel()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded): // not even the request's end was told
			return nil, errBroken
		case err != nil:
			return nil, fmt.Errorf("queue: tail: %w", t.q.explain(err))
		}
		status := msg.Header.Get("Status")
		if status == "" {
			t.asked--
			return msg, nil
		}
		if msg.Subject != t.reply() {
			continue // of a request before, whose events have all come
		}
		// The request has ended: by its time, or because the next event would be too much.
		t.asked = 0
		if msg.Header.Get("Nats-Pending-Messages") == "" {
			return nil, fmt.Errorf("%w: status %s %s", errBroken, status, msg.Header.Get("Description"))
		}
		if status == "408" {
			if err := t.check(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// reply is the subject of what the server says of the last request.
func (t *Tail) reply() string { return t.replies + strconv.Itoa(t.requests) }

// ask requests events unless some that were asked for are still to come.
func (t *Tail) ask() error {
	if t.asked > 0 {
		return nil
	}
	request, err := json.Marshal(map[string]int64{
		"batch": tailEvents, "max_bytes": t.q.nc.MaxPayload() + tailBytes, "expires": int64(tailIdle),
	})
	if err == nil {
		t.requests++
		err = t.q.nc.PublishRequest(t.next, t.reply(), request)
	}
	if err != nil {
		return fmt.Errorf("queue: tail: %w", t.q.explain(err))
	}
	t.asked = tailEvents
	return nil
}

// check looks, when nothing has come for a while, whether that is because nothing has
// happened.
func (t *Tail) check(ctx context.Context) error {
	log, err := t.q.EventLog(ctx)
	if err != nil || log.Last == t.reached {
		return err
	}
	return t.behind(ctx, log.Last)
}

// behind returns errBroken if there is an event that the Tail should have been sent, or
// if the stream is another. Events that were purged or have aged out are no reason.
func (t *Tail) behind(ctx context.Context, last uint64) error {
	if last > t.reached {
		_, err := t.q.events.GetMsg(ctx, t.reached+1, jetstream.WithGetMsgSubject("events.*"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			t.reached = last
			return nil
		}
	}
	return errBroken
}

// event decodes a message.
func (t *Tail) event(msg *nats.Msg) (*Event, error) {
	about, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("queue: tail: %w", err)
	}
	if about.Sequence.Consumer != t.place+1 {
		return nil, errBroken
	}
	t.place, t.reached, t.pending = about.Sequence.Consumer, about.Sequence.Stream, about.NumPending
	e := new(Event)
	if err := json.Unmarshal(msg.Data, e); err != nil {
		e = &Event{JobID: strings.TrimPrefix(msg.Subject, "events.")}
	}
	e.Seq = t.reached
	if e.Job != nil {
		e.Job.Revision = e.Seq
	}
	return e, nil
}

// Waiting returns the ids of the jobs that have not ended: of those that the work queue
// has a message of.
func (q *Queue) Waiting(ctx context.Context) ([]string, error) {
	if err := q.connected(); err != nil {
		return nil, err
	}
	info, err := q.jobs.Info(ctx, jetstream.WithSubjectFilter("jobs.>"))
	if err != nil {
		return nil, fmt.Errorf("queue: waiting: %w", q.explain(err))
	}
	ids := make([]string, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		ids = append(ids, subject[strings.LastIndexByte(subject, '.')+1:])
	}
	return ids, nil
}

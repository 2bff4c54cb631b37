package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"helicon/queue"
)

// snapshot is what the copy of a stream needs beside its bytes, as the message server
// describes it.
type snapshot struct {
	Stream string          `json:"stream"`
	Config json.RawMessage `json:"config"`
	State  json.RawMessage `json:"state"`
}

// retention returns how long the events of the copied queue are kept, and whether this is the
// stream that says so.
func (s snapshot) retention() (time.Duration, bool) {
	var config struct {
		MaxAge time.Duration `json:"max_age"`
	}
	err := json.Unmarshal(s.Config, &config)
	return config.MaxAge, err == nil && s.Stream == queue.EventsStream
}

const (
	snapshotChunk    = 512 << 10        // bytes of a message that carries a part of a stream
	snapshotPatience = 30 * time.Second // between two of them
	apiPrefix        = "$JS.API.STREAM."
)

// copier copies the streams of a queue whole, as they are: it neither makes nor changes them,
// as queue.Open does.
type copier struct {
	nc *nats.Conn
	js jetstream.JetStream
}

func newCopier(nc *nats.Conn) (*copier, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return &copier{nc, js}, nil
}

// streams lists the streams that make up a queue, without what lives for seconds only, in
// the order in which they have to be copied while jobs go on: jobs before events, so that what
// ends in between has ended in the copy, and artifacts last, so that none is missing that an
// event or a record names. What was accepted in between is made good by queue.Mend.
func (c *copier) streams(ctx context.Context) ([]string, error) {
	names := c.js.StreamNames(ctx)
	var streams []string
	for name := range names.Name() {
		if !slices.Contains(queue.FleetingStreams(), name) {
			streams = append(streams, name)
		}
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("backup: streams: %w", err)
	}
	slices.SortFunc(streams, func(a, b string) int {
		return cmp.Or(copyRank(a)-copyRank(b), strings.Compare(a, b))
	})
	return streams, nil
}

func copyRank(stream string) int {
	switch {
	case stream == queue.JobsStream:
		return 0
	case stream == queue.EventsStream:
		return 1
	case strings.HasPrefix(stream, "OBJ_"):
		return 3
	}
	return 2
}

// lastEvent is the sequence of the newest event of all.
func (c *copier) lastEvent(ctx context.Context) (uint64, error) {
	stream, err := c.js.Stream(ctx, queue.EventsStream)
	if err != nil {
		return 0, fmt.Errorf("backup: last event: %w", err)
	}
	return stream.CachedInfo().State.LastSeq, nil
}

// snapshot copies a stream with its consumers, as it is at one moment. begin is told about the
// copy and returns where its bytes go.
func (c *copier) snapshot(ctx context.Context, stream string, begin func(snapshot) (io.Writer, error)) error {
	fail := func(err error) error { return fmt.Errorf("backup: snapshot of %s: %w", stream, err) }
	inbox := c.nc.NewInbox()
	chunks, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return fail(err)
	}
	defer chunks.Unsubscribe()
	request, err := json.Marshal(map[string]any{"deliver_subject": inbox, "chunk_size": snapshotChunk})
	if err != nil {
		return fail(err)
	}
	var about snapshot
	if err := c.ask(ctx, apiPrefix+"SNAPSHOT."+stream, request, &about); err != nil {
		return fail(err)
	}
	about.Stream = stream
	to, err := begin(about)
	if err != nil {
		return err
	}
	for {
		msg, err := nextChunk(ctx, chunks)
		if err != nil {
			return fail(err)
		}
		if len(msg.Data) == 0 {
			if status := msg.Header.Get("Status"); status != "" && status != "204" {
				return fail(fmt.Errorf("the server gave up: %s %s", status, msg.Header.Get("Description")))
			}
			return nil
		}
		if _, err := to.Write(msg.Data); err != nil {
			return err
		}
		if msg.Reply == "" {
			continue // the last one
		}
		if err := msg.Respond(nil); err != nil { // it sends more for each that has arrived
			return fail(err)
		}
	}
}

func nextChunk(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotPatience)
	defer cancel()
	return sub.NextMsgWithContext(ctx)
}

// restore makes a stream of a snapshot and its bytes. The server must not have the stream;
// it is the only one, whatever cluster the copy came from.
func (c *copier) restore(ctx context.Context, about snapshot, from io.Reader) error {
	fail := func(err error) error { return fmt.Errorf("backup: restore of %s: %w", about.Stream, err) }
	var config map[string]any
	if err := json.Unmarshal(about.Config, &config); err != nil {
		return fail(err)
	}
	config["num_replicas"] = 1
	delete(config, "placement")
	request, err := json.Marshal(map[string]any{"config": config, "state": about.State})
	if err != nil {
		return fail(err)
	}
	var begun struct {
		Deliver string `json:"deliver_subject"`
	}
	if err := c.ask(ctx, apiPrefix+"RESTORE."+about.Stream, request, &begun); err != nil {
		return fail(err)
	}
	chunk := make([]byte, snapshotChunk)
	for {
		n, err := io.ReadFull(from, chunk)
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return fail(err)
		}
		if n > 0 {
			if err := c.ask(ctx, begun.Deliver, chunk[:n], nil); err != nil {
				return fail(err)
			}
		}
		if ended {
			break
		}
	}
	if err := c.ask(ctx, begun.Deliver, nil, nil); err != nil { // an empty one is the last
		return fail(err)
	}
	return nil
}

// ask makes one request to the server's interface and decodes the answer, unless into is nil.
func (c *copier) ask(ctx context.Context, subject string, request []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotPatience)
	defer cancel()
	msg, err := c.nc.RequestWithContext(ctx, subject, request)
	if err != nil {
		return err
	}
	if len(msg.Data) == 0 {
		return nil
	}
	var refused struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &refused); err != nil {
		return err
	}
	if refused.Error != nil {
		return refused.Error
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(msg.Data, into)
}

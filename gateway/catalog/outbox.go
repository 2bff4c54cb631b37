package catalog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"helicon/queue"
)

// Outbox returns a channel that has a value when there may be new deliveries.
func (c *Catalog) Outbox() <-chan struct{} { return c.outbox }

// mail says that there may be new deliveries. It is called when they are committed.
func (c *Catalog) mail() {
	select {
	case c.outbox <- struct{}{}:
	default:
	}
}

// notify puts into the outbox what endpoints are to be told of the events, within the
// transaction that projects them. An event that it was given before changes nothing, as
// long as the delivery is in the log; and no endpoint is told what happened before it was
// created, even if the database is a new one that is filled from old events.
func (c *Catalog) notify(ctx context.Context, tx *sql.Tx, events ...*queue.Event) error {
	endpoints, err := c.listeners(ctx, tx, events)
	if err != nil {
		return fmt.Errorf("catalog: endpoints: %w", err)
	}
	for _, e := range events {
		if name := eventType(e); name != "" {
			if err := c.tell(ctx, tx, name, e, endpoints[e.Job.Tenant]); err != nil {
				return err
			}
		}
	}
	return nil
}

// listeners returns the enabled endpoints of the tenants whose events are told of.
func (c *Catalog) listeners(ctx context.Context, tx *sql.Tx, events []*queue.Event) (map[string][]*Endpoint, error) {
	byTenant := map[string][]*Endpoint{}
	for _, e := range events {
		if eventType(e) == "" {
			continue
		}
		if _, known := byTenant[e.Job.Tenant]; known {
			continue
		}
		found, err := all(ctx, tx, scanEndpoint, "SELECT "+endpointColumns+" FROM endpoints WHERE tenant = $1 AND enabled", e.Job.Tenant)
		if err != nil {
			return nil, err
		}
		byTenant[e.Job.Tenant] = found
	}
	return byTenant, nil
}

// tell adds the deliveries of one event.
func (c *Catalog) tell(ctx context.Context, tx *sql.Tx, name string, e *queue.Event, endpoints []*Endpoint) error {
	body := ""
	for _, to := range endpoints {
		if !to.wants(e, name) {
			continue
		}
		if body == "" {
			var err error
			if body, err = message(name, e); err != nil {
				return err
			}
		}
		d := &Delivery{
			ID: messageID(to.ID, e), Tenant: to.Tenant, Endpoint: to.ID, Lane: to.Tenant + "/" + to.ID,
			Job: e.JobID, Type: name, Body: body, Due: now(),
		}
		if to.ID == JobsEndpoint {
			d.URL = e.Job.Webhook
			d.Lane += "/" + lane(d.URL)
		}
		if err := addDelivery(ctx, tx, d); err != nil {
			return err
		}
	}
	return nil
}

// wants reports whether the endpoint is to be told of the event.
func (e *Endpoint) wants(event *queue.Event, name string) bool {
	job, filter := event.Job, e.Events
	if e.ID == JobsEndpoint {
		if filter = job.WebhookEvents; len(filter) == 0 {
			filter = FinalEvents()
		}
		return job.Webhook != "" && !job.Created.Before(e.Created) && slices.Contains(filter, name)
	}
	if queue.ValidID(strings.TrimPrefix(job.Batch, batchPrefix)) {
		return false // a row: of the whole batch is told
	}
	before := event.Time.Before(e.Created) && job.Created.Before(e.Created)
	return !before && slices.Contains(filter, name)
}

// batchPrefix is what the id of a batch has before that of its job.
const batchPrefix = "batch_"

// eventType names an event for receivers; "" is one that none is told of. Those of
// batches are OpenAI's.
func eventType(e *queue.Event) string {
	if e.Job == nil {
		return ""
	}
	if e.Job.Modality() != "batch" {
		switch e.Type {
		case queue.EventStarted, queue.EventSucceeded, queue.EventFailed, queue.EventCanceled:
			return "job." + string(e.Type)
		}
		return ""
	}
	switch e.Type {
	case queue.EventStarted:
		return "batch.started"
	case queue.EventSucceeded:
		return "batch.completed"
	case queue.EventCanceled:
		return "batch.cancelled"
	case queue.EventFailed:
		if e.Job.Problem != nil && e.Job.Problem.Code == "batch_expired" {
			return "batch.expired"
		}
		return "batch.failed"
	}
	return ""
}

// maxMessage is how many bytes the body of a message has at most, roughly: what makes a
// job longer is left out of it and named in omitted.
const maxMessage = 64 << 10

// message is the body of the message that tells of an event: of a job as it then was, of
// a batch what it is called.
func message(name string, e *queue.Event) (string, error) {
	if e.Job.Modality() == "batch" {
		return spell(name, e.Time, map[string]string{"id": batchPrefix + e.JobID, "job": e.JobID})
	}
	public := *e.Job
	public.Memo, public.Trace = nil, ""
	data := struct {
		*queue.Job
		Omitted []string `json:"omitted,omitempty"` // members that GET /v1/jobs/{id} has
	}{Job: &public}
	body, err := spell(name, e.Time, data)
	for _, long := range []struct {
		name string
		omit func()
	}{
		{"input", func() { public.Input = nil }},
		{"result", func() { public.Result = nil }},
		{"failures", func() { public.Failures = nil }},
	} {
		if err != nil || len(body) <= maxMessage {
			break
		}
		long.omit()
		data.Omitted = append(data.Omitted, long.name)
		body, err = spell(name, e.Time, data)
	}
	return body, err
}

// spell is the body of a message by the specification.
func spell(name string, at time.Time, data any) (string, error) {
	body, err := json.Marshal(struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      any       `json:"data"`
	}{name, at, data})
	if err != nil {
		return "", fmt.Errorf("catalog: message: %w", err)
	}
	return string(body), nil
}

// messageID is the webhook-id of what an endpoint is told of an event.
func messageID(endpoint string, e *queue.Event) string {
	sum := sha256.Sum256([]byte(endpoint + " " + e.JobID + " " + strconv.FormatUint(e.Seq, 10)))
	return "msg_" + hex.EncodeToString(sum[:16])
}

// lane spreads the receivers that a tenant's jobs name over 16 lanes, so that one that is
// slow delays few others.
func lane(receiver string) string {
	hash := fnv.New32a()
	if u, err := url.Parse(receiver); err == nil {
		hash.Write([]byte(u.Host))
	}
	return strconv.Itoa(int(hash.Sum32() % 16))
}

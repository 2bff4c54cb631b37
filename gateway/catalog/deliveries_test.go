package catalog

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"helicon/queue"
)

// endpointOf creates an endpoint of a tenant.
func endpointOf(t *testing.T, c *Catalog, tenant string, events ...string) *Endpoint {
	t.Helper()
	e := &Endpoint{Tenant: tenant, URL: "https://example.org/" + tenant, Events: events, Enabled: true}
	if err := c.CreateEndpoint(t.Context(), e, "whsec_1"); err != nil {
		t.Fatal(err)
	}
	return e
}

// happened is an event of a job of a tenant, now.
func happened(seq uint64, kind queue.EventType, job queue.Job) *queue.Event {
	job.State, job.Revision = queue.State(kind), seq
	if job.ID == "" {
		job.ID = queue.NewID()
	}
	if job.Created.IsZero() {
		job.Created = time.Now()
	}
	return &queue.Event{Seq: seq, Type: kind, JobID: job.ID, Time: time.Now(), Job: &job}
}

func notify(t *testing.T, c *Catalog, events ...*queue.Event) {
	t.Helper()
	err := c.write(t.Context(), func(tx *sql.Tx) error { return c.notify(t.Context(), tx, events...) })
	if err != nil {
		t.Fatal(err)
	}
}

// logOf returns the types of an endpoint's deliveries, the oldest first.
func logOf(t *testing.T, c *Catalog, tenant, endpoint string) []string {
	t.Helper()
	found, _, err := c.Deliveries(t.Context(), tenant, endpoint, DeliveryFilter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, d := range found {
		types = append(types, d.Type)
	}
	slices.Reverse(types)
	return types
}

func TestEndpoints(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		ctx := t.Context()
		e := endpointOf(t, c, "a", "job.failed")
		got, err := c.Endpoint(ctx, "a", e.ID)
		if err != nil || got.URL != e.URL || !got.Enabled || !got.Created.Equal(e.Created) || !slices.Equal(got.Events, e.Events) {
			t.Fatalf("%+v, %v", got, err)
		}
		if _, err := c.Endpoint(ctx, "b", e.ID); !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("another tenant's: %v", err)
		}
		moved, off := "https://example.org/moved", false
		got, err = c.ChangeEndpoint(ctx, "a", e.ID, EndpointChange{URL: &moved, Enabled: &off})
		if err != nil || got.URL != moved || got.Enabled || !slices.Equal(got.Events, e.Events) {
			t.Errorf("changed: %+v, %v", got, err)
		}
		if _, err := c.ChangeEndpoint(ctx, "b", e.ID, EndpointChange{URL: &moved}); !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("another tenant's: %v", err)
		}
		got, err = c.RotateSecret(ctx, "a", e.ID, "whsec_2", time.Hour)
		if err != nil || !slices.Equal(got.Secrets(time.Now()), []string{"whsec_2", "whsec_1"}) || !slices.Equal(got.Secrets(time.Now().Add(2*time.Hour)), []string{"whsec_2"}) {
			t.Errorf("rotated: %v, %v", got.Secrets(time.Now()), err)
		}
		own, err := c.EnsureJobsEndpoint(ctx, "a", "whsec_3")
		again, err2 := c.EnsureJobsEndpoint(ctx, "a", "whsec_4")
		if err != nil || err2 != nil || own.secret != "whsec_3" || again.secret != "whsec_3" {
			t.Errorf("%v %v %v %v", own, err, again, err2)
		}
		if all, err := c.Endpoints(ctx, "a"); err != nil || len(all) != 1 || all[0].ID != e.ID {
			t.Errorf("list: %v, %v", all, err)
		}
		for range MaxEndpoints - 1 {
			endpointOf(t, c, "a")
		}
		if err := c.CreateEndpoint(ctx, &Endpoint{Tenant: "a"}, "whsec_1"); !errors.Is(err, ErrEndpoints) {
			t.Errorf("one too many: %v", err)
		}
		if _, err := c.TestDelivery(ctx, e); err != nil {
			t.Fatal(err)
		}
		if err := c.DeleteEndpoint(ctx, "b", e.ID); !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("another tenant's: %v", err)
		}
		if err := c.DeleteEndpoint(ctx, "a", e.ID); err != nil {
			t.Fatal(err)
		}
		if lanes, err := c.Lanes(ctx); err != nil || len(lanes) != 0 {
			t.Errorf("its deliveries: %v, %v", lanes, err)
		}
	})
}

func TestNotify(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		ctx := t.Context()
		before := time.Now().Add(-time.Minute)
		if _, err := c.EnsureJobsEndpoint(ctx, "a", "whsec_1"); err != nil {
			t.Fatal(err)
		}
		failures := endpointOf(t, c, "a", "job.failed")
		everything := endpointOf(t, c, "a", EventTypes()...)
		disabled := endpointOf(t, c, "a", EventTypes()...)
		off := false
		if _, err := c.ChangeEndpoint(ctx, "a", disabled.ID, EndpointChange{Enabled: &off}); err != nil {
			t.Fatal(err)
		}
		other := endpointOf(t, c, "b", EventTypes()...)

		text := queue.Job{Tenant: "a", Task: "text.chat"}
		hooked := queue.Job{ID: queue.NewID(), Tenant: "a", Task: "text.chat", Webhook: "https://example.org/own"}
		picky := queue.Job{Tenant: "a", Task: "text.chat", Webhook: "https://example.org/own", WebhookEvents: []string{"job.started"}}
		row := queue.Job{Tenant: "a", Task: "text.chat", Batch: "batch_" + queue.NewID()}
		batch := queue.Job{Tenant: "a", Task: "batch.run"}
		expired := queue.Job{Tenant: "a", Task: "batch.run", Problem: queue.Problemf("batch_expired", "")}
		old := queue.Job{Tenant: "a", Task: "text.chat", Created: before, Webhook: "https://example.org/own"}
		past := happened(13, queue.EventSucceeded, old)
		past.Time = before
		events := []*queue.Event{
			happened(1, queue.EventQueued, text), happened(2, queue.EventStarted, text), happened(3, queue.EventFailed, text),
			{Seq: 4, Type: queue.EventProgress, JobID: queue.NewID(), Time: time.Now()},
			happened(5, queue.EventStarted, hooked), happened(6, queue.EventSucceeded, hooked),
			happened(7, queue.EventStarted, picky), happened(8, queue.EventSucceeded, picky),
			happened(9, queue.EventSucceeded, row),
			happened(10, queue.EventStarted, batch), happened(11, queue.EventCanceled, batch), happened(12, queue.EventFailed, expired),
			past,                                    // before the endpoints were
			happened(14, queue.EventSucceeded, old), // begun before, ended now
		}
		for range 2 { // the second time changes nothing
			notify(t, c, events...)
		}
		for _, want := range []struct{ tenant, endpoint, log string }{
			{"a", failures.ID, "job.failed"},
			{"a", everything.ID, "batch.cancelled batch.expired batch.started job.failed job.started job.started job.started job.succeeded job.succeeded job.succeeded"},
			{"a", disabled.ID, ""},
			{"b", other.ID, ""},
			{"a", JobsEndpoint, "job.started job.succeeded"},
		} {
			got := logOf(t, c, want.tenant, want.endpoint)
			slices.Sort(got)
			if strings.Join(got, " ") != want.log {
				t.Errorf("%s was told %v, want %s", want.endpoint, got, want.log)
			}
		}
		own, _, err := c.Deliveries(ctx, "a", JobsEndpoint, DeliveryFilter{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(own, func(d *Delivery) bool { return d.Job == hooked.ID })
		if own[i].URL != hooked.Webhook || own[i].ID != messageID(JobsEndpoint, events[5]) || !strings.HasPrefix(own[i].Lane, "a/jobs/") {
			t.Errorf("%+v", own[i])
		}
		var message struct {
			Type      string
			Timestamp time.Time
			Data      queue.Job
		}
		if err := json.Unmarshal([]byte(own[i].Body), &message); err != nil || message.Type != "job.succeeded" || message.Data.ID != hooked.ID || !message.Timestamp.Equal(events[5].Time) {
			t.Errorf("%s: %v", own[i].Body, err)
		}
	})
}

func TestMessagesAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", maxMessage)
	for _, c := range []struct {
		name string
		job  queue.Job
		omit []string
	}{
		{"short", queue.Job{Input: json.RawMessage(`{}`), Result: &queue.Result{Text: "b"}}, nil},
		{"input", queue.Job{Input: json.RawMessage(`"` + long + `"`), Result: &queue.Result{Text: "b"}}, []string{"input"}},
		{"result", queue.Job{Input: json.RawMessage(`{}`), Result: &queue.Result{Text: long}}, []string{"input", "result"}},
		{"failures", queue.Job{Failures: []queue.Failure{{Reason: long}}}, []string{"input", "result", "failures"}},
		{"private", queue.Job{Memo: json.RawMessage(`"` + long + `"`), Trace: "00-1"}, nil},
	} {
		c.job.Task = "text.chat"
		body, err := message("job.succeeded", happened(1, queue.EventSucceeded, c.job))
		var got struct{ Data struct{ Omitted []string } }
		if err != nil || json.Unmarshal([]byte(body), &got) != nil || len(body) > maxMessage || !slices.Equal(got.Data.Omitted, c.omit) || strings.Contains(body, "00-1") {
			t.Errorf("%s: %d bytes, omitted %v, %v", c.name, len(body), got.Data.Omitted, err)
		}
	}
}

// Many who claim at once are given every delivery once.
func TestClaimsDoNotOverlap(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		const deliveries, claimers = 100, 4
		e := endpointOf(t, c, "a", "job.succeeded")
		for i := range deliveries {
			notify(t, c, happened(uint64(i+1), queue.EventSucceeded, queue.Job{Tenant: "a", Task: "text.chat"}))
		}
		var mu sync.Mutex
		claimed := map[string]int{}
		var all sync.WaitGroup
		for range claimers {
			all.Go(func() {
				for {
					some, err := c.Claim(t.Context(), "a/"+e.ID, 7, time.Minute)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, d := range some {
						claimed[d.ID]++
					}
					mu.Unlock()
					if len(some) == 0 {
						return
					}
				}
			})
		}
		all.Wait()
		for id, times := range claimed {
			if times != 1 {
				t.Errorf("%s was claimed %d times", id, times)
			}
		}
		// Who is late with PostgreSQL may find nothing while another claims what is left.
		if len(claimed) != deliveries {
			t.Errorf("%d of %d were claimed", len(claimed), deliveries)
		}
		if lanes, err := c.Lanes(t.Context()); err != nil || len(lanes) != 1 || time.Until(lanes[0].Due) < 50*time.Second {
			t.Errorf("%v, %v", lanes, err)
		}
	})
}

func TestSettle(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		ctx := t.Context()
		e := endpointOf(t, c, "a", "job.succeeded")
		d, err := c.TestDelivery(ctx, e)
		if err != nil {
			t.Fatal(err)
		}
		claim := func(lease time.Duration) *Delivery {
			t.Helper()
			claimed, err := c.Claim(ctx, d.Lane, 9, lease)
			if err != nil || len(claimed) != 1 {
				t.Fatalf("%v, %v", claimed, err)
			}
			return claimed[0]
		}
		lost := claim(0) // its lease ends at once
		held := claim(time.Minute)
		at := time.Now().UTC().Truncate(time.Microsecond)
		failure := Verdict{Attempt: &Attempt{Time: at, Status: 500, Answer: "no"}, State: Pending, Tries: 1, Next: at}
		for _, d := range []*Delivery{lost, held} {
			if err := c.Settle(ctx, d, failure); err != nil {
				t.Fatal(err)
			}
		}
		got, err := c.Delivery(ctx, "a", e.ID, d.ID)
		if err != nil || got.State != Pending || got.Tries != 1 || len(got.Attempts) != 1 || got.Attempts[0] != *failure.Attempt || !got.Due.Equal(at) {
			t.Errorf("%+v, %v", got, err)
		}
		if e, err = c.Endpoint(ctx, "a", e.ID); err != nil || e.FailingSince == nil || !e.FailingSince.Equal(at) {
			t.Errorf("%+v, %v", e, err)
		}
		success := Verdict{Attempt: &Attempt{Time: at, Status: 204}, State: Delivered, Tries: 2}
		if err := c.Settle(ctx, claim(time.Minute), success); err != nil {
			t.Fatal(err)
		}
		if got, err = c.Delivery(ctx, "a", e.ID, d.ID); err != nil || got.State != Delivered || got.Ended == nil || len(got.Attempts) != 2 {
			t.Errorf("%+v, %v", got, err)
		}
		if e, err = c.Endpoint(ctx, "a", e.ID); err != nil || e.FailingSince != nil {
			t.Errorf("%+v, %v", e, err)
		}
		if _, err := c.Redeliver(ctx, "b", e.ID, d.ID); !errors.Is(err, ErrNoDelivery) {
			t.Errorf("another tenant's: %v", err)
		}
		if got, err = c.Redeliver(ctx, "a", e.ID, d.ID); err != nil || got.State != Pending || got.Tries != 0 || got.Ended != nil {
			t.Errorf("%+v, %v", got, err)
		}
		gone := Verdict{Attempt: &Attempt{Time: at, Status: 410}, State: Undelivered, Disable: "it answered 410 Gone"}
		if err := c.Settle(ctx, claim(time.Minute), gone); err != nil {
			t.Fatal(err)
		}
		if e, err = c.Endpoint(ctx, "a", e.ID); err != nil || e.Enabled || e.Disabled != gone.Disable {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

func TestDeliveryPages(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		ctx := t.Context()
		e := endpointOf(t, c, "a", "job.succeeded")
		for i := range 25 {
			notify(t, c, happened(uint64(i+1), queue.EventSucceeded, queue.Job{Tenant: "a", Task: "text.chat"}))
		}
		seen := map[string]bool{}
		f := DeliveryFilter{State: Pending, Limit: 10}
		for pages, more := 0, true; more; pages++ {
			var page []*Delivery
			var err error
			if page, more, err = c.Deliveries(ctx, "a", e.ID, f); err != nil || pages > 2 {
				t.Fatalf("page %d: %v", pages, err)
			}
			for _, d := range page {
				seen[d.ID], f.After = true, d.ID
			}
		}
		if len(seen) != 25 {
			t.Errorf("%d seen", len(seen))
		}
		if _, _, err := c.Deliveries(ctx, "b", e.ID, f); !errors.Is(err, ErrNoDelivery) {
			t.Errorf("another tenant's: %v", err)
		}
	})
}

func TestPruneDeliveries(t *testing.T) {
	onBoth(t, func(t *testing.T, c *Catalog) {
		ctx := t.Context()
		e := endpointOf(t, c, "a", "job.succeeded")
		insert := func(id string, state DeliveryState, count int, at time.Time) {
			t.Helper()
			err := c.write(ctx, func(tx *sql.Tx) error {
				for i := range count {
					d := &Delivery{ID: fmt.Sprintf("%s-%d", id, i), Tenant: "a", Endpoint: e.ID, Lane: "a/" + e.ID, Due: at.Add(time.Duration(i) * time.Millisecond)}
					if err := addDelivery(ctx, tx, d); err != nil {
						return err
					}
				}
				_, err := tx.ExecContext(ctx, "UPDATE deliveries SET state = $1, ended = due WHERE id LIKE $2", state, id+"-%")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		insert("old", Delivered, 3, time.Now().Add(-time.Hour))
		insert("new", Undelivered, maxEnded+2, time.Now())
		insert("wait", Pending, 5, time.Now().Add(-time.Hour))
		if err := c.PruneDeliveries(ctx, time.Now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
		var ended, pending int
		err := c.read.QueryRowContext(ctx, "SELECT count(*), sum(CASE WHEN state = 'pending' THEN 1 ELSE 0 END) FROM deliveries").Scan(&ended, &pending)
		if err != nil || pending != 5 || ended-pending != maxEnded {
			t.Errorf("%d ended and %d pending are left, %v", ended-pending, pending, err)
		}
	})
}

// Waiting deliveries cost a look at lanes nothing.
func BenchmarkLanes(b *testing.B) {
	c := open(b, "sqlite:"+b.TempDir()+"/catalog.db", Options{NoSync: true})
	err := c.write(b.Context(), func(tx *sql.Tx) error {
		for i := range 50_000 {
			lane := fmt.Sprintf("a/%d", i%50)
			if err := addDelivery(b.Context(), tx, &Delivery{ID: fmt.Sprint(i), Lane: lane, Due: now()}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if lanes, err := c.Lanes(b.Context()); err != nil || len(lanes) != 50 {
			b.Fatal(len(lanes), err)
		}
	}
}

package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"helicon/queue"
)

// DeliveryState is where a delivery stands.
type DeliveryState string

// The states of a delivery.
const (
	Pending     DeliveryState = "pending"     // to be attempted when it is due
	Delivered   DeliveryState = "delivered"   // answered with a status of 2xx
	Undelivered DeliveryState = "undelivered" // given up
)

// Delivery is one message for one receiver: an event that an endpoint is told about.
type Delivery struct {
	ID       string        `json:"id"` // the message's webhook-id, the same in every attempt
	Tenant   string        `json:"-"`
	Endpoint string        `json:"endpoint"`
	Lane     string        `json:"-"`
	URL      string        `json:"url,omitempty"` // of a job's own webhook; "": the endpoint's
	Job      string        `json:"job,omitempty"`
	Type     string        `json:"type"`
	Body     string        `json:"-"`
	State    DeliveryState `json:"state"`
	Tries    int           `json:"-"` // attempts since it was last begun with
	Due      time.Time     `json:"-"` // of the next attempt; while leased, when the lease ends
	Created  time.Time     `json:"created"`
	Ended    *time.Time    `json:"ended,omitempty"`
	Attempts []Attempt     `json:"attempts"` // the latest, oldest first
}

// Attempt is one request and what came of it.
type Attempt struct {
	Time         time.Time `json:"time"`
	Milliseconds int64     `json:"milliseconds"`
	Status       int       `json:"status,omitempty"`
	Answer       string    `json:"answer,omitempty"` // how the answer's body begins
	Error        string    `json:"error,omitempty"`  // why there was no answer
}

// maxAttempts is how many attempts of a delivery are kept, the latest ones.
const maxAttempts = 20

const deliveryColumns = "id, tenant, endpoint, lane, url, job, type, body, state, tries, due, created, ended, attempts"

// scanDelivery reads one row of deliveryColumns.
func scanDelivery(r scanner) (*Delivery, error) {
	var d Delivery
	var attempts string
	var due, created, ended int64
	err := r.Scan(&d.ID, &d.Tenant, &d.Endpoint, &d.Lane, &d.URL, &d.Job, &d.Type, &d.Body, &d.State, &d.Tries, &due, &created, &ended, &attempts)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(attempts), &d.Attempts); err != nil {
		return nil, fmt.Errorf("attempts of delivery %s: %w", d.ID, err)
	}
	d.Due, d.Created = unstamp(due), unstamp(created)
	if ended != 0 {
		at := unstamp(ended)
		d.Ended = &at
	}
	return &d, nil
}

// addDelivery stores a delivery that is due, unless its id is taken.
func addDelivery(ctx context.Context, db querier, d *Delivery) error {
	d.State, d.Created, d.Attempts = Pending, d.Due, []Attempt{}
	_, err := db.ExecContext(ctx, `
		INSERT INTO deliveries (id, tenant, endpoint, lane, url, job, type, body, state, tries, due, created, ended, attempts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, $11, 0, '[]') ON CONFLICT (id) DO NOTHING`,
		d.ID, d.Tenant, d.Endpoint, d.Lane, d.URL, d.Job, d.Type, d.Body, d.State, stamp(d.Due), stamp(d.Created))
	if err != nil {
		return fmt.Errorf("catalog: delivery: %w", explain(err))
	}
	return nil
}

// Lane is a group of deliveries that share a bound on attempts at once: those of one
// endpoint, or of some of the receivers that a tenant's jobs name.
type Lane struct {
	Name string
	Due  time.Time // of its first pending delivery
}

// Lanes returns the lanes with pending deliveries. It costs two look-ups in an index a
// lane, however many deliveries wait.
func (c *Catalog) Lanes(ctx context.Context) ([]Lane, error) {
	found, err := all(ctx, c.read, func(r scanner) (Lane, error) {
		var l Lane
		var due sql.NullInt64 // its last delivery may end as this is read
		err := r.Scan(&l.Name, &due)
		l.Due = unstamp(due.Int64)
		return l, err
	}, `
		WITH RECURSIVE lanes (name) AS (
			SELECT (SELECT lane FROM deliveries WHERE state = 'pending' ORDER BY lane LIMIT 1)
			UNION ALL
			SELECT (SELECT lane FROM deliveries WHERE state = 'pending' AND lane > lanes.name ORDER BY lane LIMIT 1)
			FROM lanes WHERE lanes.name IS NOT NULL
		)
		SELECT name, (SELECT due FROM deliveries WHERE state = 'pending' AND lane = lanes.name ORDER BY due LIMIT 1)
		FROM lanes WHERE name IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("catalog: lanes: %w", err)
	}
	return found, nil
}

// Claim leases deliveries of a lane that are due to the caller: nobody else is given
// them for the time of the lease.
func (c *Catalog) Claim(ctx context.Context, lane string, limit int, lease time.Duration) ([]*Delivery, error) {
	at := now()
	// The condition stands twice: of two who update the same row, the second finds it changed.
	claimed, err := all(ctx, c.db, scanDelivery, `
		UPDATE deliveries SET due = $1 WHERE id IN (
			SELECT id FROM deliveries WHERE state = 'pending' AND lane = $2 AND due <= $3 ORDER BY due LIMIT $4
		) AND state = 'pending' AND due <= $3 RETURNING `+deliveryColumns,
		stamp(at.Add(lease)), lane, stamp(at), limit)
	if err != nil {
		return nil, fmt.Errorf("catalog: claim: %w", err)
	}
	return claimed, nil
}

// Verdict is what follows from an attempt.
type Verdict struct {
	Attempt *Attempt // nil: it was cut off and does not count
	State   DeliveryState
	Tries   int
	Next    time.Time // of the next attempt, while the state is Pending
	Disable string    // why the endpoint is to be disabled; "": it is not
}

// Settle records what followed from the attempt for which a delivery was claimed. It does
// nothing if the lease was lost, the delivery begun anew or deleted since.
func (c *Catalog) Settle(ctx context.Context, d *Delivery, v Verdict) error {
	attempts := d.Attempts
	if v.Attempt != nil {
		attempts = append(attempts, *v.Attempt)
		attempts = attempts[max(0, len(attempts)-maxAttempts):]
	}
	log, err := json.Marshal(attempts)
	if err != nil {
		return fmt.Errorf("catalog: delivery %s: %w", d.ID, err)
	}
	at := stamp(now())
	due, ended := stamp(v.Next), int64(0)
	if v.State != Pending {
		due, ended = at, at
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `
			UPDATE deliveries SET state = $1, tries = $2, due = $3, ended = $4, attempts = $5
			WHERE id = $6 AND state = 'pending' AND due = $7`,
			v.State, v.Tries, due, ended, string(log), d.ID, stamp(d.Due))
		if err != nil {
			return err
		}
		settled, err := result.RowsAffected()
		if err != nil || settled == 0 || v.Attempt == nil || d.Endpoint == JobsEndpoint {
			return err
		}
		return rate(ctx, tx, d, v)
	})
	if err != nil {
		return fmt.Errorf("catalog: delivery %s: %w", d.ID, err)
	}
	return nil
}

// rate records what an attempt says about its endpoint.
func rate(ctx context.Context, tx *sql.Tx, d *Delivery, v Verdict) (err error) {
	switch {
	case v.Disable != "":
		_, err = tx.ExecContext(ctx, "UPDATE endpoints SET enabled = FALSE, disabled = $1 WHERE tenant = $2 AND id = $3 AND enabled",
			v.Disable, d.Tenant, d.Endpoint)
	case v.State == Delivered:
		_, err = tx.ExecContext(ctx, "UPDATE endpoints SET failing_since = 0 WHERE tenant = $1 AND id = $2 AND failing_since <> 0",
			d.Tenant, d.Endpoint)
	default:
		_, err = tx.ExecContext(ctx, "UPDATE endpoints SET failing_since = $1 WHERE tenant = $2 AND id = $3 AND failing_since = 0",
			stamp(v.Attempt.Time), d.Tenant, d.Endpoint)
	}
	return err
}

// DeliveryFilter selects deliveries of one endpoint.
type DeliveryFilter struct {
	State DeliveryState // "": any
	Limit int           // deliveries a page; at least 1
	After string        // id of the last delivery of the page before
}

// Deliveries returns deliveries of a tenant's endpoint, the newest first, and whether
// there are more. ErrNoDelivery if After is none of them.
func (c *Catalog) Deliveries(ctx context.Context, tenant, endpoint string, f DeliveryFilter) ([]*Delivery, bool, error) {
	where, args := "tenant = $1 AND endpoint = $2", []any{tenant, endpoint}
	bind := func(value any) string {
		args = append(args, value)
		return fmt.Sprintf("$%d", len(args))
	}
	if f.State != "" {
		where += " AND state = " + bind(f.State)
	}
	if f.After != "" {
		last, err := c.Delivery(ctx, tenant, endpoint, f.After)
		if err != nil {
			return nil, false, err
		}
		where += fmt.Sprintf(" AND (created, id) < (%s, %s)", bind(stamp(last.Created)), bind(last.ID))
	}
	limit := bind(f.Limit + 1)
	found, err := all(ctx, c.read, scanDelivery,
		"SELECT "+deliveryColumns+" FROM deliveries WHERE "+where+" ORDER BY created DESC, id DESC LIMIT "+limit, args...)
	if err != nil {
		return nil, false, fmt.Errorf("catalog: deliveries: %w", err)
	}
	return found[:min(len(found), f.Limit)], len(found) > f.Limit, nil
}

// Delivery returns one delivery of a tenant's endpoint; ErrNoDelivery if there is none.
func (c *Catalog) Delivery(ctx context.Context, tenant, endpoint, id string) (*Delivery, error) {
	return delivery(all(ctx, c.read, scanDelivery,
		"SELECT "+deliveryColumns+" FROM deliveries WHERE tenant = $1 AND endpoint = $2 AND id = $3", tenant, endpoint, id))
}

// delivery is the one that was found.
func delivery(found []*Delivery, err error) (*Delivery, error) {
	if err != nil {
		return nil, fmt.Errorf("catalog: delivery: %w", err)
	}
	if len(found) == 0 {
		return nil, ErrNoDelivery
	}
	return found[0], nil
}

// Redeliver begins a delivery anew, whatever became of it: the same message under the
// same id. ErrNoDelivery if there is none.
func (c *Catalog) Redeliver(ctx context.Context, tenant, endpoint, id string) (*Delivery, error) {
	d, err := delivery(all(ctx, c.db, scanDelivery, `
		UPDATE deliveries SET state = 'pending', tries = 0, due = $1, ended = 0
		WHERE tenant = $2 AND endpoint = $3 AND id = $4 RETURNING `+deliveryColumns,
		stamp(now()), tenant, endpoint, id))
	if err == nil {
		c.mail()
	}
	return d, err
}

// TestDelivery adds a message to an endpoint that tells of nothing but itself.
func (c *Catalog) TestDelivery(ctx context.Context, to *Endpoint) (*Delivery, error) {
	body, err := spell(testEvent, now(), map[string]string{"endpoint": to.ID})
	if err != nil {
		return nil, err
	}
	d := &Delivery{
		ID: "msg_" + strings.ToLower(queue.NewID()), Tenant: to.Tenant, Endpoint: to.ID, Lane: to.Tenant + "/" + to.ID,
		Type: testEvent, Body: body, Due: now(),
	}
	if err := addDelivery(ctx, c.db, d); err != nil {
		return nil, err
	}
	c.mail()
	return d, nil
}

// testEvent is the type of messages that are sent to try an endpoint out.
const testEvent = "webhook.test"

// Bounds on the deliveries of one endpoint.
const (
	maxPending = 100_000
	maxEnded   = 10_000
)

// PruneDeliveries deletes deliveries that ended before a time, and of every endpoint
// those beyond the latest 10,000; and it gives up the oldest where more than 100,000 wait.
func (c *Catalog) PruneDeliveries(ctx context.Context, before time.Time) error {
	_, err := c.db.ExecContext(ctx, "DELETE FROM deliveries WHERE state <> 'pending' AND ended < $1", stamp(before))
	if err != nil {
		return fmt.Errorf("catalog: prune: %w", explain(err))
	}
	endpoints, err := all(ctx, c.read, scanEndpoint, "SELECT "+endpointColumns+" FROM endpoints")
	if err != nil {
		return fmt.Errorf("catalog: prune: %w", err)
	}
	for _, e := range endpoints {
		_, err := c.db.ExecContext(ctx, `
			DELETE FROM deliveries WHERE tenant = $1 AND endpoint = $2 AND state <> 'pending' AND created < (
				SELECT created FROM deliveries WHERE tenant = $1 AND endpoint = $2 AND state <> 'pending'
				ORDER BY created DESC LIMIT 1 OFFSET $3)`, e.Tenant, e.ID, maxEnded-1)
		if err == nil {
			_, err = c.db.ExecContext(ctx, `
				UPDATE deliveries SET state = 'undelivered', ended = $4 WHERE tenant = $1 AND endpoint = $2 AND state = 'pending' AND created < (
					SELECT created FROM deliveries WHERE tenant = $1 AND endpoint = $2 AND state = 'pending'
					ORDER BY created DESC LIMIT 1 OFFSET $3)`, e.Tenant, e.ID, maxPending-1, stamp(now()))
		}
		if err != nil {
			return fmt.Errorf("catalog: prune: %w", explain(err))
		}
	}
	return nil
}

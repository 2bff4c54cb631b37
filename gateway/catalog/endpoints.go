package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"helicon/queue"
)

// Endpoint is where a tenant is told about events.
type Endpoint struct {
	ID           string     `json:"id"`
	Tenant       string     `json:"-"`
	URL          string     `json:"url"`
	Events       []string   `json:"events"` // types of events, of EventTypes
	Description  string     `json:"description,omitempty"`
	Enabled      bool       `json:"enabled"`
	Disabled     string     `json:"disabled_reason,omitempty"` // why the server disabled it
	FailingSince *time.Time `json:"failing_since,omitempty"`   // since when no attempt has succeeded
	Created      time.Time  `json:"created"`

	secret   string
	old      string // the secret before, which signs as well until oldUntil
	oldUntil time.Time
}

// JobsEndpoint is the id of the endpoint that stands for the webhooks that jobs name
// themselves. It has no URL; its secret is the tenant's, and it is told of what happened
// to jobs that were created after it.
const JobsEndpoint = "jobs"

// Errors on which callers decide.
var (
	ErrNoEndpoint = errors.New("catalog: no such endpoint")
	ErrNoDelivery = errors.New("catalog: no such delivery")
	ErrEndpoints  = errors.New("catalog: the tenant has as many endpoints as it may")
)

// MaxEndpoints is how many endpoints a tenant may have.
const MaxEndpoints = 50

// Secrets returns the secrets that sign at a time, the newest first.
func (e *Endpoint) Secrets(at time.Time) []string {
	if e.old != "" && at.Before(e.oldUntil) {
		return []string{e.secret, e.old}
	}
	return []string{e.secret}
}

// EventTypes returns the types of events that endpoints can be told about.
func EventTypes() []string {
	return []string{
		"job.started", "job.succeeded", "job.failed", "job.canceled",
		"batch.started", "batch.completed", "batch.failed", "batch.cancelled", "batch.expired",
	}
}

// FinalEvents returns those types that tell the end of something: what is told unless
// others are asked for.
func FinalEvents() []string {
	return slices.DeleteFunc(EventTypes(), func(name string) bool { return name == "job.started" || name == "batch.started" })
}

const endpointColumns = "id, tenant, url, events, description, enabled, disabled, failing_since, created, secret, old_secret, old_until"

// scanEndpoint reads one row of endpointColumns.
func scanEndpoint(r scanner) (*Endpoint, error) {
	var e Endpoint
	var events string
	var failing, created, until int64
	err := r.Scan(&e.ID, &e.Tenant, &e.URL, &events, &e.Description, &e.Enabled, &e.Disabled, &failing, &created, &e.secret, &e.old, &until)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(events), &e.Events); err != nil {
		return nil, fmt.Errorf("events of endpoint %s: %w", e.ID, err)
	}
	if failing != 0 {
		since := unstamp(failing)
		e.FailingSince = &since
	}
	e.Created, e.oldUntil = unstamp(created), unstamp(until)
	return &e, nil
}

const insertEndpoint = `
	INSERT INTO endpoints (id, tenant, url, events, description, enabled, disabled, failing_since, created, secret, old_secret, old_until)
	VALUES ($1, $2, $3, $4, $5, $6, '', 0, $7, $8, '', 0) ON CONFLICT (tenant, id) DO NOTHING`

// CreateEndpoint stores an endpoint with the secret that signs its messages, and fills in
// ID and Created. ErrEndpoints if the tenant has MaxEndpoints.
func (c *Catalog) CreateEndpoint(ctx context.Context, e *Endpoint, secret string) error {
	events, err := json.Marshal(e.Events)
	if err != nil {
		return fmt.Errorf("catalog: endpoint: %w", err)
	}
	e.ID, e.Created, e.secret = "hook_"+queue.NewID(), now(), secret
	err = c.write(ctx, func(tx *sql.Tx) error {
		var count int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM endpoints WHERE tenant = $1 AND id <> $2", e.Tenant, JobsEndpoint).Scan(&count); err != nil {
			return err
		}
		if count >= MaxEndpoints {
			return ErrEndpoints
		}
		_, err := tx.ExecContext(ctx, insertEndpoint, e.ID, e.Tenant, e.URL, string(events), e.Description, e.Enabled, stamp(e.Created), secret)
		return err
	})
	if err != nil {
		return fmt.Errorf("catalog: endpoint: %w", err)
	}
	return nil
}

// EnsureJobsEndpoint returns the endpoint of jobs' own webhooks, made with the fresh
// secret if the tenant has none yet.
func (c *Catalog) EnsureJobsEndpoint(ctx context.Context, tenant, fresh string) (*Endpoint, error) {
	e, err := c.Endpoint(ctx, tenant, JobsEndpoint)
	if !errors.Is(err, ErrNoEndpoint) {
		return e, err
	}
	if _, err := c.db.ExecContext(ctx, insertEndpoint, JobsEndpoint, tenant, "", "[]", "", true, stamp(now()), fresh); err != nil {
		return nil, fmt.Errorf("catalog: endpoint: %w", explain(err))
	}
	return c.Endpoint(ctx, tenant, JobsEndpoint)
}

// Endpoints returns a tenant's endpoints, the oldest first; that of the jobs' own
// webhooks is not among them.
func (c *Catalog) Endpoints(ctx context.Context, tenant string) ([]*Endpoint, error) {
	found, err := all(ctx, c.read, scanEndpoint,
		"SELECT "+endpointColumns+" FROM endpoints WHERE tenant = $1 AND id <> $2 ORDER BY id", tenant, JobsEndpoint)
	if err != nil {
		return nil, fmt.Errorf("catalog: endpoints: %w", err)
	}
	return found, nil
}

// Endpoint returns one endpoint of a tenant; ErrNoEndpoint if there is none.
func (c *Catalog) Endpoint(ctx context.Context, tenant, id string) (*Endpoint, error) {
	return endpoint(all(ctx, c.read, scanEndpoint, "SELECT "+endpointColumns+" FROM endpoints WHERE tenant = $1 AND id = $2", tenant, id))
}

// endpoint is the one that was found.
func endpoint(found []*Endpoint, err error) (*Endpoint, error) {
	if err != nil {
		return nil, fmt.Errorf("catalog: endpoint: %w", err)
	}
	if len(found) == 0 {
		return nil, ErrNoEndpoint
	}
	return found[0], nil
}

// EndpointChange is what to change of an endpoint; nil leaves as it is.
type EndpointChange struct {
	URL         *string
	Events      []string
	Description *string
	Enabled     *bool
}

// ChangeEndpoint changes an endpoint and returns it as it then is. To enable it again
// forgets its failures. ErrNoEndpoint if there is none.
func (c *Catalog) ChangeEndpoint(ctx context.Context, tenant, id string, change EndpointChange) (*Endpoint, error) {
	var events *string
	if change.Events != nil {
		text, err := json.Marshal(change.Events)
		if err != nil {
			return nil, fmt.Errorf("catalog: endpoint: %w", err)
		}
		spelled := string(text)
		events = &spelled
	}
	forget := change.Enabled != nil && *change.Enabled
	return endpoint(all(ctx, c.db, scanEndpoint, `
		UPDATE endpoints SET url = COALESCE($1, url), events = COALESCE($2, events),
			description = COALESCE($3, description), enabled = COALESCE($4, enabled),
			disabled = CASE WHEN $5 THEN '' ELSE disabled END,
			failing_since = CASE WHEN $5 THEN 0 ELSE failing_since END
		WHERE tenant = $6 AND id = $7 RETURNING `+endpointColumns,
		change.URL, events, change.Description, change.Enabled, forget, tenant, id))
}

// RotateSecret gives an endpoint another secret and returns it. The one before signs as
// well for the time of overlap. ErrNoEndpoint if there is no such endpoint.
func (c *Catalog) RotateSecret(ctx context.Context, tenant, id, fresh string, overlap time.Duration) (*Endpoint, error) {
	return endpoint(all(ctx, c.db, scanEndpoint, `
		UPDATE endpoints SET old_secret = secret, old_until = $1, secret = $2
		WHERE tenant = $3 AND id = $4 RETURNING `+endpointColumns,
		stamp(now().Add(overlap)), fresh, tenant, id))
}

// DeleteEndpoint removes an endpoint with its deliveries; ErrNoEndpoint if there is none.
func (c *Catalog) DeleteEndpoint(ctx context.Context, tenant, id string) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, "DELETE FROM endpoints WHERE tenant = $1 AND id = $2", tenant, id)
		if err != nil {
			return fmt.Errorf("catalog: endpoint: %w", err)
		}
		if deleted, err := result.RowsAffected(); err != nil || deleted == 0 {
			return cmp.Or(err, ErrNoEndpoint)
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM deliveries WHERE tenant = $1 AND endpoint = $2", tenant, id); err != nil {
			return fmt.Errorf("catalog: deliveries: %w", err)
		}
		return nil
	})
}

// now is the time as the database will remember it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// scanner is what one row is scanned from.
type scanner interface{ Scan(...any) error }

// all returns the rows of a query, which may be an UPDATE … RETURNING.
func all[T any](ctx context.Context, db querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, explain(err)
	}
	defer rows.Close()
	var found []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return found, explain(rows.Err())
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

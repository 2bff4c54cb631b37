package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"helicon/queue"
)

// Limits are those of one tenant. One that is nil is as the gateways are set; 0 is none.
type Limits struct {
	Rate    *float64 `json:"rate,omitempty"`    // requests a second
	Burst   *int     `json:"burst,omitempty"`   // requests at once
	Jobs    *int     `json:"jobs,omitempty"`    // unfinished ones
	Uploads *int64   `json:"uploads,omitempty"` // bytes a day
}

// Tenant is a tenant with limits of his own.
type Tenant struct {
	Name string `json:"tenant"`
	Limits
}

// Limits returns the limits of a tenant.
func (c *Catalog) Limits(ctx context.Context, tenant string) (Limits, error) {
	var l Limits
	err := c.read.QueryRowContext(ctx, `SELECT rate, burst, jobs, uploads FROM tenants WHERE name = $1`, tenant).
		Scan(&l.Rate, &l.Burst, &l.Jobs, &l.Uploads)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Limits{}, fmt.Errorf("catalog: limits of %s: %w", tenant, explain(err))
	}
	return l, nil
}

// SetLimits changes those limits of a tenant that are not nil.
func (c *Catalog) SetLimits(ctx context.Context, tenant string, l Limits) error {
	if !queue.ValidTenant(tenant) {
		return fmt.Errorf("catalog: %q cannot be a tenant: want 1 to 64 letters, digits, - or _", tenant)
	}
	err := c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO tenants (name, rate, burst, jobs, uploads) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (name) DO UPDATE SET rate = coalesce(excluded.rate, tenants.rate), burst = coalesce(excluded.burst, tenants.burst),
			jobs = coalesce(excluded.jobs, tenants.jobs), uploads = coalesce(excluded.uploads, tenants.uploads)`,
			tenant, l.Rate, l.Burst, l.Jobs, l.Uploads)
		return err
	})
	if err != nil {
		return fmt.Errorf("catalog: limits of %s: %w", tenant, err)
	}
	return nil
}

// UnsetLimits makes the gateways' settings those of a tenant again.
func (c *Catalog) UnsetLimits(ctx context.Context, tenant string) error {
	err := c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM tenants WHERE name = $1`, tenant)
		return err
	})
	if err != nil {
		return fmt.Errorf("catalog: limits of %s: %w", tenant, err)
	}
	return nil
}

// Tenants lists the tenants that have limits of their own, by name.
func (c *Catalog) Tenants(ctx context.Context) ([]Tenant, error) {
	rows, err := c.read.QueryContext(ctx, `SELECT name, rate, burst, jobs, uploads FROM tenants ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("catalog: tenants: %w", explain(err))
	}
	defer rows.Close()
	var tenants []Tenant
	for rows.Next() {
		var t Tenant
		if err := rows.Scan(&t.Name, &t.Rate, &t.Burst, &t.Jobs, &t.Uploads); err != nil {
			return nil, fmt.Errorf("catalog: tenants: %w", explain(err))
		}
		tenants = append(tenants, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("catalog: tenants: %w", explain(err))
	}
	return tenants, nil
}

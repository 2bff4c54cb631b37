package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"helicon/queue"
)

// The scopes of a key: what its holder may do within his tenant.
const (
	ScopeRead     = "jobs:read"  // see jobs, events, artifacts, files, batches and usage
	ScopeWrite    = "jobs:write" // submit, cancel and delete them, and upload
	ScopeWebhooks = "webhooks"   // see and change where events are sent
	ScopeMetrics  = "metrics"    // read /metrics, which are of all tenants
	ScopeAdmin    = "admin"      // all of these, those to come, and what touches all tenants: /v1/backup
)

// Scopes returns the names of all scopes.
func Scopes() []string {
	return []string{ScopeRead, ScopeWrite, ScopeWebhooks, ScopeMetrics, ScopeAdmin}
}

// ErrNoKey says that there is no key of an id.
var ErrNoKey = errors.New("catalog: no such key")

// Key is what is kept of a key, whose secret is not.
type Key struct {
	ID      string     `json:"id"`
	Tenant  string     `json:"tenant"`
	Name    string     `json:"name,omitempty"` // for people
	Scopes  []string   `json:"scopes"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	Used    *time.Time `json:"used,omitempty"` // for the last time, to the minute
	Revoked *time.Time `json:"revoked,omitempty"`

	hash string
}

// Opens reports whether the secret is this key's.
func (k *Key) Opens(s Secret) bool { return s.is(k.hash) }

// Expired reports whether the key's time is over.
func (k *Key) Expired(now time.Time) bool { return k.Expires != nil && !k.Expires.After(now) }

// State is in one word whether the key can be used: active, expired or revoked.
func (k *Key) State(now time.Time) string {
	switch {
	case k.Revoked != nil:
		return "revoked"
	case k.Expired(now):
		return "expired"
	}
	return "active"
}

const maxKeyName = 100 // bytes

// validate reports what cannot be kept of a new key.
func (k *Key) validate(now time.Time) error {
	if !queue.ValidTenant(k.Tenant) {
		return fmt.Errorf("catalog: %q cannot be a tenant: want 1 to 64 letters, digits, - or _", k.Tenant)
	}
	if len(k.Name) > maxKeyName || !utf8.ValidString(k.Name) || strings.ContainsFunc(k.Name, unicode.IsControl) {
		return fmt.Errorf("catalog: the name of a key: want at most %d bytes of text on one line", maxKeyName)
	}
	if len(k.Scopes) == 0 {
		return fmt.Errorf("catalog: a key without scopes allows nothing: want some of %s", strings.Join(Scopes(), ", "))
	}
	for _, s := range k.Scopes {
		if !slices.Contains(Scopes(), s) {
			return fmt.Errorf("catalog: there is no scope %q: want some of %s", s, strings.Join(Scopes(), ", "))
		}
	}
	if k.Expired(now) {
		return errors.New("catalog: the key would have expired already")
	}
	return nil
}

// CreateKey makes a key for Tenant with Name, Scopes and Expires, fills in the rest, and
// returns the key's text, which can never be seen again.
func (c *Catalog) CreateKey(ctx context.Context, k *Key) (text string, err error) {
	now := time.Now()
	if err := k.validate(now); err != nil {
		return "", err
	}
	id, secret := newSecret()
	k.ID, k.hash, k.Created = id, secret.hash(), unstamp(stamp(now))
	k.Scopes = slices.Compact(slices.Sorted(slices.Values(k.Scopes)))
	err = c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO keys (id, hash, tenant, name, scopes, created, expires) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			k.ID, k.hash, k.Tenant, k.Name, strings.Join(k.Scopes, " "), stamp(k.Created), stampOf(k.Expires))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("catalog: new key: %w", err)
	}
	return secret.text(id), nil
}

const keyColumns = `id, hash, tenant, name, scopes, created, expires, used, revoked`

// scanKey reads a row of keyColumns.
func scanKey(row interface{ Scan(...any) error }) (*Key, error) {
	k := new(Key)
	var scopes string
	var created int64
	var expires, used, revoked sql.NullInt64
	if err := row.Scan(&k.ID, &k.hash, &k.Tenant, &k.Name, &scopes, &created, &expires, &used, &revoked); err != nil {
		return nil, err
	}
	k.Scopes, k.Created = strings.Fields(scopes), unstamp(created)
	k.Expires, k.Used, k.Revoked = timeOf(expires), timeOf(used), timeOf(revoked)
	return k, nil
}

// stampOf is stamp for a time that may be missing.
func stampOf(t *time.Time) sql.NullInt64 {
	if t == nil {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: stamp(*t), Valid: true}
}

// timeOf is unstamp for a time that may be missing.
func timeOf(us sql.NullInt64) *time.Time {
	if !us.Valid {
		return nil
	}
	t := unstamp(us.Int64)
	return &t
}

// Key returns the key of an id, whether it can be used or not; ErrNoKey if there is none.
func (c *Catalog) Key(ctx context.Context, id string) (*Key, error) {
	k, err := scanKey(c.read.QueryRowContext(ctx, `SELECT `+keyColumns+` FROM keys WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNoKey
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: key %s: %w", id, explain(err))
	}
	return k, nil
}

// Keys lists the keys of a tenant, or of all if it is "", the oldest first.
func (c *Catalog) Keys(ctx context.Context, tenant string) ([]*Key, error) {
	rows, err := c.read.QueryContext(ctx, `SELECT `+keyColumns+` FROM keys WHERE tenant = $1 OR $1 = '' ORDER BY tenant, created, id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("catalog: keys: %w", explain(err))
	}
	defer rows.Close()
	var keys []*Key
	for rows.Next() {
		k, err := scanKey(rows)
		if err != nil {
			return nil, fmt.Errorf("catalog: keys: %w", explain(err))
		}
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("catalog: keys: %w", explain(err))
	}
	return keys, nil
}

// HasKey reports whether there is a key that can be used.
func (c *Catalog) HasKey(ctx context.Context) (bool, error) {
	var found bool
	err := c.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM keys WHERE revoked IS NULL AND (expires IS NULL OR expires > $1))`,
		stamp(time.Now())).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("catalog: keys: %w", explain(err))
	}
	return found, nil
}

// RevokeKey ends a key for good; ErrNoKey if there is none of the id.
func (c *Catalog) RevokeKey(ctx context.Context, id string) error {
	err := c.write(ctx, func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, `UPDATE keys SET revoked = coalesce(revoked, $1) WHERE id = $2`, stamp(time.Now()), id)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return ErrNoKey
	})
	if errors.Is(err, ErrNoKey) {
		return ErrNoKey
	}
	if err != nil {
		return fmt.Errorf("catalog: revoke key %s: %w", id, err)
	}
	return nil
}

// keyUse is how exactly it is known when a key was used: noting it costs a write.
const keyUse = time.Minute

// UseKey notes that a key is being used, unless that has been noted within the last minute.
func (c *Catalog) UseKey(ctx context.Context, k *Key) error {
	now := time.Now()
	if k.Used != nil && now.Sub(*k.Used) < keyUse {
		return nil
	}
	err := c.write(ctx, func(tx *sql.Tx) error { // another gateway may have been first
		_, err := tx.ExecContext(ctx, `UPDATE keys SET used = $1 WHERE id = $2 AND (used IS NULL OR used < $3)`,
			stamp(now), k.ID, stamp(now.Add(-keyUse)))
		return err
	})
	if err != nil {
		return fmt.Errorf("catalog: use of key %s: %w", k.ID, err)
	}
	return nil
}

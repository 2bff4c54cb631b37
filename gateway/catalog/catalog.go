// Package catalog is the searchable record that the gateway keeps in SQL: jobs with
// their full-text index and their usage, projected from the queue's events, and what
// only the gateway knows, API keys and webhooks. It runs on SQLite, embedded, and on
// PostgreSQL, which several gateways may share. What is projected may be thrown away
// and made again; the queue stays the one that says how a job stands.
package catalog

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"helicon/queue"
)

// ErrUnavailable says that the database cannot be reached.
var ErrUnavailable = errors.New("catalog: the database cannot be reached")

// Options tune a Catalog. The zero value is usable.
type Options struct {
	Log *slog.Logger // nil: nothing is logged
	// NoSync leaves it to the operating system when SQLite's commits reach the disk: the
	// last ones before a power failure may be missing then. PostgreSQL has a setting of
	// its own for that (synchronous_commit).
	NoSync bool
	// Keep is how long jobs that have ended stay in the catalog. Their usage stays in any
	// case. 0: for good.
	Keep time.Duration
}

// Catalog is the record. Its methods may be called concurrently.
//
// The SQL is the same for both databases wherever that is possible: parameters are $1,
// $2 … (which SQLite takes, too), times BIGINTs made by stamp, flags SMALLINTs, bytes
// BLOB or BYTEA by the migration, and upserts say ON CONFLICT … DO UPDATE.
type Catalog struct {
	opts     Options
	log      *slog.Logger
	postgres bool
	read     *sql.DB // for queries outside of transactions; SQLite refuses to write through it
	db       *sql.DB // for write; SQLite has a single connection here, as it has one writer

	outbox chan struct{} // has a value when there may be new deliveries
	projection
}

// Open opens the database that a URL names, creates it or brings its tables up to
// date where necessary, and returns a Catalog on it: sqlite:FILE or postgres://….
// ErrUnavailable if it cannot be reached now.
func Open(ctx context.Context, url string, opts Options) (*Catalog, error) {
	c := &Catalog{opts: opts, log: opts.Log, outbox: make(chan struct{}, 1)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	scheme, rest, _ := strings.Cut(url, ":")
	var err error
	switch scheme {
	case "sqlite":
		err = c.openSQLite(strings.TrimPrefix(rest, "//"))
	case "postgres", "postgresql":
		err = c.openPostgres(url)
	default:
		return nil, fmt.Errorf("catalog: %q: want sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE", redact(url))
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if err := c.migrate(ctx); err != nil {
		c.Close()
		return nil, explain(fmt.Errorf("catalog: tables: %w", err))
	}
	return c, nil
}

// redact leaves of a URL what may be shown: not what is in front of an @.
func redact(url string) string {
	if i := strings.LastIndexByte(url, '@'); i >= 0 {
		return "…" + url[i:]
	}
	return url
}

// Close closes the connections. Follow must have returned.
func (c *Catalog) Close() error {
	err := c.db.Close()
	if c.read != c.db {
		err = errors.Join(c.read.Close(), err)
	}
	return err
}

//go:embed migrations
var migrations embed.FS

// migrate brings the tables up to date. The files are numbered, one folder a dialect;
// those that were released are never changed.
func (c *Catalog) migrate(ctx context.Context) error {
	dialect, folder := goose.DialectSQLite3, "migrations/sqlite"
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	if c.postgres {
		dialect, folder = goose.DialectPostgres, "migrations/postgres"
		// Gateways that start together wait for the first.
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(dialect, c.db, files, options...)
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// write runs f in a transaction that may change the database: committed if f returns
// nil, else undone. Its errors are explained.
func (c *Catalog) write(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return explain(err)
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback() // the first error is the one to tell
		return explain(err)
	}
	return explain(tx.Commit())
}

// Ready reports whether the database answers.
func (c *Catalog) Ready(ctx context.Context) error {
	var one int
	if err := c.read.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("catalog: ready: %w", explain(err))
	}
	return nil
}

// stamp is a time as it is stored: microseconds since 1970.
func stamp(t time.Time) int64 { return t.UnixMicro() }

// unstamp is the stored time.
func unstamp(us int64) time.Time { return time.UnixMicro(us).UTC() }

// explain adds to an error of the database the sentinel that callers branch on:
// ErrUnavailable or queue.ErrFull.
func explain(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) || errors.Is(err, queue.ErrFull) {
		return err
	}
	var file *sqlite.Error
	if errors.As(err, &file) {
		switch file.Code() & 0xff { // the rest is detail
		case sqlite3.SQLITE_FULL:
			return fmt.Errorf("%w: %w", queue.ErrFull, err)
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR:
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	}
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		switch {
		case answer.Code == "53100": // disk_full
			return fmt.Errorf("%w: %w", queue.ErrFull, err)
		case strings.HasPrefix(answer.Code, "08"), strings.HasPrefix(answer.Code, "53"), strings.HasPrefix(answer.Code, "57P"):
			// connection exceptions, insufficient resources, shutdown and start of the server
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	}
	var connect *pgconn.ConnectError
	var network net.Error
	if errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || pgconn.SafeToRetry(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"helicon/gateway/catalog/pgtest"
)

// server is the PostgreSQL server of all tests: the one that HELICON_TEST_POSTGRES names,
// or a private one.
var server = sync.OnceValues(func() (*pgtest.Server, error) { return pgtest.New() })

var (
	started atomic.Bool // the private server was asked for
	schemas atomic.Int64
)

func TestMain(m *testing.M) {
	status := m.Run()
	if started.Load() {
		if s, err := server(); err == nil {
			if err := s.Close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				status = 1
			}
		}
	}
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// postgresURL returns the URL of a new schema, and skips the test where there is no
// PostgreSQL, unless HELICON_REQUIRE_POSTGRES demands one.
func postgresURL(t testing.TB) string {
	t.Helper()
	base := os.Getenv("HELICON_TEST_POSTGRES")
	if base == "" {
		started.Store(true)
		s, err := server()
		if errors.Is(err, pgtest.ErrMissing) && os.Getenv("HELICON_REQUIRE_POSTGRES") != "1" {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		base = s.URL("")
	}
	schema := fmt.Sprintf("t%d_%d", os.Getpid(), schemas.Add(1))
	admin, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ExecContext(t.Context(), "CREATE SCHEMA "+schema); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := admin.ExecContext(context.WithoutCancel(t.Context()), "DROP SCHEMA "+schema+" CASCADE")
		if err := errors.Join(err, admin.Close()); err != nil {
			t.Error(err)
		}
	})
	return pgtest.WithSchema(base, schema)
}

func open(t testing.TB, url string, opts Options) *Catalog {
	t.Helper()
	c, err := Open(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// onBoth runs a test on a new catalog in each database.
func onBoth(t *testing.T, test func(t *testing.T, c *Catalog)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, open(t, "sqlite:"+filepath.Join(t.TempDir(), "catalog.db"), Options{NoSync: true}))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, open(t, postgresURL(t), Options{}))
	})
}

package catalog

import (
	"context"
	"errors"
	"fmt"
)

// ErrExternal says that a database is not in a file of ours: its own tools copy it.
var ErrExternal = errors.New("catalog: the database is a server of its own")

// Copy writes the database, as it is at one moment, to a new file; others go on with it
// meanwhile. ErrExternal for PostgreSQL, which pg_dump copies.
func (c *Catalog) Copy(ctx context.Context, file string) error {
	if c.postgres {
		return ErrExternal
	}
	var original string
	if err := c.read.QueryRowContext(ctx, "SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&original); err != nil {
		return fmt.Errorf("catalog: copy: %w", explain(err))
	}
	// A connection of its own: those for reading may not even write another file, and the one
	// for writing has other things to do.
	db, err := sqliteDB(original, 1, "deferred", []string{"busy_timeout(10000)"})
	if err != nil {
		return fmt.Errorf("catalog: copy: %w", explain(err))
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "VACUUM INTO $1", file); err != nil {
		return fmt.Errorf("catalog: copy: %w", explain(err))
	}
	return nil
}

package catalog

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Readers are few: a page is read in milliseconds, and each connection has memory of
// its own.
const (
	sqliteReaders    = 4
	sqliteReadCache  = 4 << 10  // KiB of pages that a reader keeps in memory
	sqliteWriteCache = 16 << 10 // KiB of pages that the writer does
)

// openSQLite opens a file. In WAL mode readers and the one writer do not wait for each
// other, and other processes (helicon keys, helicon catalog) may use the file meanwhile.
func (c *Catalog) openSQLite(file string) error {
	if file == "" {
		return fmt.Errorf("the URL sqlite: names no file")
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	// Created here so that only its owner can read it: it holds hashes of keys, and secrets.
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	// Keys and deliveries are in the file, too: what was committed should survive a power
	// failure. The projection commits in large pieces, so that this costs it little.
	sync := "FULL"
	if c.opts.NoSync {
		sync = "NORMAL"
	}
	common := []string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(" + sync + ")"}
	if c.db, err = sqliteDB(file, 1, "immediate", append(common, "journal_size_limit(67108864)", fmt.Sprintf("cache_size(-%d)", sqliteWriteCache))); err != nil {
		return err
	}
	c.read, err = sqliteDB(file, sqliteReaders, "deferred", append(common, "query_only(1)", fmt.Sprintf("cache_size(-%d)", sqliteReadCache)))
	return err
}

// sqliteDB returns a pool of connections to a file. They are made when they are needed
// and kept.
func sqliteDB(file string, connections int, lock string, pragmas []string) (*sql.DB, error) {
	query := url.Values{"_txlock": {lock}, "_dqs": {"0"}, "_error_rc": {"1"}, "_pragma": pragmas}
	path := filepath.ToSlash(file)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

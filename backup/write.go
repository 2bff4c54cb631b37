// Package backup writes everything that a server keeps into one archive, while it runs or when it
// does not, and makes a data directory of such an archive.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"helicon/gateway/catalog"
)

// A backup is a tar archive of
//
//	helicon-backup.json       what it is (Head), first
//	catalog.db                the catalog, if it is SQLite
//	streams/NAME/about.json   what a stream's bytes need beside them (snapshot)
//	streams/NAME/00000001 …   its bytes, in pieces
//	complete                  last: nothing is missing
//
// The parts are copied one after the other while jobs go on, in an order in which each knows no
// more than the next: the catalog's projection then catches up with the events, and jobs that
// were accepted between the copies of the two streams are put back into the work queue.
const (
	headEntry     = "helicon-backup.json"
	catalogEntry  = "catalog.db"
	streamsEntry  = "streams/"
	aboutEntry    = "about.json"
	completeEntry = "complete"

	format    = 1
	pieceSize = 4 << 20 // bytes of a stream in one entry
)

// Head says what a backup is.
type Head struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of the program
	Created time.Time `json:"created"`
	Events  uint64    `json:"events"` // sequence of the last event before the streams were copied
}

// Write writes everything that is kept: the streams that a connection leads to, and the catalog,
// which is nil if it is not a file. version is the program's.
func Write(ctx context.Context, to io.Writer, nc *nats.Conn, c *catalog.Catalog, version string) error {
	q, err := newCopier(nc)
	if err != nil {
		return err
	}
	out := tar.NewWriter(to)
	head := Head{Format: format, Version: version, Created: time.Now().UTC()}
	if head.Events, err = q.lastEvent(ctx); err != nil {
		return err
	}
	if err := writeJSONEntry(out, headEntry, head); err != nil {
		return err
	}
	if err := writeCatalog(ctx, out, c); err != nil {
		return err
	}
	streams, err := q.streams(ctx)
	if err != nil {
		return err
	}
	for _, name := range streams {
		if err := writeStream(ctx, out, q, name); err != nil {
			return err
		}
	}
	if err := writeEntry(out, completeEntry, nil); err != nil {
		return err
	}
	return out.Close()
}

// writeCatalog writes a copy of the database.
func writeCatalog(ctx context.Context, out *tar.Writer, c *catalog.Catalog) error {
	if c == nil {
		return nil
	}
	dir, err := os.MkdirTemp("", "helicon-backup-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, catalogEntry)
	if err := c.Copy(ctx, name); errors.Is(err, catalog.ErrExternal) {
		return nil
	} else if err != nil {
		return err
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	about, err := file.Stat()
	if err != nil {
		return err
	}
	if err := out.WriteHeader(&tar.Header{Name: catalogEntry, Mode: 0o600, Size: about.Size(), ModTime: about.ModTime()}); err != nil {
		return err
	}
	_, err = io.Copy(out, file)
	return err
}

// writeStream writes a stream, whose length is not known before its end, in pieces.
func writeStream(ctx context.Context, out *tar.Writer, q *copier, name string) error {
	p := &pieces{out: out, dir: streamsEntry + name + "/"}
	err := q.snapshot(ctx, name, func(about snapshot) (io.Writer, error) {
		return p, writeJSONEntry(out, p.dir+aboutEntry, about)
	})
	if err != nil {
		return err
	}
	return p.flush()
}

// pieces writes bytes as numbered entries.
type pieces struct {
	out    *tar.Writer
	dir    string
	buffer bytes.Buffer
	count  int
}

// Write implements io.Writer.
func (p *pieces) Write(b []byte) (int, error) {
	p.buffer.Write(b)
	if p.buffer.Len() < pieceSize {
		return len(b), nil
	}
	return len(b), p.flush()
}

func (p *pieces) flush() error {
	if p.buffer.Len() == 0 {
		return nil
	}
	p.count++
	err := writeEntry(p.out, fmt.Sprintf("%s%08d", p.dir, p.count), p.buffer.Bytes())
	p.buffer.Reset()
	return err
}

func writeEntry(out *tar.Writer, name string, content []byte) error {
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: time.Now()}); err != nil {
		return err
	}
	_, err := out.Write(content)
	return err
}

func writeJSONEntry(out *tar.Writer, name string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return writeEntry(out, name, content)
}

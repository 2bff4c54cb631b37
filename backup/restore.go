package backup

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"helicon/queue"
)

// Place is where a server keeps things.
type Place struct {
	Streams string // directory of the embedded message server
	Catalog string // file
}

// Restore makes of a backup what a server starts from: all or nothing. It returns what the backup
// was and how many jobs it put back into the queue. There must be nothing at the place.
func Restore(ctx context.Context, from io.Reader, to Place, log *slog.Logger) (about Head, mended int, err error) {
	r := &restoring{to: to, log: log, in: tar.NewReader(from)}
	defer func() {
		if err != nil {
			r.undo()
		}
	}()
	if err := r.read(ctx); err != nil {
		return r.head, 0, err
	}
	mended, err = r.mend(ctx)
	return r.head, mended, err
}

// restoring is a backup that is being read.
type restoring struct {
	to        Place
	log       *slog.Logger
	in        *tar.Reader
	ahead     *tar.Header // read already, though not its turn
	head      Head
	retention time.Duration
}

// undo removes what a restore that failed has left.
func (r *restoring) undo() {
	if err := errors.Join(os.RemoveAll(r.to.Streams), os.RemoveAll(r.to.Catalog)); err != nil {
		r.log.Warn("what was restored so far is left behind", "err", err)
	}
}

// connect starts the message server on the restored files.
func (r *restoring) connect() (nc *nats.Conn, stop func(), err error) {
	server, err := queue.StartServer(queue.ServerConfig{Dir: r.to.Streams, Log: r.log})
	if err != nil {
		return nil, nil, err
	}
	if nc, err = server.Connect(); err != nil {
		server.Close()
		return nil, nil, err
	}
	return nc, func() { nc.Close(); server.Close() }, nil
}

// read gives the entries to a message server that is there for nothing else.
func (r *restoring) read(ctx context.Context) error {
	nc, stop, err := r.connect()
	if err != nil {
		return err
	}
	defer stop()
	to, err := newCopier(nc)
	if err != nil {
		return err
	}
	for {
		entry, err := r.next()
		if err != nil {
			return err
		}
		switch {
		case r.head.Format == 0 && entry.Name != headEntry:
			return errors.New("this is not a backup of helicon")
		case entry.Name == headEntry:
			err = r.readHead()
		case entry.Name == catalogEntry:
			err = r.readCatalog()
		case entry.Name == completeEntry:
			return nil
		case strings.HasPrefix(entry.Name, streamsEntry) && path.Base(entry.Name) == aboutEntry:
			err = r.readStream(ctx, to, path.Dir(entry.Name)+"/")
		default:
			err = fmt.Errorf("the entry %q is unknown", entry.Name)
		}
		if err != nil {
			return err
		}
	}
}

// next goes to the next entry.
func (r *restoring) next() (*tar.Header, error) {
	if entry := r.ahead; entry != nil {
		r.ahead = nil
		return entry, nil
	}
	entry, err := r.in.Next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the backup is cut short")
	}
	return entry, err
}

// readStream restores the stream that the current entry describes from those that follow it.
func (r *restoring) readStream(ctx context.Context, to *copier, dir string) error {
	var about snapshot
	if err := json.NewDecoder(r.in).Decode(&about); err != nil {
		return err
	}
	if kept, ok := about.retention(); ok {
		r.retention = kept
	}
	return to.restore(ctx, about, &pieceReader{r, dir})
}

// pieceReader reads the entries of a directory as one.
type pieceReader struct {
	r   *restoring
	dir string
}

// Read implements io.Reader.
func (p *pieceReader) Read(b []byte) (int, error) {
	for {
		if p.r.ahead == nil {
			if n, err := p.r.in.Read(b); n > 0 || err != nil && !errors.Is(err, io.EOF) {
				return n, err
			}
		}
		entry, err := p.r.next()
		if err != nil {
			return 0, err
		}
		if !strings.HasPrefix(entry.Name, p.dir) {
			p.r.ahead = entry
			return 0, io.EOF
		}
	}
}

func (r *restoring) readHead() error {
	if err := json.NewDecoder(r.in).Decode(&r.head); err != nil {
		return err
	}
	if r.head.Format != format {
		return fmt.Errorf("the backup has the format %d, of another version (%s); this one reads %d", r.head.Format, r.head.Version, format)
	}
	return nil
}

func (r *restoring) readCatalog() error {
	file, err := os.OpenFile(r.to.Catalog, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, r.in)
	return errors.Join(err, file.Sync(), file.Close())
}

// mend opens the restored queue and makes whole what was copied while jobs went on.
func (r *restoring) mend(ctx context.Context) (int, error) {
	nc, stop, err := r.connect()
	if err != nil {
		return 0, err
	}
	defer stop()
	q, err := queue.Open(ctx, nc, queue.Options{Retention: r.retention})
	if err != nil {
		return 0, err
	}
	return q.Mend(ctx, r.head.Events)
}

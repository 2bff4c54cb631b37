package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go"

	"helicon/backup"
	"helicon/gateway/catalog"
	"helicon/queue"
)

// catalogFile is the catalog of a data directory, unless --db names another.
const catalogFile = "catalog.db"

// backupCmd copies what a server keeps into a file.
type backupCmd struct {
	queueFlags
	File   string    `arg:"" help:"File to write: .tar.zst, .tar.gz or .tar." type:"path"`
	Server serverURL `help:"Address of the running server; ${default} unless given." default:"http://127.0.0.1:8080" placeholder:"URL"`
	Key    string    `help:"Key with the scope admin, if the server requires keys." placeholder:"KEY"`
}

// Validate refuses names that say no form.
func (c *backupCmd) Validate() error {
	_, err := backup.PackingOf(c.File)
	return err
}

// Run writes the file, under another name until it is complete.
func (c *backupCmd) Run(ctx context.Context, env *environment) error {
	form, err := backup.PackingOf(c.File)
	if err != nil {
		return err
	}
	part, err := os.OpenFile(c.File+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	defer part.Close()
	packed, err := form.Writer(part)
	if err != nil {
		return err
	}
	if err := c.copy(ctx, env, packed); err != nil {
		return err
	}
	if err := errors.Join(packed.Close(), part.Sync()); err != nil {
		return err
	}
	about, err := part.Stat()
	if err != nil {
		return err
	}
	if err := os.Rename(part.Name(), c.File); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s: %s\n", c.File, humanize.IBytes(uint64(about.Size())))
	return nil
}

// copy takes the backup from the files, or from the server that has them open.
func (c *backupCmd) copy(ctx context.Context, env *environment, to io.Writer) error {
	if len(c.Nats) == 0 {
		if _, err := os.Stat(c.natsDir()); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: there is nothing to back up (is --data right?)", c.Data)
		}
	}
	nc, disconnect, err := c.connect(env)
	if errors.Is(err, queue.ErrInUse) {
		return c.fetch(ctx, to)
	}
	if err != nil {
		return err
	}
	defer disconnect()
	var record *catalog.Catalog
	file := filepath.Join(c.Data, catalogFile)
	if _, err := os.Stat(file); err == nil {
		if record, err = catalog.Open(ctx, "sqlite:"+file, catalog.Options{Log: env.log}); err != nil {
			return err
		}
		defer record.Close()
	}
	return backup.Write(ctx, to, nc, record, version())
}

// connect reaches the streams as they are: opening the queue would change them to these flags.
func (c *backupCmd) connect(env *environment) (*nats.Conn, func(), error) {
	if len(c.Nats) > 0 {
		nc, err := queue.Connect(strings.Join(c.Nats, ","), c.token(), "helicon-backup")
		if err != nil {
			return nil, nil, err
		}
		return nc, nc.Close, nil
	}
	server, err := queue.StartServer(queue.ServerConfig{Dir: c.natsDir(), Log: env.log})
	if err != nil {
		return nil, nil, err
	}
	nc, err := server.Connect()
	if err != nil {
		server.Close()
		return nil, nil, err
	}
	return nc, func() { nc.Close(); server.Close() }, nil
}

// fetch has the running server make the backup.
func (c *backupCmd) fetch(ctx context.Context, to io.Writer) error {
	server := &client{base: string(c.Server), http: &http.Client{}}
	var header map[string]string
	if c.Key != "" {
		header = map[string]string{"Authorization": "Bearer " + c.Key}
	}
	resp, err := server.do(ctx, http.MethodGet, "/v1/backup", nil, header)
	if err != nil {
		return fmt.Errorf("the data are in use by a running server: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("the server broke off: %w", err)
	}
	return nil
}

// restoreCmd makes a data directory of a backup.
type restoreCmd struct {
	File string `arg:"" help:"File that helicon backup wrote." type:"existingfile"`
	Data string `help:"Data directory to make, in which there is nothing yet but models; ${default} unless given." default:"${data}" placeholder:"DIR" type:"path"`
}

// Run restores all or nothing.
func (c *restoreCmd) Run(ctx context.Context, env *environment) error {
	if err := c.checkEmpty(); err != nil {
		return err
	}
	form, err := backup.PackingOf(c.File)
	if err != nil {
		return err
	}
	file, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	unpacked, err := form.Reader(file)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	defer unpacked.Close()
	about, mended, err := backup.Restore(ctx, unpacked, backup.Place{
		Streams: queueFlags{Data: c.Data}.natsDir(), Catalog: filepath.Join(c.Data, catalogFile),
	}, env.log)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	fmt.Fprintf(env.stdout, "%s: restored as of %s, %d jobs put back into the queue\n", c.Data, about.Created.Local().Format(time.DateTime), mended)
	return nil
}

// checkEmpty refuses a directory in which something would be overwritten.
func (c *restoreCmd) checkEmpty() error {
	entries, err := os.ReadDir(c.Data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() != "models" {
			return fmt.Errorf("%s is not empty: %s is there; name another directory with --data", c.Data, e.Name())
		}
	}
	return nil
}

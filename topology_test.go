//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgres is a PostgreSQL of the test's own.
type postgres struct {
	bin, dir string
	port     int
	owner    *syscall.Credential // who runs it; nil is whoever runs the test
}

// newPostgres makes an empty database, or skips the test where PostgreSQL is not installed.
func newPostgres(t *testing.T) *postgres {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		if os.Getenv("HELICON_REQUIRE_POSTGRES") != "" {
			t.Fatal("no PostgreSQL: install postgresql")
		}
		t.Skip("no PostgreSQL is installed (initdb)")
	}
	dir, err := os.MkdirTemp("", "helicon-postgres-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postgres{bin: filepath.Dir(found[0]), dir: filepath.Join(dir, "data"), port: freePortNumber(t)}
	if os.Getuid() == 0 {
		p.owner = credential(t, "postgres")
		if err := os.Chown(dir, int(p.owner.Uid), int(p.owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	initdb := p.command("initdb", "-D", p.dir, "-U", "helicon", "-A", "trust", "-E", "UTF8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	return p
}

// credential returns the ids of a user.
func credential(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Skipf("root may not run PostgreSQL, and there is no user for it: %v", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner}
	return cmd
}

func (p *postgres) url() string {
	return fmt.Sprintf("postgres://helicon@127.0.0.1:%d/postgres?sslmode=disable", p.port)
}

// start runs the server and waits until it answers: after a kill it recovers first.
func (p *postgres) start(t *testing.T) *process {
	t.Helper()
	server := start(t, p.command("postgres", "-D", p.dir, "-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		db, err := pgx.Connect(ctx, p.url())
		if err == nil {
			_ = db.Close(ctx) // it answers: nothing else was asked
			return server
		}
		if !pauseFor(ctx, 50*time.Millisecond) {
			t.Fatalf("PostgreSQL does not answer: %v\n%s", err, server.log)
		}
	}
}

// link is a way between processes that can be cut: a proxy for TCP.
type link struct {
	listener net.Listener
	to       string

	mu   sync.Mutex
	cut  bool
	open map[net.Conn]bool
}

// newLink listens for connections that lead to an address.
func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, to: to, open: map[net.Conn]bool{}}
	go l.accept()
	t.Cleanup(func() {
		listener.Close()
		l.set(true)
	})
	return l
}

func (l *link) url() string { return "nats://" + l.listener.Addr().String() }

func (l *link) accept() {
	for {
		from, err := l.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", l.to)
		if err != nil {
			from.Close()
			continue
		}
		l.mu.Lock()
		l.open[from], l.open[to] = true, true
		l.mu.Unlock()
		go l.carry(from, to)
		go l.carry(to, from)
	}
}

// carry moves bytes one way. While the link is cut they are swallowed, as by a cable that was
// pulled: neither side is told.
func (l *link) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		l.mu.Lock()
		cut := l.cut
		l.mu.Unlock()
		if cut {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// set cuts the link, or mends it: connections that lost bytes are broken off then.
func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut && !cut {
		for c := range l.open {
			c.Close()
		}
		clear(l.open)
	}
	l.cut = cut
}

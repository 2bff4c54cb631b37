// Package pgtest runs a private PostgreSQL server for tests, from the binaries of the
// machine, in a directory of its own and reachable through a socket in it alone.
package pgtest

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// ErrMissing says that the machine has no PostgreSQL.
var ErrMissing = errors.New("pgtest: PostgreSQL is not installed (on Debian: apt-get install postgresql)")

// Server is a PostgreSQL server.
type Server struct {
	dir string // of the socket; the data are in data under it
	bin string
	as  []string // command line that becomes the user who may run the server
	run *exec.Cmd
}

// New makes a cluster in a new temporary directory and starts a server on it.
func New() (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "helicon-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.create(); err != nil {
		return nil, errors.Join(fmt.Errorf("pgtest: %w", err), os.RemoveAll(dir))
	}
	if err := s.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// binaries finds the newest server: in the path, or where Debian puts it.
func binaries() (string, error) {
	if found, err := exec.LookPath("initdb"); err == nil {
		if found, err = filepath.EvalSymlinks(found); err == nil { // the others need not be linked
			return filepath.Dir(found), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", ErrMissing
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

func (s *Server) create() error {
	if os.Geteuid() == 0 { // as whom the server refuses to run
		owner, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(owner.Uid)
		gid, _ := strconv.Atoi(owner.Gid)
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return err
		}
		s.as = []string{"setpriv", "--reuid", owner.Uid, "--regid", owner.Gid, "--clear-groups"}
	}
	out, err := s.command("initdb", "-D", s.data(), "-U", "helicon", "-A", "trust", "-N", "--no-locale", "-E", "UTF8").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	line := append(slices.Clone(s.as), append([]string{filepath.Join(s.bin, name)}, args...)...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Dir = s.dir
	return cmd
}

// startWithin is how long a server may take to answer. One that was killed leaves
// processes behind that must end first.
const startWithin = 30 * time.Second

// Start starts the server, after New or after it was killed, and waits until it answers.
func (s *Server) Start() error {
	for begun := time.Now(); ; {
		told, err := os.Create(filepath.Join(s.dir, "log"))
		if err != nil {
			return fmt.Errorf("pgtest: %w", err)
		}
		s.run = s.command("postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=50")
		s.run.Stdout, s.run.Stderr = told, told
		err = s.run.Start()
		told.Close() // the server has it
		if err != nil {
			return fmt.Errorf("pgtest: %w", err)
		}
		ended := make(chan error, 1)
		go func(run *exec.Cmd) { ended <- run.Wait() }(s.run)
		if s.answers(ended, begun) {
			return nil
		}
		if time.Since(begun) > startWithin {
			_ = s.Kill() // it may have ended
			log, err := os.ReadFile(told.Name())
			return errors.Join(fmt.Errorf("pgtest: the server does not answer: %s", log), err)
		}
	}
}

// answers waits until the server takes connections; false if it has ended first.
func (s *Server) answers(ended <-chan error, begun time.Time) bool {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for time.Since(begun) < startWithin {
		select {
		case <-ended:
			return false
		case <-poll.C:
		}
		if s.command("pg_isready", "-q", "-h", s.dir).Run() == nil {
			return true
		}
	}
	return false
}

// Kill ends the server as a crash does.
func (s *Server) Kill() error { return s.run.Process.Kill() }

// Close ends the server and removes its files.
func (s *Server) Close() error {
	err := s.command("pg_ctl", "-D", s.data(), "-m", "immediate", "stop").Run()
	return errors.Join(err, os.RemoveAll(s.dir))
}

// URL names the server's database. Tables are made in the given schema, which must exist;
// "" is the usual one.
func (s *Server) URL(schema string) string {
	return WithSchema("postgres://helicon@/postgres?host="+url.QueryEscape(s.dir), schema)
}

// WithSchema is the URL of a database with another schema for tables.
func WithSchema(database, schema string) string {
	u, err := url.Parse(database)
	if err != nil || schema == "" {
		return database
	}
	query := u.Query()
	query.Set("search_path", schema)
	u.RawQuery = query.Encode()
	return u.String()
}

package queue

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ServerConfig describes the embedded message server.
type ServerConfig struct {
	Dir    string // where JetStream keeps its files
	Listen string // host:port for workers in other processes; empty: none can connect
	// Sync makes an append durable against power loss before it is acknowledged. Without
	// it files are flushed every two minutes; a killed process loses nothing either way.
	Sync     bool
	MaxStore int64 // bytes on disk; 0: what the disk holds
	Log      *slog.Logger

	free func(dir string) (uint64, error) // bytes; tests fill the disk with it
}

// maxPayload lets a job carry a few megabytes of input; larger media are uploads.
const maxPayload = 8 << 20

// tokenFile, in the server's directory, lets workers of the same user connect.
const tokenFile = "nats.token"

const lockFile = "helicon.lock"

// ErrInUse says that another process runs an embedded server in the directory.
var ErrInUse = errors.New("the directory is locked")

// Server is an embedded nats-server with JetStream.
type Server struct {
	config ServerConfig
	lock   *flock.Flock
	token  string
	disk   *diskGuard

	mu  sync.Mutex
	srv *server.Server // replaced when the disk was full
}

// StartServer starts the embedded server and waits until it is ready.
func StartServer(c ServerConfig) (*Server, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("queue: embedded server: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: c, lock: flock.New(filepath.Join(c.Dir, lockFile))}
	// JetStream does not guard its files itself: two servers would destroy them.
	if free, err := s.lock.TryLock(); err != nil || !free {
		return nil, fmt.Errorf("queue: embedded server: %s is in use by another process: %w", c.Dir, cmp.Or(err, ErrInUse))
	}
	if err := s.start(); err != nil {
		s.lock.Unlock()
		return nil, fmt.Errorf("queue: embedded server: %w", err)
	}
	s.disk = guardDisk(s)
	return s, nil
}

func (s *Server) start() error {
	opts := &server.Options{
		ServerName:             "helicon",
		JetStream:              true,
		StoreDir:               s.config.Dir,
		JetStreamMaxStore:      s.config.MaxStore,
		SyncAlways:             s.config.Sync,
		MaxPayload:             maxPayload,
		MaxPending:             64 << 20,
		NoSigs:                 true,
		NoLog:                  true,
		DontListen:             true,
		DisableJetStreamBanner: true,
	}
	if s.config.Listen != "" {
		if err := s.listen(opts); err != nil {
			return err
		}
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	go srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		shutdown(srv)
		return errors.New("not ready within 10 seconds")
	}
	if s.config.Listen != "" {
		s.config.Listen = srv.Addr().String() // a restart keeps the port
	}
	s.mu.Lock()
	s.srv = srv
	s.mu.Unlock()
	return nil
}

// restart replaces the server by one on the same files. Clients connect again.
func (s *Server) restart() error {
	shutdown(s.current())
	return s.start()
}

func shutdown(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

func (s *Server) current() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

func (s *Server) listen(opts *server.Options) error {
	host, port, err := net.SplitHostPort(s.config.Listen)
	if err != nil {
		return err
	}
	// nats-server only logs that its port is taken: find out first.
	probe, err := net.Listen("tcp", s.config.Listen)
	if err != nil {
		return err
	}
	probe.Close()
	number, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("port %q: %w", port, err)
	}
	if number == 0 {
		number = server.RANDOM_PORT
	}
	if s.token, err = ensureToken(filepath.Join(s.config.Dir, tokenFile)); err != nil {
		return err
	}
	opts.DontListen = false
	opts.Host, opts.Port, opts.Authorization = host, number, s.token
	return nil
}

// ensureToken reads the token that workers present, or makes one that only the owner can read.
func ensureToken(path string) (string, error) {
	if b, err := os.ReadFile(path); err == nil {
		return strings.TrimSpace(string(b)), nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	token := base64.RawURLEncoding.EncodeToString(secret)
	return token, os.WriteFile(path, []byte(token+"\n"), 0o600)
}

// ReadToken returns the token of the embedded server that keeps its files in dir.
func ReadToken(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil {
		return "", fmt.Errorf("queue: token of the embedded server: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// URL is where workers in other processes connect, without the token; empty if they cannot.
func (s *Server) URL() string {
	if s.token == "" {
		return ""
	}
	return s.current().ClientURL()
}

// Full reports that the disk has so little room left that no job can be accepted.
func (s *Server) Full() bool { return s.disk.full.Load() }

// Connect returns an in-process connection.
func (s *Server) Connect() (*nats.Conn, error) {
	nc, err := nats.Connect("", append(connection("helicon"), nats.InProcessServer(s), nats.Token(s.token))...)
	if err != nil {
		return nil, fmt.Errorf("queue: embedded server: %w", err)
	}
	return nc, nil
}

// InProcessConn implements nats.InProcessConnProvider, for whichever server runs now.
func (s *Server) InProcessConn() (net.Conn, error) { return s.current().InProcessConn() }

// Close stops the server and waits for it.
func (s *Server) Close() {
	s.disk.close()
	shutdown(s.current())
	s.lock.Unlock()
}

// Connect connects to external servers, "nats://host:4222,nats://…". token may be
// empty. It fails at once, with ErrUnavailable, if none can be reached; later interruptions are waited out.
func Connect(urls, token, name string) (*nats.Conn, error) {
	opts := connection(name)
	if token != "" {
		opts = append(opts, nats.Token(token))
	}
	nc, err := nats.Connect(urls, opts...)
	if errors.Is(err, nats.ErrAuthorization) {
		return nil, fmt.Errorf("queue: %s refuses the token: %w", redact(urls), err)
	}
	if err != nil {
		return nil, fmt.Errorf("queue: %s: %w: %w", redact(urls), ErrUnavailable, err)
	}
	return nc, nil
}

func connection(name string) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectBufSize(-1), // fail at once while disconnected: an answer, not a wait
		nats.Timeout(3 * time.Second),
	}
}

// redact removes credentials from a list of server URLs.
func redact(urls string) string {
	parts := strings.Split(urls, ",")
	for i, p := range parts {
		if u, err := url.Parse(strings.TrimSpace(p)); err == nil {
			parts[i] = u.Redacted()
		}
	}
	return strings.Join(parts, ",")
}

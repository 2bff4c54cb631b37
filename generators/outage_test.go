package generators_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"helicon/generators"
	"helicon/queue"
)

// serveAt starts a message server that others can connect to, at an address of its
// choice if listen has the port 0.
func serveAt(t *testing.T, dir, listen string) (srv *queue.Server, address, token string) {
	t.Helper()
	srv, err := queue.StartServer(queue.ServerConfig{Dir: dir, Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	if token, err = queue.ReadToken(dir); err != nil {
		t.Fatal(err)
	}
	return srv, strings.TrimPrefix(srv.URL(), "nats://"), token
}

func connect(t *testing.T, address, token string) (*queue.Queue, *nats.Conn) {
	t.Helper()
	nc, err := queue.Connect("nats://"+address, token, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	q, err := queue.Open(testContext(t), nc, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return q, nc
}

// TestWorkerSettlesInWithANewServer starts a worker while the message server is away.
// The one that comes back knows nothing of the worker.
func TestWorkerSettlesInWithANewServer(t *testing.T) {
	t.Parallel()
	srv, address, token := serveAt(t, t.TempDir(), "127.0.0.1:0")
	q, nc := connect(t, address, token)
	away := nc.StatusChanged(nats.RECONNECTING)
	srv.Close()
	receive(t, away, "the loss of the server")
	startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
		run: func(_ context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			return write("done", out), nil
		},
	}}})
	for range 2 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "nats.token"), []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		srv, _, _ = serveAt(t, dir, address)
		fresh, conn := connect(t, address, token)
		awaitState(t, fresh, submit(t, fresh, nil).ID, queue.Succeeded)
		conn.Close()
		srv.Close()
	}
}

// proxy passes connections on to a server. While mute, it keeps the server's answers.
type proxy struct {
	listener net.Listener
	mute     atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
	pumps sync.WaitGroup
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener}
	p.pumps.Go(func() { p.accept(target) })
	t.Cleanup(func() {
		listener.Close()
		p.cut()
		p.pumps.Wait()
	})
	return p
}

func (p *proxy) accept(target string) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.pumps.Go(func() {
			io.Copy(server, client)
			server.Close()
		})
		p.pumps.Go(func() {
			io.Copy(p.unlessMute(client), server)
			client.Close()
		})
	}
}

// writerFunc is a function that an io.Writer needs.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (p *proxy) unlessMute(w io.Writer) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		if p.mute.Load() {
			return len(b), nil
		}
		return w.Write(b)
	})
}

// cut ends the connections that there are.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// TestLostAnswerRepeatsNothing loses the server's answer to an event that it stored.
func TestLostAnswerRepeatsNothing(t *testing.T) {
	t.Parallel()
	_, address, token := serveAt(t, t.TempDir(), "127.0.0.1:0")
	direct, _ := connect(t, address, token)
	p := startProxy(t, address)
	q, nc := connect(t, p.listener.Addr().String(), token)
	started, muted, stored, back := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
		run: func(_ context.Context, _ *queue.Job, out generators.Output) (*queue.Result, error) {
			close(started)
			<-muted
			out.Delta(queue.Delta{Text: "one "})
			<-stored
			out.Delta(queue.Delta{Text: "two ", Offset: 4})
			<-back
			out.Delta(queue.Delta{Text: "three", Offset: 8})
			return &queue.Result{Text: "one two three"}, nil
		},
	}}})
	job := submit(t, direct, nil)
	receive(t, started, "the start")
	p.mute.Store(true)
	close(muted)
	written := ""
	for e, err := range direct.Watch(testContext(t), job.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Delta != nil {
			if written += e.Delta.Text; written == "one " {
				close(stored)
				again := nc.StatusChanged(nats.CONNECTED)
				p.mute.Store(false)
				p.cut()
				receive(t, again, "the reconnection")
				close(back)
			}
		}
	}
	if written != "one two three" {
		t.Errorf("watched %q", written)
	}
}

// TestLostAnswerCostsNoAttempt loses the server's answers from the moment a
// job is leased until its start is stored, and at the first hand-back likewise.
func TestLostAnswerCostsNoAttempt(t *testing.T) {
	t.Parallel()
	_, address, token := serveAt(t, t.TempDir(), "127.0.0.1:0")
	direct, _ := connect(t, address, token)
	p := startProxy(t, address)
	q, _ := connect(t, p.listener.Addr().String(), token)
	var estimates atomic.Int64
	startWorker(t, generators.Config{Queue: q, Generators: []generators.Generator{scripted{
		need: func(*queue.Job) generators.Need {
			if estimates.Add(1) == 1 {
				p.mute.Store(true)
			}
			return generators.Need{}
		},
		run: func(_ context.Context, job *queue.Job, out generators.Output) (*queue.Result, error) {
			if job.Attempts == 1 {
				p.mute.Store(true)
				return nil, generators.Transient(queue.Problemf("busy", "The engine is busy."))
			}
			return write("done", out), nil
		},
	}}})
	job := submit(t, direct, nil)
	for e, err := range direct.Watch(testContext(t), job.ID, 0) {
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Type == queue.EventStarted, e.Type == queue.EventQueued && len(e.Job.Failures) > 0:
			p.mute.Store(false)
			p.cut()
		case e.Terminal():
			job = e.Job
		}
	}
	if job.State != queue.Succeeded || job.Attempts != 2 || len(job.Failures) != 1 || job.Failures[0].Reason != "The engine is busy." {
		t.Errorf("job ended %s after %d attempts, failures %+v", job.State, job.Attempts, job.Failures)
	}
}

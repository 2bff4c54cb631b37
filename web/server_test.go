package web_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"helicon/queue"
)

// server is the whole of Helicon in a process of its own: gateway, queue, worker.
type server struct {
	binary, data string
	args         []string // of serve, beside where it listens and keeps its data
	addr         string
	process      *exec.Cmd
	log          *bytes.Buffer
}

// buildServer compiles the command, to be run with so many arguments.
func buildServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{binary: filepath.Join(t.TempDir(), "helicon"), data: t.TempDir(), args: args, addr: "127.0.0.1:0"}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", s.binary, "helicon")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if s.process != nil {
			s.kill()
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.log)
		}
	})
	return s
}

var address = regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`)

// start runs the server with its data, at the address it had before if any, and returns
// once it listens.
func (s *server) start(t *testing.T) {
	t.Helper()
	s.log = new(bytes.Buffer)
	s.process = exec.Command(s.binary, append([]string{"serve", "--addr", s.addr, "--data", s.data}, s.args...)...)
	s.process.Stderr = s.log
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if found := address.FindStringSubmatch(lines.Text()); found != nil {
			s.addr = found[1]
			return
		}
	}
	t.Fatalf("the server ended before it listened: %v\n%s", s.process.Wait(), s.log)
}

// kill ends the server at once, as a crash would.
func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait() // reports the kill
	s.process = nil
}

// serves reports whether a worker offers the task, which may take a moment after the
// start.
func (s *server) serves(t *testing.T, task string) bool {
	t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); <-again.C {
		var tasks struct{ Data []queue.Task }
		s.get(t, "/v1/tasks", &tasks)
		if slices.ContainsFunc(tasks.Data, func(offered queue.Task) bool { return offered.Name == task }) {
			return true
		}
	}
	return false
}

// get decodes the answer to a GET request of the API.
func (s *server) get(t *testing.T, path string, into any) {
	t.Helper()
	response, err := http.Get("http://" + s.addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", path, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
}

// job returns a job as the API tells it.
func (s *server) job(t *testing.T, id string) *queue.Job {
	t.Helper()
	job := new(queue.Job)
	s.get(t, "/v1/jobs/"+id, job)
	return job
}

// line is the network between the browser and the server. It can be cut.
type line struct {
	addr, target string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	running  sync.WaitGroup
}

// layLine connects a new port to the target.
func layLine(t *testing.T, target string) *line {
	t.Helper()
	l := &line{addr: "127.0.0.1:0", target: target, conns: map[net.Conn]bool{}}
	l.mend(t)
	t.Cleanup(l.cut)
	return l
}

// mend lets connections through, at the same port as before.
func (l *line) mend(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener, l.addr = listener, listener.Addr().String()
	l.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.carry(conn) })
		}
	})
}

// cut closes every connection and refuses new ones.
func (l *line) cut() {
	l.mu.Lock()
	if l.listener != nil {
		_ = l.listener.Close()
		l.listener = nil
	}
	for conn := range l.conns {
		_ = conn.Close()
	}
	l.mu.Unlock()
	l.running.Wait()
}

// carry copies both ways until either end closes.
func (l *line) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !l.keep(near, far) {
		return
	}
	defer l.forget(near, far)
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(near, far)
		_ = near.Close()
	})
	_, _ = io.Copy(far, near)
	_ = far.Close()
	back.Wait()
}

// keep notes connections to be cut; false if the line is cut already.
func (l *line) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener == nil {
		return false
	}
	for _, conn := range conns {
		l.conns[conn] = true
	}
	return true
}

func (l *line) forget(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		delete(l.conns, conn)
	}
}

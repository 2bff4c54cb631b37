package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"helicon/queue"
)

// runMain, in the environment, makes the test binary behave as the helicon command:
// the tests start real processes of the very code they test.
const runMain = "HELICON_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		os.Unsetenv(runMain)
		main()
		return
	}
	if settings := os.Getenv(runNATS); settings != "" {
		var node natsNode
		err := json.Unmarshal([]byte(settings), &node)
		if err == nil {
			err = node.serve()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// command returns a helicon command that is not started yet. It sees no settings but its flags.
func command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "HELICON_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, runMain+"=1")
	return cmd
}

// process is a running helicon.
type process struct {
	cmd   *exec.Cmd
	log   *lockedBuffer // what it wrote to the standard error
	lines chan string   // what it wrote to the standard output
	ended chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// launch starts helicon and kills it when the test ends.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	return start(t, command(context.Background(), args...))
}

// start starts a command and kills it when the test ends.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, log: &lockedBuffer{}, lines: make(chan string, 100), ended: make(chan struct{})}
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// terminate asks the process to end and returns its exit status.
func (p *process) terminate(t *testing.T) int {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		t.Fatalf("%v did not end within 10 seconds of SIGTERM\n%s", p.cmd.Args[1:], p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// address waits until a server says where it listens.
func (p *process) address(t *testing.T) *client {
	t.Helper()
	select {
	case line := <-p.lines:
		if _, url, ok := strings.Cut(line, "Helicon is ready: "); ok {
			return &client{base: url, http: &http.Client{}}
		}
		<-p.ended
		t.Fatalf("%v said %q\n%s", p.cmd.Args[1:], line, p.log)
	case <-time.After(30 * time.Second):
		t.Fatalf("%v is not ready after 30 seconds\n%s", p.cmd.Args[1:], p.log)
	}
	return nil
}

// freePort returns a port that nobody listens on at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// awaitWorkers waits until n workers are known to the server.
func awaitWorkers(t *testing.T, server *client, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		var list struct{ Data []queue.Worker }
		err := server.call(ctx, http.MethodGet, "/v1/workers", nil, &list)
		if err == nil && len(list.Data) >= n {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d workers after two minutes, want %d (%v)", len(list.Data), n, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// finish follows a job to its end and returns it and the text of its deltas.
func finish(t *testing.T, server *client, id string) (*queue.Job, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var job *queue.Job
	var text strings.Builder
	err := server.follow(ctx, id, func(e *queue.Event) error {
		if e.Type == queue.EventStarted {
			text.Reset()
		}
		if e.Delta != nil {
			text.WriteString(e.Delta.Text)
		}
		if e.Terminal() {
			job = e.Job
		}
		return nil
	})
	if err != nil {
		t.Fatalf("job %s: %v", id, err)
	}
	return job, text.String()
}

func seed(n uint64) *uint64 { return &n }

func completion(prompt string, tokens int, s uint64) *submission {
	return &submission{Task: "text.complete", Input: map[string]any{"prompt": prompt, "max_tokens": tokens}, Seed: seed(s)}
}

func TestServe(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	p := launch(t, "--addr", "127.0.0.1:0", "--data", t.TempDir())
	server := p.address(t)
	t.Logf("ready after %v", time.Since(begin).Round(time.Millisecond))
	awaitWorkers(t, server, 1)
	job, err := server.submit(t.Context(), completion("Once upon a time", 24, 1))
	if err != nil {
		t.Fatal(err)
	}
	done, streamed := finish(t, server, job.ID)
	if done.State != queue.Succeeded || done.Result.Text == "" || streamed != done.Result.Text {
		t.Fatalf("job ended %s with %+v, streamed %q", done.State, done.Result, streamed)
	}
	t.Logf("%q", done.Result.Text)
	if status := p.terminate(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM\n%s", status, p.log)
	}
}

func TestSameSeedSameTextEverywhere(t *testing.T) {
	t.Parallel()
	request := completion("Lily and Ben went to the park.", 40, 11)
	texts := map[string]string{}
	for _, threads := range []string{"1", "2"} {
		p := launch(t, "serve", "--addr", "127.0.0.1:0", "--data", t.TempDir(), "--threads", threads, "--slots", "1")
		server := p.address(t)
		awaitWorkers(t, server, 1)
		job, err := server.submit(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		done, streamed := finish(t, server, job.ID)
		texts["in process, streamed, threads "+threads] = streamed
		texts["in process, threads "+threads] = done.Result.Text
		p.kill()
	}
	data, port := t.TempDir(), freePort(t)
	gateway := launch(t, "gateway", "--addr", "127.0.0.1:0", "--data", data, "--nats-listen", "127.0.0.1:"+port)
	server := gateway.address(t)
	launch(t, "worker", "--modality", "text", "--nats", "nats://127.0.0.1:"+port, "--data", data)
	awaitWorkers(t, server, 1)
	job, err := server.submit(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	done, _ := finish(t, server, job.ID)
	texts["worker process"] = done.Result.Text

	out, err := command(t.Context(), "generate", "text", "Lily and Ben went to the park.", "--max-tokens", "40", "--seed", "11", "--server", server.base).Output()
	if err != nil {
		t.Fatal(err)
	}
	texts["command line"] = strings.TrimSuffix(string(out), "\n")
	for name, text := range texts {
		if text == "" || text != texts["worker process"] {
			t.Errorf("%s wrote %q, the worker process %q", name, text, texts["worker process"])
		}
	}
}

func TestGenerateInProcess(t *testing.T) {
	t.Parallel()
	if (&client{base: defaultServer, http: &http.Client{}}).alive(t.Context()) {
		t.Skip("a server runs on the default address: the command would use it")
	}
	var job queue.Job
	out, err := command(t.Context(), "generate", "text", "The little fox", "--max-tokens", "12", "--seed", "3", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &job); err != nil || job.State != queue.Succeeded || job.Result.Text == "" || job.Seed != 3 {
		t.Fatalf("printed %s (%v)", out, err)
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	unknownSetting := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(unknownSetting, []byte("colour-of-the-sky: 127.0.0.1:7001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"unknown flag":      {[]string{"serve", "--nonsense"}, 80, "nonsense"},
		"no server":         {[]string{"generate", "text", "x", "--server", "http://127.0.0.1:1"}, exitUnavailable, "no server answers"},
		"worker, no url":    {[]string{"worker"}, 80, "--nats"},
		"address in use":    {[]string{"serve", "--addr", "256.0.0.1:80", "--data", t.TempDir()}, exitFailed, "--addr"},
		"unknown model":     {[]string{"generate", "text", "x", "--model", "no-such-model"}, exitFailed, "no-such-model"},
		"unknown setting":   {[]string{"doctor", "--config", unknownSetting}, 80, "colour-of-the-sky"},
		"too little memory": {[]string{"generate", "text", "x", "--mem", "1MB"}, exitFailed, "memory"},
		"bad parameter":     {[]string{"generate", "text", "x", "--temperature", "9"}, exitFailed, "temperature"},
		"no such bundle":    {[]string{"models", "info", "no-such-model"}, exitFailed, "no-such-model"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			cmd := command(t.Context(), c.args...)
			cmd.Stderr = &stderr
			cmd.Run()
			if cmd.ProcessState.ExitCode() != c.status || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("exit status %d and %q, want %d and a word of %q", cmd.ProcessState.ExitCode(), stderr.String(), c.status, c.says)
			}
		})
	}
}

// TestWorkerWaitsForTheQueue starts a worker before there is a queue: it must say so,
// and go to work once there is one.
func TestWorkerWaitsForTheQueue(t *testing.T) {
	t.Parallel()
	data, port := t.TempDir(), freePort(t)
	worker := launch(t, "worker", "--nats", "nats://127.0.0.1:"+port, "--data", data)
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(worker.log.String(), "cannot be reached") {
		if time.Now().After(deadline) {
			t.Fatalf("the worker says nothing of the missing queue: %s", worker.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
	gateway := launch(t, "gateway", "--addr", "127.0.0.1:0", "--data", data, "--nats-listen", "127.0.0.1:"+port)
	awaitWorkers(t, gateway.address(t), 1)
	if status := worker.terminate(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM\n%s", status, worker.log)
	}
}

// TestSettingsHaveOneOrder sets the same thing in several places: flags count more
// than the environment, and that more than the settings file.
func TestSettingsHaveOneOrder(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(file, []byte("addr: 127.0.0.1:7001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]struct{ env, flag []string }{
		"127.0.0.1:7001": {},
		"127.0.0.1:7002": {env: []string{"HELICON_ADDR=127.0.0.1:7002"}},
		"127.0.0.1:7003": {env: []string{"HELICON_ADDR=127.0.0.1:7002"}, flag: []string{"--addr", "127.0.0.1:7003"}},
	} {
		args := append([]string{"doctor", "--json", "--config", file, "--data", t.TempDir()}, c.flag...)
		cmd := command(t.Context(), args...)
		cmd.Env = append(cmd.Env, c.env...)
		out, err := cmd.Output()
		if err != nil || !bytes.Contains(out, []byte(want)) {
			t.Errorf("want the address %s: %s (%v)", want, out, err)
		}
	}
}

func TestModelsAndDoctor(t *testing.T) {
	t.Parallel()
	var models []bundleView
	out, err := command(t.Context(), "models", "list", "--json", "--models", t.TempDir()).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &models); err != nil || len(models) == 0 || models[0].Parameters == 0 {
		t.Fatalf("models list printed %s (%v)", out, err)
	}
	if out, err = command(t.Context(), "models", "info", models[0].ID, "--models", t.TempDir()).Output(); err != nil || !bytes.Contains(out, []byte("sha256:")) {
		t.Errorf("models info printed %s (%v)", out, err)
	}
	var findings []finding
	if out, err = command(t.Context(), "doctor", "--json", "--data", t.TempDir()).Output(); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &findings); err != nil || len(findings) < 8 {
		t.Fatalf("doctor printed %s (%v)", out, err)
	}
}

package queue

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestJobsSurviveTheServer(t *testing.T) {
	t.Parallel()
	c := ServerConfig{Dir: t.TempDir()}
	q, stop := openAt(t, c, Options{AckWait: time.Second})
	waiting := submit(t, q, Job{})
	l := next(t, source(t, q, "w1"))
	start(t, l)
	queued := submit(t, q, Job{})
	stop()

	if err := q.Submit(t.Context(), &Job{Task: "text.complete"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("submit without a server: %v, want ErrUnavailable", err)
	}
	if _, err := q.Job(t.Context(), queued.ID); !errors.Is(err, ErrUnavailable) {
		t.Errorf("read without a server: %v, want ErrUnavailable", err)
	}

	q, _ = openAt(t, c, Options{AckWait: time.Second})
	want(t, q, waiting.ID, Running)
	s := source(t, q, "w2")
	for range 2 {
		l := next(t, s)
		start(t, l)
		if err := l.Succeed(t.Context(), &Result{Text: l.Job.ID}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{waiting.ID, queued.ID} {
		if got := want(t, q, id, Succeeded); got.Result.Text != id {
			t.Errorf("job %s has the result of %s", id, got.Result.Text)
		}
	}
}

func TestOutsideWorkersNeedTheToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, err := StartServer(ServerConfig{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	info, err := os.Stat(filepath.Join(dir, tokenFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("token file: mode %v, %v; want 0600", info.Mode(), err)
	}
	if _, err := Connect(srv.URL(), "", "stranger"); err == nil {
		t.Error("connected without the token")
	}
	token, err := ReadToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := Connect(srv.URL(), token, "worker")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := Open(t.Context(), nc, Options{}); err != nil {
		t.Fatal(err)
	}
}

func TestNobodyConnectsToAPrivateServer(t *testing.T) {
	t.Parallel()
	srv, err := StartServer(ServerConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	if srv.URL() != "" {
		t.Errorf("private server has the URL %s", srv.URL())
	}
}

func TestConnectToNothing(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	_, err := Connect("nats://user:secret@127.0.0.1:1", "", "w")
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error tells the password: %v", err)
	}
	if time.Since(begin) > 5*time.Second {
		t.Errorf("took %v to say so", time.Since(begin))
	}
}

func TestFullStorage(t *testing.T) {
	t.Parallel()
	q, _ := openAt(t, ServerConfig{Dir: t.TempDir(), MaxStore: 1 << 20}, Options{})
	var err error
	for range 100 {
		job := Job{Task: "text.complete", Input: []byte(`{"prompt":"` + strings.Repeat("x", 64<<10) + `"}`)}
		if err = q.Submit(t.Context(), &job); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("submitting to a full server: %v, want ErrFull", err)
	}
	if err := q.Ready(t.Context()); err != nil {
		t.Errorf("the full server does not answer: %v", err)
	}
}

// TestDiskFillsUp lets the disk run full and have room again: no job is accepted in
// between, each refusal comes at once, and what was accepted before goes on.
func TestDiskFillsUp(t *testing.T) {
	t.Parallel()
	var room atomic.Uint64
	room.Store(1 << 30)
	srv, err := StartServer(ServerConfig{Dir: t.TempDir(), free: func(string) (uint64, error) { return room.Load(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	q, err := Open(t.Context(), nc, Options{Full: srv.Full, AckWait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	before := submit(t, q, Job{})
	awaitSubmit := func(want error) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for {
			err := q.Submit(t.Context(), &Job{Task: "text.chat"})
			if errors.Is(err, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("submit: %v, want %v", err, want)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	room.Store(1 << 20)
	awaitSubmit(ErrFull)
	if err := q.Ready(t.Context()); !errors.Is(err, ErrFull) {
		t.Errorf("ready: %v, want ErrFull", err)
	}
	if _, err := q.Job(t.Context(), before.ID); err != nil {
		t.Errorf("reading while the disk is full: %v", err)
	}
	room.Store(1 << 30)
	awaitSubmit(nil)
	l := next(t, source(t, q, "w"))
	if l.Job.ID != before.ID {
		t.Errorf("leased %s, want %s", l.Job.ID, before.ID)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	t.Parallel()
	c := ServerConfig{Dir: t.TempDir()}
	_, stop := openAt(t, c, Options{})
	if _, err := StartServer(c); !errors.Is(err, ErrInUse) {
		t.Errorf("second server in one directory: %v, want ErrInUse", err)
	}
	stop()
	again, err := StartServer(c)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

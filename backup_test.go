package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"helicon/queue"
)

// backUp runs helicon backup and returns the file.
func backUp(t *testing.T, name, data, server string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if out, err := command(t.Context(), "backup", file, "--data", data, "--server", server).CombinedOutput(); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	return file
}

// restore runs helicon restore into a new directory.
func restore(t *testing.T, file string) string {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	if out, err := command(t.Context(), "restore", file, "--data", data).CombinedOutput(); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	return data
}

// submitAll submits n jobs.
func submitAll(t *testing.T, server *client, n int) []string {
	t.Helper()
	ids := make([]string, n)
	for i := range ids {
		job, err := server.submit(t.Context(), completion("Once", 4, uint64(i)))
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = job.ID
	}
	return ids
}

// TestBackupOfARunningServer copies a server whose jobs wait, and lets the copy do them.
func TestBackupOfARunningServer(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	define := launch(t, "serve", "--addr", "127.0.0.1:0", "--data", data, "--workers", "text")
	first := define.address(t)
	awaitWorkers(t, first, 1)
	done := submitAll(t, first, 2)
	for _, id := range done {
		finish(t, first, id)
	}
	define.terminate(t)

	p := launch(t, "serve", "--addr", "127.0.0.1:0", "--data", data, "--workers", "none")
	server := p.address(t)
	waiting := submitAll(t, server, 5)
	resp, err := server.do(t.Context(), http.MethodPost, "/v1/uploads", strings.NewReader(`{"kept":true}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	upload := resp.Header.Get("Location")
	for _, name := range []string{"running.tar.zst", "stopped.tar.gz"} {
		file := backUp(t, name, data, server.base)
		copied := restore(t, file)
		if out, err := command(t.Context(), "restore", file, "--data", copied).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("not empty")) {
			t.Errorf("restored over what was there: %v %s", err, out)
		}
		again := launch(t, "serve", "--addr", "127.0.0.1:0", "--data", copied, "--workers", "text")
		second := again.address(t)
		for _, id := range append(waiting, done...) {
			if job, _ := finish(t, second, id); job.State != queue.Succeeded || job.Attempts != 1 {
				t.Errorf("%s: job %s ended %s after %d attempts: %v", name, id, job.State, job.Attempts, job.Problem)
			}
		}
		resp, err := second.do(t.Context(), http.MethodGet, upload, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(kept) != `{"kept":true}` {
			t.Errorf("%s: the upload reads %q, %v", name, kept, err)
		}
		var listed struct{ Data []queue.Job }
		if err := second.call(t.Context(), http.MethodGet, "/v1/jobs?state=succeeded", nil, &listed); err != nil || len(listed.Data) != 7 {
			t.Errorf("%s: %d jobs are listed (%v), want 7", name, len(listed.Data), err)
		}
		again.terminate(t)
		if name == "running.tar.zst" {
			p.terminate(t) // the next backup is of the files alone
		}
	}
}

// TestBackupWhileJobsGoOn takes a backup in the middle of submissions and work: whatever was
// accepted before it began is in it, and whatever it knows ends.
func TestBackupWhileJobsGoOn(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := launch(t, "serve", "--addr", "127.0.0.1:0", "--data", data, "--workers", "text", "--no-sync")
	server := p.address(t)
	awaitWorkers(t, server, 1)
	ctx, stop := context.WithCancel(t.Context())
	var submitting sync.WaitGroup
	for range 4 {
		submitting.Go(func() {
			for ctx.Err() == nil {
				if _, err := server.submit(ctx, completion("Once", 2, 1)); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	before := submitAll(t, server, 20)
	file := backUp(t, "busy.tar.zst", data, server.base)
	stop()
	submitting.Wait()
	p.kill()

	second := launch(t, "serve", "--addr", "127.0.0.1:0", "--data", restore(t, file), "--workers", "text", "--no-sync").address(t)
	for _, id := range before {
		if job, _ := finish(t, second, id); job.State != queue.Succeeded {
			t.Errorf("job %s ended %s: %v", id, job.State, job.Problem)
		}
	}
	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for open := 1; open > 0; {
		open = 0
		for _, state := range []string{"queued", "running"} {
			var listed struct{ Data []queue.Job }
			if err := second.call(deadline, http.MethodGet, "/v1/jobs?limit=200&state="+state, nil, &listed); err != nil {
				t.Fatalf("jobs of the copy do not end: %v", err)
			}
			open += len(listed.Data)
		}
	}
}

// TestRestoreIsAllOrNothing restores what is cut short or no backup: nothing is left behind.
func TestRestoreIsAllOrNothing(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := launch(t, "serve", "--addr", "127.0.0.1:0", "--data", data, "--workers", "text")
	awaitWorkers(t, p.address(t), 1)
	p.terminate(t)
	whole, err := os.ReadFile(backUp(t, "whole.tar", data, defaultServer))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"short": whole[:len(whole)/2], "other": []byte("hello"), "empty": nil} {
		file, into := filepath.Join(t.TempDir(), name+".tar"), t.TempDir()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := command(t.Context(), "restore", file, "--data", into).CombinedOutput()
		left, _ := os.ReadDir(into)
		if err == nil || len(left) > 0 || bytes.Contains(out, []byte("goroutine")) {
			t.Errorf("%s: %v, %d entries left: %s", name, err, len(left), out)
		}
	}
}

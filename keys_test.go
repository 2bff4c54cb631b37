package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"helicon/gateway/catalog"
	"helicon/queue"
)

// said runs a helicon command that ends with a status and returns what it printed.
func said(t *testing.T, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, err := run(t, "", args...)
	got := 0
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != status {
		t.Fatalf("helicon %v: status %d, want %d\n%s%s", args, got, status, stdout, stderr)
	}
	return stdout, stderr
}

// eventually asks until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for patience := time.Now().Add(10 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(patience) {
			t.Fatalf("not within 10 seconds: %s", what)
		}
	}
}

// TestKeysOfARunningServer makes, lists and revokes keys in another process than the one
// that serves, and sets a tenant's limits.
func TestKeysOfARunningServer(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	early, _ := said(t, 0, "keys", "create", "--data", data, "--tenant", "early") // before there is a server
	server := launch(t, "serve", "--addr", "127.0.0.1:0", "--workers", "none", "--auth", "required", "--data", data, "--no-sync").address(t)
	ask := func(key string) (int, http.Header) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), "GET", server.base+"/v1/tasks", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+key)
		response, err := server.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode, response.Header
	}
	if status, _ := ask(strings.TrimSpace(early)); status != 200 {
		t.Errorf("a key from before the server: %d", status)
	}
	if status, header := ask("hk_false"); status != 401 || header.Get("WWW-Authenticate") == "" {
		t.Errorf("a false key: %d %v", status, header)
	}
	text, told := said(t, 0, "keys", "create", "--data", data, "--tenant", "acme", "--name", "CI", "--scopes", "jobs:read", "--expires", "1h")
	key := strings.TrimSpace(text)
	id, _, err := catalog.ParseKey(key)
	if err != nil || !strings.Contains(told, id) || strings.Contains(told, key) {
		t.Fatalf("printed %q and %q: %v", text, told, err)
	}
	if status, _ := ask(key); status != 200 {
		t.Fatalf("a new key: %d", status)
	}
	said(t, 0, "tenants", "set", "acme", "--rate", "7", "--data", data)
	eventually(t, "the tenant's limit holds", func() bool {
		_, header := ask(key)
		return header.Get("RateLimit-Limit") == "14"
	})
	var keys []catalog.Key
	listed, _ := said(t, 0, "keys", "list", "--data", data, "--json", "--tenant", "acme")
	if err := json.Unmarshal([]byte(listed), &keys); err != nil || len(keys) != 1 || keys[0].ID != id || keys[0].Used == nil || keys[0].Expires == nil {
		t.Errorf("listed %s: %v", listed, err)
	}
	if strings.Contains(listed, key[12:]) {
		t.Error("the list has the secret")
	}
	said(t, 0, "keys", "revoke", id, "--data", data)
	eventually(t, "the revoked key is refused", func() bool {
		status, _ := ask(key)
		return status == 401
	})
	if table, _ := said(t, 0, "keys", "list", "--data", data); !strings.Contains(table, "revoked") || !strings.Contains(table, "active") {
		t.Errorf("list:\n%s", table)
	}
	if _, log := said(t, exitFailed, "keys", "revoke", "00000000", "--data", data); !strings.Contains(log, "no key") {
		t.Errorf("revoked nothing: %s", log)
	}
}

// TestOthersNeedAKey starts a server that others can reach.
func TestOthersNeedAKey(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	serve := []string{"gateway", "--addr", "0.0.0.0:0", "--data", data, "--no-sync"}
	_, log := said(t, exitUsage, serve...)
	if !strings.Contains(log, "helicon keys create --data") || !strings.Contains(log, "--auth off") {
		t.Errorf("refused to start without saying what to do:\n%s", log)
	}
	open := launch(t, append(serve, "--auth", "off")...)
	_, port, _ := strings.Cut(open.address(t).base[len("http://"):], "]:")
	local := &client{base: "http://127.0.0.1:" + port, http: &http.Client{}}
	if err := local.call(t.Context(), "GET", "/v1/tasks", nil, nil); err != nil {
		t.Errorf("with --auth off: %v", err)
	}
	open.terminate(t)
	key, _ := said(t, 0, "keys", "create", "--data", data)
	_, port, _ = strings.Cut(launch(t, serve...).address(t).base[len("http://"):], "]:")
	local.base = "http://127.0.0.1:" + port
	var refused *queue.Problem
	if err := local.call(t.Context(), "GET", "/v1/tasks", nil, nil); !errors.As(err, &refused) || refused.Code != "key_required" {
		t.Errorf("without a key: %v", err)
	}
	local.key = strings.TrimSpace(key)
	if err := local.call(t.Context(), "GET", "/v1/tasks", nil, nil); err != nil {
		t.Errorf("with the key: %v", err)
	}
}

// TestLimitsAreReread changes the settings file under a running server.
func TestLimitsAreReread(t *testing.T) {
	t.Parallel()
	settings := filepath.Join(t.TempDir(), "settings.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("limit-rate: 1000\n")
	p := launch(t, "gateway", "--config", settings, "--addr", "127.0.0.1:0", "--data", t.TempDir(), "--no-sync")
	server := p.address(t)
	limit := func() string {
		response, err := server.do(t.Context(), "GET", "/v1/tasks", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.Header.Get("RateLimit-Limit")
	}
	if got := limit(); got != "2000" {
		t.Fatalf("limit %q, want 2000", got)
	}
	write("limit-rate: 500\nlimit-burst: 700\n")
	eventually(t, "the changed limit holds", func() bool { return limit() == "700" })
	write("limit-rate: -1\n")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the false limit is told of", func() bool { return strings.Contains(p.log.String(), "cannot be read again") })
	if got := limit(); got != "700" {
		t.Errorf("a false limit changed it to %q", got)
	}
	p.terminate(t)
}

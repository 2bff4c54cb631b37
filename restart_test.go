package main

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"helicon/queue"
)

// runServer runs a NATS server in this process until the test ends.
func runServer(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	return s.ClientURL()
}

// replica is a process that is restarted at the same address.
type replica struct {
	*process
	args   []string
	client *client
}

func newReplica(t *testing.T, nats string) *replica {
	t.Helper()
	address := "127.0.0.1:" + freePort(t)
	r := &replica{
		args:   []string{"gateway", "--addr", address, "--nats", nats, "--data", t.TempDir(), "--drain", "500ms", "--log-level", "error"},
		client: &client{base: "http://" + address, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}},
	}
	r.process = launch(t, r.args...)
	r.address(t)
	return r
}

// restart ends the process as an orchestrator does: it is told to, and its readiness is asked for
// meanwhile.
func (r *replica) restart(t *testing.T) {
	t.Helper()
	unready := make(chan bool, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r.cmd.Process.Signal(syscall.SIGTERM)
	go func() {
		for ctx.Err() == nil {
			resp, err := http.Get(r.client.base + "/readyz")
			if err != nil {
				break // it has ended
			}
			resp.Body.Close()
			if resp.StatusCode == http.StatusServiceUnavailable {
				unready <- true
				return
			}
		}
		unready <- false
	}()
	if !<-unready {
		t.Error("the gateway has ended without having said that it is not ready")
	}
	select {
	case <-r.ended: // a second signal would end it the hard way
	case <-time.After(10 * time.Second):
		t.Fatalf("the gateway does not end\n%s", r.log)
	}
	if status := r.cmd.ProcessState.ExitCode(); status != 0 {
		t.Errorf("exit status %d\n%s", status, r.log)
	}
	r.process = launch(t, r.args...)
	r.address(t)
}

// TestRollingRestart restarts two gateways and a worker one after the other, with requests in
// flight all the time. A client that goes to the other gateway when a connection fails sees no
// failure at all, and no attempt at a job is lost.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	nats := runServer(t)
	replicas := []*replica{newReplica(t, nats), newReplica(t, nats)}
	clients := []*client{replicas[0].client, replicas[1].client}
	work := []string{"worker", "--modality", "text", "--nats", nats, "--data", t.TempDir(), "--threads", "1", "--log-level", "error"}
	worker := launch(t, work...)
	awaitWorkers(t, clients[0], 1)

	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	var ids []string
	var moved atomic.Int64
	var submitting sync.WaitGroup
	for i := range 4 {
		submitting.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				job := new(queue.Job)
				err := clients[n%2].call(t.Context(), http.MethodPost, "/v1/jobs", completion("Once", 8, uint64(n)), job)
				if errors.Is(err, errUnreachable) {
					moved.Add(1)
					err = clients[(n+1)%2].call(t.Context(), http.MethodPost, "/v1/jobs", completion("Once", 8, uint64(n)), job)
				}
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				mu.Lock()
				ids = append(ids, job.ID)
				mu.Unlock()
				select {
				case <-time.After(10 * time.Millisecond): // the rate of the load
				case <-ctx.Done():
				}
			}
		})
	}
	for _, r := range replicas {
		r.restart(t)
	}
	if status := worker.terminate(t); status != 0 {
		t.Errorf("the worker ended with the status %d\n%s", status, worker.log)
	}
	launch(t, work...)
	stop()
	submitting.Wait()
	for _, id := range ids {
		job, _ := finish(t, clients[0], id)
		if job.State != queue.Succeeded || job.Attempts != 1 {
			t.Errorf("job %s ended %s after %d attempts: %v", id, job.State, job.Attempts, job.Failures)
		}
	}
	t.Logf("%d jobs, %d of them submitted to the other gateway after a connection failed", len(ids), moved.Load())
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"helicon/queue"
)

const (
	lossClients = 8
	lossJobs    = 25              // a client
	lossKills   = 5               // at least
	lossLimit   = 4 * time.Minute // on a slow and busy machine
)

// TestNoJobIsLost submits jobs from several clients while the gateway, with the
// queue in it, and the workers are killed at random and started again. Every
// accepted job must end in one terminal state with one result, and a repeated
// idempotency key must return the first job.
func TestNoJobIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes up to four minutes: not run with -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), lossLimit)
	defer cancel()
	fleet := newFleet(t)
	awaitWorkers(t, fleet.server, 2)

	killing, stopKilling := context.WithTimeout(ctx, 40*time.Second)
	defer stopKilling()
	var killers sync.WaitGroup
	killers.Go(func() { fleet.killAtRandom(ctx, killing, rand.New(rand.NewPCG(1, 2))) })

	ids := make([][]string, lossClients)
	var clients sync.WaitGroup
	for i := range ids {
		clients.Go(func() {
			for j := range lossJobs {
				ids[i] = append(ids[i], submitUntilAccepted(ctx, t, fleet.server, fmt.Sprintf("client-%d-job-%d", i, j), uint64(j)))
				pauseFor(ctx, time.Second) // so that the submissions meet the kills
			}
		})
	}
	clients.Wait()
	stopKilling()
	killers.Wait()
	t.Logf("%d jobs accepted, %d processes killed", lossClients*lossJobs, fleet.kills)
	if fleet.kills < lossKills {
		t.Errorf("only %d processes were killed: the test proves little", fleet.kills)
	}

	texts := map[uint64]string{} // by seed: equal requests have equal results
	attempts := 0
	for i, list := range ids {
		for j, id := range list {
			job := awaitEnd(ctx, t, fleet.server, id)
			if job.State != queue.Succeeded {
				t.Fatalf("job %s ended %s: %v", id, job.State, job.Problem)
			}
			if text, ok := texts[job.Seed]; ok && text != job.Result.Text {
				t.Errorf("seed %d wrote %q and %q", job.Seed, text, job.Result.Text)
			}
			texts[job.Seed] = job.Result.Text
			attempts += job.Attempts
			if again := submitUntilAccepted(ctx, t, fleet.server, fmt.Sprintf("client-%d-job-%d", i, j), uint64(j)); again != id {
				t.Errorf("the key of job %s returned %s", id, again)
			}
			if n := terminalEvents(ctx, t, fleet.server, id); n != 1 {
				t.Errorf("job %s has %d terminal events", id, n)
			}
		}
	}
	if n := countJobs(ctx, t, fleet.server); n != lossClients*lossJobs {
		t.Errorf("%d jobs exist, %d were accepted", n, lossClients*lossJobs)
	}
	t.Logf("%d attempts for %d jobs", attempts, lossClients*lossJobs)
	if attempts == lossClients*lossJobs {
		t.Error("no kill met a running job: the test proves little")
	}
}

// fleet is a gateway with the queue and two workers, each a process.
type fleet struct {
	t      *testing.T
	server *client
	args   [][]string
	kills  int

	processes []*process
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	data, addr, nats := t.TempDir(), "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	worker := []string{"worker", "--nats", "nats://" + nats, "--data", data, "--threads", "1", "--log-level", "error"}
	f := &fleet{
		t: t, server: &client{base: "http://" + addr, http: &http.Client{Timeout: 20 * time.Second}},
		args: [][]string{
			{"gateway", "--addr", addr, "--nats-listen", nats, "--data", data, "--log-level", "error"},
			worker, worker,
		},
	}
	for i := range f.args {
		f.processes = append(f.processes, launch(t, f.args[i]...))
		if i == 0 {
			f.processes[0].address(t)
		}
	}
	return f
}

// killAtRandom kills a process every second or so and starts it again at once, until
// killing ends and enough have been killed: on a busy machine each takes its time.
func (f *fleet) killAtRandom(ctx, killing context.Context, random *rand.Rand) {
	for killing.Err() == nil || f.kills < lossKills {
		if !pauseFor(ctx, time.Duration(500+random.IntN(1500))*time.Millisecond) {
			return
		}
		i := random.IntN(len(f.processes))
		f.processes[i].kill()
		f.kills++
		f.processes[i] = launch(f.t, f.args[i]...)
	}
}

// pauseFor waits and reports whether ctx goes on.
func pauseFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// submitUntilAccepted does what a careful client does: it repeats the request with
// its key until it has an answer.
func submitUntilAccepted(ctx context.Context, t *testing.T, server *client, key string, s uint64) string {
	body := fmt.Sprintf(`{"task":"text.complete","input":{"prompt":"Once upon a time","max_tokens":96},"seed":%d}`, s)
	for {
		resp, err := server.do(ctx, http.MethodPost, "/v1/jobs", strings.NewReader(body), map[string]string{"Idempotency-Key": key})
		if err == nil {
			resp.Body.Close()
			return strings.TrimPrefix(resp.Header.Get("Location"), "/v1/jobs/")
		}
		var problem *queue.Problem
		if errors.As(err, &problem) && problem.Code != "unavailable" {
			t.Errorf("%s: %v", key, err)
		}
		if !pauseFor(ctx, 100*time.Millisecond) {
			t.Errorf("%s was not accepted in time: %v", key, err)
			return ""
		}
	}
}

// awaitEnd asks for a job until it has ended.
func awaitEnd(ctx context.Context, t *testing.T, server *client, id string) *queue.Job {
	t.Helper()
	for {
		var job queue.Job
		err := server.call(ctx, http.MethodGet, "/v1/jobs/"+id, nil, &job)
		if err == nil && job.State.Terminal() {
			return &job
		}
		if !pauseFor(ctx, 50*time.Millisecond) {
			t.Fatalf("job %s is %q after %v (%v)", id, job.State, lossLimit, err)
		}
	}
}

func terminalEvents(ctx context.Context, t *testing.T, server *client, id string) (n int) {
	t.Helper()
	err := server.follow(ctx, id, func(e *queue.Event) error {
		if e.Terminal() {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatalf("events of job %s: %v", id, err)
	}
	return n
}

func countJobs(ctx context.Context, t *testing.T, server *client) (n int) {
	t.Helper()
	path := "/v1/jobs?limit=100"
	for {
		var page struct {
			Data []queue.Job
			Next string
		}
		if err := server.call(ctx, http.MethodGet, path, nil, &page); err != nil {
			t.Fatal(err)
		}
		n += len(page.Data)
		if page.Next == "" {
			return n
		}
		path = "/v1/jobs?limit=100&after=" + page.Next
	}
}

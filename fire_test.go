//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"helicon/queue"
)

const (
	fireChains = 100               // of jobs of which each needs the one before
	fireLinks  = 10                // jobs of a chain
	fireRows   = 100               // of a batch
	fireAfter  = 150 * time.Second // what is left may take after the last kill
)

// TestFire runs the scaled-out form under fire: three NATS servers, PostgreSQL, two gateways
// and four workers, of which one after another is killed without warning, and one worker is
// cut off for longer than a lease lasts. Every accepted job ends once, with what it needs
// before it; every webhook arrives, under one id each.
func TestFire(t *testing.T) {
	if testing.Short() {
		t.Skip("takes up to four minutes: not run with -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), fireFor+fireAfter)
	defer cancel()
	f := newFire(ctx, t)

	killing, stop := context.WithTimeout(ctx, fireFor)
	defer stop()
	var fighters sync.WaitGroup
	fighters.Go(func() { f.killAtRandom(killing, rand.New(rand.NewPCG(7, 8))) })
	fighters.Go(func() { f.cutOff(killing) })
	var batches [2]string
	for i := range batches {
		fighters.Go(func() { batches[i] = f.submitBatch(ctx, fmt.Sprintf("batch-%d", i)) })
	}
	ids := f.submitChains(ctx)
	fighters.Wait()
	t.Logf("fire ceased: %v killed", f.killed)

	attempts := 0
	for _, id := range ids {
		job := f.await(ctx, id)
		if job.State != queue.Succeeded {
			t.Fatalf("job %s ended %s: %v (%v)", id, job.State, job.Problem, job.Failures)
		}
		if n := f.terminalEvents(ctx, id); n != 1 {
			t.Errorf("job %s has %d terminal events", id, n)
		}
		attempts += job.Attempts
	}
	for _, id := range batches {
		f.checkBatch(ctx, id)
	}
	f.inbox.check(ctx, t, ids)
	t.Logf("%d jobs, %d attempts, %d webhooks arrived for them; %d batches of %d rows", len(ids), attempts, f.inbox.arrived(), len(batches), fireRows)
}

// fire is the processes of the test.
type fire struct {
	t       *testing.T
	nodes   []natsNode
	db      *postgres
	link    *link
	servers []*client
	inbox   *inbox

	mu     sync.Mutex
	parts  []part
	killed map[string]int
}

// part is a process that may be killed.
type part struct {
	kind  string
	start func() *process
	*process
}

func newFire(ctx context.Context, t *testing.T) *fire {
	t.Helper()
	f := &fire{t: t, nodes: natsCluster(t, 3), db: newPostgres(t), inbox: newInbox(t), killed: map[string]int{}}
	t.Cleanup(f.tell)
	var urls []string
	for _, node := range f.nodes {
		urls = append(urls, node.url())
		f.add("nats", func() *process { return node.start(t) })
	}
	f.add("postgres", func() *process { return f.db.start(t) })
	common := []string{"--nats", strings.Join(urls, ","), "--log-level", "error"}
	for range 2 {
		addr, data := "127.0.0.1:"+freePort(t), t.TempDir()
		args := append([]string{
			"gateway", "--addr", addr, "--data", data, "--db", f.db.url(), "--webhook-allow", "127.0.0.0/8",
		}, common...)
		f.add("gateway", func() *process { return launch(t, args...) })
		f.servers = append(f.servers, &client{base: "http://" + addr, http: &http.Client{Timeout: 10 * time.Second}})
	}
	f.link = newLink(t, strings.TrimPrefix(f.nodes[0].url(), "nats://"))
	for i := range 4 {
		args := append([]string{"worker", "--modality", "text", "--threads", "1", "--data", t.TempDir()}, common...)
		if i == 0 { // this one's only way leads over the link
			args = []string{"worker", "--modality", "text", "--threads", "1", "--data", t.TempDir(), "--nats", f.link.url(), "--replicas", "3", "--log-level", "error"}
		}
		f.add("worker", func() *process { return launch(t, args...) })
	}
	for _, s := range f.servers {
		for !s.alive(ctx) {
			if !pauseFor(ctx, 100*time.Millisecond) {
				t.Fatal("no gateway is ready")
			}
		}
	}
	awaitWorkers(t, f.servers[0], 4)
	return f
}

// add starts a process that may be killed from then on.
func (f *fire) add(kind string, start func() *process) {
	p := part{kind, start, start()}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parts = append(f.parts, p)
}

// tell logs what the processes have said, if the test failed.
func (f *fire) tell() {
	if !f.t.Failed() {
		return
	}
	for _, p := range f.parts {
		said := p.log.String()
		f.t.Logf("%s %v: %s", p.kind, p.cmd.Args[1:], said[max(0, len(said)-2000):])
	}
}

// killAtRandom kills a process every second or so, and starts it again after up to two.
// Of the NATS servers one at a time is down: two of three are needed for a decision.
func (f *fire) killAtRandom(ctx context.Context, random *rand.Rand) {
	for pauseFor(ctx, time.Duration(300+random.IntN(1200))*time.Millisecond) {
		p := &f.parts[random.IntN(len(f.parts))]
		p.kill()
		f.killed[p.kind]++
		pauseFor(ctx, time.Duration(random.IntN(2000))*time.Millisecond)
		p.process = p.start()
	}
}

// cutOff swallows what goes between a worker and NATS for longer than a lease lasts, again
// and again.
func (f *fire) cutOff(ctx context.Context) {
	for pauseFor(ctx, 10*time.Second) {
		f.link.set(true)
		pauseFor(ctx, 14*time.Second)
		f.link.set(false)
	}
}

// submitChains submits jobs of which each needs the one before, from many clients.
func (f *fire) submitChains(ctx context.Context) []string {
	all := make([][]string, fireChains)
	var clients sync.WaitGroup
	for c := range fireChains {
		clients.Go(func() {
			for l := range fireLinks {
				job := map[string]any{
					"task": "text.complete", "input": map[string]any{"prompt": "Once upon a time", "max_tokens": 4}, "webhook": f.inbox.server.URL,
				}
				if l > 0 {
					job["needs"] = all[c][l-1:]
				}
				body, err := json.Marshal(job)
				if err != nil {
					f.t.Error(err)
				}
				all[c] = append(all[c], f.submit(ctx, fmt.Sprintf("chain-%d-link-%d", c, l), string(body)))
				pauseFor(ctx, fireFor/fireLinks/2)
			}
		})
	}
	clients.Wait()
	var ids []string
	for _, chain := range all {
		ids = append(ids, chain...)
	}
	return ids
}

// submit sends a job until it is accepted, and returns its id.
func (f *fire) submit(ctx context.Context, key, body string) string {
	return f.post(ctx, "/v1/jobs", body, map[string]string{"Idempotency-Key": key})
}

// submitBatch sends a file of rows and a batch over it, and returns the batch's id.
func (f *fire) submitBatch(ctx context.Context, key string) string {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	file, err := w.CreateFormFile("file", "rows.csv")
	if err == nil {
		_, err = fmt.Fprint(file, "name\n"+strings.Repeat("Lily\n", fireRows))
	}
	if err := errors.Join(err, w.WriteField("purpose", "batch"), w.Close()); err != nil {
		f.t.Error(err)
	}
	input := f.post(ctx, "/v1/files", form.String(), map[string]string{"Content-Type": w.FormDataContentType()})
	return f.post(ctx, "/v1/batches", fmt.Sprintf(
		`{"input_file_id":%q,"task":"text.complete","template":{"prompt":"{{name}} went","max_tokens":4}}`, input,
	), map[string]string{"Idempotency-Key": key})
}

// checkBatch waits for the end of a batch, and finds every row accounted for.
func (f *fire) checkBatch(ctx context.Context, id string) {
	f.t.Helper()
	var batch struct {
		Status string
		Counts struct{ Total, Completed, Failed int } `json:"request_counts"`
	}
	for try := 0; batch.Status != "completed"; try++ {
		err := f.servers[try%len(f.servers)].call(ctx, http.MethodGet, "/v1/batches/"+id, nil, &batch)
		if !pauseFor(ctx, 100*time.Millisecond) {
			f.t.Fatalf("batch %s is %+v at the end (%v)", id, batch, err)
		}
	}
	if c := batch.Counts; c.Total != fireRows || c.Completed != fireRows || c.Failed != 0 {
		f.t.Errorf("batch %s ended with %+v of %d rows", id, c, fireRows)
	}
}

// post does what a careful client does: it repeats the request at one gateway and the other
// until it has an answer, and returns the id in it.
func (f *fire) post(ctx context.Context, path, body string, header map[string]string) string {
	for try := 0; ; try++ {
		resp, err := f.servers[try%len(f.servers)].do(ctx, http.MethodPost, path, strings.NewReader(body), header)
		if err == nil {
			var made struct{ ID string }
			err = json.NewDecoder(resp.Body).Decode(&made)
			resp.Body.Close()
			if err == nil {
				return made.ID
			}
		}
		var problem *queue.Problem
		if errors.As(err, &problem) && problem.Code != "unavailable" {
			f.t.Errorf("%s: %v", path, err)
		}
		if !pauseFor(ctx, 100*time.Millisecond) {
			f.t.Errorf("%s was not accepted in time: %v", path, err)
			return ""
		}
	}
}

// await asks one gateway and the other for a job until it has ended.
func (f *fire) await(ctx context.Context, id string) *queue.Job {
	f.t.Helper()
	for try := 0; ; try++ {
		var job queue.Job
		err := f.servers[try%len(f.servers)].call(ctx, http.MethodGet, "/v1/jobs/"+id, nil, &job)
		if err == nil && job.State.Terminal() {
			return &job
		}
		if !pauseFor(ctx, 50*time.Millisecond) {
			f.t.Fatalf("job %s is %q at the end (%v)", id, job.State, err)
		}
	}
}

func (f *fire) terminalEvents(ctx context.Context, id string) int {
	f.t.Helper()
	return terminalEvents(ctx, f.t, f.servers[0], id)
}

// inbox receives webhooks.
type inbox struct {
	server *httptest.Server

	mu   sync.Mutex
	mail map[string]map[string]int // by job: how often a message came, by its id
}

func newInbox(t *testing.T) *inbox {
	b := &inbox{mail: map[string]map[string]int{}}
	b.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var message struct {
			Type string
			Data queue.Job
		}
		if err := json.NewDecoder(r.Body).Decode(&message); err != nil || r.Header.Get("webhook-id") == "" {
			http.Error(w, "no webhook", http.StatusBadRequest)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if message.Type != "job.succeeded" {
			return
		}
		if b.mail[message.Data.ID] == nil {
			b.mail[message.Data.ID] = map[string]int{}
		}
		b.mail[message.Data.ID][r.Header.Get("webhook-id")]++
	}))
	t.Cleanup(b.server.Close)
	return b
}

// check waits until a message of every job has arrived, and finds none under two ids.
func (b *inbox) check(ctx context.Context, t *testing.T, ids []string) {
	t.Helper()
	missing := func() (n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, id := range ids {
			if len(b.mail[id]) == 0 {
				n++
			}
		}
		return n
	}
	for missing() > 0 {
		if !pauseFor(ctx, 100*time.Millisecond) {
			t.Errorf("of %d jobs no webhook arrived", missing())
			break
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, messages := range b.mail {
		if len(messages) > 1 {
			t.Errorf("the end of job %s was told under %d ids", id, len(messages))
		}
	}
}

// arrived returns how many messages came.
func (b *inbox) arrived() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, messages := range b.mail {
		for _, times := range messages {
			n += times
		}
	}
	return n
}

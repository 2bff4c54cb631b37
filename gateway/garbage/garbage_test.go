package garbage_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"helicon/gateway/catalog"
	"helicon/gateway/garbage"
	"helicon/queue"
	"helicon/queue/storetest"
)

// nats.go leaves a goroutine behind now and then when an object is put.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

type world struct {
	*garbage.Collector
	clock *storetest.Aged
}

func start(t *testing.T) *world {
	t.Helper()
	server, err := queue.StartServer(queue.ServerConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	conn, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	q, err := queue.Open(t.Context(), conn, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	clock := &storetest.Aged{Store: q.Artifacts()}
	if q, err = queue.Open(t.Context(), conn, queue.Options{Store: clock}); err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{&garbage.Collector{Queue: q, Catalog: c, Keep: queue.LeastAge}, clock}
}

// follow keeps the catalog up to date until the test ends.
func (w *world) follow(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Catalog.Follow(ctx, w.Queue) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (w *world) store(t *testing.T, tenant, content string) queue.Artifact {
	t.Helper()
	about, err := w.Queue.PutArtifact(t.Context(), tenant, strings.NewReader(content), 1<<20, queue.Artifact{MediaType: "text/plain"})
	if err != nil {
		t.Fatal(err)
	}
	return about
}

func (w *world) submit(t *testing.T, task, input string) *queue.Job {
	t.Helper()
	job := &queue.Job{Tenant: "a", Task: task, Input: []byte(input)}
	if err := w.Queue.Submit(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	return job
}

// finish runs the one image job that waits.
func (w *world) finish(t *testing.T, result queue.Artifact) {
	t.Helper()
	source, err := w.Queue.NewSource(t.Context(), "w1", "image")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := source.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, release, err := lease.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := lease.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := lease.Succeed(ctx, &queue.Result{Artifacts: []queue.Artifact{result}}); err != nil {
		t.Fatal(err)
	}
}

// collect makes a pass, which must not find the catalog behind.
func (w *world) collect(t *testing.T, dryRun bool) garbage.Report {
	t.Helper()
	r, err := w.Collect(t.Context(), dryRun)
	for deadline := time.Now().Add(10 * time.Second); errors.Is(err, garbage.ErrBehind) && time.Now().Before(deadline); {
		r, err = w.Collect(t.Context(), dryRun)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// utf16 spells ASCII as UTF-16 with the low bytes first.
func utf16(text string) string {
	var out strings.Builder
	for _, b := range []byte("\xff\xfe" + text) {
		if out.WriteByte(b); b < 0x80 {
			out.WriteByte(0)
		}
	}
	return out.String()
}

func TestOnlyGarbageIsDeleted(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.follow(t)
	ctx := t.Context()
	kept := map[string]queue.Artifact{
		"a finished job's input":  w.store(t, "a", "input of a finished job"),
		"a finished job's result": w.store(t, "a", "result"),
		"a queued job's input":    w.store(t, "a", "input of a queued job"),
		"a file":                  w.store(t, "a", "file"),
		"a batch's results":       w.store(t, "a", "results"),
		"a row's input":           w.store(t, "a", "row"),
		"a row's, in UTF-16":      w.store(t, "a", "wide row"),
	}
	kept["a batch's file"] = w.store(t, "a", "image,prompt\n"+kept["a row's input"].SHA256+",a\n")
	kept["a batch's file in UTF-16"] = w.store(t, "a", utf16("prompt,image\na,"+kept["a row's, in UTF-16"].SHA256))
	gone := map[string]queue.Artifact{
		"unused":            w.store(t, "a", "unused"),
		"an expired file":   w.store(t, "a", "expired"),
		"of another tenant": w.store(t, "b", "result"),
	}
	image := func(name string) string { return `{"image":"` + kept[name].SHA256 + `"}` }
	done := w.submit(t, "image.edit", image("a finished job's input"))
	w.finish(t, kept["a finished job's result"])
	w.submit(t, "image.edit", image("a queued job's input"))
	w.submit(t, "batch.run", `{"source":"`+kept["a batch's file"].SHA256+`"}`)
	w.submit(t, "batch.run", `{"source":"`+kept["a batch's file in UTF-16"].SHA256+`"}`)
	past := time.Now().Add(-time.Second)
	for id, f := range map[string]queue.File{
		"file-1": {Artifact: kept["a file"]}, "file-2": {Artifact: gone["an expired file"], Expires: &past},
	} {
		f.ID = id
		if _, err := w.Queue.Files().Put(ctx, "a", id, f, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Queue.Batches().Put(ctx, "a", "B1", map[string]any{"results": kept["a batch's results"]}, 0); err != nil {
		t.Fatal(err)
	}
	if r := w.collect(t, false); r.Garbage != 0 || r.Artifacts != len(kept)+len(gone) || r.Bytes == 0 {
		t.Errorf("while all are young: %+v", r)
	}
	w.clock.Pass()
	kept["young"] = w.store(t, "a", "young")

	var freed int64
	for _, a := range gone {
		freed += a.Size
	}
	check := func(what string, r garbage.Report) {
		t.Helper()
		if r.Garbage != len(gone) || r.Freed != freed || r.Artifacts != len(kept)+len(gone) {
			t.Errorf("%s: %+v, want %d artifacts of %d bytes", what, r, len(gone), freed)
		}
	}
	check("dry run", w.collect(t, true))
	check("run", w.collect(t, false))
	for name, a := range kept {
		if _, err := w.Queue.ArtifactInfo(ctx, "a", a.SHA256); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, a := range gone {
		tenant := map[bool]string{true: "b", false: "a"}[name == "of another tenant"]
		if _, err := w.Queue.ArtifactInfo(ctx, tenant, a.SHA256); !errors.Is(err, queue.ErrNoArtifact) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A job that is deleted takes its artifacts along.
	log, err := w.Queue.EventLog(ctx)
	if err := errors.Join(err, w.Queue.Delete(ctx, done.ID), w.Catalog.Delete(ctx, "a", done.ID, log)); err != nil {
		t.Fatal(err)
	}
	if r := w.collect(t, false); r.Garbage != 2 {
		t.Errorf("after the job is deleted: %+v", r)
	}
	if r := w.collect(t, false); r.Garbage != 0 || r.Artifacts != len(kept)-2 {
		t.Errorf("once more: %+v", r)
	}
}

// Without knowing what happened, nothing is deleted.
func TestBehind(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.store(t, "a", "input")
	w.clock.Pass()
	w.submit(t, "image.edit", `{}`)
	if r, err := w.Collect(t.Context(), false); !errors.Is(err, garbage.ErrBehind) || r.Garbage != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// What a running job has stored is not referred to yet.
func TestRunningJob(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.follow(t)
	w.store(t, "a", "before the job")
	w.submit(t, "image.generate", `{}`)
	source, err := w.Queue.NewSource(t.Context(), "w1", "image")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := source.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, release, err := lease.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := lease.Start(ctx); err != nil {
		t.Fatal(err)
	}
	w.store(t, "a", "the first of two pictures")
	w.store(t, "b", "of another tenant")
	w.Keep = -time.Minute // everything is old
	if r := w.collect(t, true); r.Artifacts != 3 || r.Garbage != 2 {
		t.Errorf("%+v", r)
	}
}

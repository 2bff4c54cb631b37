//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"helicon/queue"
)

// scaledOut is what docker-compose.yml describes, as processes of this machine: three NATS
// servers, PostgreSQL, an S3 server, two gateways and four workers.
type scaledOut struct {
	gateways [2]*client
	bucket   gofakes3.Backend
}

const bucket = "helicon"

func newScaledOut(t *testing.T) *scaledOut {
	t.Helper()
	db := newPostgres(t)
	db.start(t)
	s := &scaledOut{bucket: s3mem.New()}
	store := httptest.NewServer(gofakes3.New(s.bucket).Server())
	t.Cleanup(store.Close)
	var urls []string
	for _, node := range natsCluster(t, 3) {
		node.start(t)
		urls = append(urls, node.url())
	}
	run := func(args ...string) *process {
		cmd := command(context.Background(), append(args,
			"--nats", strings.Join(urls, ","), "--data", t.TempDir(), "--log-level", "error",
			"--artifacts", "s3://"+bucket+"?region=us-east-1&endpoint="+store.URL)...)
		cmd.Env = append(cmd.Env, "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret")
		return start(t, cmd)
	}
	for i := range s.gateways {
		addr := "127.0.0.1:" + freePort(t)
		run("gateway", "--addr", addr, "--db", db.url())
		s.gateways[i] = &client{base: "http://" + addr, http: &http.Client{}}
	}
	for range 2 {
		run("worker", "--modality", "text", "--threads", "1")
		run("worker", "--modality", "image", "--threads", "1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, g := range s.gateways {
		for !g.alive(ctx) { // the cluster elects its leaders first
			if !pauseFor(ctx, 100*time.Millisecond) {
				t.Fatal("no gateway is ready")
			}
		}
		awaitWorkers(t, g, 4)
	}
	return s
}

// TestScaledOut uses the scaled-out form as if it were one server: what one gateway takes, the
// other tells of, whichever worker did it.
func TestScaledOut(t *testing.T) {
	if testing.Short() {
		t.Skip("starts ten processes: not run with -short")
	}
	s := newScaledOut(t)
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 32, 16))); err != nil {
		t.Fatal(err)
	}
	var uploaded queue.Artifact
	resp, err := s.gateways[0].do(t.Context(), http.MethodPost, "/v1/uploads", bytes.NewReader(picture.Bytes()), map[string]string{"Content-Type": "image/png"})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(resp.Body).Decode(&uploaded); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	var ids []string
	for i := range 36 {
		request := completion("Once", 6, uint64(i))
		if i%6 == 0 {
			request = &submission{Task: "image.adjust", Seed: seed(1), Input: map[string]any{
				"image": uploaded.SHA256, "operations": []any{map[string]any{"op": "invert"}},
			}}
		}
		job, err := s.gateways[i%2].submit(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	workers := map[string]bool{}
	for i, id := range ids {
		other := s.gateways[(i+1)%2]
		job, _ := finish(t, other, id)
		if job.State != queue.Succeeded || job.Attempts != 1 {
			t.Fatalf("job %s ended %s after %d attempts: %v", id, job.State, job.Attempts, job.Problem)
		}
		workers[job.Worker] = true
		for _, a := range job.Result.Artifacts {
			resp, err := other.do(t.Context(), http.MethodGet, a.URL, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if made, err := png.Decode(resp.Body); err != nil || made.Bounds().Dx() != 32 {
				t.Errorf("job %s: %v", id, err)
			}
			resp.Body.Close()
		}
	}
	if len(workers) < 2 {
		t.Errorf("the work was done by %v alone", workers)
	}
	for i, g := range s.gateways {
		var listed struct{ Data []queue.Job }
		if err := g.call(t.Context(), http.MethodGet, "/v1/jobs?state=succeeded&limit=100", nil, &listed); err != nil || len(listed.Data) != len(ids) {
			t.Errorf("gateway %d lists %d jobs, %v; want %d", i+1, len(listed.Data), err, len(ids))
		}
	}
	objects, err := s.bucket.ListBucket(bucket, nil, gofakes3.ListBucketPage{})
	if err != nil || len(objects.Contents) < 2 {
		t.Errorf("the bucket has %v, %v; want the upload and what was made of it", objects, err)
	}
	s.checkBatch(t)
}

// checkBatch gives a batch to one gateway and has the other tell of it.
func (s *scaledOut) checkBatch(t *testing.T) {
	t.Helper()
	const rows = 24
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	if err := w.WriteField("purpose", "batch"); err != nil {
		t.Fatal(err)
	}
	part, err := w.CreateFormFile("file", "rows.csv")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(part, "animal")
	for i := range rows {
		fmt.Fprintf(part, "fox number %d\n", i)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	resp, err := s.gateways[0].do(t.Context(), http.MethodPost, "/v1/files", &form, map[string]string{"Content-Type": w.FormDataContentType()})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var file struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&file); err != nil {
		t.Fatal(err)
	}
	var batch struct {
		ID, Job, Status string
		Counts          struct{ Total, Completed, Failed int } `json:"request_counts"`
	}
	request := map[string]any{"input_file_id": file.ID, "task": "text.complete", "template": map[string]any{"prompt": "The {{animal}}", "max_tokens": 4}}
	if err := s.gateways[0].call(t.Context(), http.MethodPost, "/v1/batches", request, &batch); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	finish(t, s.gateways[1], batch.Job)
	if err := s.gateways[1].call(t.Context(), http.MethodGet, "/v1/batches/"+batch.ID, nil, &batch); err != nil {
		t.Fatal(err)
	}
	if batch.Status != "completed" || batch.Counts.Completed != rows || batch.Counts.Failed != 0 {
		t.Errorf("the batch is %+v", batch)
	}
	t.Logf("a batch of %d rows in %v", rows, time.Since(begun).Round(time.Millisecond))
}

package queue_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"helicon/queue"
	"helicon/queue/storetest"
)

func connect(t *testing.T) *nats.Conn {
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
	return conn
}

func openOn(t *testing.T, conn *nats.Conn, opts queue.Options) *queue.Queue {
	t.Helper()
	q, err := queue.Open(t.Context(), conn, opts)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestObjectBucketConformance(t *testing.T) {
	t.Parallel()
	q := openOn(t, connect(t), queue.Options{})
	storetest.Run(t, q.Artifacts(), q)
}

func openAged(t *testing.T) (*queue.Queue, *storetest.Aged) {
	t.Helper()
	conn := connect(t)
	a := &storetest.Aged{Store: openOn(t, conn, queue.Options{}).Artifacts()}
	return openOn(t, conn, queue.Options{Store: a}), a
}

func store(t *testing.T, q *queue.Queue, content string) string {
	t.Helper()
	about, err := q.PutArtifact(t.Context(), "a", strings.NewReader(content), 1000, queue.Artifact{MediaType: "text/plain"})
	if err != nil {
		t.Fatal(err)
	}
	return about.SHA256
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	q, clock := openAged(t)
	ctx := t.Context()
	unused, again, named := store(t, q, "unused"), store(t, q, "stored again"), store(t, q, "named by a job")
	clock.Pass()
	young := store(t, q, "young")
	store(t, q, "stored again")
	job := &queue.Job{Tenant: "a", Task: "image.edit", Input: []byte(`{"image":"` + named + `","other":"` + strings.Repeat("0", 64) + `"}`)}
	if err := q.Submit(ctx, job); err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-queue.LeastAge)
	for digest, want := range map[string]bool{unused: true, again: false, named: false, young: false, strings.Repeat("0", 64): false} {
		if got, err := q.Discard(ctx, "a", digest, before); err != nil || got != want {
			t.Errorf("%s: discarded %t, %v", digest, got, err)
		}
		_, err := q.ArtifactInfo(ctx, "a", digest)
		if gone := digest == unused || strings.HasPrefix(digest, "00"); errors.Is(err, queue.ErrNoArtifact) != gone {
			t.Errorf("%s: %v", digest, err)
		}
	}
	if _, err := q.Discard(ctx, "a", young, time.Now()); err == nil {
		t.Error("what is young can be discarded")
	}
}

// Bytes that were found to be stored, or that an accepted job names, are there, whoever
// discards what is old at the same time.
func TestDiscardRace(t *testing.T) {
	t.Parallel()
	q, clock := openAged(t)
	const rounds, artifacts = 5, 20
	for round := range rounds {
		var digests []string
		for i := range artifacts {
			digests = append(digests, store(t, q, fmt.Sprint("artifact ", round, i)))
		}
		clock.Pass()
		before := time.Now().Add(-queue.LeastAge)
		var all sync.WaitGroup
		for i, digest := range digests {
			all.Go(func() {
				if _, err := q.Discard(t.Context(), "a", digest, before); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() {
				content := fmt.Sprint("artifact ", round, i)
				if _, err := q.PutArtifact(t.Context(), "a", strings.NewReader(content), 1000, queue.Artifact{}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for i, digest := range digests {
			_, content, err := q.Artifact(t.Context(), "a", digest)
			if err != nil {
				t.Fatalf("round %d, artifact %d: %v", round, i, err)
			}
			if b, err := io.ReadAll(content); err != nil || !bytes.Equal(b, fmt.Append(nil, "artifact ", round, i)) {
				t.Errorf("round %d, artifact %d: %q, %v", round, i, b, err)
			}
			content.Close()
		}
	}
}

func TestDigests(t *testing.T) {
	t.Parallel()
	a, b := strings.Repeat("a1", 32), strings.Repeat("0f", 32)
	for text, want := range map[string][]string{
		"": nil, a: {a}, a + "0": nil, a[1:]: nil, "x" + a + "," + b + "\n": {a, b},
		`{"image":"` + a + `","images":["` + b + `"]}`: {a, b}, strings.ToUpper(a): nil, "sha256:" + a: {a},
	} {
		if got := slices.Collect(queue.Digests([]byte(text))); !slices.Equal(got, want) {
			t.Errorf("%q: %v", text, got)
		}
	}
	for range queue.Digests([]byte(a + " " + b)) {
		break
	}
}

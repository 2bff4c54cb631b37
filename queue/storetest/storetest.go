// Package storetest is the conformance suite of stores of artifacts.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"helicon/queue"
)

// sizes are those of artifacts that are stored: around the chunks of JetStream and, the
// last one, the parts of S3.
var sizes = []int{0, 1, 128 << 10, 128<<10 + 1, 1 << 20, 17<<20 + 17}

// content returns bytes that look random, the same for the same size.
func content(size int) []byte {
	out := make([]byte, size)
	var seed [32]byte
	seed[0] = byte(size)
	_, _ = rand.NewChaCha8(seed).Read(out)
	return out
}

func describe(b []byte) queue.Artifact {
	sum := sha256.Sum256(b)
	return queue.Artifact{SHA256: hex.EncodeToString(sum[:]), MediaType: "image/png", Size: int64(len(b)), Name: "Bild – 画像.png", Width: 7}
}

// Run tests a store that is empty, and a queue that uses it.
func Run(t *testing.T, s queue.Store, q *queue.Queue) {
	t.Run("bytes", func(t *testing.T) { testBytes(t, s) })
	t.Run("absent", func(t *testing.T) { testAbsent(t, s) })
	t.Run("touch", func(t *testing.T) { testTouch(t, s) })
	t.Run("list", func(t *testing.T) { testList(t, s) })
	t.Run("concurrent", func(t *testing.T) { testConcurrent(t, s) })
	t.Run("queue", func(t *testing.T) { testQueue(t, q) })
	t.Run("changed bytes", func(t *testing.T) { testChanged(t, s, q) })
}

func put(t *testing.T, s queue.Store, tenant string, b []byte) queue.Artifact {
	t.Helper()
	about := describe(b)
	if err := s.Put(t.Context(), tenant, about, bytes.NewReader(b)); err != nil {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
	return about
}

func testBytes(t *testing.T, s queue.Store) {
	ctx := t.Context()
	for _, size := range sizes {
		b := content(size)
		begun := time.Now().Add(-2 * time.Second) // servers tell whole seconds
		about := put(t, s, "a", b)
		got, touched, err := s.Info(ctx, "a", about.SHA256)
		if err != nil || got != about || touched.Before(begun) || time.Since(touched) < -2*time.Second {
			t.Errorf("%d bytes: %+v, %v, %v", size, got, touched, err)
		}
		for _, offset := range []int{0, 1, size / 2, size - 1} {
			if offset < 0 || offset >= max(size, 1) {
				continue
			}
			body, err := s.Open(ctx, "a", about.SHA256, int64(offset))
			if err != nil {
				t.Fatalf("%d bytes from %d: %v", size, offset, err)
			}
			read, err := io.ReadAll(body)
			if err := errors.Join(err, body.Close()); err != nil || !bytes.Equal(read, b[offset:]) {
				t.Errorf("%d bytes from %d: %d came, %v", size, offset, len(read), err)
			}
		}
		if err := s.Delete(ctx, "a", about.SHA256); err != nil {
			t.Error(err)
		}
	}
}

func testAbsent(t *testing.T, s queue.Store) {
	ctx := t.Context()
	about := put(t, s, "a", content(100))
	absent := func(tenant, digest string) {
		t.Helper()
		if _, _, err := s.Info(ctx, tenant, digest); !errors.Is(err, queue.ErrNoArtifact) {
			t.Errorf("info: %v", err)
		}
		if body, err := s.Open(ctx, tenant, digest, 0); !errors.Is(err, queue.ErrNoArtifact) {
			t.Errorf("open: %v, %v", body, err)
		}
		if err := s.Touch(ctx, tenant, digest); !errors.Is(err, queue.ErrNoArtifact) {
			t.Errorf("touch: %v", err)
		}
		if err := s.Delete(ctx, tenant, digest); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	absent("b", about.SHA256) // it belongs to another tenant
	absent("a", strings.Repeat("0", 64))
	if err := s.Delete(ctx, "a", about.SHA256); err != nil {
		t.Error(err)
	}
	absent("a", about.SHA256)
	if again := put(t, s, "a", content(100)); again != about {
		t.Errorf("%+v", again)
	}
	if _, _, err := s.Info(ctx, "a", about.SHA256); err != nil {
		t.Errorf("put again: %v", err)
	}
	if err := s.Delete(ctx, "a", about.SHA256); err != nil {
		t.Error(err)
	}
}

func testTouch(t *testing.T, s queue.Store) {
	ctx := t.Context()
	b := content(1000)
	about := put(t, s, "a", b)
	_, first, err := s.Info(ctx, "a", about.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		if err := s.Touch(ctx, "a", about.SHA256); err != nil {
			t.Fatal(err)
		}
		got, second, err := s.Info(ctx, "a", about.SHA256)
		if err != nil || got != about {
			t.Fatalf("%+v, %v", got, err)
		}
		if second.After(first) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("touched at %v, put at %v", second, first)
		}
	}
	body, err := s.Open(ctx, "a", about.SHA256, 0)
	if err != nil {
		t.Fatal(err)
	}
	read, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil || !bytes.Equal(read, b) {
		t.Errorf("%d bytes, %v", len(read), err)
	}
	if err := s.Delete(ctx, "a", about.SHA256); err != nil {
		t.Error(err)
	}
}

// names lists what is stored.
func names(t *testing.T, s queue.Store) (list []string) {
	t.Helper()
	for one, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if time.Since(one.Touched) > time.Minute {
			t.Errorf("%+v", one)
		}
		list = append(list, fmt.Sprintf("%s/%s %d", one.Tenant, one.SHA256, one.Size))
	}
	slices.Sort(list)
	return list
}

func testList(t *testing.T, s queue.Store) {
	ctx := t.Context()
	if list := names(t, s); len(list) != 0 {
		t.Errorf("an empty store has %v", list)
	}
	var want []string
	for i := range 120 {
		tenant := []string{"a", "b", "c-1"}[i%3]
		about := put(t, s, tenant, content(1000+i))
		want = append(want, fmt.Sprintf("%s/%s %d", tenant, about.SHA256, about.Size))
	}
	slices.Sort(want)
	if list := names(t, s); !slices.Equal(list, want) {
		t.Errorf("%d are listed, %d are stored", len(list), len(want))
	}
	seen := 0
	for range s.All(ctx) { // who has seen enough may go
		if seen++; seen == 3 {
			break
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range s.All(ended) {
		if err == nil {
			t.Error("listed after the end")
		}
		break
	}
	for i := range 120 {
		if err := s.Delete(ctx, []string{"a", "b", "c-1"}[i%3], describe(content(1000+i)).SHA256); err != nil {
			t.Error(err)
		}
	}
	if list := names(t, s); len(list) != 0 {
		t.Errorf("%v is left", list)
	}
}

// Who puts the same bytes at the same time as others leaves them whole.
func testConcurrent(t *testing.T, s queue.Store) {
	b := content(300 << 10)
	about := describe(b)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := s.Put(t.Context(), "a", about, bytes.NewReader(b)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	body, err := s.Open(t.Context(), "a", about.SHA256, 0)
	if err != nil {
		t.Fatal(err)
	}
	read, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil || !bytes.Equal(read, b) {
		t.Errorf("%d bytes, %v", len(read), err)
	}
	if err := s.Delete(t.Context(), "a", about.SHA256); err != nil {
		t.Error(err)
	}
}

// testQueue is what users of the queue see.
func testQueue(t *testing.T, q *queue.Queue) {
	ctx := t.Context()
	b := content(3 << 20)
	about, err := q.PutArtifact(ctx, "a", bytes.NewReader(b), int64(len(b)), queue.Artifact{MediaType: "image/png"})
	if err != nil || about.SHA256 != describe(b).SHA256 {
		t.Fatalf("%+v, %v", about, err)
	}
	if again, err := q.PutArtifact(ctx, "a", bytes.NewReader(b), int64(len(b)), queue.Artifact{MediaType: "image/gif"}); err != nil || again != about {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := q.PutArtifact(ctx, "a", bytes.NewReader(b), int64(len(b))-1, queue.Artifact{}); !errors.Is(err, queue.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	_, content, err := q.Artifact(ctx, "a", about.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	for _, at := range []struct{ offset, length int }{{0, 10}, {1 << 20, 100}, {5, 1000}, {1100, 10}, {len(b) - 7, 7}, {0, len(b)}} {
		if _, err := content.Seek(int64(at.offset), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		read := make([]byte, at.length)
		if _, err := io.ReadFull(content, read); err != nil || !bytes.Equal(read, b[at.offset:at.offset+at.length]) {
			t.Errorf("from %d: %v", at.offset, err)
		}
	}
	if n, err := content.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if _, err := q.ArtifactInfo(ctx, "b", about.SHA256); !errors.Is(err, queue.ErrNoArtifact) {
		t.Errorf("another tenant's: %v", err)
	}
}

// testChanged reads what is not what its name says.
func testChanged(t *testing.T, s queue.Store, q *queue.Queue) {
	about := describe([]byte("what was stored"))
	if err := s.Put(t.Context(), "a", about, strings.NewReader("what now stands")); err != nil {
		t.Fatal(err)
	}
	_, content, err := q.Artifact(t.Context(), "a", about.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if read, err := io.ReadAll(content); err == nil || int64(len(read)) == about.Size {
		t.Errorf("read %q, %v", read, err)
	}
	if err := s.Delete(t.Context(), "a", about.SHA256); err != nil {
		t.Error(err)
	}
}

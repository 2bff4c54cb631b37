package s3_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/goleak"

	"helicon/queue"
	"helicon/queue/s3"
	"helicon/queue/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts an S3 server in memory and returns the URL of a bucket there.
func serve(t *testing.T) (url string, stop func()) {
	t.Helper()
	server := httptest.NewServer(gofakes3.New(s3mem.New()).Server())
	t.Cleanup(server.Close)
	return "s3://helicon/some/prefix?region=us-east-1&endpoint=" + server.URL, server.Close
}

func open(t *testing.T, url string) *s3.Store {
	t.Helper()
	at, err := s3.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := s3.Open(t.Context(), at, credentials.NewStaticV4("key", "secret", ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	url, _ := serve(t)
	s := open(t, url)
	open(t, url) // the bucket is there now
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
	q, err := queue.Open(t.Context(), conn, queue.Options{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, s, q)
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	url, stop := serve(t)
	s := open(t, url)
	stop()
	digest := strings.Repeat("0", 64)
	if _, _, err := s.Info(t.Context(), "a", digest); !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("info: %v", err)
	}
	for _, err := range s.All(t.Context()) {
		if !errors.Is(err, queue.ErrUnavailable) {
			t.Errorf("list: %v", err)
		}
	}
	at, err := s3.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := s3.Open(t.Context(), at, credentials.NewStaticV4("key", "very-secret", "")); !errors.Is(err, queue.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("open: %v", err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("to find that out took %v", took)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]s3.Location{
		"s3://b":      {Bucket: "b", Endpoint: "s3.amazonaws.com"},
		"s3://b/":     {Bucket: "b", Endpoint: "s3.amazonaws.com"},
		"s3://b/c/d/": {Bucket: "b", Prefix: "c/d", Endpoint: "s3.amazonaws.com"},
		"s3://b/c?endpoint=http://minio:9000&region=eu-1": {Bucket: "b", Prefix: "c", Endpoint: "minio:9000", Plain: true, Region: "eu-1"},
		"s3://b?endpoint=https%3A%2F%2Fs3.example.org%2F": {Bucket: "b", Endpoint: "s3.example.org"},
		"s3://b/../c": {Bucket: "b", Prefix: "c", Endpoint: "s3.amazonaws.com"},
	} {
		if got, err := s3.Parse(url); err != nil || got != want {
			t.Errorf("%s: %+v, %v", url, got, err)
		}
	}
	for _, url := range []string{
		"", "b", "http://b", "s3://", "s3:///b", "s3://b#c", "s3://key:hidden@b", "s3://b?endpoint=minio:9000", "s3://b?endpoint=http://key:hidden@minio",
		"s3://b?endpoint=http://minio/path", "s3://b?region=a&region=b", "s3://b?key=hidden", "s3://b?%zz",
	} {
		if got, err := s3.Parse(url); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %+v, %v", url, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("s3://b/c?endpoint=http://minio:9000&region=eu-1")
	f.Fuzz(func(t *testing.T, url string) {
		if at, err := s3.Parse(url); err == nil && (at.Bucket == "" || at.Endpoint == "") {
			t.Errorf("%+v", at)
		}
	})
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// cluster starts n nats-servers that form one, as --nats names them, and returns
// them and their URLs.
func cluster(t *testing.T, n int) ([]*server.Server, string) {
	t.Helper()
	var routes []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, "nats://"+l.Addr().String())
		l.Close()
	}
	var servers []*server.Server
	var urls []string
	for i, route := range routes {
		_, port, _ := net.SplitHostPort(strings.TrimPrefix(route, "nats://"))
		opts := &server.Options{
			ServerName: fmt.Sprintf("nats-%d", i+1), Host: "127.0.0.1", Port: server.RANDOM_PORT,
			JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
			Cluster: server.ClusterOpts{Name: "helicon", Host: "127.0.0.1"},
			Routes:  server.RoutesFromStr(strings.Join(routes, ",")),
		}
		if _, err := fmt.Sscan(port, &opts.Cluster.Port); err != nil {
			t.Fatal(err)
		}
		s, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		go s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a server of the cluster is not ready")
		}
		urls = append(urls, s.ClientURL())
	}
	return servers, strings.Join(urls, ",")
}

// openCluster opens a replicated queue, waiting for the cluster to elect its leaders.
func openCluster(t *testing.T, urls string) *Queue {
	t.Helper()
	nc, err := Connect(urls, "", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		// A request that was sent before there is a leader is never answered.
		try, cancel := context.WithTimeout(ctx, 3*time.Second)
		q, err := Open(try, nc, Options{Replicas: 3, AckWait: 2 * time.Second})
		cancel()
		if err == nil {
			return q
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// TestClusterLosesAServer runs jobs on three servers and stops one of them in the
// middle: what was accepted ends all the same.
func TestClusterLosesAServer(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers elect leaders: not run with -short")
	}
	servers, urls := cluster(t, 3)
	q := openCluster(t, urls)
	// Without a deadline of its own a request that gets lost is given up after 5 seconds.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer time.AfterFunc(90*time.Second, cancel).Stop()
	accept := func() string {
		job := Job{ID: NewID(), Task: "text.complete"}
		for {
			err := q.Submit(ctx, &job)
			if err == nil {
				return job.ID
			}
			if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	var ids []string
	for range 10 {
		ids = append(ids, accept())
	}
	working, stopWorking := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		workUntil(working, t, q)
	}()
	servers[2].Shutdown()
	servers[2].WaitForShutdown()
	for range 10 {
		ids = append(ids, accept())
	}
	for _, id := range ids {
		job, err := q.Wait(ctx, id)
		for errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
			job, err = q.Wait(ctx, id)
		}
		if err != nil || job.State != Succeeded || job.Result.Text != id {
			t.Fatalf("job %s: %+v, %v", id, job, err)
		}
	}
	stopWorking()
	<-done
}

// workUntil is a worker that answers every job with its id.
func workUntil(ctx context.Context, t *testing.T, q *Queue) {
	var s *Source
	for s == nil {
		var err error
		if s, err = q.NewSource(ctx, "w", "text"); err != nil && ctx.Err() != nil {
			t.Error(err)
			return
		}
	}
	defer s.Close()
	for {
		l, err := s.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			continue
		}
		held, release, err := l.Hold(ctx)
		if err != nil {
			continue
		}
		if err := l.Start(held); err == nil {
			// An error here is what redelivery is for.
			_ = l.Succeed(held, &Result{Text: l.Job.ID})
		}
		release()
	}
}

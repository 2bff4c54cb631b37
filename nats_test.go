package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// runNATS, in the environment, makes the test binary behave as a nats-server: its value is
// a natsNode in JSON.
const runNATS = "HELICON_TEST_RUN_NATS"

// natsNode is a server of a cluster.
type natsNode struct {
	Name    string
	Client  int // ports
	Cluster int
	Dir     string
	Routes  []string
}

// serve runs the server until the process is told to end.
func (n natsNode) serve() error {
	s, err := server.NewServer(&server.Options{
		ServerName: n.Name, Host: "127.0.0.1", Port: n.Client, JetStream: true, StoreDir: n.Dir, NoLog: true, NoSigs: true,
		Cluster: server.ClusterOpts{Name: "helicon", Host: "127.0.0.1", Port: n.Cluster},
		Routes:  server.RoutesFromStr(strings.Join(n.Routes, ",")),
	})
	if err != nil {
		return err
	}
	go s.Start()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// start runs a server of the cluster as a process.
func (n natsNode) start(t *testing.T) *process {
	t.Helper()
	settings, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), runNATS+"="+string(settings))
	return start(t, cmd)
}

func (n natsNode) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.Client) }

// natsCluster returns n servers that will find one another.
func natsCluster(t *testing.T, n int) []natsNode {
	t.Helper()
	nodes := make([]natsNode, n)
	var routes []string
	for i := range nodes {
		nodes[i] = natsNode{Name: fmt.Sprintf("nats-%d", i+1), Client: freePortNumber(t), Cluster: freePortNumber(t), Dir: t.TempDir()}
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", nodes[i].Cluster))
	}
	for i := range nodes {
		nodes[i].Routes = routes
	}
	return nodes
}

func freePortNumber(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

package main

import (
	"context"
	"net/http"
	"time"
)

// healthCmd asks a running helicon how it is, for those who look after containers.
type healthCmd struct {
	Addr  serverURL `help:"Address of the gateway, or of a worker's metrics." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	Ready bool      `help:"Ask a gateway whether jobs can be accepted, not only whether it lives."`
}

// healthTime bounds the question.
const healthTime = 3 * time.Second

// Run ends with status 0 if it is well.
func (c *healthCmd) Run(ctx context.Context, _ *environment) error {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	server := &client{base: string(c.Addr), http: &http.Client{}}
	return server.call(ctx, http.MethodGet, path, nil, nil)
}

package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/queue"
)

// healthz answers GET /healthz: the process lives.
func (g *Gateway) healthz(c *gin.Context) error {
	writeJSON(c, http.StatusOK, map[string]string{"status": "ok"})
	return nil
}

// readiness is the body of GET /readyz.
type readiness struct {
	Ready  bool             `json:"ready"` // jobs can be accepted
	Checks map[string]check `json:"checks"`
}

// check is one thing looked at.
type check struct {
	OK     bool   `json:"ok"`
	Code   string `json:"code,omitempty"` // of the problem, if there is one
	Detail string `json:"detail"`
	Count  int    `json:"count,omitempty"`
}

// readyTime bounds what readyz waits for: whoever asks has little patience.
const readyTime = 2 * time.Second

// readyz answers GET /readyz: jobs can be accepted. What keeps nobody from submitting, such as
// that there are no workers yet, is told but does not count.
func (g *Gateway) readyz(c *gin.Context) error {
	ctx, cancel := context.WithTimeout(c.Request.Context(), readyTime)
	defer cancel()
	answer := readiness{Ready: true, Checks: map[string]check{
		"server": {OK: true, Detail: "requests are taken"},
		"disk":   {OK: true, Detail: "there is room"},
		"queue":  {OK: true, Detail: "jobs are accepted"},
	}}
	refuse := func(name string, err error) {
		p := tell(err)
		answer.Ready = false
		answer.Checks[name] = check{Code: p.Code, Detail: p.Detail}
	}
	if g.draining.Load() {
		refuse("server", errShuttingDown)
	}
	switch err := g.queue.Ready(ctx); {
	case errors.Is(err, queue.ErrFull):
		refuse("disk", err)
	case err != nil:
		refuse("queue", err)
	}
	g.checkCatalog(ctx, &answer)
	answer.Checks["workers"] = g.checkWorkers(ctx)
	status := http.StatusOK
	if !answer.Ready {
		status = http.StatusServiceUnavailable
	}
	c.Writer.Header().Set("Cache-Control", "no-store")
	writeJSON(c, status, answer)
	return nil
}

// checkCatalog looks at the database. Without it jobs are accepted all the same, unless the
// keys are in it by which clients are known.
func (g *Gateway) checkCatalog(ctx context.Context, answer *readiness) {
	if g.config.Catalog == nil {
		return
	}
	if err := g.config.Catalog.Ready(ctx); err != nil {
		answer.Checks["database"] = check{Code: "unavailable", Detail: "the database does not answer: lists, search and usage have to wait"}
		answer.Ready = answer.Ready && g.keys == nil
		return
	}
	answer.Checks["database"] = check{OK: true, Detail: "the database answers"}
	lag := g.config.Catalog.Lag()
	behind := check{OK: lag.Age < lagAllowed, Detail: "lists and search are up to date", Count: int(lag.Events)}
	if lag.Events > 0 {
		behind.Detail = fmt.Sprintf("%d events wait to be listed, since %s", lag.Events, lag.Age.Round(time.Millisecond))
	}
	if !behind.OK {
		behind.Code = "behind"
	}
	answer.Checks["projection"] = behind
}

// lagAllowed is how long lists and search may be behind without that being worth a word.
const lagAllowed = 10 * time.Second

// checkWorkers tells how many there are.
func (g *Gateway) checkWorkers(ctx context.Context) check {
	l, err := g.directory.list(ctx)
	switch {
	case err != nil:
		return check{Code: tell(err).Code, Detail: "it is not known whether workers are alive"}
	case len(l.workers) == 0:
		return check{Code: "no_workers", Detail: "no worker is alive: jobs are accepted and wait"}
	}
	return check{OK: true, Detail: fmt.Sprintf("%d alive", len(l.workers)), Count: len(l.workers)}
}

// drain tells balancers that this gateway is about to end, and gives them time to notice: new
// requests are still answered, on connections that are closed behind them.
func (g *Gateway) drain() {
	g.draining.Store(true)
	if g.config.Drain == 0 {
		return
	}
	g.log.Info("draining: not ready any more", "until", time.Now().Add(g.config.Drain).Format(time.RFC3339))
	time.Sleep(g.config.Drain)
}

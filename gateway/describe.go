package gateway

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"helicon/queue"
)

// listTasks answers GET /v1/tasks.
func (g *Gateway) listTasks(c *gin.Context) error {
	l, err := g.directory.list(c.Request.Context())
	if err != nil {
		return err
	}
	tasks := make([]queue.Task, len(l.tasks))
	for i, t := range l.tasks {
		tasks[i] = t.Task
	}
	writeJSON(c, http.StatusOK, listOf(tasks))
	return nil
}

// listModels answers GET /v1/models.
func (g *Gateway) listModels(c *gin.Context) error {
	l, err := g.directory.list(c.Request.Context())
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, listOf(l.models))
	return nil
}

// showModel answers GET /v1/models/{id}; an id may contain slashes.
func (g *Gateway) showModel(c *gin.Context) error {
	l, err := g.directory.list(c.Request.Context())
	if err != nil {
		return err
	}
	id := strings.TrimPrefix(c.Param("id"), "/")
	m := l.model(id)
	if m == nil {
		return queue.Problemf("model_not_found", "No worker serves the model %q.", id)
	}
	writeJSON(c, http.StatusOK, m)
	return nil
}

// listWorkers answers GET /v1/workers.
func (g *Gateway) listWorkers(c *gin.Context) error {
	l, err := g.directory.list(c.Request.Context())
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, listOf(l.workers))
	return nil
}

// healthz answers GET /healthz: the process lives.
func (g *Gateway) healthz(c *gin.Context) error {
	writeJSON(c, http.StatusOK, map[string]string{"status": "ok"})
	return nil
}

// readiness is the body of GET /readyz.
type readiness struct {
	Ready  bool             `json:"ready"`
	Checks map[string]check `json:"checks"`
}

// check is one thing looked at.
type check struct {
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Count  int    `json:"count,omitempty"`
}

// readyz answers GET /readyz: jobs can be accepted. Without workers they can, and
// wait; the answer says so.
func (g *Gateway) readyz(c *gin.Context) error {
	ctx := c.Request.Context()
	answer := readiness{Ready: true, Checks: map[string]check{}}
	answer.Checks["queue"] = check{OK: true, Detail: "jobs are accepted"}
	answer.Checks["workers"] = check{Detail: "no worker is alive: jobs are accepted and wait"}
	select {
	case <-g.closing:
		answer.Ready = false
		answer.Checks["queue"] = check{Detail: errShuttingDown.Detail}
	default:
	}
	if err := g.queue.Ready(ctx); err != nil {
		answer.Ready = false
		answer.Checks["queue"] = check{Detail: tell(err).Detail}
	}
	if l, err := g.directory.list(ctx); err == nil && len(l.workers) > 0 {
		answer.Checks["workers"] = check{OK: true, Detail: "workers are alive", Count: len(l.workers)}
	}
	status := http.StatusOK
	if !answer.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(c, status, answer)
	return nil
}
